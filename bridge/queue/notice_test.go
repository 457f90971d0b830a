package queue_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dimegate/appliance/spool"
	"dimegate/bridge/queue"
)

// A parsed is a notice as another program reads it.
type parsed struct {
	header    mail.Header
	text      string
	statusAs  string // media types
	returnsAs string
	encoded   string               // the last part's transfer encoding
	message   textproto.MIMEHeader // fields of the message, then of the recipient
	recipient textproto.MIMEHeader
	returned  string
}

// parse reads a notice with the standard library alone, and checks what holds for every one: CRLF line ends, short lines,
// who it is from and that nobody answers it.
func parse(t *testing.T, m queue.Mail) parsed {
	t.Helper()
	for i, line := range bytes.SplitAfter(m.Octets, []byte("\n")) {
		if len(line) > 0 && !bytes.HasSuffix(line, []byte("\r\n")) || bytes.Count(line, []byte("\r")) > 1 || len(line) > 1000 {
			t.Errorf("line %d is %.60q", i, line)
		}
	}
	msg, err := mail.ReadMessage(bytes.NewReader(m.Octets))
	if err != nil {
		t.Fatalf("%v in\n%s", err, m.Octets)
	}
	p := parsed{header: msg.Header}
	for k, want := range map[string]string{"From": "Mail Delivery System <postmaster@x.example>", "Auto-Submitted": "auto-replied", "To": "<" + m.To + ">"} {
		if got := msg.Header.Get(k); got != want {
			t.Errorf("%s: %q, want %q", k, got, want)
		}
	}
	if _, err := msg.Header.Date(); err != nil || msg.Header.Get("Message-ID") == "" {
		t.Errorf("Date %v, Message-ID %q", err, msg.Header.Get("Message-ID"))
	}
	kind, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("%s, %v, %v", kind, params, err)
	}
	r := multipart.NewReader(msg.Body, params["boundary"])
	encoded := ""
	part := func() (string, *bufio.Reader) {
		part, err := r.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		encoded = part.Header.Get("Content-Transfer-Encoding")
		if eight := bytes.IndexFunc(b, func(r rune) bool { return r > 0x7f }) >= 0; eight != (encoded == "8bit") || eight && msg.Header.Get("Content-Transfer-Encoding") != "8bit" {
			t.Errorf("%s says %q in a message that says %q, octets over 127: %v", kind, encoded, msg.Header.Get("Content-Transfer-Encoding"), eight)
		}
		return kind, bufio.NewReader(bytes.NewReader(b))
	}
	all := func(r *bufio.Reader) string {
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	kind, text := part()
	if p.text = all(text); kind != "text/plain" {
		t.Errorf("the first part is %s", kind)
	}
	var fields *bufio.Reader
	p.statusAs, fields = part()
	tp := textproto.NewReader(fields)
	if p.message, err = tp.ReadMIMEHeader(); err != nil {
		t.Fatalf("fields of the message: %v", err)
	}
	if p.recipient, err = tp.ReadMIMEHeader(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("fields of the recipient: %v", err)
	}
	p.returnsAs, fields = part()
	p.returned, p.encoded = all(fields), encoded
	if _, err := r.NextRawPart(); !errors.Is(err, io.EOF) {
		t.Errorf("after the third part: %v", err)
	}
	return p
}

// notices accepts one message and returns the notices that came of it within six days.
func notices(t *testing.T, env queue.Envelope, body string, r queue.Result) (list []queue.Mail, left int) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{Poll: 24 * time.Hour})
		w.accept(env, body)
		w.run(always(r))
		time.Sleep(hours(144))
		synctest.Wait()
		w.halt()
		list, left = w.told(), len(w.list())
	})
	return list, left
}

// Where nobody said anything our own reason stands: a sender must learn what was missing.
func TestNoticeReason(t *testing.T) {
	for _, r := range []queue.Result{
		{Class: queue.Permanent, Status: "5.1.10", Reason: "y.example takes no mail (null MX)", Protocol: "smtp"},
		{Class: queue.Trust, Status: "5.7.4", Host: "mx.y.example", Reason: "floor tls is not met: mx.y.example does not offer STARTTLS", Protocol: "smtp"},
	} {
		list, left := notices(t, envelope("bob@y.example"), message(10), r)
		if len(list) == 0 || left != 0 {
			t.Fatalf("%d notices, %d left", len(list), left)
		}
		for _, m := range list {
			p := parse(t, m)
			if text := strings.Join(strings.Fields(p.text), " "); !strings.Contains(text, "The reason: "+r.Reason+".") || p.recipient.Get("Diagnostic-Code") != "" {
				t.Errorf("%s\n%v", p.text, p.recipient)
			}
		}
	}
}

func TestNotice(t *testing.T) {
	refused := queue.Result{Class: queue.Permanent, Status: "5.1.1", Code: 510, Text: "INVALID RECIPIENT", Host: "dx.y.example", Protocol: "dmtp"}
	env := envelope("bob@y.example")
	env.Recipients[0].Original = "rfc822;Bob@Old.example"
	list, left := notices(t, env, message(100_000), refused)
	if len(list) != 1 || left != 0 {
		t.Fatalf("%d notices, %d left", len(list), left)
	}
	p := parse(t, list[0])
	if p.statusAs != "message/delivery-status" || p.returnsAs != "text/rfc822-headers" || list[0].To != "alice@x.example" || list[0].SMTPUTF8 {
		t.Errorf("%s, %s, to %s", p.statusAs, p.returnsAs, list[0].To)
	}
	want := map[string]string{
		"Original-Envelope-Id": "QQ314159", "Reporting-Mta": "dns; gw.x.example", "Arrival-Date": "Sat, 01 Jan 2000 00:00:00 +0000",
		"Original-Recipient": "rfc822; Bob@Old.example", "Final-Recipient": "rfc822; bob@y.example", "Action": "failed", "Status": "5.1.1",
		"Remote-Mta": "dns; dx.y.example", "Diagnostic-Code": "x-dmtp; 510 INVALID RECIPIENT", "Last-Attempt-Date": "Sat, 01 Jan 2000 00:00:00 +0000",
	}
	got := map[string]string{}
	for _, h := range []textproto.MIMEHeader{p.message, p.recipient} {
		for k := range h {
			got[k] = h.Get(k)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("fields\n got %v\nwant %v", got, want)
	}
	header, _, _ := strings.Cut(message(1), "\r\n\r\n")
	if strings.TrimRight(p.returned, "\r\n") != header {
		t.Errorf("returned %q", p.returned)
	}
	for _, s := range []string{"bob@y.example", "dx.y.example said: 510 INVALID RECIPIENT", "could not be delivered"} {
		if !strings.Contains(p.text, s) {
			t.Errorf("the text lacks %q:\n%s", s, p.text)
		}
	}
}

// TestNoticeOrNot: who is told of what (RFC 3461 §5.2, RFC 3464, dmtp.md §10.3), one row a case.
func TestNoticeOrNot(t *testing.T) {
	failed, waits := queue.Result{Class: queue.Permanent, Code: 510}, queue.Result{Class: queue.Remote, Code: 451}
	relayed := delivered
	relayed.Relayed = true
	tests := map[string]struct {
		sender string
		notify queue.Notify
		result queue.Result
		want   []string
	}{
		"failure":                     {"alice@x.example", 0, failed, []string{"failed"}},
		"failure, asked for":          {"alice@x.example", queue.NotifyFailure, failed, []string{"failed"}},
		"failure, never":              {"alice@x.example", queue.NotifyNever, failed, nil},
		"failure, success asked for":  {"alice@x.example", queue.NotifySuccess, failed, nil},
		"failure, null sender":        {"", 0, failed, nil},
		"failure, null sender asks":   {"", queue.NotifyFailure, failed, nil},
		"wait":                        {"alice@x.example", 0, waits, []string{"delayed", "failed"}},
		"wait, failure asked for":     {"alice@x.example", queue.NotifyFailure, waits, []string{"failed"}},
		"wait, delay asked for":       {"alice@x.example", queue.NotifyDelay, waits, []string{"delayed"}},
		"wait, null sender":           {"", 0, waits, nil},
		"success":                     {"alice@x.example", 0, delivered, nil},
		"success, asked for":          {"alice@x.example", queue.NotifySuccess, delivered, []string{"relayed"}},
		"success, the next hop tells": {"alice@x.example", queue.NotifySuccess, relayed, nil},
		"success, null sender":        {"", queue.NotifySuccess, delivered, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			env := envelope("bob@y.example")
			env.ReversePath, env.Recipients[0].Notify = tt.sender, tt.notify
			list, left := notices(t, env, message(10), tt.result)
			var got []string
			for _, m := range list {
				p := parse(t, m)
				got = append(got, p.recipient.Get("Action"))
				status := map[string]string{"failed": "5.0.0 4.4.7", "delayed": "4.0.0", "relayed": "2.0.0"}[p.recipient.Get("Action")]
				if !strings.Contains(status, p.recipient.Get("Status")) {
					t.Errorf("%s has status %s", p.recipient.Get("Action"), p.recipient.Get("Status"))
				}
				if until := p.recipient.Get("Will-Retry-Until"); (until != "") != (p.recipient.Get("Action") == "delayed") {
					t.Errorf("will retry until %q", until)
				}
			}
			if !slices.Equal(got, tt.want) || left != 0 {
				t.Errorf("told %v, want %v; %d left", got, tt.want, left)
			}
		})
	}
}

// TestNoticeOfHostileMail: whatever the message or the peer says, the notice is one that parses and says only that.
func TestNoticeOfHostileMail(t *testing.T) {
	refused := func(text string) queue.Result {
		return queue.Result{Class: queue.Permanent, Code: 554, Text: text, Host: "dx.y.example", Protocol: "smtp"}
	}
	plain := "no"
	tests := map[string]struct {
		to, original, body, text string
		utf                      bool
		returnsAs                string
	}{
		"empty":              {"bob@y.example", "", "", plain, false, "text/rfc822-headers"},
		"header alone":       {"bob@y.example", "", "Subject: x\r\n", plain, false, "text/rfc822-headers"},
		"no line end":        {"bob@y.example", "", "Subject: x", plain, false, "text/rfc822-headers"},
		"bare line feeds":    {"bob@y.example", "", "Subject: x\n\nbody\n", plain, false, "text/rfc822-headers"},
		"bare CR and NUL":    {"bob@y.example", "", "Subject: x\ry\x00z\r\n\r\n", plain, false, "text/rfc822-headers"},
		"boundary":           {"bob@y.example", "", "--x\r\nContent-Type: text/plain\r\n\r\n", plain, false, "text/rfc822-headers"},
		"megabyte of a line": {"bob@y.example", "", "X: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", plain, false, "text/rfc822-headers"},
		"UTF-8 header":       {"bob@y.example", "", "Subject: Grüße\r\n\r\n", plain, false, "message/global-headers"},
		"Latin-1 header":     {"bob@y.example", "", "Subject: Gr\xfc\xdfe\r\n\r\n", plain, false, "text/rfc822-headers"},
		"hostile reply":      {"bob@y.example", "", "", "x\r\n.\r\nSubject: y\x00\xff" + strings.Repeat("z", 1000), false, "text/rfc822-headers"},
		"UTF-8 address":      {"bøb@y.example", "utf-8;bøb@y.example", "", plain, true, "text/rfc822-headers"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			env := envelope(tt.to)
			env.Recipients[0].Original = tt.original
			list, _ := notices(t, env, tt.body, refused(tt.text))
			if len(list) != 1 {
				t.Fatalf("%d notices", len(list))
			}
			p := parse(t, list[0])
			as := "message/delivery-status"
			if tt.utf {
				as = "message/global-delivery-status"
			}
			if p.statusAs != as || p.returnsAs != tt.returnsAs || list[0].SMTPUTF8 != tt.utf {
				t.Errorf("status as %s, header as %s, SMTPUTF8 %v", p.statusAs, p.returnsAs, list[0].SMTPUTF8)
			}
			if got := p.recipient.Get("Final-Recipient"); !strings.HasSuffix(got, "; "+tt.to) || p.recipient.Get("Action") != "failed" {
				t.Errorf("%v", p.recipient)
			}
			if got := p.recipient.Get("Diagnostic-Code"); !strings.HasPrefix(got, "smtp; 554 ") || len(got) > 500 {
				t.Errorf("diagnostic %q", got)
			}
		})
	}
}

// TestNoticeWaits: while the sender's server is away the notice waits, and no destination's rest holds it up.
func TestNoticeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{})
		var away atomic.Bool
		away.Store(true)
		w.notify = func(queue.Mail) error {
			if away.Load() {
				return errors.New("connection refused")
			}
			return nil
		}
		w.accept(envelope("bob@y.example"), message(10))
		w.run(always(queue.Result{Class: queue.Permanent, Code: 510, Text: "gone"}))
		time.Sleep(hours(10))
		w.restart()
		away.Store(false)
		w.run(func(context.Context, *queue.Item) (queue.Result, error) {
			t.Error("delivered what had failed")
			return delivered, nil
		})
		if l := w.list(); len(l) != 1 || l[0].State != "notice" || l[0].Status != "5.0.0" {
			t.Errorf("%+v", l)
		}
		time.Sleep(hours(4.5))
		synctest.Wait()
		if len(w.told()) != 1 || len(w.list()) != 0 {
			t.Fatalf("%d notices, %d left", len(w.told()), len(w.list()))
		}
		if p := parse(t, w.told()[0]); p.recipient.Get("Diagnostic-Code") != "x-dmtp; 510 gone" && p.recipient.Get("Diagnostic-Code") != "smtp; 510 gone" {
			t.Errorf("%v", p.recipient)
		}
	})
}

// TestNoticeLost: a notice that is refused for good, or never taken, ends with a leaf of its own.
func TestNoticeLost(t *testing.T) {
	for name, fault := range map[string]func(queue.Mail) error{
		"refused": func(queue.Mail) error { return fmt.Errorf("550: %w", queue.ErrRefused) },
		"away":    func(queue.Mail) error { return errors.New("connection refused") },
		"panics":  func(queue.Mail) error { panic("poison") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, queue.Options{Poll: 24 * time.Hour})
				w.notify = fault
				w.accept(envelope("bob@y.example"), message(10))
				w.run(always(queue.Result{Class: queue.Permanent, Code: 510}))
				time.Sleep(hours(130))
				synctest.Wait()
				if got, want := w.leaves(), "1 failed, 1 intake, 1 no notice, 1 recipient"; got != want {
					t.Errorf("log: %s, want %s", got, want)
				}
				if l := w.list(); len(l) != 0 {
					t.Errorf("left: %+v", l)
				}
			})
		})
	}
}

// A sickStore is a store whose changes fail for a while.
type sickStore struct {
	queue.Store
	mu   sync.Mutex
	sick bool
}

func (s *sickStore) ill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sick {
		return queue.ErrFull
	}
	return nil
}

func (s *sickStore) set(sick bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sick = sick
}

func (s *sickStore) Claim(ctx context.Context, w []queue.Want, now, lease time.Time) ([]queue.Claim, error) {
	if err := s.ill(); err != nil {
		return nil, err
	}
	return s.Store.Claim(ctx, w, now, lease)
}

func (s *sickStore) Open(ctx context.Context, r queue.Row) (queue.Entry, error) {
	e, err := s.Store.Open(ctx, r)
	return sickEntry{e, s}, err
}

type sickEntry struct {
	queue.Entry
	s *sickStore
}

func (e sickEntry) Change(ctx context.Context, c queue.Change, now time.Time) error {
	if err := e.s.ill(); err != nil {
		return err
	}
	return e.Entry.Change(ctx, c, now)
}

// TestFullDisk: what was delivered while its result cannot be written is not delivered again; what came before waits.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{Workers: 2})
		s := &sickStore{Store: spool.Store{Vault: w.vault}}
		w.Queue = queue.New(s, w.opts)
		for i := range 4 {
			w.accept(envelope(fmt.Sprintf("u%d@y.example", i)), message(10))
		}
		w.run(func(context.Context, *queue.Item) (queue.Result, error) {
			s.set(true)
			return delivered, nil
		})
		time.Sleep(hours(3))
		synctest.Wait()
		if len(w.tried()) != 2 || len(w.list()) != 4 {
			t.Errorf("tries %v, %d left", w.tried(), len(w.list()))
		}
		s.set(false)
		w.mu.Lock()
		w.deliver = always(delivered)
		w.mu.Unlock()
		time.Sleep(hours(2))
		synctest.Wait()
		if len(w.list()) != 0 {
			t.Errorf("%d left", len(w.list()))
		}
		for to, tries := range w.tried() {
			if len(tries) != 1 {
				t.Errorf("%s: tries at %v", to, tries)
			}
		}
	})
}

// TestDelayStatus: a delay says why mail waits, not what it may end in; the end says that its time was over (RFC 3463 §3.5).
func TestDelayStatus(t *testing.T) {
	for name, tt := range map[string]struct {
		result queue.Result
		delay  string
		end    string
	}{
		"cannot be reached":  {queue.Result{Class: queue.Network}, "4.4.1", "4.4.7"},
		"its end is known":   {queue.Result{Class: queue.Network, Status: "4.4.7"}, "4.4.1", "4.4.7"},
		"connection lost":    {queue.Result{Class: queue.Network, Status: "4.4.2"}, "4.4.2", "4.4.7"},
		"said why":           {queue.Result{Class: queue.Remote, Code: 452, Status: "4.2.2"}, "4.2.2", "4.4.7"},
		"did not say why":    {queue.Result{Class: queue.Remote, Code: 451}, "4.0.0", "4.4.7"},
		"not to be trusted":  {queue.Result{Class: queue.Trust}, "4.7.5", "5.7.5"},
		"a floor is not met": {queue.Result{Class: queue.Trust, Status: "5.7.4"}, "4.7.4", "5.7.4"},
		"names no host":      {queue.Result{Class: queue.Remote, Status: "5.4.4"}, "4.4.4", "5.4.4"},
	} {
		t.Run(name, func(t *testing.T) {
			list, left := notices(t, envelope("bob@y.example"), message(10), tt.result)
			if len(list) != 2 || left != 0 {
				t.Fatalf("%d notices, %d left", len(list), left)
			}
			for i, want := range []string{tt.delay, tt.end} {
				if p := parse(t, list[i]); p.recipient.Get("Status") != want {
					t.Errorf("%s has status %s, want %s", p.recipient.Get("Action"), p.recipient.Get("Status"), want)
				}
			}
		})
	}
}

// TestReturned: what comes back of the original, in the form for every server and in the best one (RFC 3461 §4.3, RFC 6522).
func TestReturned(t *testing.T) {
	const utf, header = "Subject: Gr\u00fc\u00dfe\r\n", "Subject: x\r\n"
	refused := queue.Result{Class: queue.Permanent, Code: 550, Status: "5.1.1", Protocol: "smtp"}
	for name, tt := range map[string]struct {
		ask      queue.Return
		to, body string
		result   queue.Result
		best     string // media type and encoding of the third part
		fallback string // "": the best is in ASCII
	}{
		"not asked":           {queue.ReturnDefault, "b@y.example", header + "\r\nbody\r\n", refused, "text/rfc822-headers 7bit", ""},
		"header":              {queue.ReturnHeaders, "b@y.example", header + "\r\nbody\r\n", refused, "text/rfc822-headers 7bit", ""},
		"all":                 {queue.ReturnFull, "b@y.example", header + "\r\nbody\r\n", refused, "message/rfc822 7bit", "text/rfc822-headers 7bit"},
		"all, no line end":    {queue.ReturnFull, "b@y.example", header + "\r\nbody", refused, "message/rfc822 7bit", "text/rfc822-headers 7bit"},
		"all, 8-bit body":     {queue.ReturnFull, "b@y.example", header + "\r\n\xe9\r\n", refused, "message/rfc822 8bit", "text/rfc822-headers 7bit"},
		"all, UTF-8 header":   {queue.ReturnFull, "b@y.example", utf + "\r\nbody\r\n", refused, "message/global 8bit", "message/global-headers quoted-printable"},
		"all, Latin-1 header": {queue.ReturnFull, "b@y.example", "Subject: \xe9\r\n\r\nbody\r\n", refused, "text/rfc822-headers 7bit", "text/rfc822-headers 7bit"},
		"all, NUL":            {queue.ReturnFull, "b@y.example", header + "\r\n\x00\r\n", refused, "text/rfc822-headers 7bit", "text/rfc822-headers 7bit"},
		"all, bare LF":        {queue.ReturnFull, "b@y.example", header + "\r\na\nb\r\n", refused, "text/rfc822-headers 7bit", "text/rfc822-headers 7bit"},
		"all, bare CR":        {queue.ReturnFull, "b@y.example", header + "\r\na\rb\r\n", refused, "text/rfc822-headers 7bit", "text/rfc822-headers 7bit"},
		"all, CR for LF":      {queue.ReturnFull, "b@y.example", header + "\r\na\rb\nc\r\n", refused, "text/rfc822-headers 7bit", "text/rfc822-headers 7bit"},
		"all, long line":      {queue.ReturnFull, "b@y.example", header + "\r\n" + strings.Repeat("x", 999) + "\r\n", refused, "text/rfc822-headers 7bit", "text/rfc822-headers 7bit"},
		"all, too large":      {queue.ReturnFull, "b@y.example", header + strings.Repeat("\r\nbody", 1<<18), refused, "text/rfc822-headers 7bit", ""},
		"all, of a success":   {queue.ReturnFull, "b@y.example", header + "\r\nbody\r\n", delivered, "text/rfc822-headers 7bit", ""},
		"UTF-8 header":        {queue.ReturnDefault, "b@y.example", utf + "\r\nbody\r\n", refused, "message/global-headers 8bit", "message/global-headers quoted-printable"},
		"UTF-8 address":       {queue.ReturnDefault, "b\u00f8b@y.example", header + "\r\nbody\r\n", refused, "text/rfc822-headers 7bit", "text/rfc822-headers 7bit"},
	} {
		t.Run(name, func(t *testing.T) {
			env := envelope(tt.to)
			env.Return, env.Recipients[0].Notify = tt.ask, queue.NotifySuccess|queue.NotifyFailure
			list, _ := notices(t, env, tt.body, tt.result)
			if len(list) != 1 {
				t.Fatalf("%d notices", len(list))
			}
			m := list[0]
			p := parse(t, m)
			if got := p.returnsAs + " " + p.encoded; got != tt.best {
				t.Errorf("returned as %s, want %s", got, tt.best)
			}
			if want := strings.TrimSuffix(tt.body, "\r\n"); strings.HasPrefix(tt.best, "message/rfc822") && p.returned != want && p.returned != want+"\r\n" {
				t.Errorf("returned %q", p.returned)
			}
			if (m.Fallback == nil) != (tt.fallback == "") {
				t.Fatalf("a form for every server: %v", m.Fallback != nil)
			}
			if m.Fallback == nil {
				return
			}
			if i := bytes.IndexFunc(m.Fallback, func(r rune) bool { return r > 0x7f }); i >= 0 {
				t.Errorf("not ASCII at %d:\n%s", i, m.Fallback)
			}
			p = parse(t, queue.Mail{To: m.To, Octets: m.Fallback})
			if got := p.returnsAs + " " + p.encoded; got != tt.fallback {
				t.Errorf("the form for every server returns %s, want %s", got, tt.fallback)
			}
			want := "rfc822; " + tt.to
			if strings.Contains(name, "address") {
				want = `utf-8; b\x{F8}b@y.example`
			}
			if got := p.recipient.Get("Final-Recipient"); got != want || p.statusAs != "message/delivery-status" {
				t.Errorf("%s: %s, want %s", p.statusAs, got, want)
			}
		})
	}
}
