package signet_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// testdata/dialects.json holds what the reference code of each dialect makes of one set of keys: seeds and scalars of
// ascending octets, an organization "Example Org" of example.com with a secondary key, and Alice.

func loadDialects(t testing.TB) map[string]map[string]string {
	t.Helper()
	b, err := os.ReadFile("testdata/dialects.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string]string
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 {
		t.Fatalf("no octets: %v", err)
	}
	return b
}

func pair(t testing.TB, signing, encryption byte) key.Pair {
	t.Helper()
	ascending := func(from byte) []byte {
		b := make([]byte, 32)
		for i := range b {
			b[i] = from + byte(i)
		}
		return b
	}
	s, err := key.NewSigning(ascending(signing))
	if err != nil {
		t.Fatal(err)
	}
	e, err := key.NewEncryption(ascending(encryption))
	if err != nil {
		t.Fatal(err)
	}
	return key.Pair{Signing: s, Encryption: e}
}

// The keys of testdata/dialects.json.
func orgPair(t testing.TB) key.Pair     { return pair(t, 0x00, 0x20) }
func userPair(t testing.TB) key.Pair    { return pair(t, 0x40, 0x60) }
func rotatedPair(t testing.TB) key.Pair { return pair(t, 0x80, 0xc0) }
func sokPair(t testing.TB) key.Pair     { return pair(t, 0xa0, 0xc0) }

var orgDetails = signet.Details{
	Fields: []signet.Field{ // not in order: the builder sorts
		{ID: signet.FieldNamed, Name: "note", Value: []byte("hello")},
		{ID: signet.FieldName, Value: []byte("Example Org")},
	},
	Name: "example.com",
}

var userDetails = signet.Details{
	Fields: []signet.Field{{ID: signet.FieldName, Value: []byte("Alice")}},
	Name:   "alice@example.com",
}

// build makes one of the reference's objects; nil when it is no signet.
func build(t *testing.T, d signet.Dialect, name string) (*signet.Signet, error) {
	t.Helper()
	org, user, rotated := orgPair(t), userPair(t), rotatedPair(t)
	first := signet.RequestDetails{Dialect: d}
	second := signet.RequestDetails{Dialect: d, Previous: &user.Signing}
	alternate := signet.RequestDetails{Dialect: d, Alternates: []key.EncryptionPublic{rotated.Encryption.Public()}}
	keysAlone := signet.Details{Form: signet.Crypto}
	switch name {
	case "org_id":
		details := orgDetails
		details.Dialect = d
		details.Secondary = []signet.SecondaryKey{{Permissions: signet.SignSignets | signet.SignMessages, Key: sokPair(t).Signing.Public()}}
		return signet.NewOrg(org, details)
	case "org_signet":
		return signet.NewOrg(org, signet.Details{Dialect: d, Form: signet.Crypto})
	case "ssr", "request":
		return signet.NewRequest(user, first)
	case "rot_ssr", "rot_request":
		return signet.NewRequest(rotated, second)
	case "alt_ssr":
		return signet.NewRequest(user, alternate)
	case "user_id":
		return signet.NewUser(user, first, org.Signing, userDetails)
	case "user_signet":
		return signet.NewUser(user, first, org.Signing, keysAlone)
	case "rot_user_crypto", "rot_signet":
		return signet.NewUser(rotated, second, org.Signing, keysAlone)
	case "alt_user":
		return signet.NewUser(user, alternate, org.Signing, keysAlone)
	case "org_key", "user_key", "enc_org_key", "enc_user_key", "org_fp", "user_fp", "rot_fp":
		return nil, nil
	}
	t.Fatalf("what is %q", name)
	return nil, nil
}

func TestDialects(t *testing.T) {
	dialects := map[string]signet.Dialect{"A": signet.A, "B": signet.B, "C": signet.C}
	for dialectName, objects := range loadDialects(t) {
		d := dialects[dialectName]
		for name, text := range objects {
			want := unhex(t, text)
			made, err := build(t, d, name)
			if err != nil {
				t.Errorf("%s %s: %v", dialectName, name, err)
				continue
			}
			if made == nil {
				continue
			}
			if !bytes.Equal(made.Bytes(), want) {
				t.Errorf("%s %s: made\n%x\nwant\n%x", dialectName, name, made.Bytes(), want)
			}
			read, err := signet.Parse(want)
			if err != nil {
				t.Errorf("%s %s: %v", dialectName, name, err)
				continue
			}
			if read.Dialect() != d {
				t.Errorf("%s %s: read as %v", dialectName, name, read.Dialect())
			}
			verify(t, dialectName+" "+name, read)
		}
	}
}

// verify checks a signet of the sample, and that no other organization's would do.
func verify(t *testing.T, name string, s *signet.Signet) {
	t.Helper()
	org, err := signet.NewOrg(orgPair(t), orgDetails)
	if err != nil {
		t.Fatal(err)
	}
	other, err := signet.NewOrg(userPair(t), orgDetails)
	if err != nil {
		t.Fatal(err)
	}
	previous, err := signet.NewUser(userPair(t), signet.RequestDetails{}, orgPair(t).Signing, userDetails)
	if err != nil {
		t.Fatal(err)
	}
	switch s.Kind() {
	case signet.Org:
		if err := s.VerifyOrg([]key.SigningPublic{org.SigningKey()}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.VerifyOrg([]key.SigningPublic{other.SigningKey()}); !errors.Is(err, key.ErrPOK) {
			t.Errorf("%s under another key: %v", name, err)
		}
	case signet.User:
		if err := s.VerifyUser(org); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.VerifyUser(other); !errors.Is(err, key.ErrSignature) {
			t.Errorf("%s under another organization: %v", name, err)
		}
	default:
		if err := s.VerifyRequest(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, ok := s.Custody(); ok {
		if err := s.VerifyCustody(previous); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Fingerprints of the sample, base64 in A and B, raw in C.
func TestDialectFingerprints(t *testing.T) {
	all := loadDialects(t)
	for _, c := range []struct {
		dialect, name string
		form          signet.Form
		want          string
	}{
		{"A", "org_id", signet.Crypto, "NzA+bGFOPNWIEHwE6HEzY/KM54h8whmlics/jrSV3Lz3GjPTclvS5OdtC8vCEdQIHrpwsR5t4FohQZfbMOI3OQ"},
		{"A", "org_id", signet.Full, "SscHtlOm9V32EspH0KA4fc9tuTfX4ZAeICkYC675kmTSBP9LpBnauWcw+sOzD2Zt3Ebl7zg/V7t6BM2xfzSFnA"},
		{"A", "org_id", signet.ID, "5QqWrDN16Eh6UZp8DH6gy932KWq0k8yj+ARwciJ4nhfatNSDLfLkhglvXa6+PxVzkWsOYha/AdFMYYo/cixxcQ"},
		{"A", "ssr", signet.Request, "JvRu61QDs/r5vkeGrb74zn7Woow/JEzjfzeHi6QvJz3L7grLQZM1pc8I7gNvOs3wq+mHO/TZTW/AY/THf/cYQw"},
		{"A", "user_id", signet.Request, "JvRu61QDs/r5vkeGrb74zn7Woow/JEzjfzeHi6QvJz3L7grLQZM1pc8I7gNvOs3wq+mHO/TZTW/AY/THf/cYQw"},
		{"A", "user_id", signet.Crypto, "7PQDH6iIyLy8Tv+JEJeCmVxlxLH7jxsoEBrsLLbdyN5r0EHnTElKkXA95EEYrplDCncWio4/aSrFowCXzVbP4A"},
		{"A", "user_id", signet.Full, "xbXC0JmA5ET+qyyoOeKBSYLHkiy1rU94LSk7ULIF+r6dIRKaeIwCweZVopZxwCnpiHPmMMpYr9Sf3bXcGf5auA"},
		{"A", "user_id", signet.ID, "CoRQBq4l7prQrVgPpkTNSlMLW7GZ94xFnltX/+8Tn+0BLLa1SrIqKXAPh9BLjP1sMvl+iD4MnCKAmGoek8JWYg"},
		{"B", "org_id", signet.Crypto, "oft2Me81ZuH+HPY/EvXpWlD3z4Z8vDdkA3Mqw0CdpExDrAnOguZjEk/VA70N/36WdWLtREXNnCFzGjwqrTqXbQ"},
		{"B", "org_id", signet.Full, "AYjiTtXPRoK3cG6aLVG4uUJv8ngHvFJ615PRX8dsiUI0TVpqxZ+OaXquLwaUm3flgabm8CF6gHvYnP6LUAAaLA"},
		{"B", "org_id", signet.ID, "CcXn1EqC3+Pt9pJfvsOF4RC0WJL/jmakGyQvtk9qqgK/IOlr6pyp/WcoZ8+KrM+vOe7xGZu+jAMFRcEL2W6MJg"},
		{"B", "user_id", signet.Crypto, "LqwEO3cYlbO3Z8rntgGh/hSkxwaZ6lR64VP1BwPFL1v3/76K0XGbcz3vx17Lya/2eJoSU+U/b6xDPYMl2Nr+2w"},
		{"B", "user_id", signet.Full, "1gluMv1G2o5wydrCa5js4IlZOAELaVearIq/8fe83DIDap8tTQWNzLD9Kv7HUVnYGVh0+5ALi5y6UQq16baYVw"},
		{"B", "user_id", signet.ID, "l7Q8i4YwuCq2a4m1IX1nlLCJOKGXf13mDifIncNTnbdeDetnKjB3o2OVV3+UU10jmRJpu+Xr5Frzqz8+exe7Qw"},
	} {
		f := fingerprint(t, unhex(t, all[c.dialect][c.name]), c.form)
		if f.String() != c.want {
			t.Errorf("%s %s %v: %s", c.dialect, c.name, c.form, f)
		}
	}
	for name, of := range map[string]string{"org_fp": "org_signet", "user_fp": "user_signet", "rot_fp": "rot_signet"} {
		f := fingerprint(t, unhex(t, all["C"][of]), signet.Crypto)
		if !bytes.Equal(f[:], unhex(t, all["C"][name])) {
			t.Errorf("C %s: %s", of, f)
		}
	}
}

func fingerprint(t *testing.T, b []byte, form signet.Form) signet.Fingerprint {
	t.Helper()
	s, err := signet.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Fingerprint(form)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// PRIME's own armor of its own signet, and of a request, for which it has a type of its own.
func TestArmorOfC(t *testing.T) {
	const text = "-----BEGIN ORGANIZATIONAL SIGNET-----\n" +
		"BvAAAIYBIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4AyECH4pWbCBW\n" +
		"M9ApCUdH0uGPROBZk92npfiPSWB4IF9lblkEY0TIF18YvtEnTlN+cWUuyPoa76S+\n" +
		"cewVCP7PEszowtdsobxEO7wh/NssOMqC+bXuRgRfBT8NdiG4a8wW2qHuCg==\n=H0V1\n-----END ORGANIZATIONAL SIGNET-----\n"
	s, err := signet.Decode([]byte(text))
	if err != nil || string(s.Armored()) != text || s.Dialect() != signet.C {
		t.Errorf("%v", err)
	}
	r, err := signet.Parse(unhex(t, loadDialects(t)["C"]["request"]))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(r.Armored(), []byte("-----BEGIN SIGNET SIGNING REQUEST-----\n")) {
		t.Errorf("%s", r.Armored())
	}
	if again, err := signet.Decode(r.Armored()); err != nil || again.Kind() != signet.SSR {
		t.Errorf("request: %v", err)
	}
}

// In dialect A a request with alternate keys can be made, and read by libdime, but a signet made of it by nobody.
func TestAlternatesInA(t *testing.T) {
	alternates := signet.RequestDetails{Alternates: []key.EncryptionPublic{rotatedPair(t).Encryption.Public()}}
	r, err := signet.NewRequest(userPair(t), alternates)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signet.SignRequest(r, orgPair(t).Signing, userDetails); !errors.Is(err, key.ErrDialect) {
		t.Errorf("signed: %v", err)
	}
	s, err := signet.NewUser(userPair(t), alternates, orgPair(t).Signing, userDetails)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, "made at once", s)
	if len(s.AlternateKeys()) != 1 || s.AlternateKeys()[0] != rotatedPair(t).Encryption.Public() {
		t.Error("the alternate key is lost")
	}
	alternates.Dialect = signet.C
	if _, err := signet.NewRequest(userPair(t), alternates); !errors.Is(err, key.ErrUnknown) {
		t.Errorf("in dialect C: %v", err)
	}
	alternates.Dialect = signet.B
	if r, err = signet.NewRequest(userPair(t), alternates); err != nil {
		t.Fatal(err)
	}
	if s, err = signet.SignRequest(r, orgPair(t).Signing, userDetails); err != nil {
		t.Fatalf("in dialect B: %v", err)
	}
	verify(t, "signed in B", s)
}
