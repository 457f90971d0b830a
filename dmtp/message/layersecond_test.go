package message_test

// A second implementation of the alternate layer, written from dmime.md §17 with other authors' libraries: HPKE and X-Wing of
// circl, HKDF of x/crypto, the ciphers of x/crypto and the standard library. It shares nothing with the package, and reads
// docs/vectors from the octets of each message on.

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/cloudflare/circl/hpke"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/hkdf"
)

type secondSuite struct {
	kem   hpke.KEM
	aead  hpke.AEAD
	gcm   bool
	nonce int
}

var secondSuites = map[string]secondSuite{
	"0101": {hpke.KEM_X25519_HKDF_SHA256, hpke.AEAD_ChaCha20Poly1305, false, 24},
	"0201": {hpke.KEM_XWING, hpke.AEAD_AES256GCM, true, 12},
	"0202": {hpke.KEM_XWING, hpke.AEAD_ChaCha20Poly1305, false, 24},
}

func (s secondSuite) cipher(key []byte) (cipher.AEAD, error) {
	if !s.gcm {
		return chacha20poly1305.NewX(key)
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// secondBox opens one key box.
func (s secondSuite) secondBox(private, info, sealed []byte) ([]byte, error) {
	sk, err := s.kem.Scheme().UnmarshalBinaryPrivateKey(private)
	if err != nil {
		return nil, err
	}
	n := s.kem.Scheme().CiphertextSize()
	receiver, err := hpke.NewSuite(s.kem, hpke.KDF_HKDF_SHA512, s.aead).NewReceiver(sk, info)
	if err != nil {
		return nil, err
	}
	opener, err := receiver.Setup(sealed[:n])
	if err != nil {
		return nil, err
	}
	return opener.Open(sealed[n:], nil)
}

// secondLayer takes the layer off every chunk of a message, of whose chunks the outer encryption is off. It returns the secret,
// each box's info, and of each chunk all that stands in a vector.
func secondLayer(suite string, id uint16, actor byte, private, e, author, recipient []byte, chunks []*plainChunk) (ams []byte, infos, ids [][]byte, out []vectorChunk, err error) {
	s := secondSuites[suite]
	index := map[byte]uint32{}
	for _, c := range chunks {
		if c.t != 33 && c.t != 34 && c.t != 67 && c.t != 131 {
			continue
		}
		d := c.data
		if c.flags&2 == 0 || d[0] != 1 || binary.BigEndian.Uint16(d[1:]) != id {
			return nil, nil, nil, nil, fmt.Errorf("chunk %d is not wrapped under %s", c.t, suite)
		}
		p := 5
		if c.t == 33 {
			if d[3] != 0 {
				return nil, nil, nil, nil, errors.New("no boxes in chunk 33")
			}
			for range d[4] {
				who, size := d[p], int(binary.BigEndian.Uint16(d[p+9:]))
				info := bytes.Join([][]byte{[]byte("DIME-ALT-1 box"), {byte(id >> 8), byte(id)}, e, {who}, author, recipient}, nil)
				infos, ids = append(infos, info), append(ids, d[p+1:p+9])
				if who == actor {
					if ams, err = s.secondBox(private, info, d[p+11:p+11+size]); err != nil {
						return nil, nil, nil, nil, err
					}
				}
				p += 11 + size
			}
		} else if d[3] != 1 || d[4] != 33 {
			return nil, nil, nil, nil, fmt.Errorf("mode of chunk %d", c.t)
		}
		n := index[c.t]
		index[c.t]++
		okm := make([]byte, 32+s.nonce)
		info := append([]byte("DIME-ALT-1 chunk"), byte(id>>8), byte(id), c.t, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		if _, err := io.ReadFull(hkdf.New(sha512.New, ams, e, info), okm); err != nil {
			return nil, nil, nil, nil, err
		}
		aad := append(bytes.Clone(d[:p]), c.t, byte(n>>24), byte(n>>16), byte(n>>8), byte(n), c.flags)
		aead, err := s.cipher(okm[:32])
		if err != nil {
			return nil, nil, nil, nil, err
		}
		inner, err := aead.Open(nil, okm[32:], d[p:], aad)
		if err != nil {
			return nil, nil, nil, nil, fmt.Errorf("chunk %d: %w", c.t, err)
		}
		length := binary.BigEndian.Uint32(inner)
		out = append(out, vectorChunk{c.t, n, c.flags, d, d[:p], okm[:32], okm[32:], aad, inner, inner[4 : 4+length]})
	}
	return ams, infos, ids, out, nil
}

// signetKey finds the owner's signing key in a signet of dialect A: field 1, a fixed field.
func signetKey(b []byte) ed25519.PublicKey {
	const first = 5 // magic 2, length 3
	for i := first; i+34 <= len(b); i++ {
		if b[i] == 1 && b[i+1] == 33 && b[i+2] == 0x40 {
			return ed25519.PublicKey(b[i+3 : i+35])
		}
	}
	return nil
}

// TestVectorsLayerSecond: a second implementation opens every vector, as both readers, and meets the same values on its way.
func TestVectorsLayerSecond(t *testing.T) {
	for _, v := range readLayerVectors(t) {
		for actor, name := range map[byte]string{0: "author", 3: "recipient"} {
			t.Run(v.Suite+" as "+name, func(t *testing.T) {
				me := v.Parties[name]
				author, origin := signetKey(v.Parties["author"].Signet), signetKey(v.Parties["origin"].Signet)
				if author == nil || origin == nil {
					t.Fatal("no signing key in a signet")
				}
				chunks, err := plainOpen(v.Message, map[byte]string{0: "A", 3: "R"}[actor], me.Encryption, author, origin)
				if err != nil {
					t.Fatal(err)
				}
				var id uint16
				fmt.Sscanf(v.Suite, "%x", &id)
				ams, infos, ids, out, err := secondLayer(v.Suite, id, actor, me.Private, chunks[0].payload, v.Parties["author"].Fingerprint, v.Parties["recipient"].Fingerprint, chunks)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(ams, v.Secret) || !bytes.Equal(chunks[0].payload, v.Point) {
					t.Errorf("secret %x, E %x", ams, chunks[0].payload)
				}
				for i, b := range v.Boxes {
					public := v.Parties[map[byte]string{0: "author", 3: "recipient"}[b.Actor]].Public
					if h := sha512.Sum512(public); !bytes.Equal(infos[i], b.Info) || !bytes.Equal(ids[i], b.KeyID) || !bytes.Equal(h[:8], b.KeyID) {
						t.Errorf("box %d: info %x, key id %x", i, infos[i], ids[i])
					}
				}
				if got, want := fmt.Sprintf("%x", out), fmt.Sprintf("%x", v.Chunks); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		}
	}
}
