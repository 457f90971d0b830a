// Package config is the configuration of the gateway: defaults in code, then one TOML file, checked whole before
// anything starts. It knows the keys and what they may hold; it opens no listener and reads no secret.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// maxFile bounds the configuration file.
const maxFile = 1 << 20

// A Config is the whole file. Durations are Go's ("90s", "5m", "120h"), sizes are octets, addresses are host:port.
// File names that are not absolute are taken from the folder of the configuration file.
type Config struct {
	DataFolder    string         `toml:"data_folder"`  // keys, queue, log, sealed bodies; default /var/lib/dimegate
	Hostname      string         `toml:"hostname"`     // our name in greetings; default: the first dx host, else the first domain
	Organizations []Organization `toml:"organization"` // at least one
	Submission    Submission     `toml:"submission"`
	DMTP          DMTP           `toml:"dmtp"`
	Inbound       Inbound        `toml:"inbound"`
	Handoff       Handoff        `toml:"handoff"`
	Scanner       Scanner        `toml:"scanner"`
	DNS           DNS            `toml:"dns"`
	TLS           TLS            `toml:"tls"`
	Vault         Vault          `toml:"vault"`
	Policy        Policy         `toml:"policy"`
	Alt           Alt            `toml:"alt"`
	Queue         Queue          `toml:"queue"`
	Audit         Audit          `toml:"audit"`
	Keys          Keys           `toml:"keys"`
	Archive       Archive        `toml:"archive"`
	Backup        Backup         `toml:"backup"`
	Health        Health         `toml:"health"`
	Log           Log            `toml:"log"`

	whole *Config `toml:"-"` // of the view of a tenant; see Tenants
}

// An Organization is one [[organization]] table: some domains that share a mail server.
type Organization struct {
	Name    string   `toml:"name"`    // for people; default: the first domain
	Domains []string `toml:"domains"` // ASCII (A-labels); each has keys, a signet and a record of its own
	DX      []string `toml:"dx"`      // host names that the records name; default: none, so the domain itself or its MX
	Inner   string   `toml:"inner"`   // host:port of its mail server; default: handoff.address
	Policy  string   `toml:"policy"`  // what the record says: experimental, mixed or strict; default experimental

	Networks  []string `toml:"networks"`             // of submission.networks and others that are let in, those who may send as its domains; default all
	Users     []string `toml:"users"`                // who may send as its domains after AUTH, from anywhere; default all
	Vault     string   `toml:"vault"`                // name of a [vault.own."…"] table: keys, queue, records and log are there; default: in [vault]
	Separator string   `toml:"subaddress_separator"` // one character between mailbox and detail of an address, or none; default +
	Cautious  bool     `toml:"cautious_accounts"`    // users may have their keys themselves, and their mail is not opened; default false

	KeepKeys []string `toml:"keep_keys"` // of domains, those whose users' keys are not rotated, for peers that run libdime's tools; default none
}

// NoSeparator is the separator of an organization whose addresses are all mailboxes.
const NoSeparator = "none"

// Submission is the [submission] table: the listener that the inner mail servers send to.
type Submission struct {
	Listen           []string      `toml:"listen"`            // host:port; default 127.0.0.1:2525
	Networks         []string      `toml:"networks"`          // who may relay: prefixes or addresses; default loopback
	ProxyFrom        []string      `toml:"proxy_from"`        // prefixes or addresses of proxies, which must send a PROXY header; default none
	XClientFrom      []string      `toml:"xclient_from"`      // prefixes or addresses of servers that may say for whom they speak; default none
	CertificateFile  string        `toml:"certificate_file"`  // PEM chain for STARTTLS; default tls/ecdsa.crt in the data folder
	KeyFile          string        `toml:"key_file"`          // PEM, mode 0600; default tls/ecdsa.key in the data folder
	RequireTLS       bool          `toml:"require_tls"`       // no MAIL before STARTTLS; default false
	AuthFile         string        `toml:"auth_file"`         // name:hash a line, mode 0600; default: no AUTH
	MaxOctets        int64         `toml:"max_octets"`        // a message; default 104857600
	MaxRecipients    int           `toml:"max_recipients"`    // a message; default 1000, at least 100 (RFC 5321 §4.5.3.1.8)
	MaxSessions      int           `toml:"max_sessions"`      // at one time; default 200
	MaxPerClient     int           `toml:"max_per_client"`    // sessions of one address; default 0: half of max_sessions
	MessagesHourly   int           `toml:"messages_hourly"`   // of one user or reverse-path; default 0: no limit
	RecipientsHourly int           `toml:"recipients_hourly"` // the same of recipients; default 0: no limit
	Mend             []string      `toml:"mend"`              // prefixes or addresses whose CR or LF alone ends a line, too; default none
	Forwarding       bool          `toml:"forwarding"`        // take reverse-paths of other domains, as mail that users forward on has; default false
	CertificateNames []string      `toml:"certificate_names"` // clients that show a certificate for one of them, under tls.ca_file, may relay; default none
	Tenants          []Tenant      `toml:"tenant"`            // the same for relays that many organisations share; default none
	Timeout          time.Duration `toml:"timeout"`           // silence; default 5m, at least 5m (RFC 5321 §4.5.3.2.7)
}

// A Tenant is one [[submission.tenant]] table: what is ours of a relay that shows one certificate for all of its customers.
type Tenant struct {
	CertificateName string `toml:"certificate_name"` // host name
	Field           string `toml:"field"`            // that the relay puts into messages to say whose they are
	Value           string `toml:"value"`            // of ours
}

// DMTP is the [dmtp] table: the listeners for other organisations.
type DMTP struct {
	Listen       []string      `toml:"listen"`      // implicit TLS; default [::]:26
	ListenDual   []string      `toml:"listen_dual"` // port 25 in dual mode; default none
	ProxyFrom    []string      `toml:"proxy_from"`  // prefixes or addresses of proxies before both, which must send a PROXY header; default none
	ACME         ACME          `toml:"acme"`
	Certificates []Certificate `toml:"certificate"`  // one should be RSA: libdime has no other suite; default tls/{ecdsa,rsa} in the data folder
	MaxOctets    int64         `toml:"max_octets"`   // a message; default 134217728, at most 4294967295
	Permit       []string      `toml:"permit"`       // prefixes of private addresses at which others' gateways may be; default none
	MaxSessions  int           `toml:"max_sessions"` // at one time; default 500
	Timeout      time.Duration `toml:"timeout"`      // silence; default 5m, at least 1m

	own bool `toml:"-"` // the certificates are those of the data folder
}

// ACME is the [dmtp.acme] table: certificates for hostname from an authority, proved by TLS-ALPN-01.
type ACME struct {
	Directory  string `toml:"directory"`      // https URL of the authority; default none: no ACME
	Listen     string `toml:"listen"`         // where port 443 of hostname leads; default [::]:443
	Email      string `toml:"email"`          // for the authority's notices; default none
	AgreeTerms bool   `toml:"agree_to_terms"` // to the authority's; must be true
	CAFile     string `toml:"ca_file"`        // PEM, of the authority's own server; default: the system's store
}

// On tells whether certificates are obtained by ACME.
func (a *ACME) On() bool { return a.Directory != "" }

// Inbound is the [inbound] table: plain SMTP on the ports of dmtp.listen_dual.
type Inbound struct {
	Exempt        []string      `toml:"exempt"`                 // networks that may send plain mail to domains whose policy is strict, and have no limit of their own; default none
	XClientFrom   []string      `toml:"xclient_from"`           // as submission.xclient_from; default none
	MaxOctets     int64         `toml:"max_octets"`             // a message; default 104857600
	MaxRecipients int           `toml:"max_recipients"`         // a message; default 100, at least 100 (RFC 5321 §4.5.3.1.8)
	MaxSessions   int           `toml:"max_sessions"`           // at one time, and as many at each inner server; one client gets a fifth; default 100
	MaxPerClient  int           `toml:"max_per_client"`         // sessions of one address, of one /64; default 0: a fifth of max_sessions
	Timeout       time.Duration `toml:"timeout"`                // silence; default 5m, at least 5m
	AuthResults   bool          `toml:"authentication_results"` // SPF, DKIM and DMARC are checked and noted (RFC 8601); default true
}

// A Certificate is one [[dmtp.certificate]] table.
type Certificate struct {
	CertificateFile string `toml:"certificate_file"` // PEM chain, leaf first
	KeyFile         string `toml:"key_file"`         // PEM, mode 0600
}

// Handoff is the [handoff] table: the way to the inner mail servers.
type Handoff struct {
	Address     string        `toml:"address"`         // host:port; default 127.0.0.1:25
	LMTP        bool          `toml:"lmtp"`            // default false
	StartTLS    string        `toml:"starttls"`        // off, opportunistic or required (with a certificate that tls.ca_file proves); default opportunistic
	AuthFile    string        `toml:"auth_file"`       // name:password, one line, mode 0600; default: no AUTH
	CallAhead   bool          `toml:"call_ahead"`      // ask the inner server whether a recipient exists; default true
	Exchange    string        `toml:"exchange_fields"` // from outside, that only Exchange believes: remove or keep; default remove
	Client      string        `toml:"client_address"`  // how the server learns whose mail it is: auto (XCLIENT or XFORWARD), off or proxy; default auto
	MaxSessions int           `toml:"max_sessions"`    // at one time, each server; default 20
	Timeout     time.Duration `toml:"timeout"`         // the answer to a message; default 8m, at most 8m (the origin waits 10m)
}

// DNS is the [dns] table.
type DNS struct {
	Resolvers       []string      `toml:"resolvers"`         // host:port; default 127.0.0.1:53
	TrustAnchorFile string        `toml:"trust_anchor_file"` // DS or DNSKEY records; default: the root keys of 2017 and 2024
	TrustAD         bool          `toml:"trust_ad"`          // believe the AD bit of a resolver on loopback; default false
	Timeout         time.Duration `toml:"timeout"`           // one question; default 5s
}

// TLS is the [tls] table: what we believe of others.
type TLS struct {
	CAFile   string   `toml:"ca_file"`   // PEM; default: the system's store
	CRLFiles []string `toml:"crl_files"` // revocation lists of those CAs, PEM or DER, read at start; default none
}

// Vault is the [vault] table: where everything rests, and the seals on it.
type Vault struct {
	Folder      string `toml:"folder"`       // default vault in the data folder
	HostSeal    Seal   `toml:"host_seal"`    // default key_file seals/host.key in the data folder
	SigningSeal Seal   `toml:"signing_seal"` // default key_file seals/signing.key in the data folder

	CheckSeals time.Duration `toml:"check_seals"` // how often a running gateway tries every seal, to warn of a lost one; default 10m

	Own  map[string]OwnVault `toml:"own"` // [vault.own."…"], of organisations that share none
	Name string              `toml:"-"`   // of a vault in Own, in the view of its tenant; see Tenants
}

// A Seal is opened by any one of what is named here: each that is in place when seals are made or added is a way in.
type Seal struct {
	KeyFile        string `toml:"key_file"`        // random key, mode 0600
	PassphraseFile string `toml:"passphrase_file"` // one line, mode 0600
	Credential     string `toml:"credential"`      // name of a systemd credential that holds a key file

	PKCS11Socket string `toml:"pkcs11_socket"` // Unix socket of gateway-pkcs11
	PKCS11Name   string `toml:"pkcs11_name"`   // what the token is called in headers and reports; default token

	TransitAddress   string `toml:"transit_address"`    // https://host:port of OpenBao or Vault
	TransitMount     string `toml:"transit_mount"`      // default transit
	TransitKey       string `toml:"transit_key"`        // name of the key there
	TransitTokenFile string `toml:"transit_token_file"` // mode 0600
	TransitCAFile    string `toml:"transit_ca_file"`    // PEM; default: the system's store
}

var defaultSeal = Seal{PKCS11Name: "token", TransitMount: "transit"}

// Ways counts the ways in that are named.
func (s Seal) Ways() int {
	n := 0
	for _, way := range []string{s.KeyFile, s.PassphraseFile, s.Credential, s.PKCS11Socket, s.TransitAddress} {
		if way != "" {
			n++
		}
	}
	return n
}

// Policy is the [policy] table: how mail may leave, and by plain SMTP how well protected at least.
type Policy struct {
	Floor             string                  `toml:"floor"`                // opportunistic, tls, mta-sts, dane, dime or hold; default tls
	SmartHost         string                  `toml:"smart_host"`           // host:port that takes plain SMTP on; default: each domain's MX
	SmartHostAuthFile string                  `toml:"smart_host_auth_file"` // name:password, one line, mode 0600; default: no AUTH
	Journal           []string                `toml:"journal"`              // addresses outside that get Exchange's journal reports: by SMTP over proved TLS, never sealed or returned; default none
	History           time.Duration           `toml:"history"`              // how long decisions are kept, sealed, for policy replay; default 720h; 0: none are
	Domains           map[string]DomainPolicy `toml:"domain"`               // [policy.domain."example.net"], of recipients
	Senders           map[string]SenderPolicy `toml:"sender"`               // [policy.sender."alice@example.org"], or a domain of ours
}

// A DomainPolicy is one [policy.domain."…"] table.
type DomainPolicy struct {
	Floor     string `toml:"floor"`      // as policy.floor, in its place; default: that one
	SmartHost string `toml:"smart_host"` // as policy.smart_host, in its place; "mx": none
}

// A SenderPolicy is one [policy.sender."…"] table.
type SenderPolicy struct {
	Floor string `toml:"floor"` // as policy.floor, in its place; where the recipient's domain has one, too, the higher holds
}

// mxRoute is the smart_host of a domain that has none.
const mxRoute = "mx"

// Alt is the [alt] table: the alternate layer, a second cipher under D/MIME's own.
type Alt struct {
	Mode    string               `toml:"mode"`          // off, opportunistic or required; default opportunistic
	Suites  []string             `toml:"suites"`        // four hex digits each, the preferred first; users get a key of the first of each kind; default 0201 0202 0101
	Bucket  int                  `toml:"bucket_octets"` // under the layer, parts are filled up to a multiple; default 1024; 0: they are not
	Domains map[string]AltDomain `toml:"domain"`        // [alt.domain."example.net"], of recipients and authors
}

// An AltDomain is one [alt.domain."…"] table.
type AltDomain struct {
	Mode string `toml:"mode"` // as alt.mode, in its place
}

// Queue is the [queue] table: what waits to leave.
type Queue struct {
	Life        time.Duration   `toml:"life"`            // then the sender is told; default 120h
	TrustLife   time.Duration   `toml:"trust_life"`      // of mail held because keys or records cannot be trusted; default 72h
	DelayNotice time.Duration   `toml:"delay_notice"`    // the sender is told once that mail waits; default 4h; 0: never
	Schedule    []time.Duration `toml:"schedule"`        // between tries, the last repeats; default 1m 5m 15m 30m 1h 2h 4h
	Workers     int             `toml:"workers"`         // deliveries at one time; default 20
	PerDomain   int             `toml:"per_domain"`      // deliveries to one destination at one time; default 5
	InFlight    int64           `toml:"in_flight"`       // octets of messages in delivery at one time, a larger one goes alone; default 67108864
	MinFree     int64           `toml:"min_free_octets"` // on the data folder's file system; below it 452; default 268435456
}

// Audit is the [audit] table: who vouches for the log beside this host.
type Audit struct {
	Witnesses []string `toml:"witnesses"` // "URL KEY" of each, as "gateway witness init" prints the key; default none
}

// Keys is the [keys] table: the life of users' keys, and of the secondary keys that sign their signets.
type Keys struct {
	RotateAfter time.Duration `toml:"rotate_after"` // then both keys are replaced, with chain of custody; default 2160h, at least 720h; 0: never
	Grace       time.Duration `toml:"grace"`        // how long a replaced encryption key opens mail still, then it is destroyed; default 864h, at least 864h

	RemindPrimaryAfter   time.Duration `toml:"remind_primary_after"`   // then a domain's primary key is due for a rollover, by hand; default 26280h, at least 2160h; 0: never
	RotateSecondaryAfter time.Duration `toml:"rotate_secondary_after"` // then a domain's secondary key gets a successor; default 8760h, at least 2160h; 0: never
}

// Backup is the [backup] table.
type Backup struct {
	KeysFolder string `toml:"keys_folder"` // of the backups' keys and the erasure ledger, on other storage than the backups; default none: no backups
}

// Health is the [health] table: /livez and /readyz, on loopback only.
type Health struct {
	Listen string `toml:"listen"` // default 127.0.0.1:8026; empty: none
}

// Log is the [log] table.
type Log struct {
	Format string `toml:"format"` // text or json; default text
	Level  string `toml:"level"`  // debug, info, warn or error; default info
}

// Default returns the configuration that an empty file means, before Resolve.
func Default() *Config {
	return &Config{
		DataFolder: "/var/lib/dimegate",
		Submission: Submission{
			Listen:           []string{"127.0.0.1:2525"},
			Networks:         []string{"127.0.0.0/8", "::1/128"},
			ProxyFrom:        []string{},
			XClientFrom:      []string{},
			Mend:             []string{},
			CertificateNames: []string{},
			MaxOctets:        100 << 20,
			MaxRecipients:    1000,
			MaxSessions:      200,
			Timeout:          5 * time.Minute,
		},
		DMTP: DMTP{
			ACME:        ACME{Listen: "[::]:443"},
			Listen:      []string{"[::]:26"},
			ListenDual:  []string{},
			ProxyFrom:   []string{},
			Permit:      []string{},
			MaxOctets:   128 << 20,
			MaxSessions: 500,
			Timeout:     5 * time.Minute,
		},
		Inbound: Inbound{Exempt: []string{}, XClientFrom: []string{}, MaxOctets: 100 << 20, MaxRecipients: 100, MaxSessions: 100, Timeout: 5 * time.Minute, AuthResults: true},
		Handoff: Handoff{
			Address:     "127.0.0.1:25",
			StartTLS:    "opportunistic",
			CallAhead:   true,
			Exchange:    "remove",
			Client:      "auto",
			MaxSessions: 20,
			Timeout:     8 * time.Minute,
		},
		Scanner: Scanner{Outbound: []string{}, Inbound: []string{}, Timeout: time.Minute, MaxOctets: 100 << 20, HeaderChanges: "refuse"},
		TLS:     TLS{CRLFiles: []string{}},
		DNS:     DNS{Resolvers: []string{"127.0.0.1:53"}, Timeout: 5 * time.Second},
		Policy:  Policy{Floor: "tls", Journal: []string{}, History: 720 * time.Hour},
		Alt:     Alt{Mode: "opportunistic", Suites: []string{"0201", "0202", "0101"}, Bucket: 1024},
		Queue: Queue{
			Life:        120 * time.Hour,
			TrustLife:   72 * time.Hour,
			DelayNotice: 4 * time.Hour,
			Schedule: []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute,
				time.Hour, 2 * time.Hour, 4 * time.Hour},
			Workers: 20, PerDomain: 5, InFlight: 64 << 20,
			MinFree: 256 << 20,
		},
		Audit:   Audit{Witnesses: []string{}},
		Vault:   Vault{HostSeal: defaultSeal, SigningSeal: defaultSeal, CheckSeals: 10 * time.Minute},
		Keys:    Keys{RotateAfter: 90 * 24 * time.Hour, Grace: 36 * 24 * time.Hour, RotateSecondaryAfter: 365 * 24 * time.Hour, RemindPrimaryAfter: 3 * 365 * 24 * time.Hour},
		Archive: Archive{Default: "mail", Continuity: true},
		Health:  Health{Listen: "127.0.0.1:8026"},
		Log:     Log{Format: "text", Level: "info"},
	}
}

// Load reads and decodes a file, resolves it and checks it. The error wraps a Faults when the file could be decoded, and
// always names the file. Files that the configuration names are not looked at: see CheckFiles.
func Load(path string) (*Config, error) {
	text, err := Read(path)
	if err != nil {
		return nil, err
	}
	c, _, faults, err := decode(path, text)
	if err != nil {
		return nil, err
	}
	c.Resolve(filepath.Dir(path))
	if more, ok := errors.AsType[Faults](c.Check()); ok {
		faults = append(faults, more...)
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("%s: %w", path, faults)
	}
	return c, nil
}

// Decode reads a configuration's text over the defaults and says which keys it sets, in full ("submission.listen").
// The name is for errors. Keys that we do not know are faults.
func Decode(name string, text []byte) (*Config, []string, error) {
	c, set, faults, err := decode(name, text)
	if err == nil && len(faults) > 0 {
		err = fmt.Errorf("%s: %w", name, faults)
	}
	if err != nil {
		return nil, nil, err
	}
	return c, set, nil
}

func decode(name string, text []byte) (c *Config, set []string, unknown Faults, err error) {
	c = Default()
	md, err := toml.NewDecoder(bytes.NewReader(text)).Decode(c)
	if err != nil { // a toml.ParseError says "line 4 (last key …)" in one line
		return nil, nil, nil, fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "toml: "))
	}
	for _, k := range md.Undecoded() {
		unknown = append(unknown, Fault{k.String(), "unknown key" + suggest(k)})
	}
	for _, k := range md.Keys() {
		set = append(set, k.String())
	}
	return c, set, unknown, nil
}

// Read reads a configuration file's text.
func Read(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no such file: make one with \"gateway init\", or name it with --config", path)
	} else if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s: is over %d octets: not a configuration file", path, maxFile)
	}
	return os.ReadFile(path)
}

// Resolve fills what is left empty from what is set, lower-cases names and makes file names absolute, so that the rest
// of the program need not know how an absent key is meant. The folder is the configuration file's.
func (c *Config) Resolve(folder string) {
	if abs, err := filepath.Abs(folder); err == nil {
		folder = abs
	}
	at := func(base string, p *string, fallback string) {
		switch {
		case *p == "" && fallback != "":
			*p = filepath.Join(c.DataFolder, fallback)
		case *p != "" && !filepath.IsAbs(*p):
			*p = filepath.Join(base, *p)
		}
	}
	at(folder, &c.DataFolder, "")
	for i := range c.Organizations {
		c.Organizations[i].resolve(c.Handoff.Address)
	}
	c.Hostname = strings.ToLower(c.Hostname)
	if c.Hostname == "" && len(c.Organizations) > 0 {
		o := c.Organizations[0]
		if all := slices.Concat(o.DX, o.Domains); len(all) > 0 {
			c.Hostname = all[0]
		}
	}
	at(folder, &c.Submission.AuthFile, "")
	at(folder, &c.DNS.TrustAnchorFile, "")
	at(folder, &c.TLS.CAFile, "")
	at(folder, &c.DMTP.ACME.CAFile, "")
	for i := range c.TLS.CRLFiles {
		at(folder, &c.TLS.CRLFiles[i], "")
	}
	c.resolveVaults(func(path *string, fallback string) { at(folder, path, fallback) })
	if c.Submission.CertificateFile == "" && c.Submission.KeyFile == "" {
		c.Submission.CertificateFile = filepath.Join(c.DataFolder, "tls/ecdsa.crt")
		c.Submission.KeyFile = filepath.Join(c.DataFolder, "tls/ecdsa.key")
	}
	at(folder, &c.Submission.CertificateFile, "")
	at(folder, &c.Submission.KeyFile, "")
	if len(c.DMTP.Certificates) == 0 {
		c.DMTP.own = true
		for _, kind := range []string{"ecdsa", "rsa"} {
			c.DMTP.Certificates = append(c.DMTP.Certificates, Certificate{
				filepath.Join(c.DataFolder, "tls", kind+".crt"), filepath.Join(c.DataFolder, "tls", kind+".key")})
		}
	}
	for i := range c.DMTP.Certificates {
		at(folder, &c.DMTP.Certificates[i].CertificateFile, "")
		at(folder, &c.DMTP.Certificates[i].KeyFile, "")
	}
	at(folder, &c.Backup.KeysFolder, "")
	at(folder, &c.Policy.SmartHostAuthFile, "")
	at(folder, &c.Handoff.AuthFile, "")
	for i := range c.Policy.Journal {
		c.Policy.Journal[i] = strings.ToLower(c.Policy.Journal[i])
	}
	c.Policy.Domains, c.Policy.Senders = lowerKeys(c.Policy.Domains), lowerKeys(c.Policy.Senders)
	c.Alt.Domains = lowerKeys(c.Alt.Domains)
	c.Archive.resolve()
}

func lowerKeys[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	for k, v := range m {
		out[strings.ToLower(k)] = v
	}
	return out
}

func (o *Organization) resolve(inner string) {
	for _, list := range [][]string{o.Domains, o.DX, o.KeepKeys} {
		for i := range list {
			list[i] = strings.ToLower(list[i])
		}
	}
	if o.Name == "" && len(o.Domains) > 0 {
		o.Name = o.Domains[0]
	}
	if o.Inner == "" {
		o.Inner = inner
	}
	if o.Policy == "" {
		o.Policy = "experimental"
	}
	if o.Separator == "" {
		o.Separator = "+"
	}
}

// Organization returns the organisation of one of our domains, which must be in lower case.
func (c *Config) Organization(domain string) (Organization, bool) {
	for _, o := range c.Organizations {
		if slices.Contains(o.Domains, domain) {
			return o, true
		}
	}
	return Organization{}, false
}

// SeparatorOf is what stands between mailbox and detail in addresses of one of our domains; "" for nothing.
func (c *Config) SeparatorOf(domain string) string {
	if o, ok := c.Organization(domain); ok && o.Separator != NoSeparator {
		return o.Separator
	}
	return ""
}

// KeepsKeys says whether the users of one of our domains keep their keys.
func (c *Config) KeepsKeys(domain string) bool {
	o, ok := c.Organization(domain)
	return ok && slices.Contains(o.KeepKeys, domain)
}

// SecondaryLife is how long a domain's secondary key signs before it gets a successor; 0: for good, as where users keep their keys,
// whose signets stand on it.
func (c *Config) SecondaryLife(domain string) time.Duration {
	if c.Keys.RotateAfter == 0 || c.KeepsKeys(domain) {
		return 0
	}
	return c.Keys.RotateSecondaryAfter
}
