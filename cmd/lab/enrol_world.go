package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"

	"dimegate/internal/testpeer"

	"github.com/emersion/go-smtp"
)

// An enrolWorld is the gateway whose users are enrolled, alpha's, and one that they write to, with counting mail servers
// behind both.
type enrolWorld struct {
	*Lab
	alpha, bravo *Gateway
	counted      *mailCount // of both
}

// bravo's users get mail before anything is counted, so that they are warm.
const enrolRecipients = sessions

func enrolAuthor(i int) string    { return fmt.Sprintf("u%04d@alpha.test", i) }
func enrolRecipient(i int) string { return labUser(i%enrolRecipients, "bravo.test") }

// newEnrolWorld starts all of it. So many sessions can be open at once.
func newEnrolWorld(ctx context.Context, b *testpeer.Bench, binary string, parallel int) (*enrolWorld, error) {
	w := &enrolWorld{counted: &mailCount{came: map[int64]int{}},
		Lab: &Lab{Bench: b, Alpha: &Org{Name: "alpha", Domain: "alpha.test"}, Bravo: &Org{Name: "bravo", Domain: "bravo.test"}}}
	for _, addr := range []*string{&w.Alpha.MX, &w.Alpha.DX, &w.Bravo.MX, &w.Bravo.DX} {
		a, err := b.Address()
		if err != nil {
			return nil, err
		}
		*addr = a
	}
	if err := w.startNames(ctx); err != nil {
		return nil, err
	}
	settings := func(text string) string {
		text = strings.Replace(text, "[submission]\n", fmt.Sprintf("[submission]\nmax_sessions = %[1]d\nmax_per_client = %[1]d\n", parallel), 1)
		return benchSettings(text)
	}
	var made [2]*Gateway
	for i, o := range w.Orgs() {
		o.Postfix = &testpeer.Postfix{Addr: o.MX + ":25"} // where a mail server of our own stands
		ln, err := net.Listen("tcp", o.Postfix.Addr)
		if err != nil {
			return nil, err
		}
		b.Go("mx."+o.Domain, func(ctx context.Context) error { return w.counted.serve(ctx, ln) })
		if made[i], err = w.NewGateway(ctx, binary, o); err != nil {
			return nil, err
		}
		if err := made[i].Configure(settings); err != nil {
			return nil, err
		}
	}
	w.alpha, w.bravo = made[0], made[1]
	return w, errors.Join(w.bravo.Run(ctx), w.alpha.Run(ctx))
}

// An mailCount is mail servers that know certain users, and count what comes by the generator's numbers.
type mailCount struct {
	mu   sync.Mutex
	came map[int64]int
	rest []string // what is not of a generator
}

// serve answers on ln until ctx ends.
func (m *mailCount) serve(ctx context.Context, ln net.Listener) error {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return countSession{m}, nil }))
	s.Domain, s.EnableSMTPUTF8, s.MaxLineLength, s.ErrorLog = "inner", true, 0, log.New(io.Discard, "", 0)
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(ln); err != nil && !errors.Is(err, smtp.ErrServerClosed) && ctx.Err() == nil {
		return err
	}
	return nil
}

// arrived is how many mails came, copies of one counted once.
func (m *mailCount) arrived() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.came)
}

// others is what came that is not of a generator, from the nth on.
func (m *mailCount) others(n int) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.rest[n:])
}

// copies is how often a mail came.
func (m *mailCount) copies(id int64) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.came[id]
}

type countSession struct{ m *mailCount }

func (countSession) Mail(string, *smtp.MailOptions) error { return nil }
func (countSession) Reset()                               {}
func (countSession) Logout() error                        { return nil }

// Rcpt knows alpha's u0000 and so on, and bravo's m0 and so on.
func (countSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	local, _, _ := strings.Cut(to, "@")
	if len(local) > 1 && (local[0] == 'u' || local[0] == 'm') && strings.Trim(local[1:], "0123456789") == "" {
		return nil
	}
	return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox"}
}

func (s countSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if id := numberOf(string(b)); id != 0 {
		s.m.came[id]++
	} else {
		s.m.rest = append(s.m.rest, string(b))
	}
	return nil
}
