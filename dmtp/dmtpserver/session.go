package dmtpserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"dimegate/dmtp"
)

// A state of a session, dmtp.md §6: G1 to G4. G0 is the front's (dual), G5 is inside data.
type state uint8

const (
	connected state = iota // inside TLS, no EHLO
	greeted                // EHLO done
	mailed                 // MAIL accepted
	rcpted                 // RCPT accepted
)

// maxRecord is the largest TLS record's contents: a reader of that size and more leaves nothing behind in the TLS layer.
const maxRecord = 16 << 10

// A session is one client inside TLS. One goroutine runs it.
type session struct {
	s    *Server
	v    *visit
	conn net.Conn
	br   *bufio.Reader

	state state
	mail  dmtp.Mail
	rcpt  dmtp.Rcpt
	org   *Organization

	violations, empty, long, transactions, lookups int
	afterData                                      bool // the next line may be the empty one that ends a message
}

// errBye ends a session after its last reply was sent.
var errBye = errors.New("dmtpserver: session ended")

// single serves port 26.
func (s *Server) single(ctx context.Context, raw net.Conn, v *visit) {
	conn := tls.Server(raw, s.tlsConfig(""))
	hctx, cancel := context.WithTimeout(ctx, s.c.Timeouts.Handshake)
	err := conn.HandshakeContext(hctx)
	cancel()
	if err != nil {
		s.c.Log.LogAttrs(ctx, slog.LevelDebug, "dmtp handshake", slog.String("peer", v.prefix.String()), slog.Any("error", err))
		return
	}
	ss := s.session(conn, v)
	defer ss.close()
	defer ss.wakeUp(ctx)()
	if v.over {
		ss.say(dmtp.ReplyTooMany)
		return
	}
	if ss.say(dmtp.Reply{Code: 220, Text: s.c.Host + " DMTPv1 " + s.c.Product}) == nil {
		ss.run(ctx)
	}
}

func (s *Server) session(conn net.Conn, v *visit) *session {
	return &session{s: s, v: v, conn: conn, br: bufio.NewReaderSize(conn, 2*maxRecord)}
}

// wakeUp interrupts what the session waits for when ctx ends, and leaves a reply five seconds to go out; the returned function
// takes that back.
func (ss *session) wakeUp(ctx context.Context) func() bool {
	return context.AfterFunc(ctx, func() {
		ss.conn.SetReadDeadline(time.Unix(1, 0))
		ss.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	})
}

// close ends TLS in order and the connection with it.
func (ss *session) close() { ss.conn.Close() }

// until sets the time at which waiting for the client ends. An ended ctx ends it at once.
func (ss *session) until(ctx context.Context, at time.Time) {
	ss.conn.SetReadDeadline(at)
	if ctx.Err() != nil {
		ss.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// run reads commands and answers them until the session ends.
func (ss *session) run(ctx context.Context) {
	for {
		idle := ss.s.c.Timeouts.Idle
		if ss.state == connected {
			idle = ss.s.c.Timeouts.Hello
		}
		ss.until(ctx, time.Now().Add(idle))
		line, err := dmtp.ReadLine(ss.br, dmtp.MaxCommandLine, false)
		if err == nil && len(line) == 0 {
			err = ss.emptyLine(ctx)
		} else {
			ss.afterData = false
			err = ss.line(ctx, string(line), err)
		}
		if err != nil {
			return
		}
	}
}

// line answers one line, or what is wrong with it. An error ends the session.
func (ss *session) line(ctx context.Context, line string, err error) error {
	switch {
	case errors.Is(err, dmtp.ErrLineTooLong):
		if ss.long++; ss.long >= 3 {
			ss.say(dmtp.ReplyLineTooLong)
			return errBye
		}
		return ss.answer(ctx, dmtp.ReplyLineTooLong)
	case errors.Is(err, dmtp.ErrLineOctets):
		return ss.answer(ctx, dmtp.ReplyBadCommand)
	case err != nil:
		return err
	}
	cmd, err := dmtp.Parse(line)
	if err != nil {
		perr, _ := errors.AsType[*dmtp.ParseError](err) // Parse has no other errors
		if foreign(line) {
			ss.say(perr.Reply)
			ss.linger(ctx)
			return errBye
		}
		return ss.misspelt(ctx, perr)
	}
	return ss.command(ctx, cmd)
}

// foreign tells the commands of other protocols behind which stands a body, which would be read as commands: SMTP's BDAT, and what a
// browser says that was led here.
func foreign(line string) bool {
	return len(line) > 4 && strings.EqualFold(line[:5], "BDAT ") || strings.Contains(line, " HTTP/1.")
}

// emptyLine ignores the line behind a message, and fifty others; then they count.
func (ss *session) emptyLine(ctx context.Context) error {
	if ss.afterData {
		ss.afterData = false
		return nil
	}
	if ss.empty++; ss.empty <= 50 {
		return nil
	}
	if ss.violations++; ss.violations >= ss.s.c.Limits.Violations {
		ss.say(dmtp.ReplyEnough)
		return errBye
	}
	ss.slow(ctx)
	return nil
}

// misspelt answers a line that is no command. A MAIL ends the transaction whatever its reply, and so does DATA.
func (ss *session) misspelt(ctx context.Context, perr *dmtp.ParseError) error {
	switch {
	case perr.Verb == dmtp.STARTTLS:
		return ss.answer(ctx, dmtp.ReplyEncrypted)
	case perr.Verb == dmtp.MAIL && ss.state > greeted:
		ss.reset()
	case perr.Verb == dmtp.DATA:
		return ss.refuseData(ctx, perr.Reply)
	}
	return ss.answer(ctx, perr.Reply)
}

// command is the table of dmtp.md §6: what each command does in each state.
func (ss *session) command(ctx context.Context, cmd dmtp.Command) error {
	switch c := cmd.(type) {
	case dmtp.StartTLS:
		return ss.answer(ctx, dmtp.ReplyEncrypted)
	case dmtp.Hello:
		return ss.answer(ctx, ss.hello(c))
	case dmtp.Sgnt:
		return ss.lookup(ctx, func() (dmtp.Reply, error) { return ss.sgnt(ctx, c) })
	case dmtp.Vrfy:
		return ss.lookup(ctx, func() (dmtp.Reply, error) { return ss.vrfy(ctx, c) })
	case dmtp.Hist:
		return ss.lookup(ctx, func() (dmtp.Reply, error) { return ss.hist(ctx, c) })
	case dmtp.Mail:
		return ss.mailFrom(ctx, c)
	case dmtp.Rcpt:
		return ss.answer(ctx, ss.rcptTo(ctx, c))
	case dmtp.Data:
		return ss.data(ctx, c)
	}
	switch cmd.Verb() {
	case dmtp.MODE:
		return ss.answer(ctx, dmtp.ReplyMode)
	case dmtp.NOOP:
		return ss.answer(ctx, dmtp.ReplyOK)
	case dmtp.RSET:
		ss.reset()
		return ss.answer(ctx, dmtp.ReplyOK)
	case dmtp.HELP:
		return ss.answer(ctx, helpReply)
	case dmtp.QUIT:
		ss.say(dmtp.ReplyBye)
		return errBye
	}
	return ss.answer(ctx, dmtp.ReplyDisabled) // STATS, VERB
}

var helpReply = dmtp.Reply{Code: 214, Text: strings.Join([]string{
	"AVAILABLE COMMANDS", "EHLO", "HELO", "MODE", "NOOP", "RSET", "HELP", "QUIT", "SGNT", "VRFY", "HIST", "MAIL", "RCPT", "DATA", "OK"}, "\n")}

func (ss *session) hello(c dmtp.Hello) dmtp.Reply {
	ss.state = greeted
	ss.reset()
	if !c.Extended {
		return dmtp.Reply{Code: 250, Text: ss.s.c.Host}
	}
	return dmtp.Reply{Code: 250, Text: ss.s.c.Host + "\nPIPELINING\n8BITDIME\nRETURN\nSIZE " +
		strconv.FormatUint(ss.s.c.Limits.Message, 10) + "\nCOMMIT\nOK"}
}

// reset ends the transaction, if there is one.
func (ss *session) reset() {
	if ss.state > greeted {
		ss.state = greeted
	}
	ss.mail, ss.rcpt, ss.org = dmtp.Mail{}, dmtp.Rcpt{}, nil
}

// answer sends the reply to a command. Violations are counted, and each is answered later than the one before; at the limit
// the session ends with 421 in place of the reply.
func (ss *session) answer(ctx context.Context, r dmtp.Reply) error {
	if r.Code == 500 || r.Code == 501 || r.Code == 503 {
		if ss.violations++; ss.violations >= ss.s.c.Limits.Violations {
			r = dmtp.ReplyEnough
		}
		ss.slow(ctx)
	}
	if err := ss.say(r); err != nil {
		return err
	}
	if r.Code == 421 {
		return errBye
	}
	return nil
}

func (ss *session) slow(ctx context.Context) {
	d := ss.s.c.Limits.Delay
	pause(ctx, min(20*d, d*time.Duration(ss.violations)))
}

// say writes a reply, every line in a TLS record of its own.
func (ss *session) say(r dmtp.Reply) error {
	for _, line := range r.Lines() {
		ss.conn.SetWriteDeadline(time.Now().Add(ss.s.c.Timeouts.Write))
		if _, err := io.WriteString(ss.conn, line); err != nil {
			return err
		}
	}
	return nil
}

// linger ends the session so that the last reply arrives although octets are left unread, which would otherwise reset the
// connection: it says that no more comes, and throws away what still does, for a moment.
func (ss *session) linger(ctx context.Context) {
	if c, ok := ss.conn.(interface{ CloseWrite() error }); ok {
		ss.conn.SetWriteDeadline(time.Now().Add(ss.s.c.Timeouts.Linger))
		c.CloseWrite()
	}
	ss.until(ctx, time.Now().Add(ss.s.c.Timeouts.Linger))
	io.CopyN(io.Discard, ss.br, 4<<20)
}
