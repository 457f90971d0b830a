package backup

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/audit"
)

// Life is how long a backup's key lives, and with it what the backup holds of keys that are to be destroyed one day. It is less
// than the grace of a user's key: the current keys of a backup outlive it, and retired ones are left out if they would not.
const Life = 30 * 24 * time.Hour

// Ledger is where an archive's erasure ledger is in the folder of keys; several vaults may share one.
func Ledger(folder string, archive vault.ID) string {
	return filepath.Join(folder, archive.String()+".erasures")
}

const keyFormat = "dimegate-backup-key-1"

// A Key opens one backup's wraps.
type Key struct {
	ID     vault.ID
	Dies   time.Time
	Secret vault.Secret
}

func keyPath(folder string, id vault.ID) string { return filepath.Join(folder, id.String()+".key") }

// makeKey makes a backup's key and its file.
func makeKey(folder string, id vault.ID, dies time.Time) (Key, error) {
	k := Key{ID: id, Dies: dies.UTC().Truncate(time.Second), Secret: vault.NewSecret()}
	octets := k.Secret.Octets()
	defer clear(octets)
	line := fmt.Appendf(nil, "%s %v %s ", keyFormat, id, k.Dies.Format(time.RFC3339))
	line = append(base64.RawStdEncoding.AppendEncode(line, octets), '\n')
	defer clear(line)
	if err := safefile.Create(keyPath(folder, id), line); err != nil {
		k.Secret.Destroy()
		return Key{}, fmt.Errorf("key of the backup: %w", err)
	}
	return k, nil
}

// ErrNoKey is returned for a backup whose key is not in the folder: it has had its life, or it is elsewhere.
var ErrNoKey = errors.New("the backup's key is not there")

// ReadKey reads the key of a backup. The caller destroys it.
func ReadKey(folder string, id vault.ID) (Key, error) {
	path := keyPath(folder, id)
	b, err := safefile.ReadSecret(path, 256)
	if errors.Is(err, fs.ErrNotExist) {
		return Key{}, fmt.Errorf("%w: %s", ErrNoKey, path)
	} else if err != nil {
		return Key{}, fmt.Errorf("key of the backup: %w", err)
	}
	defer clear(b)
	f := strings.Split(strings.TrimSuffix(string(b), "\n"), " ")
	bad := fmt.Errorf("key of the backup: %s: not a backup's key, or another's", path)
	if len(f) != 4 || f[0] != keyFormat || f[1] != id.String() {
		return Key{}, bad
	}
	dies, terr := time.Parse(time.RFC3339, f[2])
	raw, rerr := base64.RawStdEncoding.Strict().DecodeString(f[3])
	defer clear(raw)
	s, serr := vault.SecretOf(raw)
	if terr != nil || rerr != nil || serr != nil {
		return Key{}, bad
	}
	return Key{id, dies, s}, nil
}

// Keys lists the ids of the backups whose keys are in the folder, the oldest first.
func Keys(folder string) ([]vault.ID, error) {
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var ids []vault.ID
	for _, f := range files {
		if text, ok := strings.CutSuffix(f.Name(), ".key"); ok {
			if id, err := vault.ParseID(text); err == nil {
				ids = append(ids, id)
			}
		}
	}
	slices.SortFunc(ids, func(a, b vault.ID) int { return strings.Compare(a.String(), b.String()) })
	return ids, nil
}

// DestroyKeys destroys the keys that have had their life, all of them where a moment far off is given, and returns how many.
func DestroyKeys(folder string, now time.Time) (n int, err error) {
	ids, err := Keys(folder)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, id := range ids {
		k, err := ReadKey(folder, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		k.Secret.Destroy()
		if k.Dies.After(now) {
			continue
		}
		if err := destroyFile(keyPath(folder, id)); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

// destroyFile overwrites a file in its place, and removes it.
func destroyFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		_, err = f.Write(make([]byte, st.Size()))
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = safefile.SyncDir(filepath.Dir(path))
	}
	return err
}

// checkpointPath is where the last checkpoint of an archive's log is in the folder of keys.
func checkpointPath(folder string, archive vault.ID) string {
	return filepath.Join(folder, archive.String()+".checkpoint")
}

const maxCheckpoint = 64 << 10

// Keep does what is to be done in the folder of keys while the gateway runs: it destroys the keys that have had their life and
// returns how many, and brings the erasures and the log's last checkpoint there, by which a vault that is older is known.
func Keep(ctx context.Context, v *vault.Vault, folder string, now time.Time) (int, error) {
	n, err := DestroyKeys(folder, now)
	err = errors.Join(err, v.SaveLedger(ctx, Ledger(folder, v.Archive())))
	c, cerr := v.LastCheckpoint(ctx)
	if errors.Is(cerr, vault.ErrNotFound) {
		return n, err
	} else if cerr == nil {
		cerr = saveCheckpoint(ctx, v, folder, c.Note)
	}
	return n, errors.Join(err, cerr)
}

// saveCheckpoint replaces the checkpoint, unless the log is an older copy than the one that it was of.
func saveCheckpoint(ctx context.Context, v *vault.Vault, folder string, note []byte) error {
	now, err := audit.ReadTree(note)
	if err != nil {
		return err
	}
	last, _, err := LastLog(folder, v.Archive())
	if err != nil || last == now {
		return err
	}
	if last.Size > 0 {
		if err := audit.Known(ctx, v, last); err != nil {
			return err
		}
	}
	return safefile.Write(checkpointPath(folder, v.Archive()), note)
}

// LastLog is the last checkpoint of an archive that the folder of keys has, and its text; a zero tree when there is none.
func LastLog(folder string, archive vault.ID) (audit.Tree, string, error) {
	path := checkpointPath(folder, archive)
	b, err := safefile.Read(path, maxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return audit.Tree{}, "", nil
	} else if err != nil {
		return audit.Tree{}, "", err
	}
	t, err := audit.ReadTree(b)
	if err != nil {
		return t, "", fmt.Errorf("%s: %w", path, err)
	}
	text, _, _ := strings.Cut(string(b), "\n\n")
	return t, text, nil
}
