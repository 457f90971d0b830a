package message_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// layerWorld is a world whose users have keys of suites of the alternate layer.
type layerWorld struct {
	*world
	author, recipient []message.LayerKey
}

// offer is how a user advertises his keys.
type offer struct {
	suites         []message.SuiteID
	always, commit bool
	strip, swap    bool // the field 251 of a commitment is left out, or holds another key
	multi          bool // all four read messages of many parts
}

func newLayerWorld(tb testing.TB, author, recipient offer) *layerWorld {
	tb.Helper()
	extensions := ""
	if recipient.multi {
		extensions = "dmime-multi"
	}
	w := &layerWorld{world: newWorld(tb, "alice@origin.example", "bob@destination.example", extensions)}
	make := func(o offer, a, of message.Actor, p *message.Party) (keys []message.LayerKey) {
		var r signet.RequestDetails
		d := signet.Details{Name: p.Name}
		if o.multi {
			d.Fields = []signet.Field{{ID: 26, Value: []byte("dmime-multi")}}
		}
		for _, id := range o.suites {
			k, err := message.GenerateLayerKey(id)
			if err != nil {
				tb.Fatal(err)
			}
			field3, named := k.Advertise(o.always, o.commit)
			r.Layers = append(r.Layers, field3)
			if o.swap {
				other, err := message.GenerateLayerKey(id)
				if err != nil {
					tb.Fatal(err)
				}
				_, named = other.Advertise(false, true)
			}
			if named != nil && !o.strip {
				d.Fields = append(d.Fields, *named)
			}
			keys = append(keys, k)
		}
		s, err := signet.NewUser(w.keys[a], r, w.keys[of].Signing, d)
		if err != nil {
			tb.Fatal(err)
		}
		p.Signet = s
		return keys
	}
	w.author = make(author, message.Author, message.Origin, &w.Author)
	w.recipient = make(recipient, message.Recipient, message.Destination, &w.Recipient)
	return w
}

// open is what a user does who has keys of the layer.
func (w *layerWorld) open(b []byte, a message.Actor, keys []message.LayerKey) (*message.Content, message.SuiteID, error) {
	o, _, err := w.read(b, a)
	if o == nil || err != nil && !errors.Is(err, message.AltNoKey) && !errors.Is(err, message.AltAuth) && !errors.Is(err, message.AltUnknown) {
		return nil, 0, err
	}
	o.UseLayer(keys...)
	c, err := o.Content()
	return c, o.Layer(), err
}

var opportunistic = message.Layer{Mode: message.LayerOpportunistic, Bucket: 256}

// TestLayerKeysApart: a recorded message, and one of the two keys: the content stays closed.
func TestLayerKeysApart(t *testing.T) {
	has := offer{suites: message.Suites()}
	w := newLayerWorld(t, has, has)
	secret := []byte("the merger closes on Friday, under two keys")
	m, err := message.ComposeLayered(rand.Reader, w.Parties, contentOf(secret), w.keys[message.Author].Signing, opportunistic)
	if err != nil {
		t.Fatal(err)
	}
	b := w.sign(t, m.Bytes()).Bytes()
	t.Run("outer key alone", func(t *testing.T) {
		o, _, err := w.read(b, message.Recipient)
		if !errors.Is(err, message.AltNoKey) {
			t.Fatalf("%v, want AltNoKey", err)
		}
		if r := o.Report(); r.AuthorFull != message.Valid || r.OriginFull != message.Valid {
			t.Error("the outer signatures are not reported")
		}
	})
	t.Run("inner key alone", func(t *testing.T) {
		thief := newLayerWorld(t, offer{}, offer{}) // its outer keys are others
		parsed, err := message.Parse(b, message.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		o, err := parsed.Open(message.Recipient, thief.keys[message.Recipient].Encryption)
		if err == nil {
			o.UseLayer(w.recipient...)
			err = o.Verify(w.seen(message.Recipient))
			if c, cerr := o.Content(); c != nil || cerr == nil {
				t.Error("content without the outer key")
			}
		}
		if !errors.Is(err, message.NotAuthentic) {
			t.Errorf("%v, want not authentic", err)
		}
	})
	t.Run("another's inner key", func(t *testing.T) {
		if _, _, err := w.open(b, message.Recipient, w.author); !errors.Is(err, message.AltNoKey) {
			t.Errorf("%v, want AltNoKey", err)
		}
	})
	t.Run("both", func(t *testing.T) {
		c, used, err := w.open(b, message.Recipient, w.recipient)
		if err != nil || used != message.SuiteHybridAES || !bytes.Equal(c.Display[0].Data, secret) {
			t.Errorf("%v under %v", err, used)
		}
	})
}

func TestLayerKeyDoesNotPrint(t *testing.T) {
	k, err := message.GenerateLayerKey(message.SuiteX25519)
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
		if s := fmt.Sprintf(verb, k); s != "[secret]" {
			t.Errorf("%s prints %d characters", verb, len(s))
		}
	}
	again, err := message.ParseLayerKey(message.SuiteX25519, b)
	if err != nil {
		t.Fatal(err)
	}
	one, _ := k.Advertise(false, false)
	if two, _ := again.Advertise(false, false); !bytes.Equal(one, two) {
		t.Error("another key came back")
	}
}

// BenchmarkLayer is what the layer costs author and recipient: x-plain is how many times as long as without it, of each the shortest
// turn, since others may work on the machine.
func BenchmarkLayer(b *testing.B) {
	for _, size := range benchSizes {
		for _, id := range message.Suites() {
			b.Run(fmt.Sprintf("%s/%04x", size.name, uint16(id)), func(b *testing.B) {
				has := offer{suites: []message.SuiteID{id}}
				w := newLayerWorld(b, has, has)
				c := benchContent(size.size)
				turn := func(l message.Layer) time.Duration {
					start := time.Now()
					m, err := message.ComposeLayered(rand.Reader, w.Parties, c, w.keys[message.Author].Signing, l)
					if err != nil {
						b.Fatal(err)
					}
					took := time.Since(start)
					signed := w.sign(b, m.Bytes()).Bytes()
					start = time.Now()
					parsed, err := message.Parse(signed, unlimited)
					if err != nil {
						b.Fatal(err)
					}
					o, err := parsed.Open(message.Recipient, w.keys[message.Recipient].Encryption)
					if err != nil {
						b.Fatal(err)
					}
					if err := o.Verify(w.seen(message.Recipient)); err != nil {
						b.Fatal(err)
					}
					o.UseLayer(w.recipient...)
					if _, err := o.Content(); err != nil {
						b.Fatal(err)
					}
					return took + time.Since(start)
				}
				with, without := time.Hour, time.Hour
				for b.Loop() {
					with = min(with, turn(opportunistic))
					without = min(without, turn(message.Layer{}))
				}
				b.ReportMetric(float64(with)/float64(without), "x-plain")
			})
		}
	}
}
