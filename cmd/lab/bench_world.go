package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"dimegate/internal/testpeer"

	"golang.org/x/sync/errgroup"
)

// A benchWorld is the two lines that a comparison holds against each other, with one sink at the end of both:
//
//	(a) Postfix → SMTP with STARTTLS → Postfix → sink
//	(b) gateway → DMTP               → gateway → sink
//
// All of it rests in one folder, hence on one file system.
type benchWorld struct {
	*Lab
	sinkAddr     string
	sinkLog      string
	holding      *testpeer.Postfix // accepts for side (a), and puts all on hold
	alpha, bravo *Gateway
	a, b         side
}

// A side is one of the two lines.
type side struct {
	name  string
	entry string // where the generator sends to
	pids  []int  // the processes that it is made of, without their children
}

// Settings that both sides get in their own words: as many sessions from hop to hop as the generator holds open.
var (
	postfixSettings = []string{
		"in_flow_delay = 0",
		fmt.Sprintf("default_destination_concurrency_limit = %d", sessions),
		fmt.Sprintf("initial_destination_concurrency = %d", sessions),
		fmt.Sprintf("smtpd_client_connection_count_limit = %d", 2*sessions),
	}
	gatewaySettings = map[string]string{
		"[queue]\n":   fmt.Sprintf("[queue]\nworkers = %d\nper_domain = %d\n", sessions, sessions),
		"[handoff]\n": fmt.Sprintf("[handoff]\nmax_sessions = %d\n", sessions),
	}
)

// newBenchWorld starts both sides and sends a few messages through them, so that users have keys and nothing is asked for
// the first time when it counts. The caller closes the bench.
func newBenchWorld(ctx context.Context, b *testpeer.Bench, binary string, postfix []string) (*benchWorld, error) {
	w := &benchWorld{Lab: &Lab{Bench: b, Alpha: &Org{Name: "alpha", Domain: "alpha.test"}, Bravo: &Org{Name: "bravo", Domain: "bravo.test"}}}
	for _, addr := range []*string{&w.Alpha.MX, &w.Alpha.DX, &w.Bravo.MX, &w.Bravo.DX, &w.sinkAddr} {
		a, err := b.Address()
		if err != nil {
			return nil, err
		}
		*addr = a
	}
	w.sinkAddr += ":25"
	if err := w.startNames(ctx); err != nil {
		return nil, err
	}
	if err := w.startSink(ctx); err != nil {
		return nil, err
	}
	if err := w.makeGateways(ctx, binary); err != nil {
		return nil, err
	}
	if err := w.startPostfixes(ctx, postfix); err != nil {
		return nil, err
	}
	return w, w.warmUp(ctx)
}

// startSink starts smtp-sink, which prints how many messages it took.
func (w *benchWorld) startSink(ctx context.Context) error {
	w.sinkLog = filepath.Join(w.Dir, "sink.log")
	_, err := w.Sink(ctx, "sink", w.sinkAddr, "-c")
	return err
}

// arrived is how many messages the sink took so far.
func (w *benchWorld) arrived() (int, error) {
	f, err := os.Open(w.sinkLog)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	tail := make([]byte, 4<<10)
	size, err := f.Seek(0, 2)
	if err != nil {
		return 0, err
	}
	n, err := f.ReadAt(tail, max(0, size-int64(len(tail))))
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return counted(tail[:n])
}

// counted reads the last "sess=1 quit=0 mesg=17\r" of what smtp-sink -c printed.
func counted(tail []byte) (int, error) {
	lines := bytes.Split(tail, []byte("\r"))
	if len(lines) < 2 {
		return 0, nil
	}
	_, number, found := bytes.Cut(lines[len(lines)-2], []byte("mesg="))
	if !found {
		return 0, fmt.Errorf("smtp-sink said %q", lines[len(lines)-2])
	}
	return strconv.Atoi(string(number))
}

// makeGateways makes both installations and publishes their records. They hand over to Postfix at first: see warmUp.
func (w *benchWorld) makeGateways(ctx context.Context, binary string) error {
	for _, o := range w.Orgs() {
		o.Postfix = &testpeer.Postfix{Addr: o.MX + ":25"}
		g, err := w.NewGateway(ctx, binary, o)
		if err != nil {
			return err
		}
		if err := g.Configure(benchSettings); err != nil {
			return err
		}
		if o == w.Alpha {
			w.alpha = g
		} else {
			w.bravo = g
		}
	}
	return nil
}

func benchSettings(text string) string {
	for table, with := range gatewaySettings {
		text = strings.Replace(text, table, with, 1)
	}
	return text
}

// startPostfixes starts the two of side (a), and the one that only accepts. Bravo's knows which users exist, and encrypts
// with bravo's own certificate.
func (w *benchWorld) startPostfixes(ctx context.Context, further []string) error {
	hold, err := w.Address()
	if err != nil {
		return err
	}
	settings := append(append([]string(nil), postfixSettings...), further...)
	start := func(into **testpeer.Postfix, o *Org, name, listen, hop string, main ...string) func() error {
		return func() (err error) {
			*into, err = w.Bench.Postfix(ctx, testpeer.PostfixConfig{
				Name: name, Listen: listen + ":25", Hostname: "mx." + o.Domain, Domain: o.Domain, Users: users,
				Transport: []string{w.Bravo.Domain + " smtp:" + hop}, Main: append(main, settings...),
			})
			return err
		}
	}
	tls := filepath.Join(w.bravo.Data, "tls", "ecdsa")
	var starting errgroup.Group
	starting.Go(start(&w.Alpha.Postfix, w.Alpha, "mx.alpha", w.Alpha.MX, bracketed(w.Bravo.MX+":25"), "smtp_tls_security_level = encrypt"))
	starting.Go(start(&w.Bravo.Postfix, w.Bravo, "mx.bravo", w.Bravo.MX, bracketed(w.sinkAddr),
		"smtpd_tls_security_level = may", "smtpd_tls_cert_file = "+tls+".crt", "smtpd_tls_key_file = "+tls+".key"))
	starting.Go(start(&w.holding, w.Alpha, "hold.alpha", hold, bracketed(w.Bravo.MX+":25"), "smtpd_client_restrictions = check_client_access static:HOLD"))
	return starting.Wait()
}

// bracketed is host:port as Postfix writes a next hop that is not looked up.
func bracketed(addr string) string {
	host, port, _ := strings.Cut(addr, ":")
	return "[" + host + "]:" + port
}

// warmUp sends a message for every user through bravo's gateway and Postfix, which confirms that he exists, and then has
// the gateway hand over to the sink itself.
func (w *benchWorld) warmUp(ctx context.Context) error {
	for _, g := range []*Gateway{w.bravo, w.alpha} {
		if err := g.Run(ctx); err != nil {
			return err
		}
	}
	w.a, w.b = side{name: "postfix", entry: w.Alpha.Postfix.Addr}, side{name: "gateway", entry: w.Alpha.DX + ":2525"}
	g := newGenerator(2 << 10)
	if _, err := w.pass(ctx, w.b, g, 2*sessions); err != nil {
		return fmt.Errorf("first messages: %w", err)
	}
	if err := w.bravo.Stop(); err != nil {
		return err
	}
	w.bravo.Inner = w.sinkAddr
	if err := w.bravo.Configure(benchSettings); err != nil {
		return err
	}
	if err := w.bravo.Run(ctx); err != nil {
		return err
	}
	w.a.pids = []int{w.Alpha.Postfix.Pid(), w.Bravo.Postfix.Pid()}
	w.b.pids = []int{w.alpha.Pid(), w.bravo.Pid()}
	for _, s := range []side{w.a, w.b} {
		if _, err := w.pass(ctx, s, g, 4*sessions); err != nil {
			return fmt.Errorf("%s: warming up: %w", s.name, err)
		}
	}
	return nil
}

// passWait bounds how long the messages of one pass may take from end to end.
const passWait = 5 * time.Minute

// A pass is n messages from the generator to the sink.
type pass struct {
	took  time.Duration   // from the first octet to the last message at the sink
	waits []time.Duration // for the 250
}

func (w *benchWorld) pass(ctx context.Context, s side, g *generator, n int) (p pass, err error) {
	ctx, cancel := context.WithTimeout(ctx, passWait)
	defer cancel()
	before, err := w.arrived()
	if err != nil {
		return p, err
	}
	began := time.Now()
	if p.waits, err = g.send(ctx, s.entry, n); err != nil {
		return p, err
	}
	got := before
	err = untilEvery(ctx, time.Millisecond, func() bool { got, err = w.arrived(); return err != nil || got >= before+n })
	p.took = time.Since(began)
	if err != nil {
		return p, fmt.Errorf("%d of %d messages arrived at the sink: %w", got-before, n, err)
	}
	if got > before+n {
		return p, fmt.Errorf("%d messages arrived at the sink of %d that were sent", got-before, n)
	}
	return p, nil
}

// untilEvery is testpeer.Until with a look as often as a measurement wants one.
func untilEvery(ctx context.Context, pause time.Duration, ok func() bool) error {
	for !ok() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
	return nil
}

// holdDelivery makes side (b) accept only, and gives the sides that do: Postfix puts what comes on hold, and the gateway's
// one destination is away and rests after the first try.
func (w *benchWorld) holdDelivery(ctx context.Context) (a, b side, err error) {
	a = side{"postfix", w.holding.Addr, []int{w.holding.Pid()}}
	if err := errors.Join(w.bravo.Stop(), w.alpha.Stop()); err != nil {
		return a, b, err
	}
	if err := w.alpha.Configure(func(text string) string {
		return strings.Replace(benchSettings(text), `schedule = ["1s"]`, `schedule = ["4h"]`, 1)
	}); err != nil {
		return a, b, err
	}
	if err := w.alpha.Run(ctx); err != nil {
		return a, b, err
	}
	b = side{"gateway", w.b.entry, []int{w.alpha.Pid()}}
	for _, s := range []side{a, b} {
		if _, err := newGenerator(2<<10).send(ctx, s.entry, 2*sessions); err != nil {
			return a, b, fmt.Errorf("%s: first messages on hold: %w", s.name, err)
		}
	}
	return a, b, testpeer.Until(ctx, func() bool {
		text, err := os.ReadFile(w.alpha.LogFile())
		return err == nil && bytes.Count(text, []byte("msg=deferred")) > 0
	})
}
