package spool_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/spool"
	"dimegate/bridge/queue"
	"dimegate/internal/testvault"
	"dimegate/vault"
	"dimegate/vault/audit"
)

const canary = "the merger closes on Friday"

// The crash tests run this test binary again as a gateway of their own and end it by SIGKILL. The child says on its output
// what it promised ("accepted N") and where it is ("at POINT"); it delivers by appending to a file that it syncs.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SPOOL_CHILD"); dir != "" {
		child(testvault.Vault{Dir: filepath.Join(dir, "vault"), Keys: filepath.Join(dir, "keys")}, os.Getenv("SPOOL_STOP_AT"))
		return
	}
	os.Exit(m.Run())
}

// points are where a child can be made to stop and wait for its end: on both sides of everything that is durable.
var points = []string{
	"draft written", "before accept", "accept kept", "before claim", "claim kept", "before built", "built kept",
	"before delivery", "delivered", "before change", "change kept", "refused",
}

// A stopper stops the child at a point, for ever.
type stopper struct {
	at   string
	skip int
}

func (s *stopper) reach(point string) {
	if point != s.at {
		return
	}
	if s.skip--; s.skip >= 0 {
		return
	}
	fmt.Println("at", point)
	select {}
}

// child accepts messages for ever and delivers them.
func child(disk testvault.Vault, stopAt string) {
	stop := &stopper{at: stopAt, skip: 2}
	t := &noTest{}
	v := disk.Open(t, vault.Options{})
	q := queue.New(store{spool.Store{Vault: v}, stop}, queue.Options{Workers: 3, Schedule: []time.Duration{time.Millisecond}, Poll: 100 * time.Millisecond})
	out, err := os.OpenFile(filepath.Join(filepath.Dir(disk.Dir), "delivered"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- q.Run(ctx, mailbox{out, stop}, mailbox{out, stop}) }()
	if stopAt != "drain" {
		accept(q)
	}
	for {
		if l, err := q.List(ctx, "", "", 1); err == nil && len(l) == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	<-done
	v.Close()
	fmt.Println("drained")
}

// accept goes on until the process is killed. Every tenth message is large.
func accept(q *queue.Queue) {
	start := time.Now().UnixNano()
	for i := 0; ; i++ {
		name := fmt.Sprintf("%d-%d", start, i)
		body := canary + "\r\n" + name + "\r\n"
		if i%10 == 3 {
			body += strings.Repeat(canary, 6000)
		}
		env := queue.Envelope{ReversePath: "alice@x.example", Recipients: []queue.Recipient{{Address: name + "@y.example"}, {Address: name + "@z.example"}}}
		if _, err := q.Accept(context.Background(), env, strings.NewReader(body)); err != nil {
			panic(err)
		}
		fmt.Println("accepted", name)
	}
}

// A mailbox is the other side: what it says yes to is in the file.
type mailbox struct {
	f    *os.File
	stop *stopper
}

func (m mailbox) Deliver(ctx context.Context, it *queue.Item) (queue.Result, error) {
	name, domain, _ := strings.Cut(it.Recipient.Address, "@")
	n, err := strconv.Atoi(name[strings.LastIndex(name, "-")+1:])
	if err != nil {
		return queue.Result{}, err
	}
	if domain == "z.example" && n%5 == 4 && it.Attempt == 1 {
		return queue.Result{Class: queue.Remote, Code: 451}, nil
	}
	body, err := it.Body(ctx)
	if err != nil {
		return queue.Result{}, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil || !bytes.HasPrefix(text, []byte(canary+"\r\n"+name+"\r\n")) {
		return queue.Result{}, fmt.Errorf("not its body: %w", err)
	}
	if domain == "z.example" && n%7 == 6 {
		m.stop.reach("refused")
		return queue.Result{Class: queue.Permanent, Code: 510}, nil
	}
	built, err := it.Built(ctx)
	if errors.Is(err, queue.ErrNoBuilt) {
		octets := fmt.Append(nil, "built ", it.ID, " ", rand.Uint64(), strings.Repeat(" pad", 10*n%40_000))
		if err = it.SaveBuilt(ctx, octets, queue.Decision{Leg: "dmtp", Rule: "test"}); err != nil {
			return queue.Result{}, err
		}
		built, err = it.Built(ctx)
	}
	if err != nil {
		return queue.Result{}, err
	}
	defer built.Close()
	sent, err := io.ReadAll(built)
	if err != nil {
		return queue.Result{}, err
	}
	m.stop.reach("before delivery")
	if _, err := fmt.Fprintf(m.f, "%s %s\n", it.Recipient.Address, strings.Fields(string(sent))[2]); err != nil {
		return queue.Result{}, err
	}
	if err := m.f.Sync(); err != nil {
		return queue.Result{}, err
	}
	m.stop.reach("delivered")
	return queue.Result{Class: queue.Done, Code: 254}, nil
}

func (m mailbox) Notify(_ context.Context, n queue.Mail) error {
	_, after, _ := strings.Cut(string(n.Octets), "Final-Recipient: rfc822; ")
	to, _, _ := strings.Cut(after, "\r\n")
	if _, err := fmt.Fprintf(m.f, "%s notice\n", to); err != nil {
		return err
	}
	return m.f.Sync()
}

// A store reaches points around what is durable.
type store struct {
	queue.Store
	stop *stopper
}

func (s store) Begin(ctx context.Context) (queue.Draft, error) {
	d, err := s.Store.Begin(ctx)
	return draft{d, s.stop}, err
}

func (s store) Claim(ctx context.Context, w []queue.Want, now, lease time.Time) ([]queue.Claim, error) {
	s.stop.reach("before claim")
	c, err := s.Store.Claim(ctx, w, now, lease)
	s.stop.reach("claim kept")
	return c, err
}

func (s store) Open(ctx context.Context, r queue.Row) (queue.Entry, error) {
	e, err := s.Store.Open(ctx, r)
	return entry{e, s.stop}, err
}

type draft struct {
	queue.Draft
	stop *stopper
}

func (d draft) Accept(ctx context.Context, envelope []byte, rows []queue.NewRow, now time.Time) (queue.Receipt, error) {
	d.stop.reach("draft written")
	d.stop.reach("before accept")
	r, err := d.Draft.Accept(ctx, envelope, rows, now)
	d.stop.reach("accept kept")
	return r, err
}

type entry struct {
	queue.Entry
	stop *stopper
}

func (e entry) SaveBuilt(ctx context.Context, octets []byte, l []queue.Leaf, x []queue.Exhibit, now time.Time) error {
	e.stop.reach("before built")
	err := e.Entry.SaveBuilt(ctx, octets, l, x, now)
	e.stop.reach("built kept")
	return err
}

func (e entry) Change(ctx context.Context, c queue.Change, now time.Time) error {
	e.stop.reach("before change")
	err := e.Entry.Change(ctx, c, now)
	e.stop.reach("change kept")
	return err
}

// noTest is a testing.TB for the child, where a fault is the end.
type noTest struct{ testing.TB }

func (*noTest) Helper()                  {}
func (*noTest) Cleanup(func())           {}
func (*noTest) Fatal(args ...any)        { panic(fmt.Sprint(args...)) }
func (*noTest) Context() context.Context { return context.Background() }

// A crash is one series of children on one disk.
type crash struct {
	t        *testing.T
	dir      string
	accepted map[string]bool
}

func newCrash(t *testing.T) *crash {
	c := &crash{t: t, dir: t.TempDir(), accepted: map[string]bool{}}
	v := testvault.New(t)
	for _, move := range [][2]string{{v.Dir, "vault"}, {v.Keys, "keys"}} {
		if err := os.Rename(move[0], filepath.Join(c.dir, move[1])); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// run starts a child and kills it: at once when it says that it is at the point, or a while after the first message that
// it accepted. With the point "drain" it waits for the child to finish.
func (c *crash) run(point string, after time.Duration) {
	c.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SPOOL_CHILD="+c.dir, "SPOOL_STOP_AT="+point)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	kill := time.AfterFunc(time.Hour, func() { cmd.Process.Kill() })
	defer kill.Stop()
	watchdog := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	reached := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "accepted":
			c.accepted[rest] = true
			if after > 0 && !reached {
				kill.Reset(after)
				reached = true
			}
		case "at":
			reached = true
			cmd.Process.Kill()
		case "drained":
			reached = true
		}
	}
	err = cmd.Wait()
	if !reached || point == "drain" && err != nil {
		c.t.Fatalf("child to %q: %v\n%s", point, err, stderr.String())
	}
}

// check drains what is left and holds the deliveries against what was promised. It returns how many entries were delivered
// more than once.
func (c *crash) check() (duplicates int) {
	c.t.Helper()
	c.run("drain", 0)
	b, err := os.ReadFile(filepath.Join(c.dir, "delivered"))
	if err != nil {
		c.t.Fatal(err)
	}
	got := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		to, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[to] = append(got[to], what)
	}
	lost := 0
	for name := range c.accepted {
		for _, to := range []string{name + "@y.example", name + "@z.example"} {
			if len(got[to]) == 0 {
				lost++
			}
		}
	}
	for to, list := range got {
		for _, what := range list[1:] {
			duplicates++
			if what != list[0] {
				c.t.Errorf("%s was sent as %v: other octets at another try", to, list)
			}
		}
	}
	if lost > 0 {
		c.t.Errorf("%d of %d lost", lost, 2*len(c.accepted))
	}
	disk := testvault.Vault{Dir: filepath.Join(c.dir, "vault"), Keys: filepath.Join(c.dir, "keys")}
	v := disk.Open(c.t, vault.Options{})
	defer v.Close()
	r, err := audit.Verify(c.t.Context(), v, "", nil)
	if err != nil {
		c.t.Error(err)
	}
	n := func(t vault.LeafType) int64 { return r.Types[t] }
	if in, out := n(vault.LeafRecipient), n(vault.LeafDelivered)+n(vault.LeafFailed); in != out || n(vault.LeafFailed) != n(vault.LeafNotice) {
		c.t.Errorf("the log: %d recipients, %d delivered, %d failed, %d told", in, n(vault.LeafDelivered), n(vault.LeafFailed), n(vault.LeafNotice))
	}
	if files, err := os.ReadDir(filepath.Join(disk.Dir, "bodies")); err != nil || len(files) != 0 {
		c.t.Errorf("%d body files left, %v", len(files), err)
	}
	return duplicates
}

// TestKilledAtEachPoint: SIGKILL on both sides of everything that is durable.
func TestKilledAtEachPoint(t *testing.T) {
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			c := newCrash(t)
			for range 3 {
				c.run(point, 0)
			}
			duplicates := c.check()
			t.Logf("%d accepted, %d duplicates", len(c.accepted), duplicates)
			// Between delivery and its note a copy can come again: at each kill, one for each worker.
			if most := 9; duplicates > most {
				t.Errorf("%d duplicates", duplicates)
			}
		})
	}
}

// TestKilledAnywhere: SIGKILL at random moments, many in the middle of a commit.
func TestKilledAnywhere(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 5
	}
	c := newCrash(t)
	for range rounds {
		c.run("", time.Millisecond+rand.N(200*time.Millisecond))
	}
	duplicates := c.check()
	t.Logf("%d kills, %d messages accepted, %d duplicates", rounds, len(c.accepted), duplicates)
	if duplicates > 3*rounds {
		t.Errorf("%d duplicates", duplicates)
	}
	if len(c.accepted) < rounds {
		t.Errorf("only %d messages: the test tests little", len(c.accepted))
	}
}
