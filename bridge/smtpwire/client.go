package smtpwire

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
)

// Timeouts are how long a client waits (RFC 5321 §4.5.3.2). A zero stands for the default.
type Timeouts struct {
	Banner  time.Duration // default 5m
	Command time.Duration // EHLO, MAIL, RCPT, …; default 5m
	Data    time.Duration // the reply to DATA; default 2m
	Block   time.Duration // a block of the body to go out; default 3m
	Verdict time.Duration // the reply to the message; default 10m
}

func or(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return def
}

// A Client is one SMTP or LMTP session of ours. Its methods are called one at a time; each ends with its context. After an
// error that is no *Error the session is of no more use.
type Client struct {
	name     string
	lmtp     bool
	timeouts Timeouts

	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	ext  map[string]string
	tls  bool
}

// NewClient speaks over conn, which may be a *tls.Conn already, introducing itself by name. It starts nothing: see Greet.
func NewClient(conn net.Conn, name string, lmtp bool, t Timeouts) *Client {
	c := &Client{name: name, lmtp: lmtp, timeouts: t}
	_, c.tls = conn.(*tls.Conn)
	c.use(conn)
	return c
}

func (c *Client) use(conn net.Conn) {
	c.conn = conn
	c.in = bufio.NewReaderSize(conn, maxReplyLine+16)
	c.out = bufio.NewWriterSize(blockWriter{c}, 32<<10)
	c.ext = nil
}

// blockWriter gives each block of octets its own time.
type blockWriter struct{ *Client }

func (b blockWriter) Write(p []byte) (int, error) {
	b.conn.SetWriteDeadline(time.Now().Add(or(b.timeouts.Block, 3*time.Minute)))
	return b.conn.Write(p)
}

// during runs one exchange; when ctx ends it fails at once.
func (c *Client) during(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err := f()
	if !stop() && err != nil {
		return errors.Join(ctx.Err(), err) // what err says of the message still counts
	}
	return err
}

// read waits for one reply.
func (c *Client) read(d time.Duration) (Reply, error) {
	c.conn.SetReadDeadline(time.Now().Add(d))
	r, err := readReply(c.in)
	return r, cutShort(err)
}

// command sends lines and waits for one reply.
func (c *Client) command(text string) (Reply, error) {
	if err := c.write(text); err != nil {
		return Reply{}, err
	}
	return c.read(or(c.timeouts.Command, 5*time.Minute))
}

func (c *Client) write(text string) error {
	if _, err := c.out.WriteString(text + "\r\n"); err != nil {
		return err
	}
	return c.out.Flush()
}

// expect makes an error of a reply of another class.
func expect(class int, stage Stage, r Reply, err error) error {
	if err == nil && r.Code/100 != class {
		err = &Error{Reply: r, Stage: stage}
	}
	return err
}

// Greet waits for the banner and introduces us: EHLO, or HELO to a server that does not know it, or LHLO.
func (c *Client) Greet(ctx context.Context) error {
	return c.during(ctx, func() error {
		r, err := c.read(or(c.timeouts.Banner, 5*time.Minute))
		if err := expect(2, StageBanner, r, err); err != nil {
			return err
		}
		return c.hello(c.name)
	})
}

func (c *Client) hello(name string) error {
	verb := "EHLO"
	if c.lmtp {
		verb = "LHLO"
	}
	if err := c.write(verb + " " + name); err != nil {
		return err
	}
	c.conn.SetReadDeadline(time.Now().Add(or(c.timeouts.Command, 5*time.Minute)))
	r, lines, err := readLines(c.in)
	if err != nil {
		return cutShort(err)
	}
	c.ext = map[string]string{}
	if !c.lmtp && (r.Code == 500 || r.Code == 502) {
		r, err = c.command("HELO " + name)
		return expect(2, StageHello, r, err)
	}
	for _, l := range lines[1:] {
		word, param, _ := strings.Cut(l, " ")
		c.ext[strings.ToUpper(word)] = param
	}
	return expect(2, StageHello, r, nil)
}

// Offers tells whether the server offers an extension, and its parameter.
func (c *Client) Offers(ext string) (param string, ok bool) {
	param, ok = c.ext[ext]
	return param, ok
}

// TLS tells whether the session is encrypted.
func (c *Client) TLS() bool { return c.tls }

// StartTLS encrypts the session and introduces us again.
func (c *Client) StartTLS(ctx context.Context, cfg *tls.Config) error {
	return c.during(ctx, func() error {
		r, err := c.command("STARTTLS")
		if err := expect(2, StageStartTLS, r, err); err != nil {
			return err
		}
		if c.in.Buffered() > 0 { // injected before the encryption began (CVE-2021-38371 and others)
			return fmt.Errorf("%w: octets behind the reply to STARTTLS", ErrProtocol)
		}
		t := tls.Client(c.conn, cfg)
		c.conn.SetDeadline(time.Now().Add(or(c.timeouts.Command, 5*time.Minute)))
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		c.conn.SetDeadline(time.Time{})
		c.use(t)
		c.tls = true
		return c.hello(c.name)
	})
}

// Auth proves who we are. Only over TLS.
func (c *Client) Auth(ctx context.Context, a sasl.Client) error {
	if !c.tls {
		return errors.New("smtpwire: no password goes over a session without TLS")
	}
	return c.during(ctx, func() error {
		mech, resp, err := a.Start()
		if err != nil {
			return err
		}
		line := "AUTH " + mech
		if resp != nil {
			line += " " + encodeSASL(resp)
		}
		for {
			r, err := c.command(line)
			if err == nil && r.Code == 235 {
				return nil
			}
			if err := expect(3, StageAuth, r, err); err != nil {
				return err
			}
			challenge, err := base64.StdEncoding.DecodeString(r.Text)
			if err == nil {
				resp, err = a.Next(challenge)
			}
			if err != nil {
				c.command("*")
				return err
			}
			line = encodeSASL(resp)
		}
	})
}

func encodeSASL(b []byte) string {
	if len(b) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(b)
}

// Reset forgets the transaction. It also tells whether a session that was kept is still alive.
func (c *Client) Reset(ctx context.Context) error {
	return c.during(ctx, func() error {
		r, err := c.command("RSET")
		return expect(2, StageHello, r, err)
	})
}

// Noop lets the server know that we are still there.
func (c *Client) Noop(ctx context.Context) error {
	return c.during(ctx, func() error {
		_, err := c.command("NOOP")
		return err
	})
}

// Quit says goodbye and closes; a server that does not answer at once is not waited for.
func (c *Client) Quit() {
	c.conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.out.WriteString("QUIT\r\n"); err == nil && c.out.Flush() == nil {
		c.in.ReadSlice('\n')
	}
	c.conn.Close()
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// maxSize is the limit the server announced, 0 for none.
func (c *Client) maxSize() int64 {
	n, err := strconv.ParseInt(c.ext["SIZE"], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
