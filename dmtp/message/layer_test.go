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
	strip          bool // the field 251 of a commitment is left out
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

// TestLayerMatrix: suites × what can become of a wrapped message (dmime.md §17.5).
func TestLayerMatrix(t *testing.T) {
	for _, id := range message.Suites() {
		t.Run(fmt.Sprintf("%04x", uint16(id)), func(t *testing.T) { layerMatrix(t, id) })
	}
}

func layerMatrix(t *testing.T, id message.SuiteID) {
	both := offer{suites: []message.SuiteID{id}}
	w := newLayerWorld(t, both, both)
	content := contentOf([]byte("the merger closes on Friday\r\n"))
	keep := func(_ message.Type, flags byte, data []byte) (byte, []byte) { return flags, data }
	first := func(at int, to byte) func(message.Type, byte, []byte) (byte, []byte) {
		return func(typ message.Type, flags byte, data []byte) (byte, []byte) {
			if typ == message.TypeCommon {
				data[at] = to
			}
			return flags, data
		}
	}
	var elsewhere []byte // chunk 34 of the same message
	var replayed []byte  // chunk 33 of another message between the same two
	grab := func(typ message.Type, flags byte, data []byte) (byte, []byte) {
		if typ == message.TypeCommon {
			replayed = bytes.Clone(data)
		}
		return flags, data
	}
	if _, err := message.ComposeChanged(rand.Reader, w.Parties, content, w.keys[message.Author].Signing, opportunistic, grab); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(message.Type, byte, []byte) (byte, []byte)
		want   error // of both readers
	}{
		"both sides":                            {keep, nil},
		"tampered header: version":              {first(0, 2), message.AltUnknown},
		"tampered header: suite unknown":        {first(1, 0x7F), message.AltUnknown},
		"tampered header: mode unknown":         {first(3, 9), message.AltUnknown},
		"tampered header: mode without boxes":   {first(3, 1), message.AltAuth},
		"tampered header: box for another":      {first(5, 2), message.AltAuth},
		"missing box: none":                     {dropBoxes(0), message.AltNoKey},
		"moved box: author's under recipient's": {swapActors, message.AltAuth},
		"box outside chunk 33": {func(typ message.Type, f byte, d []byte) (byte, []byte) {
			if typ == message.TypeOther {
				d[3] = 0
			}
			return f, d
		}, message.AltAuth},
		"replayed box in another message": {func(typ message.Type, f byte, d []byte) (byte, []byte) {
			if typ == message.TypeCommon {
				d = replayed
			}
			return f, d
		}, message.AltAuth},
		"wrapped and unwrapped mixed": {func(typ message.Type, f byte, d []byte) (byte, []byte) {
			if typ == message.TypeDisplay {
				return 0, []byte("plain")
			}
			return f, d
		}, message.AltAuth},
		"flag without a layer": {func(typ message.Type, f byte, d []byte) (byte, []byte) { return f, []byte("Subject: text\r\n") }, message.AltUnknown},
		"ciphertext changed": {func(typ message.Type, f byte, d []byte) (byte, []byte) {
			if typ == message.TypeDisplay {
				d[len(d)-1] ^= 1
			}
			return f, d
		}, message.AltAuth},
		"chunk's ciphertext under another type": {func(typ message.Type, f byte, d []byte) (byte, []byte) {
			if typ == message.TypeOther {
				elsewhere = bytes.Clone(d)
			}
			if typ == message.TypeDisplay {
				d = elsewhere
			}
			return f, d
		}, message.AltAuth},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			draft, err := message.ComposeChanged(rand.Reader, w.Parties, content, w.keys[message.Author].Signing, opportunistic, tt.change)
			if err != nil {
				t.Fatal(err)
			}
			b := w.sign(t, draft.Bytes()).Bytes() // the origin, which may be a reference server, sees no difference
			if _, _, err := w.read(b, message.Destination); err != nil {
				t.Errorf("destination: %v", err)
			}
			for _, r := range []struct {
				a    message.Actor
				keys []message.LayerKey
			}{{message.Author, w.author}, {message.Recipient, w.recipient}} {
				got, used, err := w.open(b, r.a, r.keys)
				if !errors.Is(err, tt.want) || (got == nil) != (err != nil) {
					t.Errorf("%v: %v, want %v", r.a, err, tt.want)
				}
				if err == nil && (used != id || !bytes.Equal(got.Display[0].Data, content.Display[0].Data) || !bytes.Equal(got.Common, content.Common)) {
					t.Errorf("%v: other content, or under %v", r.a, used)
				}
			}
		})
	}
	layerSides(t, id, content)
}

// layerSides are the cases in which the signets decide.
func layerSides(t *testing.T, id message.SuiteID, content *message.Content) {
	has := offer{suites: []message.SuiteID{id}}
	required := message.Layer{Mode: message.LayerRequired}
	other := message.SuiteX25519
	if id == other {
		other = message.SuiteHybridAES
	}
	tests := map[string]struct {
		author, recipient offer
		layer             message.Layer
		wrapped           bool
		compose           error
		authorReads       error
	}{
		"recipient alone has a key":                {offer{}, has, opportunistic, true, nil, message.AltNoKey},
		"author alone has a key":                   {has, offer{}, opportunistic, false, nil, nil},
		"reference recipient, required":            {has, offer{}, required, false, message.AltPolicy, nil},
		"off":                                      {has, has, message.Layer{}, false, nil, nil},
		"off, and the owner asks always":           {has, offer{suites: has.suites, always: true}, message.Layer{}, false, message.AltPolicy, nil},
		"downgraded signet, required":              {has, offer{suites: []message.SuiteID{other}}, message.Layer{Mode: message.LayerRequired, Suites: has.suites}, false, message.AltPolicy, nil},
		"no common suite, opportunistic":           {has, has, message.Layer{Mode: message.LayerOpportunistic, Suites: []message.SuiteID{other}}, false, nil, nil},
		"commitment with field 251":                {has, offer{suites: has.suites, commit: true}, required, true, nil, nil},
		"removed field 251, required":              {has, offer{suites: has.suites, commit: true, strip: true}, required, false, message.AltPolicy, nil},
		"removed field 251, the owner asks always": {has, offer{suites: has.suites, commit: true, strip: true, always: true}, opportunistic, false, message.AltPolicy, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newLayerWorld(t, tt.author, tt.recipient)
			m, err := message.ComposeLayered(rand.Reader, w.Parties, content, w.keys[message.Author].Signing, tt.layer)
			if !errors.Is(err, tt.compose) || (m == nil) != (err != nil) {
				t.Fatalf("compose: %v, want %v", err, tt.compose)
			}
			if err != nil {
				return
			}
			b := w.sign(t, m.Bytes()).Bytes()
			got, used, err := w.open(b, message.Recipient, w.recipient)
			if err != nil || (used != 0) != tt.wrapped || !bytes.Equal(got.Display[0].Data, content.Display[0].Data) {
				t.Errorf("recipient: %v, under %v", err, used)
			}
			if _, _, err := w.open(b, message.Author, w.author); !errors.Is(err, tt.authorReads) {
				t.Errorf("author: %v, want %v", err, tt.authorReads)
			}
		})
	}
}

// dropBoxes leaves n key boxes of chunk 33.
func dropBoxes(n int) func(message.Type, byte, []byte) (byte, []byte) {
	return func(typ message.Type, flags byte, d []byte) (byte, []byte) {
		if typ != message.TypeCommon {
			return flags, d
		}
		at := 5
		for range d[4] {
			at += 11 + int(d[at+9])<<8 + int(d[at+10])
		}
		return flags, append([]byte{d[0], d[1], d[2], d[3], byte(n)}, d[at:]...)
	}
}

// swapActors exchanges what the two boxes hold: each reader finds the other's under his own name.
func swapActors(typ message.Type, flags byte, d []byte) (byte, []byte) {
	if typ == message.TypeCommon {
		const first = 5 + 11
		size := int(d[first-2])<<8 + int(d[first-1])
		second := first + size + 11
		x := bytes.Clone(d[first : first+size])
		copy(d[first:], d[second:second+size])
		copy(d[second:], x)
	}
	return flags, d
}

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

// BenchmarkLayer is what the layer costs author and recipient: x-plain is how many times as long as without it.
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
				var with, without time.Duration
				for b.Loop() {
					with += turn(opportunistic)
					without += turn(message.Layer{})
				}
				b.ReportMetric(float64(with)/float64(without), "x-plain")
			})
		}
	}
}
