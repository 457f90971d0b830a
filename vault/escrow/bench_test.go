package escrow

import (
	"bytes"
	"context"
	"testing"

	"github.com/cloudflare/circl/group"

	"dimegate/vault"
)

// rate reports how many of n things a second a benchmark does in each iteration.
func rate(b *testing.B, n int, unit string) {
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), unit)
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(n)/float64(b.N), "ms/each")
}

func BenchmarkSeal(b *testing.B) {
	w := newWorld(b, 3, 5)
	key := vault.NewSecret()
	b.Run("seal", func(b *testing.B) {
		for b.Loop() {
			if _, err := sealTo(w.dealt.Key, key, Label{}, system); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, 1, "wraps/s")
	})
	b.Run("seal-and-check", func(b *testing.B) {
		shred := ShredKey{ID: vault.RandomID(), Key: vault.NewSecret()}
		for b.Loop() {
			if _, err := w.sealer.SealRecord(key, Label{}, shred); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, 1, "records/s")
	})
}

func BenchmarkSingle(b *testing.B) {
	w := newWorld(b, 3, 5)
	w.seal(1, 0)
	wrap, job, s := w.records[0].wraps[0], work{w.dealt.Key, w.epoch(), vault.Digest{1}}, w.dealt.Key.suite
	_, p, err := job.part(1, w.shares[1].x(), wrap, system)
	if err != nil {
		b.Fatal(err)
	}
	u := []group.Element{p.u, p.uhat, p.hhat}
	lambda := s.lagrange([]uint16{1, 3, 5})
	for _, bench := range []struct {
		name string
		f    func()
	}{
		{"check-wrap", func() { wrap.Check(w.dealt.Key) }},
		{"parse-wrap", func() { ParseWrap(wrap.Octets()) }},
		{"partial", func() { job.part(1, w.shares[1].x(), wrap, system) }},
		{"check-partial", func() { job.check(1, wrap, p) }},
		{"combine-3", func() { wrap.open(s.combine(lambda, u)) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				bench.f()
			}
			rate(b, 1, "ops/s")
		})
	}
}

// BenchmarkCase is a case of 1,000 records: an officer from bundle to answer, and the station from three answers to keys.
func BenchmarkCase(b *testing.B) {
	const records = 1000
	w := newWorld(b, 3, 5)
	w.seal(records, 0)
	c := w.open(0, nil)
	bundle := c.bundle()
	b.Run("batch-check-wraps", func(b *testing.B) {
		var wraps []*Wrap
		for _, e := range c.entries {
			wraps = append(wraps, e.wrap)
		}
		for b.Loop() {
			if len(checkWraps(w.dealt.Key, wraps)) > 0 {
				b.Fatal("a wrap does not hold")
			}
		}
		rate(b, records, "wraps/s")
	})
	b.Run("officer", func(b *testing.B) {
		o, _ := w.epoch().Officer(2)
		for b.Loop() {
			v, err := w.reviewer().Review(context.Background(), bytes.NewReader(bundle))
			if err != nil {
				b.Fatal(err)
			}
			_, err = Approve(context.Background(), v, w.dealt.Key, w.epoch(), w.shares[2], w.people[o.Person].signing, w.now, bytes.NewReader(bundle), func([]byte) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
		}
		rate(b, records, "records/s")
	})
	files := [][]byte{c.approve(1), c.approve(3), c.approve(5)}
	b.Run("station-3", func(b *testing.B) {
		for b.Loop() {
			if r, err := c.open(files...); err != nil || len(r.Opened) != records {
				b.Fatal(err)
			}
		}
		rate(b, records, "records/s")
	})
}

func BenchmarkReshare(b *testing.B) {
	w := newWorld(b, 3, 5)
	p := must[*Plan](b)(NewPlan(w.epoch(), nil, []uint16{1, 3, 5}, w.epoch().Officers, 3, w.now))
	b.Run("deal", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := DealPlan(w.shares[1], w.epoch(), p); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, 1, "deals/s")
	})
}
