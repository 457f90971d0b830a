package message

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"strconv"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/internal/vectors"
)

// kekVector is a kek as the vectors write it.
type kekVector struct{ IV, Key vectors.Hex }

func (v kekVector) kek() kek {
	return kek{iv: [ivSize]byte(v.IV), block: newAES(v.Key)}
}

// encrypts tells two keks apart by what they make of one block, for a key schedule shows no key.
func (e *kek) encrypts() string {
	out := make([]byte, 2*blockSize)
	cipher.NewCBCEncrypter(e.block, e.iv[:]).CryptBlocks(out, make([]byte, len(out)))
	return string(out)
}

func (v kekVector) equal(k kek) bool {
	want := v.kek()
	return want.iv == k.iv && want.encrypts() == k.encrypts()
}

func primitives[T any](t *testing.T, name string) T {
	t.Helper()
	set := vectors.Open(t)
	type cryptoPart struct{ File, Checked string }
	return vectors.JSONPart[T](t, set, vectors.Part[cryptoPart](t, set, "crypto").File, name)
}

func numbered[T any](list []T) func(T) string {
	n := -1
	return func(T) string { n++; return strconv.Itoa(n) }
}

func TestVectorsKEK(t *testing.T) {
	type vector struct {
		PrivA  vectors.Hex `json:"priv_a"`
		PubA   vectors.Hex `json:"pub_a"`
		PrivB  vectors.Hex `json:"priv_b"`
		PubB   vectors.Hex `json:"pub_b"`
		X      vectors.Hex `json:"ecdh_x"`
		SHA512 vectors.Hex `json:"sha512_of_x"`
		KEKIV  vectors.Hex `json:"kek_iv"`
		KEKKey vectors.Hex `json:"kek_key"`
	}
	list := primitives[[]vector](t, "ecdh_kek")
	vectors.Each(t, list, numbered(list), func(t *testing.T, v vector) {
		for _, side := range []struct{ private, public, peer vectors.Hex }{{v.PrivA, v.PubA, v.PubB}, {v.PrivB, v.PubB, v.PubA}} {
			k, err := key.NewEncryption(side.private)
			if err != nil {
				t.Fatal(err)
			}
			if p := k.Public().Bytes(); !bytes.Equal(p[:], side.public) {
				t.Errorf("public key %x", p)
			}
			peer, err := key.ParseEncryptionPublic(side.peer)
			if err != nil {
				t.Fatal(err)
			}
			if x := k.ECDH(peer); !bytes.Equal(x[:], v.X) {
				t.Errorf("x %x", x)
			}
			if !(kekVector{v.KEKIV, v.KEKKey}).equal(agree(k, peer)) {
				t.Error("another kek")
			}
		}
		if h := sha512.Sum512(v.X); !bytes.Equal(h[:], v.SHA512) {
			t.Errorf("hash %x", h)
		}
	})
}

func TestVectorsSlots(t *testing.T) {
	type vector struct {
		KEKIV  vectors.Hex `json:"kek_iv"`
		KEKKey vectors.Hex `json:"kek_key"`
		Random vectors.Hex
		IV     vectors.Hex `json:"payload_iv"`
		Key    vectors.Hex `json:"payload_key"`
		Plain  vectors.Hex `json:"slot_plaintext"`
		Slot   vectors.Hex
	}
	list := primitives[[]vector](t, "keyslot_wrap")
	vectors.Each(t, list, numbered(list), func(t *testing.T, v vector) {
		k := kekVector{v.KEKIV, v.KEKKey}.kek()
		inner := chunkKey{[ivSize]byte(v.IV), [keySize]byte(v.Key)}
		slot := k.wrap([]byte("before"), v.Random, &inner)
		if string(slot) != "before"+string(v.Slot) {
			t.Errorf("slot %x", slot)
		}
		if got := k.unwrap(v.Slot); got != inner {
			t.Errorf("unwrapped to %x", got)
		}
		plain := make([]byte, slotSize)
		cipher.NewCBCDecrypter(k.block, k.iv[:]).CryptBlocks(plain, v.Slot)
		if !bytes.Equal(plain, v.Plain) {
			t.Errorf("plain slot %x", plain)
		}
	})
}

func TestVectorsPadding(t *testing.T) {
	list := primitives[[][5]int](t, "padding") // flags, data length, random octet, padding length, pad octet
	name := func(v [5]int) string { return fmt.Sprintf("flags%d-data%d-random%d", v[0], v[1], v[2]) }
	vectors.Each(t, list, name, func(t *testing.T, v [5]int) {
		length, octet := padding(byte(v[0]), v[1], byte(v[2]))
		if length != v[3] || int(octet) != v[4] {
			t.Errorf("%d octets of %d, want %d of %d", length, octet, v[3], v[4])
		}
	})
}

func TestVectorsChunks(t *testing.T) {
	type vector struct {
		Type         Type
		Flags        byte
		Data         vectors.Hex
		Seed         vectors.Hex `json:"author_sign_seed"`
		Public       vectors.Hex `json:"author_sign_pub"`
		KEKs         map[string]kekVector
		RandomStream vectors.Hex `json:"random_stream"`
		StreamUse    string      `json:"random_stream_use"`
		Plain        vectors.Hex `json:"payload_plaintext"`
		Chunk        vectors.Hex
	}
	list := primitives[[]vector](t, "chunks")
	vectors.Each(t, list, numbered(list), func(t *testing.T, v vector) {
		author, err := key.NewSigning(v.Seed)
		if err != nil {
			t.Fatal(err)
		}
		if p := author.Public(); !bytes.Equal(p[:], v.Public) {
			t.Errorf("public key %x", p)
		}
		random := bytes.NewReader(v.RandomStream)
		w := &composer{rand: random, author: author, m: new(Message)}
		for a, n := range actorNames {
			w.keks[a] = v.KEKs[n].kek()
		}
		if kinds[v.Type].form == signature {
			err = w.signature(v.Type, v.Data)
		} else {
			err = w.standard(typedPart{v.Type, Part{v.Flags, v.Data}})
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(w.m.raw, v.Chunk) {
			t.Errorf("chunk\n%x, want\n%x", w.m.raw, v.Chunk)
		}
		if random.Len() != 0 {
			t.Errorf("%d random octets not drawn", random.Len())
		}
		for a := range w.keks { // and back, for every actor with a slot
			if !kinds[v.Type].slots.has(Actor(a)) {
				continue
			}
			o := &Opened{m: w.m, actor: Actor(a), kek: w.keks[a]}
			if plain := o.decrypt(w.m.chunks[0]); !bytes.Equal(plain, v.Plain) {
				t.Errorf("%v decrypts to %x", Actor(a), plain)
			}
			if kinds[v.Type].form == signature {
				continue
			}
			p, err := unpad(v.Type, bytes.Clone(v.Plain))
			if err != nil || !bytes.Equal(p.data, v.Data) || p.flags != v.Flags || !author.Public().Verify(p.signed(), p.signature()) {
				t.Errorf("%v: %v, data %x", Actor(a), err, p.data)
			}
		}
	})
}

// TestVectorsCryptoParts fails when the file has a part that no test knows: those of key and signet are used there.
func TestVectorsCryptoParts(t *testing.T) {
	set := vectors.Open(t)
	type cryptoPart struct{ File, Checked string }
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(set.File(t, vectors.Part[cryptoPart](t, set, "crypto").File), &parts); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"ecdh_kek": true, "keyslot_wrap": true, "padding": true, "chunks": true, "notes": true,
		"ed25519": true, "ed25519_edge": true, "crc24_base64": true}
	for name := range parts {
		if !known[name] {
			t.Errorf("part %q is used by no test", name)
		}
	}
}

// TestPaddingLimits: whatever the random octet, what padding makes is within the payload, and unpad takes it.
func TestPaddingLimits(t *testing.T) {
	sizes := []int{1, 2, 11, 186, 187, 188, 4096, 16776890, 16776891, MaxData - 16, MaxData - 1, MaxData}
	for _, size := range sizes {
		for _, flags := range []byte{0, flagAltPadding} {
			seen := map[int]bool{}
			for r := range 256 {
				length, octet := padding(flags, size, byte(r))
				payload := standardHeader + size + length
				if payload%blockSize != 0 || payload > maxPayload || length < 1 {
					t.Fatalf("data %d, random %d: padding %d, payload %d", size, r, length, payload)
				}
				if seen[length] || size > 1<<20 {
					continue
				}
				seen[length] = true
				b := make([]byte, payload)
				putUint24(b[signatureSize:], size)
				b[signatureSize+3], b[signatureSize+4] = flags, octet
				for i := payload - length; i < payload; i++ {
					b[i] = octet
				}
				if p, err := unpad(TypeDisplay, b); err != nil || len(p.data) != size {
					t.Fatalf("data %d, random %d: %v", size, r, err)
				}
			}
		}
	}
}

// FuzzPlain: no plain payload panics, and what is taken from one is a part of it. This is what a hostile author can reach.
func FuzzPlain(f *testing.F) {
	chunk4 := OriginChunk{Author: "a@a.example", Destination: "b.example"}
	for _, data := range [][]byte{chunk4.encode(), someContent().Common, {1}} {
		for _, flags := range []byte{0, flagAltPadding, flagGzip} {
			length, octet := padding(flags, len(data), 3)
			payload := make([]byte, standardHeader, standardHeader+len(data)+length)
			putUint24(payload[signatureSize:], len(data))
			payload[signatureSize+3], payload[signatureSize+4] = flags, octet
			payload = append(append(payload, data...), bytes.Repeat([]byte{octet}, length)...)
			for _, t := range []Type{TypeOrigin, TypeDestination, TypeCommon, TypeDisplay} {
				f.Add(byte(t), payload)
			}
		}
	}
	f.Fuzz(func(t *testing.T, typ byte, payload []byte) {
		if kinds[typ].form != standard || len(payload) < standardHeader {
			return // Parse lets no such payload through
		}
		p, err := unpad(Type(typ), payload)
		if err != nil {
			return
		}
		if len(p.data) == 0 || !bytes.Contains(payload[standardHeader:], p.data) {
			t.Error("data from elsewhere")
		}
		if c, err := decodeOrigin(p.data); err == nil && !bytes.Equal(c.encode(), p.data) {
			t.Errorf("chunk 4 encodes differently: %q", p.data)
		}
		if c, err := decodeDestination(p.data); err == nil && !bytes.Equal(c.encode(), p.data) {
			t.Errorf("chunk 5 encodes differently: %q", p.data)
		}
		if checkCommon(p.data) == nil && !bytes.HasSuffix(p.data, []byte("\r\n")) {
			t.Error("chunk 33 without its last CRLF")
		}
		o := &Opened{m: &Message{limits: Limits{Unzipped: 1 << 16}.withDefaults()}}
		if b, err := o.unzip(Type(typ), p.data); err == nil && (len(b) > 1<<16 || len(b) > 200*len(p.data)) {
			t.Errorf("%d octets out of %d", len(b), len(p.data))
		}
	})
}
