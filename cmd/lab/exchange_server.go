package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// An exchangeServer speaks SMTP as the transport service of an Exchange does: its banner and replies, the verbs and parameters that
// only it has, which it offers to all, and its way to be short of resources. It keeps what it is given.
type exchangeServer struct {
	tls *tls.Config

	mu     sync.Mutex
	mails  []letter
	lines  []string // commands, without addresses' parameters
	scarce int      // so many messages are turned away first
}

// exchangeOffers is what EHLO offers; STARTTLS and X-ANONYMOUSTLS only in clear.
var exchangeOffers = []string{"SIZE 115343360", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS", "X-ANONYMOUSTLS", "AUTH NTLM", "X-EXPS GSSAPI NTLM",
	"8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8", "XEXCH50", "XRDST", "XSHADOWREQUEST", "XPROXYFROM", "XOORG", "XSYSPROBE"}

// serve answers on ln until ctx ends.
func (x *exchangeServer) serve(ctx context.Context, ln net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		c, err := ln.Accept()
		if err != nil {
			return nil // closed: the bench ends
		}
		conns.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			s := &exchangeSession{server: x, conn: c, in: bufio.NewReader(c)}
			s.say("220 EX01.bravo.test Microsoft ESMTP MAIL Service ready at Tue, 1 Dec 2026 00:00:00 +0000")
			for s.command() == nil {
			}
		})
	}
}

type exchangeSession struct {
	server *exchangeServer
	conn   net.Conn
	in     *bufio.Reader
	secure bool
	letter letter
}

var errExchangeOver = errors.New("over")

func (s *exchangeSession) say(reply string) { io.WriteString(s.conn, reply+"\r\n") }

// command reads one and answers it. An error ends the session.
func (s *exchangeSession) command() error {
	line, err := s.in.ReadString('\n')
	if err != nil {
		return err
	}
	line = strings.TrimRight(line, "\r\n")
	s.server.mu.Lock()
	s.server.lines = append(s.server.lines, line)
	s.server.mu.Unlock()
	verb, arg, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		s.letter = letter{}
		s.say("250-EX01.bravo.test Hello [127.0.0.1]")
		for _, o := range exchangeOffers {
			if !s.secure || o != "STARTTLS" && o != "X-ANONYMOUSTLS" {
				s.say("250-" + o)
			}
		}
		s.say("250 XRCPTDSN")
	case "STARTTLS":
		s.say("220 2.0.0 SMTP server ready")
		c := tls.Server(s.conn, s.server.tls)
		s.conn, s.in, s.secure = c, bufio.NewReader(c), true
	case "MAIL":
		s.letter = letter{reversePath: path(arg)}
		s.say("250 2.1.0 Sender OK")
	case "RCPT":
		s.rcpt(path(arg))
	case "DATA":
		s.say("354 Start mail input; end with <CRLF>.<CRLF>")
		return s.data()
	case "BDAT":
		return s.bdat(strings.Fields(arg))
	case "RSET":
		s.letter = letter{}
		s.say("250 2.0.0 Resetting")
	case "NOOP":
		s.say("250 2.0.0 OK")
	case "QUIT":
		s.say("221 2.0.0 Service closing transmission channel")
		return errExchangeOver
	default:
		s.say("500 5.3.3 Unrecognized command")
	}
	return nil
}

// path is the address of MAIL's or RCPT's argument.
func path(arg string) string {
	_, rest, _ := strings.Cut(arg, "<")
	address, _, _ := strings.Cut(rest, ">")
	return address
}

var exchangeUsers = regexp.MustCompile(users)

func (s *exchangeSession) rcpt(to string) {
	if !exchangeUsers.MatchString(to) {
		s.say("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup")
		return
	}
	s.letter.to = append(s.letter.to, to)
	s.say("250 2.1.5 Recipient OK")
}

// data reads to CRLF "." CRLF.
func (s *exchangeSession) data() error {
	for {
		line, err := s.in.ReadBytes('\n')
		if err != nil {
			return err
		}
		if string(line) == ".\r\n" && (len(s.letter.octets) == 0 || bytes.HasSuffix(s.letter.octets, []byte("\r\n"))) {
			s.keep()
			return nil
		}
		s.letter.octets = append(s.letter.octets, bytes.TrimPrefix(line, []byte("."))...)
	}
}

func (s *exchangeSession) bdat(args []string) error {
	if len(args) == 0 {
		return errExchangeOver
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	chunk := make([]byte, n)
	if _, err := io.ReadFull(s.in, chunk); err != nil {
		return err
	}
	s.letter.octets = append(s.letter.octets, chunk...)
	if len(args) == 2 {
		s.keep()
		return nil
	}
	s.say(fmt.Sprintf("250 2.6.0 CHUNK received OK, %d octets", n))
	return nil
}

func (s *exchangeSession) keep() {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.scarce > 0 {
		s.server.scarce--
		s.say("452 4.3.1 Insufficient system resources (UsedDiskSpace[C:\\Exchange\\Queue])")
		return
	}
	s.server.mails = append(s.server.mails, s.letter)
	s.letter = letter{}
	s.say("250 2.6.0 <x@EX01.bravo.test> [InternalId=1, Hostname=EX01.bravo.test] Queued mail for delivery")
}

// got is what came for a mailbox.
func (x *exchangeServer) got(mailbox string) (list []letter) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range x.mails {
		for _, to := range m.to {
			if to == mailbox {
				list = append(list, m)
			}
		}
	}
	return list
}

// commands are all that clients have said.
func (x *exchangeServer) commands() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append([]string(nil), x.lines...)
}
