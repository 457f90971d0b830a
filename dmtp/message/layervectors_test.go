package message_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

var update = flag.Bool("update", false, "write docs/vectors/alternate-layer.json anew")

const layerVectorFile = "../../docs/vectors/alternate-layer.json"

// octets are hex in JSON.
type octets []byte

func (o octets) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(o)), nil }
func (o *octets) UnmarshalText(b []byte) (err error) {
	*o, err = hex.DecodeString(string(b))
	return err
}

// A layerVector is one message under one suite, with all that stands between its octets and its content.
type layerVector struct {
	Suite   string                 `json:"suite"` // hexadecimal
	Name    string                 `json:"name"`
	Parties map[string]vectorParty `json:"parties"` // author, origin, destination, recipient
	Message octets                 `json:"message"`
	Point   octets                 `json:"ephemeral"` // E
	Secret  octets                 `json:"ams"`
	Boxes   []vectorBox            `json:"boxes"`
	Chunks  []vectorChunk          `json:"chunks"`
}

type vectorParty struct {
	Name        string `json:"name"`
	Signet      octets `json:"signet"`
	Encryption  octets `json:"encryption_scalar"`
	Signing     octets `json:"signing_seed"`
	Fingerprint octets `json:"fingerprint,omitempty"`   // of users
	Private     octets `json:"layer_private,omitempty"` // of users, as HPKE serializes it
	Public      octets `json:"layer_public,omitempty"`
}

type vectorBox struct {
	Actor  byte   `json:"actor"` // 0 author, 3 recipient
	KeyID  octets `json:"key_id"`
	Info   octets `json:"info"`
	Sealed octets `json:"sealed"`
}

type vectorChunk struct {
	Type   byte   `json:"type"`
	Index  uint32 `json:"index"`
	Flags  byte   `json:"flags"`
	Data   octets `json:"data"` // after the outer decryption: header, ciphertext, tag
	Header octets `json:"header"`
	Key    octets `json:"key"`
	Nonce  octets `json:"nonce"`
	AAD    octets `json:"aad"`
	Inner  octets `json:"inner"` // true length, content, fill
	Plain  octets `json:"plain"`
}

func readLayerVectors(tb testing.TB) (list []layerVector) {
	tb.Helper()
	b, err := os.ReadFile(layerVectorFile)
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(b, &list); err != nil {
		tb.Fatal(err)
	}
	return list
}

var actorNames = []string{"author", "origin", "destination", "recipient"}

// makeLayerVector seals a message under a suite.
func makeLayerVector(t *testing.T, id message.SuiteID) layerVector {
	t.Helper()
	both := offer{suites: []message.SuiteID{id}, multi: true}
	w := newLayerWorld(t, both, both)
	c := contentOf([]byte("one\r\n"), []byte("two, of the same type\r\n"))
	c.Attach = []message.Part{{Data: bytes.Repeat([]byte("attachment "), 30)}}
	draft, err := message.ComposeLayered(rand.Reader, w.Parties, c, w.keys[message.Author].Signing, message.Layer{Mode: message.LayerRequired, Suites: []message.SuiteID{id}, Bucket: 256})
	if err != nil {
		t.Fatal(err)
	}
	v := layerVector{Suite: fmt.Sprintf("%04x", uint16(id)), Name: id.String(), Parties: map[string]vectorParty{}, Message: w.sign(t, draft.Bytes()).Bytes()}
	for a, p := range []message.Party{w.Author, w.Origin, w.Destination, w.Recipient} {
		v.Parties[actorNames[a]] = vectorParty{Name: p.Name, Signet: p.Signet.Bytes(), Encryption: w.keys[a].Encryption.Scalar(), Signing: w.keys[a].Signing.Seed()}
	}
	for who, keys := range map[string][]message.LayerKey{"author": w.author, "recipient": w.recipient} {
		p := v.Parties[who]
		if p.Private, err = keys[0].Bytes(); err != nil {
			t.Fatal(err)
		}
		field3, _ := keys[0].Advertise(false, false)
		p.Public = field3[5:]
		v.Parties[who] = p
	}
	return v
}

// reread opens a vector's message as one of its readers, with our code, and tells every value anew.
func (v layerVector) reread(t *testing.T, who message.Actor) layerVector {
	t.Helper()
	var w world
	for a, p := range []*message.Party{&w.Author, &w.Origin, &w.Destination, &w.Recipient} {
		x := v.Parties[actorNames[a]]
		s, err := signet.Parse(x.Signet)
		if err != nil {
			t.Fatal(err)
		}
		*p = message.Party{Name: x.Name, Signet: s}
		if w.keys[a].Encryption, err = key.NewEncryption(x.Encryption); err != nil {
			t.Fatal(err)
		}
	}
	id, err := message.ParseSuite(v.Suite)
	if err != nil {
		t.Fatal(err)
	}
	private, err := message.ParseLayerKey(id, v.Parties[actorNames[who]].Private)
	if err != nil {
		t.Fatal(err)
	}
	o, _, err := w.read(v.Message, who)
	if o == nil {
		t.Fatal(err)
	}
	o.UseLayer(private)
	content, err := o.Content()
	if err != nil {
		t.Fatal(err)
	}
	if o.Layer() != id {
		t.Errorf("suite %v", o.Layer())
	}
	chunks, err := plainOpen(v.Message, "AODR"[who:who+1], v.Parties[actorNames[who]].Encryption, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	plain := [][]byte{content.Common, content.Other}
	for _, p := range append(content.Display, content.Attach...) {
		plain = append(plain, p.Data)
	}
	got := layerVector{Suite: v.Suite, Name: v.Name, Parties: v.Parties, Message: v.Message}
	index := map[byte]uint32{}
	for _, c := range chunks {
		if c.t < byte(message.TypeCommon) || !c.standard {
			continue
		}
		if c.t == byte(message.TypeCommon) {
			values, err := o.LayerValues(c.data)
			if err != nil {
				t.Fatal(err)
			}
			got.Secret, got.Point = values.Secret, values.Point
			for name, fp := range map[string][]byte{"author": values.Author, "recipient": values.Recipient} {
				p := got.Parties[name]
				p.Fingerprint = fp
				got.Parties[name] = p
			}
			for _, b := range values.Boxes {
				got.Boxes = append(got.Boxes, vectorBox{b.Actor, b.ID, b.Info, b.Sealed})
			}
		}
		x := vectorChunk{Type: c.t, Index: index[c.t], Flags: c.flags, Data: c.data, Plain: plain[len(got.Chunks)]}
		header, okm, aad, inner, err := o.LayerChunk(message.Type(c.t), x.Index, c.flags, c.data)
		if err != nil {
			t.Fatal(err)
		}
		x.Header, x.Key, x.Nonce, x.AAD, x.Inner = header, okm[:32], okm[32:], aad, inner
		got.Chunks = append(got.Chunks, x)
		index[c.t]++
	}
	return got
}

// TestVectorsLayer: our code reads the vectors of docs/vectors, as author and as recipient, and every value in between is the same.
func TestVectorsLayer(t *testing.T) {
	if *update {
		var list []layerVector
		for _, id := range message.Suites() {
			list = append(list, makeLayerVector(t, id).reread(t, message.Recipient))
		}
		b, err := json.MarshalIndent(list, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(layerVectorFile, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list := readLayerVectors(t)
	if len(list) != len(message.Suites()) {
		t.Fatalf("%d vectors, %d suites", len(list), len(message.Suites()))
	}
	for _, v := range list {
		for _, who := range []message.Actor{message.Author, message.Recipient} {
			t.Run(v.Suite+" as "+actorNames[who], func(t *testing.T) {
				if got := v.reread(t, who); !reflect.DeepEqual(got, v) {
					t.Errorf("got  %+v\nwant %+v", got, v)
				}
			})
		}
	}
}
