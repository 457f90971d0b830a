package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dimegate/internal/killpoint"
	"dimegate/internal/testpeer"
)

// A crashRun is one run: a lab whose gateways are built with killpoints, and what was done in it.
type crashRun struct {
	*Lab
	plan         crashPlan
	alpha, bravo *Gateway
	total        int  // kills
	plain        bool // what is fed from now on is neither large, nor held, nor refused

	fed       int
	kills     map[*Gateway]map[killpoint.Point]int
	done      int // kills at points
	elsewhere int // kills
}

// Of the mail that is fed. The held are few: the gateway decides about all of them anew at each start.
const (
	batch        = 7
	refuseEvery  = 14 // message n of so many is refused by the receiving mail server when it has read it
	unknownEvery = 14 // is to nobody
	largeEvery   = 7  // rests in a file
	heldEvery    = 100
	mailboxes    = 20
	largeLines   = 1600
	lateMessages = 10 // sent while the destination is down
)

const heldSender = "carol@alpha.test"

// crash does all of it, with a gateway that was built with killpoints.
func crash(ctx context.Context, b *testpeer.Bench, binary string, plan crashPlan) (*crashReport, error) {
	start := time.Now()
	c, err := newCrashRun(ctx, b, binary, plan)
	if err != nil {
		return nil, err
	}
	if err := c.holding(true); err != nil {
		return nil, err
	}
	flush, stop := context.WithCancel(ctx)
	var flushing sync.WaitGroup
	flushing.Go(func() { c.flush(flush) })
	defer flushing.Wait()
	defer stop()
	if err := c.strike(ctx); err != nil {
		return nil, err
	}
	struck := time.Since(start)
	for c.fed < plan.messages-lateMessages {
		if err := c.feed(ctx, min(batch, plan.messages-lateMessages-c.fed)); err != nil {
			return nil, err
		}
	}
	if err := c.drain(ctx, "held"); err != nil {
		return nil, err
	}
	r, err := c.count(ctx)
	if err != nil {
		return nil, err
	}
	r.SecondsOfKills, r.Seconds = struck.Seconds(), time.Since(start).Seconds()
	r.judge(plan)
	return r, nil
}

// newCrashRun starts all but the gateways.
func newCrashRun(ctx context.Context, b *testpeer.Bench, binary string, plan crashPlan, edit ...func(*Lab)) (*crashRun, error) {
	l, err := NewLab(ctx, b, append(edit, func(l *Lab) {
		l.Alpha.main = []string{"enable_long_queue_ids = yes", "default_destination_concurrency_failed_cohort_limit = 0"}
		l.Bravo.main = []string{"header_checks = regexp:{ { /^X-Lab-Refuse:/ REJECT } }"}
	})...)
	if err != nil {
		return nil, err
	}
	c := &crashRun{Lab: l, plan: plan, kills: map[*Gateway]map[killpoint.Point]int{}, total: plan.kills * (len(plan.origin) + len(plan.destination))}
	both := [2]*Gateway{}
	for i, o := range l.Orgs() {
		if both[i], err = l.NewGateway(ctx, binary, o); err != nil {
			return nil, err
		}
		c.kills[both[i]] = map[killpoint.Point]int{}
		both[i].Env = []string{killpoint.TraceVariable + "=" + c.traceFile(both[i])}
	}
	c.alpha, c.bravo = both[0], both[1]
	return c, nil
}

// holding tells the origin to hold what one of its users sends, or no longer to.
func (c *crashRun) holding(yes bool) error {
	return c.alpha.Configure(func(text string) string {
		if !yes {
			return text
		}
		return strings.Replace(text, "[handoff]", fmt.Sprintf("[policy.sender.%q]\nfloor = \"hold\"\n\n[handoff]", heldSender), 1)
	})
}

func (c *crashRun) traceFile(g *Gateway) string {
	return filepath.Join(c.Dir, "dx."+g.org.Domain+".trace")
}

// flush has the mail server try every second what it put off.
func (c *crashRun) flush(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		_ = c.Alpha.Postfix.Flush(ctx) // the next second, then
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// A target is a gateway and the points at which it is struck.
type target struct {
	name   string
	g      *Gateway
	points []killpoint.Point
}

func (c *crashRun) targets() []target {
	return []target{{"origin", c.alpha, c.plan.origin}, {"destination", c.bravo, c.plan.destination}}
}

// strike ends both gateways at all of their points, round after round, and leaves them running.
func (c *crashRun) strike(ctx context.Context) error {
	for range c.plan.kills {
		var round []blow
		for _, t := range c.targets() {
			for _, p := range t.points {
				round = append(round, blow{t, p})
			}
		}
		rand.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		for _, b := range round {
			if err := c.kill(ctx, b); err != nil {
				return fmt.Errorf("the %s at %s: %w", b.name, b.point, err)
			}
			fmt.Fprintf(c.plan.progress, "\r%d of %d kills, %d messages ", c.done, c.total, c.fed)
		}
	}
	fmt.Fprintln(c.plan.progress)
	return errors.Join(c.bravo.Run(ctx), c.alpha.Run(ctx))
}

// A blow is one kill: of whom, and where.
type blow struct {
	target
	point killpoint.Point
}

// kill strikes until a gateway has ended at its point.
func (c *crashRun) kill(ctx context.Context, b blow) error {
	ctx, cancel := context.WithTimeout(ctx, waitLong)
	defer cancel()
	for ctx.Err() == nil {
		if struck, err := c.runArmed(ctx, b); err != nil || struck {
			return err
		}
	}
	return fmt.Errorf("it did not come there: %w", ctx.Err())
}

// passings bounds at which passing of a point the end comes: it is drawn, so that ends fall amid load. What is not here
// is passed once or twice a message.
var passings = map[killpoint.Point]int{killpoint.NoticeAfter: 1, killpoint.FileAfter: 2, killpoint.CommitBefore: 40, killpoint.CommitAfter: 40}

// runArmed runs both gateways, one of which is to end itself at a point, and then ends the other one, too, wherever it
// stands. It reports whether the point was come to. Both start anew each time, the origin last: what one has found
// unreachable it lets rest for a while, and would mostly wait.
func (c *crashRun) runArmed(ctx context.Context, b blow) (bool, error) {
	most, ok := passings[b.point]
	if !ok {
		most = 8
	}
	arm := fmt.Sprintf("%s=%s %d", killpoint.ArmVariable, b.point, 1+rand.N(most))
	for _, g := range []*Gateway{c.bravo, c.alpha} {
		env := g.Env
		if g == b.g {
			g.Env = append(slices.Clone(env), arm)
		}
		err := g.Run(ctx)
		g.Env = env
		if err != nil && g != b.g { // that one may end while it starts: it commits then, too
			return false, err
		}
	}
	err := c.feedUntilDead(ctx, b.g)
	for _, g := range []*Gateway{c.bravo, c.alpha} {
		err = errors.Join(err, c.killAnywhere(g))
	}
	if err != nil {
		return false, err
	}
	switch struck, err := c.struck(b.g); {
	case err != nil:
		return false, err
	case struck == b.point:
		c.kills[b.g][b.point]++
		c.done++
		return true, nil
	case struck == anywhere:
		return false, nil
	default:
		return false, fmt.Errorf("it ended at %q", struck)
	}
}

// anywhere is where a gateway is ended that comes to no point: the trace gets a line all the same.
const anywhere killpoint.Point = "anywhere"

// killAnywhere ends a gateway that runs.
func (c *crashRun) killAnywhere(g *Gateway) error {
	select {
	case <-g.Done():
		return nil
	default:
	}
	g.Kill()
	if struck, err := c.struck(g); err != nil || struck != "" {
		return err // it was quicker
	}
	c.elsewhere++
	f, err := os.OpenFile(c.traceFile(g), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d %s - killed\n", g.Pid(), anywhere)
	return errors.Join(err, f.Close())
}

// patience is how long a gateway may take to come to a point; then it is ended where it stands, and starts again.
const patience = 10 * time.Second

// feedUntilDead feeds as much as is due until a gateway ends: all messages over all kills, and more where that is not
// enough to bring it to its point.
func (c *crashRun) feedUntilDead(ctx context.Context, g *Gateway) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	last := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-g.Done():
			return nil
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if c.due() || time.Since(last) > time.Second {
			if err := c.feed(ctx, batch); err != nil {
				return err
			}
			last = time.Now()
		}
	}
}

// due reports whether the feed is behind the kills.
func (c *crashRun) due() bool {
	budget := c.plan.messages - lateMessages - batch
	return c.fed < budget && c.fed*c.total <= budget*(c.done+2)
}

// struck is the point at which a gateway that has ended was killed, by its trace; "" for none.
func (c *crashRun) struck(g *Gateway) (p killpoint.Point, err error) {
	pid := strconv.Itoa(g.Pid())
	err = eachLine(c.traceFile(g), func(line string) {
		// It need not be the last line: the other threads have a moment longer.
		if words := strings.Fields(line); len(words) == 4 && words[0] == pid {
			p = killpoint.Point(words[1])
		}
	})
	return p, err
}

func eachLine(path string, f func(string)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		f(lines.Text())
	}
	return lines.Err()
}

// feed gives the sending mail server n messages.
func (c *crashRun) feed(ctx context.Context, n int) error {
	first := c.fed
	c.fed += n
	s, err := testpeer.DialSMTP(ctx, c.Alpha.Postfix.Addr)
	if err != nil {
		return err
	}
	for i := first; i < first+n; i++ {
		m := c.mail(i)
		if err := s.Send(m.from, []string{m.to}, m.octets); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	return s.Close()
}

// A crashMessage is one of the fed ones.
type crashMessage struct {
	from, to string
	octets   []byte
}

func (c *crashRun) mail(n int) crashMessage {
	m := crashMessage{from: fmt.Sprintf("m%d@alpha.test", n%mailboxes), to: fmt.Sprintf("m%d@bravo.test", n/3%mailboxes)}
	var top, body string
	switch {
	case c.plain:
	case n%heldEvery == heldEvery/2:
		m.from = heldSender
	case n%unknownEvery == 2:
		m.to = fmt.Sprintf("nobody%d@bravo.test", n%50)
	case n%refuseEvery == 9:
		top = "X-Lab-Refuse: yes\r\n"
	case n%largeEvery == 4:
		body = strings.Repeat("a line of a message that is so large that it rests in a file of its own\r\n", largeLines)
	}
	m.octets = fmt.Appendf(nil, "From: %s\r\nTo: %s\r\nSubject: %d\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\nMessage-ID: <lab-%d@alpha.test>\r\n%s\r\nmessage %d\r\n%s",
		m.from, m.to, n, n, top, n, body)
	return m
}

// A queued is an entry as "gateway queue list --json" shows it.
type queued struct{ ID, State, Held string }

func (g *Gateway) queue(ctx context.Context) (list []queued, err error) {
	out, err := g.Command(ctx, "queue", "list", "--json", "--config", g.Config)
	if err != nil {
		return nil, err
	}
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var q queued
		if err := d.Decode(&q); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("gateway queue list: %w", err)
		}
		list = append(list, q)
	}
}

// drain waits until no mail server holds mail, and the origin only what is in one of some states.
func (c *crashRun) drain(ctx context.Context, states ...string) error {
	ctx, cancel := context.WithTimeout(ctx, waitLong)
	defer cancel()
	for {
		left, err := c.left(ctx, states)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("there is still mail on its way: %w\n%s", ctx.Err(), strings.Join(left, "\n"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// left is what is still on its way.
func (c *crashRun) left(ctx context.Context, states []string) (left []string, err error) {
	for _, o := range c.Orgs() {
		q, err := o.Postfix.Queue(ctx)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines([]byte(q)) {
			left = append(left, o.Postfix.Addr+" "+strings.TrimSpace(string(line)))
		}
	}
	list, err := c.alpha.queue(ctx)
	for _, q := range list {
		if !slices.Contains(states, q.State) {
			left = append(left, fmt.Sprintf("dx.alpha.test %v", q))
		}
	}
	return left, err
}
