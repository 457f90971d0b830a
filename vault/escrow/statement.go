package escrow

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"dimegate/vault"
)

// A StatementKind is what a statement says.
type StatementKind uint8

const (
	AttestShare   StatementKind = 1 // an officer has his share of an epoch and checked it
	AttestErasure StatementKind = 2 // an officer of the epoch before has erased his share
	Approval      StatementKind = 3 // an officer gives his partials in a case
	Decline       StatementKind = 4 // he does not
	Complaint     StatementKind = 5 // a new officer was dealt a wrong share
	Request       StatementKind = 6 // the requester asks for a case
	DealShares    StatementKind = 7 // an officer deals in a change of officers
	CloseCase     StatementKind = 8 // the requester, at the station: keys and partials are destroyed
	Export        StatementKind = 9 // the requester, at the station: this left it, D("export", …)
)

// statementRules says, a row a kind, what it is called and which fields may be other than zero.
var statementRules = map[StatementKind]struct {
	name        string
	requester   bool // index 0
	extra, tree bool
}{
	AttestShare:   {name: "attests his share"},
	AttestErasure: {name: "attests erasure", extra: true},
	Approval:      {name: "approves", extra: true, tree: true},
	Decline:       {name: "declines", tree: true},
	Complaint:     {name: "complains of a deal", extra: true},
	Request:       {name: "requests", requester: true, tree: true},
	DealShares:    {name: "deals", extra: true},
	CloseCase:     {name: "closes", requester: true, extra: true, tree: true},
	Export:        {name: "exports", requester: true, extra: true, tree: true},
}

func (k StatementKind) String() string {
	if r, ok := statementRules[k]; ok {
		return r.name
	}
	return fmt.Sprintf("statement %d", uint8(k))
}

// A Statement is what a person signed, DEG1.
type Statement struct {
	Kind    StatementKind
	Index   uint16 // of the officer in the epoch concerned; 0 is the requester
	Time    time.Time
	Subject vault.Digest
	Extra   vault.Digest
	Size    uint64 // of the log that he saw last
	Root    [32]byte

	signature [64]byte
}

// StatementSize is the length of every statement.
const StatementSize = 183

const (
	statementMagic  = "DEG1"
	statementSigned = StatementSize - 64
)

func (s *Statement) signed() []byte {
	b := make([]byte, 0, StatementSize)
	b = append(b, statementMagic...)
	b = append(b, byte(s.Kind))
	b = binary.BigEndian.AppendUint16(b, s.Index)
	b = appendTime(b, s.Time)
	b = append(b, s.Subject[:]...)
	b = append(b, s.Extra[:]...)
	b = binary.BigEndian.AppendUint64(b, s.Size)
	return append(b, s.Root[:]...)
}

// Octets is the statement with its signature.
func (s *Statement) Octets() []byte { return append(s.signed(), s.signature[:]...) }

// LeafDigest is D("statement-leaf", octets), as the log's leaves show it.
func (s *Statement) LeafDigest() vault.Digest { return vault.NewDigest("statement-leaf", s.Octets()) }

// Sign signs s in place of what signature it had, and reads it back.
func (s Statement) Sign(k SigningKey) (*Statement, error) {
	d := vault.NewDigest("statement", s.signed())
	copy(s.signature[:], k.sign(d[:]))
	return ParseStatement(s.Octets())
}

// ParseStatement reads a statement. Its signature is not checked: see Verify.
func ParseStatement(b []byte) (*Statement, error) {
	c := cursor{b: b, object: "statement"}
	c.magic(statementMagic)
	s := &Statement{Kind: StatementKind(c.u8()), Index: c.u16(), Time: c.time()}
	c.fixed(s.Subject[:])
	c.fixed(s.Extra[:])
	s.Size = c.u64()
	c.fixed(s.Root[:])
	c.fixed(s.signature[:])
	if why := s.fault(); c.err == nil && why != "" {
		c.fail(ErrDecode, "%s", why)
	}
	if err := c.end(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Statement) fault() string {
	r, ok := statementRules[s.Kind]
	switch {
	case !ok:
		return "unknown kind"
	case r.requester != (s.Index == 0):
		return "the index is not one of who may say this"
	case !r.extra && s.Extra != vault.Digest{}, !r.tree && (s.Size != 0 || s.Root != [32]byte{}):
		return "a field that the kind does not use is not zero"
	}
	return ""
}

// Verify checks the signature.
func (s *Statement) Verify(k PublicKey) error {
	d := vault.NewDigest("statement", s.signed())
	if !k.Verify(d[:], s.signature[:]) {
		return refuse(ErrSignature, "statement", "is not signed by its person's key")
	}
	return nil
}

// VerifyOfficer checks that s was signed by the officer of e that it names, and is of this kind about this subject and extra.
func (s *Statement) VerifyOfficer(e *Epoch, kind StatementKind, subject, extra vault.Digest) error {
	o, ok := e.Officer(s.Index)
	if !ok {
		return refuse(ErrSet, "statement", "%d is no officer's index", s.Index)
	}
	if s.Kind != kind || s.Subject != subject || s.Extra != extra {
		return refuse(ErrSignature, "statement", "officer %d says something else", s.Index)
	}
	return s.Verify(o.Key)
}

// Attested says whether an epoch may be used: every officer attested his share. Statements of other kinds, epochs and of
// strangers are an error, as is one officer twice.
func Attested(e *Epoch, statements []*Statement) error {
	seen := map[uint16]bool{}
	for _, s := range statements {
		if err := s.VerifyOfficer(e, AttestShare, e.digest, vault.Digest{}); err != nil {
			return err
		}
		if seen[s.Index] {
			return refuse(ErrSignature, "statement", "officer %d attests twice", s.Index)
		}
		seen[s.Index] = true
	}
	if missing := len(e.Officers) - len(seen); missing > 0 {
		return refuse(ErrQuorum, "epoch", "%d of %d officers have not attested their share", missing, len(e.Officers))
	}
	return nil
}

// AttestationsDigest is the payload of the log's leaf that brings an epoch into force: D("statement-leaf", all statements by index).
func AttestationsDigest(statements []*Statement) vault.Digest {
	list := slices.SortedFunc(slices.Values(statements), func(a, b *Statement) int { return int(a.Index) - int(b.Index) })
	var all bytes.Buffer
	for _, s := range list {
		all.Write(s.Octets())
	}
	return vault.NewDigest("statement-leaf", all.Bytes())
}
