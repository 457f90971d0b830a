package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An installation is a gateway as init makes it, in a folder of the test, with every listener on a free port.
type installation struct{ dir, config, data, binary string }

func (in installation) file(elem ...string) string {
	return filepath.Join(append([]string{in.dir}, elem...)...)
}

func newInstallation(t *testing.T) installation {
	t.Helper()
	binary, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := installation{dir, filepath.Join(dir, "gateway.toml"), filepath.Join(dir, "data"), binary}
	text := fmt.Sprintf(`data_folder = %q
[[organization]]
domains = ["alpha.test"]
inner = "127.0.0.1:%d"
[submission]
listen = ["127.0.0.1:0"]
[dmtp]
listen = ["127.0.0.1:0"]
[health]
listen = ""
`, in.data, closedPort(t))
	write(t, in.config, text)
	if code, out := in.gateway(t, "init", "--config", in.config); code != 0 {
		t.Fatalf("init: exit %d\n%s", code, out)
	}
	return in
}

// gateway runs a subcommand to its end, at most for ten seconds, and returns its exit code and what it said on stderr.
func (in installation) gateway(t *testing.T, args ...string) (code int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var text bytes.Buffer
	cmd := exec.CommandContext(ctx, in.binary, args...)
	cmd.Dir, cmd.Stderr = in.dir, &text
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Errorf("gateway %s: still running after ten seconds: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), text.String()
}

// closedPort is a port of 127.0.0.1 on which nothing listens.
func closedPort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func edit(t *testing.T, file, before, after string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(before)) {
		t.Fatalf("%s does not hold %q", file, before)
	}
	write(t, file, strings.Replace(string(b), before, after, 1))
}

// snapshot is every file of a folder with a digest of what it holds. The vault's lock is empty and says nothing: the first
// run makes it.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %x\n", path, sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestFaults is what an administrator gets wrong: each ends with one clear line that names the key or the file, with the
// exit code of the command line's agreement, and leaves the installation as it was.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the gateway: left out by -short")
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, in installation)
		code   int
		says   []string
	}{
		{"unknown key", func(t *testing.T, in installation) { edit(t, in.config, "[dmtp]\nlisten", "[dmtp]\nlisten_on") }, 2,
			[]string{"gateway.toml", "dmtp.listen_on", "listen"}},
		{"no TOML", func(t *testing.T, in installation) { edit(t, in.config, "[dmtp]", "[dmtp") }, 2, []string{"gateway.toml", "line"}},
		{"wrong value", func(t *testing.T, in installation) {
			edit(t, in.config, `listen = ["127.0.0.1:0"]`, `listen = ["127.0.0.1"]`)
		}, 2,
			[]string{"submission.listen", "127.0.0.1"}},
		{"no config", func(t *testing.T, in installation) { os.Remove(in.config) }, 2, []string{"gateway.toml"}},
		{"no data folder", func(t *testing.T, in installation) { os.RemoveAll(in.data) }, 2, []string{"data", "init"}},
		{"wrong seal key", func(t *testing.T, in installation) {
			other := newInstallation(t)
			b, err := os.ReadFile(other.file("data", "seals", "host.key"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, in.file("data", "seals", "host.key"), string(b))
		}, 2, []string{"host.key"}},
		{"seals swapped", func(t *testing.T, in installation) {
			a, b := in.file("data", "seals", "host.key"), in.file("data", "seals", "signing.key")
			x := in.file("x")
			for _, mv := range [][2]string{{a, x}, {b, a}, {x, b}} {
				if err := os.Rename(mv[0], mv[1]); err != nil {
					t.Fatal(err)
				}
			}
		}, 2, []string{"host.key"}},
		{"seal key for all to read", func(t *testing.T, in installation) {
			if err := os.Chmod(in.file("data", "seals", "signing.key"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, 2, []string{"signing.key", "chmod 600"}},
		{"truncated certificate", func(t *testing.T, in installation) {
			if err := os.Truncate(in.file("data", "tls", "ecdsa.crt"), 100); err != nil {
				t.Fatal(err)
			}
		}, 2, []string{"ecdsa.crt"}},
		{"no certificate key", func(t *testing.T, in installation) { os.Remove(in.file("data", "tls", "rsa.key")) }, 2, []string{"rsa.key"}},
		{"port in use", func(t *testing.T, in installation) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ln.Close() })
			edit(t, in.config, "[dmtp]\nlisten = [\"127.0.0.1:0\"]", fmt.Sprintf("[dmtp]\nlisten = [%q]", ln.Addr()))
		}, 2, []string{"dmtp.listen", "in use"}},
		{"anchor file of nothing", func(t *testing.T, in installation) {
			write(t, in.file("anchor"), "")
			edit(t, in.config, "[submission]", "[dns]\ntrust_anchor_file = \"anchor\"\n[submission]")
		}, 2, []string{"dns.trust_anchor_file", "anchor"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := newInstallation(t)
			tt.damage(t, in)
			before := snapshot(t, in.dir)
			code, said := in.gateway(t, "run", "--config", in.config)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if n := strings.Count(strings.TrimSpace(said), "\n") + 1; n != 1 || !strings.HasPrefix(said, "gateway: ") {
				t.Errorf("said %d lines:\n%s", n, said)
			}
			for _, word := range tt.says {
				if !strings.Contains(said, word) {
					t.Errorf("does not say %q:\n%s", word, said)
				}
			}
			if after := snapshot(t, in.dir); after != before {
				t.Errorf("left its mark:\nbefore\n%safter\n%s", before, after)
			}
		})
	}
}

// TestFileFaults is the same for the commands that read a file.
func TestFileFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the gateway: left out by -short")
	}
	binary, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	vectors := filepath.Join("..", "..", "testdata", "vectors", "libdime")
	tests := []struct {
		name string
		from string // a vector
		keep int    // octets of it
		args []string
		code int
		says string
	}{
		{"truncated signet", "signets/alice.user.signet", 100, []string{"signet", "show"}, 1, "END line is missing"},
		{"truncated binary signet", "negative/sgnt-foreign-good.signet.bin", 100, []string{"signet", "show"}, 1, "octet"},
		{"empty signet", "signets/alice.user.signet", 0, []string{"signet", "show"}, 1, "empty"},
		{"key file for a signet", "keys/alice.key", 1 << 20, []string{"signet", "show"}, 1, "private keys"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(vectors, tt.from))
			if err != nil {
				t.Fatal(err)
			}
			in := installation{dir: t.TempDir(), binary: binary}
			file := in.file("input")
			write(t, file, string(b[:min(tt.keep, len(b))]))
			code, said := in.gateway(t, append(tt.args, file)...)
			if code != tt.code || strings.Count(said, "\n") != 1 || !strings.Contains(said, file) || !strings.Contains(said, tt.says) {
				t.Errorf("exit code %d, said %q; want %d and one line with %q", code, said, tt.code, tt.says)
			}
		})
	}
}
