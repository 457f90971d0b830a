// Package audit signs, proves and checks the vault's log: an RFC 6962 tree over the leaves that the vault writes with each
// thing that it does.
//
// The host that writes the log holds its key, so what the host says of its own log proves little: a checkpoint that is
// kept elsewhere is what a changed log is found by.
package audit

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
)

// A Source is where the log rests; *vault.Vault is one.
type Source interface {
	Archive() vault.ID
	Restored() (times int, size int64)
	LogSize(ctx context.Context) (int64, error)
	LogExtent(ctx context.Context) (leaves, hashes int64, err error)
	LogHashes(ctx context.Context, indexes []int64) ([]tlog.Hash, error)
	LogLeaves(ctx context.Context, first int64, n int) ([][]byte, error)
	LeafOpened(ctx context.Context, n int64, l vault.Leaf) (bool, error)
	Checkpoints(ctx context.Context, after int64, n int) ([]vault.Checkpoint, error)
	LastCheckpoint(ctx context.Context) (vault.Checkpoint, error)
	SaveCheckpoint(ctx context.Context, c vault.Checkpoint) error
	CosignCheckpoint(ctx context.Context, size int64, line []byte) error
}

// Origin is the name of an archive's log, in checkpoints and in its key. After a restore the log has another one: what stood
// behind the backup's end has been seen by witnesses and officers, and a log that grows there anew is not the same.
func Origin(archive vault.ID, restores int) string {
	origin := "dimegate/" + archive.String()
	if restores > 0 {
		origin += "/" + strconv.Itoa(restores)
	}
	return origin
}

// ofArchive tells whether an origin is one of an archive's.
func ofArchive(origin string, archive vault.ID) bool {
	rest, ok := strings.CutPrefix(origin, Origin(archive, 0))
	n, err := strconv.Atoi(strings.TrimPrefix(rest, "/"))
	return ok && (rest == "" || err == nil && origin == Origin(archive, n))
}

// originOf is the name that a log has now.
func originOf(src Source) string {
	times, _ := src.Restored()
	return Origin(src.Archive(), times)
}

// A Key signs checkpoints: C2SP signed notes with Ed25519.
type Key struct {
	note.Signer
	verifier string
}

// NewKey makes the key of a seed of 32 octets.
func NewKey(origin string, seed []byte) (*Key, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("audit: a key's seed is %d octets", ed25519.SeedSize)
	}
	public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	verifier, err := note.NewEd25519VerifierKey(origin, public)
	if err != nil {
		return nil, fmt.Errorf("audit: key: %w", err)
	}
	// Package note makes signers of text alone: its form of a private key, with algorithm 1 before the seed.
	const ed25519Alg = 1
	id := sha256.Sum256(append([]byte(origin+"\n"+string(rune(ed25519Alg))), public...))
	text := fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", origin, binary.BigEndian.Uint32(id[:]),
		base64.StdEncoding.EncodeToString(append([]byte{ed25519Alg}, seed...)))
	signer, err := note.NewSigner(text)
	if err != nil {
		return nil, errors.New("audit: key: not accepted as a note's") // not its text: that may hold the key
	}
	return &Key{signer, verifier}, nil
}

// Verifier is the public key as text, for those who check: origin+id+base64.
func (k *Key) Verifier() string { return k.verifier }

// VaultKey is the log key of a vault, made at first use and kept under the host seal.
func VaultKey(ctx context.Context, v *vault.Vault) (*Key, error) {
	s, err := v.NamedKey(ctx, "log")
	if err != nil {
		return nil, err
	}
	defer s.Destroy()
	seed := s.Octets()
	defer clear(seed)
	return NewKey(originOf(v), seed)
}

// A Tree is what a checkpoint says.
type Tree struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// text is the body of a checkpoint: C2SP tlog-checkpoint without extension lines.
func (t Tree) text() string {
	return t.Origin + "\n" + strconv.FormatInt(t.Size, 10) + "\n" + t.Root.String() + "\n"
}

// Bounds of a checkpoint that is read: its octets, and its leaves (package tlog counts hashes in an int64, two a leaf, and
// does not end above 2^62).
const (
	maxNote = 64 << 10
	maxSize = 1 << 56
)

// ParseCheckpoint reads a signed note and checks the signature of one of verifiers, which are texts as Verifier returns.
func ParseCheckpoint(signed []byte, verifiers ...string) (Tree, error) {
	if len(signed) > maxNote {
		return Tree{}, errors.New("audit: checkpoint too large")
	}
	var list []note.Verifier
	for _, v := range verifiers {
		nv, err := note.NewVerifier(v)
		if err != nil {
			return Tree{}, errors.New("audit: not a verifier key")
		}
		list = append(list, nv)
	}
	n, err := note.Open(signed, note.VerifierList(list...))
	if err != nil {
		return Tree{}, errors.New("audit: checkpoint is not signed by the log's key")
	}
	return parseTree(n.Text)
}

func parseTree(text string) (Tree, error) {
	lines := strings.Split(text, "\n")
	bad := errors.New("audit: not the text of a checkpoint")
	if len(lines) < 4 || lines[0] == "" { // three lines and what follows the last line feed; extensions may be between
		return Tree{}, bad
	}
	t := Tree{Origin: lines[0]}
	var err error
	if t.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || t.Size < 0 || t.Size > maxSize || strconv.FormatInt(t.Size, 10) != lines[1] {
		return Tree{}, bad
	}
	if t.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return Tree{}, bad
	}
	return t, nil
}

// A Log signs and proves.
type Log struct {
	src   Source
	key   *Key
	every time.Duration
}

// New makes a Log. It starts nothing: see Run.
func New(src Source, key *Key) *Log { return &Log{src, key, Every} }

func reader(ctx context.Context, src Source) tlog.HashReader {
	return tlog.HashReaderFunc(func(x []int64) ([]tlog.Hash, error) { return src.LogHashes(ctx, x) })
}

// Checkpoint signs the log as it stands and keeps the note; when nothing was added it returns the last one.
func (l *Log) Checkpoint(ctx context.Context, now time.Time) ([]byte, error) {
	size, err := l.src.LogSize(ctx)
	if err != nil {
		return nil, err
	}
	last, err := l.src.LastCheckpoint(ctx)
	switch {
	case errors.Is(err, vault.ErrNotFound):
	case err != nil:
		return nil, err
	case last.Size == size:
		return last.Note, nil
	case last.Size > size:
		return nil, &Fault{Leaf: size, Reason: fmt.Sprintf("the log has %d leaves, its last checkpoint %d", size, last.Size)}
	}
	if err := l.grown(ctx, last, size); err != nil {
		return nil, err
	}
	root, err := tlog.TreeHash(size, reader(ctx, l.src))
	if err != nil {
		return nil, err
	}
	t := Tree{Origin: l.key.Name(), Size: size, Root: root}
	signed, err := note.Sign(&note.Note{Text: t.text()}, l.key)
	if err != nil {
		return nil, fmt.Errorf("audit: sign: %w", err)
	}
	return signed, l.src.SaveCheckpoint(ctx, vault.Checkpoint{Size: size, Note: signed, Made: now})
}

// grown refuses to sign a tree that the last checkpoint is no part of.
func (l *Log) grown(ctx context.Context, last vault.Checkpoint, size int64) error {
	if last.Size == 0 {
		return nil
	}
	t, err := ParseCheckpoint(last.Note, l.key.Verifier())
	if err != nil {
		return &Fault{Leaf: -1, Reason: "the last checkpoint is not signed by this log's key"}
	}
	root, err := tlog.TreeHash(last.Size, reader(ctx, l.src))
	if err != nil {
		return err
	}
	if t.Size != last.Size || t.Root != root {
		return &Fault{Leaf: -1, Reason: fmt.Sprintf("the log's first %d leaves are not those of its last checkpoint", last.Size)}
	}
	return nil
}

// A checkpoint is signed when it has been so long, or when so many leaves came since the last one.
const (
	Every     = 10 * time.Second
	EveryLeaf = 1000
	lookEvery = time.Second
)

// Run signs a checkpoint when the log has grown, every 10 seconds or 1,000 leaves, and has the witnesses cosign it; and once
// more at the end of ctx, without them. It returns nil then; trouble is logged and tried again.
func (l *Log) Run(ctx context.Context, log *slog.Logger, witnesses ...*RemoteWitness) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		signed := time.Now()
		l.sign(ctx, log)
		l.cosignAll(ctx, log, witnesses)
		for time.Since(signed) < l.every && !l.grownBy(ctx, EveryLeaf) {
			select {
			case <-ctx.Done():
				l.sign(ctx, log)
				return nil
			case <-tick.C:
			}
		}
	}
}

func (l *Log) sign(ctx context.Context, log *slog.Logger) {
	if _, err := l.Checkpoint(context.WithoutCancel(ctx), time.Now()); err != nil {
		log.LogAttrs(ctx, slog.LevelError, "checkpoint", slog.Any("error", err))
	}
}

// grownBy tells whether so many leaves came since the last checkpoint. What cannot be read has not grown: Checkpoint tells.
func (l *Log) grownBy(ctx context.Context, leaves int64) bool {
	size, err := l.src.LogSize(ctx)
	if err != nil {
		return false
	}
	last, err := l.src.LastCheckpoint(ctx)
	return err == nil && size-last.Size >= leaves
}

// cosignAll asks the witnesses, each at the same time as the others: one that does not answer keeps nobody waiting.
func (l *Log) cosignAll(ctx context.Context, log *slog.Logger, witnesses []*RemoteWitness) {
	var wg sync.WaitGroup
	for _, w := range witnesses {
		wg.Go(func() { w.report(ctx, log, l.Cosign(ctx, w), time.Now()) })
	}
	wg.Wait()
}

// ProveLeaf proves that the leaf of an index is in the tree of a size: tlog.CheckRecord checks it.
func ProveLeaf(ctx context.Context, src Source, size, index int64) (tlog.RecordProof, error) {
	if index < 0 || index >= size {
		return nil, fmt.Errorf("audit: leaf %d is not in a tree of %d", index, size)
	}
	return tlog.ProveRecord(size, index, reader(ctx, src))
}

// ProveGrowth proves that the tree of size old is a beginning of that of size: tlog.CheckTree checks it.
func ProveGrowth(ctx context.Context, src Source, old, size int64) (tlog.TreeProof, error) {
	if old < 1 || old > size {
		return nil, fmt.Errorf("audit: a tree of %d does not grow to %d", old, size)
	}
	return tlog.ProveTree(size, old, reader(ctx, src))
}
