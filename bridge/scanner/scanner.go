// Package scanner shows messages in plain text to content scanners: before they are sealed on their way out, and before they are
// handed to the inner server on their way in. A scanner is a milter or an SMTP content filter; it says yes, no, not now or hold,
// and changes nothing, since what leaves here is what came.
//
// No verdict is not a yes: a scanner that is down, slow or not understood is ErrUnavailable, and the message waits where it is.
package scanner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Verdicts that are no yes. What the scanner said besides stays here: its words may be the message's.
var (
	ErrRejected    = errors.New("scanner: refused")
	ErrQuarantined = errors.New("scanner: to be held")
	ErrTooLarge    = errors.New("scanner: the message is larger than may be scanned")
	ErrUnavailable = errors.New("scanner: no verdict now") // wraps why
)

// An Envelope is what a scanner learns beside the message.
type Envelope struct {
	ID     string // ours for the message, so that logs can be put together
	Client netip.AddrPort
	Hello  string // how the client introduced itself
	User   string // who authenticated; "": nobody
	From   string // "": the null reverse-path
	To     []string
	UTF8   bool
}

// An Address is where a scanner listens.
type Address struct {
	Kind    string // milter or smtp
	Network string // tcp or unix
	Address string
}

func (a Address) String() string { return a.Kind + "://" + a.Address }

// A Config says who is asked, and how.
type Config struct {
	Scanners []Address // all are asked, at one time, and all must say yes
	Name     string    // our host name
	// Timeout is for each step, and for the verdict after the last octet; default 1m.
	Timeout time.Duration
	// MaxOctets is what a message may have; default 100 MiB.
	MaxOctets int64
	// IgnoreChanges lets milters ask for changes of the header, which are not made; else they are refused as a fault.
	IgnoreChanges bool
	Log           *slog.Logger
}

// A Scanner asks all scanners of one direction. Its methods may be called from many goroutines.
type Scanner struct {
	Config
	engines []engine

	mu   sync.Mutex
	away time.Time // when we last said that a scanner gives no verdict; zero: all do
}

// An engine speaks to one scanner. It reads r to its end, or not if its verdict is known before; nil is a yes. When r fails
// the scanner is not to take what it has for a message. It returns soon after ctx has ended.
type engine interface {
	scan(ctx context.Context, e Envelope, r io.Reader) error
	check(ctx context.Context) error // whether it is there and wants nothing that we refuse
	close() error
}

// New makes a Scanner; nil when there is nobody to ask. It opens no connection.
func New(c Config) *Scanner {
	if len(c.Scanners) == 0 {
		return nil
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Minute
	}
	if c.MaxOctets <= 0 {
		c.MaxOctets = 100 << 20
	}
	s := &Scanner{Config: c}
	for _, a := range c.Scanners {
		if a.Kind == "milter" {
			s.engines = append(s.engines, &milterEngine{a, c})
		} else {
			s.engines = append(s.engines, newFilter(a, c))
		}
	}
	return s
}

// Check tells what is wrong with the scanners now; nil: they are there, and want nothing that is refused.
func (s *Scanner) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	var errs []error
	for i, e := range s.engines {
		if err := e.check(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Scanners[i], err))
		}
	}
	return errors.Join(errs...)
}

// Close ends kept sessions.
func (s *Scanner) Close() error {
	var errs []error
	for _, e := range s.engines {
		errs = append(errs, e.close())
	}
	return errors.Join(errs...)
}

// Scan shows all of r and returns the verdict: nil, or one of the errors above. An error of r is returned as it is.
func (s *Scanner) Scan(ctx context.Context, e Envelope, r io.Reader) error {
	scan := s.Begin(ctx, e)
	defer scan.Close()
	if _, err := io.Copy(scan, r); err != nil {
		return err
	}
	return scan.Verdict()
}

// A Scan is one message under scanners' eyes, while it comes. Write it, ask for the verdict, close it. It is for one goroutine,
// and holds no more of the message than is being written.
type Scan struct {
	s        *Scanner
	ctx      context.Context
	cancel   context.CancelFunc
	pipes    []*io.PipeWriter // nil: that scanner has heard enough
	verdicts chan error
	octets   int64
	asked    bool
	id       string
}

// Begin opens the scanners' eyes.
func (s *Scanner) Begin(ctx context.Context, e Envelope) *Scan {
	scan := &Scan{s: s, verdicts: make(chan error, len(s.engines)), id: e.ID}
	scan.ctx, scan.cancel = context.WithCancel(ctx)
	for i, engine := range s.engines {
		r, w := io.Pipe()
		scan.pipes = append(scan.pipes, w)
		go func() {
			err := engine.scan(scan.ctx, e, r)
			r.Close() // what is written after the verdict is not waited for
			if err != nil {
				err = fmt.Errorf("%s: %w", s.Scanners[i], err)
			}
			scan.verdicts <- err
		}()
	}
	return scan
}

// Write shows octets. It never fails: what a scanner has against them is its verdict.
func (s *Scan) Write(p []byte) (int, error) {
	if s.octets += int64(len(p)); s.octets > s.s.MaxOctets {
		return len(p), nil // nobody shall take the beginning for a message: see Verdict
	}
	for i, w := range s.pipes {
		if w == nil {
			continue
		}
		if _, err := w.Write(p); err != nil {
			s.pipes[i] = nil
		}
	}
	return len(p), nil
}

// Verdict ends the message and waits for what all have to say.
func (s *Scan) Verdict() error {
	if s.octets > s.s.MaxOctets {
		s.end(ErrTooLarge)
		return ErrTooLarge
	}
	for _, w := range s.pipes {
		if w != nil {
			w.Close()
		}
	}
	timer := time.AfterFunc(s.s.Timeout, s.cancel)
	defer timer.Stop()
	var err error
	for range s.pipes {
		err = worse(err, <-s.verdicts)
	}
	s.asked = true
	s.s.tell(s.ctx, s.id, err)
	return err
}

// worse is the verdict of two: no, then no verdict, then hold.
func worse(a, b error) error {
	for _, e := range []error{ErrRejected, ErrUnavailable, ErrQuarantined} {
		if errors.Is(a, e) {
			return a
		}
		if errors.Is(b, e) {
			return b
		}
	}
	return nil
}

// errAbandoned is why a message ends that is not whole.
var errAbandoned = errors.New("scanner: the message is not whole")

// Close gives up a message without a verdict, and waits until the scanners know.
func (s *Scan) Close() {
	if !s.asked {
		s.end(errAbandoned)
	}
	s.cancel()
}

func (s *Scan) end(why error) {
	if s.asked {
		return
	}
	s.asked = true
	for _, w := range s.pipes {
		if w != nil {
			w.CloseWithError(why)
		}
	}
	s.cancel()
	for range s.pipes {
		<-s.verdicts
	}
}

// tell logs verdicts that an administrator wants to know, and that there are none, at most once a minute.
func (s *Scanner) tell(ctx context.Context, id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, ErrUnavailable):
		if time.Since(s.away) >= time.Minute {
			s.away = time.Now()
			s.Log.LogAttrs(ctx, slog.LevelWarn, "content scanner gives no verdict, and mail waits for it", slog.String("msg", id), slog.Any("error", err))
		}
	case !s.away.IsZero():
		s.away = time.Time{}
		s.Log.LogAttrs(ctx, slog.LevelInfo, "content scanner is back")
		fallthrough
	default:
		if err != nil {
			s.Log.LogAttrs(ctx, slog.LevelWarn, "content scanner", slog.String("msg", id), slog.Any("verdict", err))
		}
	}
}

// unavailable is no verdict, for a reason.
func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }
