// Command lab is the test bed, not part of the product: two organisations on loopback, alpha.test and bravo.test, with a
// signed DNS root, Unbound, and for each a Postfix, a Dovecot and a gateway. Its tests are the end-to-end tests.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"dimegate/internal/testpeer"
)

// A command is one of lab's. Its run prints what it found and returns an error when something does not hold.
type command struct {
	name    string
	usage   string // its flags and operands
	summary string // indented lines; "": the lab's own, not for people
	run     func(ctx context.Context, args []string, out io.Writer) error
}

// commands are all of them, one a file.
var commands = []command{
	{"up", "", "start the two organisations and print where everything is, until Ctrl-C (as root: Postfix and Dovecot want it)", runUp},
	leakCommand,
	crashCommand,
	enrolCommand,
	escrowCommand,
	archiveCommand,
	stealCommand,
	benchCommand,
	soakCommand,
	roundtripCommand,
	smuggleCommand,
	exchangeCommand,
	{name: "escrow-part", run: runEscrowPart}, // see escrowLab.start
	{name: "gateway-at", run: runGatewayAt},   // see leakWorld.startAlpha
}

func usage() {
	fmt.Fprintln(os.Stderr, "Usage: lab COMMAND")
	for _, c := range commands {
		if c.summary != "" {
			fmt.Fprintf(os.Stderr, "\n  lab %s %s\n      %s\n", c.name, c.usage, strings.ReplaceAll(c.summary, "\n", "\n      "))
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flag.Usage = usage
	flag.Parse()
	err := errUsage
	if i := slices.IndexFunc(commands, func(c command) bool { return c.name == flag.Arg(0) }); i >= 0 {
		err = commands[i].run(ctx, flag.Args()[1:], os.Stdout)
	}
	switch {
	case errors.Is(err, errUsage):
		usage()
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong use")

// tell prints a command's report, for people or as JSON, and returns an error where it says that something does not hold.
func tell(out io.Writer, asJSON bool, name string, report interface{ print(io.Writer) }, ok bool, why []string) error {
	if asJSON {
		if err := printJSON(out, report); err != nil {
			return err
		}
	} else {
		report.print(out)
	}
	if !ok {
		return errors.New(name + ": " + strings.Join(why, "; "))
	}
	return nil
}

func printJSON(out io.Writer, report any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(report)
}

func runUp(ctx context.Context, args []string, _ io.Writer) error {
	if len(args) > 0 {
		return errUsage
	}
	if err := up(ctx); ctx.Err() == nil { // interrupted: that is how it ends
		return err
	}
	return nil
}

// up runs the lab until ctx ends.
func up(ctx context.Context) (err error) {
	b, err := testpeer.NewBench()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	l, err := NewLab(ctx, b)
	if err != nil {
		b.ShowLogs(os.Stderr)
		return err
	}
	binary, err := Build(ctx, b.Dir)
	if err != nil {
		return err
	}
	if _, err := l.StartGateways(ctx, binary); err != nil {
		b.ShowLogs(os.Stderr)
		return err
	}
	l.describe(os.Stdout)
	<-ctx.Done()
	return nil
}
