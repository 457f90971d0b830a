// Package discovery is a case: what may be asked before a quorum, the case file that goes from the gateway to the discovery
// station, and the station, where what a quorum opened is searched, marked and exported. It opens nothing on the gateway.
package discovery

import (
	"context"
	"io"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
	"dimegate/vault/escrow"
)

// An Envelope is one way in which the octets of an item crossed: a record of the archive, or a report of a journal about one.
type Envelope struct {
	Record     vault.ID   `json:"record"`
	Leaf       uint64     `json:"leaf"` // the record's intake
	Direction  vault.Kind `json:"direction"`
	Class      uint16     `json:"class"`
	From       string     `json:"from"`       // reverse-path; empty for <>
	Recipients []string   `json:"recipients"` // all of them, Bcc too, as given
	Received   time.Time  `json:"received"`
	Source     string     `json:"source"` // "smtp", "dmtp", "journal"
}

// An Item is one content of a case: records whose octets are equal are one item with the envelopes of all.
type Item struct {
	Number     int          `json:"number"` // from 1, in the order of the log
	Record     vault.ID     `json:"record"` // the first of its records, with the next three
	Leaf       uint64       `json:"leaf"`
	Direction  vault.Kind   `json:"direction"`
	Class      uint16       `json:"class"`
	Custodians []string     `json:"custodians"` // by whose wraps it is in the case; of all records, sorted
	Octets     int64        `json:"octets"`
	Content    vault.Digest `json:"-"`         // D("octets", octets)
	Envelopes  []Envelope   `json:"envelopes"` // of all records, by leaf
	Marks      []string     `json:"marks"`     // see MarkPrivilege and the others; sorted
}

// The marks that mean something to the product; others are the case's own words.
const (
	MarkPrivilege = "privilege" // withheld: listed in an export, not in it
	MarkRedaction = "redaction" // to be redacted: withheld likewise, by another's tool
	MarkRelevant  = "relevant"
)

// Withheld tells whether an item is not to leave the station.
func (i Item) Withheld() bool {
	for _, m := range i.Marks {
		if m == MarkPrivilege || m == MarkRedaction {
			return true
		}
	}
	return false
}

// An ExhibitKind says what an exhibit is.
type ExhibitKind uint8

// The exhibits of a record.
const (
	ExhibitObject   ExhibitKind = 1 // the D/MIME object as sent or received, one a recipient
	ExhibitDecision ExhibitKind = 2
	ExhibitSignets  ExhibitKind = 3 // as seen
	ExhibitDNS      ExhibitKind = 4 // as seen
)

// An Exhibit belongs to a record of an item beside octets and envelope.
type Exhibit struct {
	Record vault.ID     `json:"record"`
	N      int          `json:"n"` // of the record, from 0
	Kind   ExhibitKind  `json:"kind"`
	Made   time.Time    `json:"made"`
	Digest vault.Digest `json:"-"` // SHA-512/256 of the sealed octets: its leaf's public is D("exhibit", kind u8 ‖ digest)
	Leaf   ProvedLeaf   `json:"-"`
}

// A ProvedLeaf is a leaf of the log with the proof that it is in the tree of the case record's checkpoint.
type ProvedLeaf struct {
	Index  uint64      `json:"index"`
	Octets []byte      `json:"octets"`
	Proof  []tlog.Hash `json:"proof"`
}

// An Event is a later leaf about a record, of a decision or an outcome, with what it commits to: D("leaf", Salt ‖ type ‖ Payload).
type Event struct {
	Leaf    ProvedLeaf
	Salt    [32]byte
	Payload []byte
}

// An Intake is what the log says of one record of an item, and what opens it: the leaf's public digest is
// vault.IntakePublic(Body, Wraps), its commitment D("leaf", Salt ‖ 1 ‖ D("octets", octets) ‖ D("envelope", Envelope)).
type Intake struct {
	Record   vault.ID
	Leaf     ProvedLeaf
	Body     vault.Digest // SHA-512/256 of the sealed body
	Wraps    []vault.Digest
	Named    [][]byte // DET1, those that the case names, in its order
	Salt     [32]byte
	Envelope []byte // as stored
	Events   []Event
}

// A CaseRecord is what proves how a case came to be open.
type CaseRecord struct {
	Head         escrow.Bundle // under the note that all proofs of the station stand on; with the manifest and the request
	Key          *escrow.Key
	Epochs       []*escrow.Epoch
	Attestations []*escrow.Statement // of the last epoch
	Answers      []*escrow.Statement // of officers, as relayed
	Leaves       []ProvedLeaf        // of the case's answers and relayed partials
	LogKey       string              // verifier key of the log
}

// A Source gives what a station opened to exports, evidence and the mailbox. Safe for concurrent use.
type Source interface {
	// Items are all, by number; not to be changed.
	Items() []Item
	// Open gives an item's exact octets, of which all were compared with the log when the case was opened.
	Open(ctx context.Context, number int) (io.ReadCloser, error)
	// Exhibits lists those of all records of an item.
	Exhibits(ctx context.Context, number int) ([]Exhibit, error)
	OpenExhibit(ctx context.Context, x Exhibit) (io.ReadCloser, error)
	// Intakes is what the log says of each record of an item.
	Intakes(ctx context.Context, number int) ([]Intake, error)
	// Case is the same for every item; not to be changed.
	Case() *CaseRecord
}
