// Package evidence writes what a case brought to light as a package that proves itself, and checks one with nothing but its
// octets: a BagIt bag (RFC 8493) in a ZIP file, with the messages, the quorum's approvals and the log's proofs.
// docs/evidence.md is its format.
package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

// The files of a package, under its one folder. What is under data/ is BagIt's payload.
const (
	fileBagit      = "bagit.txt"
	fileInfo       = "bag-info.txt"
	fileSignature  = "export.deg1" // statement 9 over the digest of the tag manifest
	fileManifest   = "manifest-"
	fileTags       = "tagmanifest-"
	fileReadme     = "data/README.txt"
	folderAnswers  = "data/answers/"
	fileCustodians = "data/case/custodians.json"
	fileCase       = "data/case/manifest.dem1"
	fileRequest    = "data/case/request.deg1"
	fileCustody    = "data/custody.jsonl"
	folderAttest   = "data/escrow/attest-"
	folderEpoch    = "data/escrow/epoch-"
	fileKey        = "data/escrow/key.dek1"
	fileTranscript = "data/escrow/transcript.txt"
	fileProofs     = "data/log/case.json"
	fileCheckpoint = "data/log/checkpoint.txt"
	fileKeys       = "data/log/keys.txt"
	fileLeaves     = "data/log/leaves.json"
	folderMessages = "data/messages/"
	fileWithheld   = "data/withheld.jsonl"

	nameMessage  = "message.eml"
	nameProof    = "message.json"
	nameExhibits = "exhibits/"
)

// bagit is the bag declaration.
const bagit = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"

// algorithms are those of the manifests, ascending.
var algorithms = []string{"sha256", "sha512"}

// A hexDigest is a digest that shows as hexadecimal digits.
type hexDigest [32]byte

func (d hexDigest) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d[:])), nil }

func (d *hexDigest) UnmarshalText(b []byte) error {
	if len(b) != 2*len(d) {
		return fmt.Errorf("evidence: a digest has %d hexadecimal digits", 2*len(d))
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// A leafProof is a leaf of the log with the proof that it is in the checkpoint's tree.
type leafProof struct {
	Index uint64   `json:"index"`
	Leaf  []byte   `json:"leaf"`
	Proof [][]byte `json:"proof"`
}

func leafProofOf(l discovery.ProvedLeaf) leafProof {
	return leafProof{l.Index, l.Octets, hashes(l.Proof)}
}

func hashes(list []tlog.Hash) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i][:]
	}
	return out
}

// maxProof is how many hashes a proof has at most: a tree's height.
const maxProof = 64

func parseHashes(list [][]byte) ([]tlog.Hash, bool) {
	if len(list) > maxProof {
		return nil, false
	}
	var out []tlog.Hash
	for _, b := range list {
		if len(b) != tlog.HashSize {
			return nil, false
		}
		out = append(out, tlog.Hash(b))
	}
	return out, true
}

// A caseProofs is data/log/case.json: what of a bundle's head has no file of its own.
type caseProofs struct {
	Opened      leafProof     `json:"opened"` // leaf 3
	Consistency []consistency `json:"consistency"`
}

type consistency struct {
	Size  uint64   `json:"size"`
	Proof [][]byte `json:"proof"`
}

// A custodian is what a custodian's id is made of.
type custodian struct {
	ID      string    `json:"id"`
	Salt    hexDigest `json:"salt"`
	Address string    `json:"address"`
}

// A message is message.json: an item, with what the log says of every record that has its octets.
type message struct {
	Number     int       `json:"number"`
	Octets     int64     `json:"octets"`
	Custodians []string  `json:"custodians"`
	Marks      []string  `json:"marks"`
	Records    []record  `json:"records"`
	Exhibits   []exhibit `json:"exhibits"`
}

type record struct {
	Record     vault.ID    `json:"record"`
	Leaf       leafProof   `json:"leaf"`
	Body       hexDigest   `json:"body"`     // SHA-512/256 of the sealed body
	Wraps      []hexDigest `json:"wraps"`    // of all the record's wraps
	DET1       [][]byte    `json:"det1"`     // those that the case names
	Salt       hexDigest   `json:"salt"`     // of the leaf's commitment
	Envelope   []byte      `json:"envelope"` // as stored
	Events     []event     `json:"events"`   // what became of it
	From       string      `json:"from"`     // from here on: the envelope, as the station read it
	Recipients []string    `json:"recipients"`
	Received   time.Time   `json:"received"`
	Source     string      `json:"source"`
	Direction  vault.Kind  `json:"direction"`
}

// An event is a later leaf about a record, with what opens its commitment.
type event struct {
	Leaf    leafProof `json:"leaf"`
	Salt    hexDigest `json:"salt"`
	Payload []byte    `json:"payload"`
}

type exhibit struct {
	Record vault.ID  `json:"record"`
	N      int       `json:"n"`
	Kind   uint8     `json:"kind"`
	Made   time.Time `json:"made"`
	Octets int64     `json:"octets"`
	Sealed hexDigest `json:"sealed"` // SHA-512/256 of the sealed octets, which the leaf names
	Leaf   leafProof `json:"leaf"`
}

// file is the exhibit's name within its message's folder.
func (x exhibit) file() string { return fmt.Sprintf("%s%v-%05d.bin", nameExhibits, x.Record, x.N) }

// A withheld is a line of data/withheld.jsonl: a record of the case that the package does not have.
type withheld struct {
	Leaf   uint64 `json:"leaf"`
	Reason string `json:"reason"`
}

const notOpened = "not opened"

// An Event is a line of the custody record: who did what with the evidence, and when.
type Event struct {
	N        int       `json:"n"` // from 1
	Time     time.Time `json:"time"`
	Who      string    `json:"who"`
	What     string    `json:"what"`
	Leaf     *uint64   `json:"leaf,omitempty"` // of the log, which attests it
	Previous hexDigest `json:"previous"`       // SHA-256 of the line before, with its line feed; zeros in the first
}

func (e Event) same(o Event) bool {
	return e.Time.Equal(o.Time) && e.Who == o.Who && e.What == o.What && (e.Leaf == nil) == (o.Leaf == nil) && (e.Leaf == nil || *e.Leaf == *o.Leaf)
}

// encode is the one form of a JSON document in a package.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// line is the one form of a line of JSON.
func line(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// decode reads a document that encoder wrote and nothing else: unknown or repeated names, other spacing and spare octets make it
// another one.
func decode(b []byte, v any, encoder func(any) ([]byte, error)) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errForm
	}
	again, err := encoder(v)
	if err != nil || !bytes.Equal(again, b) {
		return errForm
	}
	return nil
}

var errForm = fmt.Errorf("is not in the form that the package writes")

// chain numbers events and ties each to the line before.
func chain(events []Event) ([]byte, error) {
	var out bytes.Buffer
	var previous hexDigest
	for i, e := range events {
		e.N, e.Previous, e.Time = i+1, previous, e.Time.UTC().Truncate(time.Second)
		b, err := line(e)
		if err != nil {
			return nil, err
		}
		previous = sha256.Sum256(b)
		out.Write(b)
	}
	return out.Bytes(), nil
}

// documented are the events that the package's own documents attest, in the order in which its custody record has them. What is
// shown of an officer's answer is his; a leaf is the gateway's word, which the log holds it to.
func documented(h *escrow.Bundle, e *escrow.Epoch, answers []*escrow.Statement, leaves []discovery.ProvedLeaf) ([]Event, error) {
	m := h.Manifest
	var list []Event
	list = append(list, Event{Time: h.Request.Time, Who: m.Requester, What: "signed the request for the case"})
	for _, a := range answers {
		o, _ := e.Officer(a.Index)
		list = append(list, Event{Time: a.Time, Who: o.Person, What: fmt.Sprintf("officer %d %v", a.Index, a.Kind)})
	}
	leaves = append(slices.Clone(leaves), discovery.ProvedLeaf{Index: h.CaseIndex, Octets: h.CaseLeaf})
	slices.SortFunc(leaves, func(a, b discovery.ProvedLeaf) int { return compare(a.Index, b.Index) })
	for _, p := range leaves {
		l, err := vault.ParseLeaf(p.Octets)
		if err != nil {
			return nil, err
		}
		list = append(list, Event{Time: l.Time, Who: "gateway", What: "log: " + l.Type.String(), Leaf: &p.Index})
	}
	slices.SortStableFunc(list, func(a, b Event) int { return a.Time.Compare(b.Time) })
	return list, nil
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
