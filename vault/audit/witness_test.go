package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
	"dimegate/vault/audit"
)

// A tower is a witness with its folder.
type tower struct {
	*audit.Witness
	key audit.WitnessKey
	dir string
}

func newTower(t testing.TB, logs ...string) *tower {
	t.Helper()
	k, err := audit.NewWitnessKey("witness.example", bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &tower{key: k, dir: t.TempDir()}
	w.restart(t, logs...)
	return w
}

func (w *tower) restart(t testing.TB, logs ...string) {
	t.Helper()
	if w.Witness != nil {
		w.Close()
	}
	var err error
	if w.Witness, err = audit.NewWitness(w.key, w.dir, logs); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.NewWitness(w.key, w.dir, logs); err == nil {
		t.Fatal("two witnesses in one folder")
	}
}

// remote is the witness without a network between.
func (w *tower) remote(t testing.TB) *audit.RemoteWitness {
	t.Helper()
	v, err := audit.ParseWitness(w.key.Verifier())
	if err != nil {
		t.Fatal(err)
	}
	return &audit.RemoteWitness{Verifier: v, Add: func(_ context.Context, r []byte) (audit.Answer, error) { return w.Add(r, made) }}
}

// The wire form, read by hand: C2SP tlog-cosignature's cosignature/v1.
func TestCosignatureForm(t *testing.T) {
	w := newWorld(t, 3)
	signed := w.checkpoint(t)
	a, err := newTower(t, w.key.Verifier()).Add(audit.WitnessRequest(0, nil, signed), made)
	if err != nil || a.Status != 200 {
		t.Fatalf("%+v, %v", a, err)
	}
	b64, ok := strings.CutPrefix(a.Body, "— witness.example ")
	b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(b64, "\n"))
	if !ok || err != nil || len(b) != 4+8+64 {
		t.Fatalf("%q", a.Body)
	}
	text, _, _ := strings.Cut(string(signed), "\n\n")
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s\n", made.Unix(), text)
	public := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)).Public().(ed25519.PublicKey)
	if binary.BigEndian.Uint64(b[4:]) != uint64(made.Unix()) || !ed25519.Verify(public, []byte(message), b[12:]) {
		t.Error("the cosignature is not over time and text")
	}
}

// A witness cosigns what grows, through restarts of both sides, and Verify counts it.
func TestWitnessedGrowth(t *testing.T) {
	w := newWorld(t, 1)
	tower := newTower(t, w.key.Verifier())
	remote := tower.remote(t)
	for range 8 {
		w.checkpoint(t)
		for range 2 { // the second time nothing is asked
			if err := w.log.Cosign(t.Context(), remote); err != nil {
				t.Fatal(err)
			}
		}
		for range w.n % 4 {
			w.add(t)
		}
		w.add(t)
		remote = tower.remote(t) // it has forgotten what the witness saw
		tower.restart(t, w.key.Verifier())
	}
	r, err := audit.Verify(t.Context(), w.Vault, w.key.Verifier(), []note.Verifier{remote.Verifier})
	if err != nil || r.Cosigned != r.Signed || r.Cosigned == 0 || r.Size <= r.Cosigned {
		t.Errorf("%+v, %v", r, err)
	}
	other, _ := audit.NewWitnessKey("witness.example", bytes.Repeat([]byte{8}, 32))
	v, _ := audit.ParseWitness(other.Verifier())
	if r, err = audit.Verify(t.Context(), w.Vault, w.key.Verifier(), []note.Verifier{v}); err != nil || r.Cosigned != 0 {
		t.Errorf("by another key of that name: %+v, %v", r, err)
	}
}

// Whoever holds the host and the log's key does to the log what he likes, makes its tree anew and signs it. The witness has seen
// what was there, and so has whoever kept a checkpoint, as officers' tools do: both find it, and a leaf is named before which all
// is as it was.
func TestWitnessedAttacks(t *testing.T) {
	for name, attack := range map[string]struct {
		do   func(*testing.T, *world)
		leaf int64 // named: under checkpoints at 10, 15 and 20 leaves
	}{
		"edited": {func(t *testing.T, w *world) {
			w.raw(t, `UPDATE leaves SET leaf = CAST(substr(leaf, 1, 90) || X'0000' || substr(leaf, 93) AS BLOB) WHERE idx = 11`)
		}, 10},
		"deleted": {func(t *testing.T, w *world) {
			w.raw(t, `DELETE FROM leaves WHERE idx = 3`, `UPDATE leaves SET idx = idx + 99 WHERE idx > 3`, `UPDATE leaves SET idx = idx - 100 WHERE idx > 99`)
		}, 0},
		"swapped": {func(t *testing.T, w *world) {
			w.raw(t, `UPDATE leaves SET idx = 116 - idx WHERE idx IN (16, 17)`, `UPDATE leaves SET idx = idx - 83 WHERE idx > 90`)
		}, 15},
		"truncated":                 {func(t *testing.T, w *world) { cut(t, w, 15) }, 15},
		"rolled back and grown":     {func(t *testing.T, w *world) { cut(t, w, 15); w.remake(t); more(t, w, 12) }, 15},
		"forked at the same size":   {func(t *testing.T, w *world) { cut(t, w, 15); w.remake(t); more(t, w, 5) }, 15},
		"made anew from the second": {func(t *testing.T, w *world) { cut(t, w, 1); w.remake(t); more(t, w, 40) }, 0},
	} {
		for memory, forgets := range map[string]bool{"": false, ", by a gateway that forgot": true} {
			t.Run(name+memory, func(t *testing.T) {
				w := newWorld(t, 20, 10, 15)
				tower := newTower(t, w.key.Verifier())
				remote := tower.remote(t)
				w.checkpoint(t)
				if err := w.log.Cosign(t.Context(), remote); err != nil {
					t.Fatal(err)
				}
				kept := w.kept
				attack.do(t, w)
				w.remake(t)
				if forgets {
					remote = tower.remote(t)
				}
				if _, err := w.log.Checkpoint(t.Context(), made); err != nil {
					t.Fatal(err)
				}
				if r, err := audit.Verify(t.Context(), w.Vault, w.key.Verifier(), []note.Verifier{remote.Verifier}); err != nil || r.Cosigned != 0 {
					t.Errorf("nobody else asked: %+v, %v", r, err) // the attack is as good as it can be, and all of it unprotected
				}
				err := w.log.Cosign(t.Context(), remote)
				if f, ok := errors.AsType[*audit.Fault](err); !ok {
					t.Errorf("%v", err)
				} else if f.Reason == "" {
					t.Error("no reason")
				}
				_, err = audit.Verify(t.Context(), w.Vault, w.key.Verifier(), nil, kept...)
				if f, ok := errors.AsType[*audit.Fault](err); !ok || f.Leaf != attack.leaf {
					t.Errorf("with checkpoints kept elsewhere: %v, want leaf %d", err, attack.leaf)
				}
			})
		}
	}
}

// cut takes the leaves from n on away.
func cut(t *testing.T, w *world, n int) {
	t.Helper()
	w.raw(t, fmt.Sprintf(`DELETE FROM leaves WHERE idx >= %d`, n), fmt.Sprintf(`DELETE FROM openings WHERE idx >= %d`, n))
}

// remake makes the tree of the leaves that there are, and forgets every checkpoint.
func (w *world) remake(t *testing.T) {
	t.Helper()
	size, err := w.LogSize(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := w.LogLeaves(t.Context(), 0, int(size))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.disk.Dir, "vault.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`DELETE FROM hashes; DELETE FROM checkpoints`); err != nil {
		t.Fatal(err)
	}
	var all []tlog.Hash
	for i, b := range leaves {
		hs, err := tlog.StoredHashes(int64(i), b, tlog.HashReaderFunc(func(x []int64) (out []tlog.Hash, _ error) {
			for _, n := range x {
				out = append(out, all[n])
			}
			return out, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hs {
			if _, err := db.Exec(`INSERT INTO hashes (idx, hash) VALUES (?, ?)`, len(all), h[:]); err != nil {
				t.Fatal(err)
			}
			all = append(all, h)
		}
	}
	w.Close()
	w.Vault = w.disk.Open(t, vault.Options{})
	w.log = audit.New(w.Vault, w.key)
}

func more(t *testing.T, w *world, n int) {
	t.Helper()
	for range n {
		w.n += 1000 // other users than there were
		w.add(t)
	}
}

// What a witness answers to all that is not as it must be, and that nothing is cosigned then.
func TestWitnessRefuses(t *testing.T) {
	w := newWorld(t, 10, 6)
	old, now := w.kept[0], w.checkpoint(t)
	proof, err := audit.ProveGrowth(t.Context(), w.Vault, old.Size, 10)
	if err != nil {
		t.Fatal(err)
	}
	list, err := w.Checkpoints(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	first := list[0].Note
	stranger := newWorld(t, 3)
	forged := bytes.Replace(now, []byte("\n10\n"), []byte("\n11\n"), 1)
	bad := append(tlog.TreeProof{}, proof...)
	bad[0][0] ^= 1
	for name, tt := range map[string]struct {
		request []byte
		status  int
		body    string
	}{
		"growth":                  {audit.WitnessRequest(6, proof, now), 200, "— witness.example "},
		"the same again":          {audit.WitnessRequest(6, nil, first), 200, "— witness.example "},
		"another log":             {audit.WitnessRequest(0, nil, stranger.checkpoint(t)), 404, ""},
		"not the log's signature": {audit.WitnessRequest(6, proof, forged), 403, ""},
		"from nothing":            {audit.WitnessRequest(0, nil, now), 409, "6\n"},
		"from what was not seen":  {audit.WitnessRequest(7, proof, now), 409, "6\n"},
		"above its own size":      {audit.WitnessRequest(11, nil, now), 400, ""},
		"without a proof":         {audit.WitnessRequest(6, nil, now), 422, ""},
		"with a wrong proof":      {audit.WitnessRequest(6, bad, now), 422, ""},
		"a proof of nothing":      {audit.WitnessRequest(6, proof, first), 422, ""},
		"empty":                   {nil, 400, ""},
		"no checkpoint":           {[]byte("old 6\n\n"), 404, ""},
		"no old size":             {append([]byte("new 6\n\n"), now...), 400, ""},
		"old size below zero":     {append([]byte("old -1\n\n"), now...), 400, ""},
		"old size with a zero":    {append([]byte("old 06\n\n"), now...), 400, ""},
		"a short hash":            {append([]byte("old 6\nAAAA\n\n"), now...), 400, ""},
		"too many hashes":         {audit.WitnessRequest(6, make(tlog.TreeProof, 64), now), 400, ""},
		"too large":               {append(audit.WitnessRequest(6, proof, now), make([]byte, audit.MaxWitnessRequest)...), 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tower := newTower(t, w.key.Verifier())
			if a, err := tower.Add(audit.WitnessRequest(0, nil, first), made); err != nil || a.Status != 200 {
				t.Fatalf("%+v, %v", a, err)
			}
			a, err := tower.Add(tt.request, made)
			if err != nil || a.Status != tt.status || !strings.HasPrefix(a.Body, tt.body) || a.Size != (tt.status == 409) {
				t.Errorf("%+v, %v", a, err)
			}
			if tt.status != 200 && strings.Contains(a.Body, "— ") {
				t.Error("something was signed")
			}
		})
	}
}

// Of what witnesses answer at the same time the verified lines are kept, and nothing else.
func TestManyWitnesses(t *testing.T) {
	w := newWorld(t, 5)
	signed := w.checkpoint(t)
	var remotes []*audit.RemoteWitness
	var names []note.Verifier
	for i := range 5 {
		k, err := audit.NewWitnessKey(fmt.Sprintf("w%d.example", i), bytes.Repeat([]byte{byte(i + 1)}, 32))
		if err != nil {
			t.Fatal(err)
		}
		one, err := audit.NewWitness(k, t.TempDir(), []string{w.key.Verifier()})
		if err != nil {
			t.Fatal(err)
		}
		v, err := audit.ParseWitness(k.Verifier())
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, v)
		remotes = append(remotes, &audit.RemoteWitness{Verifier: v, Add: func(_ context.Context, r []byte) (audit.Answer, error) {
			a, err := one.Add(r, made)
			a.Body = "— stranger.example AAAAAAAAAAAA\n" + a.Body + "— " + v.Name() + " AAAAAAAAAAAA\n"
			return a, err
		}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.log.Run(ctx, slog.New(slog.DiscardHandler), remotes...) }()
	var after vault.Checkpoint
	for deadline := time.Now().Add(30 * time.Second); len(audit.Cosigned(after.Note, names)) < len(names); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s", after.Note)
		}
		after, _ = w.LastCheckpoint(t.Context())
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if more := bytes.TrimPrefix(after.Note, signed); bytes.Count(more, []byte("\n")) != len(names) || bytes.Contains(more, []byte("stranger")) {
		t.Errorf("kept: %s", more)
	}
}

// So many leaves are signed before the time for it has come.
func TestCheckpointByLeaves(t *testing.T) {
	w := newWorld(t, 1)
	w.log.SetEvery(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.log.Run(ctx, slog.New(slog.DiscardHandler)) }()
	signed := func(size int64) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if c, err := w.LastCheckpoint(t.Context()); err == nil && c.Size >= size {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("%d leaves are signed: %v", c.Size, err)
			}
		}
	}
	signed(1)
	var adders sync.WaitGroup
	for range 8 {
		adders.Go(func() {
			for range audit.EveryLeaf / 8 {
				if err := w.AttestLook(t.Context(), []byte("x"), made); err != nil {
					t.Error(err)
				}
			}
		})
	}
	adders.Wait()
	signed(audit.EveryLeaf + 1)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A witness whose memory is damaged cosigns nothing: it never begins anew.
func TestWitnessDamaged(t *testing.T) {
	w := newWorld(t, 3)
	signed := w.checkpoint(t)
	for name, octets := range map[string]string{"empty": "", "cut": `"dimegate/x\n3`, "another log's": `"other\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"`, "no text": "{}"} {
		t.Run(name, func(t *testing.T) {
			tower := newTower(t, w.key.Verifier())
			if _, err := tower.Add(audit.WitnessRequest(0, nil, signed), made); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(tower.dir, "*.tree"))
			if err != nil || len(files) != 1 {
				t.Fatal(files, err)
			}
			if err := os.WriteFile(files[0], []byte(octets), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, old := range []int64{0, 3} {
				if a, err := tower.Add(audit.WitnessRequest(old, nil, signed), made); err == nil {
					t.Errorf("%+v", a)
				}
			}
		})
	}
}

// A witness elsewhere that does not do its part: nothing of its answer is kept.
func TestFalseWitness(t *testing.T) {
	w := newWorld(t, 5)
	w.checkpoint(t)
	before, _ := w.LastCheckpoint(t.Context())
	impostor, err := audit.NewWitnessKey("witness.example", bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	false1, err := audit.NewWitness(impostor, t.TempDir(), []string{w.key.Verifier()})
	if err != nil {
		t.Fatal(err)
	}
	for name, add := range map[string]func(r []byte) (audit.Answer, error){
		"another's key": func(r []byte) (audit.Answer, error) { return false1.Add(r, made) },
		"nothing":       func([]byte) (audit.Answer, error) { return audit.Answer{Status: 200}, nil },
		"rubbish":       func([]byte) (audit.Answer, error) { return audit.Answer{Status: 200, Body: "x\n\n\n— "}, nil },
		"a size beyond any": func([]byte) (audit.Answer, error) {
			return audit.Answer{Status: 409, Size: true, Body: "9223372036854775807\n"}, nil
		},
		"a size for ever":   func([]byte) (audit.Answer, error) { return audit.Answer{Status: 409, Size: true, Body: "3\n"}, nil },
		"no size":           func([]byte) (audit.Answer, error) { return audit.Answer{Status: 409, Size: true, Body: "x"}, nil },
		"a size below zero": func([]byte) (audit.Answer, error) { return audit.Answer{Status: 409, Size: true, Body: "-3\n"}, nil },
		"a fault":           func([]byte) (audit.Answer, error) { return audit.Answer{Status: 500}, nil },
		"too much": func([]byte) (audit.Answer, error) {
			return audit.Answer{Status: 200, Body: strings.Repeat("— x AAAA\n", 1<<14)}, nil
		},
		"no answer": func([]byte) (audit.Answer, error) { return audit.Answer{}, errors.New("connection refused") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newTower(t, w.key.Verifier()).remote(t)
			r.Add = func(_ context.Context, b []byte) (audit.Answer, error) { return add(b) }
			if err := w.log.Cosign(t.Context(), r); err == nil {
				t.Error("no error")
			}
			if after, _ := w.LastCheckpoint(t.Context()); !bytes.Equal(after.Note, before.Note) {
				t.Error("the checkpoint was changed")
			}
		})
	}
}

func TestParseWitness(t *testing.T) {
	k, _ := audit.NewWitnessKey("w.example", make([]byte, 32))
	good := k.Verifier()
	if _, err := audit.ParseWitness(good); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, 1)
	for name, text := range map[string]string{
		"empty": "", "a log's": w.key.Verifier(), "another name": "x" + good, "cut": good[:len(good)-4], "no id": strings.Replace(good, "+", "", 1),
	} {
		if _, err := audit.ParseWitness(text); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, name := range []string{"", "a b", "a+b", "ä"} {
		if _, err := audit.NewWitnessKey(name, make([]byte, 32)); err == nil {
			t.Errorf("name %q: taken", name)
		}
	}
	if s := fmt.Sprintf("%v %+v %s", k, k, k); strings.Contains(s, "[") || strings.Contains(s, "0 0") {
		t.Errorf("a key prints: %s", s)
	}
	for name, logs := range map[string][]string{"none": nil, "no key": {"x"}, "a witness's": {good}, "twice": {w.key.Verifier(), w.key.Verifier()}} {
		if _, err := audit.NewWitness(k, t.TempDir(), logs); err == nil {
			t.Errorf("logs, %s: taken", name)
		}
	}
}

// FuzzWitness: no octets make a witness fail, and what it signs is what it was shown.
func FuzzWitness(f *testing.F) {
	w := newWorld(f, 10, 6)
	list, err := w.Checkpoints(f.Context(), 0, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(audit.WitnessRequest(0, nil, list[0].Note))
	f.Add(audit.WitnessRequest(6, make(tlog.TreeProof, 3), list[0].Note))
	f.Add([]byte("old 0\n\n"))
	tower := newTower(f, w.key.Verifier())
	v, err := audit.ParseWitness(tower.key.Verifier())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		a, err := tower.Add(request, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		if _, signed, ok := bytes.Cut(request, []byte("\n\n")); a.Status == 200 && (!ok || len(audit.Cosigned(append(signed, a.Body...), []note.Verifier{v})) == 0) {
			t.Errorf("signed, and not what was shown: %q", a.Body)
		}
	})
}
