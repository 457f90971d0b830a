package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"dimegate/appliance/spool"
	"dimegate/bridge/queue"
	"dimegate/internal/testvault"
	"dimegate/vault"
)

const canary = "the merger closes on Friday"

// message is a message of at least n octets that holds the canary.
func message(n int) string {
	head := "From: Alice <alice@x.example>\r\nTo: bob@y.example\r\nSubject: " + canary + "\r\n\r\n"
	return head + strings.Repeat(canary+"\r\n", 1+n/(len(canary)+2))
}

func envelope(to ...string) queue.Envelope {
	e := queue.Envelope{ReversePath: "alice@x.example", Body: queue.Body8BitMIME, EnvelopeID: "QQ314159", Peer: "192.0.2.1"}
	for _, a := range to {
		e.Recipients = append(e.Recipients, queue.Recipient{Address: a})
	}
	return e
}

// A world is a queue on a real store with a deliverer and a notifier that do as they are told.
type world struct {
	*queue.Queue
	t     *testing.T
	disk  testvault.Vault
	vault *vault.Vault
	opts  queue.Options
	start time.Time

	mu      sync.Mutex
	deliver func(context.Context, *queue.Item) (queue.Result, error)
	tries   map[string][]time.Duration // recipient: when, since start
	notices []queue.Mail
	notify  func(queue.Mail) error

	stop context.CancelFunc
	done chan error
}

// newWorld makes one; nothing runs yet. Its schedule has no jitter.
func newWorld(t *testing.T, o queue.Options) *world {
	t.Helper()
	w := &world{t: t, disk: testvault.New(t), opts: o, start: time.Now(), tries: map[string][]time.Duration{}}
	w.opts.Hostname, w.opts.Postmaster = "gw.x.example", "postmaster@x.example"
	if w.opts.Poll == 0 {
		w.opts.Poll = time.Hour
	}
	if w.opts.Rand == nil {
		w.opts.Rand = func(time.Duration) time.Duration { return 0 }
	}
	w.open()
	t.Cleanup(w.halt)
	return w
}

func (w *world) open() {
	w.vault = w.disk.Open(w.t, vault.Options{})
	w.Queue = queue.New(spool.Store{Vault: w.vault}, w.opts)
}

// run starts Run; halt ends it.
func (w *world) run(deliver func(context.Context, *queue.Item) (queue.Result, error)) {
	w.deliver = deliver
	ctx, cancel := context.WithCancel(w.t.Context())
	w.stop, w.done = cancel, make(chan error, 1)
	go func() { w.done <- w.Run(ctx, w, w) }()
}

func (w *world) halt() {
	if w.stop == nil {
		return
	}
	w.stop()
	if err := <-w.done; err != nil {
		w.t.Errorf("Run: %v", err)
	}
	w.stop = nil
}

// restart is a new process on the same disk.
func (w *world) restart() {
	w.halt()
	w.vault.Close()
	w.open()
}

func (w *world) Deliver(ctx context.Context, it *queue.Item) (queue.Result, error) {
	w.mu.Lock()
	to := it.Recipient.Address
	w.tries[to] = append(w.tries[to], time.Since(w.start).Round(time.Second))
	deliver := w.deliver
	w.mu.Unlock()
	return deliver(ctx, it)
}

func (w *world) Notify(_ context.Context, m queue.Mail) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notify != nil {
		if err := w.notify(m); err != nil {
			return err
		}
	}
	w.notices = append(w.notices, m)
	return nil
}

// told returns the notices so far, tried when each recipient's copy was tried.
func (w *world) told() []queue.Mail {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.notices)
}

func (w *world) tried() map[string][]time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	tries := map[string][]time.Duration{}
	for to, list := range w.tries {
		tries[to] = slices.Clone(list)
	}
	return tries
}

func (w *world) accept(env queue.Envelope, body string) queue.Receipt {
	w.t.Helper()
	r, err := w.Accept(w.t.Context(), env, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) list() []queue.Info {
	w.t.Helper()
	l, err := w.List(w.t.Context(), "", "", 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// leaves counts the log's leaves by type.
func (w *world) leaves() string {
	w.t.Helper()
	ls, err := w.vault.LogLeaves(w.t.Context(), 0, 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	count := map[string]int{}
	for _, b := range ls {
		l, err := vault.ParseLeaf(b)
		if err != nil {
			w.t.Fatal(err)
		}
		count[l.Type.String()]++
	}
	var out []string
	for k, n := range count {
		out = append(out, fmt.Sprintf("%d %s", n, k))
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(a[strings.Index(a, " "):], b[strings.Index(b, " "):]) })
	return strings.Join(out, ", ")
}

// always returns one result.
func always(r queue.Result) func(context.Context, *queue.Item) (queue.Result, error) {
	return func(context.Context, *queue.Item) (queue.Result, error) { return r, nil }
}

var delivered = queue.Result{Class: queue.Done, Code: 254, Host: "dx.y.example", Protocol: "dmtp"}

func TestAcceptAndDeliver(t *testing.T) {
	for _, size := range []int{0, 100, 60_000, 300_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, queue.Options{})
				body := message(size)
				env := envelope("bob@y.example", "Carol@Z.example")
				env.SMTPUTF8, env.RequireTLS, env.Return = true, size == 0, queue.ReturnHeaders
				env.Recipients[0].Notify, env.Recipients[0].Original = queue.NotifyFailure, "rfc822;bob@y.example"
				r, err := w.Accept(t.Context(), env, iotest.HalfReader(strings.NewReader(body)))
				if err != nil || len(r.Entries) != 2 || r.Record == "" {
					t.Fatalf("%+v, %v", r, err)
				}
				list := w.list()
				if len(list) != 2 || list[0].Domain == list[1].Domain || list[0].ID == list[1].ID || list[0].Octets != int64(len(body)) || list[0].State != "waiting" {
					t.Errorf("queue: %+v", list)
				}
				grep(t, w.disk.Dir, canary, "alice", "bob@y", "Carol")
				env.Received = w.start
				var mu sync.Mutex
				seen := map[string]bool{}
				w.run(func(ctx context.Context, it *queue.Item) (queue.Result, error) {
					rc, err := it.Body(ctx)
					if err != nil {
						return queue.Result{}, err
					}
					defer rc.Close()
					got, err := io.ReadAll(rc)
					if err != nil || string(got) != body {
						t.Errorf("body of %d octets: %d, %v", len(body), len(got), err)
					}
					if a, b := fmt.Sprint(it.Envelope), fmt.Sprint(env); a[strings.Index(a, "}"):] != b[strings.Index(b, "}"):] {
						t.Errorf("envelope %s, want %s", a, b)
					}
					if it.Attempt != 1 || it.Octets != int64(len(body)) {
						t.Errorf("attempt %d, %d octets", it.Attempt, it.Octets)
					}
					mu.Lock()
					defer mu.Unlock()
					seen[it.Recipient.Address] = true
					return delivered, it.Decide(ctx, queue.Decision{Leg: "dmtp", Rule: "verified"})
				})
				synctest.Wait()
				if len(seen) != 2 || len(w.list()) != 0 {
					t.Errorf("delivered to %v, %d left", seen, len(w.list()))
				}
				if got, want := w.leaves(), "2 decision, 2 delivered, 1 intake, 2 recipient"; got != want {
					t.Errorf("log: %s, want %s", got, want)
				}
				if files, err := os.ReadDir(filepath.Join(w.disk.Dir, "bodies")); err != nil || len(files) != 0 {
					t.Errorf("left behind: %v, %v", files, err)
				}
				grep(t, w.disk.Dir, canary, "alice", "bob@y", "Carol")
			})
		})
	}
}

// grep fails when a file under dir holds one of the words.
func grep(t *testing.T, dir string, words ...string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, word := range words {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%s holds %q", filepath.Base(path), word)
			}
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
}

func TestAcceptRefusals(t *testing.T) {
	w := newWorld(t, queue.Options{})
	broken := errors.New("connection lost")
	tests := map[string]struct {
		env  func(*queue.Envelope)
		body io.Reader
		want error
	}{
		"no recipient":         {func(e *queue.Envelope) { e.Recipients = nil }, strings.NewReader(""), queue.ErrEnvelope},
		"no domain":            {func(e *queue.Envelope) { e.Recipients[0].Address = "bob" }, strings.NewReader(""), queue.ErrEnvelope},
		"line in a recipient":  {func(e *queue.Envelope) { e.Recipients[0].Address = "b\r\n@y.example" }, strings.NewReader(""), queue.ErrEnvelope},
		"line in ENVID":        {func(e *queue.Envelope) { e.EnvelopeID = "a\nb" }, strings.NewReader(""), queue.ErrEnvelope},
		"long reverse-path":    {func(e *queue.Envelope) { e.ReversePath = strings.Repeat("a", 2000) }, strings.NewReader(""), queue.ErrEnvelope},
		"never and more":       {func(e *queue.Envelope) { e.Recipients[0].Notify = queue.NotifyNever | queue.NotifyDelay }, strings.NewReader(""), queue.ErrEnvelope},
		"body breaks":          {nil, io.MultiReader(strings.NewReader(message(100)), iotest.ErrReader(broken)), broken},
		"body breaks when big": {nil, io.MultiReader(strings.NewReader(message(200_000)), iotest.ErrReader(broken)), broken},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			env := envelope("bob@y.example")
			if tt.env != nil {
				tt.env(&env)
			}
			if _, err := w.Accept(t.Context(), env, tt.body); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if l := w.list(); len(l) != 0 {
				t.Errorf("kept %+v", l)
			}
			if files, err := os.ReadDir(filepath.Join(w.disk.Dir, "bodies")); err != nil || len(files) != 0 {
				t.Errorf("left behind: %v, %v", files, err)
			}
		})
	}
	if got := w.leaves(); got != "" {
		t.Errorf("log: %s", got)
	}
}

// A judge is asked about a message that was read to its end. What he refuses is not kept; what he wants held is not tried until it is
// released.
func TestAcceptJudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{})
		w.run(always(queue.Result{Class: queue.Done}))
		read, refused := false, errors.New("virus")
		body := io.MultiReader(strings.NewReader(message(100)), eof(func() { read = true }))
		if _, err := w.AcceptJudged(t.Context(), envelope("bob@y.example"), body, func() (string, error) { return "", refused }); !errors.Is(err, refused) || !read {
			t.Errorf("refused: %v, read: %v", err, read)
		}
		if l := w.list(); len(l) != 0 {
			t.Errorf("kept %+v", l)
		}
		r, err := w.AcceptJudged(t.Context(), envelope("bob@y.example"), strings.NewReader(message(100)), func() (string, error) { return "scanner", nil })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(hours(24 * 30))
		synctest.Wait()
		if l := w.list(); len(l) != 1 || l[0].State != "held" || l[0].Held != "scanner" || l[0].Attempts != 0 || len(w.tried()) != 0 {
			t.Errorf("held: %+v, tried %v", l, w.tried())
		}
		if err := w.Release(t.Context(), r.Entries[0]); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if l := w.list(); len(l) != 0 || len(w.tried()) != 1 {
			t.Errorf("released: %+v, tried %v", l, w.tried())
		}
	})
}

// eof is an empty reader that tells when it is read.
type eof func()

func (f eof) Read([]byte) (int, error) { f(); return 0, io.EOF }

func hours(h float64) time.Duration { return time.Duration(h * float64(time.Hour)) }

// TestSchedule: five days of a peer that is away. Tries come as OC-41 says, with one more when the sender is told of the
// delay (which falls into a quarter of an hour of the destination's rest) and a last one at the very end; then he is told
// that it failed.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{Poll: 24 * time.Hour})
		w.accept(envelope("bob@y.example"), message(10))
		w.run(always(queue.Result{Class: queue.Network, Reason: "no route"}))
		time.Sleep(hours(3.9))
		synctest.Wait()
		if n := len(w.told()); n != 0 {
			t.Errorf("%d notices before four hours", n)
		}
		time.Sleep(hours(0.4))
		synctest.Wait()
		if n := len(w.told()); n != 1 || !bytes.Contains(w.told()[0].Octets, []byte("Action: delayed")) {
			t.Errorf("%d notices after four hours", n)
		}
		time.Sleep(hours(130))
		synctest.Wait()
		m := time.Minute
		want := []time.Duration{0, m, 6 * m, 21 * m, 51 * m, 111 * m, 231 * m, 246 * m}
		for d := 486 * m; d < 120*time.Hour; d += 240 * m {
			want = append(want, d)
		}
		want = append(want, 120*time.Hour)
		if got := w.tried()["bob@y.example"]; !slices.Equal(got, want) {
			t.Errorf("tries at %v,\nwant %v", got, want)
		}
		if len(w.told()) != 2 || !bytes.Contains(w.told()[1].Octets, []byte("Action: failed\r\nStatus: 4.4.7\r\n")) {
			t.Errorf("%d notices", len(w.told()))
		}
		if l := w.list(); len(l) != 0 {
			t.Errorf("left: %+v", l)
		}
		if got, want := w.leaves(), "1 failed, 1 intake, 1 notice, 1 recipient"; got != want {
			t.Errorf("log: %s, want %s", got, want)
		}
	})
}

func TestJitter(t *testing.T) {
	o := queue.Options{Schedule: []time.Duration{time.Minute, 10 * time.Minute}}
	r := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	o.Rand = func(d time.Duration) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(r.Int64N(int64(d)))
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, o)
		for i := range 20 {
			w.accept(envelope(fmt.Sprintf("u%d@y%d.example", i, i)), message(10))
		}
		w.run(always(queue.Result{Class: queue.Remote, Code: 451}))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		w.halt()
		different := map[time.Duration]bool{}
		for _, tries := range w.tried() {
			if len(tries) != 2 || tries[1] < time.Minute || tries[1] > 66*time.Second {
				t.Errorf("tries at %v", tries)
				continue
			}
			different[tries[1]] = true
		}
		if len(different) < 3 {
			t.Errorf("all came back together: %v", different)
		}
	})
}

// TestClasses: what each result does to an entry within six days, one row a case.
func TestClasses(t *testing.T) {
	r := func(c queue.Class, more ...func(*queue.Result)) queue.Result {
		res := queue.Result{Class: c, Code: 451, Text: "later", Host: "dx.y.example", Protocol: "dmtp"}
		for _, f := range more {
			f(&res)
		}
		return res
	}
	status := func(s string) func(*queue.Result) { return func(r *queue.Result) { r.Status = s } }
	life := func(h float64) func(*queue.Result) { return func(r *queue.Result) { r.Life = hours(h) } }
	wait := func(d time.Duration) func(*queue.Result) { return func(r *queue.Result) { r.MinDelay = d } }
	tests := map[string]struct {
		results []queue.Result // the last repeats
		tries   []time.Duration
		last    time.Duration // of the last try, when tries is nil
		ends    string        // status of the notice, "" for none, "held"
	}{
		"done":               {[]queue.Result{delivered}, []time.Duration{0}, 0, ""},
		"permanent":          {[]queue.Result{r(queue.Permanent, status("5.1.1"))}, []time.Duration{0}, 0, "5.1.1"},
		"permanent, bare":    {[]queue.Result{r(queue.Permanent)}, []time.Duration{0}, 0, "5.0.0"},
		"remote, then done":  {[]queue.Result{r(queue.Remote), delivered}, []time.Duration{0, time.Minute}, 0, ""},
		"limits exceeded":    {[]queue.Result{r(queue.Remote, wait(15*time.Minute)), delivered}, []time.Duration{0, 15 * time.Minute}, 0, ""},
		"refresh, then done": {[]queue.Result{r(queue.Refresh), delivered}, []time.Duration{0, 0}, 0, ""},
		"refresh twice":      {[]queue.Result{r(queue.Refresh, status("5.7.5"))}, []time.Duration{0, 0}, 0, "5.7.5"},
		"refresh, later again": {[]queue.Result{r(queue.Refresh), r(queue.Remote), r(queue.Refresh), delivered},
			[]time.Duration{0, 0, 5 * time.Minute, 5 * time.Minute}, 0, ""},
		"protocol":             {[]queue.Result{r(queue.Protocol)}, []time.Duration{0, time.Minute, 6 * time.Minute}, 0, "5.5.0"},
		"protocol, with pause": {[]queue.Result{r(queue.Protocol), r(queue.Protocol), r(queue.Remote), r(queue.Protocol), delivered}, []time.Duration{0, time.Minute, 6 * time.Minute, 21 * time.Minute, 51 * time.Minute}, 0, ""},
		"remote for ever":      {[]queue.Result{r(queue.Remote)}, nil, hours(120), "4.4.7"},
		"trust":                {[]queue.Result{r(queue.Trust)}, nil, hours(72), "5.7.5"},
		"trust, short life":    {[]queue.Result{r(queue.Trust, life(4))}, nil, hours(4), "5.7.5"},
		"trust, long life":     {[]queue.Result{r(queue.Trust, life(120), status("5.7.1"))}, nil, hours(120), "5.7.1"},
		"park":                 {[]queue.Result{r(queue.Park)}, []time.Duration{0}, 0, "held"},
		"park for a day":       {[]queue.Result{r(queue.Park, life(24), status("5.7.1"))}, []time.Duration{0}, 0, "5.7.1"},
		"no result":            {[]queue.Result{{}}, nil, hours(120), "4.4.7"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, queue.Options{DelayNotice: -1, Poll: 24 * time.Hour})
				w.accept(envelope("bob@y.example"), message(10))
				n := 0
				w.run(func(context.Context, *queue.Item) (queue.Result, error) {
					n++
					return tt.results[min(n, len(tt.results))-1], nil
				})
				time.Sleep(hours(144))
				synctest.Wait()
				tries := w.tried()["bob@y.example"]
				if tt.tries != nil && !slices.Equal(tries, tt.tries) {
					t.Errorf("tries at %v, want %v", tries, tt.tries)
				}
				if tt.tries == nil && tries[len(tries)-1] != tt.last {
					t.Errorf("last try after %v, want %v", tries[len(tries)-1], tt.last)
				}
				ends := ""
				for _, m := range w.told() {
					_, after, _ := strings.Cut(string(m.Octets), "\r\nStatus: ")
					ends, _, _ = strings.Cut(after, "\r\n")
				}
				if l := w.list(); len(l) == 1 {
					ends = l[0].State
				}
				if ends != tt.ends || len(w.told()) > 1 {
					t.Errorf("ends with %q, want %q; %d notices", ends, tt.ends, len(w.told()))
				}
			})
		})
	}
}

// TestBuiltStays: what was built is what is sent again, also by the next process, until a refusal asks for a new one.
func TestBuiltStays(t *testing.T) {
	for _, size := range []int{100, 200_000} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, queue.Options{})
			w.accept(envelope("bob@y.example"), message(10))
			var sent [][]byte
			results := []queue.Result{{Class: queue.Network}, {Class: queue.Network}, {Class: queue.Refresh}, delivered}
			deliver := func(ctx context.Context, it *queue.Item) (queue.Result, error) {
				rc, err := it.Built(ctx)
				if errors.Is(err, queue.ErrNoBuilt) {
					built := []byte(fmt.Sprintf("built at try %d %s", it.Attempt, strings.Repeat("x", size)))
					d := queue.Decision{Leg: "dmtp", Rule: "verified"}
					if err := it.SaveBuilt(ctx, built, d); err != nil {
						t.Error(err)
					}
					if err := it.SaveBuilt(ctx, built, d); !errors.Is(err, queue.ErrBuilt) {
						t.Errorf("built twice: %v", err)
					}
					rc, err = it.Built(ctx)
				}
				if err != nil {
					t.Error(err)
					return queue.Result{}, err
				}
				defer rc.Close()
				b, err := io.ReadAll(rc)
				if err != nil {
					t.Error(err)
				}
				sent = append(sent, b)
				return results[len(sent)-1], nil
			}
			w.run(deliver)
			synctest.Wait()
			grep(t, w.disk.Dir, "built at try")
			w.restart()
			w.run(deliver)
			time.Sleep(time.Hour)
			synctest.Wait()
			if len(sent) != 4 || !bytes.Equal(sent[0], sent[1]) || !bytes.Equal(sent[0], sent[2]) || !bytes.HasPrefix(sent[3], []byte("built at try 4")) {
				t.Errorf("sent %.20q", sent)
			}
			if got, want := w.leaves(), "1 decision, 1 delivered, 1 intake, 1 recipient"; got != want {
				t.Errorf("log: %s, want %s", got, want)
			}
			if files, err := os.ReadDir(filepath.Join(w.disk.Dir, "bodies")); err != nil || len(files) != 0 {
				t.Errorf("left behind: %v, %v", files, err)
			}
		})
	}
}

// TestPoison: an entry that panics is held after the fifth time, others pass it.
func TestPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{})
		w.accept(envelope("poison@y.example"), message(10))
		for i := range 20 {
			w.accept(envelope(fmt.Sprintf("u%d@y.example", i)), message(10))
		}
		w.run(func(_ context.Context, it *queue.Item) (queue.Result, error) {
			if strings.HasPrefix(it.Recipient.Address, "poison") {
				panic(canary) // what it says must not be logged
			}
			return delivered, nil
		})
		synctest.Wait()
		if l := w.list(); len(l) != 1 {
			t.Errorf("%d entries wait behind the poison", len(l)-1)
		}
		time.Sleep(hours(3))
		synctest.Wait()
		l := w.list()
		if len(l) != 1 || l[0].State != "held" || l[0].Held != "quarantine" || l[0].Attempts != 5 || len(w.told()) != 0 {
			t.Fatalf("%+v, %d notices", l, len(w.told()))
		}
		if err := w.Release(t.Context(), l[0].ID); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if l := w.list(); len(l) != 1 || l[0].State != "waiting" || l[0].Attempts != 6 {
			t.Errorf("released: %+v", l)
		}
	})
}

// TestQuarantineEnds: what nobody released is bounced when its time is over.
func TestQuarantineEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{})
		w.accept(envelope("poison@y.example"), message(10))
		w.run(func(context.Context, *queue.Item) (queue.Result, error) { panic(canary) })
		time.Sleep(hours(119))
		synctest.Wait()
		if l := w.list(); len(l) != 1 || l[0].Held != "quarantine" || len(w.told()) != 0 {
			t.Fatalf("before its end: %+v, %d notices", l, len(w.told()))
		}
		time.Sleep(hours(2))
		synctest.Wait()
		told := w.told()
		if l := w.list(); len(l) != 0 || len(told) != 1 || !bytes.Contains(told[0].Octets, []byte("Status: 5.3.0")) {
			t.Errorf("after it: %+v, %d notices", l, len(told))
		}
	})
}

// TestFullDiskQuarantinesNothing: mail waits for room, and then leaves.
func TestFullDiskQuarantinesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{})
		w.accept(envelope("bob@y.example"), message(10))
		var tries atomic.Int32
		w.run(func(context.Context, *queue.Item) (queue.Result, error) {
			if tries.Add(1) <= 8 {
				return queue.Result{}, fmt.Errorf("built: %w", queue.ErrFull)
			}
			return delivered, nil
		})
		time.Sleep(hours(20))
		synctest.Wait()
		if l := w.list(); len(l) != 0 {
			t.Errorf("%+v", l)
		}
	})
}

// TestFaults: a fault of ours that strikes one entry while others pass holds it; one that strikes all holds none.
func TestFaults(t *testing.T) {
	for name, one := range map[string]bool{"of one": true, "of all": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, queue.Options{DelayNotice: -1})
				var broken atomic.Bool
				broken.Store(true)
				w.accept(envelope("bad@y.example"), message(10))
				w.run(func(_ context.Context, it *queue.Item) (queue.Result, error) {
					if broken.Load() && (it.Recipient.Address == "bad@y.example" || !one) {
						return queue.Result{}, errors.New("the signing seal is closed")
					}
					return delivered, nil
				})
				for i := range 10 {
					w.accept(envelope(fmt.Sprintf("u%d@y.example", i)), message(10))
					time.Sleep(hours(1))
				}
				l := w.list()
				if one && (len(l) != 1 || l[0].State != "held" || l[0].Held != "quarantine") {
					t.Errorf("%+v", l)
				}
				if !one && len(l) != 11 {
					t.Errorf("%d of 11 left", len(l))
				}
				for _, i := range l {
					if !one && i.State != "waiting" {
						t.Errorf("%+v", i)
					}
				}
				broken.Store(false)
				time.Sleep(hours(5))
				synctest.Wait()
				if l := w.list(); !one && len(l) != 0 {
					t.Errorf("%d left after it was mended", len(l))
				}
			})
		})
	}
}

// TestLostLeases: an entry over which the process dies comes back later each time, and is held at last.
func TestLostLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{})
		r := w.accept(envelope("bob@y.example"), message(10))
		var tries []time.Duration
		for range 12 {
			began := time.Now()
			claimed := false
			for !claimed && time.Since(began) < time.Hour {
				c, err := w.vault.ClaimRows(t.Context(), []vault.Want{{Lane: "y.example", N: 1}}, time.Now(), time.Now().Add(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				if claimed = len(c[0].Rows) == 1; !claimed {
					time.Sleep(time.Until(c[0].Next))
				}
			}
			tries = append(tries, time.Since(began).Round(time.Second))
			w.restart() // with the lease not ended
		}
		if tries[0] != 0 || tries[1] != 0 || tries[2] != time.Second || tries[5] != 16*time.Second {
			t.Errorf("due again after %v", tries)
		}
		w.run(always(delivered))
		time.Sleep(hours(1))
		synctest.Wait()
		if i, err := w.Show(t.Context(), r.Entries[0]); err != nil || i.State != "held" || i.Held != "quarantine" || len(w.tried()) != 0 {
			t.Errorf("%+v, %v, tries %v", i, err, w.tried())
		}
	})
}

// TestWrongClock: an entry that a clock far ahead put off is due again at the next start.
func TestWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{})
		w.opts.Now = func() time.Time { return time.Now().AddDate(1, 0, 0) }
		w.Queue = queue.New(spool.Store{Vault: w.vault}, w.opts)
		w.accept(envelope("bob@y.example"), message(10))
		w.opts.Now = nil
		w.restart()
		w.run(always(delivered))
		synctest.Wait()
		if n := len(w.list()); n != 0 {
			t.Errorf("%d left", n)
		}
	})
}

// TestLimits: never more than Workers and PerDomain at one time, and no destination waits behind another's backlog.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{Workers: 6, PerDomain: 3})
		for i := range 200 {
			w.accept(envelope(fmt.Sprintf("u%d@big.example", i)), message(10))
		}
		for i := range 10 {
			w.accept(envelope(fmt.Sprintf("u@small%d.example", i)), message(10))
		}
		var mu sync.Mutex
		busy, most, mostBig := map[bool]int{}, 0, 0
		w.run(func(_ context.Context, it *queue.Item) (queue.Result, error) {
			big := strings.HasSuffix(it.Recipient.Address, "@big.example")
			mu.Lock()
			busy[big]++
			most, mostBig = max(most, busy[true]+busy[false]), max(mostBig, busy[true])
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			busy[big]--
			mu.Unlock()
			return delivered, nil
		})
		time.Sleep(time.Hour)
		synctest.Wait()
		if most != 6 || mostBig != 3 {
			t.Errorf("%d at one time, %d to one destination", most, mostBig)
		}
		if len(w.tried()) != 210 || len(w.list()) != 0 {
			t.Errorf("delivered %d", len(w.tried()))
		}
		for i := range 10 {
			if at := w.tried()[fmt.Sprintf("u@small%d.example", i)][0]; at > 5*time.Second {
				t.Errorf("small destination %d waited %v", i, at)
			}
		}
	})
}

// TestRest: while a destination cannot be reached one delivery at a time finds out, and others go on.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{DelayNotice: -1})
		for i := range 50 {
			w.accept(envelope(fmt.Sprintf("u%d@dead.example", i)), message(10))
		}
		total := func() (n int) {
			for _, l := range w.tried() {
				n += len(l)
			}
			return n
		}
		var dead atomic.Bool
		dead.Store(true)
		w.run(func(_ context.Context, it *queue.Item) (queue.Result, error) {
			time.Sleep(time.Second)
			if dead.Load() {
				return queue.Result{Class: queue.Network}, nil
			}
			return delivered, nil
		})
		time.Sleep(hours(1))
		if n := total(); n > 15 {
			t.Errorf("%d tries in an hour of a dead destination", n)
		}
		if err := w.Retry(t.Context(), w.list()[0].ID); err != nil {
			t.Fatal(err)
		}
		before := total()
		time.Sleep(2 * time.Second)
		if n := total(); n != before+1 {
			t.Errorf("%d tries when an administrator wants one", n-before)
		}
		dead.Store(false)
		time.Sleep(hours(5))
		synctest.Wait()
		if n := len(w.list()); n != 0 {
			t.Errorf("%d left when it is back", n)
		}
	})
}

// TestShutdown: a delivery that the end of Run cuts short does not count, and what was done meanwhile is kept.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{})
		w.accept(envelope("slow@y.example"), message(10))
		w.accept(envelope("quick@z.example"), message(10))
		w.run(func(ctx context.Context, it *queue.Item) (queue.Result, error) {
			<-ctx.Done()
			if strings.HasPrefix(it.Recipient.Address, "quick") {
				return delivered, nil // the last octet was on its way
			}
			return queue.Result{}, ctx.Err()
		})
		time.Sleep(time.Second)
		w.restart()
		l := w.list()
		if len(l) != 1 || l[0].Domain != "y.example" || l[0].Attempts != 0 || l[0].Active {
			t.Fatalf("%+v", l)
		}
		w.run(always(delivered))
		synctest.Wait()
		if n := len(w.list()); n != 0 || len(w.tried()["quick@z.example"]) != 1 {
			t.Errorf("%d left, tries %v", n, w.tried())
		}
	})
}

// TestRestart: what was in delivery when the process died is delivered by the next.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{})
		for i := range 5 {
			w.accept(envelope(fmt.Sprintf("u%d@y.example", i)), message(i*50_000))
		}
		if _, err := w.vault.ClaimRows(t.Context(), []vault.Want{{Lane: "y.example", N: 3}}, time.Now(), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		active := 0
		for _, i := range w.list() {
			if i.Active {
				active++
			}
		}
		if active != 3 {
			t.Errorf("%d of 3 active", active)
		}
		w.restart()
		w.run(always(delivered))
		synctest.Wait()
		if n := len(w.list()); n != 0 || len(w.tried()) != 5 {
			t.Errorf("%d left, tries %v", n, w.tried())
		}
	})
}

func TestAdmin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		w := newWorld(t, queue.Options{})
		var ids []string
		for _, a := range []string{"held", "failed", "dropped", "busy"} {
			ids = append(ids, w.accept(envelope(a+"@"+a+".example"), message(10)).Entries...)
		}
		gone := "0000000000000000000000000g"
		ops := []struct {
			name string
			do   func(context.Context, string) error
			id   string
			want error
		}{
			{"hold", w.Hold, ids[0], nil},
			{"hold again", w.Hold, ids[0], queue.ErrState},
			{"retry what is held", w.Retry, ids[0], queue.ErrState},
			{"release what waits", w.Release, ids[1], queue.ErrState},
			{"fail", w.Fail, ids[1], nil},
			{"fail again", w.Fail, ids[1], queue.ErrState},
			{"drop", w.Drop, ids[2], nil},
			{"drop again", w.Drop, ids[2], queue.ErrNotFound},
			{"hold what is unknown", w.Hold, gone, queue.ErrNotFound},
			{"retry nonsense", w.Retry, "x", queue.ErrNotFound},
		}
		for _, op := range ops {
			if err := op.do(ctx, op.id); !errors.Is(err, op.want) {
				t.Errorf("%s: %v, want %v", op.name, err, op.want)
			}
		}
		release := make(chan struct{})
		w.run(func(_ context.Context, it *queue.Item) (queue.Result, error) {
			<-release
			return delivered, nil
		})
		time.Sleep(hours(200)) // what is held does not expire
		synctest.Wait()
		if err := w.Drop(ctx, ids[3]); !errors.Is(err, queue.ErrBusy) {
			t.Errorf("drop in delivery: %v", err)
		}
		close(release)
		synctest.Wait()
		if len(w.told()) != 1 || !bytes.Contains(w.told()[0].Octets, []byte("Final-Recipient: rfc822; failed@failed.example\r\nAction: failed\r\nStatus: 5.7.0\r\n")) {
			t.Errorf("%d notices", len(w.told()))
		}
		if err := w.Release(ctx, ids[0]); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if l := w.list(); len(l) != 0 {
			t.Errorf("left: %+v", l)
		}
		if got, want := w.leaves(), "2 delivered, 1 dropped, 1 failed, 1 held, 4 intake, 1 notice, 4 recipient, 1 released"; got != want {
			t.Errorf("log: %s, want %s", got, want)
		}
	})
}

// TestAsked: the try that an administrator asks for knows when he did, and the next one is the schedule's again.
func TestAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{DelayNotice: -1})
		id := w.accept(envelope("bob@y.example"), message(10)).Entries[0]
		var asked []bool
		w.run(func(_ context.Context, it *queue.Item) (queue.Result, error) {
			if at := it.Asked; !at.IsZero() && at.Sub(w.start) != 10*time.Second {
				t.Errorf("asked %v after the start", at.Sub(w.start))
			}
			asked = append(asked, !it.Asked.IsZero())
			return queue.Result{Class: queue.Network}, nil
		})
		time.Sleep(10 * time.Second)
		if err := w.Retry(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(hours(0.5))
		synctest.Wait()
		if !slices.Equal(asked[:3], []bool{false, true, false}) {
			t.Errorf("%v", asked)
		}
	})
}

// TestRoute: who may send an entry by another host, and for how long.
func TestRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		w := newWorld(t, queue.Options{DelayNotice: -1})
		ids := w.accept(envelope("plain@y.example", "sealed@y.example", "gone@z.example"), message(10)).Entries
		w.notify = func(queue.Mail) error { return errors.New("away") }
		var via []string
		w.run(func(ctx context.Context, it *queue.Item) (queue.Result, error) {
			switch it.Recipient.Address {
			case "plain@y.example":
				via = append(via, it.Via)
			case "sealed@y.example":
				if err := it.SaveBuilt(ctx, []byte("sealed"), queue.Decision{Leg: "dmtp"}); err != nil && !errors.Is(err, queue.ErrBuilt) {
					return queue.Result{}, err
				}
			case "gone@z.example":
				return queue.Result{Class: queue.Permanent}, nil
			}
			return queue.Result{Class: queue.Remote, Code: 451}, nil
		})
		synctest.Wait()
		var asked []string
		allow := func(sender, domain string) error { asked = append(asked, sender+" "+domain); return nil }
		no := errors.New("the floor")
		for _, op := range []struct {
			id, hop string
			allow   func(string, string) error
			want    error
		}{
			{ids[0], "relay.example:25", func(string, string) error { return no }, no},
			{ids[0], "relay.example:25", allow, nil},
			{ids[1], "relay.example:25", allow, queue.ErrSealed},
			{ids[1], "", allow, nil},
			{ids[2], "", allow, queue.ErrState},
		} {
			if err := w.Route(ctx, op.id, op.hop, op.allow); !errors.Is(err, op.want) {
				t.Errorf("%s by %q: %v, want %v", op.id, op.hop, err, op.want)
			}
			synctest.Wait()
		}
		time.Sleep(hours(0.5))
		if err := w.Route(ctx, ids[0], "", nil); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(via); n < 4 || via[0] != "" || via[1] != "relay.example:25" || via[2] != "relay.example:25" || via[n-1] != "" {
			t.Errorf("%q", via)
		}
		if !slices.Equal(asked, []string{"alice@x.example y.example"}) {
			t.Errorf("asked the policy for %q", asked)
		}
		// What is dumped is sealed, and so is what can no longer be opened.
		for i, kind := range []string{queue.DumpSealed, queue.DumpBuilt} {
			d, err := w.Dump(ctx, ids[i])
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(d)
			if err := errors.Join(err, d.Close()); err != nil || d.Kind != kind || bytes.Contains(b, []byte(canary)) || d.Octets != 0 && d.Octets != int64(len(b)) || len(b) == 0 {
				t.Errorf("%s: %s, %d of %d octets, %v", kind, d.Kind, len(b), d.Octets, err)
			}
		}
	})
}
