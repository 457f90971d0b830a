package record_test

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/record"

	"pgregory.net/rapid"
)

const (
	k1  = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
	k2  = "JUO5L/EJVRFHatyDadtt3JM2ZaEZeN2hQE7hBmypVZ0"
	sig = "5vyylCOECQnWG2bla6VcMZhDAuXiE/i70TfyUgP2AOY6UbqXAnoXlGKhL1Y+LkAEmu9as2mXy/1Nq413M0dgDQ"
)

func TestParse(t *testing.T) {
	full := "ver=1 pok=" + k1 + " pok=" + k2 + " tls=" + sig + " pol=mixed syn=keys.example.net dx=dx1.example.com dx=dx2.example.com exp=30 sub=explicit"
	minimal := "ver=1 pok=" + k1 + " pol=experimental sub=strict"
	for name, c := range map[string]struct {
		text string
		want string // the canonical text; or
		err  error
	}{
		"a key alone":                {text: "pok=" + k1, want: minimal},
		"everything":                 {text: full, want: full},
		"semicolons":                 {text: ";;ver=1;; pok=" + k1 + ";", want: minimal},
		"long names, capitals":       {text: "VERSION=1 PRIMARY=" + k1 + " POLICY=STRICT SUBDOMAIN=RELAXED DELIVER=a.b EXPIRY=9", want: "ver=1 pok=" + k1 + " pol=strict dx=a.b exp=9 sub=relaxed"},
		"any order":                  {text: "sub=relaxed pok=" + k1 + " ver=1", want: "ver=1 pok=" + k1 + " pol=experimental sub=relaxed"},
		"unknown name":               {text: "pok=" + k1 + " xyz=foo x2=\"", want: minimal},
		"a record in the wild":       {text: "ver=1 pok=E7gyvx3E6ksBVkg9CD5XBoXX18txj45iFSqtn9NLqjA tls=c2jM4G+EFZROQYNOyvwVSiQhgL5QW3UJN3CaIipR/Z4hjoSZoO72UlGXdKsAl1T1RQh+/h9rETD1+vaPbkIGCg", want: "ver=1 pok=E7gyvx3E6ksBVkg9CD5XBoXX18txj45iFSqtn9NLqjA tls=c2jM4G+EFZROQYNOyvwVSiQhgL5QW3UJN3CaIipR/Z4hjoSZoO72UlGXdKsAl1T1RQh+/h9rETD1+vaPbkIGCg pol=experimental sub=strict"},
		"exp of ten years":           {text: "pok=" + k1 + " exp=3650", want: "ver=1 pok=" + k1 + " pol=experimental exp=3650 sub=strict"},
		"empty":                      {text: "", err: record.ErrMalformed},
		"separators alone":           {text: " ; ;", err: record.ErrMalformed},
		"no key":                     {text: "ver=1", err: record.ErrMissing},
		"a name alone":               {text: "pok=" + k1 + " sub", err: record.ErrMalformed},
		"empty value":                {text: "pok=" + k1 + " dx=", err: record.ErrMalformed},
		"empty name":                 {text: "pok=" + k1 + " =1", err: record.ErrMalformed},
		"blanks around =":            {text: "ver = 1 pok=" + k1, err: record.ErrMalformed},
		"two =":                      {text: "pok=" + k1 + " dx=a=b", err: record.ErrMalformed},
		"blank missing between keys": {text: "ver=1 pok=" + k1 + "pok=" + k2, err: record.ErrMalformed},
		"unknown name, two =":        {text: "pok=" + k1 + " x=a=b", err: record.ErrMalformed},
		"unknown name with a dash":   {text: "pok=" + k1 + " x-y=a", err: record.ErrMalformed},
		"quoted":                     {text: `"ver=1 pok=` + k1 + `"`, err: record.ErrMalformed},
		"tab":                        {text: "ver=1\tpok=" + k1, err: record.ErrBadChar},
		"line end":                   {text: "pok=" + k1 + "\n", err: record.ErrBadChar},
		"NUL":                        {text: "pok=" + k1 + "\x00", err: record.ErrBadChar},
		"UTF-8":                      {text: "pok=" + k1 + " x=é", err: record.ErrBadChar},
		"octet 255":                  {text: "pok=" + k1 + " x=\xff", err: record.ErrBadChar},
		"version 0":                  {text: "ver=0 pok=" + k1, err: record.ErrVersion},
		"version 1abc":               {text: "ver=1abc pok=" + k1, err: record.ErrVersion},
		"version 65537":              {text: "ver=65537 pok=" + k1, err: record.ErrVersion},
		"version and ver":            {text: "ver=1 version=1 pok=" + k1, err: record.ErrDuplicate},
		"padded key":                 {text: "pok=" + k1 + "=", err: record.ErrBase64},
		"padded signature":           {text: "pok=" + k1 + " tls=" + sig + "==", err: record.ErrBase64},
		"short key":                  {text: "pok=" + k1[1:], err: record.ErrLength},
		"short signature":            {text: "pok=" + k1 + " tls=" + sig[1:], err: record.ErrLength},
		"URL-safe alphabet":          {text: "pok=" + strings.ReplaceAll(k1, "/", "_"), err: record.ErrBase64},
		"bits behind the end":        {text: "pok=" + k1[:42] + "h", err: record.ErrBase64},
		"key of zeros":               {text: "pok=" + strings.Repeat("A", 43), err: record.ErrKey},
		"key not on the curve":       {text: "pok=Ag" + strings.Repeat("A", 41), err: record.ErrKey},
		"key twice":                  {text: "pok=" + k1 + " primary=" + k1, err: record.ErrDuplicate},
		"signature twice":            {text: "pok=" + k1 + " tls=" + sig + " tls=" + sig, err: record.ErrDuplicate},
		"unknown policy":             {text: "pok=" + k1 + " pol=foo", err: record.ErrValue},
		"policy twice":               {text: "pok=" + k1 + " pol=mixed policy=mixed", err: record.ErrDuplicate},
		"unknown sub":                {text: "pok=" + k1 + " sub=mixed", err: record.ErrValue},
		"sub twice":                  {text: "pok=" + k1 + " sub=strict sub=strict", err: record.ErrDuplicate},
		"exp no number":              {text: "pok=" + k1 + " exp=notanumber", err: record.ErrValue},
		"exp 0":                      {text: "pok=" + k1 + " exp=0", err: record.ErrValue},
		"exp 3651":                   {text: "pok=" + k1 + " exp=3651", err: record.ErrValue},
		"exp of five digits":         {text: "pok=" + k1 + " exp=00030", err: record.ErrValue},
		"exp negative":               {text: "pok=" + k1 + " exp=-1", err: record.ErrValue},
		"exp twice":                  {text: "pok=" + k1 + " exp=3 exp=3", err: record.ErrDuplicate},
		"syn twice":                  {text: "pok=" + k1 + " syn=a syndicates=b", err: record.ErrDuplicate},
		"dx with a port":             {text: "pok=" + k1 + " dx=a.example:26", err: record.ErrValue},
		"dx with a comma":            {text: "pok=" + k1 + " dx=a,b", err: record.ErrValue},
		"dx an IPv4 address":         {text: "pok=" + k1 + " dx=192.0.2.1", err: record.ErrValue},
		"dx an IPv6 address":         {text: "pok=" + k1 + " dx=[::1]", err: record.ErrValue},
		"dx with a final dot":        {text: "pok=" + k1 + " dx=a.example.", err: record.ErrValue},
		"dx with a hyphen first":     {text: "pok=" + k1 + " dx=-a.example", err: record.ErrValue},
		"dx twice, other case":       {text: "pok=" + k1 + " dx=a.example dx=A.example", err: record.ErrDuplicate},
		"too long":                   {text: "pok=" + k1 + strings.Repeat(" ", 4096), err: record.ErrTooLarge},
	} {
		r, err := record.Parse(c.text)
		if !errors.Is(err, c.err) || err != nil && r != nil {
			t.Errorf("%s: %v, want %v", name, err, c.err)
			continue
		}
		if c.err == nil && r.Text() != c.want {
			t.Errorf("%s: %q, want %q", name, r.Text(), c.want)
		}
		if err != nil && (strings.Contains(err.Error(), k1[:8]) || strings.Contains(err.Error(), "foo")) {
			t.Errorf("%s: the error quotes the record: %v", name, err)
		}
	}
}

func TestParseCounts(t *testing.T) {
	var keys, signatures, hosts []string
	for range 33 {
		k, err := key.GenerateSigning(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, "pok="+k.Public().String())
		s := record.SignCertificate(k, nil)
		signatures = append(signatures, "tls="+base64.RawStdEncoding.EncodeToString(s[:]))
		hosts = append(hosts, fmt.Sprintf("dx=h%d.example", len(hosts)))
	}
	join := func(lists ...[]string) string { return strings.Join(slices.Concat(lists...), " ") }
	if _, err := record.Parse(join(keys[:8], signatures[:32], hosts[:16])); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
	for name, text := range map[string]string{
		"9 keys": join(keys[:9]), "33 signatures": join(keys[:1], signatures), "17 hosts": join(keys[:1], hosts[:17]),
	} {
		if _, err := record.Parse(text); !errors.Is(err, record.ErrTooMany) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMakeRefuses(t *testing.T) {
	k, err := key.GenerateSigning(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	poks := []key.SigningPublic{k.Public()}
	for name, c := range map[string]struct {
		r    record.Record
		want error
	}{
		"no key":          {record.Record{}, record.ErrMissing},
		"a zero key":      {record.Record{POKs: make([]key.SigningPublic, 1)}, record.ErrKey},
		"exp too long":    {record.Record{POKs: poks, Expiry: 4000}, record.ErrValue},
		"a wrong host":    {record.Record{POKs: poks, DX: []string{"a_b.example"}}, record.ErrValue},
		"an empty host":   {record.Record{POKs: poks, DX: []string{""}}, record.ErrMalformed},
		"syn with blanks": {record.Record{POKs: poks, Syndicates: "a sub=relaxed"}, record.ErrDuplicate},
		"syn that hides":  {record.Record{POKs: poks, Syndicates: "a dx=b.example"}, record.ErrValue},
		"a wrong policy":  {record.Record{POKs: poks, Policy: 9}, record.ErrValue},
	} {
		if text, err := c.r.Make(); !errors.Is(err, c.want) {
			t.Errorf("%s: %q: %v", name, text, err)
		}
	}
	if (&record.Record{}).ExpiryDays() != 30 || (&record.Record{Expiry: 2}).ExpiryDays() != 2 {
		t.Error("ExpiryDays is wrong")
	}
}

func TestStrings(t *testing.T) {
	long := "a=" + strings.Repeat("x", 300)
	for name, text := range map[string]string{
		"short":           "ver=1",
		"255":             strings.Repeat("a", 255),
		"256, no blank":   strings.Repeat("a", 256),
		"blank at 255":    strings.Repeat("a", 254) + " " + "b",
		"blank at 256":    strings.Repeat("a", 255) + " " + "b",
		"a word too long": "b=1 " + long + " c=2",
		"many":            strings.Repeat("dx=host.example ", 100),
	} {
		cut := record.Strings(text)
		if strings.Join(cut, "") != text {
			t.Errorf("%s: the strings are not the text: %q", name, cut)
		}
		for i, s := range cut {
			if len(s) > 255 || len(s) == 0 {
				t.Errorf("%s: a string of %d", name, len(s))
			}
			if i < len(cut)-1 && strings.Contains(s, " ") && !strings.HasSuffix(s, " ") {
				t.Errorf("%s: a word is torn: %q", name, s)
			}
		}
	}
}

func TestSelect(t *testing.T) {
	spf, one, two := "v=spf1 -all", "ver=1 pok="+k1, "PRIMARY="+k2
	for name, c := range map[string]struct {
		in   []string
		want string
		err  error
	}{
		"one":                {[]string{one}, one, nil},
		"one of others":      {[]string{spf, two, "spok=x"}, two, nil},
		"a broken candidate": {[]string{"pok=x"}, "pok=x", nil},
		"none":               {nil, "", record.ErrNone},
		"others":             {[]string{spf, "pok"}, "", record.ErrNone},
		"two":                {[]string{one, two}, "", record.ErrAmbiguous},
		"the same twice":     {[]string{one, one}, "", record.ErrAmbiguous},
	} {
		got, err := record.Select(c.in)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// The specification's worked example, and the two places where libdime looks no further.
func TestCertificate(t *testing.T) {
	der, err := base64.StdEncoding.DecodeString("MIH9MIGwoAMCAQICAQEwBQYDK2VwMBkxFzAVBgNVBAMMDmR4LmV4YW1wbGUuY29t" +
		"MB4XDTI0MDEwMTAwMDAwMFoXDTM0MDEwMTAwMDAwMFowGTEXMBUGA1UEAwwOZHguZXhhbXBsZS5jb20wKjAFBgMrZXADIQDQSrIydCu0qzoTaL1GFeTm0CJKtxoBa6+F" +
		"IKMyyXeHN6MdMBswGQYDVR0RBBIwEIIOZHguZXhhbXBsZS5jb20wBQYDK2VwA0EAthqT2TYANaEj92kSWnI40cGVc1wTsfMH6v5WbcAjqg5px4xlJCfawOR/Y/iKNHoY" +
		"C44kW7UnU4JDP80xVAmiDQ==")
	if err != nil {
		t.Fatal(err)
	}
	seed := make([]byte, 32)
	for i := range seed {
		seed[i] = byte(i)
	}
	k, err := key.NewSigning(seed)
	if err != nil {
		t.Fatal(err)
	}
	made := record.SignCertificate(k, der)
	if got := base64.RawStdEncoding.EncodeToString(made[:]); got != sig {
		t.Errorf("signature %s", got)
	}
	r, err := record.Parse("pok=" + k2 + " pok=" + k1 + " tls=" + strings.Repeat("A", 86) + " tls=" + sig)
	if err != nil {
		t.Fatal(err)
	}
	if !r.MatchesCertificate(der) {
		t.Error("the second signature, by the second key, is not found")
	}
	if r.MatchesCertificate(nil) || (&record.Record{}).MatchesCertificate(der) {
		t.Error("another certificate matches")
	}
}

// Whatever is made reads back as itself.
func TestMakeParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := draw(t)
		text, err := r.Make()
		if err != nil {
			t.Fatal(err)
		}
		again, err := record.Parse(strings.Join(record.Strings(text), ""))
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(*again) != fmt.Sprint(*r) {
			t.Fatalf("%v became %v", *r, *again)
		}
	})
}

func draw(t *rapid.T) *record.Record {
	r := &record.Record{
		Policy:    record.Policy(rapid.IntRange(0, 2).Draw(t, "pol")),
		Subdomain: record.Subdomain(rapid.IntRange(0, 2).Draw(t, "sub")),
		Expiry:    rapid.IntRange(0, record.MaxExpiry).Draw(t, "exp"),
	}
	for i := range rapid.IntRange(1, 8).Draw(t, "poks") {
		k, err := key.NewSigning([]byte(fmt.Sprintf("%031d%d", rapid.Uint32().Draw(t, "seed"), i)))
		if err != nil {
			t.Fatal(err)
		}
		r.POKs = append(r.POKs, k.Public())
		if rapid.Bool().Draw(t, "tls") {
			r.TLS = append(r.TLS, record.SignCertificate(k, nil))
		}
	}
	r.DX = rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]([a-z0-9-]{0,20}[a-z0-9])?\.example`), 0, 16, rapid.ID).Draw(t, "dx")
	if len(r.DX) == 0 {
		r.DX = nil
	}
	r.Syndicates = rapid.StringMatching(`[!-:<>-~]{0,40}`).Filter(func(s string) bool { return !strings.Contains(s, "=") }).Draw(t, "syn")
	return r
}

func FuzzRecord(f *testing.F) {
	f.Add("ver=1 pok=" + k1 + " pok=" + k2 + " tls=" + sig + " pol=mixed syn=a dx=b.example exp=30 sub=explicit")
	f.Add("POK=" + k1 + ";;x=y")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := record.Parse(text)
		if err != nil {
			return
		}
		made, err := r.Make()
		if err != nil {
			t.Fatalf("read and not made: %v", err)
		}
		again, err := record.Parse(made)
		if err != nil || again.Text() != made || len(made) > len(text)+len("ver=1 pol=experimental sub=strict ") {
			t.Errorf("%q became %q", text, made)
		}
		if s, err := record.Select([]string{text}); err != nil || s != text {
			t.Errorf("a record that is no candidate: %v", err)
		}
	})
}
