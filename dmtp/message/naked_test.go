package message_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
)

// The vector was made by magma's own code, and checked by an independent decoder (dmime.md Appendix A.2).
const (
	nakedDestination = "22c1cd193cb8e5684874cada44b053eebf9652684a268a60e6238c03451f3709" // scalar
	nakedPOK         = "fd162dc58dfd66509c88dc29496e203f49dfaeaa490f58e0b6a520e0105fdcce" // seed
	nakedRecipient   = "e447f3f9da38165f0af11c83d7f14163218dbcc398580d0b108e77f626accc65" // scalar
	nakedVector      = `B3QAAAY4AQAARQEg7co15uli+bE5a2bxwoSupoeMXfnxRNRlJxFiRo+IsCkCIQNasw5rUP8LrZlZ1TM/yKwITUbx50exbfstZ+HaMm9vBiAAAS
ALDpURcZV9qyEoFQXCfv8T3Nbg6QHMZuXXEmDF58eYULIOVA+bBzoZBsHsDz/MTdLE904b4K+HGN4hUQsBrzPgEM50KIv5NZOi4raM3cmJjbT5
CP/gRPjpr1qCEAoOW1RowO1GQDE6AX5K59Bpopoqwx12ll3zmiRpki11x9S+QEwKgOg4WOOncIfRezqOes1rI4xzZL/ZgaoHFRPgXUofqbJFtE
53IQ7fK1e9b2A1vmrBegBvSKaeTzrWMSTSU3gd4HCKVpD1dPAKZ4eUX4GGxZJBP21zOz7fsFYO+a8rcQbQDts/Opkvu9doSTRVRz2AVhozPOVH
XphVqhj9RLqe7pLeN0xgXFp81MPUSy34pSmLkV2MkQyYFhhbh6SRT/IAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAKYyhhlGSkaCYr
1EWa0JHfVpK77LS427lE3bdPMmYixQIQABIJP0vrkmcUfbCnC2WGEirmvHs3EZPHpHB3jx9jynsdL0r+aG9ofo/7u6Fmg5ceKE5AMeU9dQVWX2
7ASDINllENesOKZAJZr17BYcYuVhUWPIHeMaIPW0mwH1BquMQDjB+ZEU8uP2yj0hq5BdAITwaN8IvrNw6AxKOylidE+R2Wu1r9QAHsZKSg5s1z
Wht8cccZQwSJIibRXyVUNcJtAiqYAteu9t75LeYTk/Oy0qBPihCsQqHXR6uHUUvvcqiHX3pkfntw/WnpiGrsv/vJKGvE6ftYmnLujqsyEj8phI
nWFpB/ZmaY00KzI4gZOEEoq4OWZoO9Vo9C273KG99cIodh5rvOZPmizSJ/w/GBK8ZSkfo7UPX+pxawjwW7QZIz4MCwAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAxEdjrJcWpK7vf1Go1WnaE1TI1u1Mdw6xipjA4j98AcwwAAEg9GI3cMWRR7KaGptDb0PD/tYsP72mKC7xFuwVTTi5
vpRFsbcKdyzlDKBSIvsGiY5lvzG+v5DSs2hOFvnyT0akgs6IFl8EEMICDwuvSg/iX4WRDqb+GjFvovTie5+sNCtsGvY6nypozGqD50ECJfH5OF
ebktjUyMpyq1A339NYNSHod+xIeOMn95HmYwc6d+LyA+HJxbYBRbUmLIurbZr8FZ0uhGgxtosjR61OkX3utkKZbzX4Q6vh204/fAFCcgoXSCyz
/gM/TzFQhwwdlRk92Sz5saFVN8b+qTTzo9fo0JrmF/6YgRYh5yzEvXauh6uCztKGT6LqGqMExn+GLH4KSIMPWDBAuogNW/SIEQu7yspyNX8022
zGOJ9U9b1yss4NAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAKcyECLV7PGAsHoDWLeYVC6Bb1l1uux4l6rxMYv8QqLeBPmf0QhGfp
4RPeYv/otlRQiqOZ/2YRXI6k0S8AaH3IeomXz52wv66FotSCGQv+ujGrTS8uQcHMK0J6iogjpf21AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPx4Sq9Ogk7uDe/k3akewrjtGPvZgrp/ixpRmQ3BgGqC4Z1GelxJaD5dJkBy
IydwTKh+uK0w/9bDh2hKf8yL3N0Mn0+f8ihlHQtf1wX1H1yTScsExR4iDrHWLeVLU7qpa3MAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAeMcHa7x0fAVxm/2EVpl//k4Q4NJQOP1pqesWwa6ShM//TbkzfdwjJ1XA3Eq0L7ye
KUUHuu4SH9Yte21gWBUG8MbRbyRZYW9uVRqgm6sKqCZDVwLd6aKuwvUxJ1q9qEwSUThUJlULtd+bNjIFwDnkHYkR2JlYOGSV4sbLaV0CF37xzX
B5WDdGo0wpByqBOb7CxwMqgKv0slBVsZXjPbr4YDw=`
	nakedHeader = "From: Alice <alice@smtp.example>\r\nTo: bob@destination.example\r\nSubject: Vector\r\n two\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\n"
	nakedBody   = "Hello Bob.\r\n"
)

type nakedWorld struct {
	wire                   []byte
	destination, recipient key.Encryption
	pok                    key.Signing
}

func newNakedWorld(tb testing.TB) (w nakedWorld) {
	tb.Helper()
	octets := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	var errs [4]error
	w.wire, errs[0] = base64.StdEncoding.DecodeString(nakedVector) // which skips line ends
	w.destination, errs[1] = key.NewEncryption(octets(nakedDestination))
	w.recipient, errs[2] = key.NewEncryption(octets(nakedRecipient))
	w.pok, errs[3] = key.NewSigning(octets(nakedPOK))
	if err := errors.Join(errs[:]...); err != nil {
		tb.Fatal(err)
	}
	return w
}

func TestVectorsNaked(t *testing.T) {
	w := newNakedWorld(t)
	n, err := message.OpenNaked(w.wire, message.Limits{}, w.recipient, w.pok.Public())
	if err != nil {
		t.Fatal(err)
	}
	if string(n.Header) != nakedHeader || string(n.Body) != nakedBody || !bytes.Contains(n.Common, []byte("Subject: Vector two\n")) {
		t.Error("another mail")
	}
}

// TestNakedForged: what is not the stored message is refused.
func TestNakedForged(t *testing.T) {
	w := newNakedWorld(t)
	open := func(b []byte, k key.Encryption, pok key.Signing) error {
		n, err := message.OpenNaked(b, message.Limits{}, k, pok.Public())
		if (n == nil) != (err != nil) {
			t.Error("content beside an error, or neither")
		}
		return err
	}
	t.Run("every octet changed", func(t *testing.T) {
		for i := range w.wire {
			b := bytes.Clone(w.wire)
			b[i] ^= 1
			// Of the signature of the organisation nobody signs the slots; magma's destination slot is read by nobody here.
			if i >= len(b)-64 && i < len(b)-32 {
				continue
			}
			if open(b, w.recipient, w.pok) == nil {
				t.Errorf("octet %d of %d changed, and it opens", i, len(b))
			}
		}
	})
	t.Run("every cut", func(t *testing.T) {
		for i := range w.wire {
			if open(w.wire[:i:i], w.recipient, w.pok) == nil {
				t.Errorf("cut to %d octets, and it opens", i)
			}
		}
	})
	other, err := key.NewSigning(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		err  error
		want error
	}{
		"another organisation":       {open(w.wire, w.recipient, other), message.SigOrigin},
		"the organisation's key":     {open(w.wire, w.destination, w.pok), message.NotAuthentic},
		"octets behind":              {open(append(bytes.Clone(w.wire), 0), w.recipient, w.pok), message.BadLength},
		"another number":             {open(append([]byte{7, 0x37}, w.wire[2:]...), w.recipient, w.pok), message.BadMagic},
		"no key":                     {open(w.wire, key.Encryption{}, w.pok), message.NoSlot},
		"Parse names it, refuses it": {second(message.Parse(w.wire, message.Limits{})), message.UnsupportedVariant},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if !errors.Is(tt.err, tt.want) {
				t.Errorf("%v, want %v", tt.err, tt.want)
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzNaked(f *testing.F) {
	w := newNakedWorld(f)
	f.Add(w.wire)
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := message.OpenNaked(b, message.Limits{}, w.recipient, w.pok.Public())
		if (n == nil) != (err != nil) {
			t.Error("content beside an error, or neither")
		}
	})
}
