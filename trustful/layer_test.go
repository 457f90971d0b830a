package trustful_test

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/dmtp"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

// layered gives a side's administrator's word on the alternate layer: the same for mail to, and from, every domain.
func layered(t testing.TB, s *side, mode message.LayerMode, always bool, suites ...message.SuiteID) {
	t.Helper()
	o := s.keeper.Options
	o.Layer = trustful.Layer{Offer: message.OfferedOf(suites), Always: always, For: func(string) message.Layer {
		return message.Layer{Mode: mode, Suites: suites, Bucket: 256}
	}}
	var err error
	if s.keeper, err = trustful.NewKeeper(o); err != nil {
		t.Fatal(err)
	}
}

// TestLayerOffered: what a new user's signet says, and that it stays short enough for libdime.
func TestLayerOffered(t *testing.T) {
	alpha, _ := newSides(t)
	layered(t, alpha, message.LayerOpportunistic, true, message.Suites()...)
	if _, err := alpha.keeper.Enrol(t.Context(), "alice@alpha.example"); err != nil {
		t.Fatal(err)
	}
	s, err := alpha.keeper.Rotate(t.Context(), "alice@alpha.example") // custody makes it longer
	if err != nil {
		t.Fatal(err)
	}
	if got := message.Offered(s); !slices.Equal(got, []message.SuiteID{message.SuiteHybridAES, message.SuiteX25519}) || !message.WantsLayer(s) {
		t.Errorf("offers %v", got)
	}
	text, _ := s.Field(26)
	if string(text) != "dmime-multi;dmime-alt" {
		t.Errorf("Extensions %q", text)
	}
	if n := len("250 OK [") + len(s.Base64()) + len("]\r\n"); n > dmtp.MaxReplySent-512 {
		t.Errorf("a reply line of %d octets leaves no room for long addresses", n)
	}
	for _, f := range s.Fields() {
		if f.ID == signet.FieldAlternateKey && len(f.Value) > 69 {
			t.Errorf("field 3 of %d octets: in what custody and fingerprint cover, large keys are commitments", len(f.Value))
		}
	}
	core, err := s.Cut(signet.Crypto)
	if err != nil {
		t.Fatal(err)
	}
	if got := message.Offered(core); !slices.Equal(got, []message.SuiteID{message.SuiteX25519}) {
		t.Errorf("without its field 251 it offers %v", got)
	}
}

// TestLayerLife: mail under the layer is read with the key of its own generation, until that is destroyed.
func TestLayerLife(t *testing.T) {
	alpha, bravo := newSides(t)
	layered(t, alpha, message.LayerOpportunistic, false, message.Suites()...)
	layered(t, bravo, message.LayerOpportunistic, false, message.Suites()...)
	bob := enrol(t, bravo, "bob@bravo.example")
	first := carry(t, alpha, to("alice@alpha.example", bravo, bob), letter("the merger"))
	open := func(in trustful.Incoming, retired bool) error {
		l, err := bravo.keeper.Open(t.Context(), in)
		if err == nil && (l.Suite != message.SuiteHybridAES || l.Unlayered || l.Retired != retired || string(join(l.Content.Display)) != "the merger") {
			t.Errorf("opened under %v, retired %v", l.Suite, l.Retired)
		}
		return err
	}
	if err := open(first, false); err != nil {
		t.Fatal(err)
	}
	next, err := bravo.keeper.Rotate(t.Context(), "bob@bravo.example")
	if err != nil {
		t.Fatal(err)
	}
	second := carry(t, alpha, to("alice@alpha.example", bravo, next), letter("the merger"))
	if err := errors.Join(open(first, true), open(second, false)); err != nil {
		t.Fatalf("during the grace: %v", err)
	}
	bravo.clock.pass(trustful.MinGrace + time.Hour)
	if n, err := bravo.keeper.Sweep(t.Context()); n != 1 || err != nil {
		t.Fatalf("destroyed %d, %v", n, err)
	}
	if err := open(first, true); !errors.Is(err, trustful.ErrStaleSignet) {
		t.Errorf("after the grace: %v", err)
	}
	if err := open(second, false); err != nil {
		t.Errorf("the current key: %v", err)
	}
}

// TestLayerModes: what each side's administrator says, and what comes of it.
func TestLayerModes(t *testing.T) {
	type word struct {
		mode   message.LayerMode
		always bool
		suites []message.SuiteID
	}
	all := message.Suites()
	off, opportunistic, required := word{}, word{message.LayerOpportunistic, false, all}, word{message.LayerRequired, true, all}
	tests := map[string]struct {
		author, recipient word
		suite             message.SuiteID
		unlayered         bool
		seal, open        error
	}{
		"both on":                        {opportunistic, opportunistic, message.SuiteHybridAES, false, nil, nil},
		"both off":                       {off, off, 0, false, nil, nil},
		"author off":                     {off, opportunistic, 0, false, nil, nil},
		"recipient off":                  {opportunistic, off, 0, false, nil, nil},
		"author requires, recipient on":  {required, opportunistic, message.SuiteHybridAES, false, nil, nil},
		"author requires, recipient off": {required, off, 0, false, message.AltPolicy, nil},
		"recipient requires, author on":  {opportunistic, required, message.SuiteHybridAES, false, nil, nil},
		"recipient requires, author off": {off, required, 0, false, message.AltPolicy, nil},
		"the author's order": {word{message.LayerOpportunistic, false, []message.SuiteID{message.SuiteX25519, message.SuiteHybridAES}}, opportunistic,
			message.SuiteX25519, false, nil, nil},
		"no common suite": {word{message.LayerOpportunistic, false, []message.SuiteID{message.SuiteX25519}},
			word{message.LayerOpportunistic, false, []message.SuiteID{message.SuiteHybridXChaCha}}, 0, false, nil, nil},
		"another AEAD": {opportunistic, word{message.LayerOpportunistic, false, []message.SuiteID{message.SuiteHybridXChaCha}},
			message.SuiteHybridXChaCha, false, nil, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			alpha, bravo := newSides(t)
			layered(t, alpha, tt.author.mode, tt.author.always, tt.author.suites...)
			layered(t, bravo, tt.recipient.mode, tt.recipient.always, tt.recipient.suites...)
			bob := enrol(t, bravo, "bob@bravo.example")
			o := to("alice@alpha.example", bravo, bob)
			d, err := alpha.keeper.Prepare(t.Context(), o)
			if !errors.Is(err, tt.seal) || (d == nil) != (err != nil) {
				t.Fatalf("prepare: %v, want %v", err, tt.seal)
			}
			if err != nil {
				return
			}
			if d.Suite() != tt.suite {
				t.Errorf("will be under %v", d.Suite())
			}
			l, err := bravo.keeper.Open(t.Context(), carry(t, alpha, o, letter("x")))
			if !errors.Is(err, tt.open) || err == nil && (l.Suite != tt.suite || l.Unlayered != tt.unlayered) {
				t.Errorf("open: %v, %v, want %v", err, l, tt.open)
			}
		})
	}
}

// TestLayerAsked: mail without the layer for one whose signet asks for it, from a peer that does not know it.
func TestLayerAsked(t *testing.T) {
	for mode, want := range map[message.LayerMode]error{message.LayerOff: nil, message.LayerOpportunistic: nil, message.LayerRequired: message.AltPolicy} {
		alpha, bravo := newSides(t)
		layered(t, bravo, mode, true, message.Suites()...)
		bob := enrol(t, bravo, "bob@bravo.example")
		o := to("alice@alpha.example", bravo, bob)
		d, err := alpha.keeper.Prepare(t.Context(), o)
		if !errors.Is(err, message.AltPolicy) || d != nil {
			t.Fatalf("one of ours writes to him without the layer: %v", err)
		}
		in := handOver(t, alpha, o, sealAsReference(t, alpha, o))
		l, err := bravo.keeper.Open(t.Context(), in)
		if !errors.Is(err, want) || (l == nil) != (want != nil) || l != nil && (!l.Unlayered || l.Suite != 0) {
			t.Errorf("mode %v: %v, %v", mode, l, err)
		}
	}
}

// TestLayerRequiredOfOne: users' signets offer the layer and do not ask for it, and it is required of the author's domain, or not.
func TestLayerRequiredOfOne(t *testing.T) {
	for mode, want := range map[message.LayerMode]error{message.LayerOpportunistic: nil, message.LayerRequired: message.AltPolicy} {
		alpha, bravo := newSides(t)
		layered(t, bravo, mode, false, message.Suites()...)
		bob := enrol(t, bravo, "bob@bravo.example")
		o := to("alice@alpha.example", bravo, bob)
		l, err := bravo.keeper.Open(t.Context(), handOver(t, alpha, o, sealAsReference(t, alpha, o)))
		if !errors.Is(err, want) || (l == nil) != (want != nil) || l != nil && l.Unlayered {
			t.Errorf("mode %v: %v, %v", mode, l, err)
		}
	}
}

// sealAsReference writes what libdime would: it does not look at field 3.
func sealAsReference(t testing.TB, s *side, o trustful.Outgoing) *message.Message {
	t.Helper()
	author := enrol(t, s, o.Author)
	m, err := message.Compose(rand.Reader, message.Parties{Author: message.Party{Name: o.Author, Signet: author}, Origin: s.org.party(),
		Destination: o.Destination, Recipient: o.Recipient}, letter("x"), s.store.users[o.Author][0].keys.Signing)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestLayerDowngraded: what an organisation can do to the signet of a user whom we know, short of his own signature.
func TestLayerDowngraded(t *testing.T) {
	const address = "bob@bravo.example"
	for name, tt := range map[string]struct {
		publish func(t *testing.T, b *side) *signet.Signet
		want    error
	}{
		"field 251 taken out": {func(t *testing.T, b *side) *signet.Signet {
			k := b.store.users[address][0].keys
			offered, _ := message.Offer(k.Layers, false)
			s, err := signet.NewUser(k.Pair, signet.RequestDetails{Layers: offered}, b.org.pair.Signing, signet.Details{Name: address})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}, message.AltPolicy},
		"another key in field 251": {func(t *testing.T, b *side) *signet.Signet {
			k := b.store.users[address][0].keys
			offered, _ := message.Offer(k.Layers, false)
			other, err := message.GenerateLayerKey(message.SuiteHybridAES)
			if err != nil {
				t.Fatal(err)
			}
			_, fields := message.Offer([]message.LayerKey{other}, false)
			s, err := signet.NewUser(k.Pair, signet.RequestDetails{Layers: offered}, b.org.pair.Signing, signet.Details{Name: address, Fields: fields})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}, message.AltPolicy},
		"keys of its own, without the layer": {func(t *testing.T, b *side) *signet.Signet { return stranger(t, b, address) }, trustful.ErrHeld},
	} {
		t.Run(name, func(t *testing.T) {
			alpha, bravo := newSides(t)
			layered(t, alpha, message.LayerOpportunistic, false, message.Suites()...)
			layered(t, bravo, message.LayerOpportunistic, false, message.Suites()...)
			carry(t, alpha, to("alice@alpha.example", bravo, enrol(t, bravo, address)), letter("x")) // alpha knows him now
			d, err := alpha.keeper.Prepare(t.Context(), to("alice@alpha.example", bravo, tt.publish(t, bravo)))
			if !errors.Is(err, tt.want) || d != nil {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// TestLayerMigration: users from before the layer get keys of it when their signet is old enough to be replaced, once; those
// that stay as they are by the administrator's word do not.
func TestLayerMigration(t *testing.T) {
	alpha, _ := newSides(t)
	o := alpha.keeper.Options
	o.Life = 90 * 24 * time.Hour
	o.Keeps = func(domain string) bool { return strings.HasPrefix(domain, "keeps") }
	var err error
	if alpha.keeper, err = trustful.NewKeeper(o); err != nil {
		t.Fatal(err)
	}
	enrol(t, alpha, "alice@alpha.example")
	layered(t, alpha, message.LayerOpportunistic, false, message.Suites()...)
	enrol(t, alpha, "bob@alpha.example")
	rotate := func(want int) {
		t.Helper()
		if n, err := alpha.keeper.RotateDue(t.Context()); n != want || err != nil {
			t.Errorf("rotated %d, %v; want %d", n, err, want)
		}
	}
	rotate(0)
	alpha.clock.pass(trustful.MinLife + time.Hour)
	rotate(1)
	rotate(0)
	s, err := alpha.keeper.Current(t.Context(), "alice@alpha.example")
	if err != nil || len(message.Offered(s)) != 2 {
		t.Errorf("alice offers %v, %v", message.Offered(s), err)
	}
	if _, custody := s.Custody(); !custody {
		t.Error("without custody")
	}
}
