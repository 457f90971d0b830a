package testpeer

import (
	"context"
	"os"
)

// Sink starts smtp-sink(1), which accepts everything and keeps nothing, and waits until it answers. Further arguments
// make it difficult: "-r", "rcpt" refuses every recipient for now, "-q", "data" hangs up at DATA.
func (b *Bench) Sink(ctx context.Context, name, addr string, args ...string) (*Process, error) {
	argv := append([]string{"smtp-sink", "-h", "sink.test"}, args...)
	if os.Geteuid() == 0 {
		argv = append(argv, "-u", "nobody") // it refuses to run as root
	}
	p, err := b.Start(name, append(argv, addr, "100")...)
	if err != nil {
		return nil, err
	}
	return p, p.Up(ctx, addr)
}
