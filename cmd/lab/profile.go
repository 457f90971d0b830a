package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

// profileTag builds a gateway that serves Go's profiles on a Unix socket: see cmd/gateway/labprofile.go.
const profileTag = "labprofile"

// profileSocket is where a gateway that was built with profileTag serves them.
func (g *Gateway) profileSocket() string { return filepath.Join(g.lab.Dir, g.org.Name+".sock") }

// profile reads one of a gateway's profiles: "profile?seconds=5" for one.
func (g *Gateway) profile(ctx context.Context, name string) ([]byte, error) {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", g.profileSocket())
	}}
	defer t.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway/debug/pprof/"+name, nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: t}).Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", name, answer.Status)
	}
	return b, err
}

// goroutines is how many a gateway has.
func (g *Gateway) goroutines(ctx context.Context) (n int, err error) {
	text, err := g.profile(ctx, "goroutine?debug=1")
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscanf(string(text), "goroutine profile: total %d", &n)
	return n, err
}

// saveProfiles writes where both gateways' processors are while messages pass, to FOLDER/alpha-OCTETS.pprof and bravo's.
func (w *benchWorld) saveProfiles(ctx context.Context, folder string, octets, n int) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	type result struct {
		g   *Gateway
		b   []byte
		err error
	}
	results := make(chan result, 2)
	for _, g := range []*Gateway{w.alpha, w.bravo} {
		go func() {
			b, err := g.profile(ctx, "profile?seconds=8")
			results <- result{g, b, err}
		}()
	}
	load := newGenerator(octets)
	var errs []error
	for len(results) < cap(results) {
		if _, err := w.pass(ctx, w.b, load, n); err != nil {
			errs = append(errs, err)
			break
		}
	}
	for range cap(results) {
		r := <-results
		if r.err == nil {
			r.err = os.WriteFile(filepath.Join(folder, fmt.Sprintf("%s-%d.pprof", r.g.org.Name, octets)), r.b, 0o644)
		}
		errs = append(errs, r.err)
	}
	return errors.Join(errs...)
}
