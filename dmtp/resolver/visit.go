package resolver

import (
	"context"
	"crypto/tls"
	"errors"
)

// A visit is one caller's way to a domain's DX: at most one session, opened when it is first needed. It belongs to one
// goroutine.
type visit struct {
	r      *Resolver
	domain *Domain
	ev     *Evidence // where the visit's own findings go: not one that others read
	open   Session
}

// to turns the visit to d; a session with the same verified domain stays open.
func (v *visit) to(d *Domain, ev *Evidence) {
	if v.domain != d {
		v.close()
	}
	v.domain, v.ev = d, ev
}

// session connects, with the certificate judged by the domain's record.
func (v *visit) session(ctx context.Context) (Session, error) {
	if v.open != nil {
		return v.open, nil
	}
	s, err := v.r.connect(ctx, v.domain, v.domain.Hosts, v.ev)
	if err != nil {
		return nil, err
	}
	v.open = s
	return s, nil
}

func (v *visit) close() {
	if v.open != nil {
		v.open.Close() // what was asked has been answered
		v.open = nil
	}
}

// connect opens a session and notes in ev whose certificate was accepted and whose was not.
func (r *Resolver) connect(ctx context.Context, d *Domain, hosts []Host, ev *Evidence) (Session, error) {
	var accepted *Certificate
	var refused []Refusal
	t := d.Target()
	t.Hosts = hosts
	t.Verify = func(_ context.Context, host string, s tls.ConnectionState) error {
		id := ""
		if len(s.PeerCertificates) > 0 {
			id = CertificateID(s.PeerCertificates[0].Raw)
		}
		f, decision, err := d.Judge(host, s)
		if err != nil || !decision.Accept {
			refused = append(refused, Refusal{Host: host, ID: id, Reason: decision.Reason})
			return errors.New(decision.Reason)
		}
		accepted = &Certificate{Host: host, ID: id, TLS: f.TLS, CAValid: f.NameOK && f.ChainOK,
			Revocation: f.Revocation.String(), Reason: decision.Reason}
		if decision.Notable {
			r.alarm(ctx, "certificate", d.Name, decision.Reason, nil)
		}
		return nil
	}
	s, err := r.c.Fetcher.Connect(ctx, t)
	if err == nil && accepted == nil { // a pooled session would not have asked
		s.Close()
		err = errors.New("the session's certificate was not judged")
	}
	if err == nil {
		ev.Certificate, ev.Refused = accepted, refused
		return s, nil
	}
	if ended(ctx) {
		return nil, context.Cause(ctx)
	}
	ev.Refused = refused
	if len(refused) > 0 {
		r.alarm(ctx, "certificate", d.Name, "no DX has an acceptable certificate: "+refused[0].Reason, ev)
		return nil, &Error{Verdict: ErrUntrusted, Name: d.Name, Why: refused[0].Reason, Err: err, Evidence: ev}
	}
	return nil, &Error{Verdict: ErrTemporary, Name: d.Name, Why: "no DX can be reached", Err: err, Evidence: ev}
}
