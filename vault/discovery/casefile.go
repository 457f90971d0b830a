package discovery

import (
	"archive/zip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"dimegate/vault"
	"dimegate/vault/escrow"
)

// A case file is what the gateway gives a discovery station: a ZIP file whose members are stored as they are, everything about
// mail in it sealed still. docs/formats.md lists the members.
const (
	caseInfo        = "case.json"
	caseBundle      = "case.deb1"
	caseKeyRecord   = "key.dek1"
	caseLeaves      = "leaves.json"
	caseEpoch       = "epochs/"
	caseAttestation = "attestations/"
	caseAnswer      = "answers/"
	caseRecord      = "records/"

	caseFileFormat = "dimegate-case-file-v1"
)

// Bounds of what is read of a case file into memory.
const (
	maxSmall    = 1 << 20
	maxLeaves   = 64 << 20
	maxHeader   = 64 << 20
	maxEnvelope = 64 << 20
)

type caseFileInfo struct {
	Format string    `json:"format"`
	Case   vault.ID  `json:"case"`
	LogKey string    `json:"log_key"`
	Made   time.Time `json:"made"`
}

// A SealedRecord is a record of a case as it rests on the gateway.
type SealedRecord struct {
	RecordInfo
	Body     io.Reader // of BodyOctets
	Envelope []byte
	Exhibits []io.Reader // as RecordInfo.Exhibits
}

// A RecordInfo is what is said of a record in a case file before its sealed parts.
type RecordInfo struct {
	Record         vault.ID        `json:"record"`
	Direction      vault.Kind      `json:"direction"`
	Made           time.Time       `json:"made"`
	Octets         int64           `json:"octets"` // of the message
	EnvelopeOctets int             `json:"envelope"`
	BodyOctets     int64           `json:"body"`
	Exhibits       []SealedExhibit `json:"exhibits"`
	Events         []SealedEvent   `json:"events"`
	Chain          []SealedEvent   `json:"chain,omitempty"` // of a record that was sealed anew to another key: its intake's leaf, and each leaf 2 with its opening, which is not sealed
}

// A SealedExhibit is an exhibit in a case file.
type SealedExhibit struct {
	N      int         `json:"n"`
	Kind   ExhibitKind `json:"kind"`
	Made   time.Time   `json:"made"`
	Octets int64       `json:"octets"` // as it rests
	Leaf   ProvedLeaf  `json:"leaf"`
}

// A SealedEvent is a later leaf about a record, with the sealed opening of what it commits to.
type SealedEvent struct {
	Leaf    ProvedLeaf `json:"leaf"`
	Opening []byte     `json:"opening"`
}

// A CaseFileWriter writes a case file, part by part in the order of its methods.
type CaseFileWriter struct {
	z    *zip.Writer
	made time.Time
}

// NewCaseFile begins a case file.
func NewCaseFile(w io.Writer, id vault.ID, logKey string, now time.Time) (*CaseFileWriter, error) {
	c := &CaseFileWriter{zip.NewWriter(w), now}
	b, err := json.Marshal(caseFileInfo{caseFileFormat, id, logKey, now.UTC().Truncate(time.Second)})
	if err != nil {
		return nil, err
	}
	return c, c.Put(caseInfo, b)
}

// Create begins a member; it ends with the next one.
func (c *CaseFileWriter) create(name string) (io.Writer, error) {
	return c.z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store, Modified: c.made})
}

// Put writes a member.
func (c *CaseFileWriter) Put(name string, octets []byte) error {
	w, err := c.create(name)
	if err == nil {
		_, err = w.Write(octets)
	}
	return err
}

// Key writes the escrow key with its epochs and the attestations of the last one.
func (c *CaseFileWriter) Key(k *escrow.Key, epochs []*escrow.Epoch, attestations []*escrow.Statement) error {
	err := c.Put(caseKeyRecord, k.Octets())
	for _, e := range epochs {
		err = errors.Join(err, c.Put(fmt.Sprintf("%s%d.dee1", caseEpoch, e.Number), e.Octets()))
	}
	for _, s := range attestations {
		err = errors.Join(err, c.Put(fmt.Sprintf("%s%d.deg1", caseAttestation, s.Index), s.Octets()))
	}
	return err
}

// Bundle writes the case with what the log says, through write.
func (c *CaseFileWriter) Bundle(write func(io.Writer) error) error {
	w, err := c.create(caseBundle)
	if err == nil {
		err = write(w)
	}
	return err
}

// Leaves writes the leaves of the officers' answers.
func (c *CaseFileWriter) Leaves(list []ProvedLeaf) error {
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return c.Put(caseLeaves, b)
}

// Answer writes an officer's answer.
func (c *CaseFileWriter) Answer(index uint16, r io.Reader) error {
	w, err := c.create(fmt.Sprintf("%s%d", caseAnswer, index))
	if err == nil {
		_, err = io.Copy(w, r)
	}
	return err
}

// Record writes a record. Its body must have the octets that it says.
func (c *CaseFileWriter) Record(r SealedRecord) error {
	head, err := json.Marshal(r.RecordInfo)
	if err != nil {
		return err
	}
	w, err := c.create(caseRecord + r.Record.String())
	if err != nil {
		return err
	}
	head = append(binary.BigEndian.AppendUint32(nil, uint32(len(head))), head...)
	if _, err := w.Write(append(head, r.Envelope...)); err != nil {
		return err
	}
	if n, err := io.Copy(w, r.Body); err != nil {
		return err
	} else if n != r.BodyOctets {
		return fmt.Errorf("discovery: record %v: %w: its body has %d octets, not %d", r.Record, vault.ErrCorrupt, n, r.BodyOctets)
	}
	for i, x := range r.Exhibits {
		if n, err := io.Copy(w, x); err != nil {
			return err
		} else if n != r.RecordInfo.Exhibits[i].Octets {
			return fmt.Errorf("discovery: record %v: %w: exhibit %d", r.Record, vault.ErrCorrupt, i)
		}
	}
	return nil
}

// Close ends the file.
func (c *CaseFileWriter) Close() error { return c.z.Close() }

// A CaseFile is a case file that is read. Safe for concurrent use.
type CaseFile struct {
	Case         vault.ID
	LogKey       string
	Key          *escrow.Key
	Epochs       []*escrow.Epoch
	Attestations []*escrow.Statement
	Leaves       []ProvedLeaf

	f       *os.File
	members map[string]*zip.File
	answers []string
}

// OpenCaseFile reads what is small in a case file. Nothing of it is checked but its form.
func OpenCaseFile(path string) (*CaseFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	c := &CaseFile{f: f, members: map[string]*zip.File{}}
	if err := c.load(); err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

func (c *CaseFile) load() error {
	st, err := c.f.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(c.f, st.Size())
	if err != nil {
		return errors.New("discovery: not a case file, or cut short: have the gateway write it again")
	}
	for _, m := range z.File {
		if m.Method != zip.Store || c.members[m.Name] != nil {
			return fmt.Errorf("discovery: not a case file: its member %q is compressed, or there twice", m.Name)
		}
		c.members[m.Name] = m
		if strings.HasPrefix(m.Name, caseAnswer) {
			c.answers = append(c.answers, m.Name)
		}
	}
	var info caseFileInfo
	if err := c.json(caseInfo, maxSmall, &info); err != nil {
		return err
	}
	if info.Format != caseFileFormat {
		return fmt.Errorf("discovery: a case file of a kind that is not known here: %q", info.Format)
	}
	c.Case, c.LogKey = info.Case, info.LogKey
	if err := c.json(caseLeaves, maxLeaves, &c.Leaves); err != nil {
		return err
	}
	return c.loadKey()
}

func (c *CaseFile) loadKey() error {
	b, err := c.read(caseKeyRecord, maxSmall)
	if err != nil {
		return err
	}
	if c.Key, err = escrow.ParseKey(b); err != nil {
		return err
	}
	for name := range c.members {
		switch {
		case strings.HasPrefix(name, caseEpoch):
			err = addParsed(c, name, &c.Epochs, escrow.ParseEpoch)
		case strings.HasPrefix(name, caseAttestation):
			err = addParsed(c, name, &c.Attestations, escrow.ParseStatement)
		}
		if err != nil {
			return err
		}
	}
	slices.SortFunc(c.Epochs, func(a, b *escrow.Epoch) int { return int(a.Number) - int(b.Number) })
	slices.SortFunc(c.Attestations, func(a, b *escrow.Statement) int { return int(a.Index) - int(b.Index) })
	return nil
}

func addParsed[T any](c *CaseFile, name string, list *[]T, parse func([]byte) (T, error)) error {
	b, err := c.read(name, maxSmall)
	if err != nil {
		return err
	}
	v, err := parse(b)
	*list = append(*list, v)
	return err
}

func (c *CaseFile) json(name string, most int64, v any) error {
	b, err := c.read(name, most)
	if err == nil && json.Unmarshal(b, v) != nil {
		err = fmt.Errorf("discovery: case file: %s cannot be read", name)
	}
	return err
}

// section is a member's octets. Their integrity is that of what is sealed or signed in them, not the archive's.
func (c *CaseFile) section(name string) (*io.SectionReader, error) {
	m, ok := c.members[name]
	if !ok {
		return nil, fmt.Errorf("discovery: case file: %s is not in it", name)
	}
	at, err := m.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("discovery: case file: %s: %w", name, err)
	}
	return io.NewSectionReader(c.f, at, int64(m.UncompressedSize64)), nil
}

func (c *CaseFile) read(name string, most int64) ([]byte, error) {
	s, err := c.section(name)
	if err != nil {
		return nil, err
	}
	if s.Size() > most {
		return nil, fmt.Errorf("discovery: case file: %s is too long", name)
	}
	return io.ReadAll(s)
}

// Close closes the file.
func (c *CaseFile) Close() error { return c.f.Close() }

// Bundle reads the case with what the log says, as an officer's tool does.
func (c *CaseFile) Bundle() (*escrow.BundleReader, error) {
	s, err := c.section(caseBundle)
	if err != nil {
		return nil, err
	}
	return escrow.ReadBundle(s)
}

// Answers are the officers' answers.
func (c *CaseFile) Answers() []escrow.Answer {
	list := make([]escrow.Answer, len(c.answers))
	for i, name := range c.answers {
		list[i] = answerIn{c, name}
	}
	return list
}

type answerIn struct {
	c    *CaseFile
	name string
}

func (a answerIn) Open() (io.ReadCloser, error) {
	s, err := a.c.section(a.name)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(s), nil
}

// A RecordReader gives the sealed parts of a record in a case file.
type RecordReader struct {
	RecordInfo
	Envelope []byte

	s     *io.SectionReader
	body  int64   // where it begins
	parts []int64 // where the exhibits begin
}

// Record finds a record.
func (c *CaseFile) Record(id vault.ID) (*RecordReader, error) {
	s, err := c.section(caseRecord + id.String())
	if err != nil {
		return nil, err
	}
	bad := fmt.Errorf("discovery: record %v: %w: its part of the case file cannot be read", id, vault.ErrCorrupt)
	var n [4]byte
	if _, err := s.ReadAt(n[:], 0); err != nil {
		return nil, bad
	}
	length := int64(binary.BigEndian.Uint32(n[:]))
	if length > maxHeader || 4+length > s.Size() {
		return nil, bad
	}
	head := make([]byte, length)
	if _, err := s.ReadAt(head, 4); err != nil {
		return nil, bad
	}
	r := &RecordReader{s: s}
	if json.Unmarshal(head, &r.RecordInfo) != nil || r.Record != id || r.EnvelopeOctets < 0 || r.EnvelopeOctets > maxEnvelope || r.BodyOctets < 0 {
		return nil, bad
	}
	r.body = 4 + length + int64(r.EnvelopeOctets)
	if r.body > s.Size() || r.BodyOctets > s.Size()-r.body {
		return nil, bad
	}
	at := r.body + r.BodyOctets
	for _, x := range r.Exhibits {
		r.parts = append(r.parts, at)
		if x.Octets < 0 || x.Octets > s.Size()-at {
			return nil, bad
		}
		at += x.Octets
	}
	if at != s.Size() {
		return nil, bad
	}
	r.Envelope = make([]byte, r.EnvelopeOctets)
	if _, err := s.ReadAt(r.Envelope, 4+length); err != nil {
		return nil, bad
	}
	return r, nil
}

// Body is the sealed body.
func (r *RecordReader) Body() *io.SectionReader {
	return io.NewSectionReader(r.s, r.body, r.BodyOctets)
}

// Exhibit is the n-th sealed exhibit in the record's list.
func (r *RecordReader) Exhibit(n int) *io.SectionReader {
	return io.NewSectionReader(r.s, r.parts[n], r.Exhibits[n].Octets)
}

// Records writes records in the order of the ids, each once. Open gives a record; its close is called after it is written.
func (c *CaseFileWriter) Records(ctx context.Context, ids []vault.ID, open func(context.Context, vault.ID) (SealedRecord, func() error, error)) error {
	done := map[vault.ID]bool{}
	for _, id := range ids {
		if done[id] {
			continue
		}
		done[id] = true
		r, end, err := open(ctx, id)
		if err != nil {
			return err
		}
		err = c.Record(r)
		if eerr := end(); err == nil {
			err = eerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}
