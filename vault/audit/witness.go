package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"dimegate/internal/safefile"
)

// A Witness cosigns what grows and nothing else (C2SP tlog-witness): of each log it knows, it keeps the last tree that it
// saw, and never cosigns one that does not begin with it. Safe for concurrent use; of one folder there is one Witness at a time.
type Witness struct {
	key  WitnessKey
	dir  string
	logs map[string]string // origins and their verifier keys

	mu   sync.Mutex
	lock *os.File
}

// NewWitness makes a witness of the logs whose verifier keys are given. It keeps a file a log in the folder, which
// must be its alone until Close.
func NewWitness(key WitnessKey, dir string, logs []string) (*Witness, error) {
	w := &Witness{key: key, dir: dir, logs: map[string]string{}}
	for _, l := range logs {
		v, err := note.NewVerifier(l)
		if err != nil {
			return nil, fmt.Errorf("audit: %q is not a log's verifier key", l)
		}
		origin := v.Name()
		if _, twice := w.logs[origin]; twice {
			return nil, fmt.Errorf("audit: two keys for the log %q", origin)
		}
		w.logs[origin] = l
	}
	if len(w.logs) == 0 {
		return nil, errors.New("audit: a witness without a log")
	}
	var err error
	if w.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("audit: witness: %w", err)
	}
	if err := syscall.Flock(int(w.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		w.lock.Close()
		return nil, fmt.Errorf("audit: %s is another witness's that is running", dir)
	}
	return w, nil
}

// Close lets go of the folder.
func (w *Witness) Close() error { return w.lock.Close() }

// MaxWitnessRequest bounds a request, in octets: a note and at most 63 hashes.
const MaxWitnessRequest = maxNote + 8<<10

// An Answer is what a witness says: an HTTP status and a body.
type Answer struct {
	Status int
	Size   bool // the body is the size that the witness has seen: content type text/x.tlog.size
	Body   string
}

// Add answers one add-checkpoint request: "old SIZE", the hashes of a proof of growth, an empty line, a checkpoint. An error
// is a fault of the witness's own; nothing is cosigned then.
func (w *Witness) Add(request []byte, now time.Time) (Answer, error) {
	head, signed, ok := bytes.Cut(request, []byte("\n\n"))
	old, proof, err := parseGrowth(string(head))
	if !ok || err != nil || len(request) > MaxWitnessRequest {
		return Answer{Status: 400, Body: "not a request to add a checkpoint\n"}, nil
	}
	origin, _, _ := strings.Cut(string(signed), "\n")
	key, known := w.logs[origin]
	if !known {
		return Answer{Status: 404, Body: "not a log of this witness\n"}, nil
	}
	t, err := ParseCheckpoint(signed, key)
	switch {
	case err != nil:
		return Answer{Status: 403, Body: "not signed by the log's key\n"}, nil
	case t.Origin != origin || old > t.Size:
		return Answer{Status: 400, Body: "the old size is above the checkpoint's\n"}, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	text, _, _ := strings.Cut(string(signed), "\n\n") // with extension lines, if there are any
	return w.grow(t, text+"\n", old, proof, now)
}

// grow cosigns a tree that the last one is a beginning of.
func (w *Witness) grow(t Tree, text string, old int64, proof tlog.TreeProof, now time.Time) (Answer, error) {
	last, err := w.load(t.Origin)
	if err != nil {
		return Answer{}, err
	}
	if old != last.Size || t.Size == last.Size && last.Size > 0 && t.Root != last.Root {
		return Answer{Status: 409, Size: true, Body: strconv.FormatInt(last.Size, 10) + "\n"}, nil
	}
	switch {
	case old == 0 && len(proof) > 0, old == t.Size && len(proof) > 0:
		return Answer{Status: 422, Body: "a proof where there is nothing to prove\n"}, nil
	case old > 0 && old < t.Size && tlog.CheckTree(proof, t.Size, t.Root, old, last.Root) != nil:
		return Answer{Status: 422, Body: "the proof does not hold\n"}, nil
	}
	if err := w.save(t); err != nil {
		return Answer{}, err
	}
	return Answer{Status: 200, Body: w.key.cosign(text, now)}, nil
}

// maxGrowthProof is how many hashes a proof of growth may have (C2SP).
const maxGrowthProof = 63

// parseGrowth reads "old SIZE" and the hashes of a proof.
func parseGrowth(head string) (old int64, proof tlog.TreeProof, err error) {
	first, rest, _ := strings.Cut(head, "\n")
	text, ok := strings.CutPrefix(first, "old ")
	if old, err = strconv.ParseInt(text, 10, 64); !ok || err != nil || old < 0 || strconv.FormatInt(old, 10) != text {
		return 0, nil, errors.New("audit: no old size")
	}
	if rest == "" {
		return old, nil, nil
	}
	for line := range strings.SplitSeq(rest, "\n") {
		b, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(b) != tlog.HashSize || len(proof) == maxGrowthProof {
			return 0, nil, errors.New("audit: not a proof's hash")
		}
		proof = append(proof, tlog.Hash(b))
	}
	return old, proof, nil
}

// WitnessRequest is the request that Add reads.
func WitnessRequest(old int64, proof tlog.TreeProof, signed []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", old)
	for _, h := range proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteByte('\n')
	b.Write(signed)
	return b.Bytes()
}

// file is where the last tree of a log rests: an origin may be any text.
func (w *Witness) file(origin string) string {
	h := sha256.Sum256([]byte(origin))
	return filepath.Join(w.dir, hex.EncodeToString(h[:16])+".tree")
}

// load returns the last tree of a log; size 0 when none was seen. A file that cannot be read is an error, never a beginning.
func (w *Witness) load(origin string) (Tree, error) {
	b, err := safefile.Read(w.file(origin), maxNote)
	if errors.Is(err, fs.ErrNotExist) {
		return Tree{Origin: origin}, nil
	}
	if err != nil {
		return Tree{}, fmt.Errorf("audit: witness: %w", err)
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return Tree{}, fmt.Errorf("audit: witness: %s: damaged", w.file(origin))
	}
	t, err := parseTree(text)
	if err != nil || t.Origin != origin {
		return Tree{}, fmt.Errorf("audit: witness: %s: damaged", w.file(origin))
	}
	return t, nil
}

// save is durable on return: what is cosigned afterwards is not forgotten.
func (w *Witness) save(t Tree) error {
	b, err := json.Marshal(t.text())
	if err != nil {
		return err
	}
	return safefile.Write(w.file(t.Origin), b)
}
