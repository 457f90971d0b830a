package message_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha512"
	"testing"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
)

// The bare operations are what the format cannot do without, on inputs of the same sizes: key agreement, signatures, hashes,
// AES. The metric x-bare is how many times as long ours takes, measured turn by turn in one run.

var benchSizes = []struct {
	name string
	size int
}{{"1KB", 1 << 10}, {"10KB", 10 << 10}, {"1MB", 1 << 20}}

func benchContent(size int) *message.Content {
	c := contentOf(make([]byte, size))
	c.Other = make([]byte, 500)
	return c
}

// versus runs both and reports the ratio.
func versus(b *testing.B, size int, ours, bare func()) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var took, least time.Duration
	for b.Loop() {
		start := time.Now()
		ours()
		took += time.Since(start)
		b.StopTimer()
		start = time.Now()
		bare()
		least += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(float64(took)/float64(least), "x-bare")
}

// A shape is what the bare operations need to know of a message.
type shape struct {
	w      *world
	chunks []message.ChunkInfo
	whole  []byte
	author key.Signing
	sigOf  map[int][]byte // by length of what is signed
	public key.EncryptionPublic
	block  cipher.Block
	iv     [16]byte
	buf    []byte
}

func newShape(w *world, m *message.Message) *shape {
	s := &shape{w: w, whole: m.Body()[6:], author: w.keys[message.Author].Signing, sigOf: map[int][]byte{}, buf: make([]byte, len(m.Bytes()))}
	for _, c := range m.Chunks() {
		s.chunks = append(s.chunks, c)
	}
	e, err := key.GenerateEncryption(rand.Reader)
	if err != nil {
		panic(err)
	}
	s.public = e.Public()
	s.block, _ = aes.NewCipher(make([]byte, 32))
	return s
}

// upTo is how many octets the chunks up to type t have.
func (s *shape) upTo(t message.Type) (n int) {
	for _, c := range s.chunks {
		if c.Type <= t {
			n += len(c.Octets)
		}
	}
	return n
}

func (s *shape) sign(n int) { s.author.Sign(s.whole[:n]) }

func (s *shape) verify(n int) {
	if s.sigOf[n] == nil {
		s.sigOf[n] = s.author.Sign(s.whole[:n])
	}
	if !s.author.Public().Verify(s.whole[:n], s.sigOf[n]) {
		panic("the benchmark's own signature does not hold")
	}
}

// encrypt is AES of n octets under a new key, and of some slots under one whose schedule is there; decrypt is of one slot.
func (s *shape) encrypt(n, slots int) {
	block, _ := aes.NewCipher(s.buf[:32])
	cipher.NewCBCEncrypter(block, s.iv[:]).CryptBlocks(s.buf[:n], s.buf[:n])
	for range slots {
		cipher.NewCBCEncrypter(s.block, s.iv[:]).CryptBlocks(s.buf[:64], s.buf[:64])
	}
}

func (s *shape) decrypt(n int) {
	cipher.NewCBCDecrypter(s.block, s.iv[:]).CryptBlocks(s.buf[:64], s.buf[:64])
	block, _ := aes.NewCipher(s.buf[:32])
	cipher.NewCBCDecrypter(block, s.iv[:]).CryptBlocks(s.buf[:n], s.buf[:n])
}

// compose is the bare work of an author: one key pair, four agreements, for each chunk a signature or hash, and AES.
func (s *shape) compose() {
	e, err := key.GenerateEncryption(rand.Reader)
	if err != nil {
		panic(err)
	}
	e.Public()
	for range 4 {
		x := e.ECDH(s.public)
		sha512.Sum512(x[:])
	}
	for _, c := range s.chunks {
		slots := (len(c.Octets) - 4 - c.Payload) / 64
		switch {
		case c.Type <= message.TypeEphemeral:
			sha512.Sum512(c.Octets)
			continue
		case c.Type <= message.TypeAttachment:
			s.sign(c.Payload - 64)
			sha512.Sum512(c.Octets)
		}
		s.encrypt(c.Payload, slots)
	}
	s.sign(64 * len(s.chunks))
	s.sign(s.upTo(message.TypeAuthorTree))
}

// open is the bare work of a recipient: one agreement, AES of every chunk, nine signatures and the hashes of the tree.
func (s *shape) open() {
	e := s.w.keys[message.Recipient].Encryption
	x := e.ECDH(s.public)
	sha512.Sum512(x[:])
	for _, c := range s.chunks {
		if c.Type > message.TypeEphemeral {
			s.decrypt(c.Payload)
		}
		if c.Type <= message.TypeAttachment {
			sha512.Sum512(c.Octets)
		}
		if c.Type > message.TypeEphemeral && c.Type <= message.TypeAttachment {
			s.verify(c.Payload - 64)
		}
	}
	for _, n := range []int{64 * len(s.chunks), s.upTo(message.TypeAuthorTree), s.upTo(message.TypeOther), s.upTo(message.TypeDisplay), s.upTo(message.TypeDisplayBounce)} {
		s.verify(n)
	}
}

func BenchmarkAuthor(b *testing.B) {
	w := plainWorld(b)
	for _, size := range benchSizes {
		b.Run(size.name, func(b *testing.B) {
			c := benchContent(size.size)
			s := newShape(w, w.compose(b, c))
			versus(b, size.size, func() {
				if _, err := message.Compose(rand.Reader, w.Parties, c, w.keys[message.Author].Signing); err != nil {
					b.Fatal(err)
				}
			}, s.compose)
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	w := plainWorld(b)
	for _, size := range benchSizes {
		b.Run(size.name, func(b *testing.B) {
			m := w.compose(b, benchContent(size.size))
			s := newShape(w, m)
			versus(b, size.size, func() {
				if _, _, err := w.read(m.Bytes(), message.Recipient); err != nil {
					b.Fatal(err)
				}
			}, s.open)
		})
	}
}

// BenchmarkOrigin opens, verifies and signs; BenchmarkDestination opens and verifies. Both without a ratio.
func BenchmarkOrigin(b *testing.B) {
	w := plainWorld(b)
	for _, size := range benchSizes {
		b.Run(size.name, func(b *testing.B) {
			m, err := message.Compose(rand.Reader, w.Parties, benchContent(size.size), w.keys[message.Author].Signing)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size.size))
			for b.Loop() {
				w.sign(b, m.Bytes())
			}
		})
	}
}

func BenchmarkDestination(b *testing.B) {
	w := plainWorld(b)
	for _, size := range benchSizes {
		b.Run(size.name, func(b *testing.B) {
			m := w.compose(b, benchContent(size.size))
			b.SetBytes(int64(size.size))
			for b.Loop() {
				if _, _, err := w.read(m.Bytes(), message.Destination); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
