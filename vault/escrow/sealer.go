package escrow

import (
	"slices"

	"dimegate/vault"
)

// A Sealer is the gateway's part: it seals keys to one escrow key. It exists only for a key whose epoch every officer has
// attested. Safe for concurrent use.
type Sealer struct {
	key   *Key
	epoch *Epoch
}

// NewSealer takes a key, its epochs from the first to the current one, and the attestations of the current one.
func NewSealer(k *Key, epochs []*Epoch, attestations []*Statement) (*Sealer, error) {
	if err := CheckChain(k, epochs); err != nil {
		return nil, err
	}
	e := epochs[len(epochs)-1]
	if err := Attested(e, attestations); err != nil {
		return nil, err
	}
	return &Sealer{k, e}, nil
}

// CheckChain says whether epochs are those of k, from the first on without a gap.
func CheckChain(k *Key, epochs []*Epoch) error {
	if len(epochs) == 0 {
		return refuse(ErrEpoch, "epoch", "none is known")
	}
	var previous *Epoch
	for _, e := range epochs {
		if err := e.Check(k, previous); err != nil {
			return err
		}
		previous = e
	}
	return nil
}

// Key is the key that is sealed to.
func (s *Sealer) Key() *Key { return s.key }

// Epoch is the current epoch.
func (s *Sealer) Epoch() *Epoch { return s.epoch }

// Seal seals a record's key, or a user's, under a label. Suite, kind and key of the label are set here. The wrap has passed the
// checks of an officer's tool: a fault of memory must not make mail unopenable.
func (s *Sealer) Seal(key vault.Secret, l Label) (*Wrap, error) {
	w, err := sealTo(s.key, key, l, system)
	if err != nil {
		return nil, err
	}
	if w, err = ParseWrap(w.octets); err != nil {
		return nil, err
	}
	return w, w.Check(s.key)
}

// A SealedKey is what is stored and attested of one custodian's way to a record.
type SealedKey struct {
	Outer  []byte       // DEW1, to be stored
	Digest vault.Digest // of the wrap, for the intake leaf: vault.IntakePublic
}

// SealRecord is Seal, and the shred key around it.
func (s *Sealer) SealRecord(key vault.Secret, l Label, shred ShredKey) (SealedKey, error) {
	w, err := s.Seal(key, l)
	if err != nil {
		return SealedKey{}, err
	}
	outer, err := shred.Wrap(w)
	if err != nil {
		return SealedKey{}, err
	}
	return SealedKey{outer, w.digest}, nil
}

// CheckWraps checks wraps by many at once, as an officer's tool will, and returns the places of those that do not hold: what is damaged
// must not go into a case, since one entry fails it whole.
func CheckWraps(k *Key, wraps []*Wrap) []int {
	var bad, places []int
	var sound []*Wrap
	for i, w := range wraps {
		if w.checkLabel(k) != nil {
			bad = append(bad, i)
			continue
		}
		sound, places = append(sound, w), append(places, i)
	}
	for n := 0; n < len(sound); n += batchSize {
		for _, i := range checkWraps(k, sound[n:min(n+batchSize, len(sound))]) {
			bad = append(bad, places[n+i])
		}
	}
	slices.Sort(bad)
	return bad
}
