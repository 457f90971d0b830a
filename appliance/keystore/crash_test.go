package keystore_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp/signet"
	"dimegate/vault"
)

// crashEnv makes this test binary a process that enrols users of the vault in a folder, and says so line by line.
const crashEnv = "DIMEGATE_TEST_ENROL"

const crashUsers = 400

func TestMain(m *testing.M) {
	if folder := os.Getenv(crashEnv); folder != "" {
		if err := enrolAll(context.Background(), folder); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func crashVault(folder string) config.Vault {
	return config.Vault{Folder: filepath.Join(folder, "vault"), HostSeal: config.Seal{KeyFile: filepath.Join(folder, "h")},
		SigningSeal: config.Seal{KeyFile: filepath.Join(folder, "s")}}
}

// enrolAll prints a fingerprint and an address once their keys are promised to be durable.
func enrolAll(ctx context.Context, folder string) error {
	v, err := keystore.Open(ctx, crashVault(folder), true)
	if err != nil {
		return err
	}
	k, err := newKeeper(v.Vault)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, 50)
	for i := range crashUsers {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			address := fmt.Sprintf("u%d@x.example", i)
			s, err := k.Enrol(ctx, address)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			fp, _ := s.Fingerprint(signet.ID)
			mu.Lock()
			defer mu.Unlock()
			fmt.Println(fp, address)
		})
	}
	wg.Wait()
	return v.Close()
}

// TestKilledWhileEnrolling kills the process in the middle, several times, and starts it again: every signet that was given
// out stays the one of its address, and in the end each has exactly one.
func TestKilledWhileEnrolling(t *testing.T) {
	folder, ctx := t.TempDir(), t.Context()
	c := crashVault(folder)
	if err := vault.Create(ctx, c.Folder); err != nil {
		t.Fatal(err)
	}
	for role, file := range map[vault.Role]string{vault.HostRole: c.HostSeal.KeyFile, vault.SigningRole: c.SigningSeal.KeyFile} {
		if err := vault.CreateKeyFile(file); err != nil {
			t.Fatal(err)
		}
		seal, err := vault.KeyFile(file)
		if err != nil {
			t.Fatal(err)
		}
		root, err := vault.CreateSeal(ctx, keystore.SealHeader(c.Folder, role), role, time.Now(), seal)
		if err != nil {
			t.Fatal(err)
		}
		root.Destroy()
	}
	v, err := keystore.Open(ctx, c, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keystore.CreateOrganization(ctx, v.Vault, "x.example", "", made); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	given := map[string]string{}
	for _, kill := range []int{50, 150, 250, 0} { // lines after which it is killed; 0: never
		run(t, folder, kill, given)
	}
	if len(given) != crashUsers {
		t.Errorf("%d users were given a signet", len(given))
	}
	if v, err = keystore.Open(ctx, c, true); err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	users, err := v.Users(ctx, "", 2*crashUsers)
	if err != nil || len(users) != crashUsers {
		t.Fatalf("%d users in the vault: %v", len(users), err)
	}
	for _, u := range users {
		all, err := v.UserKeys(ctx, u.Address)
		if err != nil || len(all) != 1 {
			t.Errorf("%s has %d generations: %v", u.Address, len(all), err)
		}
	}
}

// run starts the process, reads what it gives out, and kills it after some lines.
func run(t *testing.T, folder string, kill int, given map[string]string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+folder)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for lines := bufio.NewScanner(out); lines.Scan(); n++ {
		fp, address, ok := strings.Cut(lines.Text(), " ")
		if !ok || !strings.HasSuffix(address, "@x.example") {
			continue // cut short by the kill
		}
		if before := given[address]; before != "" && before != fp {
			t.Errorf("%s was given two signets", address)
		}
		given[address] = fp
		if n+1 == kill {
			cmd.Process.Kill()
		}
	}
	err = cmd.Wait()
	if (err == nil) != (kill == 0) {
		t.Fatalf("after %d lines: %v: %s", n, err, errs.String())
	}
	if kill > 0 && n >= crashUsers {
		t.Error("it was done before it was killed: the test shows nothing")
	}
}
