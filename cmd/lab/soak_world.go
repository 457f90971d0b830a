package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"dimegate/internal/testpeer"
)

// A soakWorld is side (b) of a comparison with what can go wrong around it: a front that cuts what passes between the
// gateways, a sink that keeps what it took and can refuse, a resolver that can fall silent.
type soakWorld struct {
	*benchWorld
	front open // connections from alpha's gateway to bravo's
	sink  *testpeer.Process
	kept  string // folder of what the sink took

	mu       sync.Mutex
	counts   map[int64]int // arrivals by number
	restarts atomic.Int64  // of bravo's gateway
	born     atomic.Int64  // when bravo's gateway was last started, Unix nanoseconds
}

// newSoakWorld makes it of a comparison's world, whose own sink has been used to measure by now.
func newSoakWorld(ctx context.Context, w *benchWorld) (*soakWorld, error) {
	s := &soakWorld{benchWorld: w, counts: map[int64]int{}, kept: filepath.Join(w.Dir, "kept")}
	if err := os.Mkdir(s.kept, 0o755); err != nil {
		return nil, err
	}
	if nobody, err := user.Lookup("nobody"); err == nil && os.Geteuid() == 0 {
		uid, _ := strconv.Atoi(nobody.Uid) // a number on every Unix
		if err := os.Chown(s.kept, uid, -1); err != nil {
			return nil, err
		}
	}
	host, err := w.Address()
	if err != nil {
		return nil, err
	}
	w.sinkAddr = net.JoinHostPort(host, "25")
	if err := s.openSink(ctx); err != nil {
		return nil, err
	}
	behind, err := w.Address()
	if err != nil {
		return nil, err
	}
	if err := w.bravo.Stop(); err != nil {
		return nil, err
	}
	w.bravo.Inner = w.sinkAddr
	front := w.Bravo.DX + ":26"
	if err := w.bravo.Configure(func(text string) string {
		return strings.Replace(benchSettings(text), `listen = ["`+front+`"]`, `listen = ["`+behind+`:26"]`, 1)
	}); err != nil {
		return nil, err
	}
	if _, err := openGate(w.Bench, front, s.front.through(relay(behind+":26", nil))); err != nil {
		return nil, err
	}
	return s, s.startBravo(ctx)
}

func (s *soakWorld) startBravo(ctx context.Context) error {
	s.born.Store(time.Now().UnixNano())
	return s.bravo.Run(ctx)
}

// openSink starts the sink: a file a message.
func (s *soakWorld) openSink(ctx context.Context, args ...string) (err error) {
	s.sink, err = s.Sink(ctx, "kept", s.sinkAddr, append(args, "-d", s.kept+"/%M.")...)
	return err
}

// open is the connections that are open.
type open struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
}

// through notes the connections that handle has.
func (o *open) through(handle func(context.Context, net.Conn)) func(context.Context, net.Conn) {
	return func(ctx context.Context, c net.Conn) {
		o.mu.Lock()
		if o.conns == nil {
			o.conns = map[net.Conn]bool{}
		}
		o.conns[c] = true
		o.mu.Unlock()
		handle(ctx, c)
		o.mu.Lock()
		delete(o.conns, c)
		o.mu.Unlock()
	}
}

// cut closes them, in the middle of whatever they carry.
func (o *open) cut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.conns {
		c.Close()
	}
}

// A fault is something that peers do.
type fault struct {
	name   string
	strike func(ctx context.Context, s *soakWorld, d time.Duration) error // lasts about d, and mends
}

var faults = []fault{
	{"peer killed", func(ctx context.Context, s *soakWorld, d time.Duration) error {
		s.bravo.Kill()
		pause(ctx, d)
		s.restarts.Add(1)
		return s.startBravo(ctx)
	}},
	{"inner server answers 4xx", func(ctx context.Context, s *soakWorld, d time.Duration) error {
		s.sink.Kill()
		if err := s.openSink(ctx, "-r", "rcpt"); err != nil {
			return err
		}
		pause(ctx, d)
		s.sink.Kill()
		return s.openSink(ctx)
	}},
	{"connections cut", func(ctx context.Context, s *soakWorld, d time.Duration) error {
		for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
			s.front.cut()
			pause(ctx, 100*time.Millisecond)
		}
		return nil
	}},
	{"names silent", func(ctx context.Context, s *soakWorld, d time.Duration) error {
		if err := syscall.Kill(s.Resolver.Pid(), syscall.SIGSTOP); err != nil {
			return err
		}
		pause(ctx, d)
		return syscall.Kill(s.Resolver.Pid(), syscall.SIGCONT)
	}},
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// misbehave lets fault after fault strike, each once before any strikes again, until ctx has ended and each has struck. It
// counts them.
func (s *soakWorld) misbehave(ctx context.Context, every time.Duration) (map[string]int, error) {
	struck := map[string]int{}
	for {
		for _, i := range rand.Perm(len(faults)) {
			pause(ctx, every/2+rand.N(every))
			if ctx.Err() != nil && len(struck) == len(faults) {
				return struck, nil
			}
			// What has begun is mended, also when ctx ends meanwhile.
			d := min(every/4+rand.N(every/4), 5*time.Second)
			if err := faults[i].strike(context.WithoutCancel(ctx), s, d); err != nil {
				return struck, errors.Join(errors.New(faults[i].name), err)
			}
			struck[faults[i].name]++
		}
	}
}

// collect reads what the sink kept and counts it by number. What is not whole stays: it is being written, or was cut off.
func (s *soakWorld) collect() error {
	files, err := os.ReadDir(s.kept)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range files {
		path := filepath.Join(s.kept, f.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		id := numberOf(string(text))
		if id == 0 {
			continue
		}
		s.counts[id]++
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// arrivedOf tells how many of the numbers arrived, and how many copies too many.
func (s *soakWorld) arrivedOf(ids []int64) (arrived, copies int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if n := s.counts[id]; n > 0 {
			arrived++
			copies += n - 1
		}
	}
	return arrived, copies
}

// feed sends n messages, rate a second, over all sessions, and returns the numbers of those that were accepted: all, unless
// ctx ends. What gets no 250 is sent again with its number.
func (s *soakWorld) feed(ctx context.Context, g *generator, n int, rate float64) []int64 {
	ids := make([][]int64, sessions)
	var taken atomic.Int64
	began := time.Now()
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			var c *testpeer.SMTPClient
			defer func() {
				if c != nil {
					c.Close()
				}
			}()
			for ctx.Err() == nil {
				k := taken.Add(1)
				if k > int64(n) {
					return
				}
				pause(ctx, time.Until(began.Add(time.Duration(float64(k-1)/rate*float64(time.Second)))))
				id, m := g.message(i)
				if c = s.sendUntil(ctx, c, i, m); c != nil {
					ids[i] = append(ids[i], id)
				}
			}
		})
	}
	wg.Wait()
	var all []int64
	for _, list := range ids {
		all = append(all, list...)
	}
	return all
}

// sessionLife is how long the feeder keeps a session: less than testpeer's own bound.
const sessionLife = 4 * time.Minute

// sendUntil sends a message until it is accepted, on new connections if need be, and returns the one to go on with; nil when
// ctx ended before.
func (s *soakWorld) sendUntil(ctx context.Context, c *testpeer.SMTPClient, i int, m []byte) *testpeer.SMTPClient {
	for ctx.Err() == nil {
		if c != nil && time.Since(c.Opened) > sessionLife {
			c.Close()
			c = nil
		}
		if c == nil {
			var err error
			if c, err = testpeer.DialSMTP(ctx, s.b.entry); err != nil {
				c = nil
				pause(ctx, 200*time.Millisecond)
				continue
			}
		}
		if c.Send(labUser(i, "alpha.test"), []string{labUser(i, "bravo.test")}, m) == nil {
			return c
		}
		c.Close()
		c = nil
		pause(ctx, 200*time.Millisecond)
	}
	return nil
}
