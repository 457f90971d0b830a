package dmtpserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"dimegate/dmtp"
)

// A front speaks the first lines on the port that is shared with SMTP, in clear: state G0 of dmtp.md §6. What is not DMTP it
// hands to the SMTP engine, and takes the connection back when that session asks for DMTP after all.
type front struct {
	*session
	raw   net.Conn
	awake func() bool // takes back that the end of ctx interrupts a wait: while SMTP has the connection, its end is SMTP's affair
}

// dual serves port 25.
func (s *Server) dual(ctx context.Context, raw net.Conn, v *visit) {
	f := &front{session: s.session(raw, v), raw: raw}
	f.awake = f.wakeUp(ctx)
	defer func() { f.awake() }()
	if v.over && s.c.SMTP == nil { // else it may be SMTP's, which has limits of its own
		f.say(dmtp.ReplyTooMany)
		return
	}
	if f.say(dmtp.Reply{Code: 220, Text: s.c.Host + " ESMTP DMTPv1 " + s.c.Product}) != nil {
		return
	}
	for {
		f.until(ctx, time.Now().Add(s.c.Timeouts.Hello))
		line, err := f.firstLine()
		if err != nil || f.clear(ctx, line) != nil {
			return
		}
	}
}

// firstLine reads a line with its end, which may be as long as SMTP's engine likes: a piece of a longer one is enough to see
// that it is not ours.
func (f *front) firstLine() ([]byte, error) {
	line, err := f.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	return line, err
}

// clear decides about one line, dmtp.md OC-12. A nil error means that the next line decides.
func (f *front) clear(ctx context.Context, line []byte) error {
	text, isText := printable(line)
	word, args, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
	bracketed := strings.ContainsAny(args, "<>")
	switch verb := strings.ToUpper(word); {
	case !isText:
	case text == "":
		return f.emptyLine(ctx)
	case verb == "STARTTLS" && ours(args):
		return f.startTLS(ctx, text)
	case verb == "MODE" && strings.TrimSpace(args) == "":
		return f.answer(ctx, dmtp.ReplyModeClear)
	case verb == "QUIT" && strings.TrimSpace(args) == "":
		f.say(dmtp.ReplyBye)
		return errBye
	case verb == "SGNT" || verb == "HIST" || (verb == "EHLO" || verb == "HELO") && bracketed:
		return f.answer(ctx, dmtp.ReplyNeedTLS)
	}
	return f.smtp(ctx, line)
}

// ours tells the DMTP form of STARTTLS by its argument.
func ours(args string) bool {
	args = strings.TrimLeft(args, " ")
	return strings.HasPrefix(args, "<") || len(args) >= 5 && strings.EqualFold(args[:5], "HOST=")
}

// printable is a line without its end, if it is one whole line of text.
func printable(line []byte) (string, bool) {
	text, whole := bytes.CutSuffix(line, []byte("\n"))
	text = bytes.TrimSuffix(text, []byte("\r"))
	for _, c := range text {
		if c < ' ' && c != '\t' || c > '~' {
			return "", false
		}
	}
	return string(text), whole && len(line) <= dmtp.MaxCommandLine
}

// startTLS goes over to TLS with the certificate of the host that the line names, and to DMTP, or to SMTP if it says so. After
// a refusal the session goes on in clear.
func (f *front) startTLS(ctx context.Context, text string) error {
	if f.v.over {
		return f.answer(ctx, dmtp.ReplyTooMany)
	}
	cmd, err := dmtp.Parse(text)
	c, ok := cmd.(dmtp.StartTLS)
	if err != nil || !ok {
		return f.answer(ctx, dmtp.ReplyBadStartTLS)
	}
	host, ok := f.certificateFor(ctx, c.Host)
	if !ok {
		return f.answer(ctx, dmtp.ReplyNoCertificate)
	}
	if err := f.say(dmtp.Reply{Code: 220, Text: "SENDING CERTIFICATE FOR DOMAIN <" + c.Host + ">\nREADY"}); err != nil {
		return err
	}
	// What is in f.br was sent before the handshake by nobody knows whom: it is dropped with its reader. What arrives later
	// can only spoil the handshake.
	conn := tls.Server(f.raw, f.s.tlsConfig(host))
	f.raw.SetDeadline(time.Time{})
	hctx, cancel := context.WithTimeout(ctx, f.s.c.Timeouts.Handshake)
	defer cancel()
	if err := conn.HandshakeContext(hctx); err != nil {
		f.s.c.Log.LogAttrs(ctx, slog.LevelDebug, "dmtp handshake", slog.String("peer", f.v.prefix.String()), slog.Any("error", err))
		return err
	}
	inner := f.s.session(conn, f.v)
	inner.violations = f.violations
	defer inner.close()
	awake := inner.wakeUp(ctx)
	defer awake()
	if c.Mode == dmtp.ModeSMTP {
		if inner.say(dmtp.ReplySwitchedSMTP) == nil {
			f.awake()
			(&front{session: inner, raw: conn, awake: awake}).smtpInTLS(ctx)
		}
		return errBye
	}
	if inner.say(dmtp.ReplySwitched) == nil {
		inner.run(ctx)
	}
	return errBye
}

// certificateFor finds the name under which there is a certificate: the host itself, or for a mail domain of ours the first.
func (f *front) certificateFor(ctx context.Context, host string) (string, bool) {
	if f.s.c.Certificates.has(host) {
		return host, true
	}
	ctx, cancel := context.WithTimeout(ctx, f.s.c.Timeouts.Lookup)
	defer cancel()
	_, err := f.s.c.Domains.Organization(ctx, host)
	return f.s.c.Host, err == nil
}

// smtp hands the session over, beginning with the line that decided it. It returns nil when a STARTTLS of ours came later and
// the SMTP session was dropped for it.
func (f *front) smtp(ctx context.Context, line []byte) error {
	if f.s.c.SMTP == nil {
		if len(line) == 0 || line[len(line)-1] != '\n' {
			return errBye // a piece of a line
		}
		if f.violations++; f.violations >= f.s.c.Limits.Violations {
			return f.answer(ctx, dmtp.ReplyEnough)
		}
		return f.answer(ctx, f.noSMTP())
	}
	f.v.leave()
	c := newSMTPConn(f.raw, io.MultiReader(bytes.NewReader(bytes.Clone(line)), f.br))
	f.awake()
	f.raw.SetDeadline(time.Time{})
	f.s.c.SMTP(ctx, c)
	asked := c.takeBack()
	if asked == "" {
		return errBye
	}
	f.awake = f.wakeUp(ctx)
	if !f.v.again() {
		return f.answer(ctx, dmtp.ReplyTooMany)
	}
	f.br = c.br
	return f.startTLS(ctx, asked)
}

func (f *front) noSMTP() dmtp.Reply {
	return dmtp.Reply{Code: 554, Text: f.s.c.Host + " SMTP SERVICE NOT AVAILABLE"}
}

func (f *front) smtpInTLS(ctx context.Context) {
	if f.s.c.SMTP == nil {
		f.say(f.noSMTP())
		return
	}
	f.v.leave()
	f.awake()
	f.raw.SetDeadline(time.Time{})
	c := newSMTPConn(f.raw, f.br)
	c.sealed()
	f.s.c.SMTP(ctx, c)
}
