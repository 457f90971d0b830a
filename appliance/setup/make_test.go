package setup

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
	"dimegate/vault"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// load writes a configuration into a new folder and loads it. FOLDER in the text is that folder.
func load(t *testing.T, text string) (*config.Config, string) {
	t.Helper()
	folder := t.TempDir()
	path := filepath.Join(folder, "gateway.toml")
	text = "data_folder = \"data\"\n" + strings.ReplaceAll(text, "FOLDER", folder)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c, folder
}

// tree is every file below a folder with the digest of its content. SQLite's helpers come and go.
func tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "-shm") || strings.HasSuffix(path, "-wal") || strings.HasSuffix(path, "vault.db") {
			return err
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		all[path] = string(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const org = "[[organization]]\ndomains = [\"example.org\"]\ndx = [\"dx.example.org\"]\npolicy = \"mixed\"\n"

func TestMake(t *testing.T) {
	c, folder := load(t, org)
	m, err := Make(t.Context(), c, now)
	if err != nil {
		t.Fatal(err)
	}
	if !m.New || !m.SelfSigned || len(m.Domains) != 1 || !m.Domains[0].New || len(m.Seals) != 2 {
		t.Errorf("made %+v", m)
	}
	if err := c.CheckFiles(); err != nil {
		t.Errorf("the gateway would not start: %v", err)
	}
	checkRecord(t, c, m.Domains[0])
	before := tree(t, folder)
	again, err := Make(t.Context(), c, now)
	if err != nil {
		t.Fatal(err)
	}
	if again.New || again.Domains[0].New || again.Domains[0].Record != m.Domains[0].Record {
		t.Errorf("a second time: %+v", again)
	}
	if !maps.Equal(before, tree(t, folder)) {
		t.Error("a second time changed files")
	}
	c.Organizations[0].Domains = append(c.Organizations[0].Domains, "example.net")
	more, err := Make(t.Context(), c, now)
	if err != nil {
		t.Fatal(err)
	}
	if more.New || more.Domains[0].New || !more.Domains[1].New || more.Domains[0].POK != m.Domains[0].POK || more.Domains[1].POK == m.Domains[0].POK {
		t.Errorf("another domain: %+v", more)
	}
}

// checkRecord reads the record as a peer does.
func checkRecord(t *testing.T, c *config.Config, d Domain) {
	t.Helper()
	r, err := record.Parse(d.Record)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.POKs) != 1 || r.POKs[0].String() != d.POK || r.Policy != record.Mixed || !slices.Equal(r.DX, []string{"dx.example.org"}) || len(r.TLS) != 2 {
		t.Errorf("record: %s", d.Record)
	}
	for i, p := range c.DMTP.Certificates {
		text, err := os.ReadFile(p.CertificateFile)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if !r.MatchesCertificate(block.Bytes) {
			t.Errorf("certificate %d is not signed in the record", i+1)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil || cert.VerifyHostname("dx.example.org") != nil {
			t.Errorf("certificate %d: %v", i+1, err)
		}
		first := record.Record{POKs: r.POKs, TLS: r.TLS[:1]} // libdime looks at the first alone, and has RSA alone
		if (cert.PublicKeyAlgorithm == x509.RSA) != first.MatchesCertificate(block.Bytes) {
			t.Errorf("the first signature is not the RSA certificate's")
		}
	}
	v, err := keystore.Open(t.Context(), c.Vault, true)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	all, err := keystore.Organization{Vault: v.Vault}.Signets(t.Context(), "example.org")
	if err != nil {
		t.Fatal(err)
	}
	if err := all[0].VerifyOrg(r.POKs); err != nil || all[0].VerifyName("example.org") != nil {
		t.Errorf("signet: %v", err)
	}
	if fp, _ := all[0].Fingerprint(signet.ID); fp.String() != d.Signet {
		t.Error("another fingerprint")
	}
	if !strings.HasPrefix(d.RecordLine, "_dx.example.org. 3600 IN TXT (") {
		t.Error(d.RecordLine)
	}
}

func TestMakeInPlaces(t *testing.T) {
	tests := map[string]struct {
		text    string
		prepare func(t *testing.T, folder string)
	}{
		"folder is there, empty": {org, func(t *testing.T, folder string) { mkdir(t, folder, "data") }},
		"vault and seals elsewhere": {org + "[vault]\nfolder = \"far/vault\"\n[vault.host_seal]\nkey_file = \"keys/h\"\n[vault.signing_seal]\nkey_file = \"keys/s\"\n",
			func(t *testing.T, folder string) {}},
		"key file was brought": {org + "[vault.host_seal]\nkey_file = \"h\"\n", func(t *testing.T, folder string) {
			if err := vault.CreateKeyFile(filepath.Join(folder, "h")); err != nil {
				t.Fatal(err)
			}
		}},
		"passphrase": {org + "[vault.signing_seal]\npassphrase_file = \"p\"\n", func(t *testing.T, folder string) {
			write(t, folder, "p", "correct horse battery staple\n", 0o600)
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, folder := load(t, tt.text)
			tt.prepare(t, folder)
			if _, err := Make(t.Context(), c, now); err != nil {
				t.Fatal(err)
			}
			if err := c.CheckFiles(); err != nil {
				t.Error(err)
			}
			v, err := keystore.Open(t.Context(), c.Vault, true)
			if err != nil {
				t.Fatal(err)
			}
			v.Close()
			list, err := filepath.Glob(filepath.Join(folder, "*", ".init-*"))
			if more, _ := filepath.Glob(filepath.Join(folder, ".init-*")); err != nil || len(list)+len(more) > 0 {
				t.Errorf("left behind: %v %v", list, more)
			}
		})
	}
}

// TestMakeRefuses wants a message that names the file, and every file as it was.
func TestMakeRefuses(t *testing.T) {
	tests := map[string]struct {
		text    string
		made    bool // an installation is there already
		prepare func(t *testing.T, folder string)
		want    []string
	}{
		"folder holds something": {org, false, func(t *testing.T, folder string) {
			mkdir(t, folder, "data")
			write(t, folder, "data/notes.txt", "x", 0o600)
		}, []string{"/data: exists already", "empty it"}},
		"folder holds a seal": {org, false, func(t *testing.T, folder string) {
			mkdir(t, folder, "data/seals")
			write(t, folder, "data/seals/host.key", "x", 0o600)
		}, []string{"/data: exists already"}},
		"no passphrase": {org + "[vault.host_seal]\nkey_file = \"h\"\n[vault.signing_seal]\npassphrase_file = \"p\"\n", false,
			func(*testing.T, string) {}, []string{"vault.signing_seal.passphrase_file", "/p: no such file"}},
		"brought certificate is not there": {org + "[[dmtp.certificate]]\ncertificate_file = \"c.pem\"\nkey_file = \"k.pem\"\n", false,
			func(*testing.T, string) {}, []string{"dmtp.certificate[1]", "c.pem"}},
		"host key is another": {org, true, func(t *testing.T, folder string) {
			os.Remove(filepath.Join(folder, "data/seals/host.key"))
			if err := vault.CreateKeyFile(filepath.Join(folder, "data/seals/host.key")); err != nil {
				t.Fatal(err)
			}
		}, []string{"vault.host_seal.key_file", "data/seals/host.key does not open", "host.seal", "restore"}},
		"signing key is gone": {org, true, func(t *testing.T, folder string) {
			os.Remove(filepath.Join(folder, "data/seals/signing.key"))
		}, []string{"vault.signing_seal.key_file", "signing.key: no such file", "restore it from your backup"}},
		"host key is damaged": {org, true, func(t *testing.T, folder string) {
			write(t, folder, "data/seals/host.key", "nonsense", 0o600)
		}, []string{"vault.host_seal.key_file", "host.key", "not one line"}},
		"host key is open to others": {org, true, func(t *testing.T, folder string) {
			if err := os.Chmod(filepath.Join(folder, "data/seals/host.key"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, []string{"vault.host_seal.key_file", "chmod 600"}},
		"seal header is gone": {org, true, func(t *testing.T, folder string) {
			os.Remove(filepath.Join(folder, "data/vault/host.seal"))
		}, []string{"host.seal: no such file", "restore"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, folder := load(t, tt.text)
			if tt.made {
				if _, err := Make(t.Context(), c, now); err != nil {
					t.Fatal(err)
				}
			}
			tt.prepare(t, folder)
			before := tree(t, folder)
			m, err := Make(t.Context(), c, now)
			if err == nil {
				t.Fatalf("made %+v", m)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
			if after := tree(t, folder); !maps.Equal(before, after) {
				t.Errorf("files changed: %v became %v", slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
			}
			if list, _ := filepath.Glob(filepath.Join(folder, ".init-*")); len(list) > 0 {
				t.Errorf("left behind: %v", list)
			}
		})
	}
}

func TestOccupied(t *testing.T) {
	c, folder := load(t, org)
	mkdir(t, folder, "data/x")
	if _, err := Make(t.Context(), c, now); !errors.Is(err, ErrOccupied) {
		t.Error(err)
	}
}

func mkdir(t *testing.T, folder, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(folder, name), 0o700); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, folder, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
