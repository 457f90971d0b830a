package resolver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"dimegate/dmtp"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
)

// Org returns the organisation of a domain, verified: record, certificate of the DX, org signet, and what is remembered of
// it. The error is an *Error, or ErrBadName, or the context's.
func (r *Resolver) Org(ctx context.Context, domain string) (*Domain, error) {
	v := &visit{r: r}
	defer v.close()
	return r.org(ctx, domain, v)
}

// org is Org with a visit whose session may serve further questions.
func (r *Resolver) org(ctx context.Context, domain string, v *visit) (*Domain, error) {
	name, err := NormalDomain(domain)
	if err != nil {
		return nil, err
	}
	now := r.now()
	old, _ := r.domains.get(name, now)
	if old != nil && now.Before(old.at.Add(-clockSkew)) { // the clock went back: nothing is known of what is to come
		old = nil
	}
	if old != nil && now.Before(old.softRecord) && now.Before(old.softSignet) {
		return old, nil
	}
	if e, ok := r.failed.get(name, now); ok {
		return oldOr(old, e)
	}
	d, err := r.renew(ctx, name, old, v)
	if err != nil {
		return oldOr(old, err)
	}
	return d, nil
}

// renew looks for itself, whatever is cached. old is what may be found to hold still, or nil.
func (r *Resolver) renew(ctx context.Context, name string, old *Domain, v *visit) (*Domain, error) {
	return r.domainFlight.do(ctx, name, func(ctx context.Context) (*Domain, error) {
		now := r.now()
		d, err := r.lookOrg(ctx, name, old, v)
		if err == nil {
			r.domains.put(name, d, d.hard, now)
			return d, nil
		}
		// What there is not, DNS remembers; what we could not do says nothing about the domain.
		if e, ok := errors.AsType[*Error](err); ok && !ended(ctx) && e.Verdict != ErrNotDIME && !errors.Is(err, errInternal) {
			r.failed.put(name, e, now.Add(failedTTL), now)
		}
		return nil, err
	})
}

// oldOr returns what is known when asking anew failed in a way that says nothing against it: nobody answered. What is
// bogus, gone or refused says something.
func oldOr(old *Domain, err error) (*Domain, error) {
	if old != nil && (verdictOf(err) == ErrTemporary || errors.Is(err, ErrIndeterminate)) {
		return old, nil
	}
	return nil, err
}

// lookOrg looks the whole way from the record to the org signet, and again when the pin was changed under way. old is
// what is known, or nil.
func (r *Resolver) lookOrg(ctx context.Context, name string, old *Domain, v *visit) (d *Domain, err error) {
	for range 3 {
		if d, err = r.lookOrgOnce(ctx, name, old, v); !errors.Is(err, ErrConflict) {
			break
		}
	}
	return d, err
}

func (r *Resolver) lookOrgOnce(ctx context.Context, name string, old *Domain, v *visit) (*Domain, error) {
	pin, err := r.c.Store.Pin(ctx, name)
	if err == nil && pin != nil {
		err = pin.Check()
	}
	if err != nil {
		return nil, &Error{Verdict: ErrTemporary, Name: name, Err: fmt.Errorf("%w: %w", errInternal, err)}
	}
	now := r.now()
	d := &Domain{Name: name, at: now, now: r.now, judge: r.c.Judge, Evidence: &Evidence{Domain: name, At: now}}
	if pin != nil {
		d.pinned = pin.Certificates
	}
	if err := r.readRecord(ctx, d, pin); err != nil {
		return nil, err
	}
	if err := r.findHosts(ctx, d); err != nil {
		return nil, err
	}
	v.to(d, d.Evidence)
	if err := r.orgSignet(ctx, d, old, v); err != nil {
		return nil, err
	}
	if err := r.continuity(ctx, d, pin); err != nil {
		return nil, err
	}
	d.hard = earlier(d.hard, now.Add(signetHard))
	return d, nil
}

// readRecord fetches and reads the management record (dmtp chapter 8.2).
func (r *Resolver) readRecord(ctx context.Context, d *Domain, pin *Pin) error {
	texts, a, err := r.c.DNS.TXT(ctx, recordPrefix+d.Name+".")
	if err != nil {
		if ended(ctx) {
			return context.Cause(ctx)
		}
		if e, ok := errors.AsType[*DNSError](err); ok {
			d.Evidence.State, d.Evidence.Why, d.Evidence.Chain = e.State, e.Why, e.Chain
		}
		if errors.Is(err, ErrBogus) {
			r.alarm(ctx, "record", d.Name, err.Error(), d.Evidence)
		}
		return r.fail(d, ErrDoubtful, "", err)
	}
	ev := d.Evidence
	d.State, ev.State, ev.Why, ev.Chain = a.State, a.State, a.Why, a.Chain
	text, err := record.Select(texts)
	if errors.Is(err, record.ErrNone) {
		return r.noRecord(ctx, d, pin)
	}
	if err == nil {
		ev.Record = text
		d.Record, err = record.Parse(text)
	}
	if err != nil {
		r.alarm(ctx, "record", d.Name, err.Error(), ev)
		return r.fail(d, ErrDoubtful, "", err)
	}
	if pin != nil && pin.Best == Secure && d.State != Secure {
		if err := r.unsigned(ctx, d, pin); err != nil {
			return err
		}
	}
	soft := min(max(a.Until.Sub(d.at), recordSoftMin), recordSoftMax)
	d.softRecord = d.at.Add(soft)
	d.hard = d.at.Add(min(time.Duration(d.Record.ExpiryDays())*24*time.Hour, recordHardMax))
	return nil
}

// unsigned decides about a zone that was secure once and is provably unsigned now: bogus, until its DS has been gone for
// seven days or an administrator says otherwise (OC-26).
func (r *Resolver) unsigned(ctx context.Context, d *Domain, pin *Pin) error {
	now := r.now()
	if pin.Plain.IsZero() || now.Before(pin.Plain) {
		pin.Plain = now
		if err := r.setPin(ctx, d, pin); err != nil {
			return err
		}
	}
	if now.Sub(pin.Plain) >= unsignedOK || pin.overridden(OverrideUnsigned, now) {
		return nil
	}
	r.alarm(ctx, "downgrade", d.Name, errUnsigned.Error(), d.Evidence)
	return r.fail(d, ErrDoubtful, "", errUnsigned)
}

// noRecord decides about a domain without a record: one without DIME, or one whose record vanished (dmtp chapters 8.10,
// 11.3).
func (r *Resolver) noRecord(ctx context.Context, d *Domain, pin *Pin) error {
	now := r.now()
	if pin != nil && pin.Best == Secure && d.State != Secure {
		if err := r.unsigned(ctx, d, pin); err != nil {
			return err
		}
	}
	if pin == nil || !now.Before(pin.Until) {
		why := "absence proved"
		if d.State != Secure {
			why = "in an unsigned zone"
		}
		return r.fail(d, ErrNotDIME, why, nil)
	}
	facts := KeyFacts{Event: RecordGoneUnsure, Policy: pin.policy(), Override: pin.overridden(OverrideVanished, now)}
	if d.State == Secure {
		facts.Event, pin.Plain = RecordGone, time.Time{}
	}
	if pin.Gone.IsZero() || now.Before(pin.Gone) {
		pin.Gone = now
		if err := r.setPin(ctx, d, pin); err != nil {
			return err
		}
	}
	facts.Since = now.Sub(pin.Gone)
	change := DecideKeyChange(facts)
	if change.Alert {
		r.alarm(ctx, "vanished", d.Name, change.Reason, d.Evidence)
	}
	e := &Error{Verdict: ErrVanished, Name: d.Name, Why: change.Reason, Change: &change, Evidence: d.Evidence}
	if change.Action == PlainMail {
		e.Verdict = ErrNotDIME
	}
	return e
}

// findHosts lists the DX hosts (dmtp chapter 2.2): those of the record, else the best three of the MX and the domain.
func (r *Resolver) findHosts(ctx context.Context, d *Domain) error {
	for _, h := range d.Record.DX {
		if name, err := dmtp.Domain(h); err == nil {
			d.Hosts = append(d.Hosts, Host{Name: name, From: "dx"})
		}
	}
	if len(d.Hosts) == 0 {
		names, a, err := r.c.DNS.MX(ctx, d.Name)
		switch {
		case ended(ctx):
			return context.Cause(ctx)
		case err != nil:
			return r.fail(d, ErrDoubtful, "MX", err)
		case d.State == Secure && a.State != Secure:
			return r.fail(d, ErrDoubtful, "the record is signed and the MX is not", nil)
		}
		state := a.State
		d.Evidence.MX = &state
		for _, n := range names {
			d.Hosts = append(d.Hosts, Host{Name: n, Dual: true, From: "mx"})
		}
		if !slices.ContainsFunc(d.Hosts, func(h Host) bool { return h.Name == d.Name }) {
			d.Hosts = append(d.Hosts, Host{Name: d.Name, From: "domain"})
		}
	}
	d.Evidence.Hosts = d.Hosts
	return nil
}

// Target returns where the domain's DX is, with the function that judges its certificate by this record.
func (d *Domain) Target() Target {
	return Target{Domain: d.Name, Hosts: d.Hosts, Verify: func(_ context.Context, host string, s tls.ConnectionState) error {
		_, decision, err := d.Judge(host, s)
		if err == nil && !decision.Accept {
			err = errors.New(decision.Reason)
		}
		return err
	}}
}

// Judge applies the certificate table to what host presented.
func (d *Domain) Judge(host string, s tls.ConnectionState) (CertificateFacts, CertificateDecision, error) {
	f, err := d.judge.Examine(host, s.PeerCertificates, s.OCSPResponse, d.match, d.now())
	if err != nil {
		return f, CertificateDecision{Reason: err.Error()}, err
	}
	f.Record, f.Strict = d.State, d.Record.Policy == record.Strict
	f.Pinned = slices.Contains(d.pinned, CertificateID(s.PeerCertificates[0].Raw))
	return f, DecideCertificate(f), nil
}

func (d *Domain) match(der []byte) TLSMatch {
	switch {
	case len(d.Record.TLS) == 0:
		return TLSAbsent
	case d.Record.MatchesCertificate(der):
		return TLSMatches
	}
	return TLSDiffers
}

// orgSignet fetches the org signet, or finds the known one current, and verifies it under the record (dmtp chapter 8.4).
func (r *Resolver) orgSignet(ctx context.Context, d *Domain, old *Domain, v *visit) error {
	now := r.now()
	if old != nil && now.Before(old.softSignet) && old.Signet.VerifyOrg(d.Record.POKs) == nil { // only the record was due
		d.Signet, d.softSignet, d.Weak = old.Signet, old.softSignet, old.Weak
		d.Evidence.Certificate, d.Evidence.OrgSignet = old.Evidence.Certificate, old.Evidence.OrgSignet
		return nil
	}
	s, err := v.session(ctx)
	if err != nil {
		return err
	}
	d.softSignet = now.Add(orgSoft)
	if old != nil && old.Signet.VerifyOrg(d.Record.POKs) == nil {
		fp, ferr := old.Signet.Fingerprint(signet.Full)
		if current, _, err := s.Verify(ctx, d.Name, fp); ferr == nil && err == nil && current {
			d.Signet, d.Weak, d.Evidence.OrgSignet = old.Signet, old.Weak, old.Evidence.OrgSignet
			return nil
		}
	}
	octets, err := s.Signet(ctx, d.Name)
	if err != nil {
		return r.orgFailed(ctx, d, err)
	}
	if d.Signet, err = signet.Parse(octets); err != nil {
		return r.fail(d, ErrGarbled, "org signet", err)
	}
	if err := d.Signet.VerifyOrg(d.Record.POKs); err != nil {
		r.alarm(ctx, "substitution", d.Name, err.Error(), d.Evidence)
		return r.fail(d, ErrUntrusted, "org signet", err)
	}
	if d.Weak, err = r.named(d.Signet, d.Name); err != nil {
		r.alarm(ctx, "substitution", d.Name, err.Error(), d.Evidence)
		return r.fail(d, ErrUntrusted, "org signet", err)
	}
	d.Evidence.OrgSignet = fingerprint(d.Signet, signet.ID)
	return nil
}

// orgFailed is for a DX that gives no org signet: that of a domain with a record is a fault, never "no signet".
func (r *Resolver) orgFailed(ctx context.Context, d *Domain, err error) error {
	switch {
	case ended(ctx):
		return context.Cause(ctx)
	case errors.Is(err, ErrNoSignet):
		r.alarm(ctx, "record", d.Name, "the domain has a record and its DX no org signet", d.Evidence)
		return &Error{Verdict: ErrUntrusted, Name: d.Name, Why: "its DX has no org signet", Evidence: d.Evidence}
	}
	return r.fail(d, ErrTemporary, "org signet", err)
}

// named checks that a signet says whose it is. weak: it does not, and that is permitted.
func (r *Resolver) named(s *signet.Signet, name string) (weak bool, err error) {
	if s.Form() != signet.ID && r.c.AcceptUnnamed {
		return true, nil
	}
	return false, s.VerifyName(name)
}

func (r *Resolver) fail(d *Domain, verdict error, why string, err error) *Error {
	return &Error{Verdict: verdict, Name: d.Name, Why: why, Err: err, Evidence: d.Evidence}
}

func (r *Resolver) setPin(ctx context.Context, d *Domain, pin *Pin) error {
	if err := r.c.Store.SetPin(ctx, pin); err != nil {
		return &Error{Verdict: ErrTemporary, Name: d.Name, Err: fmt.Errorf("%w: %w", errInternal, err)}
	}
	return nil
}

// continuity compares the domain's key with what is pinned and decides about a change (OC-30, dmtp chapter 8.10). Then the
// pin is written: what cannot be remembered is not used.
func (r *Resolver) continuity(ctx context.Context, d *Domain, pin *Pin) error {
	now := r.now()
	if pin == nil {
		pin = &Pin{Domain: d.Name}
	}
	met := !pin.First.IsZero()
	if !met {
		d.FirstUse = d.State != Secure
		d.Evidence.Continuity = "first use"
	}
	pok := d.Signet.SigningKey()
	known := pin.trusted(pok)
	pin.see(d.Record, d.State, now)
	id := fingerprint(d.Signet, signet.ID)
	how := "first use"
	switch {
	case !met:
	case known && pin.knows(id):
		how, d.Evidence.Continuity = "known", "signet and POK pinned"
	case known || pin.trusted(pok) && d.State != Secure:
		how, d.Evidence.Continuity = OrgRotated.String(), "POK pinned, signet new"
	default:
		event := POKInsecure
		if d.State == Secure {
			event = POKSecure
		}
		change := DecideKeyChange(KeyFacts{Event: event, Policy: pin.policy(), Since: now.Sub(pin.pok(pok).First), CAValid: d.Evidence.Certificate != nil && d.Evidence.Certificate.CAValid})
		d.Evidence.Continuity = change.Reason
		if change.Alert {
			r.alarm(ctx, "key change", d.Name, change.Reason, d.Evidence)
		}
		if change.Action != AcceptKey {
			if err := r.setPin(ctx, d, pin); err != nil {
				return err
			}
			return &Error{Verdict: ErrUntrusted, Name: d.Name, Why: change.Reason, Change: &change, Evidence: d.Evidence}
		}
		how = "key change"
	}
	pin.accepted(d, how, now)
	return r.setPin(ctx, d, pin)
}
