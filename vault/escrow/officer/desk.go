// Package officer is an escrow officer's own folder on his own machine: his keys and shares, what he knows of keys, epochs and
// logs, and what he did. Nothing is signed here that was not checked before, and asking the person is the caller's part.
package officer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"dimegate/internal/safefile"
	"dimegate/vault/escrow"
)

// The files of the folder.
const (
	publicFile = "officer.pub" // the officer file
	secretFile = "officer.age" // signing key and age identity, sealed to a passphrase or a token
	tokenFile  = "token"       // the token's age identity, which is a reference and no secret
	stateFile  = "state.json"
	approvedIn = "approved" // a file a case: the records that were approved in it
)

const secretWord = "dimegate-officer-keys-v1"

const maxSecret = 64 << 10

// A Desk is the folder. One process at a time uses it. Not safe for concurrent use.
type Desk struct {
	dir   string
	me    escrow.Officer
	token string
	state state
}

// A Lock is what protects an officer's keys: a passphrase, or a token that an age plugin speaks to.
type Lock struct {
	To age.Recipient // who can open the keys

	Token          string // the token's age identity; empty for a passphrase
	TokenRecipient string // its recipient: shares are sealed to it
}

// Create makes an officer's keys and the folder dir around them, which must not hold any.
func Create(dir, person string, l Lock) (*Desk, error) {
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
	me := escrow.Officer{Person: person, Key: signing.Public(), Recipient: l.TokenRecipient}
	identity := ""
	if l.Token == "" {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return nil, err
		}
		identity, me.Recipient = id.String(), id.Recipient().String()
	}
	if _, err := escrow.ParseOfficer([]byte(me.Line())); err != nil {
		return nil, err
	}
	text := []byte(secretWord + "\n" + base64.StdEncoding.EncodeToString(seed) + "\n" + identity + "\n")
	defer clear(text)
	sealed, err := escrow.SealFile(l.To, text)
	if err != nil {
		return nil, err
	}
	if err := safefile.Create(filepath.Join(dir, secretFile), sealed); err != nil { // first: the one that must not be lost
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("%s holds an officer's keys already", dir)
		}
		return nil, err
	}
	if l.Token != "" {
		if err := safefile.Create(filepath.Join(dir, tokenFile), []byte(l.Token)); err != nil {
			return nil, err
		}
	}
	d := &Desk{dir: dir, me: me, token: l.Token, state: state{Version: stateVersion}}
	if err := d.save(); err != nil {
		return nil, err
	}
	return d, safefile.Create(filepath.Join(dir, publicFile), []byte(me.Line()))
}

// Open reads the folder; no secret of it.
func Open(dir string) (*Desk, error) {
	if err := safefile.CheckSecret(dir); err != nil {
		return nil, err
	}
	line, err := safefile.Read(filepath.Join(dir, publicFile), 8<<10)
	if err != nil {
		return nil, err
	}
	d := &Desk{dir: dir}
	if d.me, err = escrow.ParseOfficer(line); err != nil {
		return nil, err
	}
	token, err := safefile.Read(filepath.Join(dir, tokenFile), 8<<10)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	d.token = string(token)
	return d, d.load()
}

// Officer is who the folder is of; his index is 0.
func (d *Desk) Officer() escrow.Officer { return d.me }

// Token is the age identity of the token that protects the keys; empty when a passphrase does.
func (d *Desk) Token() string { return d.token }

// Keys are an officer's private keys, opened. Destroy them soon.
type Keys struct {
	Signing    escrow.SigningKey
	identities []age.Identity
}

// Destroy clears what can be cleared: age keeps its own copy of the identity until the process ends.
func (k *Keys) Destroy() {
	k.Signing.Destroy()
	k.identities = nil
}

// Unlock opens the keys with the identity of the passphrase or of the token.
func (d *Desk) Unlock(with age.Identity) (*Keys, error) {
	file, err := safefile.ReadSecret(filepath.Join(d.dir, secretFile), maxSecret)
	if err != nil {
		return nil, err
	}
	text, err := escrow.OpenFile(file, with)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	f := bytes.Split(text, []byte("\n"))
	if len(f) != 4 || string(f[0]) != secretWord || len(f[3]) > 0 {
		return nil, fmt.Errorf("%s: holds no officer's keys", secretFile)
	}
	seed := make([]byte, base64.StdEncoding.DecodedLen(len(f[1])))
	defer clear(seed)
	n, err := base64.StdEncoding.Strict().Decode(seed, f[1])
	if err != nil {
		return nil, fmt.Errorf("%s: holds no signing key", secretFile)
	}
	k := &Keys{identities: []age.Identity{with}}
	if k.Signing, err = escrow.NewSigningKey(seed[:n]); err != nil {
		return nil, err
	}
	if k.Signing.Public() != d.me.Key {
		k.Destroy()
		return nil, fmt.Errorf("%s is not the private half of %s", secretFile, publicFile)
	}
	if d.token != "" {
		return k, nil
	}
	if k.identities, err = age.ParseIdentities(bytes.NewReader(f[2])); err != nil {
		k.Destroy()
		return nil, fmt.Errorf("%s: holds no age identity", secretFile) // not age's text: it may hold the key
	}
	return k, nil
}

// open opens an age file that was sealed to the officer.
func (k *Keys) open(file []byte) ([]byte, error) { return escrow.OpenFile(file, k.identities...) }

// A Recipients reads the age recipient of an officer, through a plugin where it needs one.
type Recipients struct{ UI *plugin.ClientUI }

// Parse reads a recipient.
func (r Recipients) Parse(text string) (age.Recipient, error) {
	native, err := escrow.NativeRecipient(text)
	if err == nil || r.UI == nil || strings.HasPrefix(text, "age1pq1") {
		return native, err
	}
	if p, perr := plugin.NewRecipient(text, r.UI); perr == nil {
		return p, nil
	}
	return nil, err
}

// writeSecret keeps an age file of the officer's; it overwrites none.
func (d *Desk) writeSecret(name string, file []byte) error {
	err := safefile.Create(filepath.Join(d.dir, name), file)
	if errors.Is(err, fs.ErrExist) {
		return nil // a run before this one ended between the file and the state: any of the two opens to the same
	}
	return err
}

// overwrite destroys a file's octets as far as a program can, then its name.
func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	noise := make([]byte, st.Size())
	rand.Read(noise)
	if _, err := f.WriteAt(noise, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return safefile.SyncDir(filepath.Dir(path))
}
