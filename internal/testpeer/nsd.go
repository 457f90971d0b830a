package testpeer

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
)

// An NSD is one running authoritative name server.
type NSD struct {
	*Process
	Addr string // host:port
}

// NSD starts a name server on a host's port 5300 with the given zones: names, and the files that hold them.
func (b *Bench) NSD(ctx context.Context, name, host string, zones map[string]string) (*NSD, error) {
	n := &NSD{Addr: net.JoinHostPort(host, "5300")}
	dir, err := b.folder("", name)
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("server:\n  ip-address: %s\n  port: 5300\n  username: \"\"\n  chroot: \"\"\n  server-count: 1\n  database: \"\"\n"+
		"  zonesdir: %[2]q\n  pidfile: %[5]q\n  xfrdfile: %[3]q\n  zonelistfile: %[4]q\n  cookie-secret-file: \"\"\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n",
		host, dir, filepath.Join(dir, "xfrd"), filepath.Join(dir, "zones"), filepath.Join(dir, "pid"))
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		conf += fmt.Sprintf("zone:\n  name: %q\n  zonefile: %q\n", zone, zones[zone])
	}
	file := filepath.Join(dir, "nsd.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	if n.Process, err = b.Start(name, "nsd", "-d", "-c", file); err != nil {
		return nil, err
	}
	return n, n.Up(ctx, n.Addr)
}
