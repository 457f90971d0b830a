package dane

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"dimegate/internal/testcert"
)

const host = "mx.bravo.test"

// record makes a record of a certificate.
func record(usage, selector, matching uint8, c *x509.Certificate) Record {
	b := c.Raw
	if selector == PublicKey {
		b = c.RawSubjectPublicKeyInfo
	}
	switch matching {
	case SHA256:
		s := sha256.Sum256(b)
		b = s[:]
	case SHA512:
		s := sha512.Sum512(b)
		b = s[:]
	}
	return Record{usage, selector, matching, b}
}

func parse(t testing.TB, c tls.Certificate) (chain []*x509.Certificate) {
	t.Helper()
	for _, b := range c.Certificate {
		p, err := x509.ParseCertificate(b)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, p)
	}
	return chain
}

// TestVerify is RFC 7672 §3.1 and RFC 7671 §5, a row a rule.
func TestVerify(t *testing.T) {
	root := testcert.NewAuthority(t, "root")
	middle := root.Below(t, "middle")
	other := testcert.NewAuthority(t, "other")
	good := parse(t, middle.Issue(t, []string{host}))
	swapped := parse(t, other.Issue(t, []string{host}))
	foreign := parse(t, middle.Issue(t, []string{"elsewhere.test"}))
	expired := parse(t, middle.Issue(t, []string{host}, testcert.Expired))
	client := parse(t, middle.Issue(t, []string{host}, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }))
	wild := parse(t, middle.Issue(t, []string{"*.bravo.test"}))
	self := parse(t, testcert.ECDSA(t, host))
	rsa := parse(t, testcert.RSA(t, host))
	withRoot := append(good[:2:2], root.Certificate)
	leaf, mid := good[0], middle.Certificate

	tests := map[string]struct {
		chain []*x509.Certificate
		list  []Record
		names []string
		want  error
	}{
		"3 1 1":                       {good, []Record{record(3, 1, 1, leaf)}, nil, nil},
		"3 1 2":                       {good, []Record{record(3, 1, 2, leaf)}, nil, nil},
		"3 1 0":                       {good, []Record{record(3, 1, 0, leaf)}, nil, nil},
		"3 0 1":                       {good, []Record{record(3, 0, 1, leaf)}, nil, nil},
		"3 0 2":                       {good, []Record{record(3, 0, 2, leaf)}, nil, nil},
		"3 0 0":                       {good, []Record{record(3, 0, 0, leaf)}, nil, nil},
		"3 1 1, self-signed":          {self, []Record{record(3, 1, 1, self[0])}, nil, nil},
		"3 1 1, RSA":                  {rsa, []Record{record(3, 1, 1, rsa[0])}, nil, nil},
		"3 1 1 of another name":       {foreign, []Record{record(3, 1, 1, foreign[0])}, []string{host}, nil},
		"3 1 1, expired":              {expired, []Record{record(3, 1, 1, expired[0])}, []string{host}, nil},
		"3 1 1 of the issuer":         {good, []Record{record(3, 1, 1, mid)}, []string{host}, ErrNoMatch},
		"3 1 1, certificate swapped":  {swapped, []Record{record(3, 1, 1, leaf)}, []string{host}, ErrNoMatch},
		"3 0 1 with the key's digest": {good, []Record{{3, 0, 1, record(3, 1, 1, leaf).Data}}, nil, ErrNoMatch},
		"two, the second matches":     {good, []Record{record(3, 1, 1, swapped[0]), record(3, 1, 1, leaf)}, nil, nil},
		"end entity and anchor, the anchor holds": {good, []Record{record(3, 1, 1, swapped[0]), record(2, 0, 1, mid)}, []string{host}, nil},
		"2 0 1":                                    {good, []Record{record(2, 0, 1, mid)}, []string{host}, nil},
		"2 1 1":                                    {good, []Record{record(2, 1, 1, mid)}, []string{host}, nil},
		"2 1 2":                                    {good, []Record{record(2, 1, 2, mid)}, []string{host}, nil},
		"2 0 1 of the root in the chain":           {withRoot, []Record{record(2, 0, 1, root.Certificate)}, []string{host}, nil},
		"2 0 1 of the root that is not sent":       {good, []Record{record(2, 0, 1, root.Certificate)}, []string{host}, ErrNoMatch},
		"2 0 0 of the root that is not sent":       {good, []Record{record(2, 0, 0, root.Certificate)}, []string{host}, nil},
		"2 1 0 of the root that is not sent":       {good, []Record{record(2, 1, 0, root.Certificate)}, []string{host}, nil},
		"2 1 0 of the issuer, itself not sent":     {good[:1], []Record{record(2, 1, 0, mid)}, []string{host}, nil},
		"2 1 0 of a stranger":                      {good, []Record{record(2, 1, 0, other.Certificate)}, []string{host}, ErrNoMatch},
		"2 0 0 of a stranger":                      {good, []Record{record(2, 0, 0, other.Certificate)}, []string{host}, ErrChain},
		"2 0 1, the anchor sent, the chain not":    {append(swapped[:1:1], mid), []Record{record(2, 0, 1, mid)}, []string{host}, ErrChain},
		"2 0 1 of the server's own":                {self, []Record{record(2, 0, 1, self[0])}, []string{host}, ErrNoMatch},
		"2 0 1 of the server's own, sent twice":    {append(self[:1:1], self[0]), []Record{record(2, 0, 1, self[0])}, []string{host}, nil},
		"2 0 1, another name":                      {foreign, []Record{record(2, 0, 1, mid)}, []string{host}, ErrName},
		"2 0 1, the second reference":              {foreign, []Record{record(2, 0, 1, mid)}, []string{host, "elsewhere.test"}, nil},
		"2 0 1, no reference":                      {good, []Record{record(2, 0, 1, mid)}, nil, ErrName},
		"2 0 1, wildcard":                          {wild, []Record{record(2, 0, 1, mid)}, []string{host}, nil},
		"2 0 1, wildcard two labels up":            {wild, []Record{record(2, 0, 1, mid)}, []string{"a." + host}, ErrName},
		"2 0 1, expired":                           {expired, []Record{record(2, 0, 1, mid)}, []string{host}, ErrChain},
		"2 0 1, not for servers":                   {client, []Record{record(2, 0, 1, mid)}, []string{host}, ErrChain},
		"PKIX usages are not for SMTP":             {good, []Record{record(1, 1, 1, leaf), record(0, 0, 1, mid)}, []string{host}, ErrNone},
		"stronger digest decides":                  {good, []Record{record(3, 1, 1, leaf), record(3, 1, 2, swapped[0])}, nil, ErrNoMatch},
		"stronger digest of another selector":      {good, []Record{record(3, 1, 1, leaf), record(3, 0, 2, swapped[0])}, nil, nil},
		"stronger digest of another usage":         {good, []Record{record(3, 1, 1, leaf), record(2, 1, 2, other.Certificate)}, nil, nil},
		"whole beside the stronger digest":         {good, []Record{record(3, 1, 0, leaf), record(3, 1, 2, swapped[0])}, nil, nil},
		"an unusable stronger digest decides none": {good, []Record{record(3, 1, 1, leaf), {3, 1, 2, []byte("short")}}, nil, nil},
		"no record":                                {good, nil, []string{host}, ErrNone},
		"no certificate":                           {nil, []Record{record(3, 1, 1, leaf)}, []string{host}, ErrNoMatch},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Verify(tt.chain, tt.list, tt.names, time.Now())
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v (%s), want %v", err, got, tt.want)
			}
			if err == nil && !got.Usable() {
				t.Errorf("by %s, which is not usable", got)
			}
		})
	}
}

func TestUsable(t *testing.T) {
	leaf := testcert.ECDSA(t, host).Leaf
	digest := make([]byte, 32)
	tests := map[string]struct {
		r    Record
		want bool
	}{
		"3 1 1":              {Record{3, 1, 1, digest}, true},
		"2 0 2":              {Record{2, 0, 2, make([]byte, 64)}, true},
		"3 0 0":              {record(3, 0, 0, leaf), true},
		"3 1 0":              {record(3, 1, 0, leaf), true},
		"usage 0":            {Record{0, 1, 1, digest}, false},
		"usage 1":            {Record{1, 1, 1, digest}, false},
		"usage 4":            {Record{4, 1, 1, digest}, false},
		"private usage":      {Record{255, 1, 1, digest}, false},
		"selector 2":         {Record{3, 2, 1, digest}, false},
		"matching type 3":    {Record{3, 1, 3, digest}, false},
		"digest short":       {Record{3, 1, 1, digest[:31]}, false},
		"digest long":        {Record{3, 1, 1, make([]byte, 64)}, false},
		"no data":            {Record{3, 1, 1, nil}, false},
		"no certificate":     {Record{3, 0, 0, digest}, false},
		"no key":             {Record{3, 1, 0, digest}, false},
		"key, not cert":      {Record{3, 0, 0, leaf.RawSubjectPublicKeyInfo}, false},
		"over the bound":     {Record{3, 0, 0, append(leaf.Raw[:len(leaf.Raw):len(leaf.Raw)], make([]byte, maxWhole)...)}, false},
		"cert with more end": {Record{3, 0, 0, append(leaf.Raw[:len(leaf.Raw):len(leaf.Raw)], 0)}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.r.Usable() != tt.want || len(Usable([]Record{tt.r})) == 1 != tt.want {
				t.Errorf("usable: %v", !tt.want)
			}
		})
	}
	if n := len(Usable(make([]Record, 1000))); n != 0 {
		t.Errorf("%d of nothing", n)
	}
	many := make([]Record, 1000)
	for i := range many {
		many[i] = Record{3, 1, 1, digest}
	}
	if n := len(Usable(many)); n != maxRecords {
		t.Errorf("%d of a thousand", n)
	}
}

// No flipped bit of a record's data matches.
func TestFlippedRecord(t *testing.T) {
	leaf := testcert.ECDSA(t, host).Leaf
	r := record(3, 1, 1, leaf)
	for i := range len(r.Data) * 8 {
		r.Data[i/8] ^= 1 << (i % 8)
		if _, err := Verify([]*x509.Certificate{leaf}, []Record{r}, []string{host}, time.Now()); err == nil {
			t.Errorf("bit %d", i)
		}
		r.Data[i/8] ^= 1 << (i % 8)
	}
}

func FuzzUsable(f *testing.F) {
	leaf := testcert.ECDSA(f, host).Leaf
	f.Add(uint8(3), uint8(0), uint8(0), leaf.Raw)
	f.Add(uint8(2), uint8(1), uint8(0), leaf.RawSubjectPublicKeyInfo)
	f.Add(uint8(3), uint8(1), uint8(1), make([]byte, 32))
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		r := Record{usage, selector, matching, data}
		if got, err := Verify([]*x509.Certificate{leaf, leaf}, []Record{r}, []string{host}, time.Now()); err == nil && !got.matches(leaf) {
			t.Errorf("%s %x", r, data)
		}
	})
}
