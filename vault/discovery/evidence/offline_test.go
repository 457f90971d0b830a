package evidence

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMain is also the program that checks a package where there is no network.
func TestMain(m *testing.M) {
	name := os.Getenv("DIMEGATE_TEST_PACKAGE")
	if name == "" {
		os.Exit(m.Run())
	}
	if c, err := net.Listen("tcp", "127.0.0.1:0"); err == nil { // loopback is down in a new namespace
		if d, err := net.Dial("tcp", c.Addr().String()); err == nil {
			fmt.Println("there is a network:", d.LocalAddr())
			os.Exit(1)
		}
	}
	f, err := os.Open(name)
	if err == nil {
		var st os.FileInfo
		if st, err = f.Stat(); err == nil {
			_, err = Verify(context.Background(), f, st.Size(), nil)
		}
	}
	fmt.Println("verified:", err)
	os.Exit(0)
}

// TestOffline checks a package in a network namespace of its own, without an interface. Where none can be made it is left out, but not in
// CI; that the package imports no network is held by the arrows, too.
func TestOffline(t *testing.T) {
	file := filepath.Join(t.TempDir(), "package.zip")
	if err := os.WriteFile(file, newWorld(t).pack(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DIMEGATE_TEST_PACKAGE="+file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no network namespace in CI: %v", err)
		}
		t.Skipf("no network namespace here: %v", err)
	}
	if err != nil || strings.TrimSpace(string(out)) != "verified: <nil>" {
		t.Errorf("%v: %s", err, out)
	}
}
