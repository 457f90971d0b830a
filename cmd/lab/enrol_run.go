package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dimegate/dmtp/dmtpclient"
	"dimegate/dmtp/signet"
	"dimegate/internal/testpeer"
)

// An enrolRun is one run: a world and what was done in it.
type enrolRun struct {
	*enrolWorld
	plan enrolPlan
	load *generator

	mu   sync.Mutex
	sent map[int64]*sending // by number
	r    enrolReport
}

// A sending is a mail and what became of its tries.
type sending struct {
	cut int // tries whose 250 did not come when all was sent: the gateway may have taken them all the same
}

// enrol does all of it.
func enrol(ctx context.Context, b *testpeer.Bench, binary string, plan enrolPlan) (*enrolReport, error) {
	storm := plan.users + plan.users/10
	w, err := newEnrolWorld(ctx, b, binary, storm+sessions)
	if err != nil {
		return nil, err
	}
	e := &enrolRun{enrolWorld: w, plan: plan, load: newGenerator(2 << 10), sent: map[int64]*sending{}}
	e.r.Cost.Rounds, e.r.Cost.PerRound = plan.rounds, plan.perRound
	before, err := e.keyLeaves(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.warm(ctx); err != nil {
		return nil, fmt.Errorf("warming the destination: %w", err)
	}
	if err := e.storm(ctx); err != nil {
		return nil, fmt.Errorf("the storm: %w", err)
	}
	if e.r.StormKeys, err = e.keysSince(ctx, warmUsers); err != nil {
		return nil, err
	}
	if err := e.measure(ctx); err != nil {
		return nil, fmt.Errorf("measuring: %w", err)
	}
	if err := e.count(ctx); err != nil {
		return nil, fmt.Errorf("counting: %w", err)
	}
	e.r.KeyLeaves -= before
	e.r.judge()
	return &e.r, nil
}

// warmUsers is how many of alpha's have keys before the storm.
const warmUsers = 1

// warm has one user of alpha write to each recipient once, so that bravo has their keys and knows alpha.
func (e *enrolRun) warm(ctx context.Context) error {
	var mails []enrolMail
	for i := range enrolRecipients {
		mails = append(mails, enrolMail{enrolAuthor(0), enrolRecipient(i)})
	}
	e.r.Users = warmUsers
	return e.pass(ctx, mails, 1, nil)
}

// storm sends the first mails of all users at once, two of every tenth, and kills their gateway when half were accepted, and
// when half arrived. A stranger asks for the users' signets meanwhile, in the other order.
func (e *enrolRun) storm(ctx context.Context) error {
	first := warmUsers
	var mails []enrolMail
	for i := range e.plan.users {
		for range 1 + (i%10)/9 {
			mails = append(mails, enrolMail{enrolAuthor(first + i), enrolRecipient(i)})
		}
	}
	e.r.Users += e.plan.users
	e.r.StormUsers = e.plan.users
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var stranger sync.WaitGroup
	stranger.Go(func() { e.ask(asking, first) })
	var accepted atomic.Int64
	half, there := int64(len(mails)/2), e.counted.arrived()+len(mails)/2
	killed := make(chan error, 1)
	go func() {
		killed <- errors.Join(
			e.killWhen(ctx, func() bool { return accepted.Load() >= half }),
			e.killWhen(ctx, func() bool { return e.counted.arrived() >= there }))
	}()
	err := e.pass(ctx, mails, len(mails), &accepted)
	err = errors.Join(err, <-killed)
	stop()
	stranger.Wait()
	return err
}

// killWhen kills alpha's gateway at a moment, and starts it again.
func (e *enrolRun) killWhen(ctx context.Context, due func() bool) error {
	if err := untilEvery(ctx, time.Millisecond, due); err != nil {
		return err
	}
	e.alpha.Kill()
	e.r.Kills++
	if e.plan.forget {
		if err := errors.Join(e.bravo.Stop(), e.bravo.Run(ctx)); err != nil {
			return err
		}
	}
	return e.alpha.Run(ctx)
}

// An enrolMail is who writes to whom.
type enrolMail struct{ from, to string }

// pass sends mails over so many sessions at once, as a mail server does: what got no 250 is sent again, until all are at the
// destination. Accepted, if there is one, counts.
func (e *enrolRun) pass(ctx context.Context, mails []enrolMail, parallel int, accepted *atomic.Int64) error {
	ctx, cancel := context.WithTimeout(ctx, passWait)
	defer cancel()
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, parallel)
	ids := make([][]int64, parallel)
	for i := range parallel {
		wg.Go(func() {
			s := enrolSender{run: e}
			defer s.hangUp()
			for n := next.Add(1) - 1; n < int64(len(mails)) && errs[i] == nil; n = next.Add(1) - 1 {
				var id int64
				id, errs[i] = s.send(ctx, mails[n])
				ids[i] = append(ids[i], id)
				if accepted != nil {
					accepted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	missing := slices.Concat(ids...)
	return untilEvery(ctx, 2*time.Millisecond, func() bool {
		missing = slices.DeleteFunc(missing, func(id int64) bool { return e.counted.copies(id) > 0 })
		return len(missing) == 0
	})
}

// An enrolSender is a session of a mail server that sends, opened anew when it broke.
type enrolSender struct {
	run *enrolRun
	c   *testpeer.SMTPClient
}

func (s *enrolSender) hangUp() {
	if s.c != nil {
		s.c.Close()
	}
}

// send sends one mail until it is accepted, and returns its number.
func (s *enrolSender) send(ctx context.Context, m enrolMail) (int64, error) {
	id, octets := s.run.load.mail(m.from, m.to)
	state := &sending{}
	s.run.mu.Lock()
	s.run.sent[id] = state
	s.run.mu.Unlock()
	for ctx.Err() == nil {
		if s.c == nil {
			c, err := testpeer.DialSMTP(ctx, s.run.Alpha.DX+":2525")
			if err != nil { // it is down
				pause(ctx, 20*time.Millisecond)
				continue
			}
			s.c = c
		}
		err := s.c.Send(m.from, []string{m.to}, octets)
		if err == nil {
			return id, nil
		}
		s.hangUp()
		s.c = nil
		if strings.HasPrefix(err.Error(), "end of data") {
			state.cut++
		}
		s.run.mu.Lock()
		s.run.r.Retried++
		s.run.mu.Unlock()
	}
	return id, fmt.Errorf("a mail of %s was not accepted: %w", m.from, context.Cause(ctx))
}

// stranger connects to alpha's port for other organisations, and believes its certificate.
func (e *enrolRun) stranger(ctx context.Context, c *dmtpclient.Client) (*dmtpclient.Conn, error) {
	return c.Connect(ctx, dmtpclient.Target{Domain: "alpha.test", Hosts: []dmtpclient.Host{{Name: "dx.alpha.test"}},
		Verify: func(context.Context, string, tls.ConnectionState) error { return nil }})
}

func (e *enrolRun) strangers() *dmtpclient.Client {
	return dmtpclient.New(dmtpclient.Options{Hello: "stranger.test", Permit: dmtpclient.Anywhere, NegativeTTL: -1,
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			a, err := netip.ParseAddr(e.Alpha.DX)
			return []netip.Addr{a}, err
		}})
}

// ask asks for the signets of the users of the storm, the last first, until ctx ends, whatever becomes of the gateway.
func (e *enrolRun) ask(ctx context.Context, first int) {
	client := e.strangers()
	defer client.Close()
	var conn *dmtpclient.Conn
	for i := e.plan.users - 1; i >= 0 && ctx.Err() == nil; i-- {
		if conn == nil {
			c, err := e.stranger(ctx, client)
			if err != nil {
				pause(ctx, 20*time.Millisecond)
				continue
			}
			conn = c
		}
		if _, err := conn.Signet(ctx, enrolAuthor(first+i)); err != nil {
			conn.Close()
			conn = nil
			continue
		}
		e.r.Asked++
	}
	if conn != nil {
		conn.Close()
	}
}

// measure compares, round by round, first mails with second ones.
func (e *enrolRun) measure(ctx context.Context) error {
	var first, warm, ratios enrolSides
	stop := func() error { return nil }
	if e.plan.profiles != "" {
		stop = e.profileBoth(ctx)
	}
	for range e.plan.rounds {
		var mails []enrolMail
		for i := range e.plan.perRound {
			mails = append(mails, enrolMail{enrolAuthor(e.r.Users + i), enrolRecipient(i)})
		}
		e.r.Users += len(mails)
		a, err := e.cost(ctx, mails)
		if err != nil {
			return err
		}
		b, err := e.cost(ctx, mails)
		if err != nil {
			return err
		}
		first.add(a.PerSecond, a.Origin, a.Destination)
		warm.add(b.PerSecond, b.Origin, b.Destination)
		ratios.add(b.PerSecond/a.PerSecond, a.Origin/b.Origin, (a.Origin+a.Destination)/(b.Origin+b.Destination))
	}
	c := &e.r.Cost
	c.First, c.Warm = first.medians(), warm.medians()
	m := ratios.medians()
	c.Time, c.Origin, c.Both = m.PerSecond, m.Origin, m.Destination
	c.WithinGoal = max(c.Time, c.Origin, c.Both) <= enrolGoal
	return stop()
}

// enrolSides are the same three figures of several rounds.
type enrolSides [3][]float64

func (s *enrolSides) add(values ...float64) {
	for i, v := range values {
		s[i] = append(s[i], v)
	}
}

func (s *enrolSides) medians() enrolSide {
	return enrolSide{PerSecond: median(s[0]), Origin: median(s[1]), Destination: median(s[2])}
}

// cost sends mails over as many sessions as a mail server would, and tells what they took.
func (e *enrolRun) cost(ctx context.Context, mails []enrolMail) (s enrolSide, err error) {
	used := func() (origin, destination time.Duration, err error) {
		origin, err = familyTime([]int{e.alpha.Pid()})
		if err == nil {
			destination, err = familyTime([]int{e.bravo.Pid()})
		}
		return origin, destination, err
	}
	o, d, err := used()
	if err != nil {
		return s, err
	}
	began := time.Now()
	if err := e.pass(ctx, mails, sessions, nil); err != nil {
		return s, err
	}
	took := time.Since(began)
	o2, d2, err := used()
	each := func(d time.Duration) float64 { return max(d, clockTick).Seconds() * 1000 / float64(len(mails)) }
	return enrolSide{PerSecond: float64(len(mails)) / took.Seconds(), Origin: each(o2 - o), Destination: each(d2 - d)}, err
}

// profileBoth writes where both gateways' processors are from now on, and returns what waits for that.
func (e *enrolRun) profileBoth(ctx context.Context) func() error {
	results := make(chan error, 2)
	for _, g := range []*Gateway{e.alpha, e.bravo} {
		go func() {
			b, err := g.profile(ctx, "profile?seconds=8")
			if err == nil {
				err = errors.Join(os.MkdirAll(e.plan.profiles, 0o755), os.WriteFile(filepath.Join(e.plan.profiles, g.org.Name+"-enrol.pprof"), b, 0o644))
			}
			results <- err
		}()
	}
	return func() error { return errors.Join(<-results, <-results) }
}

// count counts keys in the vault, signets from outside, and mails at the destination.
func (e *enrolRun) count(ctx context.Context) error {
	for id, s := range e.sent {
		e.r.Mails++
		switch n := e.counted.copies(id); {
		case n == 0:
			e.r.Lost++
		case n > 1 && n <= 1+s.cut:
			e.r.Cut++
			fallthrough
		case n == 1:
			e.r.Delivered++
		default:
			e.r.Delivered++
			e.r.Twice++
		}
	}
	ids, generations, err := e.vaultKeys(ctx)
	e.r.Keys, e.r.Generations = len(ids), generations
	if err != nil {
		return err
	}
	if err := e.outside(ctx, ids); err != nil {
		return err
	}
	if e.r.KeyLeaves, err = e.keyLeaves(ctx); err != nil {
		e.r.Why = append(e.r.Why, err.Error())
	}
	e.r.Verified = err == nil
	out, err := e.alpha.Command(ctx, "audit", "reconcile", "--json", "--config", e.alpha.Config)
	var found struct {
		Missing int `json:"missing_count"`
	}
	if jerr := json.Unmarshal([]byte(out), &found); jerr != nil {
		return errors.Join(jerr, err)
	}
	e.r.Missing = found.Missing
	return nil
}

// keysSince counts the generations of keys beyond those of so many users; a user with two counts twice.
func (e *enrolRun) keysSince(ctx context.Context, users int) (int, error) {
	_, generations, err := e.vaultKeys(ctx)
	return generations - users, err
}

// vaultKeys counts what "gateway keys list" shows: the signets' ID fingerprints by address, and the generations of them all.
func (e *enrolRun) vaultKeys(ctx context.Context) (ids map[string]string, generations int, err error) {
	out, err := e.alpha.Command(ctx, "keys", "list", "--json", "--config", e.alpha.Config, "alpha.test")
	if err != nil {
		return nil, 0, err
	}
	ids = map[string]string{}
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var row struct {
			Name, Kind, Signet string
			Number             int
		}
		if err := d.Decode(&row); errors.Is(err, io.EOF) {
			return ids, generations, nil
		} else if err != nil {
			return nil, 0, err
		}
		if row.Kind == "user" {
			ids[row.Name] = row.Signet
			generations += row.Number
		}
	}
}

// askedPerSession is how many users a stranger asks for on one connection: a server ends it after a hundred look-ups.
const askedPerSession = 40

// outside asks for every user's signet and history as a stranger.
func (e *enrolRun) outside(ctx context.Context, ids map[string]string) error {
	client := e.strangers()
	defer client.Close()
	for first := 0; first < e.r.Users; first += askedPerSession {
		conn, err := e.stranger(ctx, client)
		if err != nil {
			return err
		}
		for i := first; i < min(first+askedPerSession, e.r.Users) && err == nil; i++ {
			err = e.outsideOne(ctx, conn, enrolAuthor(i), ids)
		}
		if err = errors.Join(err, conn.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (e *enrolRun) outsideOne(ctx context.Context, conn *dmtpclient.Conn, address string, ids map[string]string) error {
	octets, err := conn.Signet(ctx, address)
	if err != nil {
		return err
	}
	s, err := signet.Parse(octets)
	if err != nil {
		return err
	}
	id, err := s.Fingerprint(signet.ID)
	if err != nil {
		return err
	}
	if s.Name() == address && id.String() == ids[address] {
		e.r.Signets++
	}
	chain, err := conn.History(ctx, address, id, nil)
	if len(chain) == 1 {
		e.r.Chains++
	}
	return err
}

// keyLeaves verifies alpha's log and counts its leaves about keys that were made.
func (e *enrolRun) keyLeaves(ctx context.Context) (int, error) {
	out, err := e.alpha.Command(ctx, "audit", "verify", "--json", "--config", e.alpha.Config)
	var found struct {
		Leaves map[string]int `json:"leaves"`
	}
	if jerr := json.Unmarshal([]byte(out), &found); jerr != nil {
		return 0, errors.Join(jerr, err)
	}
	return found.Leaves["key made"], err
}
