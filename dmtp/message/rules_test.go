package message

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// testCast makes four parties of origin.example and destination.example, whose signets hold fields.
func testCast(t testing.TB, fields ...signet.Field) *cast {
	t.Helper()
	c := new(cast)
	for i := range c.pairs {
		p, err := key.GeneratePair(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c.pairs[i] = p
	}
	for i, name := range []string{"alice@origin.example", "origin.example", "destination.example", "bob@destination.example"} {
		var s *signet.Signet
		var err error
		switch d := (signet.Details{Name: name, Fields: fields}); Actor(i) {
		case Author:
			s, err = signet.NewUser(c.pairs[i], signet.RequestDetails{}, c.pairs[Origin].Signing, d)
		case Recipient:
			s, err = signet.NewUser(c.pairs[i], signet.RequestDetails{}, c.pairs[Destination].Signing, d)
		default:
			s, err = signet.NewOrg(c.pairs[i], d)
		}
		if err != nil {
			t.Fatal(err)
		}
		*c.party(Actor(i)) = Party{Name: name, Signet: s}
	}
	return c
}

// forge writes a draft of any parts, also such as Compose refuses to write.
func (c *cast) forge(t testing.TB, parts ...typedPart) []byte {
	t.Helper()
	w := &composer{rand: rand.Reader, author: c.pairs[Author].Signing}
	if err := errors.Join(w.agree(&c.Parties), w.write(parts)); err != nil {
		t.Fatal(err)
	}
	return w.m.raw
}

// parts are the usual four, each replaced by the one of the same type among change, with further ones behind.
func (c *cast) parts(t testing.TB, change ...typedPart) []typedPart {
	t.Helper()
	chunk4, chunk5, err := c.envelope(c.pairs[Author].Signing)
	if err != nil {
		t.Fatal(err)
	}
	list := []typedPart{{TypeOrigin, Part{Data: chunk4.encode()}}, {TypeDestination, Part{Data: chunk5.encode()}},
		{TypeCommon, Part{Data: someContent().Common}}, {TypeOther, Part{Data: []byte("X: 1\r\n")}}}
	for _, p := range change {
		replaced := false
		for i := range list {
			if list[i].typ == p.typ && !kinds[p.typ].many {
				list[i], replaced = p, true
			}
		}
		if !replaced {
			list = append(list, p)
		}
	}
	return list
}

func zip(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	z.Close()
	return b.Bytes()
}

// TestContentRules: what only author and recipient can see, and only after the signatures held.
func TestContentRules(t *testing.T) {
	c := testCast(t)
	display := func(flags byte, data string) typedPart {
		return typedPart{TypeDisplay, Part{flags, []byte(data)}}
	}
	attach := func(flags byte, data string) typedPart {
		return typedPart{TypeAttachment, Part{flags, []byte(data)}}
	}
	hello := string(zip([]byte("hello")))
	tests := map[string]struct {
		change []typedPart
		want   error
		text   string // of all parts, joined
	}{
		"nothing":                      {nil, nil, ""},
		"one":                          {[]typedPart{display(0, "a")}, nil, "a"},
		"several":                      {[]typedPart{display(0, "a"), display(0, "b"), attach(0, "c")}, nil, "abc"},
		"continued":                    {[]typedPart{display(128, "a"), display(0, "b"), attach(128, "c"), attach(128, "d"), attach(0, "e")}, nil, "abcde"},
		"last continues":               {[]typedPart{display(0, "a"), attach(128, "b")}, BadSpan, ""},
		"continues in another type":    {[]typedPart{display(128, "a"), attach(0, "b")}, BadSpan, ""},
		"alternate padding":            {[]typedPart{display(1, "a"), attach(1, strings.Repeat("b", 300))}, nil, "a" + strings.Repeat("b", 300)},
		"gzip":                         {[]typedPart{display(4, hello)}, nil, "hello"},
		"gzip, continued":              {[]typedPart{display(4|128, hello), display(0, "b")}, nil, "hellob"},
		"gzip of nothing":              {[]typedPart{display(4, string(zip(nil)))}, nil, ""},
		"gzip, octets behind":          {[]typedPart{display(4, hello+"x")}, BadCompression, ""},
		"gzip, second member":          {[]typedPart{display(4, hello+hello)}, BadCompression, ""},
		"gzip, cut":                    {[]typedPart{display(4, hello[:len(hello)-1])}, BadCompression, ""},
		"gzip, wrong sum":              {[]typedPart{display(4, hello[:len(hello)-8]+"01234567")}, BadCompression, ""},
		"gzip, no header":              {[]typedPart{display(4, "hello")}, BadCompression, ""},
		"gzip, over 200 times":         {[]typedPart{display(4, string(zip(make([]byte, 1<<20))))}, BadCompression, ""},
		"gzip of 33":                   {[]typedPart{{TypeCommon, Part{4, zip(someContent().Common)}}}, nil, ""},
		"alternate layer":              {[]typedPart{display(2, "\x01\x02\x01")}, AltUnknown, ""},
		"alternate layer, text":        {[]typedPart{display(2, "text")}, AltUnknown, ""},
		"reserved flag 8":              {[]typedPart{display(8, "a")}, BadFlags, ""},
		"reserved flag 64":             {[]typedPart{attach(64, "a")}, BadFlags, ""},
		"continuation of 33":           {[]typedPart{{TypeCommon, Part{128, someContent().Common}}}, BadFlags, ""},
		"continuation of 34":           {[]typedPart{{TypeOther, Part{128, []byte("a")}}}, BadFlags, ""},
		"common: NUL":                  {[]typedPart{common("Subject: a", "Subject: \x00")}, BadHeaders, ""},
		"common: CR":                   {[]typedPart{common("Subject: a", "Subject: a\rb")}, BadHeaders, ""},
		"common: folded":               {[]typedPart{common("Subject: a", "Subject: a\r\n b")}, BadHeaders, ""},
		"common: empty line":           {[]typedPart{common("Subject: a", "Subject: a\r\n")}, BadHeaders, ""},
		"common: Cc":                   {[]typedPart{common("Subject: a", "Subject: a\r\nCc: a")}, BadHeaders, ""},
		"common: no blank after colon": {[]typedPart{common("Subject: a", "Subject:a")}, BadHeaders, ""},
		"common: no From":              {[]typedPart{common("From: a\r\n", "")}, HeaderMissing, ""},
		"common: no Date":              {[]typedPart{common("Date: a\r\n", "")}, HeaderMissing, ""},
		"common: 8-bit":                {[]typedPart{common("Subject: a", "Subject: \xff\xfe")}, nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := c.forge(t, c.parts(t, tt.change...)...)
			_, content, err := read(b, Author, c.pairs[Author].Encryption, c.Parties)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if err != nil {
				if content != nil {
					t.Error("content beside an error")
				}
				return
			}
			text := ""
			for _, p := range append(content.Display, content.Attach...) {
				text += string(p.Data)
			}
			if text != tt.text {
				t.Errorf("%q", text)
			}
			if _, _, err := read(b, Origin, c.pairs[Origin].Encryption, c.Parties); err != nil {
				t.Errorf("the origin, which sees nothing of it: %v", err)
			}
		})
	}
}

// common is chunk 33 with one text replaced.
func common(from, to string) typedPart {
	const lines = "Date: a\r\nTo: a\r\nFrom: a\r\nSubject: a\r\n"
	return typedPart{TypeCommon, Part{Data: []byte(strings.Replace(lines, from, to, 1))}}
}

// TestEnvelopeRules: chunks 4 and 5 are four lines, of names that may stand there.
func TestEnvelopeRules(t *testing.T) {
	c := testCast(t)
	chunk4, chunk5, err := c.envelope(c.pairs[Author].Signing)
	if err != nil {
		t.Fatal(err)
	}
	fp := chunk4.AuthorSignet.String()
	replace := func(from, to string) typedPart {
		return typedPart{TypeOrigin, Part{Data: []byte(strings.Replace(string(chunk4.encode()), from, to, 1))}}
	}
	tests := map[string]struct {
		part typedPart
		want error
	}{
		"as it should be":        {replace("", ""), nil},
		"something before":       {replace("Author", " Author"), BadEnvelope},
		"something behind":       {replace("]\r\nDestination: ", "]\r\nX: y\r\nDestination: "), BadEnvelope},
		"bare LF":                {replace("\r\n", "\n"), BadEnvelope},
		"two blanks":             {replace(": <", ":  <"), BadEnvelope},
		"lower-case label":       {replace("Author", "author"), BadEnvelope},
		"blank in the address":   {replace("<alice", "<ali ce"), BadEnvelope},
		"bracket in the address": {replace("<alice", "<ali>ce"), BadEnvelope},
		"quotes":                 {replace("<alice@", `<"alice"@`), BadEnvelope},
		"two at signs":           {replace("<alice@", "<alice@x@"), BadEnvelope},
		"no at sign":             {replace("<alice@", "<alice."), BadEnvelope},
		"no local part":          {replace("<alice@", "<@"), BadEnvelope},
		"no domain":              {replace("<destination.example>", "<>"), BadEnvelope},
		"domain with at sign":    {replace("<destination.example>", "<x@destination.example>"), BadEnvelope},
		"beyond ASCII":           {replace("<alice", "<al\u00efce"), BadEnvelope},
		"DEL":                    {replace("<alice", "<al\x7fce"), BadEnvelope},
		"padded fingerprint":     {replace(fp+"]", fp+"==]"), BadEnvelope},
		"short fingerprint":      {replace(fp+"]", fp[:85]+"]"), BadEnvelope},
		"fingerprint, spare bit": {replace(fp+"]", fp[:85]+string(fp[85]+1)+"]"), BadEnvelope},
		"long address":           {replace("alice", strings.Repeat("a", 300)), BadEnvelope},
		"over the limit":         {replace("Author", strings.Repeat("x", 4097)), TooLarge},
		"of the other chunk":     {typedPart{TypeOrigin, Part{Data: chunk5.encode()}}, BadEnvelope},
		"gzip":                   {typedPart{TypeOrigin, Part{4, chunk4.encode()}}, BadFlags},
		"continues":              {typedPart{TypeOrigin, Part{128, chunk4.encode()}}, BadFlags},
		"alternate padding":      {typedPart{TypeOrigin, Part{1, chunk4.encode()}}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := c.forge(t, c.parts(t, tt.part)...)
			for _, a := range []Actor{Author, Origin, Recipient} {
				m, err := Parse(b, Limits{})
				if err == nil {
					_, err = m.Open(a, c.pairs[a].Encryption)
				}
				if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
					t.Errorf("%v: %v, want %v", a, err, tt.want)
				}
			}
		})
	}
}

// TestBindings: who must be whom, and who must be given (dmime.md §15.4).
func TestBindings(t *testing.T) {
	c, other := testCast(t), testCast(t)
	draft := c.forge(t, c.parts(t)...)
	signed := c.signed(t, draft)
	governed := func(p *Parties) {
		p.Governs = func(org, domain string) bool { return org == "origin.example" && domain == "sub.origin.example" }
	}
	tests := map[string]struct {
		change                                 func(p *Parties)
		author, origin, destination, recipient error
	}{
		"all four":             {func(*Parties) {}, nil, nil, nil, nil},
		"a rule for subdomain": {governed, nil, nil, nil, nil},
		"names in capitals":    {func(p *Parties) { p.Author.Name = "ALICE@Origin.example" }, nil, nil, nil, nil},
		"names only in the signets": {func(p *Parties) {
			p.Author.Name, p.Origin.Name, p.Destination.Name, p.Recipient.Name = "", "", "", ""
		}, nil, nil, nil, nil},
		"only what is needed": {func(p *Parties) { p.Destination.Signet = nil }, nil, nil, SignetInvalid, nil},
		"no author":           {func(p *Parties) { p.Author.Signet = nil }, SignetInvalid, SignetInvalid, nil, SignetInvalid},
		"no origin":           {func(p *Parties) { p.Origin.Signet = nil }, nil, SignetInvalid, SignetInvalid, SignetInvalid},
		"no recipient":        {func(p *Parties) { p.Recipient.Signet = nil }, nil, nil, nil, SignetInvalid},
		"a user as origin": {func(p *Parties) { p.Origin.Signet = p.Author.Signet }, FingerprintMismatch, SignetInvalid, SignetInvalid,
			SignetInvalid},
		"another author": {func(p *Parties) { p.Author = other.Author }, FingerprintMismatch, FingerprintMismatch, nil, FingerprintMismatch},
		"another origin": {func(p *Parties) { p.Origin = other.Origin }, FingerprintMismatch, FingerprintMismatch, FingerprintMismatch,
			FingerprintMismatch},
		"another destination": {func(p *Parties) { p.Destination = other.Destination }, FingerprintMismatch, FingerprintMismatch,
			FingerprintMismatch, FingerprintMismatch},
		"another recipient": {func(p *Parties) { p.Recipient = other.Recipient }, FingerprintMismatch, nil, FingerprintMismatch,
			FingerprintMismatch},
		"another submitter": {func(p *Parties) { p.Author.Name = "carol@origin.example" }, EnvelopeMismatch, EnvelopeMismatch, nil,
			EnvelopeMismatch},
		"another session": {func(p *Parties) { p.Origin.Name = "else.example" }, EnvelopeMismatch, EnvelopeMismatch, EnvelopeMismatch,
			EnvelopeMismatch},
		"another mailbox": {func(p *Parties) { p.Recipient = Party{Name: "carol@destination.example"} }, EnvelopeMismatch, nil,
			EnvelopeMismatch, SignetInvalid},
		"a destination by name": {func(p *Parties) { p.Destination = Party{Name: "else.example"} }, EnvelopeMismatch, EnvelopeMismatch,
			SignetInvalid, EnvelopeMismatch},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for a, want := range []error{tt.author, tt.origin, tt.destination, tt.recipient} {
				p := c.Parties
				tt.change(&p)
				switch Actor(a) { // what an actor cannot know is not given
				case Origin:
					p.Recipient = Party{}
				case Destination:
					p.Author = Party{}
				}
				_, _, err := read(signed, Actor(a), c.pairs[a].Encryption, p)
				if !errors.Is(err, want) || want == nil && err != nil {
					t.Errorf("%v: %v, want %v", Actor(a), err, want)
				}
			}
		})
	}
}

func (c *cast) signed(t testing.TB, draft []byte) []byte {
	t.Helper()
	o, _, err := read(draft, Origin, c.pairs[Origin].Encryption, c.Parties)
	if err != nil {
		t.Fatal(err)
	}
	m, err := o.SignOrigin(c.pairs[Origin].Signing)
	if err != nil {
		t.Fatal(err)
	}
	return m.Bytes()
}

// TestSubdomain: the rule of the record decides whether an address below the organisation's domain is its own.
func TestSubdomain(t *testing.T) {
	c := testCast(t)
	chunk4, _, err := c.envelope(c.pairs[Author].Signing)
	if err != nil {
		t.Fatal(err)
	}
	user, err := signet.NewUser(c.pairs[Author], signet.RequestDetails{}, c.pairs[Origin].Signing, signet.Details{Name: "alice@sub.origin.example"})
	if err != nil {
		t.Fatal(err)
	}
	c.Author = Party{Signet: user}
	chunk4.Author = "alice@sub.origin.example"
	if chunk4.AuthorSignet, err = user.Fingerprint(signet.Crypto); err != nil {
		t.Fatal(err)
	}
	if _, err := Compose(rand.Reader, c.Parties, someContent(), c.pairs[Author].Signing); !errors.Is(err, EnvelopeMismatch) {
		t.Errorf("written without the rule: %v", err)
	}
	c.Governs = func(org, domain string) bool { return strings.HasSuffix(domain, "."+org) }
	m, err := Compose(rand.Reader, c.Parties, someContent(), c.pairs[Author].Signing)
	if err != nil {
		t.Fatal(err)
	}
	b := c.signed(t, m.Bytes())
	for a := range actorNames {
		if _, _, err := read(b, Actor(a), c.pairs[a].Encryption, c.Parties); err != nil {
			t.Errorf("%v: %v", Actor(a), err)
		}
	}
	c.Governs = nil
	for a, want := range []error{EnvelopeMismatch, EnvelopeMismatch, nil, EnvelopeMismatch} {
		if _, _, err := read(b, Actor(a), c.pairs[a].Encryption, c.Parties); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%v without the rule: %v", Actor(a), err)
		}
	}
}

// TestNameless: a signet that does not name its owner serves the name for which it was fetched, and no other.
func TestNameless(t *testing.T) {
	c := testCast(t)
	cut, err := c.Recipient.Signet.Cut(signet.Full)
	if err != nil {
		t.Fatal(err)
	}
	c.Recipient.Signet = cut
	m, err := Compose(rand.Reader, c.Parties, someContent(), c.pairs[Author].Signing)
	if err != nil {
		t.Fatal(err)
	}
	b := c.signed(t, m.Bytes())
	for name, want := range map[string]error{"bob@destination.example": nil, "carol@destination.example": EnvelopeMismatch, "": SignetInvalid} {
		c.Recipient.Name = name
		if _, _, err := read(b, Recipient, c.pairs[Recipient].Encryption, c.Parties); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	c.Recipient.Name = ""
	if _, err := Compose(rand.Reader, c.Parties, someContent(), c.pairs[Author].Signing); !errors.Is(err, SignetInvalid) {
		t.Errorf("written to nobody: %v", err)
	}
}

// TestCompose: what the profile of dmime.md §11 lets us write.
func TestCompose(t *testing.T) {
	multi := signet.Field{ID: fieldExtensions, Value: []byte("dmime-multi")}
	limit := signet.Field{ID: fieldSizeLimit, Value: []byte("5000")}
	strange := signet.Field{ID: fieldSizeLimit, Value: []byte("5 MB")}
	part := func(flags byte, size int) Part { return Part{flags, make([]byte, size)} }
	tests := map[string]struct {
		fields  []signet.Field
		display []Part
		attach  []Part
		want    error
	}{
		"one of each":               {nil, []Part{part(0, 1)}, []Part{part(0, 1)}, nil},
		"two":                       {nil, []Part{part(0, 1), part(0, 1)}, nil, TooLarge},
		"two attachments":           {nil, nil, []Part{part(0, 1), part(0, 1)}, TooLarge},
		"two, advertised":           {[]signet.Field{multi}, []Part{part(0, 1), part(0, 1)}, nil, nil},
		"the largest":               {nil, []Part{part(0, MaxData)}, nil, nil},
		"larger":                    {nil, []Part{part(0, MaxData+1)}, nil, TooLarge},
		"larger, advertised":        {[]signet.Field{multi}, []Part{part(0, MaxData+1)}, nil, nil},
		"empty part":                {nil, []Part{part(0, 0)}, nil, BadDataLength},
		"last continues":            {[]signet.Field{multi}, []Part{part(0, 1), part(128, 1)}, nil, BadSpan},
		"continues":                 {[]signet.Field{multi}, []Part{part(128, 1), part(0, 1)}, nil, nil},
		"gzip":                      {nil, []Part{part(4, 1)}, nil, BadFlags},
		"alternate padding":         {nil, []Part{part(1, 1)}, nil, BadFlags},
		"1014 parts":                {[]signet.Field{multi}, repeat(part(0, 1), 1014), nil, nil},
		"1015 parts":                {[]signet.Field{multi}, repeat(part(0, 1), 1015), nil, TooLarge},
		"within the peer's limit":   {[]signet.Field{limit}, []Part{part(0, 1)}, nil, nil},
		"over the peer's limit":     {[]signet.Field{limit}, []Part{part(0, 5000)}, nil, TooLarge},
		"a limit that is no number": {[]signet.Field{strange}, []Part{part(0, 5000)}, nil, nil},
		"a token that only looks like": {[]signet.Field{{ID: fieldExtensions, Value: []byte("xdmime-multi;dmime-multi2")}},
			[]Part{part(0, 1), part(0, 1)}, nil, TooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := testCast(t, tt.fields...)
			content := someContent()
			content.Display, content.Attach = tt.display, tt.attach
			m, err := Compose(rand.Reader, c.Parties, content, c.pairs[Author].Signing)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			_, got, err := read(m.Bytes(), Author, c.pairs[Author].Encryption, c.Parties)
			if err != nil {
				t.Fatal(err)
			}
			if joined(got.Display) != joined(tt.display) || joined(got.Attach) != joined(tt.attach) {
				t.Error("other content")
			}
			again, err := Parse(m.Bytes(), Limits{}) // Compose builds its message without Parse
			if err != nil || fmt.Sprint(again.chunks) != fmt.Sprint(m.chunks) || again.point != m.point || again.ID() != m.ID() {
				t.Errorf("Parse sees another message than Compose wrote: %v", err)
			}
		})
	}
}

func repeat(p Part, n int) (list []Part) {
	for range n {
		list = append(list, p)
	}
	return list
}

func joined(parts []Part) string {
	var b strings.Builder
	for _, p := range parts {
		b.Write(p.Data)
		if p.Flags == 0 {
			b.WriteString("|")
		}
	}
	return b.String()
}

// TestComposeRefuses: keys and signets that do not belong together, and a random source that fails somewhere.
func TestComposeRefuses(t *testing.T) {
	c, other := testCast(t), testCast(t)
	if _, err := Compose(rand.Reader, c.Parties, someContent(), other.pairs[Author].Signing); !errors.Is(err, SignetInvalid) {
		t.Errorf("another signing key: %v", err)
	}
	p := c.Parties
	p.Recipient = Party{Name: "bob@destination.example"}
	if _, err := Compose(rand.Reader, p, someContent(), c.pairs[Author].Signing); !errors.Is(err, SignetInvalid) {
		t.Errorf("no recipient's signet: %v", err)
	}
	p = c.Parties
	p.Destination, p.Origin = c.Origin, c.Destination
	if _, err := Compose(rand.Reader, p, someContent(), c.pairs[Author].Signing); !errors.Is(err, EnvelopeMismatch) {
		t.Errorf("organisations exchanged: %v", err)
	}
	for n := int64(0); ; n += 13 {
		m, err := Compose(io.LimitReader(rand.Reader, n), c.Parties, someContent(), c.pairs[Author].Signing)
		if err == nil {
			break
		}
		if m != nil || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("after %d random octets: %v, %v", n, m, err)
		}
	}
}

// TestSignOrigin: who may sign, when, and what.
func TestSignOrigin(t *testing.T) {
	c, other := testCast(t), testCast(t)
	draft := c.forge(t, c.parts(t)...)
	m, err := Parse(draft, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := m.Open(Origin, c.pairs[Origin].Encryption)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.SignOrigin(c.pairs[Origin].Signing); !errors.Is(err, ErrNotVerified) {
		t.Errorf("before Verify: %v", err)
	}
	if err := o.Verify(c.Parties); err != nil {
		t.Fatal(err)
	}
	if r := o.Report(); r.OriginFull != Unsigned || r.MetadataBounce != Unsigned || r.DisplayBounce != Unsigned || r.AuthorFull != Valid {
		t.Errorf("report of a draft: %+v", r)
	}
	if _, err := o.SignOrigin(other.pairs[Origin].Signing); !errors.Is(err, SignetInvalid) {
		t.Errorf("with another key: %v", err)
	}
	wrong := c.Parties
	wrong.Author = other.Author
	if err := o.Verify(wrong); err == nil {
		t.Error("another author passes")
	}
	if _, err := o.SignOrigin(c.pairs[Origin].Signing); !errors.Is(err, ErrNotVerified) {
		t.Errorf("after a Verify that failed: %v", err)
	}
	for _, a := range []Actor{Author, Destination, Recipient} {
		other, err := m.Open(a, c.pairs[a].Encryption)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.SignOrigin(c.pairs[Origin].Signing); !errors.Is(err, NoSlot) {
			t.Errorf("as %v: %v", a, err)
		}
	}
	if err := o.Verify(c.Parties); err != nil {
		t.Fatal(err)
	}
	signed, err := o.SignOrigin(c.pairs[Origin].Signing)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Bytes(), draft) || bytes.Equal(signed.Bytes(), draft) {
		t.Error("a signature in the draft itself")
	}
	foreign := bytes.Clone(draft)
	if here, err := o.SignOriginHere(c.pairs[Origin].Signing); err != nil || !bytes.Equal(here.Bytes(), signed.Bytes()) || &here.Bytes()[0] != &draft[0] {
		t.Errorf("in place: %v", err)
	}
	c255, _ := m.find(TypeOriginSignature)
	foreign[c255.start+chunkHeader] ^= 1
	of, _, err := read(foreign, Origin, c.pairs[Origin].Encryption, c.Parties)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := of.SignOrigin(c.pairs[Origin].Signing); !errors.Is(err, SigOrigin) {
		t.Errorf("over something that is no placeholder: %v", err)
	}
}

// TestSecondaryKeys: a key with the permission signs and is accepted, one without does neither.
func TestSecondaryKeys(t *testing.T) {
	c := testCast(t)
	for permission, want := range map[signet.Permission]bool{signet.SignMessages: true, signet.SignMessages | signet.SignSignets: true,
		signet.SignSignets | signet.SignCertificates | signet.SignSoftware: false} {
		sok, err := key.GenerateSigning(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c.Origin.Signet, err = signet.NewOrg(c.pairs[Origin], signet.Details{Name: "origin.example",
			Secondary: []signet.SecondaryKey{{Permissions: permission, Key: sok.Public()}}})
		if err != nil {
			t.Fatal(err)
		}
		o, _, err := read(c.forge(t, c.parts(t)...), Origin, c.pairs[Origin].Encryption, c.Parties)
		if err != nil {
			t.Fatal(err)
		}
		m, err := o.SignOrigin(sok)
		if (err == nil) != want {
			t.Fatalf("permission %d: %v", permission, err)
		}
		if !want {
			continue
		}
		for _, a := range []Actor{Destination, Recipient} {
			if _, _, err := read(m.Bytes(), a, c.pairs[a].Encryption, c.Parties); err != nil {
				t.Errorf("permission %d, %v: %v", permission, a, err)
			}
		}
	}
}

// TestNotVerified: nothing of the content before Verify, and nothing for those who have no slot.
func TestNotVerified(t *testing.T) {
	c := testCast(t)
	b := c.signed(t, c.forge(t, c.parts(t, typedPart{TypeDisplay, Part{Data: []byte("secret")}})...))
	m, err := Parse(b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for a := range actorNames {
		o, err := m.Open(Actor(a), c.pairs[a].Encryption)
		if err != nil {
			t.Fatal(err)
		}
		want := ErrNotVerified
		if Actor(a) == Origin || Actor(a) == Destination {
			want = NoSlot
		}
		if _, err := o.Content(); !errors.Is(err, want) {
			t.Errorf("%v: %v", Actor(a), err)
		}
		list, err := o.Chunks()
		if (err != nil) != (want == ErrNotVerified) {
			t.Errorf("%v: chunks: %v", Actor(a), err)
		}
		for _, p := range list {
			if p.Type >= TypeCommon && p.Type <= TypeAttachment {
				t.Errorf("%v sees chunk %d", Actor(a), p.Type)
			}
		}
	}
	if _, err := m.Open(Recipient, key.Encryption{}); err == nil {
		t.Error("opened without a key")
	}
	if _, err := m.Open(Recipient+1, c.pairs[0].Encryption); !errors.Is(err, NoSlot) {
		t.Error("opened by a fifth actor")
	}
}

// TestDestinationFirst: the destination checks the origin's signature before it uses chunk 5, and Verify builds on that.
func TestDestinationFirst(t *testing.T) {
	c, other := testCast(t), testCast(t)
	draft := c.forge(t, c.parts(t)...)
	for name, b := range map[string][]byte{"draft": draft, "signed": c.signed(t, draft)} {
		m, err := Parse(b, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		o, err := m.Open(Destination, c.pairs[Destination].Encryption)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.VerifyOriginSignature(other.Origin.Signet); !errors.Is(err, SigOrigin) {
			t.Errorf("%s, another origin: %v", name, err)
		}
		if err := o.VerifyOriginSignature(c.Author.Signet); !errors.Is(err, SignetInvalid) {
			t.Errorf("%s, a user's signet: %v", name, err)
		}
		if err := o.VerifyOriginSignature(nil); !errors.Is(err, SignetInvalid) {
			t.Errorf("%s, no signet: %v", name, err)
		}
		err = o.VerifyOriginSignature(c.Origin.Signet)
		if (err == nil) != (name == "signed") {
			t.Errorf("%s: %v", name, err)
		}
		if err := o.Verify(c.Parties); (err == nil) != (name == "signed") {
			t.Errorf("%s: %v", name, err)
		}
		p := c.Parties
		p.Origin = other.Origin
		if err := o.Verify(p); err == nil {
			t.Errorf("%s: the signature of one signet serves for another", name)
		}
	}
}

// TestLimits: each is held before anything is allocated or decrypted.
func TestLimits(t *testing.T) {
	c := testCast(t)
	b := c.forge(t, c.parts(t, typedPart{TypeDisplay, Part{Data: make([]byte, 3000)}}, typedPart{TypeOther, Part{Data: make([]byte, 9000)}},
		common("Subject: a", "Subject: "+strings.Repeat("a", 9000)))...)
	traced := append([]byte{0x07, 0x2d, 0, 100}, append(make([]byte, 100), b...)...)
	tests := map[string]struct {
		b      []byte
		limits Limits
		want   error
	}{
		"none":               {b, Limits{}, nil},
		"total":              {b, Limits{Total: int64(len(b) - 1)}, TooLarge},
		"total, met":         {b, Limits{Total: int64(len(b))}, nil},
		"chunks":             {b, Limits{Chunks: 10}, TooLarge},
		"chunks, met":        {b, Limits{Chunks: 11}, nil},
		"common":             {b, Limits{Common: 4000}, TooLarge},
		"other":              {b, Limits{Other: 4000}, TooLarge},
		"tracing":            {traced, Limits{Tracing: 99}, BadTracing},
		"tracing, met":       {traced, Limits{Tracing: 100}, nil},
		"tracing, unlimited": {append([]byte{0x07, 0x2d, 0xff, 0xff}, append(make([]byte, 65535), b...)...), Limits{}, nil},
		"tracing twice":      {append([]byte{0x07, 0x2d, 0, 1, 'x'}, traced...), Limits{}, BadTracing},
		"tracing alone":      {traced[:104], Limits{}, Truncated},
		"tracing cut":        {traced[:50], Limits{}, Truncated},
		"empty tracing":      {append([]byte{0x07, 0x2d, 0, 0}, b...), Limits{}, BadTracing},
	}
	for name, tt := range tests {
		if _, err := Parse(tt.b, tt.limits); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	for name, l := range map[string]Limits{"common": {Common: 8000}, "other": {Other: 8000}} { // seen only when opened
		m, err := Parse(b, l)
		if err != nil {
			t.Fatal(err)
		}
		o, err := m.Open(Author, c.pairs[Author].Encryption)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Verify(c.Parties); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Content(); !errors.Is(err, TooLarge) || !errors.Is(err, Policy) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnzippedTogether(t *testing.T) {
	c := testCast(t)
	half := typedPart{TypeDisplay, Part{4, zip(bytes.Repeat([]byte("abcdefgh"), 100))}}
	b := c.forge(t, c.parts(t, half, half)...)
	for limit, want := range map[int64]error{1600: nil, 1599: BadCompression} {
		m, err := Parse(b, Limits{Unzipped: limit})
		if err != nil {
			t.Fatal(err)
		}
		o, err := m.Open(Author, c.pairs[Author].Encryption)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Verify(c.Parties); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the count begins anew
			if _, err := o.Content(); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("limit %d: %v", limit, err)
			}
		}
	}
}

func TestTracing(t *testing.T) {
	line := "Received: by a.example\r\n"
	for name, tt := range map[string]struct{ in, want string }{
		"none":      {"", ""},
		"one":       {line, line},
		"too many":  {strings.Repeat(line, 1000), strings.Repeat(line, TracingKept/len(line))},
		"one, huge": {strings.Repeat("x", TracingKept+1), ""},
	} {
		b := TracingBlock([]byte(tt.in))
		if tt.want == "" {
			if b != nil {
				t.Errorf("%s: %d octets", name, len(b))
			}
			continue
		}
		if binary.BigEndian.Uint16(b) != tracingNumber || int(binary.BigEndian.Uint16(b[2:])) != len(tt.want) || string(b[4:]) != tt.want {
			t.Errorf("%s: %d octets, want %d", name, len(b), len(tt.want))
		}
	}
}

// TestErrors: each class has a name and an outcome of its own place in the table, and an error shows nothing but its own words.
func TestErrors(t *testing.T) {
	seen := map[string]bool{}
	for c := Truncated; int(c) < len(classes); c++ {
		if c.String() == "" || seen[c.String()] || c.Outcome() < Malformed || c.Outcome() > Policy {
			t.Errorf("class %d: %q, %v", c, c.String(), c.Outcome())
		}
		seen[c.String()] = true
		err := fmt.Errorf("wrapped: %w", fail(c, TypeCommon, "so"))
		if !errors.Is(err, c) || !errors.Is(err, c.Outcome()) || errors.Is(err, c+1) && c != AltPolicy {
			t.Errorf("%v is not of its class", err)
		}
	}
	if text := fail(BadPadding, TypeDisplay, "so").Error(); text != "message: chunk 67 (display): BadPadding: so" {
		t.Error(text)
	}
}
