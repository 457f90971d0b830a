package testpeer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// A need is what one peer wants of the machine.
type need struct {
	program string // found on the PATH or in the folders that only root has on its own
	pkg     string // Debian's package, for the message
	root    bool   // changes to users of its own
}

// needs is every peer that Require knows.
var needs = map[string]need{
	"postfix":   {"postfix", "postfix", true},
	"smtp-sink": {"smtp-sink", "postfix", false},
	"dovecot":   {"dovecot", "dovecot-imapd and dovecot-lmtpd", true},
	"unbound":   {"unbound", "unbound", false},
	"swaks":     {"swaks", "swaks", false},
	"nsd":       {"nsd", "nsd", false},
	"ldns":      {"ldns-signzone", "ldnsutils", false},
	"softhsm":   {"softhsm2-util", "softhsm2", false},
	"strace":    {"strace", "strace", false},
	"python3":   {"python3", "python3", false},
	"opendkim":  {"opendkim", "opendkim", false},
	"gcc":       {"gcc", "gcc and libc6-dev", false},
	"haproxy":   {"haproxy", "haproxy", false},
	"mbsync":    {"mbsync", "isync", false},
	"exim":      {"exim4", "exim4-daemon-light, unpacked", true},
	"opensmtpd": {"opensmtpd", "opensmtpd, unpacked", true},
}

// Require ends the test unless every named peer can be started here. Under CI=true a missing peer is a failure, since
// the test command installs all of them; elsewhere, and under -short, it is a skip that names what is missing.
func Require(t testing.TB, peers ...string) {
	t.Helper()
	if testing.Short() {
		t.Skipf("needs %s: left out by -short", strings.Join(peers, ", "))
	}
	for _, p := range peers {
		if err := available(p); err != nil {
			missing(t, err)
		}
	}
}

func missing(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing in CI: %v", err)
	}
	t.Skip(err)
}

// available says why a peer cannot run here, nil when it can.
func available(peer string) error {
	n, known := needs[peer]
	if !known {
		return fmt.Errorf("testpeer: no peer is called %q", peer)
	}
	if runtime.GOOS != "linux" {
		return fmt.Errorf("%s: the peers run on Linux only", peer)
	}
	if _, err := program(n.program); err != nil {
		return fmt.Errorf("%s is not installed (Debian: %s; ./test.sh --install)", n.program, n.pkg)
	}
	if n.root && os.Geteuid() != 0 {
		return fmt.Errorf("%s needs root", peer)
	}
	return nil
}

// program finds an executable. Daemons live where an ordinary user's PATH does not look.
func program(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if p, err := exec.LookPath(dir + "/" + name); err == nil {
			return p, nil
		}
	}
	return "", errors.New(name + ": not found")
}
