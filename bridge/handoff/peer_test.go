package handoff

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A mailServer is an inner server of our own, which sees octets as they come and answers what the test says.
type mailServer struct {
	t     testing.TB
	addr  string
	offer []string // EHLO lines
	tls   *tls.Config
	lmtp  bool
	// answer overrides the reply to a command, by its line ("" for the message itself); "" is the ordinary one, "!" closes.
	answer func(session int, line string) string

	mu       sync.Mutex
	sessions int
	lines    []string // all commands
	messages []mailed
}

type mailed struct {
	from, to string // whole lines
	octets   []byte
}

func serve(t testing.TB, edit func(*mailServer)) *mailServer {
	t.Helper()
	s := &mailServer{t: t, offer: []string{"PIPELINING", "SIZE 100000000", "8BITMIME", "ENHANCEDSTATUSCODES"}, answer: func(int, string) string { return "" }}
	if edit != nil {
		edit(s)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	var wg sync.WaitGroup
	var open sync.Map
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.sessions++
			n := s.sessions
			s.mu.Unlock()
			open.Store(c, nil)
			wg.Go(func() { defer c.Close(); s.session(n, c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	return s
}

func (s *mailServer) session(n int, c net.Conn) {
	in := bufio.NewReader(c)
	answer := func(line, def string, take func()) bool {
		r := s.answer(n, line)
		if r == "" {
			r = def
		}
		if r == "!" {
			c.Close()
			return false
		}
		ok := r[0] == '2' || r[0] == '3'
		if ok && take != nil {
			take()
		}
		io.WriteString(c, r+"\r\n")
		return ok
	}
	say := func(line, def string) bool { return answer(line, def, nil) }
	say("banner", "220 inner")
	var m mailed
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		s.mu.Lock()
		s.lines = append(s.lines, line)
		s.mu.Unlock()
		verb, _, _ := strings.Cut(line, " ")
		switch verb {
		case "EHLO", "LHLO":
			offer := append([]string{"inner"}, s.offer...)
			if _, on := c.(*tls.Conn); s.tls != nil && !on {
				offer = append(offer, "STARTTLS")
			}
			say(line, "250-"+strings.Join(offer[:len(offer)-1], "\r\n250-")+"\r\n250 "+offer[len(offer)-1])
		case "STARTTLS":
			if say(line, "220 go") {
				c = tls.Server(c, s.tls)
				in = bufio.NewReader(c)
			}
		case "MAIL":
			if say(line, "250 2.1.0 ok") {
				m = mailed{from: line}
			}
		case "RCPT":
			def := "250 2.1.5 ok"
			if m.from == "" {
				def = "503 5.5.1 MAIL first"
			}
			if say(line, def) {
				m.to = line
			}
		case "DATA":
			def := "354 go"
			if m.to == "" {
				def = "503 5.5.1 no recipient"
			}
			if !say(line, def) {
				continue
			}
			if m.octets = readDots(in); m.octets == nil {
				return
			}
			answer("", "250 2.0.0 taken", func() { s.take(m) })
			m = mailed{}
		case "BDAT":
			var last string
			size := 0
			fmt.Sscan(line[5:], &size, &last)
			chunk := make([]byte, size)
			if _, err := io.ReadFull(in, chunk); err != nil {
				return
			}
			m.octets = append(m.octets, chunk...)
			answer("", "250 2.0.0 taken", func() {
				if last == "LAST" {
					s.take(m)
				}
			})
		case "QUIT":
			say(line, "221 bye")
			return
		case "RSET":
			m = mailed{}
			say(line, "250 2.0.0 ok")
		default:
			say(line, "500 5.5.1 what")
		}
	}
}

func (s *mailServer) take(m mailed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
}

func (s *mailServer) taken() []mailed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]mailed(nil), s.messages...)
}

func (s *mailServer) heard(prefix string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, l := range s.lines {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// readDots reads a DATA body by lines, independently of the code under test.
func readDots(in *bufio.Reader) []byte {
	body := []byte{}
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil
		}
		if bytes.Equal(line, []byte(".\r\n")) && (len(body) == 0 || bytes.HasSuffix(body, []byte("\r\n"))) {
			return body
		}
		if line[0] == '.' && (len(body) == 0 || bytes.HasSuffix(body, []byte("\r\n"))) {
			line = line[1:]
		}
		body = append(body, line...)
	}
}

func inner(t testing.TB, s *mailServer, edit func(*Config)) *Inner {
	t.Helper()
	c := Config{Address: s.addr, Name: "gw.bravo.example", LMTP: s.lmtp}
	if edit != nil {
		edit(&c)
	}
	h := New(c)
	t.Cleanup(func() { h.Close() })
	return h
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
