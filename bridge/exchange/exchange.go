// Package exchange sends mail to the outside as plain SMTP: to a domain's mail exchangers or to a smart host, at a floor and
// never below it. What a domain publishes for itself (TLSA records, an MTA-STS policy) raises the floor, whatever the
// administrator has set; nothing lowers it. A floor that cannot be met is held and then bounced.
package exchange

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/emersion/go-sasl"

	"dimegate/bridge/exchange/mtasts"
	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/bridge/queue"
	"dimegate/bridge/smtpwire"
	"dimegate/dmtp/resolver"
)

// DNS is validated look-ups: resolver.DNS.
type DNS interface {
	Lookup(ctx context.Context, name string, typ uint16) (*resolver.Answer, error)
	Exchangers(ctx context.Context, domain string) ([]resolver.Exchanger, bool, *resolver.Answer, error)
	TLSA(ctx context.Context, name string) ([]resolver.TLSA, *resolver.Answer, error)
}

// Policies finds MTA-STS policies: mtasts.Client.
type Policies interface {
	Find(ctx context.Context, domain string) (mtasts.Finding, error)
}

// Reports counts how TLS went: tlsrpt.Recorder.
type Reports interface{ Record(tlsrpt.Session) }

// A SmartHost is a server that takes mail on for other domains.
type SmartHost struct {
	Host string // a name or an address
	Port uint16
	Auth func() sasl.Client // nil: none. A password goes only to a server whose certificate holds, whatever the floor
}

// Options are what an Exchanger is made of.
type Options struct {
	Name string   // ours, in EHLO
	Own  []string // further names of this gateway and of the servers that send to it: mail for them would come back
	// Serves tells of which domains this gateway takes plain mail: it may be their exchanger, for mail of another organisation of ours.
	// What goes round all the same is found by its marker. Nil: of none.
	Serves func(domain string) bool

	DNS      DNS
	Policies Policies       // nil: no domain has a policy
	Reports  Reports        // nil: nobody counts
	Roots    *x509.CertPool // nil: the system's

	// SmartHost tells by which smart host mail for a domain goes; nil, or no host: to the domain's own exchangers.
	SmartHost func(domain string) SmartHost
	// Permit refuses addresses of exchangers that are not to be connected to; nil: all are.
	Permit func(netip.Addr) error
	Dial   func(ctx context.Context, to netip.AddrPort) (net.Conn, error) // nil: TCP, 30 seconds

	PerHost     int           // sessions with one host at one time; default 10
	MaxMessages int           // in one session; default 100
	Idle        time.Duration // a session is kept that long for the next message; default 10s
	Timeouts    smtpwire.Timeouts
	Now         func() time.Time // nil: time.Now
}

// An Exchanger sends mail to the outside. Safe for concurrent use; it starts nothing.
type Exchanger struct {
	Options
	pool pool
}

// New makes an Exchanger.
func New(o Options) *Exchanger {
	if o.PerHost <= 0 {
		o.PerHost = 10
	}
	if o.MaxMessages <= 0 {
		o.MaxMessages = 100
	}
	if o.Idle <= 0 {
		o.Idle = 10 * time.Second
	}
	if o.Dial == nil {
		d := &net.Dialer{Timeout: 30 * time.Second}
		o.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", to.String())
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Exchanger{Options: o, pool: pool{limit: o.PerHost, messages: o.MaxMessages, idle: o.Idle}}
}

// Close ends all kept sessions. Deliveries under way end by their contexts.
func (x *Exchanger) Close() error { return x.pool.close() }

// A Mail is one message for one recipient.
type Mail struct {
	Floor      Floor
	Via        SmartHost // in place of the domain's own hosts and of Options.SmartHost; the zero value: none
	From       string    // reverse-path: an address, or "" for the null one
	To         string
	Message    smtpwire.Message
	UTF8       bool // the sender's server said SMTPUTF8
	UTF8Header bool // and the header needs it
	RequireTLS bool // and REQUIRETLS (RFC 8689)
	DSN        smtpwire.DSN
}

// Send delivers one copy. Before the first octet of it goes to a server, decide is told by which rule and how
// the session is protected; when decide fails, nothing is sent and its error is returned. Other errors are ctx's and faults of
// ours; all that concerns the other side is in the Result.
func (x *Exchanger) Send(ctx context.Context, m Mail, decide func(rule string, r Rung) error) (queue.Result, error) {
	facts, err := smtpwire.Examine(m.Message.Reader())
	if err != nil {
		return queue.Result{}, fmt.Errorf("exchange: message: %w", err)
	}
	t := &try{Exchanger: x, mail: m, facts: facts, decide: decide}
	out, err := t.run(ctx)
	if err != nil {
		return queue.Result{}, err
	}
	return out.result(), nil
}

// A Finding is what would become of a message now.
type Finding struct {
	Result queue.Result // Class Done: it would be offered
	Rule   string       // what decide would be told, or why nothing would be sent
	Rung   Rung
	Unmet  bool // it is the administrator's floor that stands in the way, nothing that the other side says
	Hosts  []Host
}

// A Host is one that was tried.
type Host struct {
	Name    string `json:"host"`
	Address string `json:"address,omitempty"`
	Asked   string `json:"asked"` // what was asked of it
	Rung    string `json:"protection,omitempty"`
	Outcome string `json:"outcome"`
}

// Check says what would become of a message of that many octets, by doing all that Send does but to name sender, recipient
// and message. It makes connections of its own.
func (x *Exchanger) Check(ctx context.Context, m Mail, octets int64) (Finding, error) {
	t := &try{Exchanger: x, mail: m, facts: smtpwire.Facts{Octets: octets, FinalEnd: true}, probe: true}
	out, err := t.run(ctx)
	if err != nil {
		return Finding{}, err
	}
	f := Finding{Result: out.result(), Rule: out.rule, Rung: out.rung, Hosts: t.hosts}
	if out.failure != nil {
		f.Rule, f.Unmet = out.failure.why, out.failure.unmet
	}
	return f, nil
}

// ended is the error of a try whose context has ended.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}
