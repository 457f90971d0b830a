package testpeer

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// OpenDKIM starts a milter that verifies DKIM signatures, on addr, and waits until it answers: it rejects a bad signature, wants a
// message quarantined that has no signature, and accepts all else, to which it would like to add a field. Its keys are lines "selector._domainkey.domain
// record", in place of the DNS.
func (b *Bench) OpenDKIM(ctx context.Context, name, addr string, keys ...string) (*Process, error) {
	dir, err := b.folder("", name)
	if err != nil {
		return nil, err
	}
	file, list := filepath.Join(dir, "opendkim.conf"), filepath.Join(dir, "keys")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`Socket inet:%s@%s
Mode v
Syslog no
InternalHosts 192.0.2.254
TestPublicKeys %s
On-BadSignature reject
On-NoSignature quarantine
On-DNSError tempfail
CaptureUnknownErrors yes
`, port, host, list)
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	if err := writeLines(list, keys); err != nil {
		return nil, err
	}
	p, err := b.Start(name, "opendkim", "-f", "-x", file)
	if err != nil {
		return nil, err
	}
	return p, p.Up(ctx, addr)
}
