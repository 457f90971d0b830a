package dmtpclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"dimegate/dmtp"
)

// A Conn is one session inside TLS. It is not safe for concurrent use.
type Conn struct {
	host   string
	port   uint16
	o      *Options
	net    net.Conn
	br     *bufio.Reader
	state  tls.ConnectionState
	opened time.Time

	verified map[string]bool // the domains whose Verify accepted the certificate

	hello        bool
	maxSize      uint64 // by EHLO; 0 when none was announced
	pipelining   bool
	transactions int
	broken       bool // nothing more can be asked
	buf          []byte
}

// Host is the DX that the session is with.
func (c *Conn) Host() string { return c.host }

// State is the TLS state that the certificate was judged by.
func (c *Conn) State() tls.ConnectionState { return c.state }

// Remote is the address of the DX.
func (c *Conn) Remote() net.Addr { return c.net.RemoteAddr() }

// Close says QUIT, if the session is in step, and closes the connection.
func (c *Conn) Close() error {
	if !c.broken {
		c.ask(context.Background(), dmtp.Bare(dmtp.QUIT), c.o.Timeouts.Quit)
	}
	c.broken = true
	return c.net.Close()
}

// drop closes without a word.
func (c *Conn) drop() {
	c.broken = true
	c.net.Close()
}

// ask sends one command and reads its reply. An error leaves the session broken.
func (c *Conn) ask(ctx context.Context, cmd dmtp.Command, timeout time.Duration) (dmtp.Reply, error) {
	if err := c.send(ctx, timeout, cmd); err != nil {
		return dmtp.Reply{}, err
	}
	return c.read(ctx, timeout)
}

func (c *Conn) send(ctx context.Context, timeout time.Duration, cmds ...dmtp.Command) error {
	if c.broken {
		return net.ErrClosed
	}
	if c.br.Buffered() > 0 {
		c.broken = true
		return ErrOutOfStep
	}
	c.buf = c.buf[:0]
	for _, cmd := range cmds {
		c.buf = cmd.AppendTo(c.buf)
	}
	return c.within(ctx, timeout, func() error {
		_, err := c.net.Write(c.buf)
		return err
	})
}

func (c *Conn) read(ctx context.Context, timeout time.Duration) (r dmtp.Reply, err error) {
	err = c.within(ctx, timeout, func() (err error) {
		r, err = dmtp.ReadReply(c.br)
		return err
	})
	return r, err
}

// within runs a blocking operation with a deadline, which the end of ctx brings forward.
func (c *Conn) within(ctx context.Context, timeout time.Duration, op func() error) error {
	if err := c.net.SetDeadline(time.Now().Add(timeout)); err != nil {
		c.broken = true
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.net.SetDeadline(time.Unix(1, 0)) })
	err := op()
	if !stop() && err == nil {
		err = ctx.Err() // its deadline may still be about to be set: the session is of no more use
	}
	if err != nil {
		c.broken = true
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

// broke is the error of a step that had no reply.
func (c *Conn) broke(step string, err error) *Error {
	class := Network
	if errors.Is(err, dmtp.ErrReply) || errors.Is(err, ErrOutOfStep) {
		class = Protocol
	}
	if step == "banner" || step == "STARTTLS" {
		class = Network
	}
	return &Error{Class: class, Host: c.host, Step: step, Err: err}
}

// refused is the error of a step with a reply that it did not want. After 421 the peer closes; what it says in another code
// than those of the grammar leaves the session out of step.
func (c *Conn) refused(verb dmtp.Verb, r dmtp.Reply) *Error {
	e := &Error{Class: classify(verb, r.Code), Host: c.host, Step: verb.String(), Code: r.Code, Text: Words(r.Text)}
	if r.Code == 421 || e.Class == Protocol {
		c.broken = true
	}
	return e
}

// malformed is the error of a reply with the right code whose text cannot be used.
func (c *Conn) malformed(verb dmtp.Verb, r dmtp.Reply) *Error {
	c.broken = true
	return &Error{Class: Protocol, Host: c.host, Step: verb.String(), Code: r.Code, Text: Words(r.Text), Err: errReply}
}

// command asks with a look-up's or EHLO's command and wants 2xx. With single, the reply must be of one line.
func (c *Conn) command(ctx context.Context, cmd dmtp.Command, single bool) (dmtp.Reply, *Error) {
	r, err := c.ask(ctx, cmd, c.o.Timeouts.Command)
	if err != nil {
		return r, c.broke(cmd.Verb().String(), err)
	}
	if r.Code/100 != 2 {
		return r, c.refused(cmd.Verb(), r)
	}
	if single && strings.Contains(r.Text, "\n") {
		return r, c.malformed(cmd.Verb(), r)
	}
	return r, nil
}

// greet says EHLO, once, and learns what the peer can do.
func (c *Conn) greet(ctx context.Context, domain string) *Error {
	if c.hello {
		return nil
	}
	if c.o.Hello != "" {
		domain = c.o.Hello
	}
	r, err := c.command(ctx, dmtp.Hello{Domain: domain, Extended: true}, false)
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(r.Text, "\n") {
		word, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch strings.ToUpper(word) {
		case "PIPELINING":
			c.pipelining = true
		case "SIZE":
			c.maxSize, _ = strconv.ParseUint(strings.TrimSpace(arg), 10, 64)
		}
	}
	c.hello = true
	return nil
}
