package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"dimegate/internal/testpeer"
)

// A smuggleReport is what came of octets that two programs could read in two ways.
type smuggleReport struct {
	Cases    int                   `json:"cases"`    // sessions at our doors
	Desync   int                   `json:"desync"`   // of these, those in which octets of a body were read as commands
	Smuggled int                   `json:"smuggled"` // messages hidden in others that arrived
	Doors    map[string]doorReport `json:"doors"`
	Control  bool                  `json:"control"` // go-smtp without our guard is seen to lose its step
	OK       bool                  `json:"ok"`
	Why      []string              `json:"why,omitempty"` // it is not
}

// A doorReport is one door's part. Those that are not ours are there to be compared.
type doorReport struct {
	Ours     bool            `json:"ours"`
	Cases    int             `json:"cases"`
	Desync   int             `json:"desync"`
	Smuggled int             `json:"smuggled"`
	Accepted int             `json:"accepted"`
	Arrived  int             `json:"arrived"`
	Results  []smuggleResult `json:"results"`
}

var smuggleCommand = command{
	"smuggle", "[--json]",
	"say to every port of two gateways, and to a Postfix and a bare go-smtp for comparison, what some server somewhere takes for the\n" +
		"end of a message or a line, and refuse to wait where one must; exit code 0 only if no octet of a body was read as a command\n" +
		"at a port of ours, and what was accepted arrived once (as root: Postfix and Dovecot want it); example: lab smuggle --json",
	runSmuggle,
}

func runSmuggle(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("lab smuggle", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 {
		return errUsage
	}
	var report *smuggleReport
	err := withLab(ctx, func(l *Lab, both [2]*Gateway) (err error) {
		report, err = smuggle(ctx, l, both[0])
		return err
	})
	if err != nil {
		return err
	}
	return tell(out, *asJSON, "smuggle", report, report.OK, report.Why)
}

// The doors that are not ours.
const (
	doorPostfix = "postfix"
	doorBare    = "go-smtp"
)

// smuggle tries every case at every door of a lab, and counts what arrived when all is delivered.
func smuggle(ctx context.Context, l *Lab, alpha *Gateway) (*smuggleReport, error) {
	doors, err := l.doors(ctx, alpha)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(doors))
	for i := range doors {
		wg.Go(func() { errs[i] = doors[i].tryAll(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	settled := l.settle(ctx, alpha, doors)
	r := &smuggleReport{Doors: map[string]doorReport{}}
	for _, d := range doors {
		r.Doors[d.name] = d.report()
	}
	r.judge(settled)
	return r, nil
}

// doors opens all of them.
func (l *Lab) doors(ctx context.Context, alpha *Gateway) ([]*door, error) {
	stock, err := l.stockPostfix(ctx, alpha)
	if err != nil {
		return nil, err
	}
	bare, at, err := l.bareEngine()
	if err != nil {
		return nil, err
	}
	const from = "alice@alpha.test"
	smtp, dmtp := smtpCases(), dmtpCases()
	const hello, dmtpHello = "EHLO client.test\r\n", "EHLO <alpha.test>\r\n"
	in, dx := l.Bravo.Store.Count, l.Bravo.DX
	doors := []*door{
		{name: "submission", ours: true, addr: l.Alpha.DX + ":2525", from: from, domain: l.Bravo.Domain, hello: hello, cases: smtp, count: in},
		{name: "mx", ours: true, addr: dx + ":25", from: from, domain: l.Bravo.Domain, hello: hello, cases: smtp, count: in},
		{name: "dmtp", ours: true, addr: dx + ":26", from: from, domain: l.Bravo.Domain, tls: true, hello: dmtpHello, cases: dmtp, count: in},
		{name: "dual", ours: true, addr: dx + ":25", from: from, domain: l.Bravo.Domain, clear: "STARTTLS <bravo.test>\r\n", hello: dmtpHello, cases: dmtp, count: in},
		{name: "dual, in clear", ours: true, addr: dx + ":25", from: from, domain: l.Bravo.Domain, cases: injectedCases, count: in},
		{name: doorPostfix, addr: stock.Addr, from: from, domain: l.Alpha.Domain, hello: hello, cases: smtp, count: l.Alpha.Store.Count},
		{name: doorBare, addr: at, from: from, domain: l.Alpha.Domain, hello: hello, cases: smtp, count: func(mailbox string) (n int) {
			for _, m := range bare.letters() {
				for _, to := range m.to {
					if to == mailbox {
						n++
					}
				}
			}
			return n
		}},
	}
	for i, d := range doors {
		d.first = 1000 * i
	}
	return doors, nil
}

// stockPostfix is one more, which offers STARTTLS and gives its mail to alpha's store. Its limits are the gateway's.
func (l *Lab) stockPostfix(ctx context.Context, alpha *Gateway) (*testpeer.Postfix, error) {
	addr, err := l.Address()
	if err != nil {
		return nil, err
	}
	tls := filepath.Join(alpha.Data, "tls", "ecdsa")
	return l.Bench.Postfix(ctx, testpeer.PostfixConfig{
		Name: "mx2.alpha.test", Listen: addr + ":25", Hostname: "mx2.alpha.test", Domain: l.Alpha.Domain, Users: users,
		Transport: []string{l.Alpha.Domain + " lmtp:inet:" + l.Alpha.Store.LMTP},
		Main:      []string{"smtpd_tls_security_level = may", "smtpd_tls_chain_files = " + tls + ".key, " + tls + ".crt", "smtpd_client_connection_count_limit = 0"},
	})
}

// bareEngine is go-smtp's server as it is released, with nothing before it.
func (l *Lab) bareEngine() (*mailServer, string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	m := &mailServer{greeting: "bare.test", all: true}
	l.Go("go-smtp", func(ctx context.Context) error { return m.serve(ctx, ln) })
	return m, ln.Addr().String(), nil
}

// atOneDoor is how many sessions a door has at one time.
const atOneDoor = 4

func (d *door) tryAll(ctx context.Context) error {
	d.results = make([]smuggleResult, len(d.cases))
	errs := make([]error, len(d.cases))
	places := make(chan struct{}, atOneDoor)
	var wg sync.WaitGroup
	for i, c := range d.cases {
		places <- struct{}{}
		wg.Go(func() {
			d.results[i], errs[i] = d.try(ctx, i, c)
			<-places
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// settle waits until what was accepted has arrived and nothing is under way any more, at our doors.
func (l *Lab) settle(ctx context.Context, alpha *Gateway, doors []*door) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := testpeer.Until(ctx, func() bool {
		for _, d := range doors {
			for i, r := range d.results {
				if d.ours && d.count(d.mailbox(i)) < r.Accepted {
					return false
				}
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("what was accepted has not all arrived: %w", err)
	}
	empty := func() bool {
		rows, err := alpha.Command(ctx, "queue", "list", "--config", alpha.Config, "--json")
		if err != nil || strings.Contains(rows, `"id"`) {
			return false
		}
		for _, o := range l.Orgs() {
			if q, err := o.Postfix.Queue(ctx); err != nil || q != "" {
				return false
			}
		}
		return true
	}
	if err := testpeer.Until(ctx, empty); err != nil {
		return fmt.Errorf("mail is still under way: %w", err)
	}
	return nil
}

func (d *door) report() doorReport {
	r := doorReport{Ours: d.ours, Cases: len(d.cases), Results: d.results}
	for i := range d.results {
		x := &d.results[i]
		x.Arrived, x.Smuggled = d.count(d.mailbox(i)), d.count(d.victim(i))
		x.Desync = x.Desync || x.Smuggled > 0
		if x.Desync {
			r.Desync++
		}
		r.Accepted += x.Accepted
		r.Arrived += x.Arrived
		r.Smuggled += x.Smuggled
	}
	return r
}

// judge says whether all is as it must be.
func (r *smuggleReport) judge(settled error) {
	bad := func(format string, args ...any) { r.Why = append(r.Why, fmt.Sprintf(format, args...)) }
	if settled != nil {
		bad("%v", settled)
	}
	for name, d := range r.Doors {
		if !d.Ours {
			continue
		}
		r.Cases += d.Cases
		r.Desync += d.Desync
		r.Smuggled += d.Smuggled
		for _, x := range d.Results {
			if x.Desync || x.Hung || x.Arrived != x.Accepted {
				bad("%s: %s: %d replies, at most %d may be; %d accepted, %d arrived, %d smuggled, left open %t: %v",
					name, x.Case, len(x.Replies), x.Most, x.Accepted, x.Arrived, x.Smuggled, x.Hung, x.Replies)
			}
		}
	}
	for _, name := range []string{"submission", "mx"} {
		if r.Doors[name].Accepted == 0 {
			bad("%s: no message was accepted", name)
		}
	}
	if r.Control = r.Doors[doorBare].Desync > 0; !r.Control {
		bad("control: a server without the guard does not lose its step: the cases show nothing")
	}
	r.OK = len(r.Why) == 0
}

// print shows a table of what each door made of each case, and a line for each door.
func (r *smuggleReport) print(out io.Writer) {
	for _, part := range [][]string{{"submission", "mx", doorPostfix, doorBare}, {"dmtp", "dual"}, {"dual, in clear"}} {
		tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(tw, "case\t%s\n", strings.Join(part, "\t"))
		for i, x := range r.Doors[part[0]].Results {
			fmt.Fprint(tw, x.Case)
			for _, name := range part {
				fmt.Fprintf(tw, "\t%s", r.Doors[name].Results[i])
			}
			fmt.Fprintln(tw)
		}
		for _, name := range part {
			d := r.Doors[name]
			fmt.Fprintf(tw, "%s: %d cases, %d lost their step, %d messages smuggled; %d accepted, %d arrived\n", name, d.Cases, d.Desync, d.Smuggled, d.Accepted, d.Arrived)
		}
		tw.Flush()
		fmt.Fprintln(out)
	}
}

// String is a cell of the table.
func (x smuggleResult) String() string {
	switch {
	case x.Smuggled > 0:
		return "SMUGGLED"
	case x.Desync:
		return "DESYNC"
	case x.Hung:
		return "left open"
	case x.Accepted > 0:
		return "one message"
	case len(x.Replies) < x.Most:
		return "refused, closed"
	}
	return "refused"
}
