package appliance

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A plainSignet is a signet of dialect A, read anew from the text of the signet chapter: it shares no code with dmtp/signet, so that a
// misreading there does not vouch for itself.
type plainSignet struct {
	kind   int // 1776 or 1789
	body   []byte
	fields []plainField
}

// A plainField lies in the body: its identifier at start, its value from there to there.
type plainField struct {
	id       byte
	start    int
	from, to int
}

// readPlain is chapters 2.2 and 3: a header of type and length, then fields in ascending order.
func readPlain(object []byte) (*plainSignet, error) {
	if len(object) < 5 {
		return nil, errors.New("shorter than a header")
	}
	s := &plainSignet{kind: int(object[0])<<8 | int(object[1]), body: object[5:]}
	if n := int(object[2])<<16 | int(object[3])<<8 | int(object[4]); n != len(s.body) {
		return nil, fmt.Errorf("the header says %d octets of %d", n, len(s.body))
	}
	for at := 0; at < len(s.body); {
		f := plainField{id: s.body[at], start: at}
		if n := len(s.fields); n > 0 && s.fields[n-1].id > f.id {
			return nil, fmt.Errorf("field %d after %d", f.id, s.fields[n-1].id)
		}
		at++
		number := func(octets int) (n int) {
			for ; octets > 0 && at < len(s.body); octets-- {
				n = n<<8 | int(s.body[at])
				at++
			}
			return n
		}
		length := 0
		switch encryption := map[int]byte{1776: 3, 1789: 2}[s.kind]; {
		case f.id == 253 || f.id == 255 || f.id == 4 || s.kind == 1789 && (f.id == 5 || f.id == 6):
			length = 64
		case f.id == encryption || s.kind == 1789 && f.id == 3 || f.id >= 160 && f.id <= 250:
			length = number(2)
		case f.id == 251:
			at += number(1)
			length = number(2)
		case f.id == 252:
			length = number(3)
		default:
			length = number(1)
		}
		f.from, f.to = at, at+length
		if at = f.to; at > len(s.body) {
			return nil, fmt.Errorf("field %d runs past the end", f.id)
		}
		s.fields = append(s.fields, f)
	}
	return s, nil
}

func (s *plainSignet) values(id byte) (list [][]byte) {
	for _, f := range s.fields {
		if f.id == id {
			list = append(list, s.body[f.from:f.to])
		}
	}
	return list
}

// signed says whether the signature in a field is one of the keys': it covers the body up to the first field that is not below it (§7).
func (s *plainSignet) signed(id byte, keys ...[]byte) error {
	for _, f := range s.fields {
		if f.id < id {
			continue
		}
		if f.id != id {
			break
		}
		for _, k := range keys {
			if ed25519.Verify(k, s.body[:f.start], s.body[f.from:f.to]) {
				return nil
			}
		}
		return fmt.Errorf("the signature in field %d is nobody's who may", id)
	}
	return fmt.Errorf("no signature in field %d", id)
}

// signer is a signing key without its format octet (§6.1).
func signer(value []byte) []byte {
	if len(value) != 33 || value[0] != 0x40 {
		return make([]byte, 32)
	}
	return value[1:]
}

// verifyPlainOrg is chapter 8.3 of an organisation: its key is the record's, and it signed all three levels.
func verifyPlainOrg(org *plainSignet, pok []byte) error {
	if key := signer(org.values(1)[0]); !bytes.Equal(key, pok) {
		return errors.New("another primary key")
	}
	return errors.Join(org.signed(4, pok), org.signed(253, pok), org.signed(255, pok))
}

// verifyPlainUser is chapters 8.3 and 8.5 of a user: his own signature, the organisation's three by its primary key or a secondary one
// with the first bit, and custody by the signet before, which must be there if there is one before, and must not if there is none.
func verifyPlainUser(user, org, previous *plainSignet, address string) error {
	signers := [][]byte{signer(org.values(1)[0])}
	for _, v := range org.values(2) {
		if v[0]&1 != 0 {
			signers = append(signers, signer(v[1:]))
		}
	}
	if names := user.values(254); len(names) != 1 || string(names[0]) != address {
		return errors.New("another's signet")
	}
	errs := []error{user.signed(5, signer(user.values(1)[0])), user.signed(6, signers...), user.signed(253, signers...), user.signed(255, signers...)}
	switch {
	case previous != nil:
		errs = append(errs, user.signed(4, signer(previous.values(1)[0])))
	case len(user.values(4)) != 0:
		errs = append(errs, errors.New("custody from nobody"))
	}
	return errors.Join(errs...)
}

// plainFile reads a file in armor.
func plainFile(t *testing.T, name string) *plainSignet {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "vectors", "libdime", "signets", name))
	check(t, err)
	var text strings.Builder
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "=") {
			text.WriteString(line)
		}
	}
	return plainText(t, text.String())
}

func plainText(t *testing.T, text string) *plainSignet {
	t.Helper()
	octets, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	check(t, err)
	s, err := readPlain(octets)
	check(t, err)
	return s
}

// TestSecondReader holds the second reader against what libdime made: its chain is one, and the one that it broke is none.
func TestSecondReader(t *testing.T) {
	org := plainFile(t, "origin.org.signet")
	check(t, verifyPlainOrg(org, signer(org.values(1)[0])))
	name := string(plainFile(t, "alice.user.signet").values(254)[0])
	var previous *plainSignet
	for _, file := range []string{"alice.user.signet", "alice-rotated.user.signet", "alice-rotated2.user.signet"} {
		s := plainFile(t, file)
		if err := verifyPlainUser(s, org, previous, name); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if previous != nil && verifyPlainUser(s, org, s, name) == nil {
			t.Errorf("%s: in its own custody", file)
		}
		previous = s
	}
	if err := verifyPlainUser(plainFile(t, "alice-badcoc.user.signet"), org, plainFile(t, "alice.user.signet"), name); err == nil || !strings.Contains(err.Error(), "field 4") {
		t.Errorf("a broken custody: %v", err)
	}
}
