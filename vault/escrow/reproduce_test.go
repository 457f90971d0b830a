package escrow

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/cloudflare/circl/group"

	"dimegate/vault"
)

// A run reproduces the vectors part by part, each with what our code made of the parts before it.
type run struct {
	*vectorFile
	s       *suite
	key     *Key
	epochs  map[int]*Epoch
	shares  map[int]map[uint16]Share // by epoch and index
	wraps   []*Wrap
	cases   map[int]*Manifest
	signers map[uint16]SigningKey
}

// TestVectors reproduces every value of the file, and refuses all that must be refused. No value may be left unused.
func TestVectors(t *testing.T) {
	r := &run{vectorFile: readVectors(t), s: lookUp(R255), epochs: map[int]*Epoch{}, shares: map[int]map[uint16]Share{1: {}, 2: {}},
		cases: map[int]*Manifest{}, signers: map[uint16]SigningKey{}}
	for _, part := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"hashes", r.hashes}, {"officers", r.officers}, {"ceremony", r.ceremony}, {"records", r.records}, {"case", r.manifest},
		{"partials", func(t *testing.T) { r.partials(t, 1, r.Partials) }}, {"batches", r.batches},
		{"combine", func(t *testing.T) { r.combine(t, 1, &r.Combine, r.Partials) }}, {"reshare", r.reshare}, {"hedge", r.hedge}, {"negative", r.negative},
	} {
		if !t.Run(part.name, part.f) {
			t.FailNow() // what follows is made of it
		}
	}
	if left := unused("vectors", reflect.ValueOf(r.vectorFile).Elem()); len(left) > 0 {
		t.Errorf("%d values were not used: %v", len(left), left)
	}
}

func same(t *testing.T, what string, got []byte, want *hexed) {
	t.Helper()
	if !bytes.Equal(got, want.octets()) {
		t.Errorf("%s:\n got %x\nwant %x", what, got, want.b)
	}
}

func (r *run) samePoint(t *testing.T, what string, got group.Element, want *hexed) {
	t.Helper()
	same(t, what, r.s.encode(got), want)
}

func (r *run) sameScalar(t *testing.T, what string, got group.Scalar, want *hexed) {
	t.Helper()
	same(t, what, r.s.encodeScalar(got), want)
}

// given is a source that gives the ρ of the vectors one after the other.
func given(t *testing.T, rho ...*hexed) source {
	return func() [64]byte {
		if len(rho) == 0 {
			t.Fatal("more randomness is drawn than the vectors have")
		}
		b := rho[0].octets()
		rho = rho[1:]
		return [64]byte(b)
	}
}

func pointers(list []hexed) []*hexed {
	var p []*hexed
	for i := range list {
		p = append(p, &list[i])
	}
	return p
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (r *run) hashes(t *testing.T) {
	h := &r.Hashes
	r.samePoint(t, "generator", r.s.group.Generator(), &h.Generator)
	one := r.s.index(1)
	minus := r.s.encodeScalar(r.s.group.NewScalar().Neg(one))
	minus[0]++ // the order is odd
	same(t, "order", minus, &h.Order)
	for i := range h.D {
		d := vault.NewDigest(h.D[i].Name, h.D[i].Data.octets())
		same(t, "D", d[:], &h.D[i].Out)
	}
	for i := range h.H1 {
		m := r.s.mask(must[group.Element](t)(r.s.decode(h.H1[i].Point.octets())))
		same(t, "H1", m[:], &h.H1[i].Out)
	}
	for i := range h.G {
		if h.G[i].Dst != string(r.s.dst("gbar")) {
			t.Errorf("dst %q", h.G[i].Dst)
		}
		r.samePoint(t, "HashToGroup", r.s.group.HashToElement(h.G[i].Msg.octets(), r.s.dst("gbar")), &h.G[i].Out)
	}
	for i := range h.S {
		if h.S[i].Dst != string(r.s.dst("H2")) {
			t.Errorf("dst %q", h.S[i].Dst)
		}
		r.sameScalar(t, "HashToScalar", r.s.scalarOf("H2", h.S[i].Msg.octets()), &h.S[i].Out)
	}
}

func (r *run) officers(t *testing.T) {
	for i := range r.Officers {
		o := &r.Officers[i]
		k := must[SigningKey](t)(NewSigningKey(o.Seed.octets()))
		public := k.Public()
		same(t, o.Person, public[:], &o.Ed25519)
		r.signers[o.Index] = k
		id := must[*age.X25519Identity](t)(age.ParseX25519Identity(o.AgeIdentity))
		if id.Recipient().String() != o.Recipient {
			t.Errorf("%s: recipient %s", o.Person, id.Recipient())
		}
		officer := r.officer(i)
		officer.Index = 0
		if back, err := ParseOfficer([]byte(officer.Line())); err != nil || back != officer {
			t.Errorf("%s: officer file: %v", o.Person, err)
		}
	}
}

func (r *run) officer(i int) Officer {
	o := &r.Officers[i]
	return Officer{Index: o.Index, Person: o.Person, Key: PublicKey(o.Ed25519.b), Recipient: o.Recipient}
}

func (r *run) ceremony(t *testing.T) {
	v := &r.Ceremony
	c := Ceremony{Suite: R255, Purpose: Purpose(v.Purpose), Organisation: v.Org, Quorum: v.M, Now: time.Unix(v.Created, 0)}
	for i := range v.N {
		c.Officers = append(c.Officers, r.officer(i))
	}
	d := must[*dealing](t)(c.deal(given(t, pointers(v.Rho)...)))
	r.key, r.epochs[1] = d.key, d.epoch
	for k := range v.Coefficients {
		r.sameScalar(t, "coefficient", d.coefficients[k], &v.Coefficients[k])
		r.samePoint(t, "commitment", d.epoch.commitments[k], &v.Commitments[k])
	}
	r.samePoint(t, "h", d.key.h, &v.H)
	r.samePoint(t, "gbar", d.key.gbar, &v.Gbar)
	same(t, "key record", d.key.Octets(), &v.KeyRecord)
	same(t, "epoch record", d.epoch.Octets(), &v.EpochRecord)
	id, digest := d.key.ID(), d.epoch.Digest()
	same(t, "key id", id[:], &v.KeyID)
	same(t, "epoch digest", digest[:], &v.EpochDigest)
	var statements []*Statement
	for i := range v.Shares {
		w := &v.Shares[i]
		s := d.shares[i]
		if s.Index != w.Index {
			t.Fatalf("share %d is officer %d's", w.Index, s.Index)
		}
		r.shares[1][s.Index] = s
		r.sameScalar(t, "x", s.x(), &w.X)
		r.samePoint(t, "vk", must[officerPoint](t)(d.epoch.point(s.Index)).h, &w.VK)
		same(t, "share file", s.Octets(), &w.Plaintext)
		if err := must[Share](t)(ParseShare(w.Plaintext.b)).Check(d.key, d.epoch); err != nil {
			t.Errorf("share %d: %v", s.Index, err)
		}
		st := must[*Statement](t)(Statement{Kind: AttestShare, Index: s.Index, Time: time.Unix(v.AttestedAt, 0), Subject: digest}.Sign(r.signers[s.Index]))
		same(t, "attestation", st.Octets(), &w.Attestation)
		statements = append(statements, st)
	}
	if err := Attested(d.epoch, statements); err != nil {
		t.Error(err)
	}
	identity := must[*age.X25519Identity](t)(age.ParseX25519Identity(r.Officers[0].AgeIdentity))
	if b := must[[]byte](t)(OpenFile(v.AgeFile.octets(), identity)); !bytes.Equal(b, v.Shares[0].Plaintext.b) {
		t.Error("the age file does not hold officer 1's share")
	}
}

func (r *run) records(t *testing.T) {
	for i := range r.Records {
		t.Run(r.Records[i].Name, func(t *testing.T) { r.record(t, &r.Records[i]) })
	}
}

func (r *run) record(t *testing.T, v *vectorRecord) {
	custodian := CustodianOf([32]byte(v.CustodianSalt.octets()), v.CustodianAddress)
	same(t, "custodian", custodian[:], &v.Custodian)
	body := vault.Digest(sha512.Sum512_256(v.Body.octets()))
	same(t, "body digest", body[:], &v.BodyDigest)
	l := Label{Suite: R255, Kind: Purpose(v.Kind), Class: v.Class, Month: Month(v.Month), Archive: vault.ID(v.Archive.octets()),
		Record: vault.ID(v.Record.octets()), Custodian: custodian, Key: r.key.ID(), Body: body}
	same(t, "label", l.Octets(), &v.Label)
	if back, err := ParseLabel(v.Label.b); err != nil || back != l {
		t.Errorf("label: %v", err)
	}
	s := newSealing(r.key, v.K.octets(), l.Octets(), given(t, &v.Rho))
	w := s.finish(r.key, l, l.Octets())
	r.sameScalar(t, "r", s.r, &v.R)
	r.sameScalar(t, "s", s.s, &v.S)
	r.samePoint(t, "h^r", s.hr, &v.HR)
	same(t, "mask", s.mask[:], &v.Mask)
	same(t, "c", s.c[:], &v.C)
	r.samePoint(t, "u", s.u, &v.U)
	r.samePoint(t, "ubar", s.ubar, &v.Ubar)
	r.samePoint(t, "w", s.w, &v.W)
	r.samePoint(t, "wbar", s.wbar, &v.Wbar)
	r.sameScalar(t, "e", s.e, &v.E)
	r.sameScalar(t, "f", s.f, &v.F)
	same(t, "wrap", w.Octets(), &v.Wrap)
	digest := w.Digest()
	same(t, "wrap digest", digest[:], &v.WrapDigest)
	sealed := must[*Wrap](t)(sealTo(r.key, must[vault.Secret](t)(vault.SecretOf(v.K.b)), l, given(t, &v.Rho)))
	if !bytes.Equal(sealed.Octets(), v.Wrap.b) {
		t.Error("sealTo makes another wrap")
	}
	parsed := must[*Wrap](t)(ParseWrap(v.Wrap.b))
	if err := parsed.Check(r.key); err != nil || parsed.Label != l {
		t.Errorf("check: %v", err)
	}
	r.wraps = append(r.wraps, parsed)
	k := ShredKey{ID: vault.ID(v.ShredKeyID.octets()), Key: must[vault.Secret](t)(vault.SecretOf(v.ShredKey.octets()))}
	same(t, "outer wrap", must[[]byte](t)(k.wrap(w, [outerNonce]byte(v.Nonce.octets()))), &v.Outer)
	if back, err := k.Open(v.Outer.b); err != nil || !bytes.Equal(back.Octets(), v.Wrap.b) {
		t.Errorf("outer wrap: %v", err)
	}
	r.leaf(t, v, l, digest)
}

func (r *run) leaf(t *testing.T, v *vectorRecord, l Label, wrap vault.Digest) {
	public := vault.IntakePublic(l.Body, []vault.Digest{wrap})
	same(t, "intake public", public[:], &v.IntakePublic)
	octets, envelope := vault.NewDigest("octets", v.Octets.octets()), vault.NewDigest("envelope", v.Envelope.octets())
	o := vault.Opening{Salt: [32]byte(v.Salt.octets()), Payload: slices.Concat(octets[:], envelope[:])}
	commitment := o.Commit(vault.LeafIntake)
	same(t, "intake commitment", commitment[:], &v.IntakeCommitment)
	leaf := vault.Leaf{Type: vault.LeafIntake, Time: time.Unix(v.LeafTime, 0), Archive: l.Archive, Subject: l.Record, Public: public, Commitment: commitment}
	same(t, "intake leaf", leaf.Octets(), &v.IntakeLeaf)
}

func (r *run) manifest(t *testing.T) {
	v := &r.Case
	m := must[*Manifest](t)(ParseManifest(v.Manifest.octets()))
	r.cases[1] = m
	again := must[*Manifest](t)(NewManifest(*m))
	same(t, "manifest", again.Octets(), &v.Manifest)
	digest := m.Digest()
	same(t, "case digest", digest[:], &v.Digest)
	k := must[CaseKey](t)(ParseCaseKey(R255, v.PrivateKey.octets()))
	requester := must[SigningKey](t)(NewSigningKey(v.RequesterSeed.octets()))
	if m.Basis != v.Basis || m.Requester != v.Requester || m.Opened.Unix() != v.Opened || m.Expires.Unix() != v.Expires ||
		!bytes.Equal(m.CaseKey, k.Public()) || m.RequesterKey != requester.Public() || len(m.Entries) != 2 {
		t.Errorf("manifest: %+v", m)
	}
	if err := m.Check(r.key, r.epochs[1], time.Unix(v.Now, 0)); err != nil {
		t.Error(err)
	}
	for n := range m.Entries {
		if err := m.CheckWrap(n, r.wraps[n]); err != nil {
			t.Error(err)
		}
	}
	st := must[*Statement](t)(Statement{Kind: Request, Time: m.Opened, Subject: digest, Size: m.LogSize, Root: m.LogRoot}.Sign(requester))
	same(t, "request", st.Octets(), &v.Request)
	if err := must[*Statement](t)(ParseStatement(v.Request.b)).Verify(m.RequesterKey); err != nil {
		t.Error(err)
	}
}

// partials makes the partials of an epoch's case anew.
func (r *run) partials(t *testing.T, epoch int, list []vectorPartial) {
	w := work{r.key, r.epochs[epoch], r.cases[epoch].Digest()}
	for i := range list {
		v := &list[i]
		x := r.shares[epoch][uint16(v.Index)].x()
		a, p, err := w.part(uint16(v.Index), x, r.wraps[v.Record], given(t, &v.Rho))
		if err != nil {
			t.Fatal(err)
		}
		r.sameScalar(t, "k", a.k, &v.K)
		r.sameScalar(t, "e_i", a.e, &v.E)
		r.sameScalar(t, "f_i", a.f, &v.F)
		r.samePoint(t, "u_i", a.u, &v.U)
		r.samePoint(t, "uhat", a.uhat, &v.Uhat)
		r.samePoint(t, "hhat", a.hhat, &v.Hhat)
		same(t, "partial", p.octets, &v.Partial)
		p = must[*partial](t)(parsePartial(r.s, v.Partial.b))
		if err := w.check(uint16(v.Index), r.wraps[v.Record], p); err != nil {
			t.Error(err)
		}
	}
}

func (r *run) batches(t *testing.T) {
	m := r.cases[1]
	caseKey := must[CaseKey](t)(ParseCaseKey(R255, r.Case.PrivateKey.octets()))
	for i := range r.Batches {
		v := &r.Batches[i]
		var list []*partial
		for j := range r.Partials {
			if r.Partials[j].Index == int(v.Index) {
				list = append(list, must[*partial](t)(parsePartial(r.s, r.Partials[j].Partial.b)))
			}
		}
		sealed := must[*sealedBatch](t)(parseSealed(v.Sealed.octets()))
		same(t, "plaintext", batchText(r.s, m.Digest(), m.Epoch, v.Index, 0, list), &v.Plaintext)
		same(t, "aad", sealed.header(), &v.Aad)
		info := hpkeInfo(m.Digest(), m.Epoch, v.Index)
		same(t, "info", info, &v.Info)
		enc, ct := sealWith(t, v.Ephemeral.octets(), m.CaseKey, info, sealed.header(), v.Plaintext.b)
		if !bytes.Equal(enc, sealed.enc) || !bytes.Equal(ct, sealed.ct) {
			t.Errorf("officer %d: HPKE makes another message", v.Index)
		}
		opened := must[[]*partial](t)(sealed.open(caseKey, m))
		for n, p := range opened {
			if !bytes.Equal(p.octets, list[n].octets) {
				t.Errorf("officer %d, entry %d: another partial", v.Index, n)
			}
		}
		st := must[*Statement](t)(Statement{Kind: Approval, Index: v.Index, Time: time.Unix(v.ApprovedAt, 0), Subject: m.Digest(),
			Extra: vault.NewDigest("partials", v.Sealed.b), Size: m.LogSize, Root: m.LogRoot}.Sign(r.signers[v.Index]))
		same(t, "approval", st.Octets(), &v.Approval)
	}
}

func (r *run) combine(t *testing.T, epoch int, v *vectorCombine, partials []vectorPartial) {
	if err := r.epochs[epoch].checkSet(v.Set); err != nil {
		t.Fatal(err)
	}
	lambda := r.s.lagrange(v.Set)
	for i := range lambda {
		r.sameScalar(t, "lambda", lambda[i], &v.Lambda[i])
	}
	for i := range v.Results {
		w := &v.Results[i]
		var u []group.Element
		for _, index := range v.Set {
			j := slices.IndexFunc(partials, func(p vectorPartial) bool { return p.Index == int(index) && p.Record == w.Record })
			u = append(u, must[*partial](t)(parsePartial(r.s, partials[j].Partial.b)).u)
		}
		p := r.s.combine(lambda, u)
		r.samePoint(t, "P", p, &w.P)
		k := r.wraps[w.Record].open(p)
		same(t, "K", k.Octets(), &w.K)
		if !bytes.Equal(w.K.b, r.Records[w.Record].K.b) {
			t.Error("the vectors recover another key than was sealed")
		}
	}
}

func (r *run) reshare(t *testing.T) {
	v, old := &r.Reshare, r.epochs[1]
	want := must[*Plan](t)(ParsePlan(v.Plan.octets()))
	officers := []Officer{r.officer(0), r.officer(1), r.officer(2), r.officer(4), r.officer(5), r.officer(6)}
	for i := range officers {
		officers[i].Index = 0 // NewPlan finds the old ones' and gives new ones
	}
	p := must[*Plan](t)(NewPlan(old, nil, v.Set, officers, 3, want.Created))
	same(t, "plan", p.Octets(), &v.Plan)
	digest := p.Digest()
	same(t, "plan digest", digest[:], &v.PlanDigest)
	lambda := r.s.lagrange(v.Set)
	var deals []*Deal
	var statements []*Statement
	subShares := map[uint16][]SubShare{}
	for i := range v.Deals {
		d, st, subs := r.deal(t, &v.Deals[i], p)
		r.sameScalar(t, "lambda", lambda[i], &v.Lambda[i])
		deals, statements = append(deals, d), append(statements, st)
		for _, u := range subs {
			subShares[u.To] = append(subShares[u.To], u)
		}
	}
	e := must[*Epoch](t)(Next(r.key, old, nil, p, deals, statements))
	r.epochs[2] = e
	same(t, "epoch record", e.Octets(), &v.EpochRecord)
	epochDigest := e.Digest()
	same(t, "epoch digest", epochDigest[:], &v.EpochDigest)
	for n := range v.Commitments {
		r.samePoint(t, "commitment", e.commitments[n], &v.Commitments[n])
	}
	for i := range v.Shares {
		w := &v.Shares[i]
		s := must[Share](t)(Accept(e, p, deals, w.Index, subShares[w.Index]))
		r.sameScalar(t, "x", s.x(), &w.X)
		r.samePoint(t, "vk", must[officerPoint](t)(e.point(w.Index)).h, &w.VK)
		r.shares[2][w.Index] = s
	}
	r.cases[2] = must[*Manifest](t)(ParseManifest(v.CaseManifest.octets()))
	caseDigest := r.cases[2].Digest()
	same(t, "case digest", caseDigest[:], &v.CaseDigest)
	if err := r.cases[2].Check(r.key, e, r.cases[2].Opened); err != nil {
		t.Error(err)
	}
	r.partials(t, 2, v.Partials)
	r.combine(t, 2, &v.Combine, v.Partials)
}

func (r *run) deal(t *testing.T, v *vectorDeal, p *Plan) (*Deal, *Statement, []SubShare) {
	a := must[*redeal](t)(dealPlan(r.shares[1][v.Dealer], r.epochs[1], p, given(t, pointers(v.Rho)...)))
	for k := range v.Coefficients {
		r.sameScalar(t, "coefficient", a.coefficients[k], &v.Coefficients[k])
		r.samePoint(t, "commitment", a.deal.commitments[k], &v.Commitments[k])
	}
	same(t, "deal", a.deal.Octets(), &v.Deal)
	digest := a.deal.Digest()
	same(t, "deal digest", digest[:], &v.DealDigest)
	for i := range v.Subshares {
		w := &v.Subshares[i]
		if a.subShares[i].To != w.To {
			t.Fatalf("sub-share %d is for officer %d", i, a.subShares[i].To)
		}
		r.sameScalar(t, "q", a.subShares[i].q(), &w.Q)
		same(t, "sub-share", a.subShares[i].Octets(), &w.Plaintext)
		if _, err := ParseSubShare(w.Plaintext.b); err != nil {
			t.Error(err)
		}
	}
	at := must[*Statement](t)(ParseStatement(v.DealStatement.octets())).Time
	st := must[*Statement](t)(Statement{Kind: DealShares, Index: v.Dealer, Time: at, Subject: digest, Extra: p.Digest()}.Sign(r.signers[v.Dealer]))
	same(t, "statement", st.Octets(), &v.DealStatement)
	return a.deal, st, a.subShares
}

func (r *run) hedge(t *testing.T) {
	h := &r.Hedge
	rho := [64]byte(h.Rho.octets())
	r.sameScalar(t, "r", r.s.random("r", &rho, h.K.octets(), h.Label.octets()), &h.R)
	if !bytes.Equal(h.Rho.b, r.Records[0].Rho.b) || bytes.Equal(h.R.b, r.Records[0].R.b) {
		t.Error("the hedge is not about the same rho and another r")
	}
}

// negative refuses every entry, with its class.
func (r *run) negative(t *testing.T) {
	if len(r.Negative) != 77 {
		t.Errorf("%d entries", len(r.Negative))
	}
	ops := map[string]func(*testing.T, *vectorNegative) error{
		"wrap": r.refuseWrap, "partial": r.refusePartial, "share": r.refuseShare, "deal": r.refuseDeal, "manifest": r.refuseManifest,
		"scope": r.refuseScope, "shred": r.refuseShred,
		"set":     func(_ *testing.T, v *vectorNegative) error { return r.epochs[v.Epoch].checkSet(v.Set) },
		"combine": r.refuseCombine,
	}
	for i := range r.Negative {
		v := &r.Negative[i]
		t.Run(v.Name, func(t *testing.T) {
			f, ok := ops[v.Op]
			if !ok {
				t.Fatalf("unknown operation %q", v.Op)
			}
			if err := f(t, v); !errors.Is(err, Class(v.Expect)) {
				t.Errorf("%v, want class %q (%s)", err, v.Expect, v.Why)
			}
		})
	}
}

func (r *run) refuseWrap(t *testing.T, v *vectorNegative) error {
	w, err := ParseWrap(v.Wrap.octets())
	if err != nil {
		return err
	}
	if v.ExpectedLabel != nil && w.Label != must[Label](t)(ParseLabel(v.ExpectedLabel.octets())) {
		return ErrLabel
	}
	if bad := checkWraps(r.key, []*Wrap{r.wraps[0], w, r.wraps[1]}); w.checkLabel(r.key) == nil && !slices.Equal(bad, []int{1}) {
		t.Errorf("the batch names %v", bad)
	}
	return w.Check(r.key)
}

func (r *run) refusePartial(t *testing.T, v *vectorNegative) error {
	p, err := parsePartial(r.s, v.Partial.octets())
	if err != nil {
		v.CaseDigest.octets()
		v.Wrap.octets()
		return err
	}
	w := work{r.key, r.epochs[v.Epoch], vault.Digest(v.CaseDigest.octets())}
	wrap := must[*Wrap](t)(ParseWrap(v.Wrap.octets()))
	if bad, err := w.checkPartials(v.Index, []*Wrap{wrap, wrap}, []*partial{p, p}); err == nil && !slices.Equal(bad, []int{0, 1}) {
		t.Errorf("the batch names %v", bad)
	}
	return w.check(v.Index, wrap, p)
}

func (r *run) refuseShare(t *testing.T, v *vectorNegative) error {
	var commitments []group.Element
	for i := range v.Commitments {
		commitments = append(commitments, must[group.Element](t)(r.s.decode(v.Commitments[i].octets())))
	}
	x, err := r.s.decodeScalar(v.X.octets())
	if err != nil {
		return err
	}
	return checkShare(r.s, commitments, v.Index, x)
}

func (r *run) refuseDeal(t *testing.T, v *vectorNegative) error {
	var commitments []group.Element
	for i := range v.Commitments {
		commitments = append(commitments, must[group.Element](t)(r.s.decode(v.Commitments[i].octets())))
	}
	p := must[*Plan](t)(ParsePlan(r.Reshare.Plan.octets()))
	d := must[*Deal](t)(ParseDeal(encodeDeal(r.s, p.Digest(), v.Dealer, commitments)))
	return d.Check(p, r.epochs[1])
}

func (r *run) refuseManifest(t *testing.T, v *vectorNegative) error {
	m, err := ParseManifest(v.Manifest.octets())
	if err != nil {
		return err
	}
	return m.Check(r.key, r.epochs[1], time.Unix(v.Now, 0))
}

func (r *run) refuseScope(t *testing.T, v *vectorNegative) error {
	m := must[*Manifest](t)(ParseManifest(v.Manifest.octets()))
	if err := m.Check(r.key, r.epochs[1], time.Unix(v.Now, 0)); err != nil {
		return err
	}
	var errs []error
	for n := range v.Wraps {
		errs = append(errs, m.CheckWrap(n, must[*Wrap](t)(ParseWrap(v.Wraps[n].octets()))))
	}
	return errors.Join(errs...)
}

func (r *run) refuseShred(t *testing.T, v *vectorNegative) error {
	outer := v.Outer.octets()
	shred, _, err := ParseOuter(outer)
	if err != nil {
		return err
	}
	_, err = ShredKey{ID: shred, Key: must[vault.Secret](t)(vault.SecretOf(v.ShredKey.octets()))}.Open(outer)
	return err
}

// refuseCombine is what comes out when proofs are ignored: a wrong key. The set is refused before.
func (r *run) refuseCombine(t *testing.T, v *vectorNegative) error {
	var u []group.Element
	for i := range v.U {
		u = append(u, must[group.Element](t)(r.s.decode(v.U[i].octets())))
	}
	k := r.wraps[v.Record].open(r.s.combine(r.s.lagrange(v.Set), u))
	same(t, "K", k.Octets(), v.K)
	if subtle.ConstantTimeCompare(k.Octets(), r.Records[v.Record].K.b) == 1 {
		return nil
	}
	return Class("wrong key")
}

func TestSigningKey(t *testing.T) {
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	k := must[SigningKey](t)(NewSigningKey(seed))
	if got := hex.EncodeToString(k.Seed()); got != hex.EncodeToString(seed) {
		t.Errorf("seed %s", got)
	}
	k.Destroy()
	if (k.Public() != PublicKey{}) {
		t.Error("a destroyed key still has a public half")
	}
}
