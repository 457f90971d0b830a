package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/internal/testpeer"
)

// A site is one gateway with a SoftHSM2 token as its first host seal and a key file as its second.
type site struct {
	t               *testing.T
	bench           *testpeer.Bench
	gateway, helper string // programs
	config, dir     string
	address         string
	env             []string
}

// TestTokenLost is the life of two seals: start, seal, restart, remove the token, the second seal opens. The service is
// up throughout, and what is missing is named.
func TestTokenLost(t *testing.T) {
	testpeer.Require(t, "softhsm", "gcc")
	s := newSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute) // generous: it takes 20 s on an idle machine
	defer cancel()
	s.token()
	helper := s.startHelper(ctx)
	s.must(ctx, 0, "init", "--config", s.config)
	if out := s.must(ctx, 0, "seal", "test", "--config", s.config); strings.Count(out, "opens") != 3 {
		t.Fatalf("three seals should open:\n%s", out)
	}
	g := s.start(ctx)
	s.stop(g)
	g = s.start(ctx) // sealed while it was down, opened again

	if err := os.Rename(filepath.Join(s.dir, "tokens"), filepath.Join(s.dir, "pulled")); err != nil {
		t.Fatal(err)
	}
	s.waitLog(ctx, "a seal does not open", "pkcs11 token")
	s.ready(ctx)
	if out := s.must(ctx, 1, "seal", "test", "--config", s.config, "--json"); !hasRow(t, out, "pkcs11", "token", false) || !hasRow(t, out, "keyfile", "", true) {
		t.Errorf("the missing seal is not named:\n%s", out)
	}
	s.must(ctx, 3, "seal", "remove", "--config", s.config, "host", "keyfile", s.keyID(ctx)) // the only one that opens

	s.stop(g)
	g = s.start(ctx) // the second seal opens
	if out := s.log(); strings.Count(out, "pkcs11 token") < 2 {
		t.Errorf("a start without the token does not name it:\n%s", out)
	}
	if err := os.Rename(filepath.Join(s.dir, "pulled"), filepath.Join(s.dir, "tokens")); err != nil {
		t.Fatal(err)
	}
	s.waitLog(ctx, "a seal opens again", "pkcs11 token")
	s.must(ctx, 0, "seal", "remove", "--config", s.config, "host", "keyfile", s.keyID(ctx))
	s.stop(g)

	// The token alone, and its helper away: the process lives and is not ready, until the helper is back.
	if err := helper.Stop(); err != nil {
		t.Fatal(err)
	}
	g = s.run(ctx)
	s.waitLog(ctx, "sealed: not ready")
	s.status(ctx, "/livez", http.StatusOK)
	s.status(ctx, "/readyz", http.StatusServiceUnavailable)
	s.startHelper(ctx)
	s.ready(ctx)
	s.stop(g)

	s.must(ctx, 0, "seal", "add", "--config", s.config) // the key file, again
	if out := s.must(ctx, 0, "seal", "rewrap", "--config", s.config, "host"); !strings.Contains(out, "under a new root key") {
		t.Errorf("rewrap: %s", out)
	}
	s.must(ctx, 0, "seal", "rewrap", "--config", s.config, "signing")
	s.must(ctx, 0, "seal", "test", "--config", s.config)
	g = s.start(ctx)
	s.must(ctx, 3, "seal", "rewrap", "--config", s.config, "host")
	s.stop(g)
	s.must(ctx, 0, "audit", "verify", "--config", s.config)
}

// newSite builds both programs, the gateway as it is shipped: static.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, bench: testpeer.New(t)}
	s.dir = s.bench.Dir
	s.gateway, s.helper = filepath.Join(s.dir, "gateway"), filepath.Join(s.dir, "gateway-pkcs11")
	for path, cgo := range map[string]string{s.gateway: "0", s.helper: "1"} {
		cmd := exec.Command("go", "build", "-o", path, "dimegate/cmd/"+filepath.Base(path))
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	var err error
	if s.address, err = s.bench.Address(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "socket"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.config = filepath.Join(s.dir, "gateway.toml")
	text := fmt.Sprintf(`data_folder = %[1]q
hostname = "dx.alpha.test"
[[organization]]
domains = ["alpha.test"]
inner = "%[2]s:10025"
[vault]
check_seals = "1s"
[vault.host_seal]
key_file = %[3]q
pkcs11_socket = %[4]q
[submission]
listen = ["%[2]s:2525"]
[dmtp]
listen = ["%[2]s:2626"]
[health]
listen = "%[2]s:8026"
`, filepath.Join(s.dir, "data"), s.address, filepath.Join(s.dir, "host.key"), filepath.Join(s.dir, "socket", "s"))
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// token makes a SoftHSM2 token with a key.
func (s *site) token() {
	s.t.Helper()
	conf, tokens, pin := filepath.Join(s.dir, "softhsm.conf"), filepath.Join(s.dir, "tokens"), filepath.Join(s.dir, "pin")
	if err := errors.Join(os.Mkdir(tokens, 0o700), os.WriteFile(pin, []byte("1234\n"), 0o600),
		os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\n"), 0o644)); err != nil {
		s.t.Fatal(err)
	}
	s.env = append(os.Environ(), "SOFTHSM2_CONF="+conf)
	for _, argv := range [][]string{
		{"softhsm2-util", "--init-token", "--free", "--label", "gw", "--pin", "1234", "--so-pin", "5678"},
		append([]string{s.helper, "--make-key"}, s.helperArgs()...),
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = s.env
		if out, err := cmd.CombinedOutput(); err != nil {
			s.t.Fatalf("%s: %v\n%s", argv[0], err, out)
		}
	}
}

func (s *site) helperArgs() []string {
	module := "/usr/lib/softhsm/libsofthsm2.so"
	return []string{"--module", module, "--token", "gw", "--key", "host", "--pin-file", filepath.Join(s.dir, "pin")}
}

func (s *site) startHelper(ctx context.Context) *testpeer.Process {
	s.t.Helper()
	socket := filepath.Join(s.dir, "socket", "s")
	p, err := s.bench.StartIn(s.dir, s.env, "helper", append([]string{s.helper, "--socket", socket, "--allow", fmt.Sprint(os.Getuid())}, s.helperArgs()...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := testpeer.Until(ctx, func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// must runs a gateway command, which must end with a code.
func (s *site) must(ctx context.Context, code int, args ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(ctx, s.gateway, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		s.t.Fatalf("gateway %s: %v, want exit code %d\n%s", strings.Join(args, " "), err, code, out)
	}
	return string(out)
}

func (s *site) run(context.Context) *testpeer.Process {
	s.t.Helper()
	p, err := s.bench.StartIn(s.dir, os.Environ(), "gateway", s.gateway, "run", "--config", s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *site) start(ctx context.Context) *testpeer.Process {
	s.t.Helper()
	p := s.run(ctx)
	s.ready(ctx)
	return p
}

func (s *site) stop(p *testpeer.Process) {
	s.t.Helper()
	if err := p.Stop(); err != nil {
		s.t.Fatal(err)
	}
}

// ready waits until the gateway says that it is, and takes a session.
func (s *site) ready(ctx context.Context) {
	s.t.Helper()
	s.status(ctx, "/readyz", http.StatusOK)
	c, err := testpeer.DialSMTP(ctx, s.address+":2525")
	if err != nil {
		s.t.Fatalf("ready, and takes no mail: %v", err)
	}
	c.Close()
}

func (s *site) status(ctx context.Context, path string, want int) {
	s.t.Helper()
	if err := testpeer.Until(ctx, func() bool {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+":8026"+path, nil)
		if err != nil {
			return false
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == want
	}); err != nil {
		s.t.Fatalf("%s never said %d: %v\n%s", path, want, err, s.log())
	}
}

// log is all that gateways have logged.
func (s *site) log() string {
	var all strings.Builder
	filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(filepath.Base(path), "gateway") && strings.HasSuffix(path, ".log") {
			b, _ := os.ReadFile(path)
			all.Write(b)
		}
		return nil
	})
	return all.String()
}

// waitLog waits for a line with all parts.
func (s *site) waitLog(ctx context.Context, parts ...string) {
	s.t.Helper()
	if err := testpeer.Until(ctx, func() bool {
		for line := range strings.Lines(s.log()) {
			all := true
			for _, p := range parts {
				all = all && strings.Contains(line, p)
			}
			if all {
				return true
			}
		}
		return false
	}); err != nil {
		s.t.Fatalf("no line with %q: %v\n%s", parts, err, s.log())
	}
}

// keyID is the id of the host seal's key file.
func (s *site) keyID(ctx context.Context) string {
	s.t.Helper()
	for line := range strings.Lines(s.must(ctx, 0, "seal", "status", "--config", s.config, "--json")) {
		var r struct{ Role, Kind, ID string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			s.t.Fatal(err)
		}
		if r.Role == "host" && r.Kind == "keyfile" {
			return r.ID
		}
	}
	s.t.Fatal("no key file among the host seals")
	return ""
}

func hasRow(t *testing.T, out, kind, id string, opens bool) bool {
	t.Helper()
	for line := range strings.Lines(out) {
		var r struct {
			Role, Kind, ID string
			Opens          *bool
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Role == "host" && r.Kind == kind && (id == "" || r.ID == id) && r.Opens != nil && *r.Opens == opens {
			return true
		}
	}
	return false
}
