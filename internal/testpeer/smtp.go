package testpeer

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"time"
)

// An SMTPClient is a client that sends octets as they are: nothing is converted, completed or refused on the way.
// (net/smtp and go-smtp mend line endings, and a test must not.) It is for one goroutine.
type SMTPClient struct {
	conn net.Conn
	text *textproto.Reader
	Ext  map[string]string // what EHLO announced, upper case, with its parameters

	Opened time.Time     // when the session began
	Waited time.Duration // how long the last message's end waited for its 250
}

// sessionTimeout bounds one session of the client as a whole.
const sessionTimeout = 5 * time.Minute

// DialSMTP connects and says EHLO.
func DialSMTP(ctx context.Context, addr string) (*SMTPClient, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(sessionTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = conn.SetDeadline(deadline) // fails on a closed connection only, and then so does the next line
	c := &SMTPClient{conn: conn, text: textproto.NewReader(bufio.NewReader(conn)), Ext: map[string]string{}, Opened: time.Now()}
	if _, err := c.reply(220); err != nil {
		conn.Close()
		return nil, err
	}
	text, err := c.Command(250, "EHLO client.test")
	if err != nil {
		conn.Close()
		return nil, err
	}
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		c.Ext[strings.ToUpper(word)] = rest
	}
	return c, nil
}

// Command sends a line and wants a reply code; any other is a *textproto.Error.
func (c *SMTPClient) Command(want int, line string) (string, error) {
	if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
		return "", err
	}
	return c.reply(want)
}

func (c *SMTPClient) reply(want int) (string, error) {
	_, text, err := c.text.ReadResponse(want)
	return text, err
}

// Send sends one message; an empty from is the null reverse-path, and params follow MAIL, such as BODY=8BITMIME. The body
// goes out with its dots doubled and nothing else changed; it must end in CRLF.
func (c *SMTPClient) Send(from string, to []string, body []byte, params ...string) error {
	if !bytes.HasSuffix(body, []byte("\r\n")) {
		return fmt.Errorf("testpeer: a message must end in CRLF")
	}
	if _, err := c.Command(250, strings.TrimSpace("MAIL FROM:<"+from+"> "+strings.Join(params, " "))); err != nil {
		return fmt.Errorf("MAIL: %w", err)
	}
	for _, rcpt := range to {
		if _, err := c.Command(250, "RCPT TO:<"+rcpt+">"); err != nil {
			return fmt.Errorf("RCPT: %w", err)
		}
	}
	if _, err := c.Command(354, "DATA"); err != nil {
		return fmt.Errorf("DATA: %w", err)
	}
	if _, err := c.conn.Write(append(stuff(body), ".\r\n"...)); err != nil {
		return err
	}
	ended := time.Now()
	if _, err := c.reply(250); err != nil {
		return fmt.Errorf("end of data: %w", err)
	}
	c.Waited = time.Since(ended)
	return nil
}

// stuff doubles the dot at the start of every line (RFC 5321 §4.5.2). Only CRLF ends a line.
func stuff(body []byte) []byte {
	out := bytes.ReplaceAll(body, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(out, []byte(".")) {
		out = append([]byte("."), out...)
	}
	return out
}

// Close says QUIT and hangs up.
func (c *SMTPClient) Close() error {
	_, _ = c.Command(221, "QUIT") // politeness: the message is safe by now
	return c.conn.Close()
}

// CRLF turns the line endings of a file into those of the wire: a bare LF becomes CRLF, and a last line gets its end.
// A bare CR stays.
func CRLF(b []byte) []byte {
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	b = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
	if !bytes.HasSuffix(b, []byte("\r\n")) {
		b = append(b, "\r\n"...)
	}
	return b
}
