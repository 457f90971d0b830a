package escrow

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"dimegate/vault"
)

// reencodes fuzzes a parser: what it reads must encode to the same octets, and nothing may panic.
func reencodes[T any](f *testing.F, parse func([]byte) (T, error), octets func(T) []byte, seeds ...[]byte) {
	f.Helper()
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		if _, err := parse(s); err != nil {
			f.Fatal(err)
		}
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		v, err := parse(b)
		if !bytes.Equal(in, b) {
			t.Fatal("the parser changed its input")
		}
		if err != nil {
			if _, ok := errors.AsType[Class](err); !ok {
				t.Errorf("an error without a class: %v", err)
			}
			return
		}
		if got := octets(v); !bytes.Equal(got, b) {
			t.Errorf("encodes differently:\n in %x\nout %x", b, got)
		}
	})
}

func FuzzLabel(f *testing.F) {
	reencodes(f, ParseLabel, Label.Octets, readVectors(f).Records[0].Label.b)
}

func FuzzWrap(f *testing.F) {
	v := readVectors(f)
	reencodes(f, ParseWrap, func(w *Wrap) []byte {
		s := &sealing{c: w.c, u: w.u, ubar: w.ubar, w: w.w, wbar: w.wbar, r: w.suite.index(0), s: w.f}
		return s.finish(&Key{suite: w.suite}, w.Label, w.Label.Octets()).Octets()
	}, v.Records[0].Wrap.b, v.Records[2].Wrap.b)
}

func FuzzKey(f *testing.F) {
	reencodes(f, ParseKey, func(k *Key) []byte {
		return newKey(k.suite, k.Purpose, k.Created, k.Organisation, k.h).octets
	}, readVectors(f).Ceremony.KeyRecord.b)
}

func FuzzEpoch(f *testing.F) {
	v := readVectors(f)
	reencodes(f, ParseEpoch, (*Epoch).encode, v.Ceremony.EpochRecord.b, v.Reshare.EpochRecord.b)
}

func FuzzStatement(f *testing.F) {
	v := readVectors(f)
	reencodes(f, ParseStatement, (*Statement).Octets, v.Case.Request.b, v.Batches[0].Approval.b, v.Ceremony.Shares[0].Attestation.b, v.Reshare.Deals[0].DealStatement.b)
}

func FuzzManifest(f *testing.F) {
	v := readVectors(f)
	reencodes(f, ParseManifest, (*Manifest).encode, v.Case.Manifest.b, v.Reshare.CaseManifest.b)
}

func FuzzShare(f *testing.F) {
	reencodes(f, ParseShare, Share.Octets, readVectors(f).Ceremony.Shares[0].Plaintext.b)
}

func FuzzPlan(f *testing.F) { reencodes(f, ParsePlan, (*Plan).encode, readVectors(f).Reshare.Plan.b) }

func FuzzDeal(f *testing.F) {
	reencodes(f, ParseDeal, func(d *Deal) []byte { return encodeDeal(d.suite, d.Plan, d.Dealer, d.commitments) }, readVectors(f).Reshare.Deals[0].Deal.b)
}

func FuzzSubShare(f *testing.F) {
	reencodes(f, ParseSubShare, SubShare.Octets, readVectors(f).Reshare.Deals[0].Subshares[0].Plaintext.b)
}

func FuzzPartial(f *testing.F) {
	s := lookUp(R255)
	reencodes(f, func(b []byte) (*partial, error) { return parsePartial(s, b) }, func(p *partial) []byte {
		return bytes.Join([][]byte{s.encode(p.u), s.encode(p.uhat), s.encode(p.hhat), s.encodeScalar(p.f)}, nil)
	}, readVectors(f).Partials[0].Partial.b)
}

func FuzzSealedPartials(f *testing.F) {
	reencodes(f, parseSealed, func(m *sealedBatch) []byte {
		return bytes.Join([][]byte{m.header(), be16(uint16(len(m.enc))), m.enc, be32(uint32(len(m.ct))), m.ct}, nil)
	}, readVectors(f).Batches[0].Sealed.b)
}

func FuzzOfficerFile(f *testing.F) {
	v := readVectors(f)
	o := Officer{Person: v.Officers[0].Person, Key: PublicKey(v.Officers[0].Ed25519.b), Recipient: v.Officers[0].Recipient}
	reencodes(f, ParseOfficer, func(o Officer) []byte { return []byte(o.Line()) }, []byte(o.Line()))
}

func FuzzTranscript(f *testing.F) {
	v := readVectors(f)
	k, e := must[*Key](f)(ParseKey(v.Ceremony.KeyRecord.b)), must[*Epoch](f)(ParseEpoch(v.Ceremony.EpochRecord.b))
	dealer := must[SigningKey](f)(NewSigningKey(bytes.Repeat([]byte{5}, 32)))
	tr := must[*Transcript](f)(NewTranscript("dimegate test", time.Unix(1795000000, 0), k, e, dealer))
	reencodes(f, ParseTranscript, func(t *Transcript) []byte {
		if len(t.body()) > len(t.Text()) {
			return nil
		}
		return append([]byte(t.body()), t.Text()[len(t.body()):]...)
	}, []byte(tr.Text()))
}

func FuzzOuter(f *testing.F) {
	v := readVectors(f)
	k := ShredKey{ID: vault.ID(v.Records[0].ShredKeyID.b), Key: must[vault.Secret](f)(vault.SecretOf(v.Records[0].ShredKey.b))}
	f.Add(v.Records[0].Outer.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if w, err := k.Open(b); err == nil && !bytes.Equal(b, v.Records[0].Outer.b) {
			t.Errorf("opens to %x", w.Octets())
		}
	})
}

// FuzzBundle reads any octets as a bundle and reviews them.
func FuzzBundle(f *testing.F) {
	w := newWorld(f, 2, 2)
	w.seal(2, 0)
	bundle := w.open(0, nil).bundle()
	f.Add(bundle)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ReadBundle(bytes.NewReader(b))
		if err == nil {
			var out bytes.Buffer
			if _, err := r.Bundle.WriteTo(&out); err != nil || !bytes.HasPrefix(b, out.Bytes()) {
				t.Errorf("the head encodes differently: %v", err)
			}
		}
		for err == nil {
			_, err = r.Next()
		}
		if err != io.EOF && errors.Is(err, io.EOF) {
			t.Errorf("an end that is none: %v", err)
		}
		if _, err := w.reviewer().Review(context.Background(), bytes.NewReader(b)); err == nil && !bytes.Equal(b, bundle) {
			t.Error("another bundle passes the review")
		}
	})
}

// FuzzAnswer reads any octets as an officer's answer.
func FuzzAnswer(f *testing.F) {
	w := newWorld(f, 2, 2)
	w.seal(2, 0)
	c := w.open(0, nil)
	file := c.approve(1)
	f.Add(file)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := CheckAnswer(c.m, w.epoch(), bytes.NewReader(b)); err == nil && !bytes.Equal(b, file) {
			t.Error("another answer passes")
		}
	})
}
