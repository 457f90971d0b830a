package imapserver

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"dimegate/internal/safefile"
	"dimegate/vault"
)

// Why a login is refused. All but ErrCredential tell that the password was right, or that it no longer matters.
var (
	ErrCredential        = errors.New("imapserver: unknown user or wrong password")
	ErrCredentialUsed    = errors.New("imapserver: the credential was used")
	ErrCredentialExpired = errors.New("imapserver: the credential has expired")
	ErrCredentialVoid    = errors.New("imapserver: too many wrong passwords for the credential")
)

const (
	maxTries           = 5 // wrong passwords, after which a credential is void
	maxCredentialSize  = 4 << 10
	maxPerson          = 64
	passwordOctets     = 20 // 160 random bits: no slow hash is needed to keep them from being guessed
	MaxCredentialValid = 7 * 24 * time.Hour
)

// A Credential lets one person into one case's mailbox once. The password is not in it.
type Credential struct {
	User    string       `json:"user"`
	Person  string       `json:"person"`
	Case    vault.Digest `json:"-"`
	CaseHex string       `json:"case"`
	Salt    []byte       `json:"salt"`
	Hash    []byte       `json:"hash"` // D("mailbox password", salt ‖ password)
	Made    time.Time    `json:"made"`
	Expires time.Time    `json:"expires"`
	Tries   int          `json:"tries"` // wrong passwords
	Used    time.Time    `json:"used"`  // zero: not yet
}

// Credentials is a folder of them, a file each. Making one while a mailbox runs on the folder is safe; two mailboxes on it are not.
type Credentials struct {
	dir string
	mu  sync.Mutex
}

// OpenCredentials makes the folder when it does not exist.
func OpenCredentials(dir string) (*Credentials, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Credentials{dir: dir}, safefile.CheckSecret(dir)
}

var (
	base32Text = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	userForm   = regexp.MustCompile(`^[a-z0-9]{1,20}-[a-z2-7]{8}$`)
	notInUser  = regexp.MustCompile(`[^a-z0-9]+`)
)

// Make issues a credential for a person and a case, and gives its user and password, which is shown once and kept nowhere.
func (c *Credentials) Make(person string, of vault.Digest, now, expires time.Time) (user, password string, err error) {
	person = strings.TrimSpace(person)
	switch {
	case person == "" || len(person) > maxPerson || strings.ContainsFunc(person, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", "", fmt.Errorf("imapserver: a person is 1 to %d octets of text", maxPerson)
	case !expires.After(now) || expires.After(now.Add(MaxCredentialValid)):
		return "", "", fmt.Errorf("imapserver: a credential is valid for %v at most", MaxCredentialValid)
	}
	name := notInUser.ReplaceAllString(strings.ToLower(person), "")
	if name == "" {
		name = "reader"
	}
	user = name[:min(len(name), 20)] + "-" + random(5)
	password = random(passwordOctets)
	n := Credential{User: user, Person: person, CaseHex: hex.EncodeToString(of[:]), Salt: make([]byte, 16), Made: now.UTC(), Expires: expires.UTC()}
	rand.Read(n.Salt)
	n.Hash = n.hash(password)
	text, err := json.Marshal(n)
	if err != nil {
		return "", "", err
	}
	return user, password, safefile.Create(c.path(user), text)
}

func random(octets int) string {
	b := make([]byte, octets)
	rand.Read(b)
	return base32Text.EncodeToString(b)
}

func (c *Credentials) path(user string) string { return filepath.Join(c.dir, user+".json") }

func (c *Credential) hash(password string) []byte {
	d := vault.NewDigest("mailbox password", c.Salt, []byte(password))
	return d[:]
}

// nobody is hashed against where there is no such user, so that it takes as long.
var nobody = Credential{Salt: make([]byte, 16), Hash: make([]byte, 32)}

// use takes a credential, once: before it returns nil, its file says that it was used. With an error the credential is that of the
// user, if there is one.
func (c *Credentials) use(user, password string, of vault.Digest, now time.Time) (*Credential, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, err := c.read(user)
	if err != nil {
		subtle.ConstantTimeCompare(nobody.hash(password), nobody.Hash)
		return nil, ErrCredential
	}
	right := subtle.ConstantTimeCompare(k.hash(password), k.Hash) == 1
	switch {
	case k.Tries >= maxTries:
		return nil, ErrCredentialVoid
	case k.CaseHex != hex.EncodeToString(of[:]):
		return nil, ErrCredential
	case !right:
		k.Tries++
		if err := c.write(k); err != nil {
			return k, err
		}
		return k, ErrCredential
	case !now.Before(k.Expires):
		return k, ErrCredentialExpired
	case !k.Used.IsZero():
		return k, ErrCredentialUsed
	}
	k.Used, k.Case = now.UTC(), of
	if err := c.write(k); err != nil {
		return k, err
	}
	return k, nil
}

func (c *Credentials) read(user string) (*Credential, error) {
	if !userForm.MatchString(user) {
		return nil, fs.ErrNotExist
	}
	text, err := safefile.ReadSecret(c.path(user), maxCredentialSize)
	if err != nil {
		return nil, err
	}
	var k Credential
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, err
	}
	if k.User != user {
		return nil, fs.ErrNotExist
	}
	return &k, nil
}

func (c *Credentials) write(k *Credential) error {
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return safefile.Write(c.path(k.User), text)
}
