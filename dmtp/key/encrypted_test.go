package key_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"dimegate/dmtp/key"
)

// What PRIME makes of the specification's keys under the realm key 00..3f with the random octets f0..ff.
const (
	encryptedUserKey = "07b800000070f0f1f2f3f4f5f6f7f8f9fafbfcfdfeffb6c22410e04e5b94632eee947aac3103dc33aef6835201395929" +
		"3557073c104c12a9d3527d2829e88c677f241411bfb96283e1be4ef65cf6beb7993375cd3ca4e931492345524f7e1bee22a4cd428d1ba56c45a26d3c192cefe5db04aaabb9bd"
	encryptedOrgKey = "079b00000070f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff0b7807363d0ae09765052ee054f87f78dc33aef6835241791969" +
		"7517477c500c52e993123d6869a8cc273f645451fff922c3a1fe0eb65df6fef7d973358d7ce4a971096305120f3e5bae62e48d02cd5be52c05e22d7c596cefe5db04aaabb9bd"
)

func realm() []byte {
	return append(ascending(0), ascending(0x20)...)
}

func TestEncryptedFiles(t *testing.T) {
	random := ascending(0xf0 - 16)[16:]
	for encrypted, plain := range map[string]string{encryptedUserKey: userKeyC, encryptedOrgKey: orgKeyC} {
		f, err := key.OpenFile(unhex(t, encrypted), realm())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Bytes(), unhex(t, plain)) {
			t.Errorf("other keys: kind %d", f.Kind)
		}
		again, err := f.EncryptedBytes(bytes.NewReader(random), realm())
		if err != nil || !bytes.Equal(again, unhex(t, encrypted)) {
			t.Errorf("encrypted otherwise: %x, %v", again, err)
		}
		f.Dialect = key.A
		again, err = f.EncryptedBytes(bytes.NewReader(random), realm())
		if err != nil {
			t.Fatal(err)
		}
		if back, err := key.OpenFile(again, realm()); err != nil || !back.Pair.Equal(f.Pair) || back.Dialect != key.A {
			t.Errorf("dialect A: %v", err)
		}
	}
	for kind, in := range map[string]string{key.ArmorEncryptedUserKey: encryptedUserKey, key.ArmorEncryptedOrgKey: encryptedOrgKey} {
		if _, err := key.OpenFile(key.Armor(kind, unhex(t, in)), realm()); err != nil {
			t.Errorf("armored: %v", err)
		}
	}
}

func TestEncryptedFilesRefused(t *testing.T) {
	user := unhex(t, encryptedUserKey)
	for at := range user { // R, tag, ciphertext and header: no octet is free
		b := bytes.Clone(user)
		b[at] ^= 1
		if f, err := key.OpenFile(b, realm()); err == nil {
			t.Errorf("octet %d is free: kind %d", at, f.Kind)
		}
	}
	for n := range user {
		if _, err := key.OpenFile(user[:n], realm()); err == nil {
			t.Errorf("the first %d octets open", n)
		}
	}
	other := realm()
	other[63] ^= 1
	for name, c := range map[string]struct {
		in, realm []byte
		want      error
	}{
		"another key":         {user, other, key.ErrDecrypt},
		"a short key":         {user, other[1:], key.ErrKeyFormat},
		"plain":               {unhex(t, userKeyC), realm(), key.ErrType},
		"header alone":        {user[:6], realm(), key.ErrLength},
		"length of no blocks": {[]byte{0x07, 0xb8, 0, 0, 0, 3, 1, 2, 3}, realm(), key.ErrLength},
		"armor of the other":  {key.Armor(key.ArmorEncryptedOrgKey, user), realm(), key.ErrArmor},
		"armor of plain keys": {[]byte(userKeyA), realm(), key.ErrArmor},
	} {
		if _, err := key.OpenFile(c.in, c.realm); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// the header is not sealed: an organisation's file under a user's number has the wrong identifier within
	swapped := unhex(t, encryptedOrgKey)
	swapped[0], swapped[1] = 0x07, 0xb8
	if _, err := key.OpenFile(swapped, realm()); !errors.Is(err, key.ErrKeyFormat) {
		t.Errorf("swapped: %v", err)
	}
	if _, err := key.ParseFile(user); !errors.Is(err, key.ErrType) {
		t.Errorf("read as plain: %v", err)
	}
	f, err := key.OpenFile(user, realm())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.EncryptedBytes(iotest.ErrReader(io.ErrNoProgress), realm()); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("no randomness: %v", err)
	}
	if _, err := f.EncryptedBytes(nil, nil); !errors.Is(err, key.ErrKeyFormat) {
		t.Errorf("no realm key: %v", err)
	}
	if _, err := (&key.File{Kind: key.OrgKeys}).EncryptedBytes(nil, realm()); !errors.Is(err, key.ErrKeyFormat) {
		t.Errorf("no keys: %v", err)
	}
}
