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

  up   start the two organisations and print where everything is, until Ctrl-C (as root: Postfix and Dovecot want it)
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	if flag.NArg() != 1 || flag.Arg(0) != "up" {
		flag.Usage()
		os.Exit(2)
	}
	if err := up(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
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
