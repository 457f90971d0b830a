package smtpwire

import (
	"context"
	"errors"
	"io"
	"time"
)

// Mail begins a message that goes on step by step, while it is still coming in: Mail, Recipient for each, Stream. To is not
// used. Of f, Octets is what is known of the size, 0 for nothing; EightBit asks for 8BITMIME.
//
// Errors of the steps are *Error, with which the session stays usable and the transaction open as the server has it, and the
// network's.
func (c *Client) Mail(ctx context.Context, t Transaction, f Facts) error {
	t.To, f.FinalEnd = "postmaster", true // a name that every server can be asked for
	p, err := c.plan(t, f)
	if err != nil {
		return err
	}
	return c.during(ctx, func() error {
		r, err := c.command(p.mail)
		return expect(2, StageMail, r, err)
	})
}

// Recipient adds one.
func (c *Client) Recipient(ctx context.Context, to string) error {
	_, utf8 := c.ext["SMTPUTF8"]
	if !validPath(to) || to == "" || !utf8 && !ascii(to) {
		return &Error{Reply: Reply{Code: 553, Enhanced: [3]int{5, 1, 3}, Text: "an address that SMTP cannot carry"}, Stage: StageRcpt, Local: true}
	}
	return c.during(ctx, func() error {
		r, err := c.command("RCPT TO:<" + to + ">")
		return expect(2, StageRcpt, r, err)
	})
}

// Stream sends the message by DATA while it is read, and returns the server's verdict. Its lines must end with CRLF, and the
// last one gets its end if it has none. When reading fails the connection is closed in the middle of the message, so that the
// server cannot take it for a whole one. Errors: also ErrUncertain, *ReadError.
func (c *Client) Stream(ctx context.Context, r io.Reader) (verdict Reply, err error) {
	err = c.during(ctx, func() error {
		if err := c.write("DATA"); err != nil {
			return err
		}
		said, err := c.read(or(c.timeouts.Data, 2*time.Minute))
		if err := expect(3, StageData, said, err); err != nil {
			return err
		}
		w, src := newDotWriter(c.out), &source{r: r}
		if _, err = io.Copy(w, src); src.err != nil {
			c.conn.Close()
			return &ReadError{src.err}
		}
		if err == nil {
			err = w.Close()
		}
		if err == nil {
			err = c.out.Flush()
		}
		if err != nil {
			return c.verdict(err)
		}
		if verdict, err = c.read(or(c.timeouts.Verdict, 10*time.Minute)); err != nil {
			c.conn.Close()
			return errors.Join(ErrUncertain, err)
		}
		return expect(2, StageBody, verdict, nil)
	})
	return verdict, err
}

// A ReadError is what ended the reading of a message that was to be sent.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return "smtpwire: reading the message: " + e.Err.Error() }
func (e *ReadError) Unwrap() error { return e.Err }

// A source remembers why reading ended, if it was no end.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}
