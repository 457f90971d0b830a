package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"dimegate/internal/killpoint"
	"dimegate/internal/testpeer"

	"golang.org/x/term"
)

var crashCommand = command{
	"crash", "[--messages N] [--kills N] [--points all|NAME,...] [--json]",
	"feed a gateway by Postfix, and end both gateways by SIGKILL at every point around what is durable, again and again;\n" +
		"then count in the receiving mailbox and in the sending server's log and mailbox what became of each message. Exit\n" +
		"code 0 only if none is lost and none came twice but where SMTP cannot tell (as root: Postfix and Dovecot want it)\n" +
		"example: lab crash --messages 5000 --points all --json",
	runCrash,
}

// A crashReport is what became of every message. Messages, entries and copies are counted by what they bear, in mailboxes
// and in the mail server's log; of what the gateway itself says only how much waits, and that is found in the mailbox, too,
// when it was let go.
type crashReport struct {
	Accepted  int `json:"accepted"`  // messages to which the gateway said 250, by the sending server's log
	Delivered int `json:"delivered"` // of these in the receiving mailbox
	Bounced   int `json:"bounced"`   // whose sender has a notice
	Held      int `json:"held"`      // by policy or by an administrator
	Queued    int `json:"queued"`    // that wait for a destination which is down
	Dropped   int `json:"dropped"`   // by an administrator: nobody did
	Lost      int `json:"lost"`      // nowhere

	Duplicates       int `json:"duplicates"`                 // copies, of messages and of notices, that nothing excuses
	WindowDuplicates int `json:"window_duplicates"`          // handed over twice: the destination died between intent and outcome (dmtp.md OC-38)
	PossibleCounted  int `json:"possible_duplicates_logged"` // what the destination's log calls possible duplicates: no fewer
	CutDuplicates    int `json:"cut_duplicates"`             // taken twice: the origin died before its 250 was read, as the sending server logged
	NoticeDuplicates int `json:"notice_duplicates"`          // notices told twice: the origin died between the mail server's 250 and their row's end

	Kills            int          `json:"kills"` // at points
	KillsElsewhere   int          `json:"kills_elsewhere"`
	KillsMinPerPoint int          `json:"kills_min_per_point"`
	Points           []crashPoint `json:"points"`
	Origin           crashAudit   `json:"origin"`
	Destination      crashAudit   `json:"destination"`
	Seconds          float64      `json:"seconds"`
	SecondsOfKills   float64      `json:"seconds_of_kills"`

	OK  bool     `json:"ok"`
	Why []string `json:"why,omitempty"` // it is not
}

// A crashPoint is how often a gateway was ended at a point.
type crashPoint struct {
	Gateway string          `json:"gateway"`
	Point   killpoint.Point `json:"point"`
	Kills   int             `json:"kills"`
}

// A crashAudit is what a gateway's own log proves at the end.
type crashAudit struct {
	Missing   int  `json:"missing"` // recipients that were accepted and are neither in the queue nor at an end
	Verified  bool `json:"verified"`
	FilesLeft int  `json:"files_left"` // of messages that are gone
}

// A crashPlan is how much is done.
type crashPlan struct {
	messages            int
	kills               int // at each point
	origin, destination []killpoint.Point
	progress            io.Writer
}

func runCrash(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flag.NewFlagSet("lab crash", flag.ContinueOnError)
	messages := fs.Int("messages", 5000, "`N` messages; more when the points are not all passed by then")
	kills := fs.Int("kills", 20, "`N` times at each point")
	points := fs.String("points", "all", "`NAMES` of the points, with commas, or all")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 || *messages < 1 || *kills < 1 {
		return errUsage
	}
	plan := crashPlan{messages: *messages, kills: *kills, progress: io.Discard}
	if plan.origin, plan.destination, err = choosePoints(*points); err != nil {
		return err
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		plan.progress = os.Stderr
	}
	b, err := testpeer.NewBench()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	binary, err := Build(ctx, b.Dir, "killpoints")
	if err != nil {
		return err
	}
	r, err := crash(ctx, b, binary, plan)
	if err != nil {
		b.ShowLogs(os.Stderr)
		return err
	}
	return tell(out, *asJSON, "crash", r, r.OK, r.Why)
}

// choosePoints finds the points of both gateways by their names.
func choosePoints(names string) (origin, destination []killpoint.Point, err error) {
	if names == "all" {
		return killpoint.Origin, killpoint.Destination, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		p := killpoint.Point(name)
		inOrigin, inDestination := slices.Contains(killpoint.Origin, p), slices.Contains(killpoint.Destination, p)
		if inOrigin {
			origin = append(origin, p)
		}
		if inDestination {
			destination = append(destination, p)
		}
		if !inOrigin && !inDestination {
			return nil, nil, fmt.Errorf("crash: no point is called %q; there are %v and %v", name, killpoint.Origin, killpoint.Destination)
		}
	}
	return origin, destination, nil
}

func (r *crashReport) print(out io.Writer) {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range []struct {
		n    int
		what string
	}{
		{r.Accepted, "accepted"}, {r.Delivered, "delivered"}, {r.Bounced, "bounced"}, {r.Held, "held"}, {r.Queued, "queued"},
		{r.Dropped, "dropped"}, {r.Lost, "lost"}, {r.Duplicates, "duplicates that nothing excuses"},
		{r.WindowDuplicates, "handed over twice (OC-38)"}, {r.CutDuplicates, "taken twice: the 250 was cut"},
		{r.NoticeDuplicates, "notices told twice"}, {r.Kills, "kills at points"}, {r.KillsElsewhere, "kills elsewhere"}, {r.KillsMinPerPoint, "at least at each point"},
	} {
		fmt.Fprintf(tw, "%d\t  %s\n", row.n, row.what)
	}
	tw.Flush()
	for _, p := range r.Points {
		fmt.Fprintf(out, "%4d  %s %s\n", p.Kills, p.Gateway, p.Point)
	}
	for _, why := range r.Why {
		fmt.Fprintln(out, "NOT FINE:", why)
	}
}

// judge says whether all is as it must be.
func (r *crashReport) judge(plan crashPlan) {
	bad := func(format string, args ...any) { r.Why = append(r.Why, fmt.Sprintf(format, args...)) }
	if sum := r.Delivered + r.Bounced + r.Held + r.Queued; r.Accepted != sum {
		bad("%d accepted, and %d delivered, bounced, held and queued", r.Accepted, sum)
	}
	if r.Accepted < plan.messages {
		bad("%d of %d messages were accepted", r.Accepted, plan.messages)
	}
	if r.Lost != 0 {
		bad("%d lost", r.Lost)
	}
	if r.Duplicates != 0 {
		bad("%d duplicates that nothing excuses", r.Duplicates)
	}
	if r.WindowDuplicates > r.PossibleCounted {
		bad("%d were handed over twice, and the destination's log counts %d possible duplicates", r.WindowDuplicates, r.PossibleCounted)
	}
	if r.KillsMinPerPoint < plan.kills {
		bad("a point was struck %d times", r.KillsMinPerPoint)
	}
	for name, n := range map[string]int{"delivered": r.Delivered, "bounced": r.Bounced, "held": r.Held, "queued": r.Queued} {
		if n == 0 {
			bad("no message was %s: the sum proves little", name)
		}
	}
	for name, a := range map[string]crashAudit{"origin": r.Origin, "destination": r.Destination} {
		if a.Missing != 0 || !a.Verified || a.FilesLeft != 0 {
			bad("%s: %d missing in its log, verified: %t, %d files left", name, a.Missing, a.Verified, a.FilesLeft)
		}
	}
	r.OK = len(r.Why) == 0
}
