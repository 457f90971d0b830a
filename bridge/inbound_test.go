package bridge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dimegate/bridge/handoff"
	"dimegate/bridge/translate"
	"dimegate/dmtp/dmtpserver"
)

// A station is an Inbound whose surroundings do as a test says.
type station struct {
	t   *testing.T
	raw string
	log bytes.Buffer
	got handoff.Delivery

	unlayered bool

	deliver func(ctx context.Context) error // the inner server
	end     func(ctx context.Context) error // the storage, when a flight ends

	mu       sync.Mutex
	ended    []string // how flights ended
	inFlight bool
}

func (s *station) inbound() *Inbound {
	return NewInbound(InboundOptions{Opener: s, Inner: s, Intents: s, Hostname: "gw.bravo.example", Log: slog.New(slog.NewTextHandler(&s.log, nil))})
}

func (s *station) incoming() *dmtpserver.Incoming {
	return &dmtpserver.Incoming{Origin: "alpha.example", Destination: "bravo.example", Recipient: "bob@bravo.example"}
}

func (s *station) Open(context.Context, *dmtpserver.Incoming) (*Letter, error) {
	raw := s.raw
	if raw == "" {
		raw = "From: <alice@alpha.example>\r\nTo: <bob@bravo.example>\r\nSubject: x\r\n\r\nhello\r\n"
	}
	c, err := translate.Import(translate.Envelope{Author: "alice@alpha.example", Now: time.Now()}, []byte(raw))
	return &Letter{Author: "alice@alpha.example", Content: c, Unlayered: s.unlayered}, err
}

func (s *station) Server(string) (InnerServer, error) { return s, nil }

func (s *station) Confirm(context.Context, string) (handoff.Answer, error) {
	return handoff.Answer{Known: true}, nil
}

func (s *station) Deliver(ctx context.Context, d handoff.Delivery) error {
	s.mu.Lock()
	s.got = d
	s.mu.Unlock()
	if s.deliver == nil {
		return nil
	}
	return s.deliver(ctx)
}

func (s *station) Begin(context.Context, Arrival, io.WriterTo) (Flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight {
		return nil, dmtpserver.ErrInFlight
	}
	s.inFlight = true
	return aFlight{s}, nil
}

func (s *station) Message(context.Context, string, string, [64]byte) (dmtpserver.Outcome, error) {
	return dmtpserver.Outcome{}, nil
}

func (s *station) Accepted(context.Context, string, string, [64]byte) (bool, error) {
	return false, nil
}

type aFlight struct{ s *station }

func (f aFlight) ID() string     { return "1" }
func (f aFlight) Doubtful() bool { return false }

func (f aFlight) End(ctx context.Context, r *Refusal) error {
	if r != nil {
		return f.over(ctx, "refused")
	}
	return f.over(ctx, "accepted")
}

func (f aFlight) Defer(ctx context.Context, _ bool, _ string) error { return f.over(ctx, "deferred") }

func (f aFlight) over(ctx context.Context, how string) error {
	if err := ctx.Err(); err != nil { // as a database does
		return err
	}
	if f.s.end != nil {
		if err := f.s.end(ctx); err != nil {
			return err
		}
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.ended, f.s.inFlight = append(f.s.ended, how), false
	return nil
}

var errDisk = errors.New("no space left on device")

// Whatever becomes of a hand-off, its flight ends: one that stays would be answered 451 until the origin gives up.
func TestFlightsEnd(t *testing.T) {
	for _, c := range []struct {
		name    string
		deliver func(ctx context.Context) error
		trouble int // of the storage, so many times
		want    error
		ended   string
	}{
		{"accepted", nil, 0, nil, "accepted"},
		{"accepted, the disk is full for a while", nil, 5, nil, "accepted"},
		{"deferred, the disk is full for a while", func(context.Context) error { return handoff.ErrUnavailable }, 5, dmtpserver.ErrDeferred, "deferred"},
		{"the inner server takes longer than we wait", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 0, dmtpserver.ErrDeferred, "deferred"},
		{"panic", func(context.Context) error { panic("x") }, 0, dmtpserver.ErrDeferred, "deferred"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &station{t: t, deliver: c.deliver}
				s.end = func(context.Context) error {
					if c.trouble--; c.trouble >= 0 {
						return errDisk
					}
					return nil
				}
				b := s.inbound()
				err := b.Deliver(t.Context(), s.incoming())
				if c.want == nil && err != nil || !errors.Is(err, c.want) {
					t.Errorf("answer: %v", err)
				}
				b.Wait()
				if strings.Join(s.ended, " ") != c.ended {
					t.Errorf("ended %q, want %q", s.ended, c.ended)
				}
			})
		})
	}
}

// A storage in trouble holds neither the session beyond its time nor the gateway's end.
func TestFlightOfDeadStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &station{t: t, end: func(context.Context) error { return errDisk }}
		b := s.inbound()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := b.Deliver(ctx, s.incoming()); !errors.Is(err, dmtpserver.ErrInFlight) {
			t.Errorf("answer: %v", err)
		}
		if err := b.Deliver(t.Context(), s.incoming()); !errors.Is(err, dmtpserver.ErrInFlight) {
			t.Errorf("answer to a second copy: %v", err)
		}
		began := time.Now()
		b.Wait()
		if took := time.Since(began); took > time.Minute {
			t.Errorf("the gateway's end took %v", took)
		}
	})
}

// A message with a header full of fields that are taken out makes no more than a line of log.
func TestRemovedFieldsInOneLine(t *testing.T) {
	s := &station{t: t, raw: "Subject: x\r\n" + strings.Repeat("X-DIME-secret: y\r\n", 5000) + "\r\nhello\r\n"}
	b := s.inbound()
	if err := b.Deliver(t.Context(), s.incoming()); err != nil {
		t.Fatal(err)
	}
	b.Wait()
	if n := strings.Count(s.log.String(), "\n"); n > 4 {
		t.Errorf("%d lines of log", n)
	}
	if strings.Contains(s.log.String(), "secret") {
		t.Error("words of the header are in the log")
	}
}

// Mail without the alternate layer that its recipient's signet asks for is handed over with a warning, in the field and in the log.
func TestUnlayeredWarns(t *testing.T) {
	for unlayered, field := range map[bool]string{true: "X-DIME: yes; author=alice@alpha.example; origin=alpha.example; layer=missing\r\n", false: "X-DIME: yes; author=alice@alpha.example; origin=alpha.example\r\n"} {
		s := &station{t: t, unlayered: unlayered}
		b := s.inbound()
		if err := b.Deliver(t.Context(), s.incoming()); err != nil {
			t.Fatal(err)
		}
		b.Wait()
		if !strings.Contains(string(s.got.Top), field) || strings.Contains(s.log.String(), "without the alternate layer") != unlayered {
			t.Errorf("top %q, log %s", s.got.Top, s.log.String())
		}
	}
}
