package escrow

import (
	"encoding/binary"
	"strings"

	"dimegate/vault"
)

// A Custodian names a mailbox to whoever is given its salt and address, and to nobody else.
type Custodian [16]byte

// CustodianOf is the first 16 octets of D("custodian", salt ‖ address in lower case).
func CustodianOf(salt [32]byte, address string) Custodian {
	d := vault.NewDigest("custodian", salt[:], []byte(strings.ToLower(address)))
	return Custodian(d[:16])
}

// A Label says what a sealed key opens; nothing of it can be changed without the seal's proof failing.
type Label struct {
	Suite     Suite
	Kind      Purpose // Discovery: a record key. Continuity: a user's encryption key
	Class     uint16  // retention class, as stamped at intake
	Month     Month   // of intake
	Archive   vault.ID
	Record    vault.ID // of the message; of the user's key
	Custodian Custodian
	Key       vault.Digest // id of the escrow key
	Body      vault.Digest // SHA-512/256 of the sealed body as stored; of the sealed private key
}

// LabelSize is the length of every label.
const LabelSize = 122

const labelMagic = "DEL1"

// Octets is the one encoding.
func (l Label) Octets() []byte {
	b := make([]byte, 0, LabelSize)
	b = append(b, labelMagic...)
	b = append(b, byte(l.Suite), byte(l.Kind))
	b = binary.BigEndian.AppendUint16(b, l.Class)
	b = binary.BigEndian.AppendUint16(b, uint16(l.Month))
	b = append(b, l.Archive[:]...)
	b = append(b, l.Record[:]...)
	b = append(b, l.Custodian[:]...)
	b = append(b, l.Key[:]...)
	return append(b, l.Body[:]...)
}

// ParseLabel is the inverse of Octets.
func ParseLabel(b []byte) (Label, error) {
	c := cursor{b: b, object: "label"}
	l := c.label()
	if err := c.end(); err != nil {
		return Label{}, err
	}
	return l, nil
}

func (c *cursor) label() Label {
	c.magic(labelMagic)
	l := Label{Suite: c.suite().id, Kind: c.purpose(), Class: c.u16(), Month: Month(c.u16())}
	c.fixed(l.Archive[:])
	c.fixed(l.Record[:])
	c.fixed(l.Custodian[:])
	c.fixed(l.Key[:])
	c.fixed(l.Body[:])
	return l
}
