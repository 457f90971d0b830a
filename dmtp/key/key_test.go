package key_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"

	"dimegate/dmtp/key"
)

// ascending is the 32 octets from, from+1, and so on: the way the specification's own test keys are made.
func ascending(from byte) []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

func signing(t testing.TB, seed []byte) key.Signing {
	t.Helper()
	k, err := key.NewSigning(seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func encryption(t testing.TB, scalar []byte) key.Encryption {
	t.Helper()
	k, err := key.NewEncryption(scalar)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPublicKeys(t *testing.T) {
	for from, want := range map[byte]string{ // the specification's seeds
		0x00: "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8",
		0x40: "2543b92ff1095511476adc8369db6ddc933665a11978dda1404ee1066ca9559d",
		0x80: "cd14b37f956e953194ff7fb73b3d81dcc561d61a7538094b7c3e1a643ee5f3aa",
		0xa0: "4fd099ccd47d7893dfe9ec24414ecb0d9b5420232aad30d91c465be33cbe65c4",
	} {
		k := signing(t, ascending(from))
		if p := k.Public(); hex.EncodeToString(p[:]) != want {
			t.Errorf("seed from %#x: public key %x, want %s", from, p, want)
		}
		if p, err := key.ParseSigningPublic(unhex(t, want)); err != nil || p != k.Public() {
			t.Errorf("seed from %#x: %v", from, err)
		}
		if !bytes.Equal(k.Seed(), ascending(from)) {
			t.Errorf("seed from %#x: another seed comes back", from)
		}
	}
	for from, want := range map[byte]string{
		0x20: "021f8a566c205633d029094747d2e18f44e05993dda7a5f88f496078205f656e59",
		0x60: "0334695541ee6485387a26fc35196106d9f5571e72a674e09f5ae0b1671aed801f",
		0xc0: "038693b1adff46f391282a63dfc033f40a1cc22e504ebe957ef6e7b5c2c22433be",
	} {
		k := encryption(t, ascending(from))
		if p := k.Public().Bytes(); hex.EncodeToString(p[:]) != want {
			t.Errorf("scalar from %#x: public key %x, want %s", from, p, want)
		}
		if p, err := key.ParseEncryptionPublic(unhex(t, want)); err != nil || p != k.Public() {
			t.Errorf("scalar from %#x: %v", from, err)
		}
		if !bytes.Equal(k.Scalar(), ascending(from)) {
			t.Errorf("scalar from %#x: another scalar comes back", from)
		}
	}
	p := signing(t, ascending(0)).Public()
	if got, want := p.String(), "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"; got != want {
		t.Errorf("the record's form is %s, want %s", got, want)
	}
}

func TestSignVerify(t *testing.T) {
	k, msg := signing(t, ascending(0)), []byte("the message")
	sig := k.Sign(msg)
	if !k.Public().Verify(msg, sig) {
		t.Fatal("an honest signature does not verify")
	}
	if signing(t, ascending(1)).Public().Verify(msg, sig) {
		t.Error("another key verifies")
	}
	for i := range sig {
		bad := bytes.Clone(sig)
		bad[i] ^= 1
		if k.Public().Verify(msg, bad) {
			t.Errorf("octet %d of the signature is free", i)
		}
	}
	if k.Public().Verify(msg, sig[:63]) || k.Public().Verify(msg, append(sig, 0)) || k.Public().Verify(msg, nil) {
		t.Error("a signature of a wrong length verifies")
	}
	if (key.SigningPublic{}).Verify(msg, make([]byte, 64)) {
		t.Error("zeros verify")
	}
	identity := key.SigningPublic{1}
	if identity.Verify(msg, append(identity[:], make([]byte, 32)...)) {
		t.Error("the identity verifies everything")
	}
}

func TestParseSigningPublicRefuses(t *testing.T) {
	p := "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f" // 2^255-19
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"31 octets":                    {strings.Repeat("11", 31), key.ErrKeyFormat},
		"33 octets":                    {"40" + strings.Repeat("11", 32), key.ErrKeyFormat},
		"none":                         {"", key.ErrKeyFormat},
		"identity, order 1":            {"01" + strings.Repeat("00", 31), key.ErrKeyValue},
		"identity, x = -0":             {"01" + strings.Repeat("00", 30) + "80", key.ErrKeyValue},
		"order 2":                      {"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", key.ErrKeyValue},
		"order 4":                      {strings.Repeat("00", 32), key.ErrKeyValue},
		"order 4, other sign":          {strings.Repeat("00", 31) + "80", key.ErrKeyValue},
		"order 8":                      {"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", key.ErrKeyValue},
		"order 8, other sign":          {"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", key.ErrKeyValue},
		"order 8, second":              {"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", key.ErrKeyValue},
		"order 8, second, other sign":  {"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", key.ErrKeyValue},
		"y = p, that is 0":             {p, key.ErrKeyValue},
		"y = p+1, that is 1":           {"ee" + p[2:], key.ErrKeyValue},
		"y = p+3, a point if reduced":  {"f0" + p[2:], key.ErrKeyValue},
		"y = 2^255-1":                  {strings.Repeat("ff", 31) + "7f", key.ErrKeyValue},
		"y = 2, not on the curve":      {"02" + strings.Repeat("00", 31), key.ErrKeyValue},
		"y = 2, not on it, other sign": {"02" + strings.Repeat("00", 30) + "80", key.ErrKeyValue},
	} {
		if _, err := key.ParseSigningPublic(unhex(t, c.in)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestParseEncryptionPublicRefuses(t *testing.T) {
	x := "34695541ee6485387a26fc35196106d9f5571e72a674e09f5ae0b1671aed801f"
	for name, in := range map[string]string{
		"none":            "",
		"infinity":        "00",
		"x alone":         x,
		"prefix 04":       "04" + x,
		"hybrid prefix":   "06" + x,
		"format octet 04": "0403" + x,
		"uncompressed":    "04" + x + x,
		"x not on it":     "02" + strings.Repeat("00", 31) + "05",
		"x = p":           "02fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f",
		"x above p":       "02" + strings.Repeat("ff", 32),
	} {
		if _, err := key.ParseEncryptionPublic(unhex(t, in)); !errors.Is(err, key.ErrKeyValue) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewKeysRefuse(t *testing.T) {
	order := unhex(t, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"short":           {order[:31], key.ErrKeyFormat},
		"long":            {append(bytes.Clone(order), 0), key.ErrKeyFormat},
		"zero":            {make([]byte, 32), key.ErrKeyValue},
		"the group order": {order, key.ErrKeyValue},
		"all ones":        {bytes.Repeat([]byte{0xff}, 32), key.ErrKeyValue},
	} {
		if _, err := key.NewEncryption(c.in); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	order[31]--
	encryption(t, order)
	if _, err := key.NewSigning(make([]byte, 31)); !errors.Is(err, key.ErrKeyFormat) {
		t.Errorf("short seed: %v", err)
	}
}

func TestECDH(t *testing.T) {
	a, b := encryption(t, ascending(0x20)), encryption(t, ascending(0x60))
	if a.ECDH(b.Public()) != b.ECDH(a.Public()) {
		t.Error("the two sides differ")
	}
	// the generator times 1 has the generator's own x
	oneKey := encryption(t, append(make([]byte, 31), 1))
	g := oneKey.Public().Bytes()
	if x := oneKey.ECDH(oneKey.Public()); !bytes.Equal(x[:], g[1:]) {
		t.Errorf("1·G: %x", x)
	}
	for n := range 2000 { // among so many points some have an x that begins with a zero octet, which must stay
		k := encryption(t, append(make([]byte, 30), byte((n+1)>>8), byte(n+1)))
		if want := k.Public().Bytes(); want[1] == 0 {
			if x := k.ECDH(oneKey.Public()); !bytes.Equal(x[:], want[1:]) {
				t.Fatalf("%d·G: %x", n+1, x)
			}
			return
		}
	}
	t.Error("no x begins with a zero octet")
}

func TestGenerate(t *testing.T) {
	a, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := key.GeneratePair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if a.Equal(b) || a.Signing.Equal(b.Signing) || a.Encryption.Equal(b.Encryption) || !a.Equal(a) {
		t.Error("Equal is wrong")
	}
	broken := errors.New("no entropy")
	if _, err := key.GeneratePair(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("broken randomness: %v", err)
	}
	if _, err := key.GeneratePair(bytes.NewReader(make([]byte, 40))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short randomness: %v", err)
	}
	// the first draw is above the group order, the second is taken
	draws := io.MultiReader(bytes.NewReader(bytes.Repeat([]byte{0xff}, 32)), bytes.NewReader(ascending(0x20)))
	if k, err := key.GenerateEncryption(draws); err != nil || !k.Equal(encryption(t, ascending(0x20))) {
		t.Errorf("a bad draw is not drawn again: %v", err)
	}
}

func TestDestroy(t *testing.T) {
	p := key.Pair{Signing: signing(t, ascending(0)), Encryption: encryption(t, ascending(0x20))}
	copied := p
	p.Destroy()
	if !copied.Signing.IsZero() || !copied.Encryption.IsZero() || copied.Equal(copied) {
		t.Error("a copy lives on")
	}
	(key.Pair{}).Destroy()
	for name, f := range map[string]func(){
		"Sign":      func() { copied.Signing.Sign(nil) },
		"zero Sign": func() { key.Signing{}.Sign(nil) },
		"ECDH":      func() { copied.Encryption.ECDH(encryption(t, ascending(0x20)).Public()) },
		"zero peer": func() { encryption(t, ascending(0x20)).ECDH(key.EncryptionPublic{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s works without a key", name)
				}
			}()
			f()
		}()
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	p := key.Pair{Signing: signing(t, ascending(0)), Encryption: encryption(t, ascending(0x20))}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+verb, p, &p, p.Signing, p.Encryption)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "pair", p, "signing", p.Signing, "encryption", p.Encryption)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "pair", p, "signing", p.Signing, "encryption", p.Encryption)
	for _, secret := range [][]byte{ascending(0), ascending(0x20)} {
		for _, form := range []string{string(secret[4:8]), hex.EncodeToString(secret[4:8]), fmt.Sprint(secret[4:8])[1:8]} {
			if strings.Contains(strings.ToLower(out.String()), form) {
				t.Errorf("a secret shows as %q", form)
			}
		}
	}
}
