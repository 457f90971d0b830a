package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"dimegate/internal/testpeer"
)

// A benchReport is what a comparison found. Times and rates are this machine's under what else it did; the ratios are what
// is worth something, since both sides of each round ran one right after the other.
type benchReport struct {
	A          string           `json:"a"`
	B          string           `json:"b"`
	Sessions   int              `json:"sessions"`
	Rounds     int              `json:"rounds"`
	Sizes      []benchRelay     `json:"sizes"`
	Acceptance []benchAccepting `json:"acceptance"`
	OK         bool             `json:"ok"` // every message of both sides was counted
}

// A benchRelay is messages of one size from end to end.
type benchRelay struct {
	Octets   int       `json:"octets"`
	Messages int       `json:"messages"` // a round
	A        benchSide `json:"a"`
	B        benchSide `json:"b"`
	Ratio    float64   `json:"ratio"` // of messages a second, b/a: the median over the rounds
}

// A benchAccepting is the same for acceptance alone: nothing is delivered.
type benchAccepting struct {
	Octets   int        `json:"octets"`
	Messages int        `json:"messages"`
	A        acceptSide `json:"a"`
	B        acceptSide `json:"b"`
	Ratio    float64    `json:"ratio"`
}

// An acceptSide is what the generator saw of one side, over all rounds.
type acceptSide struct {
	PerSecond float64   `json:"messages_per_second"` // the median over the rounds
	Rates     []float64 `json:"rounds"`
	Accepted  int       `json:"accepted"`
	P50       float64   `json:"p50_ms"` // from the end of a message to its 250
	P95       float64   `json:"p95_ms"`
	P99       float64   `json:"p99_ms"`

	waits []time.Duration
}

// A benchSide adds what the sink counted, and what it cost.
type benchSide struct {
	acceptSide
	Arrived   int     `json:"arrived"`              // at the sink
	Processor float64 `json:"cpu_ms_per_message"`   // of all processes of the side, those that ended included
	Memory    int64   `json:"rss_anon_peak_octets"` // of all of them together
	Syncs     float64 `json:"syncs_per_message"`    // counted in a run of its own, which is not timed
}

// benchFlags are the command's.
type benchFlags struct {
	sizes    []int
	rounds   int
	messages int // 0: by size
	postfix  []string
	profiles string // folder; "": none
}

// perRound is how many messages a round has, unless told: enough to last some seconds.
func (f benchFlags) perRound(octets int) int {
	if f.messages > 0 {
		return f.messages
	}
	return min(1000, max(150<<20/octets, 20))
}

var benchCommand = command{
	"bench", "[--sizes 2k,10k,100k,1m] [--rounds 5] [--messages N] [--postfix 'KEY = VALUE'] [--profiles FOLDER] [--json]",
	"hold two gateways against two Postfixes over STARTTLS, round by round, with one generator and one sink: messages a second,\n" +
		"time to the 250, processor, memory, calls that wait for the disk (as root); example: lab bench --sizes 10k --rounds 3",
	runBench,
}

func runBench(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("lab bench", flag.ContinueOnError)
	sizes := fs.String("sizes", "2k,10k,100k,1m", "`SIZES` of messages, with commas: octets, or with k or m")
	rounds := fs.Int("rounds", 5, "how many `ROUNDS` of each size; the median counts")
	messages := fs.Int("messages", 0, "how many `MESSAGES` a round has; 0: at most 1000 and 150 MiB")
	var postfix []string
	fs.Func("postfix", "a further `LINE` of both Postfixes' main.cf; may be given several times", func(s string) error {
		postfix = append(postfix, s)
		return nil
	})
	profiles := fs.String("profiles", "", "also write where both gateways' processors are to this `FOLDER`, for go tool pprof; they are built for it")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 || *rounds < 1 || *messages < 0 {
		return errUsage
	}
	f := benchFlags{rounds: *rounds, messages: *messages, postfix: postfix, profiles: *profiles}
	for text := range strings.SplitSeq(*sizes, ",") {
		octets, err := parseOctets(text)
		if err != nil {
			return err
		}
		f.sizes = append(f.sizes, octets)
	}
	report, err := bench(ctx, f)
	if err != nil {
		return err
	}
	return tell(out, *asJSON, "bench", report, report.OK, []string{"not every message was counted"}) // times are not judged
}

// maxBenchOctets is below both sides' bounds on a message.
const maxBenchOctets = 64 << 20

func parseOctets(text string) (int, error) {
	digits := strings.TrimRight(strings.ToLower(text), "kmb")
	unit := map[string]int{"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20}[strings.ToLower(text[len(digits):])]
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || unit == 0 || n > maxBenchOctets/unit {
		return 0, fmt.Errorf("no size of a message: %q: write 2048 or 2k, at most 64m", text)
	}
	return n * unit, nil
}

// bench runs a comparison.
func bench(ctx context.Context, f benchFlags) (_ *benchReport, err error) {
	b, err := testpeer.NewBench()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	var tags []string
	if f.profiles != "" {
		tags = append(tags, profileTag)
	}
	binary, err := Build(ctx, b.Dir, tags...)
	if err != nil {
		return nil, err
	}
	w, err := newBenchWorld(ctx, b, binary, f.postfix)
	if err != nil {
		return nil, err
	}
	r := &benchReport{A: "Postfix, STARTTLS, Postfix, sink", B: "gateway, DMTP, gateway, sink", Sessions: sessions, Rounds: f.rounds}
	for _, octets := range f.sizes {
		relay, err := w.compare(ctx, octets, f)
		if err != nil {
			return nil, fmt.Errorf("%d octets: %w", octets, err)
		}
		r.Sizes = append(r.Sizes, relay)
		if f.profiles == "" {
			continue
		}
		if err := w.saveProfiles(ctx, f.profiles, octets, relay.Messages); err != nil {
			return nil, fmt.Errorf("profiles: %w", err)
		}
	}
	holdA, holdB, err := w.holdDelivery(ctx)
	if err != nil {
		return nil, err
	}
	for _, octets := range f.sizes {
		accepting, err := w.compareAcceptance(ctx, holdA, holdB, octets, f)
		if err != nil {
			return nil, fmt.Errorf("%d octets, acceptance: %w", octets, err)
		}
		r.Acceptance = append(r.Acceptance, accepting)
	}
	r.OK = r.counted()
	return r, nil
}

// counted reports whether each side took and delivered what was sent, round by round.
func (r *benchReport) counted() bool {
	for _, s := range r.Sizes {
		sent := s.Messages * r.Rounds
		for _, side := range []benchSide{s.A, s.B} {
			if side.Accepted != sent || side.Arrived != sent {
				return false
			}
		}
	}
	for _, s := range r.Acceptance {
		if sent := s.Messages * r.Rounds; s.A.Accepted != sent || s.B.Accepted != sent {
			return false
		}
	}
	return true
}

// compare relays messages of one size over both sides, a round of each in turn.
func (w *benchWorld) compare(ctx context.Context, octets int, f benchFlags) (r benchRelay, err error) {
	r.Octets, r.Messages = octets, f.perRound(octets)
	g := newGenerator(octets)
	var ratios []float64
	for range f.rounds {
		for _, s := range []struct {
			side side
			into *benchSide
		}{{w.a, &r.A}, {w.b, &r.B}} {
			if err := w.round(ctx, s.side, g, r.Messages, s.into); err != nil {
				return r, fmt.Errorf("%s: %w", s.side.name, err)
			}
		}
		ratios = append(ratios, last(r.B.Rates)/last(r.A.Rates))
	}
	r.Ratio = median(ratios)
	for s, into := range map[*side]*benchSide{&w.a: &r.A, &w.b: &r.B} {
		into.Processor /= float64(r.Messages * f.rounds)
		into.sum()
		n := min(r.Messages, 10*sessions)
		syncs, err := countSyncs(ctx, s.pids, func() error { _, err := w.pass(ctx, *s, g, n); return err })
		if err != nil {
			return r, fmt.Errorf("%s: counting syncs: %w", s.name, err)
		}
		into.Syncs = float64(syncs) / float64(n)
	}
	return r, nil
}

func last[T any](list []T) T { return list[len(list)-1] }

// round is one pass and its cost.
func (w *benchWorld) round(ctx context.Context, s side, g *generator, n int, into *benchSide) error {
	before, err := familyTime(s.pids)
	if err != nil {
		return err
	}
	peak := watchMemory(200*time.Millisecond, s.pids...)
	p, err := w.pass(ctx, s, g, n)
	into.Memory = max(into.Memory, peak())
	if err != nil {
		return err
	}
	after, err := familyTime(s.pids)
	if err != nil {
		return err
	}
	into.add(p, n)
	into.Arrived += n
	into.Processor += float64((after - before).Milliseconds())
	return nil
}

func (s *acceptSide) add(p pass, n int) {
	s.Rates = append(s.Rates, float64(n)/p.took.Seconds())
	s.waits = append(s.waits, p.waits...)
	s.Accepted += len(p.waits)
}

// sum computes what is over all rounds.
func (s *acceptSide) sum() {
	s.PerSecond = median(slices.Clone(s.Rates))
	ms := func(percent int) float64 { return percentile(s.waits, percent).Seconds() * 1000 }
	s.P50, s.P95, s.P99 = ms(50), ms(95), ms(99)
}

// watchMemory looks at the memory of processes now and again until the function that it returns is called, which tells the most
// that was seen.
func watchMemory(every time.Duration, pids ...int) func() int64 {
	stop := make(chan struct{})
	var most int64
	var done sync.WaitGroup
	look := func() {
		if n, err := anonymousMemory(pids); err == nil {
			most = max(most, n)
		}
	}
	done.Go(func() {
		for {
			look()
			select {
			case <-stop:
				return
			case <-time.After(every):
			}
		}
	})
	return func() int64 {
		close(stop)
		done.Wait()
		look()
		return most
	}
}

// compareAcceptance has both sides accept messages that go nowhere.
func (w *benchWorld) compareAcceptance(ctx context.Context, a, b side, octets int, f benchFlags) (r benchAccepting, err error) {
	r.Octets, r.Messages = octets, f.perRound(octets)
	g := newGenerator(octets)
	var ratios []float64
	for range f.rounds {
		for _, s := range []struct {
			side side
			into *acceptSide
		}{{a, &r.A}, {b, &r.B}} {
			began := time.Now()
			waits, err := g.send(ctx, s.side.entry, r.Messages)
			if err != nil {
				return r, fmt.Errorf("%s: %w", s.side.name, err)
			}
			s.into.add(pass{time.Since(began), waits}, r.Messages)
		}
		ratios = append(ratios, last(r.B.Rates)/last(r.A.Rates))
	}
	r.Ratio = median(ratios)
	r.A.sum()
	r.B.sum()
	return r, nil
}

func (r *benchReport) print(out io.Writer) {
	fmt.Fprintf(out, "(a) %s  (b) %s; %d sessions, %d rounds, in turn\n", r.A, r.B, r.Sessions, r.Rounds)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "octets\tmessages\tside\tmessages/s\tp50 ms\tp95 ms\tp99 ms\tCPU ms\tRssAnon MiB\tsyncs\tb/a")
	for _, s := range r.Sizes {
		for _, side := range []struct {
			name string
			benchSide
		}{{"a", s.A}, {"b", s.B}} {
			fmt.Fprintf(tw, "%d\t%d\t%s\t%.0f\t%.1f\t%.1f\t%.1f\t%.2f\t%d\t%.2f\t", s.Octets, side.Arrived, side.name, side.PerSecond,
				side.P50, side.P95, side.P99, side.Processor, side.Memory>>20, side.Syncs)
			if side.name == "b" {
				fmt.Fprintf(tw, "%.2f", s.Ratio)
			}
			fmt.Fprintln(tw)
		}
	}
	tw.Flush()
	fmt.Fprintln(out, "acceptance alone, nothing is delivered")
	fmt.Fprintln(tw, "octets\tmessages\tside\tmessages/s\tp50 ms\tp95 ms\tp99 ms\tb/a")
	for _, s := range r.Acceptance {
		for _, side := range []struct {
			name string
			acceptSide
		}{{"a", s.A}, {"b", s.B}} {
			fmt.Fprintf(tw, "%d\t%d\t%s\t%.0f\t%.1f\t%.1f\t%.1f\t", s.Octets, side.Accepted, side.name, side.PerSecond, side.P50, side.P95, side.P99)
			if side.name == "b" {
				fmt.Fprintf(tw, "%.2f", s.Ratio)
			}
			fmt.Fprintln(tw)
		}
	}
	tw.Flush()
	fmt.Fprintf(out, "every message counted: %t\n", r.OK)
}
