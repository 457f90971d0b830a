package message_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// matrixCases is what can become of the layer, for each suite (dmime.md §17.5). TestLayerMatrix runs every variant of every case
// under every suite, and fails when a case has none or a variant belongs to no case.
var matrixCases = []string{
	"both sides", "one side", "reference server between", "reference recipient", "tampered header",
	"missing box", "moved box", "replayed box in another message", "downgraded signet", "removed field 251",
}

// A variant is one way in which a case comes about.
type variant struct {
	of, name string // the case, and what is special
	run      func(*layerCell, *testing.T)
}

// A layerCell is what the variants of one suite share: two users who have keys of it.
type layerCell struct {
	*layerWorld
	suite   message.SuiteID
	content *message.Content
}

func TestLayerMatrix(t *testing.T) {
	variants := slices.Concat(changed(), sides(), []variant{
		{"reference server between", "origin and destination read it as the reference does", (*layerCell).referenceServers},
		{"reference recipient", "gets what the reference writes", (*layerCell).referenceRecipient},
		{"reference recipient", "given a wrapped message, reads nothing of it", (*layerCell).referenceGivenLayer},
		{"tampered header", "any octet of it, by the author himself", (*layerCell).anyHeaderOctet},
		{"tampered header", "on the way", (*layerCell).tamperedOnTheWay},
		{"downgraded signet", "field 3 taken out by the organisation", (*layerCell).strippedByOrganisation},
		{"downgraded signet", "sent to, and met by the recipient's own", (*layerCell).metByOwnSignet},
	})
	ran := map[string]int{}
	for _, id := range message.Suites() {
		has := offer{suites: []message.SuiteID{id}}
		x := &layerCell{newLayerWorld(t, has, has), id, contentOf([]byte("the merger closes on Friday\r\n"))}
		t.Run(id.Digits(), func(t *testing.T) {
			for _, v := range variants {
				t.Run(v.of+"/"+v.name, func(t *testing.T) { v.run(x, t) })
				ran[id.Digits()+"/"+v.of]++
			}
		})
	}
	for _, id := range message.Suites() {
		for _, c := range matrixCases {
			if ran[id.Digits()+"/"+c] == 0 {
				t.Errorf("%s under %s is not covered", c, id.Digits())
			}
			delete(ran, id.Digits()+"/"+c)
		}
	}
	for _, c := range slices.Sorted(maps.Keys(ran)) {
		t.Errorf("%s is no case of the matrix", c)
	}
}

// A change is what a hostile author does with a chunk before he signs it.
type change func(typ message.Type, flags byte, data []byte) (byte, []byte)

// only changes the data of one type of chunk.
func only(typ message.Type, f func(data []byte) []byte) change {
	return func(t message.Type, flags byte, data []byte) (byte, []byte) {
		if t == typ {
			data = f(data)
		}
		return flags, data
	}
}

// octet sets one octet of chunk 33.
func octet(at int, to byte) change {
	return only(message.TypeCommon, func(b []byte) []byte { b[at] = to; return b })
}

// compose is what the author sends, and what the origin makes of it.
func (x *layerCell) compose(t *testing.T, f change) []byte {
	t.Helper()
	draft, err := message.ComposeChanged(rand.Reader, x.Parties, x.content, x.keys[message.Author].Signing, opportunistic, f)
	if err != nil {
		t.Fatal(err)
	}
	return x.sign(t, draft.Bytes()).Bytes()
}

func (x *layerCell) honest(t *testing.T) []byte {
	t.Helper()
	return x.compose(t, func(_ message.Type, flags byte, data []byte) (byte, []byte) { return flags, data })
}

// grab is the data of a chunk of another message between the same two.
func (x *layerCell) grab(t *testing.T, typ message.Type) (data []byte) {
	t.Helper()
	x.compose(t, only(typ, func(b []byte) []byte { data = bytes.Clone(b); return b }))
	return data
}

// reads opens a message as author and recipient, who get the content under the suite, or nothing beside the error wanted. What
// servers and outer signatures have to say is as with any message.
func (x *layerCell) reads(t *testing.T, b []byte, author, recipient error) {
	t.Helper()
	if _, _, err := x.layerWorld.read(b, message.Destination); err != nil {
		t.Errorf("destination: %v", err)
	}
	for _, r := range []struct {
		a    message.Actor
		keys []message.LayerKey
		want error
	}{{message.Author, x.author, author}, {message.Recipient, x.recipient, recipient}} {
		got, used, err := x.open(b, r.a, r.keys)
		if !errors.Is(err, r.want) || (got == nil) != (err != nil) {
			t.Errorf("%v: %v, want %v", r.a, err, r.want)
		}
		if err == nil && (used != x.suite || !bytes.Equal(got.Display[0].Data, x.content.Display[0].Data) || !bytes.Equal(got.Common, x.content.Common)) {
			t.Errorf("%v: other content, or under %v", r.a, used)
		}
		if o, _, _ := x.layerWorld.read(b, r.a); o == nil || o.Report().AuthorFull != message.Valid || o.Report().OriginFull != message.Valid {
			t.Errorf("%v: the outer signatures are not reported", r.a)
		}
	}
}

// changed are the cases in which chunks of a message are not what they should be.
func changed() (list []variant) {
	for _, c := range []struct {
		of, name          string
		f                 func(*testing.T, *layerCell) change
		author, recipient error
	}{
		{"both sides", "author and recipient read it", with(func(_ message.Type, f byte, d []byte) (byte, []byte) { return f, d }), nil, nil},
		{"tampered header", "version", with(octet(0, 2)), message.AltUnknown, message.AltUnknown},
		{"tampered header", "no layer under the flag", with(func(_ message.Type, f byte, _ []byte) (byte, []byte) { return f, []byte("Subject: text\r\n") }), message.AltUnknown, message.AltUnknown},
		{"tampered header", "suite unknown", with(octet(1, 0x7F)), message.AltUnknown, message.AltUnknown},
		{"tampered header", "suite changed in one chunk", func(_ *testing.T, x *layerCell) change {
			return only(message.TypeDisplay, func(b []byte) []byte {
				binary.BigEndian.PutUint16(b[1:], uint16(x.another()))
				return b
			})
		}, message.AltAuth, message.AltAuth},
		{"tampered header", "mode unknown", with(octet(3, 9)), message.AltUnknown, message.AltUnknown},
		{"tampered header", "mode without boxes", with(octet(3, 1)), message.AltAuth, message.AltAuth},
		{"tampered header", "box for another actor", with(octet(5, 2)), message.AltAuth, message.AltAuth},
		{"tampered header", "flag taken from one chunk", with(func(typ message.Type, f byte, d []byte) (byte, []byte) {
			if typ == message.TypeDisplay {
				return 0, []byte("plain")
			}
			return f, d
		}), message.AltAuth, message.AltAuth},
		{"tampered header", "ciphertext behind it", with(only(message.TypeDisplay, func(b []byte) []byte { b[len(b)-1] ^= 1; return b })), message.AltAuth, message.AltAuth},
		{"missing box", "both", with(boxes(func([]box) []box { return nil })), message.AltNoKey, message.AltNoKey},
		{"missing box", "the author's", with(boxes(func(b []box) []box { return b[1:] })), message.AltNoKey, message.AltAuth},
		{"missing box", "the recipient's", with(boxes(func(b []box) []box { return b[:1] })), message.AltAuth, message.AltNoKey},
		{"moved box", "under the other's name", with(boxes(func(b []box) []box { b[0].sealed, b[1].sealed = b[1].sealed, b[0].sealed; return b })), message.AltAuth, message.AltAuth},
		{"moved box", "with key id, under the other's name", with(boxes(func(b []box) []box { b[0].actor, b[1].actor = b[1].actor, b[0].actor; return b })), message.AltNoKey, message.AltNoKey},
		{"moved box", "to another chunk", with(only(message.TypeOther, func(b []byte) []byte { b[3] = 0; return b })), message.AltAuth, message.AltAuth},
		{"moved box", "twice for one", with(boxes(func(b []box) []box { return []box{b[1], b[1]} })), message.AltAuth, message.AltAuth},
		{"moved box", "ciphertext to another type of chunk", func(t *testing.T, x *layerCell) change {
			var elsewhere []byte // chunk 34 of the same message
			return func(typ message.Type, f byte, d []byte) (byte, []byte) {
				if typ == message.TypeOther {
					elsewhere = bytes.Clone(d)
				}
				if typ == message.TypeDisplay {
					d = elsewhere
				}
				return f, d
			}
		}, message.AltAuth, message.AltAuth},
		{"replayed box in another message", "boxes alone", func(t *testing.T, x *layerCell) change {
			old, _ := takeApart(x.grab(t, message.TypeCommon))
			return boxes(func([]box) []box { return old })
		}, message.AltAuth, message.AltAuth},
		{"replayed box in another message", "with its chunk", func(t *testing.T, x *layerCell) change {
			old := x.grab(t, message.TypeCommon)
			return only(message.TypeCommon, func([]byte) []byte { return old })
		}, message.AltAuth, message.AltAuth},
		{"replayed box in another message", "a chunk without boxes", func(t *testing.T, x *layerCell) change {
			old := x.grab(t, message.TypeDisplay)
			return only(message.TypeDisplay, func([]byte) []byte { return old })
		}, message.AltAuth, message.AltAuth},
	} {
		list = append(list, variant{c.of, c.name, func(x *layerCell, t *testing.T) { x.reads(t, x.compose(t, c.f(t, x)), c.author, c.recipient) }})
	}
	return list
}

// with is a change that needs nothing.
func with(f change) func(*testing.T, *layerCell) change {
	return func(*testing.T, *layerCell) change { return f }
}

// another is a suite that is not the cell's.
func (x *layerCell) another() message.SuiteID {
	if x.suite == message.SuiteX25519 {
		return message.SuiteHybridAES
	}
	return message.SuiteX25519
}

// sides are the cases in which the signets decide.
func sides() (list []variant) {
	required := message.Layer{Mode: message.LayerRequired}
	none := func(message.SuiteID) offer { return offer{} }
	has := func(id message.SuiteID) offer { return offer{suites: []message.SuiteID{id}} }
	always := func(id message.SuiteID) offer { return offer{suites: []message.SuiteID{id}, always: true} }
	committed := func(id message.SuiteID) offer { return offer{suites: []message.SuiteID{id}, commit: true} }
	stripped := func(id message.SuiteID) offer { return offer{suites: []message.SuiteID{id}, commit: true, strip: true} }
	for _, c := range []struct {
		of, name          string
		author, recipient func(message.SuiteID) offer
		layer             message.Layer
		other             bool // the administrator's only suite is another one
		wrapped           bool
		compose, authored error
	}{
		{"both sides", "required", has, has, required, false, true, nil, nil},
		{"both sides", "off", has, has, message.Layer{}, false, false, nil, nil},
		{"both sides", "off, and the owner asks always", has, always, message.Layer{}, false, false, message.AltPolicy, nil},
		{"both sides", "no common suite", has, has, opportunistic, true, false, nil, nil},
		{"both sides", "no common suite, and the owner asks always", has, always, opportunistic, true, false, message.AltPolicy, nil},
		{"one side", "the recipient alone has a key", none, has, opportunistic, false, true, nil, message.AltNoKey},
		{"one side", "the author alone has a key", has, none, opportunistic, false, false, nil, nil},
		{"one side", "the recipient alone has a key, required", none, has, required, false, true, nil, message.AltNoKey},
		{"reference recipient", "required", has, none, required, false, false, message.AltPolicy, nil},
		{"reference recipient", "off", has, none, message.Layer{}, false, false, nil, nil},
		{"downgraded signet", "without the suite that is required", has, none, required, false, false, message.AltPolicy, nil},
		{"downgraded signet", "with another suite than the required one", has, has, required, true, false, message.AltPolicy, nil},
		{"removed field 251", "it is there", has, committed, required, false, true, nil, nil},
		{"removed field 251", "required", has, stripped, required, false, false, message.AltPolicy, nil},
		{"removed field 251", "opportunistic", has, stripped, opportunistic, false, false, message.AltPolicy, nil},
		{"removed field 251", "off", has, stripped, message.Layer{}, false, false, nil, nil},
		{"removed field 251", "the owner asks always", has, func(id message.SuiteID) offer {
			return offer{suites: []message.SuiteID{id}, commit: true, strip: true, always: true}
		}, message.Layer{}, false, false, message.AltPolicy, nil},
		{"removed field 251", "another key in its place", has, func(id message.SuiteID) offer {
			return offer{suites: []message.SuiteID{id}, commit: true, swap: true}
		}, opportunistic, false, false, message.AltPolicy, nil},
	} {
		list = append(list, variant{c.of, c.name, func(x *layerCell, t *testing.T) {
			w := newLayerWorld(t, c.author(x.suite), c.recipient(x.suite))
			layer := c.layer
			layer.Suites = []message.SuiteID{x.suite}
			if c.other {
				layer.Suites = []message.SuiteID{x.another()}
			}
			m, err := message.ComposeLayered(rand.Reader, w.Parties, x.content, w.keys[message.Author].Signing, layer)
			if !errors.Is(err, c.compose) || (m == nil) != (err != nil) {
				t.Fatalf("compose: %v, want %v", err, c.compose)
			}
			if err != nil {
				return
			}
			b := w.sign(t, m.Bytes()).Bytes()
			got, used, err := w.open(b, message.Recipient, w.recipient)
			if err != nil || (used != 0) != c.wrapped || !bytes.Equal(got.Display[0].Data, x.content.Display[0].Data) {
				t.Errorf("recipient: %v, under %v", err, used)
			}
			if _, _, err := w.open(b, message.Author, w.author); !errors.Is(err, c.authored) {
				t.Errorf("author: %v, want %v", err, c.authored)
			}
		}})
	}
	return list
}

// plainly opens a message as an actor who reads as the reference does: independent_test.go.
func (x *layerCell) plainly(b []byte, a message.Actor) ([]*plainChunk, error) {
	author, origin := x.keys[message.Author].Signing.Public(), x.keys[message.Origin].Signing.Public()
	return plainOpen(b, "AODR"[a:a+1], x.keys[a].Encryption.Scalar(), author[:], origin[:])
}

// referenceServers: both servers accept what they would accept without the layer, and see of the content as little.
func (x *layerCell) referenceServers(t *testing.T) {
	b := x.honest(t)
	for _, a := range []message.Actor{message.Origin, message.Destination} {
		chunks, err := x.plainly(b, a)
		if err != nil {
			t.Fatalf("%v: %v", a, err)
		}
		for _, c := range chunks {
			if c.t >= 33 && c.t <= 131 && c.data != nil || c.standard && c.flags != 0 {
				t.Errorf("%v sees chunk %d, flags %d", a, c.t, c.flags)
			}
		}
	}
	x.reads(t, b, nil, nil)
}

// referenceRecipient: one whose signet offers nothing gets no flag, and reads.
func (x *layerCell) referenceRecipient(t *testing.T) {
	y := &layerCell{newLayerWorld(t, offer{suites: []message.SuiteID{x.suite}}, offer{}), x.suite, x.content}
	m, err := message.ComposeLayered(rand.Reader, y.Parties, y.content, y.keys[message.Author].Signing, opportunistic)
	if err != nil {
		t.Fatal(err)
	}
	chunks, err := y.plainly(y.sign(t, m.Bytes()).Bytes(), message.Recipient)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		if c.flags != 0 || c.t == 33 && !bytes.Equal(c.data, y.content.Common) || c.t == 67 && !bytes.Equal(c.data, y.content.Display[0].Data) {
			t.Errorf("chunk %d, flags %d: not what was written", c.t, c.flags)
		}
	}
}

// referenceGivenLayer: the outer scheme opens and verifies, and what lies there is no header and no text.
func (x *layerCell) referenceGivenLayer(t *testing.T) {
	chunks, err := x.plainly(x.honest(t), message.Recipient)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		if c.t >= 33 && c.t <= 131 && (c.flags != 2 || bytes.Contains(c.data, []byte("merger")) || bytes.Contains(c.data, []byte("Subject:"))) {
			t.Errorf("chunk %d, flags %d: shown", c.t, c.flags)
		}
	}
}

// anyHeaderOctet: there is no octet of the header, of what is sealed in it three for each box, whose change shows content.
func (x *layerCell) anyHeaderOctet(t *testing.T) {
	list, _ := takeApart(x.grab(t, message.TypeCommon))
	places := []int{0, 1, 2, 3, 4}
	for start := 5; len(list) > 0; list = list[1:] {
		for at := range 11 {
			places = append(places, start+at)
		}
		n := len(list[0].sealed)
		places = append(places, start+11, start+11+n/2, start+11+n-1)
		start += 11 + n
	}
	for _, at := range places {
		b := x.compose(t, only(message.TypeCommon, func(d []byte) []byte { d[at] ^= 1; return d }))
		for _, r := range []struct {
			a    message.Actor
			keys []message.LayerKey
		}{{message.Author, x.author}, {message.Recipient, x.recipient}} {
			c, _, err := x.open(b, r.a, r.keys)
			if c != nil || !errors.Is(err, message.AltUnknown) && !errors.Is(err, message.AltNoKey) && !errors.Is(err, message.AltAuth) {
				t.Fatalf("octet %d, %v: %v, %v", at, r.a, c != nil, err)
			}
		}
	}
}

// tamperedOnTheWay: who cannot sign for the author breaks the outer scheme first.
func (x *layerCell) tamperedOnTheWay(t *testing.T) {
	b := x.honest(t)
	m, err := message.Parse(b, message.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, c := range m.Chunks() {
		if c.Type == message.TypeCommon {
			at = bytes.Index(b, c.Octets)
		}
	}
	for _, off := range []int{4, 4 + 64 + 5, 200} {
		bad := bytes.Clone(b)
		bad[at+off] ^= 1
		if c, _, err := x.open(bad, message.Recipient, x.recipient); c != nil || !errors.Is(err, message.NotAuthentic) {
			t.Errorf("octet %d: %v", off, err)
		}
	}
}

// strippedByOrganisation: one that signs for its user cannot take a field 3 out, since the user signed it, too.
func (x *layerCell) strippedByOrganisation(t *testing.T) {
	org := x.keys[message.Destination].Signing
	keep := withoutLayer(x.Recipient.Signet, org, false)
	cut := withoutLayer(x.Recipient.Signet, org, true)
	for name, s := range map[string]struct {
		octets []byte
		want   error
	}{"nothing taken out": {keep, nil}, "field 3 taken out": {cut, key.ErrSignature}} {
		parsed, err := signet.Parse(s.octets)
		if err != nil {
			t.Fatal(err)
		}
		if err := parsed.VerifyUser(x.Destination.Signet); !errors.Is(err, s.want) {
			t.Errorf("%s: %v, want %v", name, err, s.want)
		}
	}
}

// withoutLayer is a user signet in the crypto form, signed anew by the organisation, with or without field 3.
func withoutLayer(s *signet.Signet, org key.Signing, cut bool) []byte {
	var body []byte
	for _, f := range s.Fields() {
		switch {
		case f.ID == signet.FieldAlternateKey && cut || f.ID >= signet.FieldUserCertified:
			continue
		case f.ID == signet.FieldSigningKey:
			body = append(body, f.ID, byte(len(f.Value)))
		case f.ID == signet.FieldUserSignature:
			body = append(body, f.ID)
		default:
			body = append(body, f.ID, byte(len(f.Value)>>8), byte(len(f.Value)))
		}
		body = append(body, f.Value...)
	}
	body = append(append(body, signet.FieldUserCertified), org.Sign(body)...)
	return append([]byte{byte(signet.User >> 8), byte(signet.User & 0xFF), 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

// metByOwnSignet: what was written to a signet without the layer does not pass for mail to the recipient's own.
func (x *layerCell) metByOwnSignet(t *testing.T) {
	down, err := signet.NewUser(x.keys[message.Recipient], signet.RequestDetails{}, x.keys[message.Destination].Signing, signet.Details{Name: x.Recipient.Name})
	if err != nil {
		t.Fatal(err)
	}
	w := *x.world
	w.Recipient.Signet = down
	m, err := message.ComposeLayered(rand.Reader, w.Parties, x.content, w.keys[message.Author].Signing, opportunistic)
	if err != nil {
		t.Fatal(err)
	}
	b := w.sign(t, m.Bytes()).Bytes()
	if c, _, err := x.open(b, message.Recipient, x.recipient); c != nil || !errors.Is(err, message.FingerprintMismatch) {
		t.Errorf("%v, want FingerprintMismatch", err)
	}
}

// A box is one key box of chunk 33, taken apart by the text of the specification.
type box struct {
	actor  byte
	id     [8]byte
	sealed []byte
}

// takeApart reads the boxes of a chunk 33, and how long its header is.
func takeApart(d []byte) (list []box, size int) {
	size = 5
	for range d[4] {
		n := int(binary.BigEndian.Uint16(d[size+9:]))
		list = append(list, box{d[size], [8]byte(d[size+1:]), bytes.Clone(d[size+11 : size+11+n])})
		size += 11 + n
	}
	return list, size
}

// boxes changes the boxes of chunk 33. It leaves the ciphertext, whose tag covers the header.
func boxes(f func([]box) []box) change {
	return only(message.TypeCommon, func(d []byte) []byte {
		list, size := takeApart(d)
		list = f(list)
		out := append(bytes.Clone(d[:4]), byte(len(list)))
		for _, b := range list {
			out = append(append(out, b.actor), b.id[:]...)
			out = append(binary.BigEndian.AppendUint16(out, uint16(len(b.sealed))), b.sealed...)
		}
		return append(out, d[size:]...)
	})
}
