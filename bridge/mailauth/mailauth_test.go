package mailauth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"

	"dimegate/bridge/translate"
	"dimegate/dmtp/resolver"
	"dimegate/internal/zone"
)

// key signs as many domains as a test likes.
var key = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func keyRecord(selector string) string {
	return selector + `._domainkey TXT "v=DKIM1; k=ed25519; p=` + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)) + `"`
}

// domains is who sends in these tests: 192.0.2.1 does so rightly.
var domains = []zone.Zone{
	{Name: "carol.test", Records: []string{`@ TXT "v=spf1 ip4:192.0.2.1 -all"`, keyRecord("s"), `_dmarc TXT "v=DMARC1; p=reject"`, `news TXT "v=spf1 ip4:192.0.2.1 ~all"`}},
	{Name: "soft.test", Records: []string{`@ TXT "v=spf1 a:mail.soft.test ~all"`, "mail A 192.0.2.1", `_dmarc TXT "v=DMARC1;p=none;adkim=s;aspf=s"`, keyRecord("s")}},
	{Name: "neutral.test", Records: []string{`@ TXT "v=spf1 ?all"`, `_dmarc TXT "v=DMARC1; p=none"`, `_dmarc TXT "v=DMARC1; p=reject"`}},
	{Name: "many.test", Records: []string{`@ TXT "v=spf1 a:1 a:2 a:3 a:4 a:5 a:6 a:7 a:8 a:9 a:10 a:11.many.test +all"`, `_dmarc TXT "v=DMARC1; p=perhaps"`}},
	{Name: "chain.test", Records: chain(12)},
	{Name: "void.test", Records: []string{`@ TXT "v=spf1 a:a.void.test a:b.void.test a:c.void.test +all"`}},
	{Name: "two.test", Records: []string{`@ TXT "v=spf1 +all"`, `@ TXT "v=spf1 -all"`}},
	{Name: "mx.test", Records: []string{`@ TXT "v=spf1 mx -all"`, "@ MX 10 a", "@ MX 20 b", "@ MX 30 c", "@ MX 40 d", "a A 192.0.2.11", "b A 192.0.2.12", "c A 192.0.2.13", "d A 192.0.2.1"}},
	{Name: "bare.test", Records: []string{"@ A 192.0.2.1"}},
	{Name: "bogus.test", Records: []string{`@ TXT "v=spf1 +all"`, keyRecord("s"), `_dmarc TXT "v=DMARC1; p=none"`}},
	{Name: "football.example.com", Records: []string{
		`brisbane._domainkey TXT "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="`,
		`test._domainkey TXT "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"`,
	}},
}

// chain is a policy that asks for n others, one by one.
func chain(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf(`c%d TXT "v=spf1 include:c%d.chain.test -all"`, i, i+1))
	}
	return append(list, fmt.Sprintf(`c%d TXT "v=spf1 +all"`, n))
}

// checker asks a signed name space on loopback through our own resolver.
func checker(t testing.TB) *Checker {
	t.Helper()
	list := make([]zone.Zone, len(domains))
	for i, z := range domains {
		list[i] = z
		list[i].Algorithm = dns.ED25519
	}
	tree, err := zone.New(netip.MustParseAddr("127.0.0.1"), list...)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Spoil("bogus.test.", dns.TypeTXT); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"s._domainkey.bogus.test.", "_dmarc.bogus.test."} {
		if err := tree.Spoil(name, dns.TypeTXT); err != nil {
			t.Fatal(err)
		}
	}
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var server sync.WaitGroup
	server.Go(func() { tree.Serve(ctx, udp, tcp) })
	t.Cleanup(func() { cancel(); server.Wait() })
	anchors, err := resolver.ParseAnchors(strings.NewReader(tree.Anchor()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := resolver.NewDNS(resolver.DNSConfig{Servers: []string{tcp.Addr().String()}, Anchors: anchors})
	if err != nil {
		t.Fatal(err)
	}
	return &Checker{ID: "mx.alpha.test", DNS: r}
}

// field checks a message and reads the field with the library's own parser.
func field(t testing.TB, c *Checker, a Arrival, message string) (string, []authres.Result) {
	t.Helper()
	m := translate.Split([]byte(message))
	b, err := c.Field(t.Context(), a, m.Header, strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	value, ok := strings.CutPrefix(string(b), "Authentication-Results: ")
	if !ok || !strings.HasSuffix(value, "\r\n") || strings.Contains(strings.ReplaceAll(value, "\r\n\t", ""), "\r\n") != true {
		t.Fatalf("no field: %q", b)
	}
	value = strings.ReplaceAll(strings.TrimSuffix(value, "\r\n"), "\r\n\t", " ")
	id, results, err := authres.Parse(value)
	if err != nil || id != "mx.alpha.test" {
		t.Fatalf("%q: %q, %v", value, id, err)
	}
	return value, results
}

var peer = netip.MustParseAddr("192.0.2.1")

func plainMail(from string) string {
	return "From: Carol <" + from + ">\r\nTo: bob@alpha.test\r\nSubject: x\r\n\r\nhello\r\n"
}

// sign signs as a domain.
func sign(t testing.TB, domain, message string) string {
	t.Helper()
	var b bytes.Buffer
	if err := dkim.Sign(&b, strings.NewReader(message), &dkim.SignOptions{Domain: domain, Selector: "s", Signer: key, HeaderKeys: []string{"From", "To", "Subject"}}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSPF(t *testing.T) {
	c := checker(t)
	for name, tt := range map[string]struct {
		from, hello string
		peer        netip.Addr
		want        string
	}{
		"pass":               {"carol@carol.test", "x.test", peer, "spf=pass smtp.mailfrom=carol@carol.test"},
		"pass, IPv4 in IPv6": {"carol@carol.test", "x.test", netip.MustParseAddr("::ffff:192.0.2.1"), "spf=pass smtp.mailfrom=carol@carol.test"},
		"fail":               {"carol@carol.test", "x.test", netip.MustParseAddr("192.0.2.2"), "spf=fail smtp.mailfrom=carol@carol.test"},
		"IPv6 fails":         {"carol@carol.test", "x.test", netip.MustParseAddr("2001:db8::1"), "spf=fail smtp.mailfrom=carol@carol.test"},
		"softfail":           {"a@soft.test", "x.test", netip.MustParseAddr("192.0.2.2"), "spf=softfail smtp.mailfrom=a@soft.test"},
		"neutral":            {"a@neutral.test", "x.test", peer, "spf=neutral smtp.mailfrom=a@neutral.test"},
		"none":               {"a@bare.test", "x.test", peer, "spf=none smtp.mailfrom=a@bare.test"},
		"no such domain":     {"a@nothing.test", "x.test", peer, "spf=none smtp.mailfrom=a@nothing.test"},
		"an address literal": {"a@[192.0.2.1]", "x.test", peer, "spf=none"},
		"fourth exchanger":   {"a@mx.test", "x.test", peer, "spf=pass smtp.mailfrom=a@mx.test"},
		"eleven look-ups":    {"a@many.test", "x.test", peer, "spf=permerror smtp.mailfrom=a@many.test"},
		"eleven includes":    {"a@c1.chain.test", "x.test", peer, "spf=permerror smtp.mailfrom=a@c1.chain.test"},
		"ten includes":       {"a@c2.chain.test", "x.test", peer, "spf=pass smtp.mailfrom=a@c2.chain.test"},
		"three void ones":    {"a@void.test", "x.test", peer, "spf=permerror smtp.mailfrom=a@void.test"},
		"two records":        {"a@two.test", "x.test", peer, "spf=permerror smtp.mailfrom=a@two.test"},
		"bogus":              {"a@bogus.test", "x.test", peer, "spf=temperror smtp.mailfrom=a@bogus.test"},
		"null path":          {"", "news.carol.test", peer, "spf=pass smtp.helo=news.carol.test"},
		"null path, literal": {"", "[192.0.2.1]", peer, "spf=none"},
		"null path, alone":   {"", "localhost", peer, "spf=none"},
		"no address":         {"carol@carol.test", "x.test", netip.Addr{}, "spf=none smtp.mailfrom=carol@carol.test"},
		"VERP":               {"b+bob=alpha.test@carol.test", "x.test", peer, `spf=pass smtp.mailfrom="b+bob=alpha.test@carol.test"`},
		"forged result":      {`"x\"; dkim=pass header.d=bank.test; spf=pass \\"@carol.test`, "x.test", peer, "spf=pass smtp.mailfrom=carol.test"},
		"at in quotes":       {`"a@bank.test"@carol.test`, "x.test", peer, "spf=pass smtp.mailfrom=carol.test"},
		"international":      {"carol@bücher.test", "x.test", peer, "spf=none smtp.mailfrom=carol@xn--bcher-kva.test"},
	} {
		t.Run(name, func(t *testing.T) {
			text, results := field(t, c, Arrival{Peer: tt.peer, Hello: tt.hello, From: tt.from}, plainMail("a@bare.test"))
			if want := "mx.alpha.test; " + tt.want + "; dkim=none; dmarc=none header.from=bare.test"; text != want || len(results) != 3 {
				t.Errorf("got  %s\nwant %s", text, want)
			}
		})
	}
}

func TestDKIM(t *testing.T) {
	c := checker(t)
	vector, err := os.ReadFile("testdata/rfc8463.eml")
	if err != nil {
		t.Fatal(err)
	}
	rfc8463 := strings.ReplaceAll(string(vector), "\n", "\r\n")
	signed := sign(t, "carol.test", plainMail("carol@carol.test"))
	for name, tt := range map[string]struct{ message, want string }{
		"RFC 8463, appendix A": {rfc8463, "dkim=pass header.d=football.example.com; dkim=pass header.d=football.example.com"},
		"the same, changed":    {strings.Replace(rfc8463, "lost", "won", 1), "dkim=fail header.d=football.example.com; dkim=fail header.d=football.example.com"},
		"signed":               {signed, "dkim=pass header.d=carol.test"},
		"folded anew":          {strings.Replace(signed, "Subject: x", "Subject:  x", 1), "dkim=fail header.d=carol.test"},
		"by no such key":       {sign(t, "bare.test", plainMail("a@bare.test")), "dkim=permerror header.d=bare.test"},
		"by a bogus one":       {sign(t, "bogus.test", plainMail("a@bare.test")), "dkim=temperror header.d=bogus.test"},
		"not by a domain":      {sign(t, "carol.test; a=b", plainMail("a@bare.test")), "dkim=permerror"},
		"no tags":              {"DKIM-Signature: hello\r\n" + plainMail("a@bare.test"), "dkim=permerror"},
		"no body":              {"DKIM-Signature: v=1\r\nFrom: a@bare.test\r\n", "dkim=neutral"},
		"none":                 {plainMail("a@bare.test"), "dkim=none"},
		"nothing at all":       {"\r\n", "dkim=none"},
		"nine":                 {strings.Repeat("DKIM-Signature: v=1; d=carol.test\r\n", maxSignatures+1) + plainMail("a@bare.test"), strings.TrimSuffix(strings.Repeat("dkim=permerror header.d=carol.test; ", maxSignatures), "; ")},
	} {
		t.Run(name, func(t *testing.T) {
			text, _ := field(t, c, Arrival{Peer: peer, Hello: "x.test"}, tt.message)
			dkims := strings.TrimSuffix(strings.TrimPrefix(text[:strings.Index(text, "; dmarc=")], "mx.alpha.test; spf=none; "), "; spf=none smtp.helo=x.test")
			if dkims = strings.TrimPrefix(dkims, "mx.alpha.test; spf=none smtp.helo=x.test; "); dkims != tt.want {
				t.Errorf("got  %s\nwant %s", dkims, tt.want)
			}
		})
	}
}

func TestDMARC(t *testing.T) {
	c := checker(t)
	elsewhere := netip.MustParseAddr("192.0.2.9")
	for name, tt := range map[string]struct {
		peer             netip.Addr
		from, by, author string
		want             string
	}{
		"by SPF":                    {peer, "carol@carol.test", "", "carol@carol.test", "dmarc=pass header.from=carol.test"},
		"by DKIM":                   {elsewhere, "list@bare.test", "carol.test", "carol@carol.test", "dmarc=pass header.from=carol.test"},
		"by neither":                {elsewhere, "carol@carol.test", "", "carol@carol.test", "dmarc=fail header.from=carol.test"},
		"subdomain sends":           {peer, "carol@news.carol.test", "", "carol@carol.test", "dmarc=pass header.from=carol.test"},
		"for a subdomain":           {peer, "carol@carol.test", "", "carol@x.y.carol.test", "dmarc=pass header.from=x.y.carol.test"},
		"another's SPF":             {peer, "a@mx.test", "", "carol@carol.test", "dmarc=fail header.from=carol.test"},
		"another's signature":       {elsewhere, "carol@carol.test", "soft.test", "carol@carol.test", "dmarc=fail header.from=carol.test"},
		"strict":                    {peer, "a@soft.test", "", "a@soft.test", "dmarc=pass header.from=soft.test"},
		"strict, a subdomain sends": {peer, "a@soft.test", "", "a@sub.soft.test", "dmarc=fail header.from=sub.soft.test"},
		"no policy":                 {peer, "a@bare.test", "", "a@bare.test", "dmarc=none header.from=bare.test"},
		"two policies":              {peer, "a@neutral.test", "", "a@neutral.test", "dmarc=none header.from=neutral.test"},
		"no such policy":            {peer, "a@many.test", "", "a@many.test", "dmarc=permerror header.from=many.test"},
		"bogus policy":              {peer, "a@bogus.test", "", "a@bogus.test", "dmarc=temperror header.from=bogus.test"},
		"bogus key":                 {elsewhere, "a@bare.test", "bogus.test", "a@bare.test", "dmarc=none header.from=bare.test"},
		"public suffix":             {peer, "a@bare.test", "", "a@co.uk", "dmarc=none header.from=co.uk"},
		"two authors":               {peer, "a@bare.test", "", "a@bare.test>, <b@bare.test", "dmarc=permerror"},
		"no author":                 {peer, "a@bare.test", "", "bare", "dmarc=permerror"},
		"two fields":                {peer, "a@bare.test", "", "a@bare.test>\r\nFrom: <carol@carol.test", "dmarc=permerror"},
		"a name like an address":    {peer, "carol@carol.test", "", "x@y>\" <carol@carol.test", "dmarc=permerror"},
	} {
		t.Run(name, func(t *testing.T) {
			message := plainMail(tt.author)
			if tt.by != "" {
				message = sign(t, tt.by, message)
			}
			text, _ := field(t, c, Arrival{Peer: tt.peer, Hello: "x.test", From: tt.from}, message)
			if got := text[strings.Index(text, "dmarc="):]; got != tt.want {
				t.Errorf("%s\nwant %s", text, tt.want)
			}
		})
	}
}

// What would take long or much is not done.
func TestBounds(t *testing.T) {
	c := checker(t)
	for name, message := range map[string]string{
		"a field of 300,000 lines": "X: x\r\n" + strings.Repeat(" \r\n", 300_000) + sign(t, "carol.test", plainMail("carol@carol.test")),
		"200,000 fields":           strings.Repeat("a:\r\n", 200_000) + sign(t, "carol.test", plainMail("carol@carol.test")),
		"a long h=":                "DKIM-Signature: h=" + strings.Repeat("a:", 400_000) + "\r\n" + strings.Repeat("a:\r\n", 100) + plainMail("carol@carol.test"),
		"blank lines":              sign(t, "carol.test", plainMail("carol@carol.test")) + strings.Repeat("\r\n", 5<<20),
		"blanks":                   sign(t, "carol.test", plainMail("carol@carol.test")) + strings.Repeat(" ", 5<<20),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			if text, _ := field(t, c, Arrival{Peer: peer, Hello: "x.test"}, message); !strings.Contains(text, "; dkim=permerror; dmarc=") {
				t.Errorf("got %s", text)
			}
			if took := time.Since(start); took > 10*time.Second { // without the bounds: minutes
				t.Errorf("took %v", took)
			}
		})
	}
	long := &Checker{ID: "mx.alpha.test", DNS: texts(strings.Repeat("x", maxTXT+1))}
	if text, _ := field(t, long, Arrival{}, sign(t, "carol.test", plainMail("carol@carol.test"))); !strings.Contains(text, "dkim=permerror") {
		t.Errorf("a key of %d octets: %s", maxTXT+1, text)
	}
}

// texts answers every question with one text.
type texts string

func (x texts) TXT(context.Context, string) ([]string, *resolver.Answer, error) {
	return []string{string(x)}, &resolver.Answer{Records: make([]dns.RR, 1)}, nil
}

func (x texts) Lookup(context.Context, string, uint16) (*resolver.Answer, error) {
	return nil, errors.New("none")
}

func (x texts) Addresses(context.Context, string) ([]netip.Addr, resolver.State, error) {
	return nil, 0, resolver.ErrNoAddress
}

// A message that cannot be read is an error, not a verdict, and nobody waits for the rest of it.
func TestUnreadable(t *testing.T) {
	c := checker(t)
	message := sign(t, "carol.test", sign(t, "carol.test", plainMail("carol@carol.test")))
	m := translate.Split([]byte(message))
	broken := io.MultiReader(strings.NewReader(message[:len(message)-3]), iotest.ErrReader(errors.New("damaged")))
	if b, err := c.Field(t.Context(), Arrival{}, m.Header, broken); err == nil || err.Error() != "damaged" {
		t.Errorf("%q, %v", b, err)
	}
}

// Whatever comes, one well-formed field goes out, with our words and the sender's names only.
func FuzzField(f *testing.F) {
	f.Add("carol@carol.test", "x.test", plainMail("carol@carol.test"))
	f.Add("", "carol.test", sign(f, "carol.test", plainMail("carol@carol.test")))
	f.Add(`"a; b=c"@x.test`, "[::1]", "From: a@b.c\r\nDKIM-Signature: v=1; d=a.b; c=d\r\n\r\n")
	c := &Checker{ID: "mx.alpha.test", DNS: texts("v=spf1 include:%{l}.%{d} +all")}
	f.Fuzz(func(t *testing.T, from, hello, message string) {
		text, results := field(t, c, Arrival{Peer: peer, Hello: hello, From: from}, message)
		if n := strings.Count(text, ";"); n != len(results) || len(results) < 3 || len(results) > 2+maxSignatures {
			t.Errorf("%d results in %q", len(results), text)
		}
	})
}
