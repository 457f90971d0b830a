package escrow

import (
	"strings"
	"time"

	"github.com/cloudflare/circl/group"

	"dimegate/vault"
)

// A Key is the public half of an escrow key, with what it is for. It never changes; its officers do, see Epoch. Safe for
// concurrent use.
type Key struct {
	Purpose      Purpose
	Created      time.Time
	Organisation string // lower-case domain

	suite   *suite
	h, gbar group.Element
	id      vault.Digest
	octets  []byte
}

const keyMagic = "DEK1"

// newKey makes the record of a public value. Created is cut to seconds.
func newKey(s *suite, p Purpose, created time.Time, organisation string, h group.Element) *Key {
	b := append([]byte(keyMagic), byte(s.id), byte(p))
	b = appendTime(b, created)
	b = appendStr8(b, organisation)
	b = append(b, s.encode(h)...)
	k, err := ParseKey(b)
	if err != nil {
		panic(err) // its makers have checked every part
	}
	return k
}

// ParseKey reads a key record, DEK1.
func ParseKey(b []byte) (*Key, error) {
	c := cursor{b: b, object: "key record"}
	c.magic(keyMagic)
	k := &Key{suite: c.suite(), Purpose: c.purpose(), Created: c.time(), Organisation: c.str8()}
	if c.err == nil && !validDomain(k.Organisation) {
		c.fail(ErrDecode, "the organisation is no lower-case domain")
	}
	k.h = c.point(k.suite)
	if err := c.end(); err != nil {
		return nil, err
	}
	k.octets = append([]byte(nil), b...)
	k.id = vault.NewDigest("key-id", b)
	k.gbar = k.suite.secondGenerator(k.h)
	return k, nil
}

// ID names the key for its life.
func (k *Key) ID() vault.Digest { return k.id }

// Suite is the suite that everything under the key has.
func (k *Key) Suite() Suite { return k.suite.id }

// Octets is the record; not to be changed.
func (k *Key) Octets() []byte { return k.octets }

// validDomain accepts what can stand for an organisation: letters, digits, hyphens and dots, in lower case.
func validDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}
