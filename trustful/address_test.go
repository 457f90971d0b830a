package trustful

import (
	"errors"
	"strings"
	"testing"
)

func TestNormal(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"plain":            {"alice@example.org", "alice@example.org"},
		"upper case":       {"Alice.B@EXAMPLE.Org", "alice.b@example.org"},
		"sub-address":      {"alice+Lists@example.org", "alice+lists@example.org"},
		"odd characters":   {"a!#$%&'*/=?^_`{|}~-@example.org", "a!#$%&'*/=?^_`{|}~-@example.org"},
		"closed network":   {"root@gateway", "root@gateway"},
		"longest local":    {strings.Repeat("a", 64) + "@example.org", strings.Repeat("a", 64) + "@example.org"},
		"local too long":   {strings.Repeat("a", 65) + "@example.org", ""},
		"address too long": {"alice@" + strings.Repeat(strings.Repeat("d", 62)+".", 4) + "org", ""},
		"null":             {"", ""},
		"no domain":        {"alice", ""},
		"no local part":    {"@example.org", ""},
		"quoted":           {`"alice b"@example.org`, ""},
		"two at":           {"alice@b@example.org", ""},
		"blank":            {"ali ce@example.org", ""},
		"line end":         {"alice\r\n@example.org", ""},
		"bracket":          {"ali>ce@example.org", ""},
		"not ASCII":        {"älice@example.org", ""},
		"domain not ASCII": {"alice@exämple.org", ""},
		"address literal":  {"alice@[192.0.2.1]", ""},
		"empty label":      {"alice@example..org", ""},
		"final dot":        {"alice@example.org.", ""},
		"empty atom":       {"ali..ce@example.org", ""},
		"kelvin sign":      {"\u212aate@example.org", ""}, // lower-cases to "k" in Unicode
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Normal(tt.in)
			if got != tt.want || (tt.want == "") != errors.Is(err, ErrAddress) {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
			if err == nil {
				if again, _ := Normal(got); again != got {
					t.Errorf("normal of normal is %q", again)
				}
			}
		})
	}
}
