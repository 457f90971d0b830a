package appliance

import (
	"context"
	"errors"
	"io"

	"dimegate/appliance/config"
	"dimegate/bridge/queue"
	"dimegate/bridge/scanner"
	"dimegate/bridge/submission"
)

// scanners are those of either direction; nil: none.
type scanners struct{ outbound, inbound *scanner.Scanner }

func (g *gateway) makeScanners() error {
	c := g.config.Scanner
	make := func(urls []string) *scanner.Scanner {
		var list []scanner.Address
		for _, u := range urls {
			kind, network, address, _ := config.ParseScanner(u) // checked
			list = append(list, scanner.Address{Kind: kind, Network: network, Address: address})
		}
		return scanner.New(scanner.Config{
			Scanners: list, Name: g.config.Hostname, Timeout: c.Timeout, MaxOctets: c.MaxOctets, IgnoreChanges: c.HeaderChanges == "ignore", Log: g.Log,
		})
	}
	g.scanners = scanners{make(c.Outbound), make(c.Inbound)}
	return nil
}

// checkScanners tells at start what would only show with the first mail. A scanner may come later: mail waits for it.
func (g *gateway) checkScanners(ctx context.Context) error {
	for key, s := range map[string]*scanner.Scanner{"scanner.outbound": g.scanners.outbound, "scanner.inbound": g.scanners.inbound} {
		if s == nil {
			continue
		}
		if err := s.Check(ctx); err != nil && ctx.Err() == nil {
			g.Log.Warn("a content scanner cannot be used, and mail will wait for it: does it run, and does it only judge?", "key", key, "error", err)
		}
	}
	return nil
}

func (s scanners) close() error {
	var errs []error
	for _, one := range []*scanner.Scanner{s.outbound, s.inbound} {
		if one != nil {
			errs = append(errs, one.Close())
		}
	}
	return errors.Join(errs...)
}

// heldByScanner is what administrators see of a message that a content scanner wants held.
const heldByScanner = "scanner"

// accept has the content scanners see the message while it is sealed, and asks them before it counts. They see what the client sent,
// without our trace.
func (a acceptor) accept(ctx context.Context, t *tenant, env submission.Envelope, e queue.Envelope, body io.Reader) error {
	if !t.up.Load() {
		return errDown
	}
	if a.scanner == nil {
		_, err := t.queue.Accept(ctx, e, body)
		return err
	}
	to := make([]string, len(env.To))
	for i, r := range env.To {
		to[i] = r.Address
	}
	scan := a.scanner.Begin(ctx, scanner.Envelope{ID: env.ID, Client: env.Client, Hello: env.Hello, User: env.User, From: env.From, To: to, UTF8: env.UTF8})
	defer scan.Close()
	trace := io.LimitReader(body, int64(env.Trace))
	_, err := t.queue.AcceptJudged(ctx, e, io.MultiReader(trace, io.TeeReader(body, scan)), func() (string, error) {
		err := scan.Verdict()
		if errors.Is(err, scanner.ErrQuarantined) {
			return heldByScanner, nil
		}
		return "", err
	})
	return err
}
