package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// CheckFiles looks at the files that a checked configuration names: they exist, can be read, secrets are private, and
// certificates fit their keys. It reads no seal. The error is a Faults, each with its remedy.
func (c *Config) CheckFiles() error {
	var faults Faults
	k := checker{faults: &faults}
	if st, err := os.Stat(c.DataFolder); err != nil {
		k.bad("data_folder", "%s: %s: make it with \"gateway init\"", c.DataFolder, reason(err))
	} else if !st.IsDir() {
		k.bad("data_folder", "%s is not a folder", c.DataFolder)
	}
	if len(faults) > 0 {
		return faults // by default all else rests there: one line says more than nine
	}
	if !slices.Contains(c.DMTP.Certificates, Certificate{c.Submission.CertificateFile, c.Submission.KeyFile}) { // else once is enough
		certificate(k, "submission.", c.Submission.CertificateFile, c.Submission.KeyFile, true)
	}
	for i, p := range c.DMTP.Certificates {
		certificate(k, fmt.Sprintf("dmtp.certificate[%d].", i+1), p.CertificateFile, p.KeyFile, !c.DMTP.ACME.On()) // the gateway mends what it writes itself
	}
	secretFile(k, "submission.auth_file", c.Submission.AuthFile, "make it, or take the key out")
	secretFile(k, "handoff.auth_file", c.Handoff.AuthFile, "make it, or take the key out")
	secretFile(k, "policy.smart_host_auth_file", c.Policy.SmartHostAuthFile, "make it, or take the key out")
	plainFile(k, "dns.trust_anchor_file", c.DNS.TrustAnchorFile)
	plainFile(k, "tls.ca_file", c.TLS.CAFile)
	for i, f := range c.TLS.CRLFiles {
		plainFile(k, fmt.Sprintf("tls.crl_files[%d]", i+1), f)
	}
	if f := c.Backup.KeysFolder; f != "" {
		if st, err := os.Stat(f); err != nil {
			k.bad("backup.keys_folder", "%s: %s: mount it, or make it with mode 0700", f, reason(err))
		} else if !st.IsDir() || st.Mode().Perm()&0o077 != 0 {
			k.bad("backup.keys_folder", "%s: is no folder of this user's alone: chmod 700 %s", f, f)
		}
	}
	for _, s := range c.onlySeals() {
		const remedy = "restore it from your backup, or make a new installation with \"gateway init\""
		if s.seal.Ways() > 1 {
			continue // any one opens: what is lost is warned of when the seals are
		}
		secretFile(k, s.key+"key_file", s.seal.KeyFile, remedy)
		secretFile(k, s.key+"passphrase_file", s.seal.PassphraseFile, remedy)
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

type keyedSeal struct {
	key  string
	seal Seal
}

// onlySeals are the seals without which nothing starts: none where there are several vaults, of which each may come later.
func (c *Config) onlySeals() []keyedSeal {
	all := c.Tenants()
	if len(all) != 1 {
		return nil
	}
	v := all[0].Vault
	return []keyedSeal{{v.Key("host_seal."), v.HostSeal}, {v.Key("signing_seal."), v.SigningSeal}}
}

func certificate(k checker, prefix, cert, key string, fits bool) {
	before := len(*k.faults)
	plainFile(k, prefix+"certificate_file", cert)
	secretFile(k, prefix+"key_file", key, "\"gateway init\" makes one when none is given")
	if len(*k.faults) > before || cert == "" || !fits {
		return
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		k.bad(prefix+"certificate_file", "%s and %s: not a PEM certificate with its key (%s)", cert, key,
			strings.TrimPrefix(err.Error(), "tls: "))
	}
}

func plainFile(k checker, key, path string) {
	if path == "" {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		k.bad(key, "%s: %s", path, reason(err))
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		k.bad(key, "%s is not a file", path)
	}
}

func secretFile(k checker, key, path, remedy string) {
	if path == "" {
		return
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k.bad(key, "%s: no such file: %s", path, remedy)
	case err != nil:
		k.bad(key, "%s: %s", path, reason(err))
	case !st.Mode().IsRegular():
		k.bad(key, "%s is not a file", path)
	case st.Mode().Perm()&0o077 != 0:
		k.bad(key, "%s can be read by others (mode %04o): chmod 600 %s", path, st.Mode().Perm(), path)
	default:
		plainFile(k, key, path)
	}
}

// reason is the operating system's word alone, without the call and the name.
func reason(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}
