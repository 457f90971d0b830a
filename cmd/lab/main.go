// Command lab is the test bed, not part of the product: two organisations on loopback, alpha.test and bravo.test, with a
// signed DNS root, Unbound, and for each a Postfix, a Dovecot and a gateway. Its tests are the end-to-end tests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"dimegate/internal/testpeer"
)

const usage = `Usage: lab up
       lab leak [--cases all|NAME,...] [--json] [--pcap FILE]
       lab escrow [--quorum M] [--officers N] [--records N] [--case N] [--json]

  up     start the two organisations and print where everything is, until Ctrl-C (as root: Postfix and Dovecot want it)
  leak   attack the way between two organisations in every way that we know, and look for plaintext in what was captured
         there; exit code 0 only if there is none and each case ends as it must (as root: it captures packets)
  escrow make an escrow key, seal an archive to it, and open a case of it with officers who are processes of their own; attack
         it, and look for the private key in their memory and files (as root: it reads other processes' memory)
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	var err error
	switch command, args := flag.Arg(0), flag.Args()[min(1, flag.NArg()):]; {
	case command == "up" && len(args) == 0:
		if err = up(ctx); ctx.Err() != nil {
			err = nil // interrupted: that is how it ends
		}
	case command == "leak":
		err = runLeak(ctx, args, os.Stdout)
	case command == "escrow":
		err = runEscrow(ctx, args, os.Stdout)
	case command == "escrow-part": // the lab's own: see escrowLab.start
		err = runEscrowPart(ctx, args)
	case command == "gateway-at" && len(args) == 2: // the lab's own: see leakWorld.startAlpha
		err = gatewayAt(ctx, args[0], args[1])
	default:
		err = errUsage
	}
	switch {
	case errors.Is(err, errUsage):
		flag.Usage()
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong use")

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
