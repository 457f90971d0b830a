package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"dimegate/internal/testpeer"
)

var enrolCommand = command{
	"enrol", "[--users N] [--rounds N] [--per-round N] [--profiles FOLDER] [--json]",
	"first mails of N users at once through a gateway that is killed when half of them were accepted, and again when half arrived,\n" +
		"while a stranger asks for their signets; then counts keys in the vault, signets from outside, and mails at the destination.\n" +
		"Then what a first mail costs over the same users' second, in quiet rounds. Exit code 0 only if everything is there once;\n" +
		"the cost is printed, not judged; example: lab enrol --users 1000 --json",
	runEnrol,
}

// An enrolPlan is how much is done.
type enrolPlan struct {
	users    int // who send at once
	rounds   int // quiet ones
	perRound int // users of each, who send a first and then a second mail
	profiles string
	forget   bool // the destination starts anew after each kill: else it may let the host rest that it could not reach, a quarter of a minute
}

// An enrolReport is what was found. Counts are judged; times are this machine's under what else it did, and of the ratios the
// median of the rounds is what is worth something.
type enrolReport struct {
	StormUsers int `json:"storm_users"` // who sent their first mail at once
	StormKeys  int `json:"storm_keys"`  // generations of keys that they had after it

	Users     int `json:"users"`     // of these, of the quiet rounds, and one before
	Mails     int `json:"mails"`     // that they sent: in the storm every tenth two at once
	Kills     int `json:"kills"`     // of their gateway, by SIGKILL
	Retried   int `json:"retried"`   // sendings that got no 250, and were done again
	Delivered int `json:"delivered"` // mails that are at the destination
	Lost      int `json:"lost"`
	Cut       int `json:"cut_duplicates"` // mails twice there whose 250 was cut: the sender had to send them again
	Twice     int `json:"duplicates"`     // mails twice there, else

	Keys        int `json:"keys"`          // users with keys in the vault
	Generations int `json:"generations"`   // of them all
	KeyLeaves   int `json:"key_leaves"`    // in the log: keys that were made for users
	Signets     int `json:"signets"`       // users whose signet a stranger gets by SGNT, whole and the vault's
	Chains      int `json:"chains_of_one"` // users whose HIST has one signet
	Asked       int `json:"asked"`         // answers to the stranger while it stormed

	Verified bool `json:"log_verified"`
	Missing  int  `json:"missing"` // recipients that the log cannot account for

	Cost enrolCost `json:"cost"`

	OK  bool     `json:"ok"`
	Why []string `json:"why,omitempty"` // it is not
}

// An enrolCost is first mails over second ones of the same users to recipients who had mail before.
type enrolCost struct {
	Rounds     int       `json:"rounds"`
	PerRound   int       `json:"mails_per_round"`
	First      enrolSide `json:"first"` // medians of the rounds
	Warm       enrolSide `json:"warm"`
	Origin     float64   `json:"cpu_ratio_origin"` // medians of the rounds' ratios, first over warm
	Both       float64   `json:"cpu_ratio_both"`   // the destination has the author's signet to fetch and to remember
	Time       float64   `json:"time_ratio"`       // of messages a second, end to end
	WithinGoal bool      `json:"within_goal"`      // none of the three is over enrolGoal
}

// enrolGoal is what a first mail shall cost at most, over a warm one.
const enrolGoal = 3

// An enrolSide is what mails of one kind took.
type enrolSide struct {
	PerSecond   float64 `json:"messages_per_second"`
	Origin      float64 `json:"cpu_ms_per_message_origin"`
	Destination float64 `json:"cpu_ms_per_message_destination"`
}

func runEnrol(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flag.NewFlagSet("lab enrol", flag.ContinueOnError)
	plan := enrolPlan{}
	fs.IntVar(&plan.users, "users", 1000, "`N` users who send their first mail at once")
	fs.IntVar(&plan.rounds, "rounds", 5, "`N` quiet rounds")
	fs.IntVar(&plan.perRound, "per-round", 200, "`N` further users a round")
	fs.StringVar(&plan.profiles, "profiles", "", "also write where both gateways' processors are to this `FOLDER`, for go tool pprof; they are built for it")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 || plan.users < 10 || plan.rounds < 1 || plan.perRound < 1 {
		return errUsage
	}
	b, err := testpeer.NewBench()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	var tags []string
	if plan.profiles != "" {
		tags = append(tags, profileTag)
	}
	binary, err := Build(ctx, b.Dir, tags...)
	if err != nil {
		return err
	}
	r, err := enrol(ctx, b, binary, plan)
	if err != nil {
		b.ShowLogs(os.Stderr)
		return err
	}
	return tell(out, *asJSON, "enrol", r, r.OK, r.Why)
}

func (r *enrolReport) judge() {
	expect := func(what string, got, want int) {
		if got != want {
			r.Why = append(r.Why, fmt.Sprintf("%s: %d, want %d", what, got, want))
		}
	}
	expect("keys of the storm's users", r.StormKeys, r.StormUsers)
	expect("mails delivered", r.Delivered, r.Mails)
	expect("mails lost", r.Lost, 0)
	expect("duplicates that nothing excuses", r.Twice, 0)
	expect("users with keys", r.Keys, r.Users)
	expect("generations of keys", r.Generations, r.Users)
	expect("leaves of keys made", r.KeyLeaves, r.Users)
	expect("signets had from outside", r.Signets, r.Users)
	expect("chains of one signet", r.Chains, r.Users)
	expect("recipients missing in the log", r.Missing, 0)
	if !r.Verified {
		r.Why = append(r.Why, "the log does not verify")
	}
	if r.Kills == 0 || r.Retried == 0 || r.Asked == 0 {
		r.Why = append(r.Why, "no kill struck, no mail was sent again, or no stranger was answered: nothing was tried")
	}
	r.OK = len(r.Why) == 0
}

func (r *enrolReport) print(out io.Writer) {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range []struct {
		n    int
		what string
	}{
		{r.StormUsers, "users at once"}, {r.StormKeys, "keys that they got"}, {r.Users, "users in all"}, {r.Keys, "users with keys"}, {r.Generations, "generations of keys"}, {r.KeyLeaves, "leaves of keys made"},
		{r.Signets, "signets had from outside"}, {r.Chains, "chains of one signet"}, {r.Asked, "signets shown while it stormed"},
		{r.Mails, "mails"}, {r.Delivered, "delivered"}, {r.Lost, "lost"}, {r.Twice, "duplicates that nothing excuses"}, {r.Cut, "taken twice: the 250 was cut"},
		{r.Kills, "kills"}, {r.Retried, "sent again"}, {r.Missing, "missing in the log"},
	} {
		fmt.Fprintf(tw, "%d\t  %s\n", row.n, row.what)
	}
	tw.Flush()
	fmt.Fprintf(out, "the log verifies: %t\n", r.Verified)
	c := r.Cost
	fmt.Fprintf(out, "cost of a mail, medians of %d rounds of %d\n", c.Rounds, c.PerRound)
	tw = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "\tmessages/s\tCPU ms origin\tCPU ms destination")
	for _, s := range []struct {
		name string
		enrolSide
	}{{"first", c.First}, {"warm", c.Warm}} {
		fmt.Fprintf(tw, "%s\t%.0f\t%.2f\t%.2f\n", s.name, s.PerSecond, s.Origin, s.Destination)
	}
	tw.Flush()
	fmt.Fprintf(out, "first over warm: CPU of the origin %.2f, of both %.2f, time %.2f; goal %d\n", c.Origin, c.Both, c.Time, enrolGoal)
}
