package scanner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emersion/go-milter"
)

// A judge is a milter that keeps what it is shown, and says what it is told to. Real ones are in the appliance's tests.
type judge struct {
	at      string // the step at which it says so: connect, helo, mail, rcpt, header, headers, body, end
	says    milter.Response
	does    func(*milter.Modifier) error
	wants   milter.OptAction
	leaves  milter.OptProtocol
	hang    chan struct{} // closed at the end of the test: it says nothing before
	mu      sync.Mutex
	seen    []string // whole messages
	partial strings.Builder
	steps   []string
	aborts  int
}

func (j *judge) step(name, detail string) (milter.Response, error) {
	j.mu.Lock()
	j.steps = append(j.steps, name+" "+detail)
	hang := j.hang
	j.mu.Unlock()
	if name != j.at {
		return milter.RespContinue, nil
	}
	if hang != nil {
		<-hang
	}
	if j.says == nil {
		return milter.RespContinue, nil
	}
	return j.says, nil
}

func (j *judge) Connect(host, family string, port uint16, addr net.IP, m *milter.Modifier) (milter.Response, error) {
	return j.step("connect", fmt.Sprint(host, " ", family, " ", port, " ", addr, " ", m.Macros["j"]))
}
func (j *judge) Helo(name string, _ *milter.Modifier) (milter.Response, error) {
	return j.step("helo", name)
}
func (j *judge) MailFrom(from string, m *milter.Modifier) (milter.Response, error) {
	return j.step("mail", from+" "+m.Macros["i"]+" "+m.Macros["{auth_authen}"])
}
func (j *judge) RcptTo(to string, _ *milter.Modifier) (milter.Response, error) {
	return j.step("rcpt", to)
}
func (j *judge) Header(name, value string, _ *milter.Modifier) (milter.Response, error) {
	j.mu.Lock()
	fmt.Fprintf(&j.partial, "%s: %s\r\n", name, strings.ReplaceAll(value, "\n", "\r\n"))
	j.mu.Unlock()
	return j.step("header", name)
}
func (j *judge) Headers(textproto.MIMEHeader, *milter.Modifier) (milter.Response, error) {
	j.mu.Lock()
	j.partial.WriteString("|")
	j.mu.Unlock()
	return j.step("headers", "")
}
func (j *judge) BodyChunk(b []byte, _ *milter.Modifier) (milter.Response, error) {
	j.mu.Lock()
	j.partial.Write(b)
	j.mu.Unlock()
	return j.step("body", "")
}
func (j *judge) Body(m *milter.Modifier) (milter.Response, error) {
	j.mu.Lock()
	j.seen = append(j.seen, j.partial.String())
	j.mu.Unlock()
	if j.does != nil {
		if err := j.does(m); err != nil {
			return nil, err
		}
	}
	r, err := j.step("end", "")
	if r == milter.RespContinue {
		r = milter.RespAccept
	}
	return r, err
}
func (j *judge) Abort(*milter.Modifier) error {
	j.mu.Lock()
	j.aborts++
	j.mu.Unlock()
	return nil
}

// messages are what it was shown whole.
func (j *judge) messages() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.seen)
}

// serve serves until the test ends, and returns where.
func (j *judge) serve(t *testing.T) Address {
	t.Helper()
	log.SetOutput(io.Discard) // go-milter's own log
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &milter.Server{NewMilter: func() milter.Milter { return j }, Actions: j.wants, Protocol: j.leaves}
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(ln) })
	t.Cleanup(func() {
		if j.hang != nil {
			close(j.hang)
		}
		ln.Close() // not s.Close, which reads without a lock what Serve writes
		wg.Wait()
	})
	return Address{"milter", "tcp", ln.Addr().String()}
}

func newScanner(t *testing.T, edit func(*Config), list ...Address) *Scanner {
	t.Helper()
	c := Config{Scanners: list, Name: "gw.alpha.example", Timeout: 10 * time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if edit != nil {
		edit(&c)
	}
	s := New(c)
	t.Cleanup(func() { s.Close() })
	return s
}

var envelope = Envelope{
	ID: "q1", Client: netip.MustParseAddrPort("192.0.2.1:1234"), Hello: "out.example.net", User: "alice", From: "alice@alpha.example",
	To: []string{"bob@bravo.example", "dora@bravo.example"},
}

const letter = "Subject: x\r\n y\r\nFrom:carol\r\n\r\nhello\r\n\r\n.dot\r\n"

// verdict is the name of an error.
func verdict(err error) string {
	for name, e := range map[string]error{"no": ErrRejected, "hold": ErrQuarantined, "large": ErrTooLarge, "later": ErrUnavailable} {
		if errors.Is(err, e) {
			return name
		}
	}
	if err != nil {
		return err.Error()
	}
	return "yes"
}

func TestMilter(t *testing.T) {
	replyCode := func(code string) milter.Response { return milter.NewResponseStr('y', code) }
	for name, tt := range map[string]struct {
		judge  *judge
		ignore bool
		want   string
	}{
		"accepts":                     {&judge{}, false, "yes"},
		"accepts at once":             {&judge{at: "connect", says: milter.RespAccept}, false, "yes"},
		"rejects":                     {&judge{at: "end", says: milter.RespReject}, false, "no"},
		"rejects a recipient":         {&judge{at: "rcpt", says: milter.RespReject}, false, "no"},
		"rejects a field":             {&judge{at: "header", says: milter.RespReject}, false, "no"},
		"rejects a piece":             {&judge{at: "body", says: milter.RespReject}, false, "no"},
		"rejects in its words":        {&judge{at: "end", says: replyCode("554 5.7.1 virus")}, false, "no"},
		"not now":                     {&judge{at: "end", says: milter.RespTempFail}, false, "later"},
		"not now, at HELO":            {&judge{at: "helo", says: milter.RespTempFail}, false, "later"},
		"not now in its words":        {&judge{at: "mail", says: replyCode("451 4.7.1 wait")}, false, "later"},
		"throws away":                 {&judge{at: "end", says: milter.RespDiscard}, false, "no"},
		"holds":                       {&judge{wants: milter.OptQuarantine, does: func(m *milter.Modifier) error { return m.Quarantine("odd") }}, false, "hold"},
		"holds and rejects":           {&judge{wants: milter.OptQuarantine, at: "end", says: milter.RespReject, does: func(m *milter.Modifier) error { return m.Quarantine("odd") }}, false, "no"},
		"wants to add fields":         {&judge{wants: milter.OptAddHeader}, false, "later"},
		"wants to, and is let":        {&judge{wants: milter.OptAddHeader}, true, "yes"},
		"adds one":                    {&judge{wants: milter.OptAddHeader, does: func(m *milter.Modifier) error { return m.AddHeader("X-Spam", "no") }}, true, "yes"},
		"adds one unasked":            {&judge{does: func(m *milter.Modifier) error { return m.AddHeader("X-Spam", "no") }}, false, "later"},
		"wants to replace bodies":     {&judge{wants: milter.OptChangeBody}, true, "later"},
		"replaces a body unasked":     {&judge{does: func(m *milter.Modifier) error { return m.ReplaceBody([]byte("x")) }}, true, "later"},
		"adds a recipient unasked":    {&judge{does: func(m *milter.Modifier) error { return m.AddRecipient("<eve@example.net>") }}, true, "later"},
		"says what nobody knows":      {&judge{at: "end", says: milter.NewResponseStr('X', "")}, false, "later"},
		"talks without end":           {&judge{does: func(m *milter.Modifier) error { return many(m.AddHeader) }, wants: milter.OptAddHeader}, true, "later"},
		"leaves out header and body":  {&judge{leaves: milter.OptNoHeaders | milter.OptNoBody | milter.OptNoEOH}, false, "yes"},
		"gives no answer":             {&judge{at: "end", hang: make(chan struct{})}, false, "later"},
		"gives no answer to a header": {&judge{at: "header", hang: make(chan struct{})}, false, "later"},
	} {
		t.Run(name, func(t *testing.T) {
			j := tt.judge
			s := newScanner(t, func(c *Config) {
				c.IgnoreChanges = tt.ignore
				if j.hang != nil {
					c.Timeout = 300 * time.Millisecond
				}
			}, j.serve(t))
			err := s.Scan(t.Context(), envelope, strings.NewReader(letter))
			if got := verdict(err); got != tt.want {
				t.Errorf("%v (%s), want %s", err, got, tt.want)
			}
			if strings.Contains(fmt.Sprint(err), "virus") {
				t.Error("the scanner's words went on")
			}
		})
	}
}

func many(add func(string, string) error) error {
	for range 3000 {
		if err := add("X", strings.Repeat("x", 1000)); err != nil {
			return err
		}
	}
	return nil
}

// Every octet is shown, whatever the header is like.
func TestMilterSees(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	for name, tt := range map[string]struct{ message, want string }{
		"a message":      {letter, "Subject: x\r\n y\r\nFrom: carol\r\n|hello\r\n\r\n.dot\r\n"},
		"no body":        {"Subject: x\r\n\r\n", "Subject: x\r\n|"},
		"no empty line":  {"Subject: x\r\n", "Subject: x\r\n|"},
		"no line end":    {"Subject: x", "|Subject: x"},
		"no header":      {"\r\nhello\r\n", "|hello\r\n"},
		"nothing":        {"", "|"},
		"no field":       {"Subject: x\r\nhello\r\n\r\nFrom: y\r\n", "Subject: x\r\n|hello\r\n\r\nFrom: y\r\n"},
		"a blank first":  {" x: y\r\n\r\n", "| x: y\r\n\r\n"},
		"a long field":   {"Subject: x\r\nX: " + long + "\r\nY: z\r\n\r\nhello", "Subject: x\r\n|X: " + long + "\r\nY: z\r\n\r\nhello"},
		"NUL in a field": {"X: a\x00b\r\n\r\nhello", "|X: a\x00b\r\n\r\nhello"},
		"8 bits, NUL":    {"X: \xff\r\n\r\n\x00\xfe", "X: \xff\r\n|\x00\xfe"},
		"a large body":   {"X: y\r\n\r\n" + strings.Repeat(long+"\r\n", 20), "X: y\r\n|" + strings.Repeat(long+"\r\n", 20)},
		"many fields":    {strings.Repeat("a: b\r\n", 2000) + "\r\n", strings.Repeat("a: b\r\n", 2000) + "|"},
	} {
		for reader, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "octet by octet": iotest.OneByteReader} {
			if reader != "whole" && len(tt.message) > 10_000 {
				continue
			}
			t.Run(name+"/"+reader, func(t *testing.T) {
				j := &judge{}
				s := newScanner(t, nil, j.serve(t))
				if err := s.Scan(t.Context(), envelope, wrap(strings.NewReader(tt.message))); err != nil {
					t.Fatal(err)
				}
				if seen := j.messages(); len(seen) != 1 || seen[0] != tt.want {
					t.Errorf("seen as %.200q", seen)
				}
			})
		}
	}
	j := &judge{}
	s := newScanner(t, nil, j.serve(t))
	if err := s.Scan(t.Context(), envelope, strings.NewReader(letter)); err != nil {
		t.Fatal(err)
	}
	want := []string{"connect [192.0.2.1] tcp4 1234 192.0.2.1 gw.alpha.example", "helo out.example.net", "mail alice@alpha.example q1 alice", "rcpt bob@bravo.example", "rcpt dora@bravo.example"}
	j.mu.Lock()
	defer j.mu.Unlock()
	if got := strings.Join(j.steps[:5], "\n"); got != strings.Join(want, "\n") {
		t.Errorf("was told\n%s", got)
	}
}

// A message that is not whole is no message for anyone, and one scanner's verdict does not end the others'.
func TestScan(t *testing.T) {
	t.Run("broken off", func(t *testing.T) {
		j, f := &judge{}, startFilter(t, "250 2.0.0 Ok")
		s := newScanner(t, nil, j.serve(t), f.address)
		err := s.Scan(t.Context(), envelope, io.MultiReader(strings.NewReader(letter), iotest.ErrReader(errors.New("gone"))))
		if err == nil || err.Error() != "gone" {
			t.Errorf("got %v", err)
		}
		f.wait()
		if len(j.messages())+len(f.got) > 0 {
			t.Errorf("taken for whole: %q %q", j.messages(), f.got)
		}
	})
	t.Run("too large", func(t *testing.T) {
		j, f := &judge{}, startFilter(t, "250 2.0.0 Ok")
		s := newScanner(t, func(c *Config) { c.MaxOctets = 1000 }, j.serve(t), f.address)
		if err := s.Scan(t.Context(), envelope, strings.NewReader("a: b\r\n\r\n"+strings.Repeat("hello\r\n", 1000))); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v", err)
		}
		f.wait()
		if len(j.messages())+len(f.got) > 0 {
			t.Errorf("taken for whole: %q %q", j.messages(), f.got)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		for _, kind := range []string{"milter", "smtp"} {
			s := newScanner(t, nil, Address{kind, "tcp", ln.Addr().String()})
			if err := s.Scan(t.Context(), envelope, strings.NewReader(strings.Repeat(letter, 100_000))); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: %v", kind, err)
			}
			if s.Check(t.Context()) == nil {
				t.Errorf("%s: found nothing wrong", kind)
			}
		}
	})
	t.Run("stopped", func(t *testing.T) {
		j := &judge{at: "end", hang: make(chan struct{})}
		s := newScanner(t, nil, j.serve(t))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if err := s.Scan(ctx, envelope, strings.NewReader(letter)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	for name, tt := range map[string]struct {
		milter *judge
		filter string
		want   string
	}{
		"both yes":       {&judge{}, "250 2.0.0 Ok", "yes"},
		"one no":         {&judge{at: "connect", says: milter.RespAccept}, "550 5.7.1 no", "no"},
		"the other no":   {&judge{at: "connect", says: milter.RespReject}, "250 2.0.0 Ok", "no"},
		"one not now":    {&judge{}, "451 4.3.0 wait", "later"},
		"no and not now": {&judge{at: "mail", says: milter.RespTempFail}, "550 5.7.1 no", "no"},
		"hold and later": {&judge{wants: milter.OptQuarantine, does: func(m *milter.Modifier) error { return m.Quarantine("odd") }}, "451 4.3.0 wait", "later"},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFilter(t, tt.filter)
			s := newScanner(t, nil, tt.milter.serve(t), f.address)
			long := letter + strings.Repeat("hello\r\n", 100_000)
			if got := verdict(s.Scan(t.Context(), envelope, strings.NewReader(long))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if f.wait(); len(f.got) != 1 || f.got[0] != long {
				t.Errorf("the filter saw %.100q", f.got)
			}
		})
	}
	if s := New(Config{}); s != nil {
		t.Error("a scanner of nobody")
	}
}

// A filterServer is an SMTP server that says one thing to all messages.
type filterServer struct {
	address Address
	says    string
	got     []string
	wg      sync.WaitGroup
	ln      net.Listener
}

func startFilter(t *testing.T, says string) *filterServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &filterServer{address: Address{"smtp", "tcp", ln.Addr().String()}, says: says, ln: ln}
	f.wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		f.session(c)
	})
	t.Cleanup(func() { ln.Close(); f.wg.Wait() })
	return f
}

// wait waits for the one session's message.
func (f *filterServer) wait() { f.ln.Close(); f.wg.Wait() }

func (f *filterServer) session(c net.Conn) {
	r := textproto.NewReader(bufio.NewReader(c))
	io.WriteString(c, "220 filter\r\n")
	for {
		line, err := r.ReadLine()
		if err != nil {
			return
		}
		switch line[:4] {
		case "DATA":
			io.WriteString(c, "354 go on\r\n")
			var all strings.Builder
			for {
				line, err := r.ReadLine()
				if err != nil {
					return
				}
				if line == "." {
					break
				}
				all.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
			}
			f.got = append(f.got, all.String())
			io.WriteString(c, f.says+"\r\n")
			return
		default:
			io.WriteString(c, "250 Ok\r\n")
		}
	}
}
