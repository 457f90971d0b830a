package smtpwire_test

import (
	"testing"

	"dimegate/bridge/smtpwire"
)

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"a@b": "a@b", "A.b@C.D": "A.b@c.d", "a b@c": `"a b"@c`, `a"b\c@d`: `"a\"b\\c"@d`, ".a@b": `".a"@b`, "a..b@c": `"a..b"@c`, "a@x@b": `"a@x"@b`, "a@[192.0.2.1]": "a@[192.0.2.1]",
		"a@[IPv6:2001:DB8::1]": "a@[ipv6:2001:db8::1]", "ä@b": "ä@b", "a@": "", "@b": "", "a": "", "a\x01@b": "", "a@b.": "", "a@[300.1.1.1]": "", "a@b c": "", "a\u0085@b": "",
	} {
		got, _, err := smtpwire.Canonical(in, true)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q became %q, %v", in, got, err)
		}
	}
}
