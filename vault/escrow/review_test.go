package escrow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"dimegate/vault"
)

func TestReview(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.seal(3, 0, 1)
	w.seal(2, 0)
	w.now = w.now.AddDate(0, 1, 0)
	w.seal(4, 0, 2)
	c := w.open(0, func(m *Manifest) { m.First = MonthOf(w.now.AddDate(0, -1, 0)) })
	r := w.reviewer()
	approved := map[vault.ID]bool{w.records[0].id: true, w.records[5].id: true, vault.RandomID(): true}
	r.Seen = func(id vault.ID) bool { return approved[id] }
	v := must[*Review](t)(r.Review(context.Background(), bytes.NewReader(c.bundle())))
	want := []Count{{"alice@corp.example", 7, "2026-11", 5}, {"alice@corp.example", 7, "2026-12", 4}}
	if !slices.Equal(v.Counts, want) || v.Records != 9 || v.Before != 2 || len(v.RecordIDs) != 9 || v.Checkpoint != w.log.checkpoint() {
		t.Errorf("%+v", v)
	}
}

// TestReviewRefuses is what a hostile operator may try on an officer's tool.
func TestReviewRefuses(t *testing.T) {
	tests := map[string]struct {
		attack func(t *testing.T, w *world, r *Reviewer) []byte
		class  Class
		entry  int // that is named; -1: the case itself
	}{
		"no witness signed": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.file.Checkpoint = w.log.sign(false)
			return c.bundle()
		}, ErrLog, -1},
		"another witness signed": {func(t *testing.T, w *world, r *Reviewer) []byte {
			r.Trust.Witnesses = []string{newTestWitness("other.example").text()}
			return w.open(0, nil).bundle()
		}, ErrLog, -1},
		"the witness's name with another key": {func(t *testing.T, w *world, r *Reviewer) []byte {
			r.Trust.Witnesses = []string{newTestWitness("witness.example").text()}
			return w.open(0, nil).bundle()
		}, ErrLog, -1},
		"another log": {func(t *testing.T, w *world, r *Reviewer) []byte {
			r.Trust.Log = newMemoryLog(t).keyText
			return w.open(0, nil).bundle()
		}, ErrLog, -1},
		"the log was rolled back": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			b := c.bundle()
			w.seal(5, 1)
			r.Last = w.log.checkpoint()
			return b
		}, ErrLog, -1},
		"the log was forked": {func(t *testing.T, w *world, r *Reviewer) []byte {
			r.Last = w.log.checkpoint()
			r.Last.Root[0] ^= 1
			c := w.open(0, nil)
			c.file.Known = []int64{r.Last.Size}
			return c.bundle()
		}, ErrLog, -1},
		"no proof from the last checkpoint seen": {func(t *testing.T, w *world, r *Reviewer) []byte {
			w.seal(1, 1)
			r.Last = w.log.checkpoint()
			w.seal(1, 1)
			return w.open(0, nil).bundle()
		}, ErrLog, -1},
		"the case stands on another tree": {func(t *testing.T, w *world, r *Reviewer) []byte {
			return w.open(0, func(m *Manifest) { m.LogRoot[3] ^= 1 }).bundle()
		}, ErrLog, -1},
		"the case has no leaf": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.file.CaseIndex = w.log.append(vault.Leaf{Type: vault.LeafCaseOpened, Archive: w.archive, Subject: c.m.Case, Public: c.m.otherDigest()})
			c.file.Checkpoint, c.file.Size = w.log.sign(true), w.log.size()
			return c.bundle()
		}, ErrLog, -1},
		"the case's leaf is not in the tree": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.file.CaseIndex = w.log.append(vault.Leaf{Type: vault.LeafCaseOpened, Time: w.now, Archive: w.archive, Subject: c.m.Case, Public: c.m.Digest()})
			b := c.head(t)
			b.CaseProof = b.CaseProof[:0]
			return c.rest(t, b)
		}, ErrLog, -1},
		"expired": {func(t *testing.T, w *world, r *Reviewer) []byte {
			r.Now = func() time.Time { return w.now.Add(24 * time.Hour) }
			return w.open(0, nil).bundle()
		}, ErrManifest, -1},
		"not open yet": {func(t *testing.T, w *world, r *Reviewer) []byte {
			r.Now = func() time.Time { return w.now.Add(-time.Second) }
			return w.open(0, nil).bundle()
		}, ErrManifest, -1},
		"the requester is an officer": {func(t *testing.T, w *world, r *Reviewer) []byte {
			return w.open(0, func(m *Manifest) { m.Requester = "officer3@corp.example" }).bundle()
		}, ErrManifest, -1},
		"the requester has an officer's key": {func(t *testing.T, w *world, r *Reviewer) []byte {
			return w.open(0, func(m *Manifest) { m.RequesterKey = w.people["officer3@corp.example"].Key }).bundle()
		}, ErrManifest, -1},
		"of the epoch before": {func(t *testing.T, w *world, r *Reviewer) []byte {
			b := w.open(0, nil).bundle()
			w.reshare([]uint16{1, 2}, 2, "officer1", "officer2", "officer3")
			r.Epoch = w.epoch()
			return b
		}, ErrManifest, -1},
		"somebody else's request": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c, d := w.open(0, nil), w.open(0, nil)
			c.file.Request = d.file.Request
			return c.bundle()
		}, ErrSignature, -1},
		"nobody signed the request": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.file.Request = must[*Statement](t)(Statement{Kind: Request, Time: w.now, Subject: c.m.Digest(), Size: c.m.LogSize, Root: c.m.LogRoot}.Sign(newPerson(t, "x").signing))
			return c.bundle()
		}, ErrSignature, -1},
		"another custodian's name": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.file.Custodians = worldCustodians[1:2]
			return c.bundle()
		}, ErrScope, -1},
		"a wrap of a custodian who is not in the case": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.entries[2].wrap = w.records[2].wraps[1]
			return c.remade(t, 2)
		}, ErrScope, 4},
		"a wrap of a month outside": {func(t *testing.T, w *world, r *Reviewer) []byte {
			return w.open(0, func(m *Manifest) { m.First, m.Last = m.First-2, m.Last-1 }).bundle()
		}, ErrScope, 0},
		"a wrap of a class outside": {func(t *testing.T, w *world, r *Reviewer) []byte {
			return w.open(0, func(m *Manifest) { m.Classes = []uint16{6, 8} }).bundle()
		}, ErrScope, 0},
		"record wraps in a continuity case": {func(t *testing.T, w *world, r *Reviewer) []byte {
			return w.open(0, func(m *Manifest) { m.Purpose = Continuity }).bundle()
		}, ErrScope, 0},
		"a wrap in another's place": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.entries[1], c.entries[3] = c.entries[3], c.entries[1]
			return c.bundle()
		}, ErrScope, 1},
		"a re-randomised wrap slipped in, with a leaf": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.entries[3].wrap = w.rerandomised(w.records[len(w.records)-1].wraps[0], c.entries[3].wrap.Label)
			return c.remade(t, 3)
		}, ErrProof, 4},
		"a relabelled wrap, with a leaf": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.entries[3].wrap = relabelled(t, w.records[len(w.records)-1].wraps[0], c.entries[3].wrap.Label)
			return c.remade(t, 3)
		}, ErrProof, 4},
		"a wrap with another's c, with a leaf": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.entries[0].wrap = spliced(t, c.entries[0].wrap, w.records[len(w.records)-1].wraps[0])
			return c.remade(t, 0)
		}, ErrProof, 4},
		"a leaf that does not attest the wrap": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			c.entries[2].record = &worldRecord{wraps: []*Wrap{c.entries[1].wrap}}
			return c.bundle()
		}, ErrLog, 2},
		"another record's leaf": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, func(m *Manifest) { m.Entries[4].Leaf = uint64(w.records[5].leaf) })
			return c.bundle()
		}, ErrLog, 4},
		"a leaf that is not in the tree": {func(t *testing.T, w *world, r *Reviewer) []byte {
			c := w.open(0, nil)
			b := c.bundle()
			size := len(c.entries[4].wrap.Octets()) + 2 + len(c.entries[4].record.wraps)*32 // what follows the last proof
			b[len(b)-size-1] ^= 1
			return b
		}, ErrLog, 4},
		"spare octets": {func(t *testing.T, w *world, r *Reviewer) []byte {
			return append(w.open(0, nil).bundle(), 0)
		}, ErrDecode, -1},
		"cut": {func(t *testing.T, w *world, r *Reviewer) []byte {
			b := w.open(0, nil).bundle()
			return b[:len(b)-1]
		}, ErrDecode, 4},
		"a length that lies": {func(t *testing.T, w *world, r *Reviewer) []byte {
			b := w.open(0, nil).bundle()
			b[4], b[5] = 0x02, 0xff
			return b
		}, ErrDecode, -1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, 3)
			w.seal(5, 0, 1)
			w.seal(1, 2)
			r := w.reviewer()
			bundle := tt.attack(t, w, &r)
			v, err := r.Review(context.Background(), bytes.NewReader(bundle))
			if !errors.Is(err, tt.class) || v != nil {
				t.Fatalf("%v, want class %q", err, tt.class)
			}
			e, named := errors.AsType[*EntryError](err)
			if named != (tt.entry >= 0) || named && e.Entry != tt.entry {
				t.Errorf("%v, want entry %d", err, tt.entry)
			}
		})
	}
}

// otherDigest is a digest that is not the case's.
func (m *Manifest) otherDigest() vault.Digest { return vault.NewDigest("another", m.Archive[:]) }

func (c *worldCase) head(t *testing.T) *Bundle {
	t.Helper()
	size := c.file.Size
	c.file.Size = c.w.log.size() // so that the proof can be made
	b := must[*Bundle](t)(c.file.head(context.Background(), c.w.log))
	c.file.Size = size
	return b
}

// rest is a bundle with another head.
func (c *worldCase) rest(t *testing.T, b *Bundle) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := b.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// remade is the bundle of the case with the changed wrap of entry n named in manifest and log: what an operator can do who holds
// the log's key and a witness that does not look inside.
func (c *worldCase) remade(t *testing.T, n int) []byte {
	t.Helper()
	e := &c.entries[n]
	changed := *e.record
	changed.wraps = []*Wrap{e.wrap}
	l := e.wrap.Label
	changed.leaf = c.w.log.append(vault.Leaf{Type: vault.LeafIntake, Time: c.w.now, Archive: c.w.archive, Subject: l.Record, Public: vault.IntakePublic(l.Body, []vault.Digest{e.wrap.Digest()})})
	e.record = &changed
	entries := slices.Clone(c.entries)
	d := c.w.open(0, func(m *Manifest) {
		m.Entries = nil
		for _, e := range entries {
			m.Entries = append(m.Entries, Entry{uint64(e.record.leaf), e.wrap.Digest()})
		}
	})
	slices.SortFunc(entries, func(a, b worldEntry) int { return int(a.record.leaf - b.record.leaf) })
	d.entries = entries
	if at := slices.IndexFunc(entries, func(o worldEntry) bool { return o.wrap == e.wrap }); at != len(entries)-1 {
		t.Fatalf("the changed entry is number %d", at)
	}
	return d.bundle()
}

// rerandomised moves w by g^t and ḡ^t and puts another label on it, with the best proof that can be made without its r.
func (w *world) rerandomised(from *Wrap, l Label) *Wrap {
	s, k := from.suite, w.dealt.Key
	key := must[vault.Secret](w.t)(vault.SecretOf(make([]byte, 32)))
	fresh := newSealing(k, key.Octets(), l.Octets(), system)
	moved := &sealing{r: fresh.r, s: fresh.s, c: from.c, u: s.add(from.u, fresh.u), ubar: s.add(from.ubar, fresh.ubar), w: fresh.w, wbar: fresh.wbar}
	return must[*Wrap](w.t)(ParseWrap(moved.finish(k, l, l.Octets()).Octets()))
}

func relabelled(t *testing.T, from *Wrap, l Label) *Wrap {
	b := bytes.Clone(from.Octets())
	copy(b[4:], l.Octets())
	return must[*Wrap](t)(ParseWrap(b))
}

func spliced(t *testing.T, from, c *Wrap) *Wrap {
	b := bytes.Clone(from.Octets())
	copy(b[4+LabelSize:], c.c[:])
	return must[*Wrap](t)(ParseWrap(b))
}

// TestApproveAfterChange changes the bundle between the review and the approval.
func TestApproveAfterChange(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.seal(3, 0)
	c := w.open(0, nil)
	bundle := c.bundle()
	v := must[*Review](t)(w.reviewer().Review(context.Background(), bytes.NewReader(bundle)))
	o, _ := w.epoch().Officer(1)
	approve := func(b []byte) error {
		_, err := Approve(context.Background(), v, w.dealt.Key, w.epoch(), w.shares[1], w.people[o.Person].signing, w.now, bytes.NewReader(b), func([]byte) error { return nil })
		return err
	}
	if err := approve(bundle); err != nil {
		t.Fatal(err)
	}
	outside := w.rerandomised(c.entries[0].wrap, c.entries[2].wrap.Label)
	changed := append(bytes.Clone(bundle[:len(bundle)-len(outside.Octets())]), outside.Octets()...)
	if err := approve(changed); !errors.Is(err, ErrScope) {
		t.Errorf("with another wrap: %v", err)
	}
	if err := approve(w.open(0, nil).bundle()); !errors.Is(err, ErrManifest) {
		t.Errorf("another case: %v", err)
	}
	if err := approve(append(bundle, 0)); !errors.Is(err, ErrDecode) {
		t.Errorf("longer: %v", err)
	}
}

// TestFlips changes one bit of every octet of what is signed or proved: nothing may pass.
func TestFlips(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.seal(1, 0)
	c := w.open(0, nil)
	dealer := newPerson(t, "dealer").signing
	tr := must[*Transcript](t)(NewTranscript("dimegate test", w.now, w.dealt.Key, w.dealt.Epoch, dealer))
	wrap := w.records[0].wraps[0]
	job := work{w.dealt.Key, w.epoch(), c.m.Digest()}
	_, p, err := job.part(1, w.shares[1].x(), wrap, system)
	if err != nil {
		t.Fatal(err)
	}
	file := c.approve(2)
	st := w.attest()[0]
	objects := map[string]struct {
		octets []byte
		pass   func([]byte) error
	}{
		"wrap": {wrap.Octets(), func(b []byte) error {
			w2, err := ParseWrap(b)
			if err != nil {
				return err
			}
			return w2.Check(w.dealt.Key)
		}},
		"partial": {p.octets, func(b []byte) error {
			p, err := parsePartial(w.dealt.Key.suite, b)
			if err != nil {
				return err
			}
			return job.check(1, wrap, p)
		}},
		"statement": {st.Octets(), func(b []byte) error {
			s, err := ParseStatement(b)
			if err != nil {
				return err
			}
			return Attested(w.epoch(), []*Statement{s, w.attest()[1], w.attest()[2]})
		}},
		"answer": {file, func(b []byte) error {
			_, err := CheckAnswer(c.m, w.epoch(), bytes.NewReader(b))
			return err
		}},
		"transcript": {[]byte(tr.Text()), func(b []byte) error {
			back, err := ParseTranscript(b)
			if err == nil && back.DealerFingerprint() != tr.DealerFingerprint() {
				return ErrSignature
			}
			return err
		}},
		"request": {c.file.Request.Octets(), func(b []byte) error {
			s, err := ParseStatement(b)
			if err != nil {
				return err
			}
			return CheckRequest(c.m, s)
		}},
		"share": {w.shares[1].Octets(), func(b []byte) error {
			s, err := ParseShare(b)
			if err != nil {
				return err
			}
			return s.Check(w.dealt.Key, w.epoch())
		}},
	}
	for name, o := range objects {
		t.Run(name, func(t *testing.T) {
			if err := o.pass(o.octets); err != nil {
				t.Fatal(err)
			}
			step := max(1, len(o.octets)/400)
			for i := 0; i < len(o.octets); i += step {
				b := bytes.Clone(o.octets)
				b[i] ^= 1 << (i % 8)
				if err := o.pass(b); err == nil {
					t.Errorf("passes with bit %d of octet %d changed", i%8, i)
				}
			}
			for _, n := range []int{0, 1, len(o.octets) / 2, len(o.octets) - 1} {
				if o.pass(o.octets[:n]) == nil {
					t.Errorf("passes with %d octets", n)
				}
			}
		})
	}
}

func TestTrust(t *testing.T) {
	l := newMemoryLog(t)
	l.append(vault.Leaf{})
	other := newTestWitness("other.example")
	note := l.sign(true)
	tests := map[string]struct {
		trust Trust
		ok    bool
	}{
		"the witness":            {l.trust(), true},
		"one of two":             {Trust{l.keyText, []string{other.text(), l.witness.text()}}, true},
		"another witness":        {Trust{l.keyText, []string{other.text()}}, false},
		"no witness":             {Trust{l.keyText, nil}, false},
		"the log as its witness": {Trust{l.keyText, []string{l.keyText}}, false},
		"no log":                 {Trust{"", []string{l.witness.text()}}, false},
		"a key with a wrong id":  {Trust{l.keyText, []string{"w" + l.witness.text()}}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cp, err := tt.trust.Open(note)
			if tt.ok != (err == nil) || tt.ok && cp != l.checkpoint() {
				t.Errorf("%v, %v", cp, err)
			}
		})
	}
	for i := range note {
		b := bytes.Clone(note)
		b[i] ^= 2
		if cp, err := l.trust().Open(b); err == nil && cp != l.checkpoint() {
			t.Errorf("octet %d changed gives %v", i, cp)
		}
	}
	if _, err := l.trust().Open(l.sign(false)); !errors.Is(err, ErrLog) {
		t.Errorf("without a cosignature: %v", err)
	}
}

// TestBundleCut reads a bundle that ends anywhere, and one that comes octet by octet.
func TestBundleCut(t *testing.T) {
	w := newWorld(t, 2, 2)
	w.seal(2, 0)
	bundle := w.open(0, nil).bundle()
	for n := 0; n < len(bundle); n += 7 {
		if _, err := w.reviewer().Review(context.Background(), bytes.NewReader(bundle[:n])); !errors.Is(err, ErrDecode) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	v, err := w.reviewer().Review(context.Background(), &slowReader{bundle})
	if err != nil || v.Records != 2 {
		t.Errorf("octet by octet: %v", err)
	}
	if _, err := w.reviewer().Review(context.Background(), io.MultiReader(bytes.NewReader(bundle[:900]), &failing{})); err == nil || errors.Is(err, ErrDecode) {
		t.Errorf("a read error: %v", err)
	}
}

type slowReader struct{ b []byte }

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	p[0], r.b = r.b[0], r.b[1:]
	return 1, nil
}

type failing struct{}

func (*failing) Read([]byte) (int, error) { return 0, fmt.Errorf("the disk is gone") }
