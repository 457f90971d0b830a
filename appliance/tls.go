package appliance

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"dimegate/appliance/certificates"
	"dimegate/appliance/config"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/record"
)

// An inside is the certificate that our own mail servers see. No record speaks of it.
type inside struct {
	now atomic.Pointer[tls.Certificate]
}

func (i *inside) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.now.Load(), nil }

func (i *inside) show(all []tls.Certificate) error {
	i.now.Store(&all[0])
	return nil
}

// makeCertificates reads what is shown on the listeners, and what watches the files of it.
func (a *Appliance) makeCertificates() (err error) {
	a.certificates = new(dmtpserver.Certificates)
	names := a.names()
	if a.config.DMTP.ACME.On() {
		if err := certificates.Mend(certificates.Folder(a.config), a.config.DMTP.Certificates, a.Log); err != nil {
			return fmt.Errorf("dmtp.acme: %w", err)
		}
	}
	a.watchers[0], err = certificates.New(certificates.Options{
		Files: a.config.DMTP.Certificates, Kept: certificates.Folder(a.config), Vouch: a.vouched, Now: a.Now, Log: a.Log,
		Show: func(all []tls.Certificate) error {
			return a.certificates.Replace(dmtpserver.Host{Names: names, Certificates: all})
		},
	})
	if err != nil {
		return fmt.Errorf("dmtp.certificate: %w", err)
	}
	if err := a.makeACME(); err != nil {
		return err
	}
	s := a.config.Submission
	a.watchers[1], err = certificates.New(certificates.Options{
		Files: []config.Certificate{{CertificateFile: s.CertificateFile, KeyFile: s.KeyFile}}, Show: a.inside.show, Now: a.Now, Log: a.Log,
	})
	if err != nil {
		return fmt.Errorf("submission.certificate_file: %w", err)
	}
	return nil
}

// makeACME makes what obtains certificates, if the configuration names an authority.
func (a *Appliance) makeACME() error {
	c := a.config.DMTP.ACME
	if !c.On() {
		return nil
	}
	roots, err := rootsOf("dmtp.acme.ca_file", c.CAFile)
	if err != nil {
		return err
	}
	a.obtainer = &certificates.ACME{Host: a.config.Hostname, Directory: c.Directory, Email: c.Email, Roots: roots,
		Folder: filepath.Join(a.config.DataFolder, "acme"), ECDSA: a.config.DMTP.Certificates[0], RSA: a.config.DMTP.Certificates[1], Log: a.Log}
	return nil
}

// states are those of the tenants, and beside the first one what ages of the certificates.
func (a *Appliance) states() []state {
	list := a.tenants.states()
	for _, w := range a.watchers {
		for _, leaf := range w.Aging() {
			list[0].alarms = append(list[0].alarms[:len(list[0].alarms):len(list[0].alarms)],
				fmt.Sprintf("the certificate of %s ends on %s", strings.Join(leaf.DNSNames, ", "), leaf.NotAfter.UTC().Format(time.DateOnly)))
		}
	}
	return list
}

// Others may remember a record for as long as its TTL, and a day at most (dmtp.md §8.8). A cache between us and the zone shows us less
// than the whole TTL, so an hour is waited for at least.
const (
	minRecordWait = time.Hour
	maxRecordWait = 24 * time.Hour
)

// vouched asks DNS whether the records of our domains vouch for a certificate. Those that are not published yet, and those that vouch
// for none, have nothing against it. Under the latter peers go by the authorities: where they do not take what is shown now, there is nothing
// to wait for.
func (a *Appliance) vouched(ctx context.Context, shown, next *x509.Certificate) (v certificates.Vouch, err error) {
	var lacking []string
	own := bytes.Equal(shown.RawIssuer, shown.RawSubject)
	for _, t := range a.tenants {
		for _, domain := range t.domains() {
			r, ttl, err := a.published(ctx, domain)
			if err != nil {
				return v, fmt.Errorf("%s: %w", domain, err)
			}
			switch {
			case r == nil || len(r.TLS) == 0 && own:
			case len(r.TLS) == 0 || r.MatchesCertificate(next.Raw):
				v.Wait = max(v.Wait, min(max(ttl, minRecordWait), maxRecordWait))
			default:
				lacking = append(lacking, domain)
			}
		}
	}
	v.OK, v.Why = len(lacking) == 0, strings.Join(lacking, ", ")
	return v, nil
}

// Published looks up the management record of a domain of ours, with the [dns] table of a configuration; nil when there is none.
func Published(ctx context.Context, c *config.Config, domain string, o Options) (*record.Record, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &gateway{Options: o, config: c}
	if err := g.makeDNS(); err != nil {
		return nil, err
	}
	r, _, err := g.published(ctx, domain)
	return r, err
}

// published is the management record of a domain of ours as DNS has it, nil when there is none, and how long others may remember it.
func (g *gateway) published(ctx context.Context, domain string) (*record.Record, time.Duration, error) {
	texts, answer, err := g.dns.TXT(ctx, record.Label+"."+domain+".")
	if err != nil || len(texts) == 0 {
		return nil, 0, err
	}
	text, err := record.Select(texts)
	if errors.Is(err, record.ErrNone) {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, err
	}
	r, err := record.Parse(text)
	return r, time.Duration(answer.Records[0].Header().Ttl) * time.Second, err
}
