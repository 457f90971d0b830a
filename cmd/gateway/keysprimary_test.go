package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dimegate/appliance/keystore"
	"dimegate/appliance/setup"
	"dimegate/internal/zone"
)

// TestKeysPrimary goes through a rollover by its commands, against a signed zone: nothing goes on that DNS does not show, nor before its day.
func TestKeysPrimary(t *testing.T) {
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := zone.New(netip.MustParseAddr("127.0.0.1"), zone.Zone{Name: "a.example", Algorithm: dns.ECDSAP256SHA256})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var server sync.WaitGroup
	server.Go(func() { tree.Serve(ctx, udp, tcp) })
	t.Cleanup(func() { cancel(); server.Wait() })
	path := initKeys(t)
	anchor := filepath.Join(filepath.Dir(path), "anchor")
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(anchor, []byte(tree.Anchor()), 0o600)
	}
	if err == nil {
		here := strings.NewReplacer(`resolvers = ["127.0.0.1:53"]`, `resolvers = ["`+tcp.Addr().String()+`"]`, `trust_anchor_file = ""`, `trust_anchor_file = "`+anchor+`"`)
		err = os.WriteFile(path, []byte(here.Replace(string(text))), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) (v rolloverView, errs string) {
		t.Helper()
		code, out, errs := cli(t, append(append([]string{"keys", "primary", args[0], "--json", "--config", path}, args[1:]...), "a.example")...)
		if code != want {
			t.Fatalf("%q: exit %d, want %d: %s%s", args, code, want, out, errs)
		}
		if code == 0 {
			if err := json.Unmarshal([]byte(out), &v); err != nil {
				t.Fatal(err)
			}
		}
		return v, errs
	}
	publish := func(v rolloverView, keys int) {
		t.Helper()
		if n := strings.Count(v.Record, "pok="); n != keys {
			t.Fatalf("the record lists %d primary keys, want %d: %s", n, keys, v.Record)
		}
		if err := tree.Set("a.example", v.Record); err != nil {
			t.Fatal(err)
		}
	}
	if _, errs := run(1, "finish"); !strings.Contains(errs, `begin one with "gateway keys primary rollover a.example"`) {
		t.Error(errs)
	}
	begun, _ := run(0, "rollover")
	again, _ := run(0, "rollover")
	if begun.New == "" || begun.New == begun.Old || again != begun || begun.Switched || begun.Next != nil {
		t.Errorf("%+v, then %+v", begun, again)
	}
	if _, errs := run(1, "finish"); !strings.Contains(errs, "does not list both") {
		t.Error(errs)
	}
	publish(begun, 2)
	if _, errs := run(3, "finish"); !strings.Contains(errs, "come again on "+dateOf(time.Now().Add(keystore.CacheLife))) {
		t.Error(errs)
	}
	if code, out, _ := cli(t, "keys", "list", "--config", path, "a.example"); code != 0 || strings.Count(out, "  a.example\n") != 1 {
		t.Errorf("exit %d: %s", code, out)
	}
	switched, _ := run(0, "finish", "--hurry")
	publish(switched, 2)
	if !switched.Switched || switched.Done || switched.New != begun.New || switched.Record == begun.Record {
		t.Errorf("%+v", switched)
	}
	run(3, "finish")
	done, _ := run(0, "finish", "--hurry")
	publish(done, 1)
	if !done.Done || done.New != begun.New || strings.Contains(done.Record, begun.Old) {
		t.Errorf("%+v", done)
	}
	code, out, _ := cli(t, "keys", "tls", "--json", "--config", path, "a.example")
	var d setup.Domain
	if err := json.Unmarshal([]byte(out), &d); code != 0 || err != nil || d.RecordLine != done.Record || d.POK != begun.New {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	for want, args := range map[string][]string{"is none of organization.domains": {"c.example"}, "name a domain": {}, "is not a domain": {"a b"}} {
		if code, _, errs := cli(t, append([]string{"keys", "primary", "rollover", "--config", path}, args...)...); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d: %s", args, code, errs)
		}
	}
	if code, out, _ := cli(t, "keys", "primary", "rollover", "--config", path, "b.example"); code != 0 || !strings.Contains(out, "31 days after: the same: the new key signs") || !strings.Contains(out, "_dx.b.example. 3600 IN TXT") {
		t.Errorf("exit %d: %s", code, out)
	}
}
