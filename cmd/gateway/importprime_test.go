package main

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// TestImportPrime opens the message that magma's own code made (dmime.md Appendix A.2).
func TestImportPrime(t *testing.T) {
	secret := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	user, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if user.Encryption, err = key.NewEncryption(secret("e447f3f9da38165f0af11c83d7f14163218dbcc398580d0b108e77f626accc65")); err != nil {
		t.Fatal(err)
	}
	org, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if org.Signing, err = key.NewSigning(secret("fd162dc58dfd66509c88dc29496e203f49dfaeaa490f58e0b6a520e0105fdcce")); err != nil {
		t.Fatal(err)
	}
	s, err := signet.NewOrg(org, signet.Details{Name: "destination.example"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(name string, b []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	f := key.File{Kind: key.UserKeys, Dialect: key.A, Pair: user}
	realm := make([]byte, key.RealmKeySize)
	locked, err := f.EncryptedBytes(rand.Reader, realm)
	if err != nil {
		t.Fatal(err)
	}
	signetFile, keyFile := put("org.signet", s.Armored()), put("bob.key", f.Armored())
	lockedFile, realmFile := put("bob.locked", locked), put("realm.key", realm)
	stored := filepath.Join("testdata", "naked.prime")
	wire, err := os.ReadFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	wire[len(wire)/2] ^= 1
	changed := put("changed.prime", wire)

	code, out, errs := cli(t, "import", "prime", "--keys", keyFile, "--org-signet", signetFile, "--eml", "-", stored)
	if code != 0 || !strings.HasPrefix(out, "From: Alice <alice@smtp.example>\r\n") || !strings.HasSuffix(out, "\r\n\r\nHello Bob.\r\n") {
		t.Errorf("exit %d, %q, %s", code, out, errs)
	}
	code, out, errs = cli(t, "import", "prime", "--keys", lockedFile, "--realm-key", realmFile, "--org-signet", signetFile, stored)
	if code != 0 || !strings.Contains(out, message.NakedWeakness) {
		t.Errorf("encrypted key file: exit %d, %s%s", code, out, errs)
	}
	code, out, _ = cli(t, "import", "prime", "--json", "--keys", keyFile, "--org-signet", signetFile, changed)
	if code != 1 || !strings.Contains(out, "not authentic") {
		t.Errorf("changed: exit %d, %s", code, out)
	}
	code, out, errs = cli(t, "message", "open", "--as", "recipient", "--keys", keyFile, "--destination-signet", signetFile, stored)
	if code != 0 || !strings.Contains(out, message.NakedWeakness) {
		t.Errorf("message open: exit %d, %s%s", code, out, errs)
	}
	for name, args := range map[string][]string{
		"as somebody else": {"--as", "destination", "--destination-signet", signetFile},
		"without a signet": {"--as", "recipient"},
	} {
		code, _, errs = cli(t, append(append([]string{"message", "open", "--keys", keyFile}, args...), stored)...)
		if code != 2 || !strings.Contains(errs, "1908") {
			t.Errorf("message open %s: exit %d, %s", name, code, errs)
		}
	}
	if code, _, _ = cli(t, "import", "prime", "--keys", keyFile, stored); code != 2 {
		t.Errorf("without the signet: exit %d", code)
	}
}
