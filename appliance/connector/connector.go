// Package connector writes the configuration of a mail server that a gateway stands before: what it is to send where, what it
// is to take from the gateway, and limits that fit together. The texts are configs/connector; what fills them is the gateway's
// own configuration.
package connector

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/template"

	"dimegate/appliance/config"
	"dimegate/configs"
)

// Servers are the mail servers that there is a text for.
var Servers = []string{"exchange", "m365", "postfix", "exim", "sendmail", "opensmtpd"}

// A Connector is what the texts are filled with.
type Connector struct {
	DomainList []string // of the organisation
	Host, Port string   // where the mail server reaches the gateway's submission: an address
	Source     string   // where the gateway calls from, as the mail server sees it
	Name       string   // the gateway's, in its certificate
	InnerPort  string   // on which the mail server takes mail from the gateway
	OutOctets  int64    // the largest message to the gateway
	InOctets   int64    // the largest message from it
	Sessions   int      // of the gateway at the mail server, at one time

	Dual            bool // plain mail from outside comes through the gateway, too
	Loopback        bool // both are on one machine
	TLS             bool // on the way to the gateway
	Pinned          bool // the certificate is of its own making: only a copy or its fingerprint proves it
	CertificateFile string
	Fingerprint     string // of Pinned: SHA-256 of the certificate, in hexadecimal with colons

	Warnings []string // what of the gateway's own configuration does not fit
}

// For is the connector of the organisation that a domain is of, "" where there is only one. The gateway is the address under
// which the mail server sees it; "" takes that of submission.listen. Errors name what is missing.
func For(c *config.Config, domain, gateway string) (Connector, error) {
	o, err := organization(c, domain)
	if err != nil {
		return Connector{}, err
	}
	listen, port, err := net.SplitHostPort(c.Submission.Listen[0])
	if err != nil {
		return Connector{}, fmt.Errorf("submission.listen: %w", err)
	}
	inner, innerPort, err := net.SplitHostPort(o.Inner)
	if err != nil {
		return Connector{}, fmt.Errorf("organization.inner: %w", err)
	}
	k := Connector{DomainList: o.Domains, Host: listen, Port: port, Name: c.Hostname, InnerPort: innerPort, OutOctets: c.Submission.MaxOctets,
		InOctets: max(c.Submission.MaxOctets, c.Inbound.MaxOctets), Sessions: c.Handoff.MaxSessions, CertificateFile: c.Submission.CertificateFile}
	if k.Dual = len(c.DMTP.ListenDual) > 0; k.Dual {
		k.Sessions += c.Inbound.MaxSessions
	}
	if gateway != "" {
		k.Host = gateway
	}
	at, err := netip.ParseAddr(k.Host)
	switch {
	case err != nil:
		return Connector{}, fmt.Errorf("%q is not an address: give the one under which the mail server sees the gateway with --gateway", k.Host)
	case at.IsUnspecified():
		return Connector{}, errors.New("submission.listen is every address: give the one under which the mail server sees the gateway with --gateway")
	}
	k.Loopback = at.IsLoopback()
	if k.Loopback && !local(inner) {
		return Connector{}, fmt.Errorf("the mail server at %s cannot reach the gateway at %s: correct submission.listen, or give the gateway's address with --gateway", o.Inner, k.Host)
	}
	k.Source = k.Host
	k.TLS = !k.Loopback || c.Submission.RequireTLS
	k.warn(c, inner)
	return k, k.certificate()
}

func organization(c *config.Config, domain string) (config.Organization, error) {
	if domain != "" {
		if o, ok := c.Organization(strings.ToLower(domain)); ok {
			return o, nil
		}
		return config.Organization{}, fmt.Errorf("%s is no domain of this gateway", domain)
	}
	for _, o := range c.Organizations[1:] {
		if o.Inner != c.Organizations[0].Inner {
			return config.Organization{}, errors.New("there is more than one mail server: name a domain of the one that is meant with --domain")
		}
	}
	all := c.Organizations[0]
	for _, o := range c.Organizations[1:] {
		all.Domains = slices.Concat(all.Domains, o.Domains)
	}
	return all, nil
}

// local says whether a host is this machine by its name or address.
func local(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// warn notes what of the gateway's own configuration keeps the two from speaking to each other.
func (k *Connector) warn(c *config.Config, inner string) {
	from, err := netip.ParseAddr(inner)
	listed := err != nil || slices.ContainsFunc(c.Submission.Prefixes(), func(p netip.Prefix) bool { return p.Contains(from) })
	if !listed && c.Submission.AuthFile == "" {
		k.Warnings = append(k.Warnings, fmt.Sprintf("gateway.toml: submission.networks does not have %s, so the gateway refuses its mail", inner))
	}
	if at, err := netip.ParseAddrPort(c.Submission.Listen[0]); err == nil && at.Addr().IsLoopback() && !k.Loopback {
		k.Warnings = append(k.Warnings, fmt.Sprintf("gateway.toml: submission.listen is %s, which the mail server cannot reach", at))
	}
}

// certificate looks at the one that submission shows.
func (k *Connector) certificate() error {
	if !k.TLS {
		return nil
	}
	text, err := os.ReadFile(k.CertificateFile)
	if err != nil {
		return fmt.Errorf("submission.certificate_file: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("submission.certificate_file: %s holds no certificate in PEM", k.CertificateFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("submission.certificate_file: %s: %w", k.CertificateFile, err)
	}
	k.Pinned = bytes.Equal(cert.RawIssuer, cert.RawSubject)
	if err := cert.VerifyHostname(k.Name); err != nil && !k.Pinned {
		k.Warnings = append(k.Warnings, fmt.Sprintf("submission.certificate_file: %s does not name %s", k.CertificateFile, k.Name))
	}
	sum := sha256.Sum256(cert.Raw)
	k.Fingerprint = strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
	return nil
}

// MaxSessions is what a server that counts everyone's sessions must allow: the gateway's, and a hundred others.
func (k Connector) MaxSessions() int { return k.Sessions + 100 }

// V6 tells whether the address of the gateway is an IPv6 one.
func (k Connector) V6() bool { return strings.Contains(k.Host, ":") }

// Domains are those of the organisation, for people.
func (k Connector) Domains() string { return strings.Join(k.DomainList, ", ") }

// Print is the text for one of Servers.
func (k Connector) Print(server string) (string, error) {
	if !slices.Contains(Servers, server) {
		return "", fmt.Errorf("there is no text for %q, but for %s", server, strings.Join(Servers, ", "))
	}
	t, err := template.New(server+".tmpl").Funcs(template.FuncMap{"join": strings.Join}).ParseFS(configs.Connector, "connector/"+server+".tmpl")
	if err != nil {
		return "", err
	}
	var out strings.Builder
	if err := t.Execute(&out, k); err != nil {
		return "", err
	}
	return out.String(), nil
}
