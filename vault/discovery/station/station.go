// Package station is a discovery station: a folder, on a machine of its own, of one case. It makes the case's key and the requester's
// signing key, signs the request, opens what a quorum of officers gave, and keeps every message sealed under a key that is derived from
// the case key: when that is destroyed, nothing of the folder opens any more.
package station

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"dimegate/internal/safefile"
	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
	"dimegate/vault/escrow/officer"
)

// The files of the folder.
const (
	infoFile      = "station.json"
	requestFile   = "case.request"   // the case request file
	secretFile    = "station.age"    // requester's signing key and case key, sealed to a passphrase or a token
	selectionFile = "selection.json" // what was signed
	statementFile = "request.deg1"   // statement 6
	caseFile      = "case.zip"       // the case file, as the gateway wrote it: sealed
	journalFile   = "opened"         // what came out, entry by entry: sealed under the derived key
	marksFile     = "marks"          // likewise
	rewrapFile    = "rewrapped.json" // of a case that re-wraps: which leaves' entries were sealed anew
	closingFile   = "closing.json"   // what the gateway gets at the end
)

const (
	infoFormat = "dimegate-station-v1"
	secretWord = "dimegate-station-keys-v1"
	maxSecret  = 64 << 10
)

// What callers decide on.
var (
	ErrNotSigned = errors.New("station: no selection was signed here yet: gateway case station sign")
	ErrNotOpened = errors.New("station: no case file was opened here yet: gateway case station open")
	ErrExpired   = errors.New("station: the case has expired: close it")
	ErrClosed    = errors.New("station: the case is closed: its key is destroyed, nothing opens any more")
	ErrRewrap    = errors.New("station: the case re-wraps: it opens no mail for anybody: gateway case station rewrap")
	ErrOfficer   = errors.New("station: who asks for a case cannot be an officer of the key")
)

// A Station is the folder. One process at a time changes it. Not safe for concurrent use; see Case.
type Station struct {
	dir       string
	request   discovery.CaseRequest
	info      info
	selection *discovery.Selection // nil before Sign
	statement *escrow.Statement
}

type info struct {
	Format    string   `json:"format"`
	Log       string   `json:"log"`
	Witnesses []string `json:"witnesses"`
	Token     string   `json:"token,omitempty"`
}

// Create makes a station's folder with the keys of one case, which requester asks for. What it believes of the gateway's log is trust.
func Create(dir, requester string, trust escrow.Trust, l officer.Lock) (*Station, error) {
	if err := trust.Check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := safefile.CheckSecret(dir); err != nil {
		return nil, err
	}
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	rand.Read(seed) // never fails
	signing, err := escrow.NewSigningKey(seed)
	if err != nil {
		return nil, err
	}
	defer signing.Destroy()
	caseKey, err := escrow.NewCaseKey(escrow.R255)
	if err != nil {
		return nil, err
	}
	private, err := caseKey.Octets()
	if err != nil {
		return nil, err
	}
	defer clear(private)
	s := &Station{dir: dir, info: info{infoFormat, trust.Log, trust.Witnesses, l.Token}}
	s.request = discovery.CaseRequest{Requester: requester, Key: signing.Public(), CaseKey: caseKey.Public()}
	if _, err := discovery.ParseCaseRequest([]byte(s.request.Line())); err != nil {
		return nil, fmt.Errorf("station: %q is no mail address in lower case", requester)
	}
	text := fmt.Appendf(nil, "%s\n%s\n%s\n", secretWord, base64.StdEncoding.EncodeToString(seed), base64.StdEncoding.EncodeToString(private))
	defer clear(text)
	return s, s.write(l.To, text)
}

func (s *Station) write(to age.Recipient, text []byte) error {
	sealed, err := escrow.SealFile(to, text)
	if err != nil {
		return err
	}
	if err := safefile.Create(s.path(secretFile), sealed); errors.Is(err, fs.ErrExist) { // first: the one that must not be lost
		return fmt.Errorf("station: %s holds a station already: one folder a case", s.dir)
	} else if err != nil {
		return err
	}
	b, err := json.Marshal(s.info)
	if err != nil {
		return err
	}
	if err := safefile.Create(s.path(infoFile), b); err != nil {
		return err
	}
	return safefile.Create(s.path(requestFile), []byte(s.request.Line()))
}

func (s *Station) path(name string) string { return filepath.Join(s.dir, name) }

// Open reads the folder; no secret of it.
func Open(dir string) (*Station, error) {
	if err := safefile.CheckSecret(dir); err != nil {
		return nil, err
	}
	s := &Station{dir: dir}
	line, err := safefile.Read(s.path(requestFile), maxSecret)
	if err != nil {
		return nil, err
	}
	if s.request, err = discovery.ParseCaseRequest(line); err != nil {
		return nil, err
	}
	b, err := safefile.Read(s.path(infoFile), maxSecret)
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(b, &s.info) != nil || s.info.Format != infoFormat {
		return nil, fmt.Errorf("station: %s cannot be read", infoFile)
	}
	return s, s.loadSigned()
}

func (s *Station) loadSigned() error {
	b, err := safefile.Read(s.path(statementFile), escrow.StatementSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if s.statement, err = escrow.ParseStatement(b); err != nil {
		return err
	}
	if b, err = safefile.Read(s.path(selectionFile), int(discovery.MaxSelection)); err != nil {
		return err
	}
	if s.selection, err = discovery.ParseSelection(b); err != nil {
		return err
	}
	return escrow.CheckRequest(s.selection.Manifest, s.statement)
}

// Request is what the gateway gets before the case is opened.
func (s *Station) Request() discovery.CaseRequest { return s.request }

// Token is the age identity of the token that protects the keys; empty when a passphrase does.
func (s *Station) Token() string { return s.info.Token }

// Selection is what was signed; nil before that.
func (s *Station) Selection() *discovery.Selection { return s.selection }

func (s *Station) trust() escrow.Trust {
	return escrow.Trust{Log: s.info.Log, Witnesses: s.info.Witnesses}
}

// Closed tells whether the case was closed here.
func (s *Station) Closed() bool {
	_, err := os.Stat(s.path(secretFile))
	return errors.Is(err, fs.ErrNotExist)
}

// Keys are the station's private keys, opened. Destroy them soon.
type Keys struct {
	signing escrow.SigningKey
	caseKey escrow.CaseKey
	store   vault.Secret // of what rests here; zero before a selection is signed
}

// Destroy clears what can be cleared: crypto/hpke keeps the case key until the process ends.
func (k *Keys) Destroy() {
	k.signing.Destroy()
	k.store.Destroy()
}

// Unlock opens the keys with the identity of the passphrase or of the token.
func (s *Station) Unlock(with age.Identity) (*Keys, error) {
	if s.Closed() {
		return nil, ErrClosed
	}
	file, err := safefile.ReadSecret(s.path(secretFile), maxSecret)
	if err != nil {
		return nil, err
	}
	text, err := escrow.OpenFile(file, with)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	bad := fmt.Errorf("station: %s does not hold the keys of %s", secretFile, requestFile)
	f := bytes.Split(text, []byte("\n"))
	if len(f) != 4 || string(f[0]) != secretWord || len(f[3]) > 0 {
		return nil, bad
	}
	seed, err := base64.StdEncoding.DecodeString(string(f[1]))
	if err != nil {
		return nil, bad
	}
	defer clear(seed)
	private, err := base64.StdEncoding.DecodeString(string(f[2]))
	if err != nil {
		return nil, bad
	}
	defer clear(private)
	k := &Keys{}
	if k.signing, err = escrow.NewSigningKey(seed); err != nil {
		return nil, bad
	}
	if k.caseKey, err = escrow.ParseCaseKey(escrow.R255, private); err != nil {
		k.Destroy()
		return nil, bad
	}
	if k.signing.Public() != s.request.Key || !bytes.Equal(k.caseKey.Public(), s.request.CaseKey) {
		k.Destroy()
		return nil, bad
	}
	if s.selection != nil {
		k.store, err = storeKey(private, s.selection.Manifest.Digest())
	}
	return k, err
}

// storeKey is HKDF-SHA-256(case key, case digest, "dimegate-station-v1"): what a station keeps is under it.
func storeKey(private []byte, digest vault.Digest) (vault.Secret, error) {
	b, err := hkdf.Key(sha256.New, private, digest[:], infoFormat, vault.SecretSize)
	if err != nil {
		return vault.Secret{}, err
	}
	defer clear(b)
	return vault.SecretOf(b)
}

// CheckSelection says why the requester must not sign a selection here: it is another's case, or one that cannot be opened any more.
func (s *Station) CheckSelection(sel *discovery.Selection, now time.Time) error {
	m := sel.Manifest
	switch {
	case m.Requester != s.request.Requester || m.RequesterKey != s.request.Key || !bytes.Equal(m.CaseKey, s.request.CaseKey):
		return errors.New("station: the selection is of another station's case")
	case !now.Before(m.Expires):
		return ErrExpired
	case s.selection != nil && s.selection.Manifest.Digest() != m.Digest():
		return errors.New("station: another selection was signed here: a station is of one case")
	}
	return nil
}

// Sign signs statement 6 over a selection, and keeps both. Signed again, it is the statement of the first time.
func (s *Station) Sign(k *Keys, sel *discovery.Selection, now time.Time) (*escrow.Statement, error) {
	if err := s.CheckSelection(sel, now); err != nil {
		return nil, err
	}
	if s.statement != nil {
		return s.statement, nil
	}
	b, err := sel.Octets()
	if err != nil {
		return nil, err
	}
	m := sel.Manifest
	st, err := escrow.Statement{Kind: escrow.Request, Time: now, Subject: m.Digest(), Size: m.LogSize, Root: m.LogRoot}.Sign(k.signing)
	if err != nil {
		return nil, err
	}
	if err := safefile.Write(s.path(selectionFile), b); err != nil {
		return nil, err
	}
	if err := safefile.Create(s.path(statementFile), st.Octets()); err != nil {
		return nil, err
	}
	s.selection, s.statement = sel, st
	return st, nil
}
