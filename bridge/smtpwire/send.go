package smtpwire

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

// A Transaction is one message to one recipient.
type Transaction struct {
	From string // reverse-path: an address, or "" for the null one
	To   string
	// UTF8 asks for SMTPUTF8 although both addresses are ASCII: an internationalized message that must not be downgraded.
	UTF8 bool
	// RequireTLS asks that no server on the way sends it on without TLS to a proved peer (RFC 8689). It is refused where the
	// server does not offer it.
	RequireTLS bool
	DSN        DSN
	// Caller is whom it came from, for servers that are told (see XClient, XForward).
	Caller Caller
}

// A DSN is what RFC 3461 adds to MAIL and RCPT, already in the form of the wire (xtext). It is left out when the server does
// not offer it.
type DSN struct{ Ret, EnvID, Notify, Orcpt string }

// ErrUncertain means that the connection ended between the last octet of a message and its verdict: the server may have
// taken it.
var ErrUncertain = errors.New("smtpwire: the connection ended before the verdict on a message that was sent whole")

// Send sends one message. It goes out octet for octet, or not at all: what the server cannot carry is refused with an *Error
// that is Local. One thing DATA cannot carry is a last line without its end; where the server takes BDAT it goes so, else the
// line end is added.
//
// Errors: *Error, ErrUncertain, the reader's, the network's. f is what Examine says of m.
func (c *Client) Send(ctx context.Context, t Transaction, f Facts, m Message) error {
	p, err := c.plan(t, f)
	if err != nil {
		return err
	}
	return c.during(ctx, func() error {
		if p.chunk {
			return c.sendChunk(p, f, m)
		}
		return c.sendData(p, m)
	})
}

// Can tells whether the server could carry such a message: nil, or the *Error that Send would end with before it sent anything.
func (c *Client) Can(t Transaction, f Facts) error {
	_, err := c.plan(t, f)
	return err
}

// Try asks about a recipient and takes the question back.
func (c *Client) Try(ctx context.Context, from, to string) error {
	p, err := c.plan(Transaction{From: from, To: to}, Facts{FinalEnd: true})
	if err != nil {
		return err
	}
	return c.during(ctx, func() error {
		err := c.pipeline([]Stage{StageMail, StageRcpt}, []string{p.mail, p.rcpt}, nil)
		var refused *Error
		if err == nil || errors.As(err, &refused) {
			if r, rerr := c.command("RSET"); rerr != nil || r.Code/100 != 2 {
				c.conn.Close() // the answer stands, the session does not
			}
		}
		return err
	})
}

// A plan is how a message will go.
type plan struct {
	mail, rcpt string
	chunk      bool // by BDAT
}

// plan holds what a message needs against what the server offers.
func (c *Client) plan(t Transaction, f Facts) (plan, error) {
	var p plan
	refuse := func(code int, detail [2]int, text string) (plan, error) {
		return plan{}, &Error{Reply: Reply{Code: code, Enhanced: [3]int{code / 100, detail[0], detail[1]}, Text: text}, Stage: StageMail, Local: true}
	}
	if !validPath(t.From) || !validPath(t.To) || t.To == "" {
		return refuse(553, [2]int{1, 3}, "an address that SMTP cannot carry")
	}
	_, utf8 := c.ext["SMTPUTF8"]
	_, eight := c.ext["8BITMIME"]
	_, chunking := c.ext["CHUNKING"]
	_, binary := c.ext["BINARYMIME"]
	_, requireTLS := c.ext["REQUIRETLS"]
	needs := t.UTF8 || !ascii(t.From) || !ascii(t.To)
	switch limit := c.maxSize(); {
	case needs && !utf8:
		return refuse(553, [2]int{6, 7}, "the next server does not offer SMTPUTF8")
	case t.RequireTLS && !(requireTLS && c.tls):
		return refuse(550, [2]int{7, 30}, "the next server does not offer REQUIRETLS")
	case f.EightBit && !eight:
		return refuse(554, [2]int{6, 3}, "the next server does not offer 8BITMIME")
	case f.BareEnds && !(binary && chunking):
		return refuse(554, [2]int{6, 0}, "the next server cannot take a line that ends with CR or LF alone")
	case limit > 0 && f.Octets > limit:
		return refuse(552, [2]int{3, 4}, "larger than the next server takes")
	}
	p.chunk = chunking && (f.BareEnds || !f.FinalEnd && f.Octets > 0)

	mail := "MAIL FROM:<" + t.From + ">"
	if _, ok := c.ext["SIZE"]; ok && f.Octets > 0 {
		mail += " SIZE=" + strconv.FormatInt(f.Octets, 10)
	}
	switch {
	case f.BareEnds:
		mail += " BODY=BINARYMIME"
	case f.EightBit:
		mail += " BODY=8BITMIME"
	}
	if needs {
		mail += " SMTPUTF8"
	}
	if t.RequireTLS {
		mail += " REQUIRETLS"
	}
	p.mail, p.rcpt = mail, "RCPT TO:<"+t.To+">"
	if _, ok := c.ext["DSN"]; ok {
		add := func(line *string, name, value string) {
			if value != "" && !strings.ContainsAny(value, " \t\r\n\x00") {
				*line += " " + name + "=" + value
			}
		}
		add(&p.mail, "RET", t.DSN.Ret)
		add(&p.mail, "ENVID", t.DSN.EnvID)
		add(&p.rcpt, "NOTIFY", t.DSN.Notify)
		add(&p.rcpt, "ORCPT", t.DSN.Orcpt)
	}
	return p, nil
}

// pipeline sends commands, together where the server allows it, and reads their replies. It returns the first refusal. went
// is called with each reply that came, in order.
func (c *Client) pipeline(stages []Stage, lines []string, went func(Stage, Reply)) error {
	_, together := c.ext["PIPELINING"]
	if together {
		if err := c.write(strings.Join(lines, "\r\n")); err != nil {
			return err
		}
	}
	var refused error
	for i, stage := range stages {
		if !together {
			if err := c.write(lines[i]); err != nil {
				return err
			}
		}
		wait, class := or(c.timeouts.Command, 5*time.Minute), 2
		if stage == StageData {
			wait, class = or(c.timeouts.Data, 2*time.Minute), 3
		}
		r, err := c.read(wait)
		if err != nil {
			if refused != nil { // the verdict is known, and the server hung up
				return refused
			}
			return err
		}
		if went != nil {
			went(stage, r)
		}
		if err := expect(class, stage, r, nil); err != nil && refused == nil {
			if refused = err; !together {
				return refused
			}
		}
	}
	return refused
}

func (c *Client) sendData(p plan, m Message) error {
	open := false
	err := c.pipeline([]Stage{StageMail, StageRcpt, StageData}, []string{p.mail, p.rcpt, "DATA"}, func(s Stage, r Reply) {
		open = open || s == StageData && r.Code/100 == 3
	})
	if err != nil {
		if open { // no recipient, and the server waits for a message: RFC 2920 §3.1 gives it an empty one
			if r, derr := c.command("."); derr != nil || r.Code/100 == 2 {
				c.conn.Close()
			}
		}
		return err
	}
	w := newDotWriter(c.out)
	n, err := io.Copy(w, m.Reader())
	if err == nil && n != m.Len() {
		err = errors.New("smtpwire: a message of another length than it said")
	}
	if err == nil {
		err = w.Close()
	}
	return c.verdict(err)
}

func (c *Client) sendChunk(p plan, f Facts, m Message) error {
	if err := c.pipeline([]Stage{StageMail, StageRcpt}, []string{p.mail, p.rcpt}, nil); err != nil {
		return err
	}
	_, err := io.WriteString(c.out, "BDAT "+strconv.FormatInt(f.Octets, 10)+" LAST\r\n")
	if err == nil {
		var n int64
		if n, err = io.Copy(c.out, m.Reader()); err == nil && n != f.Octets {
			err = errors.New("smtpwire: a message of another length than it said")
		}
	}
	return c.verdict(err)
}

// verdict flushes a message that was written and waits for what the server says to it. A failure before the last octet
// leaves the message undelivered: the connection is closed in the middle of it. But a server that hung up may have said why.
func (c *Client) verdict(err error) error {
	if err == nil {
		err = c.out.Flush()
	}
	if err != nil {
		c.conn.SetReadDeadline(time.Now().Add(time.Second))
		if r, rerr := readReply(c.in); rerr == nil && r.Code >= 400 {
			err = &Error{Reply: r, Stage: StageBody}
		}
		c.conn.Close()
		return err
	}
	r, err := c.read(or(c.timeouts.Verdict, 10*time.Minute))
	if err != nil {
		c.conn.Close()
		return errors.Join(ErrUncertain, err)
	}
	return expect(2, StageBody, r, nil)
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] > 0x7f {
			return false
		}
	}
	return true
}

// validPath is what can stand between the brackets of a path without ending it.
func validPath(s string) bool {
	if len(s) > 1024 {
		return false
	}
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			return false
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '<' || c == '>' || c == ' '):
			return false
		}
	}
	return !quoted
}
