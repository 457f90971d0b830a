package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"dimegate/internal/testpeer"
)

// TestBench runs the comparison in its shortest form: what it measured is there, and the counts hold. How fast anything
// was is not judged here.
func TestBench(t *testing.T) {
	testpeer.Require(t, "postfix", "smtp-sink", "unbound", "strace")
	const messages = 40
	var out bytes.Buffer
	if err := runBench(limited(t), []string{"--sizes", "2k", "--rounds", "1", "--messages", "40", "--json"}, &out); err != nil {
		t.Fatal(err)
	}
	var r benchReport
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if !r.OK || len(r.Sizes) != 1 || len(r.Acceptance) != 1 || r.Sessions != sessions || r.Rounds != 1 {
		t.Fatalf("%+v", r)
	}
	relay, accepting := r.Sizes[0], r.Acceptance[0]
	if relay.Octets != 2<<10 || relay.Messages != messages || relay.Ratio <= 0 || accepting.Messages != messages || accepting.Ratio <= 0 {
		t.Errorf("%+v", r)
	}
	for name, s := range map[string]benchSide{"a": relay.A, "b": relay.B} {
		if s.Arrived != messages || s.Processor <= 0 || s.Memory <= 0 || s.Syncs < 1 { // nothing is accepted that is not on the disk
			t.Errorf("%s: %+v", name, s)
		}
	}
	for name, s := range map[string]acceptSide{"a": relay.A.acceptSide, "b": relay.B.acceptSide, "accepting a": accepting.A, "accepting b": accepting.B} {
		if s.Accepted != messages || s.PerSecond <= 0 || len(s.Rates) != 1 || s.P50 <= 0 || s.P95 < s.P50 || s.P99 < s.P95 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestParseOctets(t *testing.T) {
	for text, want := range map[string]int{"2048": 2048, "2k": 2048, "10KB": 10240, "1m": 1 << 20, "64m": 64 << 20} {
		if got, err := parseOctets(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "k", "-1", "65m", "2g", "2kk", "9999999999999999999"} {
		if got, err := parseOctets(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// TestCounted reads what smtp-sink -c prints, also when the file ends within a line.
func TestCounted(t *testing.T) {
	for text, want := range map[string]int{"": 0, "sess=1 quit=0 mesg=0": 0, "sess=1 quit=0 mesg=1\rsess=1 quit=0 mesg=17\r": 17, "sg=3\rsess=2 quit=0 mesg=4\rsess=2": 4} {
		if got, err := counted([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	if _, err := counted([]byte("smtp-sink: fatal\r")); err == nil {
		t.Error("what is no count was counted")
	}
}

// TestSyncs counts calls, not lines.
func TestSyncs(t *testing.T) {
	const trace = `12    fsync(5)  = 0
13    fdatasync(7 <unfinished ...>
12    fsync(5)  = 0
13    <... fdatasync resumed>) = 0
13    --- SIGURG {si_signo=SIGURG, si_code=SI_TKILL} ---
14    +++ exited with 0 +++
`
	if n := syncs(trace); n != 3 {
		t.Errorf("%d calls", n)
	}
}

// TestNumberOf: a message of the load is known whole, as it was sent and as smtp-sink kept it, and not when it was cut.
func TestNumberOf(t *testing.T) {
	g := newGenerator(2 << 10)
	g.message(1)
	id, m := g.message(1)
	if n := len(m); n < 1900 || n > 2200 {
		t.Errorf("2 KiB are %d octets", n)
	}
	kept := "X-Mail-Args: <m1@alpha.test>\n" + string(bytes.ReplaceAll(m, []byte("\r\n"), []byte("\n"))) + "\n"
	for text, want := range map[string]int64{string(m): id, kept: id, string(m[:len(m)-30]): 0, "": 0, string(m[len(m)/2:]): 0} {
		if got := numberOf(text); got != want {
			t.Errorf("%d, want %d, for %.80q", got, want, text)
		}
	}
}

func TestPercentile(t *testing.T) {
	list := []float64{5, 1, 4, 2, 3}
	if percentile(list, 50) != 3 || percentile(list, 99) != 5 || percentile(list, 1) != 1 || percentile([]float64{}, 50) != 0 {
		t.Error("percentile")
	}
	if median(list) != 3 || median([]float64{4, 1}) != 2.5 || median(nil) != 0 {
		t.Error("median")
	}
}
