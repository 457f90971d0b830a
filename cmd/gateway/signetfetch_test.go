package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/appliance/config"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
	"dimegate/internal/testcert"
	"dimegate/internal/zone"

	"github.com/miekg/dns"
)

// shown is all that a server of look-ups needs.
type shown struct {
	dmtpserver.Domains
	dmtpserver.Origins
	dmtpserver.Outcomes
	dmtpserver.Deliverer
	names map[string]*signet.Signet
}

func (s shown) Current(_ context.Context, name string) (*signet.Signet, error) {
	if got := s.names[name]; got != nil {
		return got, nil
	}
	return nil, dmtpserver.ErrNotFound
}

func (s shown) Chain(ctx context.Context, name string) ([]*signet.Signet, error) {
	got, err := s.Current(ctx, name)
	return []*signet.Signet{got}, err
}

func keyPair(t *testing.T) key.Pair {
	t.Helper()
	s, err := key.GenerateSigning(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e, err := key.GenerateEncryption(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key.Pair{Signing: s, Encryption: e}
}

// beside runs f until the test ends, and waits for it.
func beside(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// foreign starts a foreign organisation: its DNS, its DX, a user alice. It returns the configuration that finds it and the
// way to its DX.
func foreign(t *testing.T) (*config.Config, func(context.Context, netip.AddrPort) (net.Conn, error), *zone.Tree, shown) {
	t.Helper()
	alpha, cert := keyPair(t), testcert.RSA(t, "dx.alpha.test")
	sig, pok := record.SignCertificate(alpha.Signing, cert.Certificate[0]), alpha.Signing.Public()
	text := fmt.Sprintf("ver=1 pok=%s tls=%s pol=mixed dx=dx.alpha.test", base64.RawStdEncoding.EncodeToString(pok[:]), base64.RawStdEncoding.EncodeToString(sig[:]))
	tree, err := zone.New(netip.MustParseAddr("127.0.0.1"), zone.Zone{Name: "alpha.test", Algorithm: dns.ED25519,
		Records: []string{`_dx TXT "` + strings.Join(record.Strings(text), `" "`) + `"`, "dx A 192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	udp, tcp, err := zone.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	beside(t, func(ctx context.Context) error { return tree.Serve(ctx, udp, tcp) })
	s := shown{names: map[string]*signet.Signet{}}
	if s.names["alpha.test"], err = signet.NewOrg(alpha, signet.Details{Name: "alpha.test"}); err != nil {
		t.Fatal(err)
	}
	if s.names["alice@alpha.test"], err = signet.NewUser(keyPair(t), signet.RequestDetails{}, alpha.Signing, signet.Details{Name: "alice@alpha.test"}); err != nil {
		t.Fatal(err)
	}
	certs, err := dmtpserver.NewCertificates(dmtpserver.Host{Names: []string{"dx.alpha.test"}, Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	server, err := dmtpserver.New(dmtpserver.Config{Host: "dx.alpha.test", Certificates: certs, Directory: s, Domains: s, Origins: s, Outcomes: s, Deliverer: s,
		Limits: dmtpserver.Limits{Delay: -1, MissDelay: -1}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	beside(t, func(ctx context.Context) error { return server.Serve(ctx, ln) })
	c := config.Default()
	anchor := filepath.Join(t.TempDir(), "anchor")
	if err := os.WriteFile(anchor, []byte(tree.Anchor()), 0o600); err != nil {
		t.Fatal(err)
	}
	c.DNS.Resolvers, c.DNS.TrustAnchorFile, c.DMTP.Permit = []string{tcp.Addr().String()}, anchor, []string{"192.0.2.0/24"}
	return c, func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		if to.String() != "192.0.2.1:26" {
			return nil, errors.New("no route")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	}, tree, s
}

func TestSignetFetch(t *testing.T) {
	c, dial, tree, s := foreign(t)
	look := func(f fetch) (string, error) {
		var out bytes.Buffer
		f.dial = dial
		err := f.run(t.Context(), stdio{out: &out, err: &out}, c)
		return out.String(), err
	}
	alice := s.names["alice@alpha.test"]
	fp, _ := alice.Fingerprint(signet.Crypto)
	file := filepath.Join(t.TempDir(), "alice.signet")

	out, err := look(fetch{name: "Alice@Alpha.Test", out: file})
	for _, want := range []string{"dnssec       secure", "anchor of .", "dx.alpha.test, from dx", "signed by a POK of a DNSSEC-signed record", fp.String(), "policy       mixed", "verdict      verified"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if b, rerr := os.ReadFile(file); err != nil || rerr != nil || !bytes.Equal(b, alice.Armored()) {
		t.Errorf("%v, %v", err, rerr)
	}
	out, err = look(fetch{name: "alpha.test", json: true, chain: true})
	var got fetched
	if jerr := json.Unmarshal([]byte(out), &got); jerr != nil || err != nil || !got.OK || got.Signet != s.names["alpha.test"].Base64() || got.Policy != "mixed" ||
		got.Evidence.State.String() != "secure" || len(got.Evidence.Chain) == 0 || got.Fingerprints["id"] == "" {
		t.Errorf("%v, %v:\n%s", err, jerr, out)
	}
	if out, err = look(fetch{name: "alice@alpha.test", fingerprint: fp.String(), chain: true}); err != nil || !strings.Contains(out, "RRSIG") {
		t.Errorf("by its fingerprint: %v\n%s", err, out)
	}
	for name, why := range map[string]string{"bob@alpha.test": "no such signet", "alice@bravo.test": "does not use DIME", "bravo.test": "does not use DIME"} {
		if out, err = look(fetch{name: name}); !errors.Is(err, errReported) || !strings.Contains(out, why) || strings.Contains(out, "verified") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	for _, f := range []fetch{{name: "a b"}, {name: "alpha.test", fingerprint: "short"}} {
		if _, err := look(f); err == nil {
			t.Errorf("%+v is no wrong use", f)
		} else if _, wrong := errors.AsType[usageError](err); !wrong {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if err := tree.Spoil("_dx.alpha.test", dns.TypeTXT); err != nil {
		t.Fatal(err)
	}
	if out, err = look(fetch{name: "alice@alpha.test"}); !errors.Is(err, errReported) || !strings.Contains(out, "dnssec   bogus") || !strings.Contains(out, "alarm    record") {
		t.Errorf("bogus: %v\n%s", err, out)
	}
}
