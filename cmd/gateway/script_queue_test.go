package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/appliance/spool"
	"dimegate/bridge/queue"
)

// enqueueCommand is the scripts' "enqueue NAME FROM TO [built]": a message in the queue of gateway.toml, and its entry's id in the
// variable NAME. With "built" it was tried once, over DMTP, and its D/MIME object is "sealed for TO".
func enqueueCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: enqueue NAME FROM TO [built]")
	}
	c, err := config.Load(filepath.Join(ts.Getenv("WORK"), "gateway.toml"))
	ts.Check(err)
	ctx := context.Background()
	v, err := keystore.Open(ctx, c.Vault, false)
	ts.Check(err)
	defer v.Close()
	q := queue.New(spool.Store{Vault: v.Vault}, queue.Options{Schedule: []time.Duration{time.Hour}})
	env := queue.Envelope{ReversePath: args[1], Recipients: []queue.Recipient{{Address: args[2]}}}
	r, err := q.Accept(ctx, env, strings.NewReader("Subject: an open secret\r\n\r\n"))
	ts.Check(err)
	ts.Setenv(args[0], r.Entries[0])
	if len(args) == 4 {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ts.Check(q.Run(ctx, builder{cancel, r.Entries[0]}, nobodyTold{}))
	}
}

// A builder builds one entry and can reach nobody.
type builder struct {
	done func()
	id   string
}

func (b builder) Deliver(ctx context.Context, it *queue.Item) (queue.Result, error) {
	if it.ID != b.id {
		return queue.Result{Class: queue.Network}, nil
	}
	err := it.SaveBuilt(ctx, []byte("sealed for "+it.Recipient.Address), queue.Decision{Leg: "dmtp", Rule: "a rule"})
	time.AfterFunc(100*time.Millisecond, b.done)
	return queue.Result{Class: queue.Network, Reason: "cannot be reached"}, err
}

type nobodyTold struct{}

func (nobodyTold) Notify(context.Context, queue.Mail) error { return errors.New("nobody is there") }
