package redact

import "testing"

func TestAddr(t *testing.T) {
	// printf %s alice@example.org | sha256sum | head -c 8
	for in, want := range map[string]string{"alice@example.org": "~7a64adf2@example.org", "Alice@Example.ORG": "~7a64adf2@example.org", "printer": "~ba70e1da", "": "~e3b0c442"} {
		if got := Addr(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
