package escrow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/circl/group"

	"dimegate/vault"
)

// subsets calls f with every set of k of the numbers 1 to n.
func subsets(n, k int, f func([]uint16)) {
	var walk func(from int, set []uint16)
	walk = func(from int, set []uint16) {
		if len(set) == k {
			f(slices.Clone(set))
			return
		}
		for i := from; i <= n; i++ {
			walk(i+1, append(set, uint16(i)))
		}
	}
	walk(1, nil)
}

func TestAnyQuorumOpens(t *testing.T) {
	w := newWorld(t, 3, 5)
	w.seal(4, 0, 1)
	w.seal(2, 1)
	w.seal(3, 2)
	c := w.open(0, nil)
	files := map[uint16][]byte{}
	for i := uint16(1); i <= 5; i++ {
		files[i] = c.approve(i)
	}
	for k := 1; k <= 5; k++ {
		subsets(5, k, func(set []uint16) {
			var answers [][]byte
			for _, i := range slices.Backward(set) { // in any order
				answers = append(answers, files[i])
			}
			r, err := c.open(answers...)
			switch {
			case k < 3 && (!errors.Is(err, ErrQuorum) || len(r.Opened) > 0):
				t.Errorf("%v: opened %v, %v", set, r.Opened, err)
			case k >= 3 && (err != nil || len(r.Opened) != 4 || len(r.Refused)+len(r.Unopenable) > 0):
				t.Errorf("%v: %+v, %v", set, r, err)
			}
		})
	}
	if r, err := c.open(files[1], files[1], files[1]); !errors.Is(err, ErrQuorum) || len(r.Opened) > 0 || len(r.Refused) != 2 {
		t.Errorf("one officer thrice: %+v, %v", r, err)
	}
}

// TestFewerThanQuorumByMathematics leaves every check out: values of fewer than M officers give no key.
func TestFewerThanQuorumByMathematics(t *testing.T) {
	w := newWorld(t, 3, 5)
	w.seal(1, 0)
	wrap, s := w.records[0].wraps[0], w.dealt.Key.suite
	for k := 1; k <= 5; k++ {
		subsets(5, k, func(set []uint16) {
			var u []group.Element
			for _, i := range set {
				u = append(u, s.mul(wrap.u, w.shares[i].x()))
			}
			got := bytes.Equal(wrap.open(s.combine(s.lagrange(set), u)).Octets(), w.records[0].key)
			if got != (k >= 3) {
				t.Errorf("%v opens: %v", set, got)
			}
		})
	}
}

func TestReshare(t *testing.T) {
	w := newWorld(t, 3, 5)
	w.seal(3, 0)
	old := w.shares
	steps := []struct {
		name    string
		dealers []uint16
		quorum  int
		people  []string
		indexes []uint16
	}{
		{"one leaves, one comes", []uint16{1, 3, 5}, 3, []string{"officer1", "officer2", "officer3", "officer4", "fay"}, []uint16{1, 2, 3, 4, 6}},
		{"refresh", []uint16{2, 3, 6}, 3, []string{"officer1", "officer2", "officer3", "officer4", "fay"}, []uint16{1, 2, 3, 4, 6}},
		{"one added, quorum raised", []uint16{1, 2, 4}, 4, []string{"officer1", "officer2", "officer3", "officer4", "fay", "gus"}, []uint16{1, 2, 3, 4, 6, 7}},
		{"three removed, quorum lowered", []uint16{1, 2, 6, 7}, 2, []string{"officer1", "fay", "gus"}, []uint16{1, 6, 7}},
		{"a former officer has his index again", []uint16{1, 7}, 2, []string{"officer1", "gus", "hal", "officer3"}, []uint16{1, 3, 7, 8}},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			w.t = t
			w.reshare(step.dealers, step.quorum, step.people...)
			var indexes []uint16
			for _, o := range w.epoch().Officers {
				indexes = append(indexes, o.Index)
			}
			if !slices.Equal(indexes, step.indexes) {
				t.Fatalf("indexes %v, want %v", indexes, step.indexes)
			}
			w.seal(1, 0) // to the same key
			c := w.open(0, nil)
			var answers [][]byte
			for _, i := range indexes[len(indexes)-step.quorum:] {
				answers = append(answers, c.approve(i))
			}
			if r, err := c.open(answers...); err != nil || len(r.Opened) != len(w.records) {
				t.Errorf("opened %v, %v", r, err)
			}
			if r, err := c.open(answers[1:]...); !errors.Is(err, ErrQuorum) || len(r.Opened) > 0 {
				t.Errorf("without one: %v, %v", r, err)
			}
			w.mixed(old)
			old = w.shares
		})
	}
}

// mixed tries every set of old and new shares of the quorum's size that holds both: nothing must open.
func (w *world) mixed(old map[uint16]Share) {
	w.t.Helper()
	wrap, s := w.records[0].wraps[0], w.dealt.Key.suite
	subsets(8, w.epoch().Quorum, func(set []uint16) {
		for mask := 1; mask < 1<<len(set)-1; mask++ {
			var u []group.Element
			for n, i := range set {
				share, ok := w.shares[i]
				if mask>>n&1 == 0 {
					share, ok = old[i]
				}
				if !ok {
					return
				}
				u = append(u, s.mul(wrap.u, share.x()))
			}
			if bytes.Equal(wrap.open(s.combine(s.lagrange(set), u)).Octets(), w.records[0].key) {
				w.t.Errorf("old and new shares of %v open (new ones %b)", set, mask)
			}
		}
	})
}

// forge is officer i's answer with one partial changed by himself: he signs for it.
func (c *worldCase) forge(i uint16, entry int) []byte {
	w := c.w
	o, _ := w.epoch().Officer(i)
	job := work{w.dealt.Key, w.epoch(), c.m.Digest()}
	digest, messages := partialsDigest(), []byte(nil)
	for n := 0; n < len(c.entries); n += batchSize {
		var list []*partial
		for k := n; k < min(n+batchSize, len(c.entries)); k++ {
			_, p, err := job.part(i, w.shares[i].x(), c.entries[k].wrap, system)
			if err != nil {
				w.t.Fatal(err)
			}
			if k == entry {
				s := w.dealt.Key.suite
				p.u = s.add(p.u, s.group.Generator())
				copy(p.octets, s.encode(p.u))
			}
			list = append(list, p)
		}
		b := must[[]byte](w.t)(sealBatch(c.m, i, uint32(n), list))
		digest.Write(b)
		messages = append(messages, b...)
	}
	st := Statement{Kind: Approval, Index: i, Time: w.now, Subject: c.m.Digest(), Extra: vault.Digest(digest.Sum(nil)), Size: uint64(c.file.Size)}
	return append(must[*Statement](w.t)(st.Sign(w.people[o.Person].signing)).Octets(), messages...)
}

func TestForgedPartialIsAttributed(t *testing.T) {
	batchSize = 4
	t.Cleanup(func() { batchSize = MaxBatch })
	w := newWorld(t, 2, 4)
	w.seal(batchSize+3, 0) // two batches: who fails in the second was needed in the first, and another catches up
	c := w.open(0, nil)
	files := map[uint16][]byte{}
	for _, i := range []uint16{1, 3, 4} {
		files[i] = c.approve(i)
	}
	for _, entry := range []int{0, batchSize - 1, batchSize, batchSize + 2} {
		t.Run(fmt.Sprint(entry), func(t *testing.T) {
			forged := c.forge(2, entry)
			r, err := c.open(files[1], forged, files[4], files[3])
			if err != nil || len(r.Opened) != batchSize+3 || len(r.Unopenable) > 0 {
				t.Fatalf("%d opened, %v", len(r.Opened), err)
			}
			if len(r.Refused) != 1 || r.Refused[0].Officer != 2 || r.Refused[0].Person != "officer2@corp.example" || !errors.Is(r.Refused[0].Err, ErrProof) {
				t.Fatalf("refused %v", r.Refused)
			}
			if e, ok := errors.AsType[*EntryError](r.Refused[0].Err); !ok || e.Entry != entry {
				t.Errorf("blamed for %v", r.Refused[0].Err)
			}
			if r, err := c.open(files[1], forged); !errors.Is(err, ErrQuorum) || len(r.Refused) != 1 || slices.Contains(r.Opened, entry) {
				t.Errorf("with one honest officer: %v, %v", r.Refused, err)
			}
		})
	}
}

func TestAnswersThatDoNotHold(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.seal(3, 0)
	c, other := w.open(0, nil), w.open(0, nil)
	good := c.approve(1)
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	stranger := bytes.Clone(good)
	stranger[6] = 9 // index
	tests := map[string]struct {
		file  []byte
		class Class
		who   uint16
	}{
		"of another case":              {other.approve(1), ErrSignature, 0},
		"statement changed":            {flip(20), ErrSignature, 0},
		"no officer's":                 {stranger, ErrSet, 0},
		"header changed on the way":    {flip(StatementSize + 9), ErrSignature, 1},
		"text changed on the way":      {flip(len(good) - 1), ErrSignature, 1},
		"cut on the way":               {good[:len(good)-1], ErrSignature, 1},
		"longer":                       {append(bytes.Clone(good), 0), ErrSignature, 1},
		"a statement without partials": {good[:StatementSize], ErrSignature, 1},
		"nothing":                      {nil, ErrDecode, 0},
		"messages in another's name":   {c.inName(2, 1), ErrDecode, 2},
		"half of the entries":          {c.short(2), ErrDecode, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := c.open(tt.file, c.approve(3))
			if !errors.Is(err, ErrQuorum) || len(r.Opened) > 0 {
				t.Errorf("opened %v, %v", r.Opened, err)
			}
			if len(r.Refused) != 1 || !errors.Is(r.Refused[0].Err, tt.class) || r.Refused[0].Officer != tt.who {
				t.Errorf("refused %v, want officer %d, class %s", r.Refused, tt.who, tt.class)
			}
		})
	}
}

// inName is an answer that officer signs, with messages of index as.
func (c *worldCase) inName(officer, as uint16) []byte {
	return c.sign(officer, c.messages(as, len(c.entries)))
}

// short is an answer about the first entry alone.
func (c *worldCase) short(officer uint16) []byte { return c.sign(officer, c.messages(officer, 1)) }

func (c *worldCase) messages(i uint16, n int) []byte {
	job := work{c.w.dealt.Key, c.w.epoch(), c.m.Digest()}
	var list []*partial
	for k := range n {
		_, p, err := job.part(i, c.w.shares[i].x(), c.entries[k].wrap, system)
		if err != nil {
			c.w.t.Fatal(err)
		}
		list = append(list, p)
	}
	return must[[]byte](c.w.t)(sealBatch(c.m, i, 0, list))
}

func (c *worldCase) sign(i uint16, messages []byte) []byte {
	st := c.w.say(i, Statement{Kind: Approval, Time: c.w.now, Subject: c.m.Digest(), Extra: vault.NewDigest("partials", messages)})
	return append(st.Octets(), messages...)
}

func TestDecline(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.seal(1, 0)
	c := w.open(0, nil)
	v := must[*Review](t)(w.reviewer().Review(context.Background(), bytes.NewReader(c.bundle())))
	o, _ := w.epoch().Officer(2)
	st := must[*Statement](t)(Refuse(v, w.dealt.Key, w.epoch(), w.shares[2], w.people[o.Person].signing, w.now))
	if got, err := CheckAnswer(c.m, w.epoch(), bytes.NewReader(st.Octets())); err != nil || got.Kind != Decline {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := CheckAnswer(c.m, w.epoch(), bytes.NewReader(append(st.Octets(), 0))); !errors.Is(err, ErrDecode) {
		t.Errorf("a refusal with more behind it: %v", err)
	}
	r, err := c.open(c.approve(1), st.Octets())
	if !errors.Is(err, ErrQuorum) || len(r.Opened)+len(r.Refused) > 0 {
		t.Errorf("one approves, one declines: %+v, %v", r, err)
	}
	if _, err := Refuse(v, w.dealt.Key, w.epoch(), w.shares[1], w.people[o.Person].signing, w.now); !errors.Is(err, ErrSet) {
		t.Errorf("with another's share: %v", err)
	}
}

func TestSealerNeedsEveryAttestation(t *testing.T) {
	w := newWorld(t, 2, 3)
	all := w.attest()
	tests := map[string]struct {
		list  []*Statement
		class Class
	}{
		"one missing":   {all[:2], ErrQuorum},
		"none":          {nil, ErrQuorum},
		"one twice":     {[]*Statement{all[0], all[1], all[1]}, ErrSignature},
		"another epoch": {[]*Statement{all[0], all[1], w.say(3, Statement{Kind: AttestShare, Time: w.now, Subject: w.dealt.Key.ID()})}, ErrSignature},
		"another kind":  {[]*Statement{all[0], all[1], w.say(3, Statement{Kind: Decline, Time: w.now, Subject: w.epoch().Digest()})}, ErrSignature},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := NewSealer(w.dealt.Key, w.epochs, tt.list); !errors.Is(err, tt.class) {
				t.Errorf("%v, want %v", err, tt.class)
			}
		})
	}
	if _, err := NewSealer(w.dealt.Key, nil, all); !errors.Is(err, ErrEpoch) {
		t.Errorf("without an epoch: %v", err)
	}
	other := newWorld(t, 2, 3)
	if _, err := NewSealer(w.dealt.Key, other.epochs, other.attest()); !errors.Is(err, ErrEpoch) {
		t.Errorf("with another key's epoch: %v", err)
	}
	w.reshare([]uint16{1, 2}, 2, "officer1", "officer2", "officer3")
	if _, err := NewSealer(w.dealt.Key, w.epochs[1:], w.attest()); !errors.Is(err, ErrEpoch) {
		t.Errorf("with an epoch whose predecessor is not known: %v", err)
	}
}

func TestSealRecord(t *testing.T) {
	w := newWorld(t, 2, 3)
	shred := ShredKey{ID: vault.RandomID(), Key: vault.NewSecret()}
	key := vault.NewSecret()
	l := Label{Class: 3, Month: MonthOf(w.now), Archive: w.archive, Record: vault.RandomID(), Custodian: Custodian{9}}
	sealed := must[SealedKey](t)(w.sealer.SealRecord(key, l, shred))
	if len(sealed.Outer) > MaxOuter {
		t.Errorf("%d octets", len(sealed.Outer))
	}
	wrap := must[*Wrap](t)(shred.Open(sealed.Outer))
	if wrap.Digest() != sealed.Digest || wrap.Label.Record != l.Record || wrap.Label.Key != w.dealt.Key.ID() {
		t.Error("another wrap came out")
	}
	shred.Key.Destroy()
	if bytes.Contains(sealed.Outer, l.Custodian[:]) || bytes.Contains(sealed.Outer, wrap.Octets()[126:]) {
		t.Error("the outer wrap shows what is inside")
	}
	if _, err := (ShredKey{ID: shred.ID, Key: vault.NewSecret()}).Open(sealed.Outer); !errors.Is(err, ErrAEAD) {
		t.Errorf("under another key of the same id: %v", err)
	}
	if _, err := w.sealer.SealRecord(vault.Secret{}, l, shred); err == nil {
		t.Error("sealed nothing")
	}
}

// TestSecretsDoNotPrint formats every secret in every way that logs and errors might.
func TestSecretsDoNotPrint(t *testing.T) {
	w := newWorld(t, 2, 3)
	p := must[*Plan](t)(NewPlan(w.epoch(), nil, []uint16{1, 2}, w.epoch().Officers, 2, w.now))
	_, subs, err := DealPlan(w.shares[1], w.epoch(), p)
	if err != nil {
		t.Fatal(err)
	}
	k := must[CaseKey](t)(NewCaseKey(R255))
	for _, v := range []any{w.shares[1], subs[0], k, w.people["officer1@corp.example"].signing,
		struct{ Share Share }{w.shares[1]}, []SubShare{subs[0]}, map[string]CaseKey{"k": k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			if got := fmt.Sprintf(verb, v); !strings.Contains(got, "[secret]") {
				t.Errorf("%T with %s: %s", v, verb, got)
			}
		}
	}
}

// TestOtherSuite runs what is not offered through the same code: seal, check, part, combine, in batches and out of them.
func TestOtherSuite(t *testing.T) {
	if _, err := (Ceremony{Suite: P256, Purpose: Discovery, Organisation: "corp.example", Quorum: 2, Now: time.Unix(1, 0)}).Deal(); !errors.Is(err, ErrDecode) {
		t.Fatalf("the P-256 suite is offered: %v", err)
	}
	s := lookUp(P256)
	s.offered = true
	t.Cleanup(func() { s.offered = false })
	c := Ceremony{Suite: P256, Purpose: Discovery, Organisation: "corp.example", Quorum: 2, Now: time.Unix(1795000000, 0)}
	for _, name := range []string{"a", "b", "c"} {
		c.Officers = append(c.Officers, newPerson(t, name).Officer)
	}
	d := must[*Dealt](t)(c.Deal())
	key := vault.NewSecret()
	var wraps []*Wrap
	for range 3 {
		w := must[*Wrap](t)(sealTo(d.Key, key, Label{Record: vault.RandomID()}, system))
		wraps = append(wraps, must[*Wrap](t)(ParseWrap(w.Octets())))
	}
	if bad := checkWraps(d.Key, wraps); len(bad) > 0 || !wrapsHold(d.Key, wraps) || len(wraps[0].Octets()) != 322 {
		t.Errorf("wraps %v do not hold", bad)
	}
	job := work{d.Key, d.Epoch, vault.Digest{1}}
	var u []group.Element
	for _, sh := range d.Shares[1:] {
		if err := sh.Check(d.Key, d.Epoch); err != nil {
			t.Fatal(err)
		}
		var list []*partial
		for _, w := range wraps {
			_, p, err := job.part(sh.Index, sh.x(), w, system)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, must[*partial](t)(parsePartial(s, p.octets)))
		}
		h := must[officerPoint](t)(d.Epoch.point(sh.Index))
		if bad, err := job.checkPartials(sh.Index, wraps, list); err != nil || len(bad) > 0 || !job.partialsHold(sh.Index, h, wraps, list) {
			t.Errorf("partials %v do not hold: %v", bad, err)
		}
		u = append(u, list[1].u)
	}
	if !wraps[1].open(s.combine(s.lagrange([]uint16{2, 3}), u)).Equal(key) {
		t.Error("another key came out")
	}
	bad := bytes.Clone(wraps[0].Octets())
	bad[len(bad)-1] ^= 1
	if w, err := ParseWrap(bad); err == nil && (w.Check(d.Key) == nil || wrapsHold(d.Key, []*Wrap{wraps[1], w})) {
		t.Error("a changed wrap passes")
	}
}
