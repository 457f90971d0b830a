package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"dimegate/internal/testmail"
	"dimegate/internal/testpeer"
)

// A roundtripReport is what became of messages between two mailboxes.
type roundtripReport struct {
	Total      int          `json:"total"`      // messages that two stock Postfixes carry without us: the baseline
	ByteExact  int          `json:"byte_exact"` // of these, those that came through both gateways with the same octets
	DKIMBefore int          `json:"dkim_ok_before"`
	DKIMAfter  int          `json:"dkim_ok_after"` // signatures that verify at the end of the baseline, and of the line
	Signed     int          `json:"dkim_signed"`   // copies that were signed on the way in, a message each where it can be
	Refused    []refusal    `json:"refused"`
	Changed    []difference `json:"changed"`   // arrived with other octets, or not at all
	TakenOut   []difference `json:"taken_out"` // fields that the gateways take out by design: exact but for these
	Large      int          `json:"largest_octets"`
	Peak       struct {
		Origin      int64 `json:"origin"`
		Destination int64 `json:"destination"`
	} `json:"peak_rss_anon"` // octets
	Seconds float64  `json:"seconds"`
	OK      bool     `json:"ok"`
	Why     []string `json:"why,omitempty"` // it is not
}

// A refusal is a message that somebody did not take.
type refusal struct {
	Name  string `json:"name"`
	By    string `json:"by"` // see the constants
	Reply string `json:"reply"`
}

// Who refuses a message.
const (
	byBaseline = "postfix"         // it is none that mail servers carry: not in the total
	byGateway  = "gateway"         // given to it without a Postfix before it that mends line ends
	byLine     = "postfix+gateway" // lost for the sender: counts as changed
)

// A difference is what is not the same, in words.
type difference struct {
	Name string `json:"name"`
	What string `json:"what"`
}

// maxAnon is how much memory that no file backs a gateway may use, whatever the message: octets of RssAnon.
const maxAnon = 400 << 20

// memoryEvery is how often it is looked at: a message of 100 MB takes some seconds.
const memoryEvery = 10 * time.Millisecond

var roundtripCommand = command{
	"roundtrip", "[--corpus DIR] [--json]",
	"send every .eml file of a folder through two gateways, Postfix and Dovecot at both ends, and again without the\n" +
		"gateways: both must arrive with the same octets. A signed copy of each travels too. Without a folder: our own\n" +
		"awkward messages and some that are made for it, one of 100 MB among them (as root: Postfix and Dovecot want it); example: lab roundtrip --corpus mails --json",
	runRoundtrip,
}

func runRoundtrip(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("lab roundtrip", flag.ContinueOnError)
	folder := fs.String("corpus", "", "`FOLDER` with .eml files, searched through")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 {
		return errUsage
	}
	var list []letterOut
	if *folder != "" {
		files, err := testmail.Load(*folder)
		if err != nil {
			return err
		}
		list = fromFiles(files, true)
	} else {
		files, err := testmail.LoadOurs()
		if err != nil {
			return err
		}
		list = append(fromFiles(files, true), shapes(100e6)...)
	}
	var report *roundtripReport
	err := withLab(ctx, func(l *Lab, both [2]*Gateway) (err error) {
		report, _, err = roundtrip(ctx, l, both, l.Alpha, list)
		return err
	})
	if err != nil {
		return err
	}
	return report.finish(out, *asJSON)
}

// withLab runs f in a lab with both gateways, as "lab up" starts it.
func withLab(ctx context.Context, f func(*Lab, [2]*Gateway) error) (err error) {
	b, err := testpeer.NewBench()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	l, err := NewLab(ctx, b)
	if err == nil {
		var binary string
		if binary, err = Build(ctx, b.Dir); err == nil {
			var both [2]*Gateway
			if both, err = l.StartGateways(ctx, binary); err == nil {
				err = f(l, both)
			}
		}
	}
	if err != nil {
		b.ShowLogs(os.Stderr)
	}
	return err
}

// finish prints a report and says what does not hold.
func (r *roundtripReport) finish(out io.Writer, asJSON bool) error {
	return tell(out, asJSON, "roundtrip", r, r.OK, r.Why)
}

func (r *roundtripReport) print(out io.Writer) {
	for _, x := range r.Refused {
		fmt.Fprintf(out, "%s: refused by %s: %s\n", x.Name, x.By, x.Reply)
	}
	for _, x := range r.TakenOut {
		fmt.Fprintf(out, "%s: taken out: %s\n", x.Name, x.What)
	}
	for _, x := range r.Changed {
		fmt.Fprintf(out, "%s: %s\n", x.Name, x.What)
	}
	fmt.Fprintf(out, "%d of %d byte-exact; %d of %d DKIM signatures still verify; peak RssAnon %d MB at the origin, %d MB at the destination; the largest had %.1f MB; %.1f s\n",
		r.ByteExact, r.Total, r.DKIMAfter, r.DKIMBefore, r.Peak.Origin>>20, r.Peak.Destination>>20, float64(r.Large)/1e6, r.Seconds)
}

// roundtrip carries messages from one organisation to the other: through both gateways, and without them as the baseline that
// the line is held against. It also returns how the baseline arrived, for those who know what it must be.
func roundtrip(ctx context.Context, l *Lab, both [2]*Gateway, from *Org, list []letterOut) (*roundtripReport, []*arrival, error) {
	start := time.Now()
	signer, err := newSigner(l, from)
	if err != nil {
		return nil, nil, err
	}
	signed := signer.copies(list)
	t := trips{lab: l, from: from, list: append(append([]letterOut(nil), list...), signed...)}
	origin, destination := both[0], both[1]
	if from == l.Bravo {
		origin, destination = destination, origin
	}
	memory := [2]func() int64{watchMemory(memoryEvery, origin.Pid()), watchMemory(memoryEvery, destination.Pid())}
	err = t.carry(ctx)
	peak := [2]int64{memory[0](), memory[1]()}
	if err != nil {
		return nil, nil, err
	}
	r := &roundtripReport{Signed: len(signed), Refused: []refusal{}, Changed: []difference{}, TakenOut: []difference{}}
	r.Peak.Origin, r.Peak.Destination = peak[0], peak[1]
	for i := range t.list {
		r.count(&t, i)
	}
	for i, m := range list {
		if err := r.straight(ctx, &t, i, m); err != nil {
			return nil, nil, err
		}
	}
	if err := r.verify(ctx, signer, &t); err != nil {
		return nil, nil, err
	}
	r.Seconds = time.Since(start).Seconds()
	r.judge()
	return r, t.base[:len(list)], nil
}

// judge says whether all is as it must be.
func (r *roundtripReport) judge() {
	bad := func(format string, args ...any) { r.Why = append(r.Why, fmt.Sprintf(format, args...)) }
	if r.Total == 0 {
		bad("no message was carried")
	}
	if r.ByteExact != r.Total {
		bad("%d of %d messages did not arrive as they do without us", r.Total-r.ByteExact, r.Total)
	}
	for _, c := range r.Changed {
		bad("%s: %s", c.Name, c.What)
	}
	if r.DKIMBefore == 0 && r.Signed > 0 {
		bad("no DKIM signature verified in the first place")
	}
	if r.DKIMAfter != r.DKIMBefore {
		bad("%d DKIM signatures verified without us, %d do with us", r.DKIMBefore, r.DKIMAfter)
	}
	if r.Peak.Origin > maxAnon || r.Peak.Destination > maxAnon {
		bad("a gateway used more than %d MB of anonymous memory", maxAnon>>20)
	}
	r.OK = len(r.Why) == 0
}

// count holds what came by the line against what came without it.
func (r *roundtripReport) count(t *trips, i int) {
	m := t.list[i]
	r.Large = max(r.Large, len(m.wire))
	switch {
	case t.base[i] == nil:
		r.Refused = append(r.Refused, refusal{m.name, byBaseline, t.baseRefused[i]})
		return
	case t.line[i] == nil:
		r.Total++
		r.Refused = append(r.Refused, refusal{m.name, byLine, t.lineRefused[i]})
		r.Changed = append(r.Changed, difference{m.name, "did not arrive: " + t.lineRefused[i]})
		return
	}
	r.Total++
	want, taken := withoutInstructions(t.base[i].message)
	if taken != "" {
		r.TakenOut = append(r.TakenOut, difference{m.name, taken})
	}
	if what := t.compare(i, want); what != "" {
		r.Changed = append(r.Changed, difference{m.name, what})
		return
	}
	r.ByteExact++
}
