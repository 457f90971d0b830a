package vault

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"dimegate/internal/safefile"
)

// A SealHeader is the file that holds a role's root keys, each wrapped by every seal of the role: any one seal opens it.
// It is JSON for administrators' eyes; what it says is bound by the wraps' labels, so editing it can close it, not more.
type SealHeader struct {
	Format string     `json:"format"` // "dimegate-seal-1"
	Role   string     `json:"role"`
	Roots  []SealRoot `json:"roots"` // newest first; older ones stay while wraps under them do
}

// A SealRoot is one root key in a SealHeader.
type SealRoot struct {
	ID      string      `json:"id"` // 16 hexadecimal digits
	Made    time.Time   `json:"made"`
	Entries []SealEntry `json:"seals"`
}

// A SealEntry is one root key as one seal wrapped it.
type SealEntry struct {
	Kind string `json:"kind"`
	ID   string `json:"id,omitempty"`
	Blob []byte `json:"blob"`
}

const (
	sealFormat    = "dimegate-seal-1"
	maxSealHeader = 1 << 20
	maxSeals      = 64
)

func (e SealEntry) name() string { return sealName(e.Kind, e.ID) }

func sealName(kind, id string) string {
	if id == "" {
		return kind
	}
	return kind + " " + id
}

// CreateSeal makes a root key for role and the header file at path, which must not exist: fs.ErrExist. At least one seal.
func CreateSeal(ctx context.Context, path string, role Role, now time.Time, seals ...Seal) (*Root, error) {
	if len(seals) == 0 {
		return nil, errors.New("vault: a root key needs at least one seal")
	}
	key := NewSecret()
	id := idOfRoot(key)
	r := &Root{role: role, newest: id, keys: map[rootID]Secret{id: key}}
	h := SealHeader{Format: sealFormat, Role: role.String(), Roots: []SealRoot{{
		ID: hex.EncodeToString(id[:]), Made: now.UTC().Truncate(time.Second),
	}}}
	for _, s := range seals {
		if err := h.add(ctx, r, s); err != nil {
			r.Destroy()
			return nil, err
		}
	}
	if err := safefile.Create(path, h.encode()); err != nil {
		r.Destroy()
		return nil, fmt.Errorf("vault: %v seal: %w", role, err)
	}
	return r, nil
}

// OpenSeal opens the header at path with the first of the seals that fits. It tries the others too, so that Missing can
// name those that would not have opened it. ErrSealed, with each seal's reason, when none did.
func OpenSeal(ctx context.Context, path string, role Role, seals ...Seal) (*Root, error) {
	h, err := ReadSealHeader(path)
	if err != nil {
		return nil, err
	}
	if h.Role != role.String() {
		return nil, fmt.Errorf("vault: %s is the header of the %s seal, not of the %v seal", path, h.Role, role)
	}
	r := &Root{role: role, keys: map[rootID]Secret{}}
	var reasons []error
	for i, root := range h.Roots {
		id := rootID(unhex(root.ID))
		if i == 0 {
			r.newest = id
		}
		for _, e := range root.Entries {
			key, err := e.open(ctx, role, id, seals)
			if err != nil {
				reasons = append(reasons, fmt.Errorf("%s: %w", e.name(), err))
				if !slices.ContainsFunc(r.missing, func(m MissingSeal) bool { return m.Kind == e.Kind && m.ID == e.ID }) {
					r.missing = append(r.missing, MissingSeal{e.Kind, e.ID, err})
				}
				continue
			}
			if _, ok := r.keys[id]; ok {
				key.Destroy()
				continue
			}
			r.keys[id] = key
		}
	}
	if _, ok := r.keys[r.newest]; !ok || len(r.keys) != len(h.Roots) {
		r.Destroy()
		return nil, fmt.Errorf("%w: %v seal, %s: %w", ErrSealed, role, path, errors.Join(reasons...))
	}
	return r, nil
}

// ErrNotGiven is why an entry stayed closed when no seal of its kind and id was given.
var ErrNotGiven = errors.New("not given")

// open tries each seal that could have made the entry.
func (e SealEntry) open(ctx context.Context, role Role, id rootID, seals []Seal) (Secret, error) {
	err := ErrNotGiven
	for _, s := range seals {
		if s.Kind() != e.Kind || s.ID() != e.ID {
			continue
		}
		var key Secret
		if key, err = s.Unwrap(ctx, e.Blob, rootLabel(role, id, e.Kind, e.ID)); err != nil {
			continue
		}
		if idOfRoot(key) != id {
			key.Destroy()
			err = fmt.Errorf("%w: gave another root key", ErrCorrupt)
			continue
		}
		return key, nil
	}
	return Secret{}, err
}

// LockSeals has the seal headers of a vault's folder for itself until release: of two who change one, the later would undo what
// the earlier did. ErrLocked.
func LockSeals(folder string) (release func(), err error) {
	f, err := lockFile(filepath.Join(folder, "seals.lock"))
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("%w: another command changes the seals of %s", ErrLocked, folder)
	} else if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// An Attest writes into the log what a header is about to be, by its digest, before it is: no leaf, no key operation. After a crash
// between the two the last leaf does not fit the header, which SealAttested tells. Nil: there is no log yet.
type Attest func(header Digest) error

// write replaces the header at path, attested.
func (h *SealHeader) write(path string, attest Attest) error {
	octets := h.encode()
	if attest != nil {
		if err := attest(NewDigest("seal header", octets)); err != nil {
			return err
		}
	}
	return safefile.Write(path, octets)
}

// AddSeal gives the role one more seal. r is the opened header at path.
func AddSeal(ctx context.Context, path string, r *Root, s Seal, attest Attest) error {
	h, err := ReadSealHeader(path)
	if err != nil {
		return err
	}
	if err := h.add(ctx, r, s); err != nil {
		return err
	}
	return h.write(path, attest)
}

// RemoveSeal takes a seal away, by kind and id. The last one stays: without it the role is closed for ever.
func RemoveSeal(path, kind, id string, attest Attest) error {
	h, err := ReadSealHeader(path)
	if err != nil {
		return err
	}
	for i := range h.Roots {
		entries := h.Roots[i].Entries
		j := slices.IndexFunc(entries, func(e SealEntry) bool { return e.Kind == kind && e.ID == id })
		if j < 0 {
			return fmt.Errorf("%w: seal %s", ErrNotFound, sealName(kind, id))
		}
		if len(entries) == 1 {
			return fmt.Errorf("vault: %s is the only seal of %s: add another first", sealName(kind, id), path)
		}
		h.Roots[i].Entries = slices.Delete(entries, j, j+1)
	}
	return h.write(path, attest)
}

// add wraps every root key of r by s.
func (h *SealHeader) add(ctx context.Context, r *Root, s Seal) error {
	for i := range h.Roots {
		root := &h.Roots[i]
		if slices.ContainsFunc(root.Entries, func(e SealEntry) bool { return e.Kind == s.Kind() && e.ID == s.ID() }) {
			return fmt.Errorf("%w: seal %s", ErrExists, sealName(s.Kind(), s.ID()))
		}
		id := rootID(unhex(root.ID))
		key, ok := r.keys[id]
		if !ok || h.Role != r.role.String() {
			return fmt.Errorf("%w: root key %s", ErrSealed, root.ID)
		}
		blob, err := s.Wrap(ctx, key, rootLabel(r.role, id, s.Kind(), s.ID()))
		if err != nil {
			return fmt.Errorf("vault: seal %s: %w", sealName(s.Kind(), s.ID()), err)
		}
		root.Entries = append(root.Entries, SealEntry{Kind: s.Kind(), ID: s.ID(), Blob: blob})
	}
	return nil
}

func rootLabel(role Role, id rootID, kind, name string) []byte {
	return Label("root", role.String(), string(id[:]), kind, name)
}

// ReadSealHeader reads a header file without opening it. Its mode must keep others out.
func ReadSealHeader(path string) (*SealHeader, error) {
	b, err := safefile.ReadSecret(path, maxSealHeader)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("vault: no seal header: %w", err)
	} else if err != nil {
		return nil, fmt.Errorf("vault: seal header: %w", err)
	}
	h, err := parseSealHeader(b)
	if err != nil {
		return nil, fmt.Errorf("vault: seal header %s: %w", path, err)
	}
	return h, nil
}

// parseSealHeader reads the JSON of a header. It quotes nothing of it in errors.
func parseSealHeader(b []byte) (*SealHeader, error) {
	var h SealHeader
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return nil, fmt.Errorf("%w: not the JSON of a seal header", ErrCorrupt)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows the JSON", ErrCorrupt)
	}
	if h.Format != sealFormat {
		return nil, fmt.Errorf("%w: not in the format %s", ErrCorrupt, sealFormat)
	}
	if len(h.Roots) == 0 || len(h.Roots) > maxSeals {
		return nil, fmt.Errorf("%w: 1 to %d root keys", ErrCorrupt, maxSeals)
	}
	seen := map[string]bool{}
	for _, r := range h.Roots {
		if len(unhex(r.ID)) != len(rootID{}) || seen[r.ID] {
			return nil, fmt.Errorf("%w: root ids are 16 hexadecimal digits, each its own", ErrCorrupt)
		}
		seen[r.ID] = true
		if len(r.Entries) == 0 || len(r.Entries) > maxSeals {
			return nil, fmt.Errorf("%w: 1 to %d seals a root key", ErrCorrupt, maxSeals)
		}
	}
	return &h, nil
}

// Has reports whether the newest root key is wrapped by a seal of this kind and id.
func (h *SealHeader) Has(kind, id string) bool {
	return slices.ContainsFunc(h.Roots[0].Entries, func(e SealEntry) bool { return e.Kind == kind && e.ID == id })
}

func (h *SealHeader) encode() []byte {
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		panic("vault: seal header: " + err.Error()) // strings, times of this millennium and octets always encode
	}
	return append(b, '\n')
}

// unhex is nil for what is not lower-case hexadecimal.
func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil || hex.EncodeToString(b) != s {
		return nil
	}
	return b
}
