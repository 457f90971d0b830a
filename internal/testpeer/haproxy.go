package testpeer

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// A HAProxyWay is one port of a HAProxy that passes connections on.
type HAProxyWay struct {
	Listen string // host:port
	Target string // host:port
	Header string // what it says of its clients: "send-proxy", "send-proxy-v2", or nothing
}

// HAProxy starts an instance and waits until it answers.
func (b *Bench) HAProxy(ctx context.Context, name string, ways ...HAProxyWay) (*Process, error) {
	dir, err := b.folder("", name)
	if err != nil {
		return nil, err
	}
	lines := []string{"global", "  maxconn 100", "defaults", "  mode tcp", "  timeout connect 5s", "  timeout client 60s", "  timeout server 60s"}
	for i, w := range ways {
		lines = append(lines, fmt.Sprintf("listen way%d", i), "  bind "+w.Listen, strings.TrimSpace("  server s "+w.Target+" "+w.Header))
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := writeLines(file, lines); err != nil {
		return nil, err
	}
	p, err := b.Start(name, "haproxy", "-db", "-f", file)
	if err != nil {
		return nil, err
	}
	for _, w := range ways {
		if err := p.Up(ctx, w.Listen); err != nil {
			return nil, err
		}
	}
	return p, nil
}
