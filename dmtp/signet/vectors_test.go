package signet_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/internal/vectors"
)

type fingerprintVector struct {
	Hex    vectors.Hex
	Base64 string `json:"base64_nopad"`
}

type fieldVector struct {
	ID     byte
	Offset int
	Len    int
	Hex    *vectors.Hex
	SHA512 vectors.Hex
	Text   *string
	Name   string
}

type signetVector struct {
	File         string
	Kind         string
	Magic        uint16
	PEMTag       string      `json:"pem_tag"`
	BinarySHA512 vectors.Hex `json:"binary_hex_sha512"`
	BinaryLen    int         `json:"binary_len"`
	Fields       []fieldVector
	Fingerprints map[string]fingerprintVector
	Keys         string
	Org          string
	Previous     string
	SplitOf      string `json:"split_of"`
	Split        string
	SignerPOK    vectors.Hex     `json:"signer_pok_hex"`
	SignedBy     string          `json:"signed_by"`
	MadeWith     string          `json:"made_with"`
	Valid        map[string]bool `json:"signatures_valid_under_pok"`
	CustodyValid *bool           `json:"coc_signature_valid_under_previous"`
	SOKs         []struct {
		Perm     byte
		Priv     vectors.Hex
		Pub      vectors.Hex
		FieldHex vectors.Hex `json:"field_hex"`
	}
	AltPriv      vectors.Hex `json:"alt_priv"`
	AltPub       vectors.Hex `json:"alt_pub"`
	Note         string
	SigningSteps []string `json:"signing_steps"`
	Validate     []struct {
		With   string `json:"with_"`
		Result string
		Errors []string
	}
	Libdime *struct { // of a file that libdime writes and cannot read
		Load   bool
		Errors []string
	}
}

type keyPublics struct {
	File     string
	Magic    uint16
	PEMTag   string      `json:"pem_tag"`
	SignPriv vectors.Hex `json:"sign_priv"`
	SignPub  vectors.Hex `json:"sign_pub"`
	EncPriv  vectors.Hex `json:"enc_priv"`
	EncPub   vectors.Hex `json:"enc_pub"`
}

// A collection is the signets of a set by what they are named by.
type collection struct {
	set    *vectors.Set
	keys   map[string]keyPublics
	all    []signetVector
	byFile map[string]signetVector
}

func open(t testing.TB) *collection {
	t.Helper()
	c := &collection{set: vectors.Open(t), byFile: map[string]signetVector{}}
	c.keys = vectors.Part[map[string]keyPublics](t, c.set, "keys")
	c.all = vectors.Part[[]signetVector](t, c.set, "signets")
	for _, v := range c.all {
		c.byFile[v.File] = v
	}
	return c
}

func (c *collection) signet(t testing.TB, file string) *signet.Signet {
	t.Helper()
	s, err := signet.Decode(c.set.File(t, file))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return s
}

// whole finds the uncut signet of a kind that belongs to a name in keys; of several, the first.
func (c *collection) whole(t testing.TB, kind, name string) *signet.Signet {
	t.Helper()
	for _, v := range c.all {
		if v.Kind == kind && v.Keys == name && v.SplitOf == "" {
			return c.signet(t, v.File)
		}
	}
	t.Fatalf("no %s of %q", kind, name)
	return nil
}

func (c *collection) pok(t testing.TB, name string) key.SigningPublic {
	t.Helper()
	p, err := key.ParseSigningPublic(c.keys[name].SignPub)
	if err != nil {
		t.Fatalf("key %q: %v", name, err)
	}
	return p
}

// org is the organization that signed v; that of the whole, for a cut one.
func (c *collection) org(v signetVector) string {
	if v.SplitOf != "" {
		v = c.byFile[v.SplitOf]
	}
	return v.Org
}

func TestVectorsSignets(t *testing.T) {
	c := open(t)
	vectors.Each(t, c.all, func(v signetVector) string { return path.Base(v.File) }, func(t *testing.T, v signetVector) {
		if v.Libdime != nil {
			if _, err := signet.Decode(c.set.File(t, v.File)); err == nil || v.Libdime.Load {
				t.Errorf("accepted; libdime too: %v", v.Libdime.Load)
			}
			return
		}
		text := c.set.File(t, v.File)
		s, err := signet.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Armored(); !bytes.Equal(got, text) {
			t.Errorf("armored:\n%s", got)
		}
		checkOctets(t, s, v)
		checkFields(t, s, v)
		checkKeys(t, c, s, v)
		for form, want := range v.Fingerprints {
			f, err := s.Fingerprint(formByName(t, form))
			if err != nil || !bytes.Equal(f[:], want.Hex) || f.String() != want.Base64 {
				t.Errorf("%s fingerprint %v: %v", form, f, err)
			}
			if again, err := signet.ParseFingerprint(want.Base64); err != nil || !again.Equal(f) {
				t.Errorf("%s fingerprint read: %v", form, err)
			}
		}
		if v.SplitOf != "" {
			cut, err := c.signet(t, v.SplitOf).Cut(formByName(t, v.Split))
			if err != nil || !bytes.Equal(cut.Bytes(), s.Bytes()) {
				t.Errorf("cut from %s: %v", v.SplitOf, err)
			}
		}
		checkSignatures(t, c, s, v)
		if len(v.Validate) == 0 {
			t.Error("nothing is said of its validity")
		}
		for _, x := range v.Validate {
			checkValidity(t, c, s, v, x.With, x.Result)
		}
	})
}

func formByName(t testing.TB, name string) signet.Form {
	t.Helper()
	for f := signet.Request; f <= signet.ID; f++ {
		if f.String() == name {
			return f
		}
	}
	t.Fatalf("no form %q", name)
	return 0
}

func checkOctets(t *testing.T, s *signet.Signet, v signetVector) {
	t.Helper()
	raw := s.Bytes()
	if sum := sha512.Sum512(raw); len(raw) != v.BinaryLen || !bytes.Equal(sum[:], v.BinarySHA512) {
		t.Errorf("%d octets, want %d", len(raw), v.BinaryLen)
	}
	if uint16(s.Kind()) != v.Magic || s.Dialect() != signet.A {
		t.Errorf("a %v of dialect %v", s.Kind(), s.Dialect())
	}
	kinds := map[string]signet.Kind{"org-signet": signet.Org, "user-signet": signet.User, "ssr": signet.SSR}
	if kinds[v.Kind] != s.Kind() {
		t.Errorf("a %v, want %s", s.Kind(), v.Kind)
	}
	if !bytes.HasPrefix(s.Armored(), []byte("-----BEGIN "+v.PEMTag+"-----\n")) {
		t.Errorf("not in the armor %s", v.PEMTag)
	}
	if again, err := signet.Decode([]byte(s.Base64())); err != nil || !bytes.Equal(again.Bytes(), raw) {
		t.Errorf("bare base64: %v", err)
	}
	if again, err := signet.Decode(raw); err != nil || !bytes.Equal(again.Bytes(), raw) {
		t.Errorf("binary: %v", err)
	}
}

func checkFields(t *testing.T, s *signet.Signet, v signetVector) {
	t.Helper()
	fields := s.Fields()
	if len(fields) != len(v.Fields) || len(s.Unsigned()) != 0 {
		t.Fatalf("%d fields and %d unsigned, want %d", len(fields), len(s.Unsigned()), len(v.Fields))
	}
	at := 5
	for i, want := range v.Fields {
		f := fields[i]
		if f.ID != want.ID || f.Name != want.Name || len(f.Value) != want.Len {
			t.Errorf("field %d: %d %q, %d octets, want %d %q, %d", i, f.ID, f.Name, len(f.Value), want.ID, want.Name, want.Len)
		}
		if want.Offset+5 < at || s.Bytes()[want.Offset+5] != want.ID {
			t.Errorf("field %d: not at offset %d", i, want.Offset)
		}
		at = want.Offset + 5 + 1 + want.Len
		sum := sha512.Sum512(f.Value)
		switch {
		case want.Hex != nil && !bytes.Equal(*want.Hex, f.Value):
			t.Errorf("field %d: %x", i, f.Value)
		case want.Text != nil && *want.Text != string(f.Value):
			t.Errorf("field %d: %q, want %q", i, f.Value, *want.Text)
		case want.Hex == nil && want.Text == nil && !bytes.Equal(want.SHA512, sum[:]):
			t.Errorf("field %d: SHA-512 %x", i, sum)
		}
		if first, ok := s.Field(want.ID); !ok || (i == 0 || fields[i-1].ID != want.ID) && !bytes.Equal(first, f.Value) {
			t.Errorf("Field(%d) finds another value", want.ID)
		}
		if want.ID == signet.FieldIdentifier && s.Name() != string(f.Value) {
			t.Errorf("Name is %q", s.Name())
		}
	}
}

func checkKeys(t *testing.T, c *collection, s *signet.Signet, v signetVector) {
	t.Helper()
	signing, encryption := s.SigningKey(), s.EncryptionKey().Bytes()
	if k := c.keys[v.Keys]; !bytes.Equal(signing[:], k.SignPub) || !bytes.Equal(encryption[:], k.EncPub) {
		t.Errorf("other keys than those of %q", v.Keys)
	}
	if soks := s.SecondaryKeys(); v.SplitOf == "" && len(soks) != len(v.SOKs) {
		t.Errorf("%d secondary keys, want %d", len(soks), len(v.SOKs))
	}
	for i, want := range v.SOKs {
		sok := s.SecondaryKeys()[i]
		if byte(sok.Permissions) != want.Perm || !bytes.Equal(sok.Key[:], want.Pub) {
			t.Errorf("secondary key %d: %d %x", i, sok.Permissions, sok.Key)
		}
		if field := append([]byte{want.Perm, 0x40}, sok.Key[:]...); !bytes.Equal(field, want.FieldHex) {
			t.Errorf("secondary key %d: field %x", i, want.FieldHex)
		}
		if k, err := key.NewSigning(want.Priv); err != nil || k.Public() != sok.Key {
			t.Errorf("secondary key %d: another private key: %v", i, err)
		}
	}
	var alternates []string
	for _, k := range s.AlternateKeys() {
		alternates = append(alternates, fmt.Sprintf("%x", k.Bytes()))
	}
	if got, want := strings.Join(alternates, " "), hex.EncodeToString(v.AltPub); got != want {
		t.Errorf("alternate keys %q, want %q", got, want)
	}
	if v.AltPriv != nil {
		k, err := key.NewEncryption(v.AltPriv)
		if err != nil {
			t.Fatal(err)
		}
		if pub := k.Public().Bytes(); !bytes.Equal(pub[:], v.AltPub) {
			t.Errorf("another private alternate key, of %x", pub)
		}
	}
}

// checkSignatures holds single signatures against what an independent implementation said of them.
func checkSignatures(t *testing.T, c *collection, s *signet.Signet, v signetVector) {
	t.Helper()
	if v.Valid != nil {
		all := true
		for id, valid := range v.Valid {
			n, err := strconv.Atoi(id)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := s.Field(byte(n)); !ok {
				t.Errorf("signature %d is not there", n)
			}
			all = all && valid
			form := map[string]signet.Form{"4": signet.Crypto, "253": signet.Full, "255": signet.ID}[id]
			cut, err := s.Cut(form)
			if err != nil {
				t.Fatal(err)
			}
			pok, err := key.ParseSigningPublic(v.SignerPOK)
			if err != nil {
				t.Fatal(err)
			}
			if err := cut.VerifyOrg([]key.SigningPublic{pok}); valid && err != nil {
				t.Errorf("up to signature %d: %v", n, err)
			} else if !valid && !errors.Is(err, key.ErrSignature) {
				t.Errorf("up to signature %d: %v, want a wrong signature", n, err)
			}
		}
		if err := s.VerifyOrg([]key.SigningPublic{c.pok(t, v.Keys)}); (err == nil) != all {
			t.Errorf("whole: %v", err)
		}
	}
	if _, ok := s.Custody(); ok != (v.CustodyValid != nil) {
		t.Errorf("custody: %v", ok)
	}
	if v.CustodyValid != nil {
		err := s.VerifyCustody(c.whole(t, "user-signet", v.Previous))
		if (err == nil) != *v.CustodyValid || err != nil && !errors.Is(err, key.ErrCustody) {
			t.Errorf("custody from %s: %v, want %v", v.Previous, err, *v.CustodyValid)
		}
	}
}

// checkValidity asks of ours what libdime was asked, in the manifest's words. What ours answers otherwise stands in
// custodyDiffers, with the reasons.
func checkValidity(t *testing.T, c *collection, s *signet.Signet, v signetVector, with, result string) {
	t.Helper()
	var err error
	switch v.Kind {
	case "org-signet":
		err = validateOrg(t, c, s, v, with)
	case "user-signet":
		err = validateUser(t, c, s, v, with)
	case "ssr":
		err = validateRequest(t, c, s, v, with)
	default:
		t.Fatalf("kind %q", v.Kind)
	}
	got := "accepted as " + s.Form().String()
	if err != nil {
		got = class(t, err)
	}
	want := map[string]string{
		"id": "accepted as id", "full": "accepted as full", "crypto": "accepted as crypto", "ssr": "accepted as ssr",
		"invalid": "signature", "broken-coc": "custody", "unknown": "pok", "incomplete": "incomplete",
	}[result]
	if want == "" {
		t.Fatalf("unknown result %q", result)
	}
	if ours, reason := custodyDiffers(s, v, with); reason != "" {
		want = ours
	}
	if got != want {
		t.Errorf("with %s: %s, want %s (libdime: %s): %v", with, got, want, result, err)
	}
}

// custodyDiffers says where ours judges a chain of custody otherwise than libdime, and why.
func custodyDiffers(s *signet.Signet, v signetVector, with string) (want, reason string) {
	_, rotated := s.Custody()
	switch {
	case !rotated:
		return "", ""
	case v.Kind == "ssr" && with == "no previous":
		return "accepted as ssr", "custody that cannot be checked is for the caller to judge"
	case v.Kind == "ssr" && *v.CustodyValid:
		return "accepted as ssr", "libdime checks the wrong field of a request"
	case v.Kind == "ssr":
		return "custody", "the same class, by the right field"
	case strings.Contains(with, "no previous"):
		return "accepted as " + s.Form().String(), "custody that cannot be checked is for the caller to judge"
	case strings.HasPrefix(with, "wrong org"):
		return "signature", "the organization is looked at first"
	}
	return "", ""
}

func class(t *testing.T, err error) string {
	t.Helper()
	c, ok := errors.AsType[key.Class](err)
	if !ok {
		t.Fatalf("an error of no class: %v", err)
	}
	return string(c)
}

func validateOrg(t *testing.T, c *collection, s *signet.Signet, v signetVector, with string) error {
	t.Helper()
	own := c.pok(t, v.Keys)
	if v.SplitOf != "" {
		own = c.pok(t, c.byFile[v.SplitOf].Keys)
	}
	var other key.SigningPublic
	for _, o := range c.all {
		if o.Kind == "org-signet" && o.Keys != v.Keys {
			other = c.pok(t, o.Keys)
		}
	}
	poks := map[string][]key.SigningPublic{
		"own POK": {own}, "another POK only": {other}, "another POK then own POK": {other, own}, "no POK": {},
	}
	list, ok := poks[with]
	if !ok {
		t.Fatalf("with %q: not understood", with)
	}
	return s.VerifyOrg(list)
}

// validateUser understands: right org, wrong org, no org, sok org, org; previous, unrelated previous, no previous.
func validateUser(t *testing.T, c *collection, s *signet.Signet, v signetVector, with string) error {
	t.Helper()
	first, second, _ := strings.Cut(strings.ReplaceAll(with, ", ", " + "), " + ")
	name := c.org(v)
	switch first {
	case "right org", "org", "sok org":
	case "wrong org":
		for _, o := range c.all {
			if o.Kind == "org-signet" && o.Keys != name {
				name = o.Keys
			}
		}
	case "no org":
		return key.ErrPOK // ours cannot be asked without one
	default:
		t.Fatalf("with %q: not understood", with)
	}
	if err := s.VerifyUser(c.whole(t, "org-signet", name)); err != nil {
		return err
	}
	return validateCustody(t, c, s, v, second)
}

func validateCustody(t *testing.T, c *collection, s *signet.Signet, v signetVector, with string) error {
	t.Helper()
	switch {
	case with == "", with == "no previous":
		return nil
	case with == "previous", with == "previous user signet":
		return s.VerifyCustody(c.whole(t, "user-signet", v.Previous))
	case with == "unrelated previous":
		for _, o := range c.all {
			if o.Kind == "user-signet" && o.Keys != v.Keys && o.Keys != v.Previous && o.Libdime == nil {
				return s.VerifyCustody(c.signet(t, o.File))
			}
		}
	case strings.HasPrefix(with, "previous = "):
		name, _, _ := strings.Cut(strings.TrimPrefix(with, "previous = "), " ")
		return s.VerifyCustody(c.whole(t, "user-signet", name))
	}
	t.Fatalf("with %q: not understood", with)
	return nil
}

func validateRequest(t *testing.T, c *collection, s *signet.Signet, v signetVector, with string) error {
	t.Helper()
	if err := s.VerifyRequest(); err != nil {
		return err
	}
	if with == "nothing" || with == "org only" {
		with = ""
	}
	return validateCustody(t, c, s, v, with)
}

// TestVectorsRequestWithCustody: libdime's tool refuses a request that follows another signet; ours signs it.
func TestVectorsRequestWithCustody(t *testing.T) {
	c := open(t)
	tool := vectors.Part[struct {
		RC     int
		Stderr string
	}](t, c.set, "tool_refuses_chain_of_custody_ssr")
	if tool.RC == 0 || tool.Stderr == "" {
		t.Fatal("the tool does not refuse it: look at this test again")
	}
	rotated := 0
	for _, v := range c.all {
		if v.Kind != "ssr" || v.CustodyValid == nil || !*v.CustodyValid {
			continue
		}
		rotated++
		request, previous := c.signet(t, v.File), c.whole(t, "user-signet", v.Previous)
		if err := request.VerifyCustody(previous); err != nil {
			t.Errorf("%s: %v", v.File, err)
		}
		user := c.whole(t, "user-signet", v.Keys) // libdime's library, without its tool, made a signet of it
		var orgName string
		for _, u := range c.all {
			if u.Kind == "user-signet" && u.Keys == v.Keys && u.SplitOf == "" {
				orgName = u.Org
			}
		}
		org, err := key.NewSigning(c.keys[orgName].SignPriv)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signet.SignRequest(request, org, details(user))
		if err != nil || !bytes.Equal(signed.Bytes(), user.Bytes()) {
			t.Errorf("%s: signed otherwise than libdime does: %v", v.File, err)
		}
	}
	if rotated == 0 {
		t.Error("no request with a chain of custody")
	}
}

// details is what the organization said in a signet.
func details(s *signet.Signet) signet.Details {
	d := signet.Details{Dialect: s.Dialect(), Secondary: s.SecondaryKeys(), Name: s.Name(), Form: s.Form()}
	for _, f := range s.Fields() {
		if f.ID >= signet.FieldName && f.ID <= signet.FieldPhoto {
			d.Fields = append(d.Fields, f)
		}
	}
	return d
}

// TestVectorsRebuild makes every signet of the set again from its keys: Ed25519 is deterministic, so the octets are equal.
func TestVectorsRebuild(t *testing.T) {
	c := open(t)
	whole := c.all[:0:0]
	for _, v := range c.all {
		if v.SplitOf == "" && v.Libdime == nil {
			whole = append(whole, v)
		}
	}
	vectors.Each(t, whole, func(v signetVector) string { return path.Base(v.File) }, func(t *testing.T, v signetVector) {
		s := c.signet(t, v.File)
		want := s.Bytes()
		got, err := rebuild(t, c, s, v)
		if why := notRebuilt(s, v); why != "" {
			if err == nil && bytes.Equal(got.Bytes(), want) {
				t.Errorf("is rebuilt, although %s", why)
			}
			return
		}
		if err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%v", err)
		}
	})
}

// notRebuilt says why ours would not write a signet that libdime wrote.
func notRebuilt(s *signet.Signet, v signetVector) string {
	names := map[string]bool{}
	for _, f := range s.Fields() {
		if f.ID == signet.FieldNamed && names[f.Name] {
			return "two named fields have one name"
		}
		names[f.Name] = true
	}
	for _, valid := range v.Valid {
		if !valid {
			return "a SOK signed its own organizational signet"
		}
	}
	if v.CustodyValid != nil && !*v.CustodyValid {
		return "its custody is another's"
	}
	return ""
}

func (c *collection) pair(t testing.TB, name string) key.Pair {
	t.Helper()
	f, err := key.ParseFile(c.set.File(t, c.keys[name].File))
	if err != nil {
		t.Fatal(err)
	}
	return f.Pair
}

func rebuild(t *testing.T, c *collection, s *signet.Signet, v signetVector) (*signet.Signet, error) {
	t.Helper()
	p := c.pair(t, v.Keys)
	if s.Kind() == signet.Org {
		return signet.NewOrg(p, details(s))
	}
	r := signet.RequestDetails{Dialect: s.Dialect(), Alternates: s.AlternateKeys()}
	if v.Previous != "" {
		previous := c.pair(t, v.Previous).Signing
		r.Previous = &previous
	}
	if s.Kind() == signet.SSR {
		return signet.NewRequest(p, r)
	}
	org := c.pair(t, v.Org).Signing
	if bits, ok := strings.CutPrefix(v.SignedBy, "SOK with permission bits "); ok {
		org = c.sok(t, v.Org, bits)
	}
	return signet.NewUser(p, r, org, details(s))
}

// sok finds the private secondary key of an organization that has exactly these permissions.
func (c *collection) sok(t *testing.T, org, bits string) key.Signing {
	t.Helper()
	for _, v := range c.all {
		for _, k := range v.SOKs {
			if v.Keys == org && fmt.Sprint(k.Perm) == bits {
				signing, err := key.NewSigning(k.Priv)
				if err != nil {
					t.Fatal(err)
				}
				return signing
			}
		}
	}
	t.Fatalf("%s has no secondary key with permission bits %s", org, bits)
	return key.Signing{}
}
