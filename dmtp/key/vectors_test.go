package key_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/internal/vectors"
)

type keyVector struct {
	File     string
	Magic    uint16
	PEMTag   string      `json:"pem_tag"`
	SignPriv vectors.Hex `json:"sign_priv"`
	SignPub  vectors.Hex `json:"sign_pub"`
	EncPriv  vectors.Hex `json:"enc_priv"`
	EncPub   vectors.Hex `json:"enc_pub"`
}

func TestVectorsKeys(t *testing.T) {
	set := vectors.Open(t)
	all := vectors.Part[map[string]keyVector](t, set, "keys")
	var names []string
	for name := range all {
		names = append(names, name)
	}
	vectors.Each(t, names, func(n string) string { return n }, func(t *testing.T, name string) {
		v := all[name]
		text := set.File(t, v.File)
		f, err := key.ParseFile(text)
		if err != nil {
			t.Fatal(err)
		}
		if uint16(f.Kind) != v.Magic || f.Dialect != key.A {
			t.Errorf("kind %d, dialect %v", f.Kind, f.Dialect)
		}
		if !bytes.Equal(f.Pair.Signing.Seed(), v.SignPriv) || !bytes.Equal(f.Pair.Encryption.Scalar(), v.EncPriv) {
			t.Error("another private key")
		}
		signing, encryption := f.Pair.Signing.Public(), f.Pair.Encryption.Public().Bytes()
		if !bytes.Equal(signing[:], v.SignPub) || !bytes.Equal(encryption[:], v.EncPub) {
			t.Errorf("public keys %x and %x", signing, encryption)
		}
		if got := f.Armored(); !bytes.Equal(got, text) {
			t.Errorf("written:\n%s\nwant:\n%s", got, text)
		}
		block, err := key.Dearmor(text, v.PEMTag)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := key.ParseFile(block.Bytes); err != nil || !again.Pair.Equal(f.Pair) {
			t.Errorf("binary form: %v", err)
		}
	})
}

type armorVector struct {
	Name, File, Mutation, Reader string
	Libdime                      struct {
		Load      bool
		Errors    []string
		SignError []string `json:"sign_error"`
		EncError  []string `json:"enc_error"`
		Crash     string
		Asan      string
	}
}

// armorStricter is what libdime reads and we refuse.
var armorStricter = vectors.Exceptions{
	"armor-oneline":       "a line of any length: no writer makes it, and a bound is a bound",
	"armor-usertag":       "the armor says user, the object is an organisation's: one of the two lies",
	"armor-garbage-chars": "characters that are not base64: the text was changed",
	"keys-usertag":        "the armor says user, the object is an organisation's: one of the two lies",
	"keys-trailing":       "octets behind the keys belong to nothing",
	"keys-sok":            "a third key: libdime never writes it and steps over it",
}

func TestVectorsNegativeArmor(t *testing.T) {
	set := vectors.Open(t)
	all := vectors.Part[[]armorVector](t, set, "negative_armor")
	var names []string
	vectors.Each(t, all, func(v armorVector) string { return v.Name }, func(t *testing.T, v armorVector) {
		names = append(names, v.Name)
		text := set.File(t, v.File)
		want := v.Libdime.Load
		if armorStricter.Has(t, v.Name) {
			if !want {
				t.Error("listed as refused by ours alone, yet libdime refuses it too")
			}
			want = false
		}
		var err error
		if v.Reader == "keys" {
			_, err = key.ParseFile(text)
		} else {
			err = readSignetArmor(text)
		}
		if got := err == nil; got != want {
			t.Errorf("%s: accepted %v, want %v: %v", v.Mutation, got, want, err)
		}
		if _, ok := errors.AsType[key.Class](err); err != nil && !ok {
			t.Errorf("an error of no class: %v", err)
		}
	})
	armorStricter.Stale(t, set, names)
}

// readSignetArmor is what a signet reader does before it looks at the signet.
func readSignetArmor(text []byte) error {
	block, err := key.Dearmor(text, key.ArmorUserSignet, key.ArmorOrgSignet)
	if err != nil {
		return err
	}
	if org := bytes.HasPrefix(block.Bytes, []byte{0x06, 0xf0}); org != (block.Type == key.ArmorOrgSignet) {
		return key.ErrArmor
	}
	return nil
}

type signatureVector struct{ Seed, Pub, Msg, Sig vectors.Hex }

func TestVectorsEd25519(t *testing.T) {
	set := vectors.Open(t)
	all := vectors.JSONPart[[]signatureVector](t, set, primitives(t, set), "ed25519")
	vectors.Each(t, all, func(v signatureVector) string { return "len" }, func(t *testing.T, v signatureVector) {
		k := signing(t, v.Seed)
		p, err := key.ParseSigningPublic(v.Pub)
		if err != nil || p != k.Public() {
			t.Fatalf("public key %x: %v", k.Public(), err)
		}
		if got := k.Sign(v.Msg); !bytes.Equal(got, v.Sig) {
			t.Errorf("signature %x", got)
		}
		if !p.Verify(v.Msg, v.Sig) {
			t.Error("does not verify")
		}
	})
}

type edgeVector struct {
	What          string
	Pub, Msg, Sig vectors.Hex
	LibdimeVerify int `json:"libdime_verify"`
}

// TestVectorsEd25519Edge: every one of these is refused by ours, whatever libdime says.
func TestVectorsEd25519Edge(t *testing.T) {
	set := vectors.Open(t)
	all := vectors.JSONPart[[]edgeVector](t, set, primitives(t, set), "ed25519_edge")
	vectors.Each(t, all, func(v edgeVector) string { return v.What }, func(t *testing.T, v edgeVector) {
		p, err := key.ParseSigningPublic(v.Pub)
		if err != nil {
			p = key.SigningPublic(v.Pub) // Verify has to hold even where the key was not parsed
		}
		if p.Verify(v.Msg, v.Sig) {
			t.Errorf("verifies (libdime: %d)", v.LibdimeVerify)
		}
	})
}

type crcVector struct {
	Data        vectors.Hex
	CRC24       uint32 `json:"crc24"`
	Base64      string
	Base64NoPad string `json:"base64_nopad"`
}

func TestVectorsCRC24(t *testing.T) {
	set := vectors.Open(t)
	all := vectors.JSONPart[[]crcVector](t, set, primitives(t, set), "crc24_base64")
	vectors.Each(t, all, func(v crcVector) string { return v.Base64NoPad[:2] }, func(t *testing.T, v crcVector) {
		if got := key.CRC24(v.Data); got != v.CRC24 {
			t.Errorf("%#x, want %#x", got, v.CRC24)
		}
		if got := base64.StdEncoding.EncodeToString(v.Data); got != v.Base64 {
			t.Errorf("base64 %s, want %s", got, v.Base64)
		}
		if got := base64.RawStdEncoding.EncodeToString(v.Data); got != v.Base64NoPad {
			t.Errorf("base64 without padding %s, want %s", got, v.Base64NoPad)
		}
		if block, err := key.Dearmor(key.Armor(key.ArmorMessage, v.Data), key.ArmorMessage); err != nil || !bytes.Equal(block.Bytes, v.Data) {
			t.Errorf("armor does not hold it: %v", err)
		}
	})
}

// primitives is the file of the part crypto.
func primitives(t *testing.T, set *vectors.Set) string {
	t.Helper()
	return vectors.Part[struct{ File, Checked string }](t, set, "crypto").File
}
