package discovery

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dimegate/vault"
	"dimegate/vault/escrow"
)

// A CaseRequest is what a discovery station gives the gateway before a case is opened: who asks, with his signing key, and the
// case's own public key. One line: the case request file.
type CaseRequest struct {
	Requester string // mail address in lower case
	Key       escrow.PublicKey
	CaseKey   []byte
}

const (
	requestWord = "dimegate-case-request-v1"
	caseKeySize = 32 // X25519: of the one suite that stations make keys of
)

// Line is the case request file.
func (r CaseRequest) Line() string {
	return fmt.Sprintf("%s %s %s %s\n", requestWord, r.Requester, base64.StdEncoding.EncodeToString(r.Key[:]), base64.StdEncoding.EncodeToString(r.CaseKey))
}

// Fingerprint is the first 16 hexadecimal digits of D("case-request", line), which requester and gateway's side read to each other.
func (r CaseRequest) Fingerprint() string {
	d := vault.NewDigest("case-request", []byte(r.Line()))
	return hex.EncodeToString(d[:8])
}

// ParseCaseRequest reads a case request file and accepts nothing else. That it holds a usable key and person shows when a manifest is
// made of it.
func ParseCaseRequest(line []byte) (CaseRequest, error) {
	bad := errors.New("discovery: no case request file: have the station write it again (gateway case station init)")
	f := strings.Split(strings.TrimSuffix(string(line), "\n"), " ")
	if len(line) > 8<<10 || len(f) != 4 || f[0] != requestWord || f[1] == "" || f[1] != strings.ToLower(f[1]) || !strings.Contains(f[1], "@") {
		return CaseRequest{}, bad
	}
	key, err := base64.StdEncoding.Strict().DecodeString(f[2])
	if err != nil || len(key) != len(escrow.PublicKey{}) {
		return CaseRequest{}, bad
	}
	r := CaseRequest{Requester: f[1], Key: escrow.PublicKey(key)}
	if r.CaseKey, err = base64.StdEncoding.Strict().DecodeString(f[3]); err != nil || len(r.CaseKey) != caseKeySize || r.Line() != strings.TrimSuffix(string(line), "\n")+"\n" {
		return CaseRequest{}, bad
	}
	return r, nil
}

// A Selection is what the gateway gives the requester to sign: the manifest, and who its custodians are, in its order.
type Selection struct {
	Manifest   *escrow.Manifest
	Custodians []escrow.CustodianName
}

type selectionFile struct {
	Format     string `json:"format"`
	Manifest   []byte `json:"manifest"`
	Custodians []struct {
		Salt    []byte `json:"salt"`
		Address string `json:"address"`
	} `json:"custodians"`
}

const selectionFormat = "dimegate-selection-v1"

// MaxSelection bounds a selection file.
const MaxSelection int64 = int64(2 * escrow.MaxManifest)

// Octets is the selection file, JSON.
func (s Selection) Octets() ([]byte, error) {
	f := selectionFile{Format: selectionFormat, Manifest: s.Manifest.Octets()}
	for _, c := range s.Custodians {
		f.Custodians = append(f.Custodians, struct {
			Salt    []byte `json:"salt"`
			Address string `json:"address"`
		}{c.Salt[:], c.Address})
	}
	return json.Marshal(f)
}

// ParseSelection reads a selection file and recomputes the custodians' ids: nobody is shown another's name.
func ParseSelection(b []byte) (*Selection, error) {
	var f selectionFile
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || f.Format != selectionFormat {
		return nil, errors.New("discovery: no selection file: give what gateway case select wrote")
	}
	m, err := escrow.ParseManifest(f.Manifest)
	if err != nil {
		return nil, err
	}
	s := &Selection{Manifest: m}
	for i, c := range f.Custodians {
		if i >= len(m.Custodians) || len(c.Salt) != 32 || escrow.CustodianOf([32]byte(c.Salt), c.Address) != m.Custodians[i] {
			return nil, fmt.Errorf("discovery: selection: custodian %d is not who it says", i+1)
		}
		s.Custodians = append(s.Custodians, escrow.CustodianName{Salt: [32]byte(c.Salt), Address: c.Address})
	}
	if len(s.Custodians) != len(m.Custodians) {
		return nil, errors.New("discovery: selection: a custodian is missing")
	}
	return s, nil
}

// A Closing is what a station says at the end of a case: that it destroyed the case key and what it opened, what came out, and the
// manifest of what was exported. Statement 8 signs the leaves of what was opened.
type Closing struct {
	Statement  *escrow.Statement
	Opened     []uint64     // leaf indexes, ascending
	Unopenable []uint64     // of entries that the archive gave wrongly
	Export     vault.Digest // D("export", manifest of the export); zero when nothing was exported
	Access     vault.Digest // head of the mailbox's access record; zero when there was no mailbox
	Accesses   int          // entries of it
}

type closingFile struct {
	Format     string   `json:"format"`
	Statement  []byte   `json:"statement"`
	Opened     []uint64 `json:"opened"`
	Unopenable []uint64 `json:"unopenable"`
	Export     string   `json:"export"`
	Access     string   `json:"access"`
	Accesses   int      `json:"accesses"`
}

const closingFormat = "dimegate-closing-v1"

// MaxClosing bounds a closing file.
const MaxClosing = 64 << 20

// OpenedDigest is D("opened", count u32 ‖ leaf indexes u64 ascending), of statement 8 and leaf 6.
func OpenedDigest(leaves []uint64) vault.Digest {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(leaves)))
	for _, n := range leaves {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return vault.NewDigest("opened", b)
}

// Octets is the closing file, JSON.
func (c Closing) Octets() ([]byte, error) {
	return json.Marshal(closingFile{closingFormat, c.Statement.Octets(), c.Opened, c.Unopenable, hex.EncodeToString(c.Export[:]),
		hex.EncodeToString(c.Access[:]), c.Accesses})
}

// ParseClosing reads a closing file and checks it against the case: that its requester signed it, for leaves of the case alone.
func ParseClosing(b []byte, m *escrow.Manifest) (*Closing, error) {
	var f closingFile
	bad := errors.New("discovery: no closing file: give what gateway case station close wrote")
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || f.Format != closingFormat {
		return nil, bad
	}
	c := &Closing{Opened: f.Opened, Unopenable: f.Unopenable, Accesses: f.Accesses}
	var err error
	if c.Export, err = digestOf(f.Export); err != nil {
		return nil, bad
	}
	if c.Access, err = digestOf(f.Access); err != nil || c.Accesses < 0 {
		return nil, bad
	}
	if c.Statement, err = escrow.ParseStatement(f.Statement); err != nil {
		return nil, err
	}
	return c, c.check(m)
}

func digestOf(text string) (vault.Digest, error) {
	b, err := hex.DecodeString(text)
	if err == nil && len(b) != sha512.Size256 {
		err = fmt.Errorf("a digest of %d octets", len(b))
	}
	if err != nil {
		return vault.Digest{}, err
	}
	return vault.Digest(b), nil
}

func (c *Closing) check(m *escrow.Manifest) error {
	st := c.Statement
	if st.Kind != escrow.CloseCase || st.Subject != m.Digest() {
		return errors.New("discovery: closing: its statement is not about this case")
	}
	if err := st.Verify(m.RequesterKey); err != nil {
		return err
	}
	if st.Extra != OpenedDigest(c.Opened) {
		return errors.New("discovery: closing: its requester signed for another list of what was opened")
	}
	for _, list := range [][]uint64{c.Opened, c.Unopenable} {
		for i, n := range list {
			_, in := slices.BinarySearchFunc(m.Entries, n, func(e escrow.Entry, n uint64) int {
				if e.Leaf < n {
					return -1
				} else if e.Leaf > n {
					return 1
				}
				return 0
			})
			if !in || i > 0 && list[i-1] >= n {
				return fmt.Errorf("discovery: closing: leaf %d is not of this case, or out of order", n)
			}
		}
	}
	return nil
}
