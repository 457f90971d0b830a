package testpeer

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// An Unbound is one running validating resolver.
type Unbound struct {
	*Process
	Addr string // host:port
}

// Unbound starts a resolver on a host's port 53 that believes one trust anchor (DS or DNSKEY records in presentation
// form) and asks one name server for everything in the given zones. It caches nothing, so a test may change a zone.
func (b *Bench) Unbound(ctx context.Context, name, host, anchor, nameserver string, zones []string) (*Unbound, error) {
	u := &Unbound{Addr: net.JoinHostPort(host, "53")}
	dir, err := b.folder("", name)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "anchor"), []byte(anchor), 0o644); err != nil {
		return nil, err
	}
	nsHost, nsPort, err := net.SplitHostPort(nameserver)
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`server:
  interface: %[1]s
  access-control: 127.0.0.0/8 allow
  do-ip6: no
  do-not-query-localhost: no
  username: ""
  chroot: ""
  directory: "%[2]s"
  pidfile: ""
  use-syslog: no
  logfile: ""
  val-log-level: 2
  trust-anchor-file: "anchor"
  module-config: "validator iterator"
  local-zone: "test." nodefault
  local-zone: "example." nodefault
  cache-max-ttl: 0
  cache-max-negative-ttl: 0
  infra-host-ttl: 1
remote-control:
  control-enable: no
`, host, dir)
	for _, zone := range zones {
		conf += fmt.Sprintf("stub-zone:\n  name: %q\n  stub-addr: %s@%s\n", zone, nsHost, nsPort)
	}
	if err := os.WriteFile(filepath.Join(dir, "unbound.conf"), []byte(strings.TrimLeft(conf, "\n")), 0o644); err != nil {
		return nil, err
	}
	u.Process, err = b.Start(name, "unbound", "-d", "-c", filepath.Join(dir, "unbound.conf"))
	if err != nil {
		return nil, err
	}
	return u, u.Up(ctx, u.Addr)
}
