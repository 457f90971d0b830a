package exchange

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"dimegate/bridge/exchange/dane"
	"dimegate/bridge/exchange/mtasts"
	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/bridge/queue"
	"dimegate/dmtp/resolver"
)

// A demand is what is asked of a session with one host before mail goes over it.
type demand struct {
	host   string
	floor  Floor
	asked  string // who asks, for people
	raised bool   // by something published, or the sender
	tls    bool   // not in the clear
	names  []string
	pkix   bool          // a CA vouches for the certificate, and it is for one of names
	strict bool          // and an MTA-STS policy in mode enforce names the host
	tlsa   []dane.Record // usable ones: one of them holds
	refs   []string      // whose certificates a trust anchor among them may vouch for (RFC 7672 §3.2.2)
	proven bool          // and the host is proved to be the domain's
	sni    string
	test   *mtasts.Policy // in mode testing: only counted
}

// demand puts together what is asked of a hop: by the administrator's floor, by the sender, and by what DNS and web say of
// host and domain. A failure means that this hop cannot do, whatever it offers.
func (t *try) demand(ctx context.Context, r *route, h hop) (*demand, place, *failure) {
	d := &demand{host: h.host, floor: t.mail.Floor, asked: "floor " + t.mail.Floor.String(), sni: h.host, names: append([]string{h.host}, r.names...)}
	p, f := t.place(ctx, r, h)
	if f != nil {
		return d, p, f
	}
	if f := t.published(ctx, r, h, p, d); f != nil {
		return d, p, f
	}
	if !d.proven {
		if f := t.policed(ctx, r, h, d); f != nil {
			return d, p, f
		}
	}
	return d, p, t.floored(r, h, d)
}

// raise notes that something published asks for more than the floor.
func (d *demand) raise(by string) {
	d.tls, d.raised = true, true
	d.asked += ", raised by " + by
}

// published adds what the host's TLSA records ask (RFC 7672 §2.2).
func (t *try) published(ctx context.Context, r *route, h hop, p place, d *demand) *failure {
	bases, f := t.bases(ctx, h, p)
	if f != nil {
		return f
	}
	for _, base := range bases {
		list, a, err := t.DNS.TLSA(ctx, "_"+strconv.Itoa(int(h.port))+"._tcp."+base+".")
		if err != nil {
			return dnsFailure(err, "the TLSA records of "+h.host)
		}
		if a.State != resolver.Secure || len(list) == 0 {
			continue
		}
		var records []dane.Record
		for _, r := range list {
			records = append(records, dane.Record(r))
		}
		if d.tlsa = dane.Usable(records); len(d.tlsa) == 0 {
			d.raise("TLSA records, none usable") // §2.2.3: encryption is a must, whom it is with cannot be known
			return nil
		}
		d.raise("TLSA records")
		d.sni = base
		d.proven = r.secure || r.smart
		d.refs = []string{base, h.host}
		if d.proven {
			d.refs = append(d.refs, r.names...)
		}
		return nil
	}
	return nil
}

// bases are the names under which TLSA records of a host count: the one that proved aliases lead to, then its own; its own
// alone when it is a proved alias to a place that is not signed; none in a zone without signatures.
func (t *try) bases(ctx context.Context, h hop, p place) ([]string, *failure) {
	switch {
	case p.state == resolver.Secure && p.owner != h.host:
		return []string{p.owner, h.host}, nil
	case p.state == resolver.Secure:
		return []string{h.host}, nil
	case p.owner == h.host:
		return nil, nil
	}
	a, err := t.DNS.Lookup(ctx, h.host+".", dns.TypeCNAME)
	if err != nil {
		return nil, dnsFailure(err, "the alias "+h.host)
	}
	if a.State == resolver.Secure && len(a.Records) > 0 {
		return []string{h.host}, nil
	}
	return nil, nil
}

// policed adds what the domain's MTA-STS policy asks. TLSA records of a host that is proved to be the domain's stand above it.
func (t *try) policed(ctx context.Context, r *route, h hop, d *demand) *failure {
	policy, err := t.mtasts(ctx, r)
	switch {
	case err != nil && !errors.Is(err, mtasts.ErrUnknown):
		return &failure{class: queue.Network, status: "4.3.0", why: "the kept MTA-STS policy of " + r.domain + " cannot be read"}
	case err != nil:
		return &failure{class: queue.Network, status: "4.4.3", why: "whether " + r.domain + " has an MTA-STS policy cannot be had from DNS"}
	case policy == nil || policy.Mode == mtasts.None:
		return nil
	case policy.Mode == mtasts.Testing:
		d.test = policy
		return nil
	}
	d.raise("MTA-STS")
	if !policy.Names(h.host) {
		return &failure{class: queue.Trust, status: "5.7.5", why: "the MTA-STS policy of " + r.domain + " does not name " + h.host, report: tlsrpt.Failed}
	}
	d.pkix, d.strict, d.names = true, true, []string{h.host}
	return nil
}

// floored adds what the floor and the sender ask, and says whether it can be had here at all.
func (t *try) floored(r *route, h hop, d *demand) *failure {
	cannot := func(status, why string, report tlsrpt.Result) *failure {
		return &failure{class: queue.Trust, status: status, why: d.asked + " is not met: " + why, report: report, unmet: !d.raised}
	}
	if t.mail.RequireTLS {
		d.raise("REQUIRETLS")
		if !d.proven && !d.strict && !r.secure && !r.smart {
			return cannot("5.7.30", "neither DNSSEC nor MTA-STS proves "+h.host+" to be a host of "+r.domain, "")
		}
		d.names = []string{h.host}
		d.pkix = d.pkix || d.tlsa == nil
	}
	if r.auth != nil && d.tlsa == nil {
		d.tls, d.pkix = true, true
	}
	switch d.floor {
	case Opportunistic:
	case TLS:
		d.tls = true
		d.pkix = d.pkix || d.tlsa == nil
	case MTASTS:
		switch {
		case r.smart:
			return cannot("5.7.4", "through a smart host no policy of "+r.domain+" can be kept", "")
		case !d.proven && !d.strict:
			return cannot("5.7.4", r.domain+" has no MTA-STS policy in mode enforce", "")
		}
		d.tls = true
	case DANE:
		switch {
		case r.smart:
			return cannot("5.7.4", "through a smart host nothing proves the way on to "+r.domain, "")
		case d.tlsa == nil:
			return cannot("5.7.4", h.host+" has no usable TLSA records that DNSSEC proves", tlsrpt.DANERequired)
		case !d.proven:
			return cannot("5.7.4", "DNSSEC does not prove the MX records of "+r.domain, tlsrpt.DANERequired)
		}
		d.tls = true
	default:
		return cannot("5.7.1", "it allows no SMTP", "")
	}
	return nil
}

// judge says how a session is protected, by its state of TLS, nil for none. A failure: not as it is asked.
func (d *demand) judge(state *tls.ConnectionState, roots *x509.CertPool, now time.Time) (Rung, *failure) {
	refuse := func(status, why string, report tlsrpt.Result) (Rung, *failure) {
		return Clear, &failure{class: queue.Trust, status: status, why: d.asked + " is not met: " + why, host: d.host, report: report, unmet: !d.raised}
	}
	if state == nil {
		if d.tls {
			return refuse("5.7.4", d.host+" does not offer STARTTLS", tlsrpt.NoSTARTTLS)
		}
		return Clear, nil
	}
	rung := Encrypted
	if d.tlsa != nil {
		if _, err := dane.Verify(state.PeerCertificates, d.tlsa, d.refs, now); err != nil {
			return refuse("5.7.5", "the certificate of "+d.host+" is not what its TLSA records say", daneResult(err))
		}
		if rung = Authentic; d.proven {
			rung = Proven
		}
	}
	report, err := certified(state.PeerCertificates, roots, d.names, now)
	if err != nil && d.pkix {
		return refuse("5.7.5", "the certificate of "+d.host+" does not hold: "+err.Error(), report)
	}
	if err == nil && d.pkix && d.strict {
		rung = max(rung, Strict)
	} else if err == nil {
		rung = max(rung, Authentic)
	}
	if !rung.Meets(d.floor) { // the demand was put together so that this cannot be
		return refuse("5.7.4", d.host+" gives "+rung.String()+" only", "")
	}
	return rung, nil
}

func daneResult(err error) tlsrpt.Result {
	if errors.Is(err, dane.ErrName) {
		return tlsrpt.WrongName
	}
	return tlsrpt.Failed
}

// Why a certificate does not hold, in words that quote nothing of it.
var (
	errNoCertificate = errors.New("there is none")
	errExpired       = errors.New("it is out of its time")
	errNotTrusted    = errors.New("no CA that we know vouches for it")
	errWrongName     = errors.New("it is for another host")
	errChain         = errors.New("its chain is not valid")
)

// certified tells whether a CA vouches for a chain, and for one of the names.
func certified(chain []*x509.Certificate, roots *x509.CertPool, names []string, now time.Time) (tlsrpt.Result, error) {
	if len(chain) == 0 {
		return tlsrpt.Failed, errNoCertificate
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(o); err != nil {
		if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok && bad.Reason == x509.Expired {
			return tlsrpt.Expired, errExpired
		}
		if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
			return tlsrpt.NotTrusted, errNotTrusted
		}
		return tlsrpt.Failed, errChain
	}
	if !slices.ContainsFunc(names, func(n string) bool { return chain[0].VerifyHostname(n) == nil }) {
		return tlsrpt.WrongName, errWrongName
	}
	return "", nil
}

// rule says where mail goes, how protected and why that is enough: what is kept of the decision.
func (d *demand) rule(rung Rung) string {
	return "to " + d.host + " over " + rung.String() + " (" + d.asked + ")"
}
