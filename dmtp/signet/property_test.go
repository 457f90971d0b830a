package signet_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/internal/vectors"

	"pgregory.net/rapid"
)

// Whatever is made reads back as what was said, in every dialect and form.
func TestBuildParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawCase(t)
		s := d.build(t)
		again, err := signet.Decode(s.Armored())
		if err != nil || !bytes.Equal(again.Bytes(), s.Bytes()) {
			t.Fatalf("armored and read again: %v", err)
		}
		d.compare(t, again)
		if err := d.verify(again); err != nil {
			t.Fatal(err)
		}
	})
}

// One changed octet anywhere in a signed signet is noticed. (What may happen is that the last signature stops being one and
// the signet falls to a lower form: that is a cut, which anyone can make. It must then be that very cut.)
func TestFlip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawCase(t)
		s := d.build(t)
		b := s.Bytes()
		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		b[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "mask"))
		changed, err := signet.Parse(b)
		if err != nil || d.verify(changed) != nil {
			return
		}
		if changed.Form() >= s.Form() {
			t.Fatalf("octet %d of %d is free", at, len(b))
		}
		cut, err := s.Cut(changed.Form())
		if err != nil {
			t.Fatal(err)
		}
		if was, err := changed.Cut(changed.Form()); err != nil || !bytes.Equal(was.Bytes(), cut.Bytes()) {
			t.Fatalf("octet %d of %d makes another signet: %v", at, len(b), err)
		}
	})
}

// TestFlipAll changes every octet of one signet of each kind.
func TestFlipAll(t *testing.T) {
	previous := userPair(t).Signing
	org := newOrg(t, orgDetails)
	user := newUser(t, rotatedPair(t), &previous, userDetails)
	request, err := signet.NewRequest(rotatedPair(t), signet.RequestDetails{Previous: &previous})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*signet.Signet{org, user, request} {
		for at := range s.Size() {
			for _, mask := range []byte{0x01, 0x80, 0xff} {
				b := s.Bytes()
				b[at] ^= mask
				changed, err := signet.Parse(b)
				if err == nil && verifyAny(changed, org) == nil {
					t.Errorf("%v: octet %d is free", s.Kind(), at)
				}
			}
		}
	}
}

func verifyAny(s, org *signet.Signet) error {
	switch s.Kind() {
	case signet.Org:
		return s.VerifyOrg([]key.SigningPublic{org.SigningKey()})
	case signet.User:
		return s.VerifyUser(org)
	}
	return s.VerifyRequest()
}

// A drawn is one signet to make.
type drawn struct {
	kind     signet.Kind
	owner    key.Pair
	org      key.Pair
	previous *key.Signing
	request  signet.RequestDetails
	details  signet.Details
}

func drawPair(t *rapid.T, label string) key.Pair {
	n := rapid.Uint64().Draw(t, label)
	s, err := key.NewSigning(fmt.Appendf(nil, "%-32d", n))
	if err != nil {
		t.Fatal(err)
	}
	e, err := key.NewEncryption(fmt.Appendf(nil, "%032d", n))
	if err != nil {
		t.Fatal(err)
	}
	return key.Pair{Signing: s, Encryption: e}
}

func drawCase(t *rapid.T) drawn {
	d := drawn{
		kind:  rapid.SampledFrom([]signet.Kind{signet.Org, signet.User, signet.SSR}).Draw(t, "kind"),
		owner: drawPair(t, "owner"),
		org:   drawPair(t, "org"),
	}
	dialect := rapid.SampledFrom([]signet.Dialect{0, signet.A, signet.B, signet.C}).Draw(t, "dialect")
	if d.kind == signet.Org {
		d.owner = d.org
	} else if p := drawPair(t, "previous"); rapid.Bool().Draw(t, "rotated") && !p.Equal(d.owner) {
		d.previous = &p.Signing
	}
	d.request = signet.RequestDetails{Dialect: dialect, Previous: d.previous}
	d.details = drawDetails(t, d.kind, dialect)
	if dialect != signet.C {
		for range rapid.IntRange(0, 3).Draw(t, "keys") {
			k := drawPair(t, "key")
			d.request.Alternates = append(d.request.Alternates, k.Encryption.Public())
			if d.kind == signet.Org {
				p := signet.Permission(rapid.IntRange(0, 15).Draw(t, "permission"))
				d.details.Secondary = append(d.details.Secondary, signet.SecondaryKey{Permissions: p, Key: k.Signing.Public()})
			}
		}
	}
	return d
}

func drawDetails(t *rapid.T, k signet.Kind, dialect signet.Dialect) signet.Details {
	d := signet.Details{Dialect: dialect, Form: signet.Form(rapid.IntRange(int(signet.Crypto), int(signet.ID)).Draw(t, "form"))}
	if d.Form == signet.ID {
		d.Name = "example.com"
		if k != signet.Org {
			d.Name = "alice@example.com"
		}
	}
	if d.Form == signet.Crypto {
		return d
	}
	text := rapid.StringOfN(rapid.RuneFrom([]rune("abc ÄÖ☂.;")), 0, 60, -1)
	for _, id := range rapid.SliceOfNDistinct(rapid.ByteRange(16, 252), 0, 20, rapid.ID).Draw(t, "fields") {
		title := signet.FieldTitle(k, id)
		if k == signet.SSR {
			title = signet.FieldTitle(signet.User, id)
		}
		switch {
		case title == "Unassigned":
		case id == signet.FieldPhoto:
			d.Fields = append(d.Fields, signet.Field{ID: id, Value: []byte("\x89PNG\r\n\x1a\n" + text.Draw(t, "photo"))})
		case id == signet.FieldNamed:
			for _, name := range rapid.SliceOfNDistinct(text, 0, 3, rapid.ID).Draw(t, "names") {
				value := rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "named value")
				d.Fields = append(d.Fields, signet.Field{ID: id, Name: name + "x", Value: value})
			}
		default:
			d.Fields = append(d.Fields, signet.Field{ID: id, Value: []byte(text.Draw(t, "text"))})
		}
	}
	return d
}

func (d drawn) build(t *rapid.T) *signet.Signet {
	var s *signet.Signet
	var err error
	switch d.kind {
	case signet.Org:
		s, err = signet.NewOrg(d.org, d.details)
	case signet.User:
		s, err = signet.NewUser(d.owner, d.request, d.org.Signing, d.details)
	default:
		s, err = signet.NewRequest(d.owner, d.request)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (d drawn) verify(s *signet.Signet) error {
	switch s.Kind() {
	case signet.Org:
		return s.VerifyOrg([]key.SigningPublic{d.org.Signing.Public()})
	case signet.User:
		org, err := signet.NewOrg(d.org, signet.Details{Form: signet.Crypto})
		if err != nil {
			return err
		}
		return s.VerifyUser(org)
	}
	return s.VerifyRequest()
}

// compare holds a signet against what was asked for.
func (d drawn) compare(t *rapid.T, s *signet.Signet) {
	if s.Kind() != d.kind || s.SigningKey() != d.owner.Signing.Public() || s.EncryptionKey() != d.owner.Encryption.Public() {
		t.Fatal("other keys, or another kind")
	}
	if fmt.Sprint(s.SecondaryKeys()) != fmt.Sprint(d.details.Secondary) {
		t.Fatal("other secondary keys")
	}
	if d.kind == signet.Org {
		return
	}
	if fmt.Sprint(s.AlternateKeys()) != fmt.Sprint(d.request.Alternates) {
		t.Fatal("other alternate keys")
	}
	if _, ok := s.Custody(); ok != (d.previous != nil) {
		t.Fatal("custody")
	}
	if d.kind == signet.SSR {
		return
	}
	var fields []signet.Field
	for _, f := range s.Fields() {
		if f.ID >= 16 && f.ID <= 252 {
			fields = append(fields, f)
		}
	}
	if s.Name() != d.details.Name || s.Form() != d.details.Form || len(fields) != len(d.details.Fields) {
		t.Fatal("other details")
	}
	for _, want := range d.details.Fields {
		if v, ok := s.Field(want.ID); !ok || want.ID != signet.FieldNamed && !bytes.Equal(v, want.Value) {
			t.Fatalf("field %d is lost", want.ID)
		}
	}
}

func FuzzSignet(f *testing.F) {
	set := vectors.Open(f)
	for _, v := range vectors.Part[[]signetVector](f, set, "signets") {
		f.Add(set.File(f, v.File))
	}
	for _, v := range vectors.Part[[]negativeVector](f, set, "negative_signets") {
		f.Add(set.File(f, v.File))
	}
	for _, objects := range loadDialects(f) {
		for _, text := range objects {
			f.Add(unhex(f, text))
		}
	}
	org := newOrg(f, orgDetails)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := signet.Decode(b)
		if err != nil {
			if s != nil {
				t.Error("half a signet beside an error")
			}
			return
		}
		checkConsistent(t, s)
		_ = verifyAny(s, org)
		if raw, err := signet.Parse(b); err == nil && !bytes.Equal(raw.Bytes(), b) {
			t.Errorf("encodes differently:\n in %x\nout %x", b, raw.Bytes())
		}
		for _, text := range [][]byte{s.Armored(), []byte(s.Base64()), s.Bytes()} {
			if again, err := signet.Decode(text); err != nil || !bytes.Equal(again.Bytes(), s.Bytes()) {
				t.Errorf("written and read again: %v", err)
			}
		}
	})
}

// checkConsistent holds what the methods of one signet say against each other.
func checkConsistent(t *testing.T, s *signet.Signet) {
	t.Helper()
	size := 5
	for _, f := range append(s.Fields(), s.Unsigned()...) {
		size += 1 + len(f.Name) + len(f.Value)
	}
	if size > s.Size() {
		t.Errorf("fields of %d octets in a signet of %d", size, s.Size())
	}
	if s.SigningKey() == (key.SigningPublic{}) || s.EncryptionKey().IsZero() {
		t.Error("a signet without keys")
	}
	for form := signet.Crypto; form <= s.Form(); form++ {
		cut, err := s.Cut(form)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := signet.Parse(cut.Bytes()); err != nil || again.Form() != form || len(again.Unsigned()) != 0 {
			t.Errorf("cut to %v: %v", form, err)
		}
	}
}

// BenchmarkVerifyUser is what a resolver does with a fetched user signet: parse it and check its four signatures. "x-bare"
// is the time relative to four bare Ed25519 verifications of messages as long as the signed ones, in the same run.
func BenchmarkVerifyUser(b *testing.B) {
	org, user := newOrg(b, orgDetails), newUser(b, userPair(b), nil, userDetails)
	raw := user.Bytes()
	benchmark(b, bare(b, user, 5, 6, 253, 255), func() error {
		s, err := signet.Parse(raw)
		if err != nil {
			return err
		}
		return s.VerifyUser(org)
	})
}

// BenchmarkVerifyOrg is the same for an organizational signet and its three signatures.
func BenchmarkVerifyOrg(b *testing.B) {
	org := newOrg(b, orgDetails)
	raw, poks := org.Bytes(), []key.SigningPublic{org.SigningKey()}
	benchmark(b, bare(b, org, 4, 253, 255), func() error {
		s, err := signet.Parse(raw)
		if err != nil {
			return err
		}
		return s.VerifyOrg(poks)
	})
}

// BenchmarkParse is the grammar alone, keys' points included.
func BenchmarkParse(b *testing.B) {
	raw := newUser(b, userPair(b), nil, userDetails).Bytes()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := signet.Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// benchmark runs ours and the bare operations by turns, so that a busy machine slows both.
func benchmark(b *testing.B, bare, ours func() error) {
	b.Helper()
	var oursTook, bareTook time.Duration
	for b.Loop() {
		start := time.Now()
		err := ours()
		half := time.Now()
		if err = errors.Join(err, bare()); err != nil {
			b.Fatal(err)
		}
		oursTook, bareTook = oursTook+half.Sub(start), bareTook+time.Since(half)
	}
	b.ReportMetric(float64(oursTook)/float64(b.N), "ns/op")
	b.ReportMetric(float64(oursTook)/float64(bareTook), "x-bare")
}

// bare verifies messages as long as those of the signatures, with nothing around it.
func bare(b *testing.B, s *signet.Signet, signatures ...byte) func() error {
	b.Helper()
	k := userPair(b).Signing
	pub := k.Public()
	var messages, sigs [][]byte
	for _, id := range signatures {
		v, ok := s.Field(id)
		n := bytes.Index(s.Bytes(), append([]byte{id}, v...)) - 5
		if !ok || n < 0 {
			b.Fatalf("no signature %d", id)
		}
		m := make([]byte, n)
		messages, sigs = append(messages, m), append(sigs, k.Sign(m))
	}
	return func() error {
		for i, m := range messages {
			if !ed25519.Verify(pub[:], m, sigs[i]) {
				return errors.New("a bare verification fails")
			}
		}
		return nil
	}
}
