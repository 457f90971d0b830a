package dmtpserver

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha512"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dimegate/dmtp/dmtpclient"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// clientOf is our client for a server on loopback.
func clientOf(tb testing.TB, r *running, dual bool) (*dmtpclient.Client, dmtpclient.Target) {
	tb.Helper()
	single, shared := netip.MustParseAddrPort(r.single), netip.MustParseAddrPort(r.dual)
	o := dmtpclient.Options{
		Permit: dmtpclient.Anywhere, Port: single.Port(), DualPort: shared.Port(), NegativeTTL: -1,
		Lookup: func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{single.Addr()}, nil },
	}
	if dual {
		o.Port = 1
	}
	c := dmtpclient.New(o)
	tb.Cleanup(func() { c.Close() })
	return c, dmtpclient.Target{
		Domain: "b.example", Hosts: []dmtpclient.Host{{Name: "dx.b.example", Dual: dual}},
		Verify: func(_ context.Context, _ string, s tls.ConnectionState) error {
			if s.PeerCertificates[0].Subject.CommonName != "dx.b.example" {
				return errors.New("another certificate")
			}
			return nil
		},
	}
}

func (w *world) envelope(tb testing.TB) dmtpclient.Envelope {
	full := must[signet.Fingerprint](tb)
	return dmtpclient.Envelope{Origin: "a.example", Destination: "b.example",
		OriginSignet: full(w.aSignet.Fingerprint(signet.Full)), DestinationSignet: full(w.bSignet.Fingerprint(signet.Full))}
}

// TestLoop lets our client do everything with our server, on both ports.
func TestLoop(t *testing.T) {
	for _, dual := range []bool{false, true} {
		t.Run(fmt.Sprintf("dual %v", dual), func(t *testing.T) {
			w := newWorld(t, 70)
			b := newBackend(w)
			r := run(t, b.config(t))
			c, target := clientOf(t, r, dual)
			for i := range 3 {
				m := w.signed(t, fmt.Sprintf("hello %d", i), nil)
				receipt, err := c.Deliver(t.Context(), target, w.envelope(t), m)
				if err != nil || receipt.Code != 254 || string(receipt.Transaction) != string(receipt.Commit) {
					t.Fatalf("%+v, %v", receipt, err)
				}
				if receipt, err = c.Deliver(t.Context(), target, w.envelope(t), m); err != nil || !receipt.Duplicate() {
					t.Fatalf("again: %+v, %v", receipt, err)
				}
			}
			if len(b.messages()) != 3 {
				t.Errorf("%d messages", len(b.messages()))
			}
			full := must[signet.Fingerprint](t)
			err := c.Do(t.Context(), target, func(conn *dmtpclient.Conn) error {
				octets, err := conn.Signet(t.Context(), "bob@b.example")
				if err != nil || string(octets) != string(w.bob[69].Bytes()) {
					t.Errorf("signet: %v", err)
				}
				if _, err := conn.Signet(t.Context(), "eve@b.example"); !errors.Is(err, dmtpclient.ErrNoSignet) {
					t.Errorf("no signet: %v", err)
				}
				current, update, err := conn.Verify(t.Context(), "bob@b.example", full(w.bob[3].Fingerprint(signet.Full)))
				if err != nil || current || update != full(w.bob[69].Fingerprint(signet.ID)) {
					t.Errorf("verify: %v, %v", current, err)
				}
				chain, err := conn.History(t.Context(), "bob@b.example", full(w.bob[0].Fingerprint(signet.Full)), func(last []byte) ([64]byte, error) {
					s, err := signet.Parse(last)
					if err != nil {
						return [64]byte{}, err
					}
					return s.Fingerprint(signet.Full)
				})
				if err != nil || len(chain) != 70 {
					t.Errorf("history: %d signets, %v", len(chain), err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			b.fail = ErrRecipient
			if _, err := c.Deliver(t.Context(), target, w.envelope(t), w.signed(t, "x", nil)); dmtpclient.ClassOf(err) != dmtpclient.Permanent {
				t.Errorf("unknown recipient: %v", err)
			}
			env := w.envelope(t)
			env.DestinationSignet = [64]byte{1}
			if _, err := c.Deliver(t.Context(), target, env, w.signed(t, "x", nil)); dmtpclient.ClassOf(err) != dmtpclient.Refresh {
				t.Errorf("another signet: %v", err)
			}
		})
	}
}

// TestOpenSSL is a client that is not Go's, with libdime's one suite, and with what a modern one likes.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("openssl is missing")
		}
		t.Skip("openssl is missing")
	}
	w := newWorld(t, 1)
	r := run(t, newBackend(w).config(t))
	tests := map[string]struct {
		args []string
		want []string
	}{
		"libdime":          {[]string{"-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"}, []string{"Cipher is ECDHE-RSA-AES256-GCM-SHA384", "Server public key is 2048 bit"}},
		"libdime's SNI":    {[]string{"-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384", "-servername", "127.0.0.1"}, []string{"Cipher is ECDHE-RSA-AES256-GCM-SHA384"}},
		"no SNI":           {[]string{"-tls1_2", "-noservername"}, []string{"Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"}},
		"a name not ours":  {[]string{"-tls1_3", "-servername", "other.example"}, []string{"TLSv1.3", "Server public key is 256 bit"}},
		"our second host":  {[]string{"-tls1_3", "-servername", "mx.other.example"}, []string{"TLSv1.3", "CN = mx.other.example"}},
		"ChaCha20 and RSA": {[]string{"-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"}, []string{"Cipher is ECDHE-RSA-CHACHA20-POLY1305"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, openssl, append([]string{"s_client", "-connect", r.single, "-ign_eof", "-crlf"}, tt.args...)...)
			cmd.Stdin = strings.NewReader("SGNT <b.example>\nQUIT\n")
			out, _ := cmd.CombinedOutput() // its exit code tells about the certificate
			text := strings.ReplaceAll(string(out), "CN=", "CN = ")
			for _, want := range append(tt.want, "220 dx.b.example DMTPv1 test", "270 OK ["+w.bSignet.Base64()+"]", "221 BYE") {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
		})
	}
	for name, args := range map[string][]string{"TLS 1.1": {"-tls1_1", "-cipher", "ALL:@SECLEVEL=0"}, "CBC": {"-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384"}, "no ECDHE": {"-tls1_2", "-cipher", "AES256-GCM-SHA384"}} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), openssl, append([]string{"s_client", "-connect", r.single}, args...)...)
			if out, err := cmd.CombinedOutput(); err == nil || strings.Contains(string(out), "DMTPv1") {
				t.Error("connected")
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	w := newWorld(t, 1)
	c := newBackend(w).config(t)
	set := c.Certificates.set.Load()
	if err := c.Certificates.Replace(Host{Names: []string{"x.example"}, Certificates: set.first[:1]}); !errors.Is(err, ErrNoRSA) {
		t.Errorf("a host without an RSA certificate: %v", err)
	}
	if c.Certificates.set.Load() != set {
		t.Error("replaced all the same")
	}
	if _, err := NewCertificates(); err == nil {
		t.Error("no hosts")
	}
	if !c.Certificates.has("DX.B.example.") || c.Certificates.has("x.example") {
		t.Error("names")
	}
}

// forgetful is a backend that has never seen a message.
type forgetful struct {
	*backend
	n atomic.Int64
}

func (*forgetful) Message(context.Context, string, string, [64]byte) (Outcome, error) {
	return Outcome{}, nil
}
func (*forgetful) Accepted(context.Context, string, string, [64]byte) (bool, error) {
	return false, nil
}
func (f *forgetful) Deliver(context.Context, *Incoming) error { f.n.Add(1); return nil }

// BenchmarkLoop delivers 10 KB messages over loopback TLS to a server with nothing behind it, on kept connections. The ratio is
// to the bare work: the hashes, the key agreement, the signatures, and the octets through AES-GCM twice.
func BenchmarkLoop(b *testing.B) {
	w := newWorld(b, 1)
	for _, size := range []int{10 << 10, 1 << 20} {
		m := w.signed(b, strings.Repeat("0123456789abcde\n", size/16), nil)
		for _, parallel := range []int{1, 4} {
			b.Run(fmt.Sprintf("%dKB/%d", size>>10, parallel), func(b *testing.B) {
				back := &forgetful{backend: newBackend(w)}
				cfg := back.config(b)
				cfg.Outcomes, cfg.Deliverer, cfg.Limits.Transactions = back, back, 1<<30
				r := run(b, cfg)
				c, target := clientOf(b, r, false)
				env := w.envelope(b)
				b.SetBytes(int64(len(m)))
				b.SetParallelism(parallel)
				b.ResetTimer()
				deliver := func() {
					if _, err := c.Deliver(b.Context(), target, env, m); err != nil {
						b.Fatal(err)
					}
				}
				var bare time.Duration
				bares := 0
				if parallel == 1 {
					for i := range b.N {
						deliver()
						if i%8 == 0 { // in between, so that both see the same machine
							b.StopTimer()
							began := time.Now()
							w.bareWork(b, m)
							bare += time.Since(began)
							bares++
							b.StartTimer()
						}
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							deliver()
						}
					})
				}
				b.StopTimer()
				perOp := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
				b.ReportMetric(1e9/perOp, "messages/s")
				if bares > 0 {
					b.ReportMetric(perOp*float64(bares)/float64(bare.Nanoseconds()), "x-bare")
				}
				if back.n.Load() != int64(b.N) {
					b.Fatalf("%d of %d arrived", back.n.Load(), b.N)
				}
			})
		}
	}
}

var gcmKey = make([]byte, 32)

// bareWork is what nobody can leave out: commit value at both ends and message id, ECDH, the origin's signature over the
// message and over two parts of it, and AES-256-GCM at both ends.
func (w *world) bareWork(b *testing.B, m []byte) {
	sha512.Sum512(m)
	commit := sha512.Sum512(m)
	parsed, err := message.Parse(m, message.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	parsed.ID()
	opened, err := parsed.Open(message.Destination, w.b.Encryption)
	if err != nil {
		b.Fatal(err)
	}
	if err := opened.VerifyOriginSignature(w.aSignet); err != nil {
		b.Fatal(err)
	}
	block, _ := aes.NewCipher(gcmKey)
	gcm, _ := cipher.NewGCM(block)
	sealed := gcm.Seal(nil, commit[:12], m, nil)
	if _, err := gcm.Open(sealed[:0], commit[:12], sealed, nil); err != nil {
		b.Fatal(err)
	}
}
