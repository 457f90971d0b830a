package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"dimegate/internal/testpeer"
)

// A soakReport is what a long run under load and faults found.
type soakReport struct {
	Minutes    float64                `json:"minutes"`
	Octets     int                    `json:"octets"`              // of a message
	Capacity   float64                `json:"capacity_per_second"` // 0: not measured
	Rate       float64                `json:"rate_per_second"`
	Messages   int                    `json:"messages"` // to be sent
	Accepted   int                    `json:"accepted"`
	Arrived    int                    `json:"arrived"` // of the accepted, at the sink, by number
	Lost       int                    `json:"lost"`
	Copies     int                    `json:"duplicates"` // through the windows that SMTP leaves open when one side dies
	Faults     map[string]int         `json:"faults"`
	Gateways   map[string]soakGateway `json:"gateways"`
	Looks      int                    `json:"looks"`
	JudgedFrom float64                `json:"slopes_after_minutes"`
	OK         bool                   `json:"ok"`
	Why        []string               `json:"why,omitempty"` // it is not
}

// A soakGateway is what must not grow in one gateway. A look within warmUp of a start is left out: a process that was
// killed begins small.
type soakGateway struct {
	Memory      slope `json:"rss_anon_octets"`
	Descriptors slope `json:"descriptors"`
	Goroutines  slope `json:"goroutines"`
}

// Bounds of a change that is none: some pages of caches that fill, a session more or less at the two ends of the time.
const (
	memoryBound     = 8 << 20
	descriptorBound = 2 * sessions
	goroutineBound  = 4 * sessions
)

// soakFlags are the command's.
type soakFlags struct {
	minutes float64
	rate    float64 // 0: half of what is measured
	octets  int
}

var soakCommand = command{
	"soak", "[--minutes 10] [--rate N] [--size 10k] [--json]",
	"load two gateways with half of what they can while peers fail at random, and see that nothing is lost and nothing grows:\n" +
		"exit code 0 only then (as root); example: lab soak --minutes 10 --json",
	runSoak,
}

func runSoak(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("lab soak", flag.ContinueOnError)
	minutes := fs.Float64("minutes", 10, "how long the load lasts, in `MINUTES`")
	rate := fs.Float64("rate", 0, "`MESSAGES` a second; 0: half of what is measured first")
	size := fs.String("size", "10k", "the `SIZE` of a message: octets, or with k or m")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 || *minutes < 0.1 || *rate < 0 {
		return errUsage
	}
	octets, err := parseOctets(*size)
	if err != nil {
		return err
	}
	report, err := soak(ctx, soakFlags{*minutes, *rate, octets})
	if err != nil {
		return err
	}
	return tell(out, *asJSON, "soak", report, report.OK, report.Why)
}

// drainWait bounds how long the last messages may take when no more come.
const drainWait = 3 * time.Minute

func soak(ctx context.Context, f soakFlags) (_ *soakReport, err error) {
	b, err := testpeer.NewBench()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	binary, err := Build(ctx, b.Dir, profileTag)
	if err != nil {
		return nil, err
	}
	bw, err := newBenchWorld(ctx, b, binary, nil)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(bw.Alpha.Postfix.Stop(), bw.Bravo.Postfix.Stop(), bw.holding.Stop()); err != nil { // of no use here
		return nil, err
	}
	g := newGenerator(f.octets)
	r := &soakReport{Minutes: f.minutes, Octets: f.octets, Rate: f.rate}
	if r.Rate == 0 {
		if r.Capacity, err = bw.capacity(ctx, g, f); err != nil {
			return nil, fmt.Errorf("capacity: %w", err)
		}
		r.Rate = r.Capacity / 2
	}
	w, err := newSoakWorld(ctx, bw)
	if err != nil {
		return nil, err
	}
	r.Messages = int(r.Rate * f.minutes * 60)
	return r, w.run(ctx, g, f, r)
}

// capacity measures what passes in a second when as much comes as can.
func (w *benchWorld) capacity(ctx context.Context, g *generator, f soakFlags) (float64, error) {
	n := max(10*sessions, min(int(f.minutes*200), 1000))
	p, err := w.pass(ctx, w.b, g, n)
	return float64(n) / p.took.Seconds(), err
}

// run loads, fails, looks, drains and judges.
func (w *soakWorld) run(ctx context.Context, g *generator, f soakFlags, r *soakReport) error {
	span := time.Duration(f.minutes * float64(time.Minute))
	loaded, cancel := context.WithCancel(ctx)
	defer cancel()
	type failing struct {
		struck map[string]int
		err    error
	}
	failed := make(chan failing, 1)
	go func() {
		struck, err := w.misbehave(loaded, min(20*time.Second, span/10))
		failed <- failing{struck, err}
	}()
	looks := make(chan *soakLooks, 1)
	go func() { looks <- w.watch(loaded, span) }()
	ids := w.feed(ctx, g, r.Messages, r.Rate)
	cancel()
	l, x := <-looks, <-failed
	if x.err != nil {
		return x.err
	}
	r.Accepted, r.Faults = len(ids), x.struck
	if err := w.drain(ctx, ids); err != nil {
		return err
	}
	r.Arrived, r.Copies = w.arrivedOf(ids)
	l.judge(r)
	r.judge()
	return ctx.Err()
}

// drain waits until all numbers have arrived, or have had their time.
func (w *soakWorld) drain(ctx context.Context, ids []int64) (err error) {
	ctx, cancel := context.WithTimeout(ctx, drainWait)
	defer cancel()
	_ = untilEvery(ctx, 200*time.Millisecond, func() bool { // what is missing then is counted
		err = w.collect()
		n, _ := w.arrivedOf(ids)
		return err != nil || n == len(ids)
	})
	return err
}

// judge says whether all is as it must be.
func (r *soakReport) judge() {
	bad := func(format string, args ...any) { r.Why = append(r.Why, fmt.Sprintf(format, args...)) }
	if r.Lost = r.Accepted - r.Arrived; r.Lost > 0 {
		bad("%d messages were accepted and did not arrive", r.Lost)
	}
	if r.Accepted != r.Messages {
		bad("%d messages of %d were accepted", r.Accepted, r.Messages)
	}
	for _, f := range faults {
		if r.Faults[f.name] == 0 {
			bad("%s: it did not happen", f.name)
		}
	}
	for name, g := range r.Gateways {
		for what, s := range g.slopes() {
			if s.grows() {
				bad("%s of %s: %.2f a minute, standard error %.2f, %.0f in all, of %d looks", what, name, s.PerMinute, s.Error, s.Change, s.Points)
			}
		}
	}
	r.OK = len(r.Why) == 0
}

func (g soakGateway) slopes() map[string]slope {
	return map[string]slope{"RssAnon": g.Memory, "descriptors": g.Descriptors, "goroutines": g.Goroutines}
}

func (r *soakReport) print(out io.Writer) {
	fmt.Fprintf(out, "%.1f minutes, %d octets, %.1f messages/s of %.1f: %d sent, %d accepted, %d arrived, %d lost, %d copies too many\n",
		r.Minutes, r.Octets, r.Rate, r.Capacity, r.Messages, r.Accepted, r.Arrived, r.Lost, r.Copies)
	for _, f := range faults {
		fmt.Fprintf(out, "%s: %d times\n", f.name, r.Faults[f.name])
	}
	fmt.Fprintf(out, "after minute %.1f:\n", r.JudgedFrom)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "gateway\twhat\tslope a minute\tstandard error\tchange\tbound\tfirst\tlast\tlooks\tflat")
	for _, name := range []string{"alpha", "bravo"} {
		for _, what := range []string{"RssAnon", "descriptors", "goroutines"} {
			s := r.Gateways[name].slopes()[what]
			fmt.Fprintf(tw, "%s\t%s\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f\t%d\t%t\n", name, what, s.PerMinute, s.Error, s.Change, s.Bound, s.First, s.Last, s.Points, s.Flat)
		}
	}
	tw.Flush()
}
