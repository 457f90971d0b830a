package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dimegate/internal/testpeer"
)

// An exchangeReport is what came of a session of an Exchange with its gateway, and of a gateway with its Exchange.
type exchangeReport struct {
	Checks  int             `json:"checks"`
	Failed  int             `json:"failed"`
	Results []exchangeCheck `json:"results"`
	OK      bool            `json:"ok"`
	Why     []string        `json:"why,omitempty"` // it is not
}

// An exchangeCheck is one thing that must hold.
type exchangeCheck struct {
	Side string `json:"side"` // outbound: Exchange speaks to its gateway; inbound: the gateway to Exchange
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	What string `json:"what"` // was seen
}

var exchangeCommand = command{
	"exchange", "[--json]",
	"be an Exchange on both sides of two gateways: its verbs, offered and tried, chunks in one write, its header fields, TNEF and journal\n" +
		"reports; exit code 0 only if all of it is answered and carried as it must be (as root: Postfix and Dovecot want it); example: lab exchange --json",
	runExchange,
}

func runExchange(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("lab exchange", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 {
		return errUsage
	}
	var report *exchangeReport
	err := withLab(ctx, func(l *Lab, both [2]*Gateway) (err error) {
		report, err = beExchange(ctx, l, both[1])
		return err
	})
	if err != nil {
		return err
	}
	return tell(out, *asJSON, "exchange", report, report.OK, report.Why)
}

func (r *exchangeReport) print(out io.Writer) {
	for _, c := range r.Results {
		fmt.Fprintf(out, "%s: %s: ok %t: %s\n", c.Side, c.Name, c.OK, c.What)
	}
}

const (
	outboundSide = "outbound"
	inboundSide  = "inbound"

	byDMTP   = "by DMTP"
	byPort25 = "by port 25"
)

func (r *exchangeReport) add(side, name string, ok bool, format string, args ...any) {
	c := exchangeCheck{side, name, ok, fmt.Sprintf(format, args...)}
	r.Results = append(r.Results, c)
	r.Checks++
	if !ok {
		r.Failed++
		r.Why = append(r.Why, side+": "+name+": "+c.What)
	}
	r.OK = r.Failed == 0
}

// beExchange puts an Exchange in the place of bravo's mail server, and speaks as one to alpha's gateway.
func beExchange(ctx context.Context, l *Lab, bravo *Gateway) (*exchangeReport, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLong)
	defer cancel()
	x, err := l.startExchange(ctx, bravo)
	if err != nil {
		return nil, err
	}
	r := &exchangeReport{}
	if err := r.verbs(ctx, l.Alpha.DX+":2525"); err != nil {
		return nil, err
	}
	mail := exchangeMail()
	if err := r.send(ctx, l, x, mail, byDMTP, l.Alpha.DX+":2525", 100); err != nil {
		return nil, err
	}
	if err := r.send(ctx, l, x, mail, byPort25, l.Bravo.DX+":25", 200); err != nil {
		return nil, err
	}
	if err := r.scarce(ctx, l, x); err != nil {
		return nil, err
	}
	r.spoken(x)
	return r, nil
}

// startExchange starts one and makes it the mail server of bravo's gateway, which now removes what only Exchange believes.
func (l *Lab) startExchange(ctx context.Context, bravo *Gateway) (*exchangeServer, error) {
	addr, err := l.Address()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(bravo.Data, "tls", "ecdsa")
	cert, err := tls.LoadX509KeyPair(file+".crt", file+".key")
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", addr+":25")
	if err != nil {
		return nil, err
	}
	x := &exchangeServer{tls: &tls.Config{Certificates: []tls.Certificate{cert}}}
	l.Go("exchange", func(ctx context.Context) error { return x.serve(ctx, ln) })
	bravo.Inner = ln.Addr().String()
	if err := bravo.Stop(); err != nil {
		return nil, err
	}
	err = bravo.Configure(func(text string) string {
		return strings.Replace(text, `exchange_fields = "keep"`, `exchange_fields = "remove"`, 1)
	})
	if err != nil {
		return nil, err
	}
	return x, bravo.Run(ctx)
}

// notOurs are the extensions that only Exchange has; none may be offered.
var notOurs = []string{"X-ANONYMOUSTLS", "X-EXPS", "XEXCH50", "XRDST", "XSHADOW", "XSHADOWREQUEST", "XPROXY", "XPROXYFROM", "XPROXYTO", "XOORG", "XSYSPROBE", "XORIGFROM", "XMESSAGECONTEXT", "BINARYMIME"}

// foreignVerbs are tried nevertheless. Each is refused, and the session is in step behind it.
var foreignVerbs = []string{"X-ANONYMOUSTLS", "X-EXPS GSSAPI", "X-EXPS EXCHANGEAUTH SHA256 AAAA", "XEXCH50 1024 2", "XSHADOW EX01.alpha.test", "XSHADOWREQUEST", "XQDISCARD 50",
	"XPROXY SID=0 IP=192.0.2.1 PORT=25 DOMAIN=x CAPABILITIES=0", "XPROXYFROM IP=192.0.2.1", "XPROXYTO DESTINATIONS=x", "XSESSIONPARAMS MDBGUID=0", "XRDST x",
	"MAIL FROM:<alice@alpha.test> XOORG=alpha.test", "MAIL FROM:<alice@alpha.test> XSHADOW=0", "MAIL FROM:<alice@alpha.test> XMESSAGEVALUE=MediumHigh",
	"MAIL FROM:<alice@alpha.test> XORIGFROM=<carol@alpha.test>", "MAIL FROM:<alice@alpha.test> XATTRDIRECT=Originating XATTRORGID=xorgid:0", "MAIL FROM:<alice@alpha.test> BODY=BINARYMIME"}

// verbs tries what only Exchange has at a gateway.
func (r *exchangeReport) verbs(ctx context.Context, addr string) error {
	c, err := testpeer.DialSMTP(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	var offered []string
	for _, name := range notOurs {
		if _, ok := c.Ext[name]; ok {
			offered = append(offered, name)
		}
	}
	_, pipelining := c.Ext["PIPELINING"]
	_, chunking := c.Ext["CHUNKING"]
	_, eight := c.Ext["8BITMIME"]
	_, startTLS := c.Ext["STARTTLS"]
	r.add(outboundSide, "what EHLO offers", len(offered) == 0 && pipelining && chunking && eight && startTLS && c.Ext["SIZE"] != "",
		"of Exchange's own: %v; SIZE %s, PIPELINING %t, CHUNKING %t, 8BITMIME %t, STARTTLS %t", offered, c.Ext["SIZE"], pipelining, chunking, eight, startTLS)
	for _, line := range foreignVerbs {
		_, err := c.Command(250, line)
		reply, ok := errors.AsType[*textproto.Error](err)
		what := "taken"
		if err != nil {
			what = err.Error()
		}
		_, after := c.Command(250, "NOOP")
		r.add(outboundSide, line, ok && reply.Code/100 == 5 && after == nil, "%s", what)
		if after != nil { // hung up: the rest on a new one
			if c, err = testpeer.DialSMTP(ctx, addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// send says what an Exchange has to say in one session under TLS, each message with its transaction and two chunks in one write,
// and holds what arrives against it.
func (r *exchangeReport) send(ctx context.Context, l *Lab, x *exchangeServer, list []exchangeMessage, way, addr string, first int) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	s := &smuggler{}
	s.use(conn)
	defer func() { s.conn.Close() }()
	s.say(strings.NewReplacer(), []smuggleStep{{send: "", replies: 1, want: "220"}, {send: "EHLO EX01.alpha.test\r\n", replies: 1, want: "250"},
		{send: "STARTTLS\r\n", replies: 1, want: "220", tls: true}, {send: "EHLO EX01.alpha.test\r\n", replies: 1, want: "250"}})
	s.replies, s.budget = nil, 0
	mailbox := func(i int) string { return fmt.Sprintf("m%d@%s", first+i, l.Bravo.Domain) }
	for i, m := range list {
		half := len(m.octets) / 3
		s.say(strings.NewReplacer(), []smuggleStep{{replies: 4, want: "250", send: fmt.Sprintf("MAIL FROM:<%s> SIZE=%d BODY=8BITMIME\r\nRCPT TO:<%s>\r\nBDAT %d\r\n%sBDAT %d LAST\r\n%s",
			m.from, len(m.octets), mailbox(i), half, m.octets[:half], len(m.octets)-half, m.octets[half:])}})
	}
	s.send("QUIT\r\n")
	s.end()
	wrong := slices.ContainsFunc(s.replies, func(code string) bool { return code[0] != '2' })
	r.add(outboundSide, "chunks in one write, "+way, len(s.replies) == 4*len(list)+1 && !wrong, "%d replies for %d messages: %v", len(s.replies), len(list), slices.Compact(slices.Clone(s.replies)))
	for i, m := range list {
		r.arrival(ctx, x, m, way, mailbox(i))
	}
	return nil
}

// arrival holds what Exchange got against what another one had sent.
func (r *exchangeReport) arrival(ctx context.Context, x *exchangeServer, m exchangeMessage, way, mailbox string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := testpeer.Until(ctx, func() bool { return len(x.got(mailbox)) > 0 }); err != nil {
		r.add(inboundSide, m.name+", "+way, false, "did not arrive: %v", err)
		return
	}
	got := x.got(mailbox)[0]
	left := m.left()
	if way == byPort25 && !bytes.HasSuffix(left, []byte("\r\n")) { // it goes on by DATA while it comes in, which cannot carry that
		left = append(left, "\r\n"...)
	}
	top, whole := bytes.CutSuffix(got.octets, left)
	bad := believed.FindAll(got.octets, -1)
	what := fmt.Sprintf("%d of %d octets, %d fields taken out", len(left), len(m.octets), m.taken())
	if !whole {
		what = parting(got.octets[max(0, len(got.octets)-len(left)):], left)
	}
	if got.reversePath != m.from {
		what = fmt.Sprintf("from <%s>, not <%s>", got.reversePath, m.from)
	}
	r.add(inboundSide, m.name+", "+way, whole && len(bad) == 0 && got.reversePath == m.from && bytes.Contains(top, []byte("X-DIME: ")), "%s; still there: %q", what, bad)
}

// scarce: an Exchange under back pressure turns a message away for a while, and gets it once.
func (r *exchangeReport) scarce(ctx context.Context, l *Lab, x *exchangeServer) error {
	x.mu.Lock()
	x.scarce = 2
	x.mu.Unlock()
	const message = "From: Alice <alice@alpha.test>\r\nSubject: under pressure\r\n\r\nbody\r\n"
	mailbox := "m300@" + l.Bravo.Domain
	c, err := testpeer.DialSMTP(ctx, l.Alpha.DX+":2525")
	if err != nil {
		return err
	}
	if err := errors.Join(c.Send("alice@alpha.test", []string{mailbox}, []byte(message)), c.Close()); err != nil {
		return err
	}
	err = testpeer.Until(ctx, func() bool { return len(x.got(mailbox)) > 0 })
	x.mu.Lock()
	left := x.scarce
	x.mu.Unlock()
	r.add(inboundSide, "452 4.3.1 for a while", err == nil && left == 0 && len(x.got(mailbox)) == 1, "arrived %d times, %d refusals left", len(x.got(mailbox)), left)
	return nil
}

// spoken holds what the gateway has said to Exchange against what a stranger may say.
func (r *exchangeReport) spoken(x *exchangeServer) {
	var odd []string
	verbs := map[string]int{}
	for _, line := range x.commands() {
		words := strings.Fields(strings.ToUpper(line))
		if len(words) == 0 {
			continue
		}
		verbs[words[0]]++
		ok := slices.Contains([]string{"EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT"}, words[0])
		if words[0] == "MAIL" {
			for _, w := range words[2:] {
				ok = ok && (strings.HasPrefix(w, "SIZE=") || w == "BODY=8BITMIME" || w == "SMTPUTF8")
			}
		}
		if !ok {
			odd = append(odd, line)
		}
	}
	r.add(inboundSide, "what is said to Exchange", len(odd) == 0 && verbs["STARTTLS"] > 0 && verbs["MAIL"] > 0 && verbs["BDAT"] > 0, "%v; odd: %q", verbs, odd)
}
