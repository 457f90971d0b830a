package trustful

import (
	"context"
	"errors"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
)

// Errors of a Store.
var (
	// ErrNoKeys is returned for an address that has no keys, or for a key that was destroyed.
	ErrNoKeys = errors.New("trustful: no such keys")
	// ErrConflict is returned when a generation of that number is there already: someone else was first.
	ErrConflict = errors.New("trustful: the keys were changed by someone else")
)

// A Generation is one step in the life of an address: a signet and the keys behind it. The first has Number 1; each
// later one continues the chain of custody.
type Generation struct {
	Number    int
	Signet    []byte    // the binary signet in ID form; it does not change any more
	Made      time.Time // when it was published
	Retired   time.Time // when the next one took its place; zero while it is the current one
	Destroyed time.Time // when its encryption key was destroyed; zero before
	Held      bool      // the private keys are the user's own and were never here
}

// Current reports whether g is what new mail is sealed to.
func (g *Generation) Current() bool { return g.Retired.IsZero() }

// Keys are the private keys of a generation: the two that every signet has, and those of the alternate layer.
type Keys struct {
	key.Pair
	Layers []message.LayerKey
}

// A Store keeps the users' keys: sealed at rest, signing keys under the signing seal, all others under the host
// seal, each bound to its address and number so that rows cannot be exchanged. Addresses are in the form of Normal.
// Every change is one durable commit, with its leaf in the log. It is safe for concurrent use, by several processes too.
type Store interface {
	// Generations returns every generation of an address, the oldest first, without keys; none is no error. ErrDisabled.
	Generations(ctx context.Context, address string) ([]Generation, error)

	// Append adds g, with keys unless g is Held, and retires generation g.Number-1 at g.Made and destroys its signing key, which has signed the
	// custody of g and has nothing left to sign. ErrConflict unless g.Number is one more than the address has.
	Append(ctx context.Context, address string, g Generation, keys Keys) error

	// Vouched notes that the signing key of the current generation signs the custody of a request. ErrNoKeys unless that is number.
	Vouched(ctx context.Context, address string, number int, request []byte, at time.Time) error

	// Signing returns the signing key of the current generation; ErrNoKeys unless that is number. The caller destroys it.
	Signing(ctx context.Context, address string, number int) (key.Signing, error)

	// Encryption returns the encryption key of a generation, ErrNoKeys when there is none any more. The caller destroys it.
	Encryption(ctx context.Context, address string, number int) (key.Encryption, error)

	// Layers returns the alternate layer's keys of a generation, none where it has none. ErrNoKeys as with Encryption.
	Layers(ctx context.Context, address string, number int) ([]message.LayerKey, error)

	// Aged returns at most n addresses after the one given, in order, whose current generation was made before a moment, or
	// has no key of the alternate layer and was made before bareBefore.
	Aged(ctx context.Context, madeBefore, bareBefore time.Time, after string, n int) ([]string, error)

	// DestroyEncryption destroys the encryption keys, and those of the alternate layer, of the generations that were retired before a moment, so that no
	// copy is left in the store, and returns how many there were.
	DestroyEncryption(ctx context.Context, retiredBefore time.Time) (int, error)
}
