package setup

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dimegate/appliance/certificates"
	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/audit"
)

// A Made says what an installation has, and what of it was made now.
type Made struct {
	DataFolder string     `json:"data_folder"`
	New        bool       `json:"new"` // the data folder was made now
	Seals      []SealFile `json:"seals"`
	Domains    []Domain   `json:"domains"`
	SelfSigned bool       `json:"self_signed"` // the certificates were made here, so only a signed zone makes them good
}

// A SealFile is what opens one of the seals: to be kept apart from backups of the data.
type SealFile struct {
	Role string `json:"role"`
	File string `json:"file"`
}

// A Domain is one of ours with what it publishes.
type Domain struct {
	Name       string `json:"name"`
	New        bool   `json:"new"`    // its keys were made now
	POK        string `json:"pok"`    // the primary key, as the record has it
	Signet     string `json:"signet"` // ID fingerprint
	Record     string `json:"record"` // the text of the TXT record
	RecordName string `json:"record_name"`
	RecordLine string `json:"record_line"` // in zone file form
}

// ErrOccupied is returned when something is there that Make would have to write over.
var ErrOccupied = errors.New("exists already")

// Make makes what a resolved and checked configuration describes and is not there yet: the data folder with seals, vault
// and certificates, which appears whole or not at all; the keys of every domain that has none. Nothing is written over.
func Make(ctx context.Context, c *config.Config, now time.Time) (*Made, error) {
	fresh, err := isFresh(c)
	if err != nil {
		return nil, err
	}
	if err := checkBrought(c); err != nil {
		return nil, err
	}
	if fresh {
		if err := makeData(ctx, c, now); err != nil {
			return nil, err
		}
	}
	m := &Made{DataFolder: c.DataFolder, New: fresh}
	certificates, selfSigned, err := readCertificates(c)
	if err != nil {
		return nil, err
	}
	m.SelfSigned = selfSigned
	if c.DMTP.ACME.On() {
		certificates = nil // peers find the authority above them
	}
	for _, view := range c.Tenants() {
		if err := addVault(ctx, view, now); err != nil {
			return nil, err
		}
		if err := m.tenant(ctx, c, view, certificates, now); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// tenant makes what one vault has not yet.
func (m *Made) tenant(ctx context.Context, c, view *config.Config, certificates [][]byte, now time.Time) error {
	v, err := keystore.Open(ctx, view.Vault, false)
	if err != nil {
		return err
	}
	defer v.Close()
	for _, role := range []vault.Role{vault.HostRole, vault.SigningRole} {
		s := view.Vault.HostSeal
		if role == vault.SigningRole {
			s = view.Vault.SigningSeal
		}
		for _, file := range []string{s.KeyFile, s.PassphraseFile} {
			if file != "" {
				m.Seals = append(m.Seals, SealFile{role.String(), file})
			}
		}
	}
	if err := m.domains(ctx, c, view, v.Vault, certificates, now); err != nil {
		return err
	}
	_, err = audit.VaultKey(ctx, v.Vault) // made now, so that it is in the first backup
	return err
}

// isFresh reports whether there is no installation yet. Parts of one are an error: they may be what is left of keys.
func isFresh(c *config.Config) (bool, error) {
	folders := []string{c.DataFolder}
	for _, view := range c.Tenants() {
		if hasVault(view) {
			return false, nil
		}
		folders = append(folders, view.Vault.Folder)
	}
	for _, folder := range folders {
		if err := empty(folder); err != nil {
			return false, err
		}
	}
	return true, nil
}

func hasVault(view *config.Config) bool { return there(filepath.Join(view.Vault.Folder, "vault.db")) }

// empty is an error for a folder that holds something.
func empty(folder string) error {
	list, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(list) > 0 {
		return fmt.Errorf("%s: %w, and holds no vault: empty it, or name another folder", folder, ErrOccupied)
	}
	return nil
}

// addVault makes a vault that an installation has not yet. A key file of ours without a vault is what is left of one that was lost:
// then nothing is made in its place.
func addVault(ctx context.Context, view *config.Config, now time.Time) (err error) {
	v := view.Vault
	if hasVault(view) {
		return nil
	}
	if err := empty(v.Folder); err != nil {
		return err
	}
	for _, file := range []string{v.HostSeal.KeyFile, v.SigningSeal.KeyFile} {
		if file != "" && inside(view.DataFolder, file) && there(file) {
			return fmt.Errorf("%s: %w, but the vault that it opens does not: restore %s from your backup, or move the key file away to begin anew", file, ErrOccupied, v.Folder)
		}
	}
	s, err := newStage(v.Folder)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.undo()
		}
	}()
	if v, err = s.vault(v); err != nil {
		return err
	}
	if err := makeVault(ctx, v, now); err != nil {
		return err
	}
	return s.publish()
}

// checkBrought loads the certificates that the administrator brings, before anything is made.
func checkBrought(c *config.Config) error {
	for i, p := range c.DMTP.Certificates {
		if inside(c.DataFolder, p.CertificateFile) {
			continue
		}
		if _, err := tls.LoadX509KeyPair(p.CertificateFile, p.KeyFile); err != nil {
			return fmt.Errorf("dmtp.certificate[%d]: %s and %s: %w", i+1, p.CertificateFile, p.KeyFile, err)
		}
	}
	return nil
}

// inside reports whether path is in the folder.
func inside(folder, path string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(rel)
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// makeData makes the data folder beside its place and moves it there when it is whole. What the configuration puts
// elsewhere is made in its place, and taken away again on failure.
func makeData(ctx context.Context, c *config.Config, now time.Time) (err error) {
	s, err := newStage(c.DataFolder)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.undo()
		}
	}()
	for _, view := range c.Tenants() {
		staged, err := s.vault(view.Vault)
		if err != nil {
			return err
		}
		if err := makeVault(ctx, staged, now); err != nil {
			return err
		}
	}
	if err := s.certificates(c, now); err != nil {
		return err
	}
	return s.publish()
}

// vault makes a vault's folder and the key files of its seals, and says where they are now.
func (s *stage) vault(v config.Vault) (_ config.Vault, err error) {
	if v.Folder, err = s.folder(v.Folder); err != nil {
		return v, err
	}
	for _, seal := range []*config.Seal{&v.HostSeal, &v.SigningSeal} {
		if err := s.sealFile(seal); err != nil {
			return v, err
		}
	}
	return v, nil
}

func makeVault(ctx context.Context, c config.Vault, now time.Time) error {
	if err := vault.Create(ctx, c.Folder); err != nil {
		return err
	}
	for _, role := range []vault.Role{vault.HostRole, vault.SigningRole} {
		var seals []vault.Seal
		for _, g := range keystore.Seals(c, role) {
			if g.Fault != nil {
				return g.Fault
			}
			seals = append(seals, g.Seal)
		}
		root, err := vault.CreateSeal(ctx, keystore.SealHeader(c.Folder, role), role, now, seals...)
		if err != nil {
			return err
		}
		root.Destroy()
	}
	return nil
}

// domains makes the keys of the domains that have none, and every domain's record.
func (m *Made) domains(ctx context.Context, c, view *config.Config, v *vault.Vault, certificates [][]byte, now time.Time) error {
	policy, err := keystore.PolicyFields(view.Alt)
	if err != nil {
		return err
	}
	org := keystore.Organization{Vault: v}
	for _, o := range view.Organizations {
		for _, name := range o.Domains {
			d := Domain{Name: name}
			if known, err := v.OrgSignets(ctx, name); err != nil {
				return err
			} else if len(known) == 0 {
				if err := elsewhere(ctx, c, view, name); err != nil {
					return err
				}
			}
			if _, err := keystore.CreateOrganization(ctx, v, name, o.Name, now, policy...); err == nil {
				d.New = true
			} else if !errors.Is(err, vault.ErrExists) {
				return fmt.Errorf("%s: %w", name, err)
			}
			all, err := org.Signets(ctx, name)
			if err != nil {
				return err
			}
			if err := d.describe(ctx, v, all[len(all)-1], o, certificates); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			m.Domains = append(m.Domains, d)
		}
	}
	return nil
}

// elsewhere is an error for a domain that has keys in a vault of another organisation: new ones here would be other keys, and leave
// its mail, log and users' keys where they are.
func elsewhere(ctx context.Context, c, view *config.Config, domain string) error {
	others := append(c.Tenants(), (&config.Config{Vault: c.Vault}).Tenants()...)
	for _, other := range others {
		if other.Vault.Folder == view.Vault.Folder || !hasVault(other) {
			continue
		}
		v, err := vault.Open(ctx, vault.Options{Dir: other.Vault.Folder})
		if err != nil {
			return fmt.Errorf("%s: %w", other.Vault.Key("folder"), err)
		}
		signets, err := v.OrgSignets(ctx, domain)
		if err = errors.Join(err, v.Close()); err != nil {
			return err
		}
		if len(signets) > 0 {
			return fmt.Errorf("%s: its keys are in %s (%s): a domain stays in the vault where it began", domain, other.Vault.Folder, other.Vault.Key("folder"))
		}
	}
	return nil
}

func (d *Domain) describe(ctx context.Context, v *vault.Vault, s *signet.Signet, o config.Organization, certificates [][]byte) error {
	id, err := s.Fingerprint(signet.ID)
	if err != nil {
		return err
	}
	d.Signet = id.String()
	primary, err := v.OrgSigning(ctx, d.Name, vault.PrimaryKey)
	if err != nil {
		return err
	}
	defer primary.Destroy()
	d.POK = primary.Public().String()
	keys, err := v.OrgKeys(ctx, d.Name)
	if err != nil {
		return err
	}
	if d.Record, err = Record(primary, keystore.Primaries(keys), o, certificates); err != nil {
		return err
	}
	d.RecordName = record.Label + "." + d.Name + "."
	d.RecordLine = zoneLine(d.RecordName, d.Record)
	return nil
}

// Record makes the management record of a domain of an organisation: its primary key, the signatures of the mail
// exchange's certificates (DER, in this order: libdime looks at the first), its policy and hosts. Behind the primary key stand others
// that are listed, too. It speaks for its own name alone.
func Record(primary key.Signing, listed []vault.OrgKey, o config.Organization, certificates [][]byte) (string, error) {
	policy, err := record.ParsePolicy(o.Policy)
	if err != nil {
		return "", err
	}
	r := record.Record{POKs: []key.SigningPublic{primary.Public()}, Policy: policy, DX: o.DX, Subdomain: record.SubExplicit}
	for _, k := range listed {
		if public := key.SigningPublic(k.Public); public != primary.Public() {
			r.POKs = append(r.POKs, public)
		}
	}
	for _, der := range certificates {
		r.TLS = append(r.TLS, record.SignCertificate(primary, der))
	}
	return r.Make()
}

// zoneLine writes a TXT record as a zone file has it. A record's text has no quotes and no backslashes.
func zoneLine(name, text string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s 3600 IN TXT (", name)
	for _, s := range record.Strings(text) {
		fmt.Fprintf(&b, "\n    %q", s)
	}
	b.WriteString(" )")
	return b.String()
}

// readCertificates reads the leaves of the DMTP listeners' certificates, RSA first, since that is the one libdime meets. Behind what a
// gateway shows comes what waits in its files.
func readCertificates(c *config.Config) (ders [][]byte, selfSigned bool, err error) {
	var others, next [][]byte
	for _, p := range c.DMTP.Certificates {
		der, err := readCertificate(p.CertificateFile)
		if err != nil {
			return nil, false, err
		}
		if shown := certificates.Shown(certificates.Folder(c), p); shown != nil && !bytes.Equal(shown, der) {
			der, next = shown, append(next, der)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, false, fmt.Errorf("%s: %w", p.CertificateFile, err)
		}
		selfSigned = selfSigned || cert.CheckSignatureFrom(cert) == nil || string(cert.RawIssuer) == string(cert.RawSubject)
		if cert.PublicKeyAlgorithm == x509.RSA {
			ders = append(ders, der)
		} else {
			others = append(others, der)
		}
	}
	return slices.Concat(ders, others, next), selfSigned, nil
}

// A stage is a data folder in the making.
type stage struct {
	target, folderName string   // where it shall be, where it grows
	outside            []string // what was made in its place, to be undone
}

// newStage makes an empty folder beside the target, or inside it where the target is there and empty: its parent may not
// be ours to write in.
func newStage(target string) (*stage, error) {
	parent := filepath.Dir(target)
	if there(target) {
		parent = target
	} else if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp(parent, ".init-*")
	if err != nil {
		return nil, err
	}
	return &stage{target: target, folderName: folder}, nil
}

// place says where something that shall be at path is made now.
func (s *stage) place(path string) (now string, in bool) {
	if !inside(s.target, path) {
		return path, false
	}
	rel, err := filepath.Rel(s.target, path)
	return filepath.Join(s.folderName, rel), err == nil
}

func (s *stage) folder(path string) (string, error) {
	now, in := s.place(path)
	if !in && !there(now) {
		s.outside = append(s.outside, now)
	}
	return now, os.MkdirAll(now, 0o700)
}

// sealFile makes the key file that a seal names, unless the administrator brought one, and changes the seal to where it
// is now. All other ways in are brought.
func (s *stage) sealFile(seal *config.Seal) error {
	if seal.KeyFile == "" {
		return nil
	}
	now, in := s.place(seal.KeyFile)
	seal.KeyFile = now
	if there(now) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(now), 0o700); err != nil {
		return err
	}
	if !in {
		s.outside = append(s.outside, now)
	}
	return vault.CreateKeyFile(now)
}

// certificates makes those certificates that lie in the data folder: any other was brought.
func (s *stage) certificates(c *config.Config, now time.Time) error {
	hosts := hostNames(c)
	pairs := append(slices.Clone(c.DMTP.Certificates), config.Certificate{CertificateFile: c.Submission.CertificateFile, KeyFile: c.Submission.KeyFile})
	for _, p := range pairs {
		cert, in := s.place(p.CertificateFile)
		private, _ := s.place(p.KeyFile)
		if !in || there(cert) {
			continue
		}
		kind := kindECDSA
		if strings.Contains(filepath.Base(cert), string(kindRSA)) {
			kind = kindRSA
		}
		if err := os.MkdirAll(filepath.Dir(cert), 0o700); err != nil {
			return err
		}
		if err := makeCertificate(kind, hosts, now, cert, private); err != nil {
			return err
		}
	}
	return nil
}

// hostNames is every name under which others may connect to us, our own first.
func hostNames(c *config.Config) []string {
	var hosts []string
	for _, o := range c.Organizations {
		hosts = append(hosts, o.DX...)
		if len(o.DX) == 0 {
			hosts = append(hosts, o.Domains...)
		}
	}
	slices.Sort(hosts)
	hosts = slices.DeleteFunc(slices.Compact(hosts), func(h string) bool { return h == c.Hostname })
	return append([]string{c.Hostname}, hosts...)
}

// publish moves the folder to its place.
func (s *stage) publish() error {
	if err := filepath.WalkDir(s.folderName, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = safefile.SyncDir(path)
		}
		return err
	}); err != nil {
		return err
	}
	if filepath.Dir(s.folderName) != s.target {
		if err := os.Rename(s.folderName, s.target); err != nil {
			return err
		}
		return safefile.SyncDir(filepath.Dir(s.target))
	}
	list, err := os.ReadDir(s.folderName)
	if err != nil {
		return err
	}
	for _, e := range list { // "vault", by which an installation is known, is the last in order
		s.outside = append(s.outside, filepath.Join(s.target, e.Name()))
		if err := os.Rename(filepath.Join(s.folderName, e.Name()), filepath.Join(s.target, e.Name())); err != nil {
			return err
		}
	}
	if err := os.Remove(s.folderName); err != nil {
		return err
	}
	return safefile.SyncDir(s.target)
}

func (s *stage) undo() {
	os.RemoveAll(s.folderName)
	for _, path := range s.outside {
		os.RemoveAll(path)
	}
}
