package scanner

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/emersion/go-milter"
)

// A milterEngine is a milter (the protocol of Sendmail's libmilter, version 6). Each message has a connection of its own.
type milterEngine struct {
	Address
	c Config
}

// The steps that a milter may leave out, and that it may have the white space before a field's body. Old ones know the steps only.
// (That one may have seen enough of a body is not offered: go-milter takes that answer for a fault.)
const (
	oldSteps = milter.OptNoConnect | milter.OptNoHelo | milter.OptNoMailFrom | milter.OptNoRcptTo | milter.OptNoBody | milter.OptNoHeaders | milter.OptNoEOH
	steps    = oldSteps | milter.OptNoUnknown | milter.OptNoData | milter.OptHeaderLeadingSpace
)

// actions are what a milter may do.
func (m *milterEngine) actions() milter.OptAction {
	if m.c.IgnoreChanges {
		return milter.OptQuarantine | milter.OptAddHeader | milter.OptChangeHeader
	}
	return milter.OptQuarantine
}

// Faults of a milter.
var (
	errWants = errors.New("it wants to change messages, which is refused: configure it to judge only, or see scanner.header_changes")
	errOver  = errors.New("it ended the negotiation: it may want to change messages, see scanner.header_changes")
	errMuch  = errors.New("it says too much")
)

// session connects and negotiates. The connection ends with ctx, and with end.
func (m *milterEngine) session(ctx context.Context) (s *milter.ClientSession, end func(), err error) {
	s, end, err = m.negotiate(ctx, steps)
	if errors.Is(err, milter.ErrUnsupportedMilterVersion) {
		s, end, err = m.negotiate(ctx, oldSteps)
	}
	return s, end, err
}

func (m *milterEngine) negotiate(ctx context.Context, steps milter.OptProtocol) (_ *milter.ClientSession, end func(), err error) {
	conn, err := (&net.Dialer{Timeout: m.c.Timeout}).DialContext(ctx, m.Network, m.Address.Address)
	if err != nil {
		return nil, nil, err
	}
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	end = func() { unhook(); conn.Close() }
	client := milter.NewClientWithOptions(m.Network, m.Address.Address, milter.ClientOptions{
		Dialer: dialed{&limited{conn, maxAnswers}}, ReadTimeout: m.c.Timeout, WriteTimeout: m.c.Timeout, ActionMask: m.actions(), ProtocolMask: steps,
	})
	s, err := client.Session()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errOver
	case err == nil && s.ActionOpts&^m.actions() != 0:
		err = errWants
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	return s, end, nil
}

func (m *milterEngine) close() error { return nil }

func (m *milterEngine) check(ctx context.Context) error {
	s, end, err := m.session(ctx)
	if err != nil {
		return err
	}
	defer end()
	return s.Close()
}

func (m *milterEngine) scan(ctx context.Context, e Envelope, r io.Reader) error {
	s, end, err := m.session(ctx)
	if err != nil {
		return unavailable(err)
	}
	defer end()
	defer s.Close() // says that there is no more; a message without its end is aborted
	act, err := m.introduce(s, e)
	if err == nil && act == nil {
		act, err = show(s, bufio.NewReaderSize(r, maxField))
	}
	if err == nil && act == nil {
		act, err = m.finish(s)
	}
	switch {
	case errors.Is(err, ErrQuarantined):
		return err
	case err != nil:
		return unavailable(err)
	}
	return milterVerdict(act)
}

// milterVerdict is what an action means. Thrown away without a word is not what becomes of mail here.
func milterVerdict(a *milter.Action) error {
	switch {
	case a.Code == milter.ActAccept, a.Code == milter.ActContinue:
		return nil
	case a.Code == milter.ActReject, a.Code == milter.ActDiscard, a.Code == milter.ActReplyCode && a.SMTPCode/100 == 5:
		return ErrRejected
	}
	return unavailable(errors.New("it asks to try again later"))
}

// introduce tells of the envelope. A verdict comes early if the milter knows it: an action that is not nil.
func (m *milterEngine) introduce(s *milter.ClientSession, e Envelope) (*milter.Action, error) {
	family, address := milter.FamilyUnknown, ""
	if a := e.Client.Addr(); a.IsValid() {
		if family = milter.FamilyInet6; a.Unmap().Is4() {
			family = milter.FamilyInet
		}
		address = a.Unmap().WithZone("").String()
	}
	macros := func(c milter.Code, kv ...string) func() (*milter.Action, error) {
		return func() (*milter.Action, error) { return &milter.Action{Code: milter.ActContinue}, s.Macros(c, kv...) }
	}
	mail := []string{"i", e.ID, "{mail_addr}", e.From}
	if e.User != "" {
		mail = append(mail, "{auth_authen}", e.User)
	}
	all := []func() (*milter.Action, error){
		macros(milter.CodeConn, "j", m.c.Name, "{daemon_name}", "dimegate"),
		func() (*milter.Action, error) {
			return s.Conn(literal(e.Client.Addr()), family, e.Client.Port(), address)
		},
		func() (*milter.Action, error) { return s.Helo(e.Hello) },
		macros(milter.CodeMail, mail...),
		func() (*milter.Action, error) { return s.Mail(e.From, nil) },
	}
	for _, to := range e.To {
		all = append(all, macros(milter.CodeRcpt, "{rcpt_addr}", to), func() (*milter.Action, error) { return s.Rcpt(to, nil) })
	}
	for _, f := range all {
		if a, err := f(); err != nil || a.Code != milter.ActContinue {
			return a, err
		}
	}
	return nil, nil
}

// literal stands for the client's name, which nobody has looked up.
func literal(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	return "[" + a.Unmap().WithZone("").String() + "]"
}

// maxField is the longest header field that a packet of libmilter's takes, with room for its frame; also the size of a piece of
// the body.
const maxField = 65_000

// show shows the header field by field and the rest as it is. The header ends at the empty line, as for everyone, or at what
// cannot be told of as a field: a line without a name, a NUL, a field that is too long. What follows is shown as body, so that
// every octet is seen.
func show(s *milter.ClientSession, r *bufio.Reader) (*milter.Action, error) {
	for {
		field, err := nextField(r)
		if err != nil {
			return nil, err
		}
		if field == nil {
			break
		}
		name, value, _ := bytes.Cut(field, []byte(":"))
		text := strings.ReplaceAll(string(value[:len(value)-2]), "\r\n", "\n") // as Sendmail and Postfix have it
		if !s.ProtocolOption(milter.OptHeaderLeadingSpace) {
			text = strings.TrimPrefix(text, " ")
		}
		if a, err := s.HeaderField(strings.TrimRight(string(name), " \t"), text); err != nil || a.Code != milter.ActContinue {
			return a, err
		}
		r.Discard(len(field))
	}
	if end, _ := r.Peek(2); string(end) == "\r\n" {
		r.Discard(2)
	}
	if a, err := s.HeaderEnd(); err != nil || a.Code != milter.ActContinue {
		return a, err
	}
	buf := make([]byte, maxField)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			switch a, err := s.BodyChunk(buf[:n]); {
			case err != nil:
				return nil, err
			case a.Code != milter.ActContinue:
				return a, nil
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil, nil
		default:
			return nil, err
		}
	}
}

// nextField looks at the next header field, with its lines and their CRLFs; nil when there is none.
func nextField(r *bufio.Reader) ([]byte, error) {
	for n := 0; ; {
		buf, err := r.Peek(min(n+1, r.Size()))
		if err == nil {
			buf, _ = r.Peek(r.Buffered())
		}
		end := fieldEnd(buf, err == io.EOF)
		switch {
		case end > 0 && isField(buf[:end]):
			return buf[:end], nil
		case end >= 0, len(buf) == r.Size(), err == io.EOF:
			return nil, nil
		case err != nil:
			return nil, err
		}
		n = len(buf)
	}
}

// fieldEnd is where the first field of b ends; 0: b begins with no field, -1: it takes more octets to know.
func fieldEnd(b []byte, last bool) int {
	for n := 0; ; {
		i := bytes.Index(b[n:], []byte("\r\n"))
		if i < 0 {
			return -1
		}
		if n += i + 2; n == 2 {
			return 0 // the empty line
		}
		switch {
		case n == len(b) && !last:
			return -1
		case n == len(b) || b[n] != ' ' && b[n] != '\t':
			return n
		}
	}
}

func isField(b []byte) bool {
	name, _, ok := bytes.Cut(b, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	return ok && len(name) > 0 && bytes.IndexByte(b, 0) < 0 && bytes.IndexFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

// finish asks for the verdict. A quarantine stands beside an acceptance.
func (m *milterEngine) finish(s *milter.ClientSession) (*milter.Action, error) {
	changes, act, err := s.End()
	if err != nil {
		return nil, err
	}
	if act.Code != milter.ActAccept && act.Code != milter.ActContinue {
		return act, nil
	}
	held := false
	for _, c := range changes {
		switch c.Code {
		case milter.ActQuarantine:
			held = true
		case milter.ActAddHeader, milter.ActInsertHeader, milter.ActChangeHeader:
			if !m.c.IgnoreChanges {
				return nil, errWants
			}
		default:
			return nil, fmt.Errorf("%w (%c)", errWants, c.Code)
		}
	}
	if held {
		return nil, ErrQuarantined
	}
	return act, nil
}

// dialed gives go-milter a connection that is there.
type dialed struct{ net.Conn }

func (d dialed) Dial(string, string) (net.Conn, error) { return d.Conn, nil }

// maxAnswers is what a milter may say to one message, in octets: go-milter keeps all that it wants to change.
const maxAnswers = 1 << 20

// limited is a connection that gives so many octets.
type limited struct {
	net.Conn
	left int
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errMuch
	}
	n, err := l.Conn.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}
