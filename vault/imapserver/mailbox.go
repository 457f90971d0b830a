// Package imapserver is the case mailbox: the items of one case, on the discovery station, for a person with a mail client. It is
// read-only, by TLS, for whoever holds a credential that serves once, until the case or the credential expires; whatever it gives
// out is in the access record before it is given. All of go-imap is in this package.
package imapserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"golang.org/x/net/netutil"

	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/discovery/access"
)

// Bounds of the mailbox.
const (
	maxSessions = 8
	maxFailures = 3         // logins that fail in one connection
	maxOctets   = 256 << 20 // of a message that is to be taken apart; one asked for whole is given at any size
	maxSearch   = 10 * time.Minute
	defaultIdle = 30 * time.Minute
	batch       = 64 // messages that one write of the access record covers
)

// ErrExpired tells that the case's time is over.
var ErrExpired = errors.New("imapserver: the case has expired")

// Items is what the mailbox shows: discovery.Source is one. Safe for concurrent use.
type Items interface {
	Items() []discovery.Item
	Open(ctx context.Context, number int) (io.ReadCloser, error)
}

// A Recorder keeps the access record. When Record returns nil the entries are on stable storage; an error means that nothing is
// given out. Safe for concurrent use.
type Recorder interface {
	Record(ctx context.Context, entries ...access.Entry) error
}

// A Mailbox serves one case.
type Mailbox struct {
	Case        vault.Digest
	Expires     time.Time // of the case: at that time every session ends and Serve returns ErrExpired
	Items       Items
	Credentials *Credentials
	Record      Recorder
	Certificate tls.Certificate
	Idle        time.Duration // how long a session may be silent; zero means 30 minutes
	Log         *slog.Logger  // ids and counts, never content; nil: nothing
}

// Serve accepts connections until ctx or the case ends, at most eight at a time. It returns after the last session: nil when ctx
// ended, ErrExpired when the case did.
func (m *Mailbox) Serve(ctx context.Context, ln net.Listener) error {
	if !time.Now().Before(m.Expires) {
		ln.Close()
		return ErrExpired
	}
	ctx, cancel := context.WithDeadlineCause(ctx, m.Expires, ErrExpired)
	defer cancel()
	s := &server{Mailbox: m, ctx: ctx}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	engine := imapserver.New(&imapserver.Options{
		NewSession:   s.newSession,
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapESearch: {}, imap.CapStatusSize: {}, imap.CapChildren: {}},
		Logger:       engineLog{s.Log},
		InsecureAuth: true, // the engine cannot see the TLS below our wrapper: every connection of the listener is TLS
	})
	stop := context.AfterFunc(ctx, func() {
		s.endAll("the mailbox is closed")
		engine.Close()
	})
	defer stop()
	err := engine.Serve(&listener{Listener: netutil.LimitListener(ln, maxSessions), server: s})
	engine.Close()
	s.running.Wait()
	switch {
	case errors.Is(context.Cause(ctx), ErrExpired):
		return ErrExpired
	case ctx.Err() != nil:
		return nil
	}
	return fmt.Errorf("imapserver: %w", err)
}

// A server is a mailbox that runs.
type server struct {
	*Mailbox
	ctx      context.Context // of Serve: sessions see it end (go-imap passes none)
	running  sync.WaitGroup  // of connections: begun at Accept, done when the session is closed
	mu       sync.Mutex
	sessions map[*session]struct{}
}

func (s *server) tls() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{s.Certificate}, MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}
}

func (s *server) newSession(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
	n := &session{server: s, engine: c, conn: c.NetConn().(*conn)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions == nil {
		s.sessions = map[*session]struct{}{}
	}
	s.sessions[n] = struct{}{}
	return n, nil, nil
}

func (s *server) forget(n *session) {
	s.mu.Lock()
	delete(s.sessions, n)
	s.mu.Unlock()
	s.running.Done()
}

// endAll says why, as far as each client takes it within a second.
func (s *server) endAll(why string) {
	s.mu.Lock()
	all := make([]*session, 0, len(s.sessions))
	for n := range s.sessions {
		all = append(all, n)
	}
	s.mu.Unlock()
	var told sync.WaitGroup
	for _, n := range all {
		told.Go(func() { n.end(why) })
	}
	told.Wait()
}

// uidValidity is the case's: a mail client that sees another one forgets what it had.
func (s *server) uidValidity() uint32 {
	v := uint32(s.Case[0])<<24 | uint32(s.Case[1])<<16 | uint32(s.Case[2])<<8 | uint32(s.Case[3])
	return max(v, 1)
}

// engineLog takes what the engine has to say. Its arguments may hold what a client sent, a password too: only the form is kept.
type engineLog struct{ log *slog.Logger }

func (l engineLog) Printf(format string, _ ...any) {
	what, _, _ := strings.Cut(format, ":")
	level := slog.LevelDebug
	if strings.HasPrefix(what, "panic") {
		level = slog.LevelError
	}
	l.log.Log(context.Background(), level, "mailbox engine", slog.String("what", what))
}
