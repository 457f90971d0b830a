package submission

import (
	"bufio"
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Users are names with hashed passwords.
type Users struct {
	hashes map[string]hash
	dummy  hash // costs an unknown name what a known one costs
}

// A hash checks one password.
type hash interface{ matches(password []byte) bool }

// Bounds of what a password file may ask of us for one check.
const (
	maxUsers      = 100_000
	maxBcrypt     = 14
	maxArgonKiB   = 256 << 10
	maxArgonTime  = 16
	maxArgonLanes = 16
	maxArgonHash  = 128
)

// ParseUsers reads a password file: a line a user, "name:hash", the hash by bcrypt ($2a$, $2b$, $2y$) or Argon2id
// ($argon2id$v=19$m=…,t=…,p=…$salt$hash). Empty lines and those that begin with "#" do not count. Errors name the line, not
// what it holds.
func ParseUsers(file []byte) (*Users, error) {
	u := &Users{hashes: map[string]hash{}}
	sc := bufio.NewScanner(bytes.NewReader(file))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, text, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("line %d: not name:hash", n)
		}
		if _, twice := u.hashes[name]; twice {
			return nil, fmt.Errorf("line %d: the name is there already", n)
		}
		h, err := parseHash(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if u.hashes[name] = h; len(u.hashes) > maxUsers {
			return nil, fmt.Errorf("line %d: more than %d users", n, maxUsers)
		}
		u.dummy = h
	}
	if err := sc.Err(); err != nil {
		return nil, errors.New("a line is too long")
	}
	if u.dummy == nil {
		return nil, errors.New("no user in it")
	}
	return u, nil
}

// Check tells whether name has that password. It takes its time in any case; who calls it limits how many run.
func (u *Users) Check(name, password string) bool {
	h, known := u.hashes[name]
	if !known {
		h = u.dummy
	}
	ok := h.matches([]byte(password))
	return ok && known
}

func parseHash(text string) (hash, error) {
	if strings.HasPrefix(text, "$argon2id$") {
		return parseArgon(text)
	}
	cost, err := bcrypt.Cost([]byte(text))
	if err != nil {
		return nil, errors.New("a hash that is neither bcrypt nor Argon2id")
	}
	if cost > maxBcrypt {
		return nil, fmt.Errorf("bcrypt's cost is over %d", maxBcrypt)
	}
	return bcryptHash(text), nil
}

type bcryptHash []byte

func (h bcryptHash) matches(password []byte) bool {
	return bcrypt.CompareHashAndPassword(h, password) == nil
}

type argonHash struct {
	time, memory uint32
	lanes        uint8
	salt, sum    []byte
}

func parseArgon(text string) (hash, error) {
	bad := errors.New("an Argon2id hash that is not $argon2id$v=19$m=…,t=…,p=…$salt$hash, within bounds")
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[2] != "v=19" {
		return nil, bad
	}
	var h argonHash
	var rest string
	if n, _ := fmt.Sscanf(parts[3]+" .", "m=%d,t=%d,p=%d %s", &h.memory, &h.time, &h.lanes, &rest); n != 4 || rest != "." {
		return nil, bad
	}
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.Strict().DecodeString(parts[4])
	h.sum, err2 = base64.RawStdEncoding.Strict().DecodeString(parts[5])
	switch {
	case err1 != nil, err2 != nil, len(h.salt) < 8, len(h.salt) > maxArgonHash, len(h.sum) < 16, len(h.sum) > maxArgonHash,
		h.memory < 8*uint32(h.lanes), h.memory > maxArgonKiB, h.time < 1, h.time > maxArgonTime, h.lanes < 1, h.lanes > maxArgonLanes:
		return nil, bad
	}
	return &h, nil
}

func (h *argonHash) matches(password []byte) bool {
	sum := argon2.IDKey(password, h.salt, h.time, h.memory, h.lanes, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}
