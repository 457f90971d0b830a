package signet_test

import (
	"encoding/json"
	"errors"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/internal/vectors"
)

type negativeVector struct {
	Name, File, Mutation, Kind string
	Libdime                    struct {
		Load           bool
		Validate       *string
		Errors         []string
		ValidateErrors []string `json:"validate_errors"`
		FpID           string   `json:"fp_id"`
		Asan           string
		Crash          string
	}
}

// stricter is what libdime accepts and we refuse.
var stricter = vectors.Exceptions{
	"sgnt-trailing-lenfixed": "octets behind the last signature change the fingerprint and are signed by nobody",
	"sgnt-enckey-*":          "an encryption key that is no compressed point of the curve fails when mail is already moving",
	"sgnt-sok-*":             "a secondary key that is cut short: libdime reads behind it",
	"user-zero-ssr-sig":      "the user never signed; libdime does not look",
}

// otherName is what verifies and still may not be used to address anyone.
var otherName = vectors.Exceptions{
	"sgnt-id-other-domain": "the identifier names another domain, and libdime never compares it",
	"user-id-other":        "the identifier names another user, and libdime never compares it",
}

// simple is the origin and the author of the message that the negative vectors are made from.
func simple(t *testing.T, c *collection) (origin, author string) {
	t.Helper()
	for _, m := range vectors.Part[[]map[string]json.RawMessage](t, c.set, "messages") {
		if string(m["name"]) != `"simple"` {
			continue
		}
		var actors map[string]map[string]string
		if err := json.Unmarshal(m["actors"], &actors); err != nil {
			t.Fatal(err)
		}
		return actors["origin"]["keys"], actors["author"]["keys"]
	}
	t.Fatal("no message simple")
	return "", ""
}

func TestVectorsNegativeSignets(t *testing.T) {
	c := open(t)
	all := vectors.Part[[]negativeVector](t, c.set, "negative_signets")
	origin, author := simple(t, c)
	org, user := c.whole(t, "org-signet", origin), c.whole(t, "user-signet", author)
	var names []string
	vectors.Each(t, all, func(v negativeVector) string { return v.Name }, func(t *testing.T, v negativeVector) {
		names = append(names, v.Name)
		s, err := signet.Decode(c.set.File(t, v.File))
		if err == nil {
			if f, ferr := s.Fingerprint(signet.ID); v.Libdime.FpID != "" && (ferr != nil || f.String() != v.Libdime.FpID) {
				t.Errorf("fingerprint %v: %v", f, ferr)
			}
			err = verifyNegative(t, c, s, v, origin, org)
		}
		want := v.Libdime.Load && v.Libdime.Validate != nil && accepting[*v.Libdime.Validate]
		if stricter.Has(t, v.Name) {
			if !want {
				t.Error("listed as refused by ours alone, yet libdime refuses it too")
			}
			want = false
		}
		if (err == nil) != want {
			t.Fatalf("%s: accepted %v, want %v: %v", v.Mutation, err == nil, want, err)
		}
		if err != nil {
			checkClass(t, v, err)
			return
		}
		if s.Form().String() != *v.Libdime.Validate {
			t.Errorf("accepted as %v, libdime as %s", s.Form(), *v.Libdime.Validate)
		}
		name := map[signet.Kind]string{signet.Org: org.Name(), signet.User: user.Name()}[s.Kind()]
		named := s.VerifyName(name) == nil
		if listed := otherName.Has(t, v.Name); s.Form() == signet.ID && named == listed {
			t.Errorf("is %s's: %v", name, named)
		}
	})
	stricter.Stale(t, c.set, names)
	otherName.Stale(t, c.set, names)
}

var accepting = map[string]bool{"id": true, "full": true, "crypto": true, "ssr": true}

func verifyNegative(t *testing.T, c *collection, s *signet.Signet, v negativeVector, origin string, org *signet.Signet) error {
	t.Helper()
	switch s.Kind() {
	case signet.Org:
		return s.VerifyOrg([]key.SigningPublic{c.pok(t, origin)})
	case signet.User:
		return s.VerifyUser(org)
	}
	return s.VerifyRequest()
}

// checkClass holds our class against libdime's state, where that names one.
func checkClass(t *testing.T, v negativeVector, err error) {
	t.Helper()
	class, ok := errors.AsType[key.Class](err)
	if !ok {
		t.Fatalf("an error of no class: %v", err)
	}
	if v.Libdime.Validate == nil {
		return
	}
	switch *v.Libdime.Validate {
	case "incomplete":
		if class != key.ErrIncomplete {
			t.Errorf("%v, libdime says incomplete", err)
		}
	case "invalid": // libdime does not look at keys and texts before signatures
		if class != key.ErrSignature && class != key.ErrKeyValue && class != key.ErrText && class != key.ErrIdentifier {
			t.Errorf("%v, libdime says invalid", err)
		}
	}
}
