package signet_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

func newOrg(t testing.TB, d signet.Details) *signet.Signet {
	t.Helper()
	s, err := signet.NewOrg(orgPair(t), d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newUser(t testing.TB, p key.Pair, previous *key.Signing, d signet.Details) *signet.Signet {
	t.Helper()
	s, err := signet.NewUser(p, signet.RequestDetails{Previous: previous}, orgPair(t).Signing, d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// body puts a header of the right length before fields.
func body(kind signet.Kind, fields ...[]byte) []byte {
	b := slices.Concat(fields...)
	return append([]byte{byte(kind >> 8), byte(kind), byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
}

// field1 is a field with a length of one octet, field2 with one of two.
func field1(id byte, value string) []byte {
	return append([]byte{id, byte(len(value))}, value...)
}

func field2(id byte, value string) []byte {
	return append([]byte{id, byte(len(value) >> 8), byte(len(value))}, value...)
}

func TestParseRefuses(t *testing.T) {
	const size = 35 + 36 // fields 1 and 3 of an organizational signet in dialect A
	org := newOrg(t, signet.Details{Form: signet.Crypto}).Bytes()[5:]
	pok, enc, sig := org[:35], org[35:size], org[size:]
	name, full := field1(16, "Name"), append([]byte{253}, sig[1:]...)
	id, final := field1(254, "example.com"), append([]byte{255}, sig[1:]...)
	soks := bytes.Repeat(append([]byte{2, 34, 1}, pok[2:]...), 65)
	user := newUser(t, userPair(t), nil, signet.Details{Form: signet.Crypto}).Bytes()[5:]
	primeOrg := unhex(t, loadDialects(t)["C"]["org_signet"])[5:]
	for title, c := range map[string]struct {
		in   []byte
		want key.Class
	}{
		"nothing":                   {nil, key.ErrShort},
		"four octets":               {[]byte{0x06, 0xf0, 0, 0}, key.ErrShort},
		"keys":                      {body(1952, pok), key.ErrType},
		"a message":                 {body(1847, pok), key.ErrType},
		"length too small":          {append(body(signet.Org, pok, enc, sig), 0), key.ErrLength},
		"length too large":          {body(signet.Org, pok, enc, sig)[:100], key.ErrLength},
		"empty body":                {body(signet.Org), key.ErrIncomplete},
		"no signature":              {body(signet.Org, pok, enc), key.ErrIncomplete},
		"no POK":                    {body(signet.Org, enc, sig), key.ErrIncomplete},
		"no encryption key":         {body(signet.Org, pok, sig), key.ErrIncomplete},
		"255 without 253":           {body(signet.Org, pok, enc, sig, name, id, final), key.ErrIncomplete},
		"255 without 254":           {body(signet.Org, pok, enc, sig, full, final), key.ErrIncomplete},
		"253 without 4":             {body(signet.Org, pok, enc, full), key.ErrIncomplete},
		"user without 5":            {body(signet.User, user[:71], user[136:]), key.ErrIncomplete},
		"user without 6":            {body(signet.User, user[:136]), key.ErrIncomplete},
		"request with 6":            {body(signet.SSR, user), key.ErrUnknown},
		"request with a name":       {body(signet.SSR, user[:136], name), key.ErrUnknown},
		"id 0":                      {body(signet.Org, pok, enc, sig, []byte{0}), key.ErrUnknown},
		"id 5":                      {body(signet.Org, pok, enc, sig, field1(5, "x")), key.ErrUnknown},
		"id 15":                     {body(signet.Org, pok, enc, sig, field1(15, "x")), key.ErrUnknown},
		"user id 7":                 {body(signet.User, user, field1(7, "x")), key.ErrUnknown},
		"behind 255":                {body(signet.Org, pok, enc, sig, full, id, final, []byte{1, 2, 3}), key.ErrTrailing},
		"255 twice":                 {body(signet.Org, pok, enc, sig, full, id, final, final), key.ErrTrailing},
		"behind a zero in C":        {body(signet.Org, primeOrg, []byte{0, 'a', 'b', 'c'}), key.ErrTrailing},
		"17 before 16":              {body(signet.Org, pok, enc, sig, field1(17, "x"), name, full), key.ErrOrder},
		"254 before 253":            {body(signet.Org, pok, enc, sig, id, full), key.ErrOrder},
		"16 twice":                  {body(signet.Org, pok, enc, sig, name, name, full), key.ErrDuplicate},
		"POK twice":                 {body(signet.Org, pok, pok, enc, sig), key.ErrDuplicate},
		"signature cut":             {body(signet.Org, pok, enc, sig[:64]), key.ErrTruncated},
		"length cut":                {body(signet.Org, pok, enc, sig, []byte{160, 0}), key.ErrTruncated},
		"identifier alone":          {body(signet.Org, pok, enc, sig, []byte{16}), key.ErrTruncated},
		"photo longer than all":     {body(signet.Org, pok, enc, sig, []byte{252, 255, 255, 255}), key.ErrTruncated},
		"named, name cut":           {body(signet.Org, pok, enc, sig, []byte{251, 9, 'x'}), key.ErrTruncated},
		"named, no name":            {body(signet.Org, pok, enc, sig, []byte{251, 0, 0, 1, 'x'}, full), key.ErrBadField},
		"named, control in name":    {body(signet.Org, pok, enc, sig, []byte{251, 1, 7, 0, 1, 'x'}, full), key.ErrText},
		"photo that is no PNG":      {body(signet.Org, pok, enc, sig, []byte{252, 0, 0, 3, 'G', 'I', 'F'}, full), key.ErrImage},
		"text that is not UTF-8":    {body(signet.Org, pok, enc, sig, field1(16, "\xff"), full), key.ErrText},
		"text with a line end":      {body(signet.Org, pok, enc, sig, field1(16, "a\nb"), full), key.ErrText},
		"text with C1 control":      {body(signet.Org, pok, enc, sig, field1(16, "\u0085"), full), key.ErrText},
		"identifier, an address":    {body(signet.Org, pok, enc, sig, full, field1(254, "a@example.com"), final), key.ErrIdentifier},
		"identifier, empty":         {body(signet.Org, pok, enc, sig, full, field1(254, ""), final), key.ErrIdentifier},
		"identifier, a domain":      {body(signet.User, user, full, id, final), key.ErrIdentifier},
		"POK format 41":             {body(signet.Org, []byte{1, 33, 0x41}, pok[3:], enc, sig), key.ErrKeyFormat},
		"POK of 34 octets":          {body(signet.Org, []byte{1, 34}, pok[2:], []byte{0}, enc, sig), key.ErrKeyFormat},
		"POK empty":                 {body(signet.Org, []byte{1, 0}, enc, sig), key.ErrKeyFormat},
		"POK of small order":        {body(signet.Org, []byte{1, 33, 0x40, 1}, make([]byte, 31), enc, sig), key.ErrKeyValue},
		"C key, A length":           {body(signet.Org, []byte{1, 32}, pok[3:], enc, sig), key.ErrKeyFormat},
		"encryption key 00":         {body(signet.Org, pok, []byte{3, 0, 1, 0}, sig), key.ErrKeyValue},
		"encryption key of zeros":   {body(signet.Org, pok, []byte{3, 0, 33, 2}, make([]byte, 32), sig), key.ErrKeyValue},
		"encryption key cut":        {body(signet.Org, pok, []byte{3, 0, 32}, enc[3:35], sig), key.ErrKeyValue},
		"SOK empty":                 {body(signet.Org, pok, []byte{2, 0}, enc, sig), key.ErrKeyFormat},
		"SOK short":                 {body(signet.Org, pok, []byte{2, 33, 1}, pok[2:34], enc, sig), key.ErrKeyFormat},
		"SOK of reserved rights":    {body(signet.Org, pok, []byte{2, 34, 16}, pok[2:], enc, sig), key.ErrKeyFormat},
		"SOK format 41":             {body(signet.Org, pok, []byte{2, 34, 1, 0x41}, pok[3:], enc, sig), key.ErrKeyFormat},
		"SOK of small order":        {body(signet.Org, pok, []byte{2, 34, 1, 0x40}, make([]byte, 32), enc, sig), key.ErrKeyValue},
		"SOK in dialect C":          {body(signet.Org, primeOrg[:34], []byte{2, 34, 1}, pok[2:], primeOrg[34:]), key.ErrUnknown},
		"alternate key in C":        {body(signet.SSR, primeOrg[:34], []byte{2}, primeOrg[35:69], primeOrg[34:69], []byte{5}, sig[1:]), key.ErrUnknown},
		"alternate key bad":         {body(signet.User, user[:71], []byte{3, 0, 1, 0}, user[71:]), key.ErrKeyValue},
		"too many SOKs":             {body(signet.Org, pok, soks, enc, sig), key.ErrTooLarge},
		"too many fields":           {body(signet.Org, pok, enc, sig, bytes.Repeat([]byte{21, 0}, 1022), full), key.ErrTooLarge},
		"larger than is read":       {body(signet.Org, pok, enc, sig, make([]byte, 1<<20)), key.ErrTooLarge},
		"encryption length no form": {body(signet.Org, pok, []byte{3, 32}, enc[3:35], sig), key.ErrTruncated},
	} {
		s, err := signet.Parse(c.in)
		if got, _ := errors.AsType[key.Class](err); got != c.want || s != nil {
			t.Errorf("%s: %v, want %s", title, err, string(c.want))
		}
		if err != nil && (strings.Contains(err.Error(), "example.com") || strings.Contains(err.Error(), "GIF")) {
			t.Errorf("%s: the error quotes the signet: %v", title, err)
		}
	}
	if _, err := signet.Parse(body(signet.Org, pok, soks[:64*36], enc, sig)); err != nil {
		t.Errorf("as many SOKs as may be: %v", err)
	}
	if _, err := signet.Parse(body(signet.Org, pok, enc, sig, bytes.Repeat([]byte{21, 0}, 1020), full)); err != nil {
		t.Errorf("as many fields as may be: %v", err)
	}
}

// No prefix of a signet is one, whatever length its header tells.
func TestParsePrefixes(t *testing.T) {
	whole := newUser(t, userPair(t), nil, userDetails).Bytes()
	cuts := 0
	for n := range len(whole) {
		if _, err := signet.Parse(whole[:n]); err == nil {
			t.Errorf("the first %d octets are a signet", n)
		}
		if n < 5 {
			continue
		}
		s, err := signet.Parse(body(signet.User, whole[5:n]))
		if err == nil { // where a field ends: a lower form, perhaps with fields that nobody signed
			cuts++
			if s.Form() == signet.ID || s.Name() != "" {
				t.Errorf("the first %d octets have a name", n)
			}
		}
	}
	if cuts != 4 { // behind 6, 16, 253 and 254
		t.Errorf("%d cuts parse", cuts)
	}
}

// What no signature covers is not shown as the signet's.
func TestUnsigned(t *testing.T) {
	whole := newUser(t, userPair(t), nil, userDetails)
	full, err := whole.Cut(signet.Full)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := signet.Parse(body(signet.User, full.Bytes()[5:], field1(254, "mallory@example.com")))
	if err != nil {
		t.Fatal(err)
	}
	org := newOrg(t, orgDetails)
	if err := forged.VerifyUser(org); err != nil {
		t.Fatal(err) // libdime reads it, too
	}
	if _, ok := forged.Field(254); ok || forged.Name() != "" || forged.Form() != signet.Full {
		t.Error("an unsigned name is shown")
	}
	if err := forged.VerifyName("mallory@example.com"); !errors.Is(err, key.ErrIdentifier) {
		t.Errorf("an unsigned name counts: %v", err)
	}
	if rest := forged.Unsigned(); len(rest) != 1 || rest[0].ID != 254 {
		t.Errorf("unsigned: %v", rest)
	}
	if len(forged.Fields()) != len(full.Fields()) {
		t.Error("Fields shows what is not signed")
	}
	cut, err := forged.Cut(signet.Full)
	if err != nil || !bytes.Equal(cut.Bytes(), full.Bytes()) {
		t.Errorf("cut: %v", err)
	}
	if _, err := forged.Cut(signet.ID); !errors.Is(err, key.ErrIncomplete) {
		t.Errorf("cut to a form that is not there: %v", err)
	}
	if _, err := newRequest(t).Cut(signet.Crypto); !errors.Is(err, key.ErrIncomplete) {
		t.Errorf("cut of a request: %v", err)
	}
	if _, err := whole.Cut(signet.Request); !errors.Is(err, key.ErrIncomplete) {
		t.Errorf("cut to a request: %v", err)
	}
	if again, err := whole.Cut(signet.ID); err != nil || !bytes.Equal(again.Bytes(), whole.Bytes()) {
		t.Errorf("cut to the whole: %v", err)
	}
	for _, f := range []signet.Form{signet.Crypto, signet.Full, signet.ID} {
		a, _ := whole.Fingerprint(f)
		cut, err := whole.Cut(f)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := cut.Fingerprint(f); err != nil || a != b {
			t.Errorf("%v: cutting changes the fingerprint: %v", f, err)
		}
	}
}

func newRequest(t testing.TB) *signet.Signet {
	t.Helper()
	s, err := signet.NewRequest(userPair(t), signet.RequestDetails{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An unassigned informational field is kept where a signature covers it.
func TestReserved(t *testing.T) {
	p := orgPair(t)
	core := newOrg(t, signet.Details{Form: signet.Crypto}).Bytes()[5:]
	signed := slices.Concat(core, field1(28, "\x00\xff"), field2(212, "later"))
	s, err := signet.Parse(body(signet.Org, signed, []byte{253}, p.Signing.Sign(signed)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.VerifyOrg([]key.SigningPublic{p.Signing.Public()}); err != nil {
		t.Error(err)
	}
	if v, ok := s.Field(28); !ok || string(v) != "\x00\xff" {
		t.Errorf("field 28: %x %v", v, ok)
	}
	if signet.FieldTitle(signet.Org, 28) != "Unassigned" || signet.FieldTitle(signet.SSR, 28) != "?" || signet.FieldTitle(9, 1) != "?" {
		t.Error("titles")
	}
	if _, err := signet.NewOrg(p, signet.Details{Form: signet.Full, Fields: []signet.Field{{ID: 28, Value: []byte("x")}}}); !errors.Is(err, key.ErrUnknown) {
		t.Errorf("is written: %v", err)
	}
}

func TestDecode(t *testing.T) {
	s := newUser(t, userPair(t), nil, signet.Details{Form: signet.Crypto})
	raw := s.Bytes()
	org := newOrg(t, orgDetails)
	request := newRequest(t)
	wire := s.Base64()
	if !strings.HasSuffix(wire, "=") {
		t.Fatal("the sample has no padding")
	}
	for name, in := range map[string][]byte{
		"binary":             raw,
		"armored":            s.Armored(),
		"base64":             []byte(wire),
		"base64, no padding": []byte(strings.TrimRight(wire, "=")),
		"base64, line end":   []byte(wire + "\r\n"),
	} {
		if got, err := signet.Decode(in); err != nil || !bytes.Equal(got.Bytes(), raw) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, kind := range []string{key.ArmorOrgSignet, key.ArmorRequest} {
		if _, err := signet.Decode(key.Armor(kind, request.Bytes())); err != nil {
			t.Errorf("a request as %s: %v", kind, err)
		}
	}
	for name, c := range map[string]struct {
		in   []byte
		want key.Class
	}{
		"nothing":                  {nil, key.ErrShort},
		"one octet":                {[]byte{6}, key.ErrShort},
		"org as user":              {key.Armor(key.ArmorUserSignet, org.Bytes()), key.ErrArmor},
		"org as request":           {key.Armor(key.ArmorRequest, org.Bytes()), key.ErrArmor},
		"user as org":              {key.Armor(key.ArmorOrgSignet, raw), key.ErrArmor},
		"request as user":          {key.Armor(key.ArmorUserSignet, request.Bytes()), key.ErrArmor},
		"keys":                     {key.Armor(key.ArmorUserKey, raw), key.ErrArmor},
		"cut armor":                {s.Armored()[:100], key.ErrArmor},
		"words":                    {[]byte("no such signet"), key.ErrArmor},
		"base64 in two lines":      {[]byte(wire[:64] + "\n" + wire[64:]), key.ErrArmor},
		"base64, wrong padding":    {[]byte(wire + "="), key.ErrArmor},
		"URL-safe base64":          {[]byte("____"), key.ErrArmor},
		"base64 of something else": {[]byte(base64.StdEncoding.EncodeToString(make([]byte, 9))), key.ErrType},
		"endless base64":           {bytes.Repeat([]byte("AAAA"), 1<<19), key.ErrTooLarge},
	} {
		_, err := signet.Decode(c.in)
		if got, _ := errors.AsType[key.Class](err); got != c.want {
			t.Errorf("%s: %v, want %s", name, err, string(c.want))
		}
	}
}

func TestSecondaryKeys(t *testing.T) {
	var soks []signet.SecondaryKey
	var signers []key.Signing
	for i, p := range []signet.Permission{signet.SignSignets, signet.SignMessages, 0, signet.SignSignets | signet.SignSoftware} {
		k := pair(t, byte(0x10+i), 0x20).Signing
		signers = append(signers, k)
		soks = append(soks, signet.SecondaryKey{Permissions: p, Key: k.Public()})
	}
	org := newOrg(t, signet.Details{Secondary: soks, Name: "example.com"})
	if !slices.Equal(org.SecondaryKeys(), soks) {
		t.Errorf("%v", org.SecondaryKeys())
	}
	pok := org.SigningKey()
	for want, keys := range map[signet.Permission][]key.SigningPublic{
		0:                                        {pok, soks[0].Key, soks[1].Key, soks[2].Key, soks[3].Key},
		signet.SignSignets:                       {pok, soks[0].Key, soks[3].Key},
		signet.SignMessages:                      {pok, soks[1].Key},
		signet.SignSoftware:                      {pok, soks[3].Key},
		signet.SignSignets | signet.SignSoftware: {pok, soks[3].Key},
		signet.SignCertificates:                  {pok},
	} {
		if got := org.Signers(want); !slices.Equal(got, keys) {
			t.Errorf("permission %d: %d signers", want, len(got))
		}
	}
	for i, k := range signers {
		s, err := signet.SignRequest(newRequest(t), k, userDetails)
		if err != nil {
			t.Fatal(err)
		}
		err = s.VerifyUser(org)
		if may := soks[i].Permissions&signet.SignSignets != 0; may != (err == nil) || !may && !errors.Is(err, key.ErrSignature) {
			t.Errorf("signed by a key that may %d: %v", soks[i].Permissions, err)
		}
		if s.Signers(0) != nil {
			t.Error("a user signet has signers")
		}
	}
	// the three signatures may be of different keys
	core, err := signet.SignRequest(newRequest(t), signers[0], signet.Details{Form: signet.Crypto})
	if err != nil {
		t.Fatal(err)
	}
	signed := core.Bytes()[5:]
	mixed, err := signet.Parse(body(signet.User, signed, []byte{253}, signers[3].Sign(signed)))
	if err != nil {
		t.Fatal(err)
	}
	if err := mixed.VerifyUser(org); err != nil {
		t.Errorf("two secondary keys: %v", err)
	}
	// but an organization's own signet is signed by its POK alone
	coreOrg := newOrg(t, signet.Details{Secondary: soks, Form: signet.Crypto}).Bytes()[5:]
	self, err := signet.Parse(body(signet.Org, coreOrg, []byte{253}, signers[0].Sign(coreOrg)))
	if err != nil {
		t.Fatal(err)
	}
	if err := self.VerifyOrg([]key.SigningPublic{pok}); !errors.Is(err, key.ErrSignature) {
		t.Errorf("a SOK signed its own: %v", err)
	}
}

func TestVerifyOfWrongKinds(t *testing.T) {
	org, user, request := newOrg(t, orgDetails), newUser(t, userPair(t), nil, userDetails), newRequest(t)
	poks := []key.SigningPublic{org.SigningKey(), user.SigningKey()}
	for name, err := range map[string]error{
		"user as org":             user.VerifyOrg(poks),
		"request as org":          request.VerifyOrg(poks),
		"org as user":             org.VerifyUser(org),
		"user under user":         user.VerifyUser(user),
		"user as request":         user.VerifyRequest(),
		"custody of an org":       org.VerifyCustody(user),
		"custody from an org":     user.VerifyCustody(org),
		"custody from a request":  user.VerifyCustody(request),
		"signing a user signet":   second(signet.SignRequest(user, orgPair(t).Signing, userDetails)),
		"signing an organization": second(signet.SignRequest(org, orgPair(t).Signing, userDetails)),
	} {
		if !errors.Is(err, key.ErrType) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := org.VerifyOrg(nil); !errors.Is(err, key.ErrPOK) {
		t.Errorf("no POK: %v", err)
	}
	if _, err := org.Fingerprint(signet.Request); !errors.Is(err, key.ErrIncomplete) {
		t.Errorf("fingerprint: %v", err)
	}
	if _, err := request.Fingerprint(signet.ID); !errors.Is(err, key.ErrIncomplete) {
		t.Errorf("fingerprint: %v", err)
	}
}

func second(_ *signet.Signet, err error) error { return err }

func TestVerifyName(t *testing.T) {
	user := newUser(t, userPair(t), nil, userDetails)
	for name, want := range map[string]bool{
		"alice@example.com": true, "Alice@Example.COM": true, "alice@example.org": false, "alice": false, "": false, "example.com": false,
	} {
		if got := user.VerifyName(name) == nil; got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	cut, err := user.Cut(signet.Full)
	if err != nil {
		t.Fatal(err)
	}
	if err := cut.VerifyName("alice@example.com"); !errors.Is(err, key.ErrIdentifier) {
		t.Errorf("without a name: %v", err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"example.com": true, "EXAMPLE.com": true, "a": true, "xn--bcher-kva.example": true, "1.2": true,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "-a.b": false, "a-.b": false, "a_b.c": false, "bücher.example": false,
		"a b": false, strings.Repeat("a", 64) + ".b": false, strings.Repeat("a.", 126) + "aa": false, strings.Repeat("a.", 126) + "a": true,
	} {
		if signet.ValidDomain(name) != want {
			t.Errorf("domain %q: %v", name, !want)
		}
	}
	for name, want := range map[string]bool{
		"alice@example.com": true, "a.b+c!#$%&'*/=?^_`{|}~-@x": true,
		"": false, "alice": false, "@x": false, "a@": false, "a@b@c": false, ".a@x": false, "a.@x": false, "a..b@x": false,
		`"a b"@x`: false, "a@[192.0.2.1]": false, "é@x": false, "a<b@x": false, strings.Repeat("a", 65) + "@x": false,
	} {
		if signet.ValidAddress(name) != want {
			t.Errorf("address %q: %v", name, !want)
		}
	}
	if signet.SameName("é@x", "É@x") || signet.SameName("\u212a@x", "k@x") || !signet.SameName("K@x", "k@X") {
		t.Error("names are compared beyond ASCII, or not within")
	}
}

func TestCustody(t *testing.T) {
	first := newUser(t, userPair(t), nil, userDetails)
	previous := userPair(t).Signing
	next := newUser(t, rotatedPair(t), &previous, userDetails)
	third := rotatedPair(t).Signing
	last := newUser(t, pair(t, 0x33, 0x44), &third, userDetails)
	org := newOrg(t, orgDetails)

	if err := next.VerifyCustody(first); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"from nothing":     first.VerifyCustody(next),
		"from itself":      next.VerifyCustody(next),
		"over a gap":       last.VerifyCustody(first),
		"chain over a gap": signet.VerifyChain([]*signet.Signet{first, last}, org),
		"chain backwards":  signet.VerifyChain([]*signet.Signet{next, first}, org),
		"same twice":       signet.VerifyChain([]*signet.Signet{first, first}, org),
	} {
		if !errors.Is(err, key.ErrCustody) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := signet.VerifyChain([]*signet.Signet{first, next, last}, org); err != nil {
		t.Error(err)
	}
	other, err := signet.NewOrg(sokPair(t), orgDetails)
	if err != nil {
		t.Fatal(err)
	}
	if err := signet.VerifyChain([]*signet.Signet{first, next}, other, org); err != nil {
		t.Errorf("under the second of two organizations: %v", err)
	}
	for name, orgs := range map[string][]*signet.Signet{"another organization": {other}, "none": nil} {
		if err := signet.VerifyChain([]*signet.Signet{first, next}, orgs...); !errors.Is(err, key.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	moved := userDetails
	moved.Name = "bob@example.com"
	if err := signet.VerifyChain([]*signet.Signet{first, newUser(t, rotatedPair(t), &previous, moved)}, org); !errors.Is(err, key.ErrIdentifier) {
		t.Errorf("another name: %v", err)
	}
	back := rotatedPair(t).Signing
	if err := signet.VerifyChain([]*signet.Signet{first, next, newUser(t, userPair(t), &back, userDetails)}, org); !errors.Is(err, key.ErrCustody) {
		t.Errorf("an old key comes back: %v", err)
	}
	if err := signet.VerifyChain(nil); err != nil {
		t.Errorf("empty chain: %v", err)
	}
}

func TestBuilderRefuses(t *testing.T) {
	p, org := userPair(t), orgPair(t).Signing
	field := func(id byte, name, value string) signet.Details {
		return signet.Details{Form: signet.Full, Fields: []signet.Field{{ID: id, Name: name, Value: []byte(value)}}}
	}
	named := signet.Field{ID: signet.FieldNamed, Name: "x", Value: []byte("1")}
	for name, c := range map[string]struct {
		d    signet.Details
		want key.Class
	}{
		"no name":                 {signet.Details{}, key.ErrIdentifier},
		"a domain as name":        {signet.Details{Name: "example.com"}, key.ErrIdentifier},
		"name in a lower form":    {signet.Details{Name: "a@example.com", Form: signet.Full}, key.ErrIncomplete},
		"fields in crypto form":   {signet.Details{Form: signet.Crypto, Fields: []signet.Field{named}}, key.ErrIncomplete},
		"form of a request":       {signet.Details{Form: signet.Request}, key.ErrIncomplete},
		"no such form":            {signet.Details{Form: 9}, key.ErrIncomplete},
		"field 6":                 {field(6, "", "x"), key.ErrBadField},
		"field 253":               {field(253, "", "x"), key.ErrBadField},
		"an organization's field": {field(203, "", "host.example"), key.ErrUnknown},
		"field with a name":       {field(16, "x", "y"), key.ErrBadField},
		"named without a name":    {field(251, "", "y"), key.ErrBadField},
		"named, long name":        {field(251, strings.Repeat("x", 256), "y"), key.ErrBadField},
		"named twice":             {signet.Details{Form: signet.Full, Fields: []signet.Field{named, named}}, key.ErrDuplicate},
		"name twice":              {signet.Details{Form: signet.Full, Fields: []signet.Field{{ID: 16}, {ID: 16}}}, key.ErrDuplicate},
		"256 octets":              {field(16, "", strings.Repeat("x", 256)), key.ErrTooLarge},
		"65536 octets":            {field(160, "", strings.Repeat("x", 65536)), key.ErrTooLarge},
		"a large photo":           {field(252, "", strings.Repeat("x", 1<<20)), key.ErrTooLarge},
		"a text with controls":    {field(16, "", "a\rb"), key.ErrText},
		"a photo that is no PNG":  {field(252, "", "x"), key.ErrImage},
		"secondary keys":          {signet.Details{Form: signet.Crypto, Secondary: make([]signet.SecondaryKey, 1)}, key.ErrBadField},
	} {
		s, err := signet.NewUser(p, signet.RequestDetails{}, org, c.d)
		if got, _ := errors.AsType[key.Class](err); got != c.want || s != nil {
			t.Errorf("%s: %v, want %s", name, err, string(c.want))
		}
	}
	var none key.Signing
	self := userPair(t).Signing
	for name, c := range map[string]struct {
		err  error
		want key.Class
	}{
		"no keys":              {second(signet.NewOrg(key.Pair{}, orgDetails)), key.ErrKeyFormat},
		"no encryption key":    {second(signet.NewRequest(key.Pair{Signing: org}, signet.RequestDetails{})), key.ErrKeyFormat},
		"no organization":      {second(signet.NewUser(p, signet.RequestDetails{}, none, userDetails)), key.ErrKeyFormat},
		"zero previous":        {second(signet.NewRequest(p, signet.RequestDetails{Previous: &none})), key.ErrKeyFormat},
		"following itself":     {second(signet.NewRequest(p, signet.RequestDetails{Previous: &self})), key.ErrCustody},
		"a zero alternate key": {second(signet.NewRequest(p, signet.RequestDetails{Alternates: make([]key.EncryptionPublic, 1)})), key.ErrKeyValue},
		"a zero secondary key": {second(signet.NewOrg(orgPair(t), signet.Details{Form: signet.Crypto, Secondary: make([]signet.SecondaryKey, 1)})), key.ErrKeyValue},
		"no such dialect":      {second(signet.NewOrg(orgPair(t), signet.Details{Form: signet.Crypto, Dialect: 9})), key.ErrDialect},
	} {
		if got, _ := errors.AsType[key.Class](c.err); got != c.want {
			t.Errorf("%s: %v, want %s", name, c.err, string(c.want))
		}
	}
}

func TestParseFingerprint(t *testing.T) {
	f, err := newRequest(t).Fingerprint(signet.Request)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{f.String(), f.String() + "=="} {
		if again, err := signet.ParseFingerprint(text); err != nil || !again.Equal(f) {
			t.Errorf("%d characters: %v", len(text), err)
		}
	}
	long := f.String()
	for name, text := range map[string]string{
		"empty": "", "short": long[1:], "one =": long + "=", "blank": " " + long[1:], "line end": long[:85] + "\n", "URL-safe": "_" + long[1:],
		"bits behind the end": long[:85] + "B", "padding within": long[:84] + "==",
	} {
		if _, err := signet.ParseFingerprint(text); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	if f.Equal(signet.Fingerprint{}) {
		t.Error("equals zero")
	}
}

func TestNamesOfThings(t *testing.T) {
	for got, want := range map[string]string{
		fmt.Sprint(signet.SSR, signet.Org, signet.User, signet.Kind(7)):                   "signing request organizational signet user signet object 7",
		fmt.Sprint(signet.Request, signet.Crypto, signet.Full, signet.ID, signet.Form(0)): "ssr crypto full id form 0",
		fmt.Sprint(signet.A, signet.B, signet.C, signet.Dialect(0)):                       "A B C ?",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if id, ok := signet.FieldByTitle(signet.User, "Title"); !ok || id != 94 {
		t.Errorf("Title is %d", id)
	}
	for _, title := range []string{"Signing-Key", "Contact-Abuse", "Signet-Identifier", "x"} {
		if id, ok := signet.FieldByTitle(signet.User, title); ok {
			t.Errorf("%s is %d of a user signet", title, id)
		}
	}
}
