package message

import (
	"crypto/hpke"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"dimegate/dmtp/signet"
)

// A LayerKey is a private key of the alternate layer. It does not print.
type LayerKey struct {
	suite   *suite
	private func() hpke.PrivateKey // a func: fmt cannot look inside
}

func (LayerKey) Format(s fmt.State, _ rune) { io.WriteString(s, "[secret]") }

// GenerateLayerKey makes a key of a suite. Errors: AltUnknown for a suite that this build has not.
func GenerateLayerKey(id SuiteID) (LayerKey, error) {
	s := id.row()
	if s == nil {
		return LayerKey{}, fail(AltUnknown, 0, "no such suite")
	}
	k, err := s.kem.GenerateKey()
	if err != nil {
		return LayerKey{}, fmt.Errorf("message: layer key: %w", err)
	}
	return LayerKey{s, func() hpke.PrivateKey { return k }}, nil
}

// ParseLayerKey takes the octets that Bytes gave.
func ParseLayerKey(id SuiteID, b []byte) (LayerKey, error) {
	s := id.row()
	if s == nil {
		return LayerKey{}, fail(AltUnknown, 0, "no such suite")
	}
	k, err := s.kem.NewPrivateKey(b)
	if err != nil {
		return LayerKey{}, fail(AltNoKey, 0, "no private key of this suite")
	}
	return LayerKey{s, func() hpke.PrivateKey { return k }}, nil
}

// Suite is the suite that k belongs to; 0 for the zero value.
func (k LayerKey) Suite() SuiteID {
	if k.suite == nil {
		return 0
	}
	return k.suite.id
}

// Bytes is the private key: a secret, which the caller must clear.
func (k LayerKey) Bytes() ([]byte, error) { return k.private().Bytes() }

// What a value of a user signet's field 3 says (dmime.md §17.2).
const (
	advertMagic   = 0xDA
	advertVersion = 1
	advertHeader  = 5
	advertAlways  = 1 // the owner asks that mail to it always be wrapped
	advertCommit  = 2 // the key material is the hash of the key, which is in field 251
)

// Advertise returns what the owner's user signet says of k: the value of a field 3, and with commit, where that is only a hash, the
// field 251 that holds the key. Always asks that no mail come without the layer.
func (k LayerKey) Advertise(always, commit bool) (field3 []byte, key *signet.Field) {
	public := k.private().PublicKey().Bytes()
	flags := byte(0)
	if always {
		flags |= advertAlways
	}
	if commit {
		flags |= advertCommit
		key = &signet.Field{ID: signet.FieldNamed, Name: keyField(k.suite.id), Value: public}
		h := sha512.Sum512(public)
		public = h[:]
	}
	field3 = []byte{advertMagic, advertVersion, byte(k.suite.id >> 8), byte(k.suite.id), flags}
	return append(field3, public...), key
}

// Offer is what a user's signet says of all his keys, in their order: small ones whole, large ones by a commitment, which keeps
// what fingerprints and custody are made over small, and a field 251 (dmime.md §17.2).
func Offer(keys []LayerKey, always bool) (layers [][]byte, fields []signet.Field) {
	for _, k := range keys {
		commit := len(k.private().PublicKey().Bytes()) > sha512.Size
		field3, named := k.Advertise(always, commit)
		layers = append(layers, field3)
		if named != nil {
			fields = append(fields, *named)
		}
	}
	return layers, fields
}

func keyField(id SuiteID) string { return "Alternate-Key-" + id.Digits() }

// PolicyField is the name of the field 251 of an organisational signet that says what its users' agents do (dmime.md §17.2).
const PolicyField = "Alternate-Policy"

// Policy is that field's value for an administrator's word.
func (l Layer) Policy() string {
	var suites []string
	for _, id := range l.Suites {
		suites = append(suites, id.Digits())
	}
	require := "no"
	if l.Mode == LayerRequired {
		require = "yes"
	}
	return "v=1; suites=" + strings.Join(suites, ",") + "; require=" + require
}

// An advert is one field 3 of ours, read. Public is nil where the key is only committed to, or is no key.
type advert struct {
	id     SuiteID
	always bool
	commit bool
	public hpke.PublicKey
}

// adverts reads what a user's signet offers. What is not of our form is somebody else's; a suite that we have not is listed
// without its key, for its owner may demand the layer.
func adverts(s *signet.Signet) (list []advert) {
	if s == nil || s.Kind() != signet.User {
		return nil
	}
	fields := s.Fields()
	for _, f := range fields {
		v := f.Value
		if f.ID != signet.FieldAlternateKey || len(v) < advertHeader || v[0] != advertMagic || v[1] != advertVersion {
			continue
		}
		a := advert{id: SuiteID(binary.BigEndian.Uint16(v[2:])), always: v[4]&advertAlways != 0, commit: v[4]&advertCommit != 0}
		material := v[advertHeader:]
		if a.commit {
			material = committed(fields, a.id, material)
		}
		if row := a.id.row(); row != nil && material != nil {
			if k, err := row.kem.NewPublicKey(material); err == nil {
				a.public = k
			}
		}
		list = append(list, a)
	}
	return list
}

// committed finds the field 251 whose value hashes to a commitment, or nil.
func committed(fields []signet.Field, id SuiteID, hash []byte) []byte {
	for _, f := range fields {
		if f.ID == signet.FieldNamed && f.Name == keyField(id) {
			if h := sha512.Sum512(f.Value); subtle.ConstantTimeCompare(h[:], hash) == 1 {
				return f.Value
			}
		}
	}
	return nil
}

// Offered are the suites that a user signet advertises with a whole key, in its order.
func Offered(s *signet.Signet) (list []SuiteID) {
	for _, a := range adverts(s) {
		if a.public != nil {
			list = append(list, a.id)
		}
	}
	return list
}

// WantsLayer reports whether the owner of a user signet asks that mail to it always lie under the alternate layer.
func WantsLayer(s *signet.Signet) bool {
	for _, a := range adverts(s) {
		if a.always {
			return true
		}
	}
	return false
}

// layerKeyID names a public key in a key box.
func layerKeyID(k hpke.PublicKey) (id [8]byte) {
	h := sha512.Sum512(k.Bytes())
	return [8]byte(h[:])
}
