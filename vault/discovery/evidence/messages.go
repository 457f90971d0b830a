package evidence

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

// messages checks every message: its octets and envelopes against the log, its records against the case.
func (v *verification) messages() error {
	v.report.Messages = []Message{}
	for _, name := range v.c.under(folderMessages) {
		folder, ok := strings.CutSuffix(name, "/"+nameProof)
		if !ok {
			continue
		}
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if err := v.message(folder + "/"); err != nil {
			return err
		}
	}
	return v.proofs()
}

func (v *verification) message(folder string) error {
	var m message
	name := folder + nameProof
	if err := v.document(name, &m); err != nil {
		return err
	}
	octets, there := v.octets[folder+nameMessage]
	if !there {
		return fault(folder+nameMessage, "is not there")
	}
	v.known[folder+nameMessage] = true
	if folder != fmt.Sprintf("%s%07d/", folderMessages, m.Number) || m.Octets != int64(v.c.files[folder+nameMessage].UncompressedSize64) || len(m.Records) == 0 {
		return fault(name, "is another message's")
	}
	out := Message{Number: m.Number, File: folder + nameMessage, Octets: m.Octets, SHA256: v.hashes[folder+nameMessage], Marks: m.Marks, Exhibits: len(m.Exhibits), Records: []Record{}}
	ids := map[vault.ID]bool{}
	for _, r := range m.Records {
		rec, err := v.record(folder, r, octets)
		if err != nil {
			return err
		}
		ids[r.Record] = true
		out.Records = append(out.Records, rec)
	}
	for _, x := range m.Exhibits {
		if err := v.exhibit(folder, x, ids); err != nil {
			return err
		}
	}
	v.report.Messages = append(v.report.Messages, out)
	return nil
}

// record checks one acceptance of a message.
func (v *verification) record(folder string, r record, octets vault.Digest) (Record, error) {
	name := folder + nameProof
	p, err := v.proved(name, r.Leaf)
	if err != nil {
		return Record{}, err
	}
	if by := v.told[p.Index]; by != "" {
		return Record{}, fault(name, "has the leaf of %s (leaf %d)", by, p.Index)
	}
	v.told[p.Index] = name
	leaf, err := v.inLog(name, p)
	if err != nil {
		return Record{}, err
	}
	if leaf.Type != vault.LeafIntake || leaf.Subject != r.Record {
		return Record{}, fault(name, "has the leaf of another record, or no intake's (leaf %d)", p.Index)
	}
	out := Record{Record: r.Record, Leaf: p.Index, Logged: leaf.Time, From: r.From, Recipients: r.Recipients, Source: r.Source}
	if err := v.wrapsOf(name, p, r, &out); err != nil {
		return Record{}, err
	}
	envelope := vault.NewDigest("envelope", r.Envelope)
	opening := vault.Opening{Salt: r.Salt, Payload: slices.Concat(octets[:], envelope[:])}
	if opening.Commit(vault.LeafIntake) != leaf.Commitment {
		return Record{}, fault(folder+nameMessage, "or its envelope in %s is not what the gateway entered in its log (leaf %d)", nameProof, p.Index)
	}
	for _, e := range r.Events {
		if err := v.event(name, e, r.Record); err != nil {
			return Record{}, err
		}
	}
	out.Events = len(r.Events)
	return out, nil
}

// event checks a later leaf about a record, and that what is shown of it is what it commits to.
func (v *verification) event(name string, e event, id vault.ID) error {
	p, err := v.proved(name, e.Leaf)
	if err != nil {
		return err
	}
	leaf, err := v.inLog(name, p)
	if err != nil {
		return err
	}
	if leaf.Subject != id && !bytes.Equal(leaf.Public[:len(id)], id[:]) { // a queue row's has its record in public
		return fault(name, "has a leaf of another record (leaf %d)", p.Index)
	}
	if (vault.Opening{Salt: e.Salt, Payload: e.Payload}).Commit(leaf.Type) != leaf.Commitment {
		return fault(name, "says of leaf %d what the log does not", p.Index)
	}
	return nil
}

// wrapsOf checks the wraps that the case names: that the log attests the record with them, and that they are inside the case.
func (v *verification) wrapsOf(name string, p discovery.ProvedLeaf, r record, out *Record) error {
	e := escrow.BundleEntry{Leaf: p.Octets, Proof: p.Proof}
	for _, w := range r.Wraps {
		e.Wraps = append(e.Wraps, vault.Digest(w))
	}
	if len(r.DET1) == 0 || len(r.DET1) > len(r.Wraps) {
		return fault(name, "has no wrap that the case names (leaf %d)", p.Index)
	}
	for i, octets := range r.DET1 {
		if i > 0 && bytes.Compare(r.DET1[i-1], octets) >= 0 {
			return fault(name, "has wraps twice or not in order (leaf %d)", p.Index)
		}
		n, ok := v.m.Find(p.Index, vault.NewDigest("wrap", octets))
		if !ok {
			return fault(name, "has a wrap that the case does not name (leaf %d)", p.Index)
		}
		e.Wrap = octets
		w, err := v.reviewer.CheckEntry(v.m, n, &e, v.checkpoint)
		if err != nil {
			return bad(name, fmt.Sprintf("does not prove its record (leaf %d)", p.Index), err)
		}
		if w.Label.Body != vault.Digest(r.Body) {
			return fault(name, "names another sealed body than its wrap (leaf %d)", p.Index)
		}
		out.Class, out.Month = w.Label.Class, w.Label.Month.String()
		out.Custodians = append(out.Custodians, v.names[w.Label.Custodian])
		v.wraps, v.wrapFiles = append(v.wraps, w), append(v.wrapFiles, name)
		v.report.Entries++
		if len(v.wraps) == escrow.MaxBatch {
			if err := v.proofs(); err != nil {
				return err
			}
		}
	}
	return nil
}

// proofs checks the wraps' own proofs, in batches.
func (v *verification) proofs() error {
	if bad := escrow.CheckWraps(v.key, v.wraps); len(bad) > 0 {
		return fault(v.wrapFiles[bad[0]], "has a wrap that was changed, or was not sealed under its label")
	}
	v.wraps, v.wrapFiles = v.wraps[:0], v.wrapFiles[:0]
	return nil
}

// exhibit checks that the log attests a sealed exhibit of one of the message's records.
func (v *verification) exhibit(folder string, x exhibit, records map[vault.ID]bool) error {
	name, file := folder+nameProof, folder+x.file()
	if v.c.files[file] == nil || v.known[file] || int64(v.c.files[file].UncompressedSize64) != x.Octets {
		return fault(file, "is not there, or is not what %s lists", nameProof)
	}
	v.known[file] = true
	p, err := v.proved(name, x.Leaf)
	if err != nil {
		return err
	}
	leaf, err := v.inLog(name, p)
	if err != nil {
		return err
	}
	if !records[x.Record] || leaf.Type != leafExhibit || leaf.Subject != x.Record || leaf.Public != vault.NewDigest("exhibit", []byte{x.Kind}, x.Sealed[:]) {
		return fault(file, "is not the exhibit that leaf %d attests", p.Index)
	}
	return nil
}

// leafExhibit attests an exhibit of a record.
const leafExhibit = vault.LeafType(25)

// withheld reads what the case names and the package does not have.
func (v *verification) withheld() error {
	v.report.Withheld = []Withheld{}
	b, err := v.take(fileWithheld, maxDocument)
	if err != nil {
		return err
	}
	last, n := uint64(0), 0
	for text := range bytes.Lines(b) {
		n++
		var w withheld
		if err := decode(text, &w, line); err != nil {
			return bad(fileWithheld, fmt.Sprintf("has no record in line %d", n), err)
		}
		if n > 1 && w.Leaf <= last || w.Reason == "" || v.told[w.Leaf] != "" {
			return fault(fileWithheld, "has a leaf twice, not in order, without a reason, or one of a message (line %d)", n)
		}
		last = w.Leaf
		v.told[w.Leaf] = fileWithheld
		v.report.Withheld = append(v.report.Withheld, Withheld(w))
	}
	return nil
}

// complete finds records of the case that nothing tells of, and what the case does not name.
func (v *verification) complete() error {
	named := map[uint64]bool{}
	for _, e := range v.m.Entries {
		named[e.Leaf] = true
		if v.told[e.Leaf] == "" {
			return fault(strings.TrimSuffix(folderMessages, "/"), "lacks a message: the case names leaf %d, and %s does not say why it is not there", e.Leaf, fileWithheld)
		}
	}
	for leaf, by := range v.told {
		if !named[leaf] {
			return fault(by, "tells of leaf %d, which the case does not name", leaf)
		}
	}
	return nil
}

// A Report is what a package proves.
type Report struct {
	Case         string    `json:"case"`
	Organisation string    `json:"organisation"`
	Requester    string    `json:"requester"`
	Basis        string    `json:"basis"`
	Opened       time.Time `json:"opened"`
	Expires      time.Time `json:"expires"`
	Exported     time.Time `json:"exported"`

	Origin   string     `json:"log"`
	Size     int64      `json:"size"` // leaves under the checkpoint
	Root     string     `json:"root"`
	Cosigned []Cosigned `json:"cosigned"`

	Quorum   int       `json:"quorum"`
	Officers []Officer `json:"officers"`

	Messages []Message  `json:"messages"`
	Entries  int        `json:"entries"` // wraps of the case that are in the package, checked
	Withheld []Withheld `json:"withheld"`
	Events   int        `json:"events"` // of the custody record

	Trust []string `json:"trust"` // what all of it starts from, as lines of a trust file
}

// Cosigned is a witness's word that it saw the log in this state.
type Cosigned struct {
	Witness string    `json:"witness"`
	Time    time.Time `json:"time"` // by the witness's clock
}

// An Officer is one of the epoch, with what he answered.
type Officer struct {
	Index       uint16     `json:"index"`
	Person      string     `json:"person"`
	Fingerprint string     `json:"fingerprint"`
	Answer      string     `json:"answer,omitempty"`
	Time        *time.Time `json:"time,omitempty"`
}

// A Message is one that was proved to be what the gateway logged.
type Message struct {
	Number   int      `json:"number"`
	File     string   `json:"file"`
	Octets   int64    `json:"octets"`
	SHA256   string   `json:"sha256"`
	Marks    []string `json:"marks"`
	Records  []Record `json:"records"`
	Exhibits int      `json:"exhibits"`
}

// A Record is one acceptance of a message. Custodians, class and month are proved; the envelope is proved as it is stored, and shown
// as the station read it.
type Record struct {
	Record     vault.ID  `json:"record"`
	Leaf       uint64    `json:"leaf"`
	Logged     time.Time `json:"logged"` // by the gateway's clock; not later than any cosignature
	Custodians []string  `json:"custodians"`
	Class      uint16    `json:"class"`
	Month      string    `json:"month"`
	From       string    `json:"from"`
	Recipients []string  `json:"recipients"`
	Source     string    `json:"source"`
	Events     int       `json:"events"` // later leaves: decisions, outcomes
}

// Withheld is a record of the case that the package does not have.
type Withheld struct {
	Leaf   uint64 `json:"leaf"`
	Reason string `json:"reason"`
}

// reportHead fills in what is known of the case.
func (v *verification) reportHead() error {
	r := &v.report
	r.Case, r.Organisation, r.Requester, r.Basis = v.m.Case.String(), v.key.Organisation, v.m.Requester, v.m.Basis
	r.Opened, r.Expires = v.m.Opened, v.m.Expires
	r.Origin, r.Size, r.Root = v.checkpoint.Origin, v.checkpoint.Size, v.checkpoint.Root.String()
	r.Quorum = v.epoch().Quorum
	var err error
	r.Cosigned, err = cosigned(v.headOf.Note, v.reviewer.Trust.Witnesses)
	return err
}

// reportOfficers lists the epoch's officers with their answers.
func (v *verification) reportOfficers() {
	for _, o := range v.epoch().Officers {
		out := Officer{Index: o.Index, Person: o.Person, Fingerprint: o.Fingerprint()}
		for _, a := range v.answers {
			if a.Index == o.Index {
				out.Answer, out.Time = a.Kind.String(), &a.Time
			}
		}
		v.report.Officers = append(v.report.Officers, out)
	}
}
