package officer

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/escrow"
)

const (
	stateVersion = 1
	maxState     = 64 << 20
)

// state is state.json. What is in it is public; that nobody changes it is the machine's part.
type state struct {
	Version int         `json:"version"`
	Logs    []*logState `json:"logs"`
	Keys    []*keyState `json:"keys"`
	Cases   []caseState `json:"cases"`
}

// A logState is a log, whom the officer believes about it, and its last checkpoint that he saw.
type logState struct {
	Verifier  string   `json:"verifier"`
	Witnesses []string `json:"witnesses"`
	Origin    string   `json:"origin,omitempty"`
	Size      int64    `json:"size,omitempty"`
	Root      string   `json:"root,omitempty"`
}

// A keyState is an escrow key, its epochs from the first on, and the officer's shares.
type keyState struct {
	Record string        `json:"record"`
	Log    string        `json:"log"`
	Epochs []string      `json:"epochs"`
	Shares []*shareState `json:"shares"`

	key    *escrow.Key
	epochs []*escrow.Epoch
}

// A shareState is a share: where it lies, and what became of it.
type shareState struct {
	Epoch    string     `json:"epoch"` // digest
	File     string     `json:"file"`
	Attested time.Time  `json:"attested"`
	Erased   *time.Time `json:"erased,omitempty"`
}

// A caseState is a decision.
type caseState struct {
	Case     string    `json:"case"` // digest
	Key      string    `json:"key"`
	Approved bool      `json:"approved"`
	Records  int       `json:"records"`
	Time     time.Time `json:"time"`
}

func (d *Desk) save() error {
	b, err := json.MarshalIndent(d.state, "", " ")
	if err != nil {
		return err
	}
	return safefile.Write(filepath.Join(d.dir, stateFile), append(b, '\n'))
}

func (d *Desk) load() error {
	b, err := safefile.ReadSecret(filepath.Join(d.dir, stateFile), maxState)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d.state); err != nil {
		return fmt.Errorf("%s: %w", stateFile, err)
	}
	if _, err := dec.Token(); err != io.EOF || d.state.Version != stateVersion {
		return fmt.Errorf("%s: not of version %d", stateFile, stateVersion)
	}
	for _, k := range d.state.Keys {
		if err := k.parse(); err != nil {
			return fmt.Errorf("%s: %w", stateFile, err)
		}
	}
	return nil
}

func (k *keyState) parse() error {
	b, err := hex.DecodeString(k.Record)
	if err != nil {
		return err
	}
	if k.key, err = escrow.ParseKey(b); err != nil {
		return err
	}
	for _, text := range k.Epochs {
		b, err := hex.DecodeString(text)
		if err != nil {
			return err
		}
		e, err := escrow.ParseEpoch(b)
		if err != nil {
			return err
		}
		k.epochs = append(k.epochs, e)
	}
	return escrow.CheckChain(k.key, k.epochs)
}

// addEpoch appends an epoch that was checked.
func (k *keyState) addEpoch(e *escrow.Epoch) {
	k.Epochs, k.epochs = append(k.Epochs, hex.EncodeToString(e.Octets())), append(k.epochs, e)
}

func (k *keyState) last() *escrow.Epoch { return k.epochs[len(k.epochs)-1] }

func (k *keyState) epoch(d vault.Digest) (*escrow.Epoch, bool) {
	i := slices.IndexFunc(k.epochs, func(e *escrow.Epoch) bool { return e.Digest() == d })
	if i < 0 {
		return nil, false
	}
	return k.epochs[i], true
}

// share finds a share that was not erased.
func (k *keyState) share(epoch vault.Digest) (*shareState, error) {
	want := hexOf(epoch)
	for _, s := range k.Shares {
		if s.Epoch == want && s.Erased == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no share of this epoch here: it was erased, or never accepted")
}

func (d *Desk) key(id vault.Digest) (*keyState, error) {
	for _, k := range d.state.Keys {
		if k.key.ID() == id {
			return k, nil
		}
	}
	return nil, fmt.Errorf("the escrow key %s is not known here: attest to your share first", hexOf(id)[:16])
}

// A KnownKey is a key that the officer knows, with its epochs from the first on.
type KnownKey struct {
	Key    *escrow.Key
	Epochs []*escrow.Epoch
}

// Keys lists the keys that the officer knows.
func (d *Desk) Keys() []KnownKey {
	var list []KnownKey
	for _, k := range d.state.Keys {
		list = append(list, KnownKey{k.key, slices.Clone(k.epochs)})
	}
	return list
}

func (d *Desk) log(verifier string) *logState {
	for _, l := range d.state.Logs {
		if l.Verifier == verifier {
			return l
		}
	}
	return nil
}

func (l *logState) trust() escrow.Trust { return escrow.Trust{Log: l.Verifier, Witnesses: l.Witnesses} }

// checkpoint is the last one seen; the zero value when there is none.
func (l *logState) checkpoint() (escrow.Checkpoint, error) {
	if l.Size == 0 {
		return escrow.Checkpoint{}, nil
	}
	root, err := tlog.ParseHash(l.Root)
	return escrow.Checkpoint{Origin: l.Origin, Size: l.Size, Root: root}, err
}

// saw keeps a checkpoint that is consistent with the last one.
func (l *logState) saw(cp escrow.Checkpoint) {
	l.Origin, l.Size, l.Root = cp.Origin, cp.Size, base64.StdEncoding.EncodeToString(cp.Root[:])
}

// trustLog takes a log and its witnesses, or adds witnesses to a log that is known.
func (d *Desk) trustLog(t escrow.Trust) error {
	if err := t.Check(); err != nil {
		return err
	}
	l := d.log(t.Log)
	if l == nil {
		l = &logState{Verifier: t.Log}
		d.state.Logs = append(d.state.Logs, l)
	}
	for _, w := range t.Witnesses {
		if !slices.Contains(l.Witnesses, w) {
			l.Witnesses = append(l.Witnesses, w)
		}
	}
	return nil
}

func hexOf(d vault.Digest) string { return hex.EncodeToString(d[:]) }
