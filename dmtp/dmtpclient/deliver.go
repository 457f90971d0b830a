package dmtpclient

import (
	"context"
	"crypto/sha512"
	"io"
	"strings"
	"time"

	"dimegate/dmtp"
)

// An Envelope is what a destination learns beside the message: two domains, and the signets that were used.
type Envelope struct {
	Origin, Destination string   // domains
	OriginSignet        [64]byte // full fingerprint of the origin's organizational signet
	DestinationSignet   [64]byte // full fingerprint of the destination's, whose encryption key was used
}

// A Receipt says how a message was accepted.
type Receipt struct {
	Host        string
	Code        int        // 254 or 250; 255 when the destination already had the message
	Commit      dmtp.Token // of the octets sent
	Transaction Words      // what the peer put in brackets, for the log
}

// Duplicate reports whether the destination already had the message.
func (r Receipt) Duplicate() bool { return r.Code == 255 }

// Deliver hands one message over. A nil error means that the destination has taken it: it must not be sent again. After a
// refusal the session can be used for the next message; see Usable.
func (c *Conn) Deliver(ctx context.Context, env Envelope, message []byte) (Receipt, error) {
	if err := c.greet(ctx, env.Origin); err != nil {
		return Receipt{}, err
	}
	if c.maxSize > 0 && uint64(len(message)) > c.maxSize {
		return Receipt{}, &Error{Class: Permanent, Host: c.host, Step: "MAIL", Code: 552, Err: ErrTooLarge}
	}
	c.transactions++
	if err := c.envelope(ctx, env, len(message)); err != nil {
		return Receipt{}, err
	}
	receipt := Receipt{Host: c.host, Commit: dmtp.TokenOf(sha512.Sum512(message))}
	r, err := c.ask(ctx, dmtp.Data{Commit: receipt.Commit}, c.o.Timeouts.Data)
	switch {
	case err != nil:
		return Receipt{}, c.broke("DATA", err)
	case r.Code == 255:
		return c.duplicate(receipt, r)
	case r.Code/100 != 3:
		return Receipt{}, c.refused(dmtp.DATA, r)
	}
	r, err = c.transfer(ctx, message)
	if err != nil {
		e := c.broke("message", err)
		e.Sent = true
		return Receipt{}, e
	}
	if r.Code/100 != 2 {
		e := c.refused(dmtp.DATA, r)
		e.Step, e.Sent = "message", true
		return Receipt{}, e
	}
	return receipt.with(r), nil
}

// envelope sends MAIL and RCPT, in one write where the peer allows it.
func (c *Conn) envelope(ctx context.Context, env Envelope, size int) *Error {
	cmds := [...]dmtp.Command{
		dmtp.Mail{Origin: env.Origin, Signet: dmtp.TokenOf(env.OriginSignet), Size: uint64(size), HasSize: true},
		dmtp.Rcpt{Destination: env.Destination, Signet: dmtp.TokenOf(env.DestinationSignet)},
	}
	if c.pipelining {
		if err := c.send(ctx, c.o.Timeouts.Transaction, cmds[:]...); err != nil {
			return c.broke("MAIL", err)
		}
	}
	var failed *Error
	for _, cmd := range cmds {
		if !c.pipelining {
			if failed != nil {
				break
			}
			if err := c.send(ctx, c.o.Timeouts.Transaction, cmd); err != nil {
				return c.broke(cmd.Verb().String(), err)
			}
		}
		r, err := c.read(ctx, c.o.Timeouts.Transaction)
		if err != nil {
			if failed != nil {
				return failed // 421 to MAIL, and the peer is gone
			}
			return c.broke(cmd.Verb().String(), err)
		}
		if r.Code/100 != 2 && failed == nil {
			broken := c.broken
			failed = c.refused(cmd.Verb(), r)
			c.broken = broken || r.Code == 421 // the reply to RCPT is still to be read
		}
	}
	if failed != nil && failed.Class == Protocol {
		c.broken = true
	}
	return failed
}

// block is how much of a message is written under one deadline.
const block = 256 << 10

// transfer writes the message and a CRLF, and waits for the verdict. A peer may give it early and close: then writing fails,
// and what it said is still worth reading.
func (c *Conn) transfer(ctx context.Context, message []byte) (dmtp.Reply, error) {
	for rest := message; ; {
		n := min(len(rest), block)
		c.buf = append(c.buf[:0], rest[:n]...)
		if rest = rest[n:]; len(rest) == 0 {
			c.buf = append(c.buf, "\r\n"...)
		}
		err := c.within(ctx, c.o.Timeouts.Block, func() error {
			n, err := c.net.Write(c.buf)
			if err == nil && n < len(c.buf) {
				err = io.ErrShortWrite
			}
			return err
		})
		if err != nil {
			if r, rerr := c.read(ctx, min(c.o.Timeouts.Final, 5*time.Second)); rerr == nil {
				return r, nil
			}
			return dmtp.Reply{}, err
		}
		if len(rest) == 0 {
			break
		}
	}
	return c.read(ctx, c.o.Timeouts.Final)
}

// duplicate takes a peer's word that it has the message already, without sending it. It must mean this message.
func (c *Conn) duplicate(receipt Receipt, r dmtp.Reply) (Receipt, error) {
	receipt = receipt.with(r)
	if receipt.Transaction != Words(receipt.Commit) {
		return Receipt{}, c.malformed(dmtp.DATA, r)
	}
	return receipt, nil
}

// with adds what the peer said. The bracket may be missing.
func (r Receipt) with(reply dmtp.Reply) Receipt {
	r.Code = reply.Code
	if _, rest, ok := strings.Cut(reply.Text, "["); ok {
		id, _, _ := strings.Cut(rest, "]")
		r.Transaction = Words(id)
	}
	return r
}

// Usable reports whether the session can take another command.
func (c *Conn) Usable() bool { return !c.broken && c.br.Buffered() == 0 }
