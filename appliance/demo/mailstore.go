package demo

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"
)

// A mailStore is the smallest inner mail server: it takes mail for the listed mailboxes by SMTP and keeps it in memory.
type mailStore struct {
	domain string
	known  []string

	mu     sync.Mutex
	mails  []mail
	signal chan struct{} // closed and replaced at each arrival
}

// A mail is one delivered message with its SMTP envelope.
type mail struct {
	reversePath string
	recipients  []string
	octets      []byte
}

func newMailStore(domain string, known ...string) *mailStore {
	return &mailStore{domain: domain, known: known, signal: make(chan struct{})}
}

// serve answers SMTP on ln until ctx ends.
func (m *mailStore) serve(ctx context.Context, ln net.Listener) error {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &storeSession{store: m}, nil }))
	s.Domain = m.domain
	s.EnableSMTPUTF8 = true
	s.MaxLineLength = 0
	s.ErrorLog = log.New(io.Discard, "", 0)
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(ln); err != nil && !errors.Is(err, smtp.ErrServerClosed) && ctx.Err() == nil {
		return err
	}
	return nil
}

// wait returns the n-th mail once it is there.
func (m *mailStore) wait(ctx context.Context, n int) (mail, error) {
	for {
		m.mu.Lock()
		signal := m.signal
		if len(m.mails) > n {
			got := m.mails[n]
			m.mu.Unlock()
			return got, nil
		}
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return mail{}, ctx.Err()
		case <-signal:
		}
	}
}

func (m *mailStore) put(got mail) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, got)
	close(m.signal)
	m.signal = make(chan struct{})
}

type storeSession struct {
	store *mailStore
	mail  mail
}

func (s *storeSession) Mail(from string, _ *smtp.MailOptions) error {
	s.mail.reversePath = from
	return nil
}

func (s *storeSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if !slices.Contains(s.store.known, strings.ToLower(to)) {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox"}
	}
	s.mail.recipients = append(s.mail.recipients, to)
	return nil
}

func (s *storeSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mail.octets = b
	s.store.put(s.mail)
	return nil
}

func (s *storeSession) Reset()        { s.mail = mail{} }
func (s *storeSession) Logout() error { return nil }
