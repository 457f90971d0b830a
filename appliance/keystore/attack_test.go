package keystore_test

import (
	"bytes"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/internal/testvault"
	"dimegate/trustful"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/backup"
)

// TestStolenKeys is the attack on mail that was sealed to a destroyed key: the thief has the host seal with its key file, every file
// of the running gateway's vault, the write-ahead log among them, the backups of the last weeks, and even the folder with
// the backups' keys. He searches all octets for wraps and for sealed keys, tries every wrap for every key whose id he can find, and every key on the
// mail. What a living key opens he opens; and while it lived he opened the other one, too, in the same way. Where keys are escrowed he finds the
// sealed keys of destroyed ones, and what seals them for the officers: that helps him not at all.
func TestStolenKeys(t *testing.T) {
	t.Run("not escrowed", func(t *testing.T) { stolenKeys(t, false) })
	t.Run("escrowed", func(t *testing.T) { stolenKeys(t, true) })
}

func stolenKeys(t *testing.T, escrowed bool) {
	ctx, now, peers := t.Context(), made, map[string]*house{}
	place := testvault.New(t)
	bravo := houseOn(t, place.Open(t, vault.Options{}), "b.test", &now, peers)
	peer := newHouse(t, "p.test", &now, peers)
	const bob = "bob@b.test"
	var c *continuity
	if escrowed {
		c = continuityOf(t, bravo, place, &now, 400*day)
		c.install(t)
	}
	first, err := bravo.keeper.Enrol(ctx, bob)
	check(t, err)
	for i := range 40 { // rows enough for SQLite to move some
		_, err := bravo.keeper.Enrol(ctx, string(rune('a'+i%26))+strings.Repeat("x", i)+"@b.test")
		check(t, err)
	}
	old := peer.send(t, "alice@p.test", bravo, first)
	thief := thief{place: place, keys: t.TempDir(), backups: t.TempDir()}
	save := func(name string) {
		t.Helper()
		_, err := backup.Create(ctx, bravo.vault, backup.Options{Folder: place.Dir, Keys: thief.keys, File: filepath.Join(thief.backups, name), Grace: trustful.MinGrace, Now: now})
		check(t, err)
	}
	now = made.Add(89 * day)
	save("in use") // its key dies 119 days after the beginning
	now = made.Add(91 * day)
	if n, err := bravo.keeper.RotateDue(ctx); n != 41 || err != nil {
		t.Fatalf("%d rotated, %v", n, err)
	}
	second, err := bravo.keeper.Current(ctx, bob)
	check(t, err)
	fresh := peer.send(t, "alice@p.test", bravo, second)
	now = made.Add(121 * day) // a week before the end of the first key's grace
	save("last week")
	if got := thief.opens(t, old, fresh); got != "old fresh" {
		t.Fatalf("while both keys live he opens %q: the attack proves nothing", got)
	}
	now = made.Add(91*day + trustful.MinGrace + time.Minute)
	if n, err := bravo.keeper.Sweep(ctx); n != 41 || err != nil {
		t.Fatalf("%d destroyed, %v", n, err)
	}
	save("today")
	if _, err := bravo.keeper.Open(ctx, old); !errors.Is(err, trustful.ErrStaleSignet) {
		t.Errorf("the gateway says %v: the origin must hear 586", err)
	}
	if got := thief.opens(t, old, fresh); got != "fresh" {
		t.Errorf("he opens %q, and should open what a living key opens alone", got)
	}

	// After a restore of last week's backup late mail to the key that it left out is answered as any to a destroyed key.
	to := testvault.Vault{Dir: filepath.Join(t.TempDir(), "vault"), Keys: place.Keys}
	_, _, err = backup.Restore(ctx, backup.RestoreOptions{File: filepath.Join(thief.backups, "last week"), Folder: to.Dir, Keys: thief.keys, Now: now})
	check(t, err)
	back := to.Open(t, vault.Options{})
	restored := *bravo
	restored.keeper, err = trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: back}, Organization: bravo.org, Peers: &restored,
		Pins: bravo.keeper.Pins, Grace: trustful.MinGrace, Now: func() time.Time { return now }})
	check(t, err)
	if _, err := restored.keeper.Open(ctx, old); !errors.Is(err, trustful.ErrStaleSignet) {
		t.Errorf("old mail after a restore: %v", err)
	}
	if _, err := restored.keeper.Open(ctx, fresh); err != nil {
		t.Errorf("new mail after a restore: %v", err)
	}
	if !escrowed {
		return
	}
	// Officers open it, on what stands there and after the restore.
	for name, h := range map[string]*house{"running": bravo, "restored": {domain: bravo.domain, vault: back, org: bravo.org, keeper: bravo.keeper, peers: peers}} {
		again := *c
		again.house = h
		again.archive, err = archive.Open(ctx, h.vault)
		check(t, err)
		if n, err := again.opens(t, c.continuity, bob, []trustful.Incoming{old, fresh}, 1, 2, 3); n != 2 || err != nil {
			t.Errorf("%s: officers open %d messages, %v", name, n, err)
		}
	}
}

// A thief has everything but what was destroyed.
type thief struct {
	place         testvault.Vault
	keys, backups string
	octets        [][]byte
	ids           map[vault.ID]bool
}

// opens tells which of two messages he can read.
func (th *thief) opens(t *testing.T, old, fresh trustful.Incoming) string {
	t.Helper()
	th.take(t)
	keys := th.unwrap(t)
	var list []string
	for name, in := range map[string]trustful.Incoming{"old": old, "fresh": fresh} {
		for _, k := range keys {
			if _, err := in.Message.Open(message.Recipient, k); err == nil {
				list = append(list, name)
				break
			}
		}
	}
	if len(list) == 2 {
		return "old fresh"
	}
	return strings.Join(list, " ")
}

// take copies all files, restores each backup whose key is there, and reads which keys there are.
func (th *thief) take(t *testing.T) {
	t.Helper()
	th.octets, th.ids = nil, map[vault.ID]bool{}
	folders := []string{th.place.Dir, th.backups, th.keys}
	files, err := filepath.Glob(filepath.Join(th.backups, "*"))
	check(t, err)
	for _, f := range files {
		to := filepath.Join(t.TempDir(), "vault")
		_, _, err := backup.Restore(t.Context(), backup.RestoreOptions{File: f, Folder: to, Keys: th.keys, Now: time.Now()})
		if errors.Is(err, backup.ErrNoKey) {
			continue
		}
		check(t, err)
		folders = append(folders, to)
	}
	wal := false
	for _, folder := range folders {
		check(t, filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			th.octets = append(th.octets, b)
			wal = wal || strings.HasSuffix(path, "-wal")
			return err
		}))
	}
	if !wal {
		t.Error("no write-ahead log among the files")
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(th.place.Dir, "vault.db"))
	check(t, err)
	defer db.Close()
	rows, err := db.Query(`SELECT id FROM user_keys`)
	check(t, err)
	for rows.Next() {
		var id []byte
		check(t, rows.Scan(&id))
		th.ids[vault.ID(id)] = true
	}
	check(t, rows.Close())
}

// unwrap finds users' keys for reading.
func (th *thief) unwrap(t *testing.T) []key.Encryption {
	t.Helper()
	file, err := vault.KeyFile(filepath.Join(th.place.Keys, "host.key"))
	check(t, err)
	root, err := vault.OpenSeal(t.Context(), filepath.Join(th.place.Dir, "host.seal"), vault.HostRole, file)
	check(t, err)
	defer root.Destroy()
	const sealedSize = 6 + 32 + 32 + 32 + 16
	secrets, sealed := map[vault.ID]vault.Secret{}, map[string]bool{}
	for _, b := range th.octets {
		each(b, "DWB1\x01", vault.WrapSize, func(wrap []byte) {
			for id := range th.ids {
				if s, err := root.Unwrap(wrap, vault.Label("key", string(id[:]))); err == nil {
					secrets[id] = s
				}
			}
		})
		each(b, "DSR1\x01\x07", sealedSize, func(s []byte) { sealed[string(s)] = true })
	}
	var keys []key.Encryption
	for id, s := range secrets {
		for b := range sealed {
			scalar, err := vault.OpenOctets(s, vault.PartKey, id[:], []byte(b))
			if err != nil {
				continue
			}
			k, err := key.NewEncryption(scalar)
			check(t, err)
			keys = append(keys, k)
		}
	}
	return keys
}

// each visits every place in b where n octets begin with magic.
func each(b []byte, magic string, n int, visit func([]byte)) {
	for {
		i := bytes.Index(b, []byte(magic))
		if i < 0 || i+n > len(b) {
			return
		}
		visit(b[i : i+n])
		b = b[i+1:]
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
