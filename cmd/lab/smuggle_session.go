package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// A door is a port that cases are tried at.
type door struct {
	name   string
	ours   bool
	addr   string
	from   string // a sender's address, and the domain whose users get the mail
	domain string
	tls    bool   // from the first octet
	clear  string // said first, in clear, before TLS that its reply begins
	hello  string
	cases  []smuggleCase
	first  int                      // number of its mailboxes: several doors lead to one store
	count  func(mailbox string) int // of messages that lie there

	results []smuggleResult // in the order of cases
}

// A smuggleCase is one session, by a client that nobody can mistake: it says so many commands and messages. In what it says <from>,
// <to> and <victim> stand for addresses; what is hidden in a message is for the victim.
type smuggleCase struct {
	name  string
	early bool // does not wait for the banner
	bare  bool // begins without a hello
	steps []smuggleStep
}

// A smuggleStep is what is sent at once.
type smuggleStep struct {
	send    string
	replies int    // at most so many may come for it
	want    string // waits for the last of them, and goes on only if it begins so; "": does not wait
	message bool   // it ends a message, of which the last reply tells whether it was taken
	tls     bool   // then the session goes over to TLS
}

// A smuggleResult is what one door did.
type smuggleResult struct {
	Case     string   `json:"case"`
	Replies  []string `json:"replies"` // their codes
	Most     int      `json:"most_replies"`
	Accepted int      `json:"accepted"` // messages, of those that the client meant
	Arrived  int      `json:"arrived"`  // of them
	Smuggled int      `json:"smuggled"` // messages that were hidden in one
	Desync   bool     `json:"desync"`   // octets of a body were read as commands
	Hung     bool     `json:"hung,omitempty"`
}

// sessionWait bounds how long a door may be silent at the end of a session.
const sessionWait = 30 * time.Second

// A smuggler is a client's side of one session.
type smuggler struct {
	conn    net.Conn
	in      *bufio.Reader
	replies []string
	budget  int   // replies that may come
	ended   []int // which of them are verdicts on messages
}

// try runs one case at a door, for the mailboxes of the i-th.
func (d *door) try(ctx context.Context, i int, c smuggleCase) (smuggleResult, error) {
	s, err := d.open(ctx, c.early)
	if err != nil {
		return smuggleResult{}, fmt.Errorf("%s: %s: %w", d.name, c.name, err)
	}
	defer s.conn.Close()
	steps := c.steps
	if !c.bare {
		steps = append([]smuggleStep{{send: d.hello, replies: 1, want: "250"}}, steps...)
	}
	s.say(names(d.from, d.mailbox(i), d.victim(i), d.domain), steps)
	hung := s.end()
	if n := len(s.replies); n > 0 && s.replies[n-1] == "421" { // it says why it hangs up: no command's reply
		s.replies = s.replies[:n-1]
	}
	r := smuggleResult{Case: c.name, Replies: s.replies, Most: s.budget, Desync: len(s.replies) > s.budget, Hung: hung}
	for _, n := range s.ended {
		if n < len(s.replies) && s.replies[n][0] == '2' {
			r.Accepted++
		}
	}
	return r, nil
}

// names fills in what cases leave open.
func names(from, to, victim, destination string) *strings.Replacer {
	_, origin, _ := strings.Cut(from, "@")
	return strings.NewReplacer("<from>", "<"+from+">", "<to>", "<"+to+">", "<victim>", "<"+victim+">", "<origin>", "<"+origin+">", "<destination>", "<"+destination+">")
}

func (d *door) mailbox(i int) string { return fmt.Sprintf("m%06d@%s", d.first+i, d.domain) }
func (d *door) victim(i int) string  { return fmt.Sprintf("m%06d@%s", d.first+i+500, d.domain) }

// open connects, and goes as far as the door's banner is the next thing to be said.
func (d *door) open(ctx context.Context, early bool) (*smuggler, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return nil, err
	}
	s := &smuggler{}
	s.use(conn)
	if d.clear != "" {
		ready, _ := s.read(1)
		if ready && s.send(d.clear) == nil {
			ready, _ = s.read(2)
		}
		if !ready || s.replies[1] != "220" {
			conn.Close()
			return nil, fmt.Errorf("no STARTTLS: %v", s.replies)
		}
		s.replies = nil
	}
	if d.tls || d.clear != "" {
		if err := s.secure(ctx); err != nil {
			conn.Close()
			return nil, err
		}
	}
	if s.budget = 1; !early { // the banner; behind STARTTLS the reply that DMTP begins with
		s.read(1)
	}
	return s, nil
}

func (s *smuggler) use(c net.Conn) { s.conn, s.in = c, bufio.NewReader(c) }

func (s *smuggler) send(text string) error {
	s.conn.SetWriteDeadline(time.Now().Add(sessionWait))
	_, err := io.WriteString(s.conn, text)
	return err
}

// secure goes over to TLS. What was sent in clear and not read stays behind.
func (s *smuggler) secure(ctx context.Context) error {
	c := tls.Client(s.conn, &tls.Config{InsecureSkipVerify: true}) // who it is does not matter here
	s.conn.SetDeadline(time.Now().Add(sessionWait))
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	s.use(c)
	return nil
}

// read waits until n replies have come in all, and is false when no more do. A reply of several lines is one.
func (s *smuggler) read(n int) (more, late bool) {
	for len(s.replies) < n {
		s.conn.SetReadDeadline(time.Now().Add(sessionWait))
		line, err := s.in.ReadString('\n')
		if err != nil {
			return false, errors.Is(err, os.ErrDeadlineExceeded)
		}
		if len(line) >= 4 && line[3] == '-' {
			continue
		}
		s.replies = append(s.replies, line[:min(3, len(line))])
	}
	return true, false
}

// say goes through the steps, as far as the door lets it.
func (s *smuggler) say(names *strings.Replacer, steps []smuggleStep) {
	for _, step := range steps {
		s.budget += step.replies
		if step.message {
			s.ended = append(s.ended, s.budget-1)
		}
		if s.send(names.Replace(step.send)) != nil {
			return // it has hung up: what it said is read at the end
		}
		if step.want == "" {
			continue
		}
		if more, _ := s.read(s.budget); !more || !strings.HasPrefix(s.replies[s.budget-1], step.want) {
			return
		}
		if step.tls && s.secure(context.Background()) != nil {
			return
		}
	}
}

// end says that nothing more comes, and reads what is still said. hung: the door leaves the session open.
func (s *smuggler) end() (hung bool) {
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	_, hung = s.read(1 << 20)
	return hung
}
