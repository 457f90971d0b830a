package message

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/internal/vectors"
)

type actorVector struct{ Address, Keys, Signet string }

// actorsVector is the four of a message, or `as "name"`: those of another one.
type actorsVector struct {
	as  string
	all map[string]actorVector
}

func (v *actorsVector) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		v.as = strings.Trim(strings.TrimPrefix(s, "as "), `"`)
		return nil
	}
	return json.Unmarshal(b, &v.all)
}

// result is true, false, or words: "absent", "zeros (not signed yet)".
type result string

func (r *result) UnmarshalJSON(b []byte) error { *r = result(strings.Trim(string(b), `"`)); return nil }

func (v Verdict) result() result {
	return map[Verdict]result{Valid: "true", Invalid: "false", Absent: "absent", Unsigned: "zeros (not signed yet)"}[v]
}

type signaturesVector struct {
	Tree       result      `json:"author_tree"`
	TreeInput  vectors.Hex `json:"author_tree_input_sha512"`
	TreeProper result      `json:"author_tree_with_one_slot_per_chunk"`
	Full       result      `json:"author_full"`
	Meta       result      `json:"origin_meta_bounce"`
	Display    result      `json:"origin_display_bounce"`
	OriginFull result      `json:"origin_full"`
}

type chunkVector struct {
	Index    int
	Type     Type
	Name     string
	Offset   int
	Payload  int `json:"payload_size"`
	Serial   int `json:"serial_size"`
	SHA512   vectors.Hex
	KeySlots []struct {
		Actor  string
		Random vectors.Hex
	}
	AESKey     vectors.Hex `json:"aes_key"`
	IV         vectors.Hex
	Signature  vectors.Hex
	DataSize   int `json:"data_size"`
	Flags      byte
	PadByte    byte        `json:"pad_byte"`
	PadLen     int         `json:"pad_len"`
	SigValid   bool        `json:"chunk_signature_valid"`
	Data       vectors.Hex `json:"data_hex"`
	Text       *string     `json:"data_text"`
	DataSHA512 vectors.Hex `json:"data_sha512"`
}

type decodedVector struct {
	Size       int
	Ephemeral  vectors.Hex `json:"ephemeral_pub"`
	KEKs       map[string]kekVector
	Chunks     []chunkVector
	Signatures signaturesVector
	Views      map[string][]int
	Tracing    vectors.Hex `json:"tracing_hex"`
}

type partVector struct {
	Type   Type
	Flags  byte
	Size   int
	SHA512 vectors.Hex
}

// answerVector is what libdime said when it read a message as one actor.
type answerVector struct {
	Crash, Asan                            string
	Deserialize                            bool
	State                                  int
	KEK                                    vectors.Hex
	Envelope                               bool
	Author, Origin, Destination, Recipient *string
	DecryptRC                              *int `json:"decrypt_rc"`
	Headers                                map[string]string
	OtherHeaders                           *string `json:"other_headers"`
	Display, Attach                        []partVector
	DisplayChunks                          int `json:"display_chunks"`
	AttachChunks                           int `json:"attach_chunks"`
	Errors                                 []string
	EnvAuthor                              *string `json:"env_author"`
	EnvOrigin                              *string `json:"env_origin"`
	EnvDestination                         *string `json:"env_destination"`
	EnvRecipient                           *string `json:"env_recipient"`
	FPAuthor                               *string `json:"env_fp_author"`
	FPOrigin                               *string `json:"env_fp_origin"`
	FPDestination                          *string `json:"env_fp_destination"`
	FPRecipient                            *string `json:"env_fp_recipient"`
}

func (v answerVector) accepts() bool {
	return v.Crash == "" && v.Deserialize && v.Envelope && v.DecryptRC != nil && *v.DecryptRC == 0
}

type draftVector struct {
	File, Note string
	Decoded    decodedVector
	Libdime    map[string]answerVector
}

type messageVector struct {
	Name, File, Note string
	NoteMulti        string `json:"note_multi"`
	Actors           actorsVector
	BounceFlags      int `json:"origin_bounce_flags"`
	Decoded          decodedVector
	Draft            *draftVector
	SigningKey       *struct {
		Priv, Pub  vectors.Hex
		Permission byte
	} `json:"origin_signing_key"`
	Libdime map[string]answerVector
	Fixed   map[string]answerVector `json:"libdime_with_section_parser_fixed"`
}

// world is the set with the keys and signets of its actors, read as the program reads them.
type world struct {
	set      *vectors.Set
	messages []messageVector
	keys     map[string]struct {
		File string
	}
}

func openWorld(t testing.TB) *world {
	t.Helper()
	w := &world{set: vectors.Open(t)}
	w.messages = vectors.Part[[]messageVector](t, w.set, "messages")
	var files map[string]json.RawMessage = vectors.Part[map[string]json.RawMessage](t, w.set, "keys")
	w.keys = map[string]struct{ File string }{}
	for name, raw := range files {
		var v struct{ File string }
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		w.keys[name] = v
	}
	return w
}

func (w *world) message(t testing.TB, name string) messageVector {
	t.Helper()
	i := slices.IndexFunc(w.messages, func(m messageVector) bool { return m.Name == name })
	if i < 0 {
		t.Fatalf("no message %q in the set", name)
	}
	return w.messages[i]
}

func (w *world) pair(t testing.TB, name string) key.Pair {
	t.Helper()
	v, ok := w.keys[name]
	if !ok {
		t.Fatalf("no keys %q in the set", name)
	}
	f, err := key.ParseFile(w.set.File(t, v.File))
	if err != nil {
		t.Fatal(err)
	}
	return f.Pair
}

func (w *world) signet(t testing.TB, file string) *signet.Signet {
	t.Helper()
	s, err := signet.Decode(w.set.File(t, file))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return s
}

// cast is the four of a message with their keys.
type cast struct {
	Parties
	pairs [4]key.Pair
}

func (w *world) cast(t testing.TB, a actorsVector) *cast {
	t.Helper()
	if a.as != "" {
		return w.cast(t, w.message(t, a.as).Actors)
	}
	c := new(cast)
	for i, name := range actorNames {
		v := a.all[name]
		*c.party(Actor(i)) = Party{Name: v.Address, Signet: w.signet(t, v.Signet)}
		c.pairs[i] = w.pair(t, v.Keys)
	}
	return c
}

// foreignAuthor tells the messages whose author is not of the origin: every octet and signature holds, but no binding.
func (c *cast) foreignAuthor() bool { return !signet.SameName(domainOf(c.Author.Name), c.Origin.Name) }

// read opens as one actor and verifies everything; author and recipient read the content.
func read(b []byte, a Actor, k key.Encryption, p Parties) (*Opened, *Content, error) {
	m, err := Parse(b, Limits{})
	if err != nil {
		return nil, nil, err
	}
	o, err := m.Open(a, k)
	if err != nil {
		return nil, nil, err
	}
	if err := o.Verify(p); err != nil {
		return o, nil, err
	}
	if a == Origin || a == Destination {
		return o, nil, nil
	}
	c, err := o.Content()
	return o, c, err
}

func TestVectorsMessages(t *testing.T) {
	w := openWorld(t)
	vectors.Each(t, w.messages, func(m messageVector) string { return m.Name }, func(t *testing.T, v messageVector) {
		c := w.cast(t, v.Actors)
		b := w.set.File(t, v.File)
		compareDecoded(t, b, c, v.Decoded)
		answers := v.Libdime
		for a := range actorNames {
			if x, ok := v.Fixed[Actor(a).String()]; ok {
				answers[Actor(a).String()] = x
			}
		}
		for a := range actorNames {
			answer := answers[Actor(a).String()]
			compareAnswer(t, b, c, Actor(a), answer, v.Decoded, messageException(c, v, Actor(a), answer.accepts()))
		}
		if v.Draft == nil {
			return
		}
		draft := w.set.File(t, v.Draft.File)
		compareDecoded(t, draft, c, v.Draft.Decoded)
		for a := range actorNames {
			answer := v.Draft.Libdime[Actor(a).String()]
			if answer.Crash != "" { // several chunks of a kind: the corrected library was not asked about the draft
				answer = answers[Actor(a).String()]
				if Actor(a) == Destination || Actor(a) == Recipient {
					zero := -1
					answer.DecryptRC = &zero
				}
			}
			compareAnswer(t, draft, c, Actor(a), answer, v.Draft.Decoded, "")
		}
		signAgain(t, draft, b, c)
	})
}

// messageException says why our answer to a message is another than libdime's, or nothing.
func messageException(c *cast, v messageVector, a Actor, accepts bool) string {
	switch foreign := c.foreignAuthor() && a != Destination; {
	case foreign && accepts:
		return "the author is not of the origin (dmime.md §15.4, rule 1)"
	case !accepts && !foreign && v.SigningKey != nil && signet.Permission(v.SigningKey.Permission)&signet.SignMessages != 0 && (a == Destination || a == Recipient):
		return "signed by a secondary key for messages, which libdime does not accept (dmime.md §7.5)"
	}
	return ""
}

// signAgain holds that a draft and the origin's keys give the final file, and that signing a final file leaves it as it is.
func signAgain(t *testing.T, draft, final []byte, c *cast) {
	t.Helper()
	for name, b := range map[string][]byte{"draft": draft, "final": final} {
		before := bytes.Clone(b)
		o, _, err := read(b, Origin, c.pairs[Origin].Encryption, c.Parties)
		if err != nil {
			t.Fatalf("%s as origin: %v", name, err)
		}
		m, err := o.SignOrigin(c.pairs[Origin].Signing)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(m.Bytes(), final) {
			t.Errorf("%s: signed, it is not the final file", name)
		}
		if !bytes.Equal(b, before) {
			t.Errorf("%s: SignOrigin wrote to it", name)
		}
		if id := m.ID(); id != o.Message().ID() {
			t.Errorf("%s: another id after signing", name)
		}
	}
}

// compareDecoded compares every value that the vectors give for a message.
func compareDecoded(t *testing.T, b []byte, c *cast, v decodedVector) {
	t.Helper()
	m, err := Parse(b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != v.Size || !bytes.Equal(m.Bytes(), b) || !bytes.Equal(m.Tracing(), v.Tracing) || len(m.Body())+m.body != v.Size {
		t.Errorf("%d octets with %d of tracing, want %d with %d", len(m.Bytes()), len(m.Tracing()), v.Size, len(v.Tracing))
	}
	if p := m.point.Bytes(); !bytes.Equal(p[:], v.Ephemeral) {
		t.Errorf("ephemeral key %x", p)
	}
	if len(m.chunks) != len(v.Chunks) {
		t.Fatalf("%d chunks, want %d", len(m.chunks), len(v.Chunks))
	}
	var views [4][]int
	for i, cv := range v.Chunks {
		if cv.Index != i {
			t.Fatalf("chunk %d has index %d", i, cv.Index)
		}
		compareChunk(t, m, c, m.chunks[i], cv)
		for a := range actorNames {
			if kinds[cv.Type].slots.has(Actor(a)) {
				views[a] = append(views[a], i)
			}
		}
	}
	for a, name := range actorNames {
		if k := agree(c.pairs[a].Encryption, m.point); !v.KEKs[name].equal(k) {
			t.Errorf("%s: another kek", name)
		}
		if !slices.Equal(views[a], v.Views[name]) {
			t.Errorf("%s can open %v, want %v", name, views[a], v.Views[name])
		}
	}
	if h := sha512.Sum512(m.tree(false)); !bytes.Equal(h[:], v.Signatures.TreeInput) {
		t.Errorf("tree input %x", h)
	}
	compareSignatures(t, m, c, v.Signatures)
}

func compareSignatures(t *testing.T, m *Message, c *cast, v signaturesVector) {
	t.Helper()
	o, err := m.Open(Author, c.pairs[Author].Encryption)
	if err != nil {
		t.Fatal(err)
	}
	o.Verify(c.Parties) // its error is compareAnswer's matter
	r := o.Report()
	got := signaturesVector{r.AuthorTree.result(), v.TreeInput, "false", r.AuthorFull.result(), r.MetadataBounce.result(),
		r.DisplayBounce.result(), r.OriginFull.result()}
	if c.Author.Signet.SigningKey().Verify(m.tree(true), o.signatureOf(TypeAuthorTree)) {
		got.TreeProper = "true"
	}
	if fmt.Sprint(got) != fmt.Sprint(v) {
		t.Errorf("signatures %v, want %v", got, v)
	}
}

// compareChunk compares a chunk, as every actor with a slot opens it.
func compareChunk(t *testing.T, m *Message, c *cast, got chunk, v chunkVector) {
	t.Helper()
	if got.typ != v.Type || got.typ.String() != v.Name || got.start != v.Offset || got.payload != v.Payload || got.end()-got.start != v.Serial {
		t.Errorf("chunk %+v, want %+v", got, v)
	}
	if h := sha512.Sum512(m.octets(got)); !bytes.Equal(h[:], v.SHA512) {
		t.Errorf("chunk %d: other octets", v.Type)
	}
	n := 0
	for a := range actorNames {
		if !kinds[got.typ].slots.has(Actor(a)) {
			continue
		}
		o := &Opened{m: m, actor: Actor(a), kek: agree(c.pairs[a].Encryption, m.point)}
		k := o.kek.unwrap(m.slot(got, Actor(a)))
		plain := o.decrypt(got)
		if !bytes.Equal(k.key[:], v.AESKey) || !bytes.Equal(k.iv[:], v.IV) || v.KeySlots[n].Actor != Actor(a).String() {
			t.Errorf("chunk %d, %v: key %x, iv %x", v.Type, Actor(a), k.key, k.iv)
		}
		if !bytes.Equal(o.kek.wrap(nil, v.KeySlots[n].Random, &k), m.slot(got, Actor(a))) {
			t.Errorf("chunk %d, %v: the slot has another random block", v.Type, Actor(a))
		}
		if !bytes.Equal(plain[:signatureSize], v.Signature) {
			t.Errorf("chunk %d, %v: signature %x", v.Type, Actor(a), plain[:signatureSize])
		}
		if kinds[got.typ].form == standard {
			comparePlain(t, c, got.typ, plain, v)
		}
		n++
	}
	if n != len(v.KeySlots) {
		t.Errorf("chunk %d: %d slots, want %d", v.Type, n, len(v.KeySlots))
	}
}

// comparePlain compares a plain payload. A flag that has no meaning makes unpad refuse (BadFlags); its values are compared all
// the same, by the rules of the flags that have one.
func comparePlain(t *testing.T, c *cast, typ Type, plain []byte, v chunkVector) {
	t.Helper()
	p, err := unpad(typ, plain)
	if v.Flags&^kinds[typ].flags != 0 {
		if !errors.Is(err, BadFlags) {
			t.Errorf("chunk %d with flags %d: %v", typ, v.Flags, err)
		}
		masked := bytes.Clone(plain)
		masked[signatureSize+3] &= kinds[typ].flags
		if p, err = unpad(typ, masked); err == nil {
			p.payload, p.flags = plain, v.Flags
		}
	}
	if err != nil {
		t.Errorf("chunk %d: %v", typ, err)
		return
	}
	if len(p.data) != v.DataSize || p.flags != v.Flags || plain[signatureSize+4] != v.PadByte || len(plain)-standardHeader-len(p.data) != v.PadLen {
		t.Errorf("chunk %d: %d octets of data, flags %d, want %+v", typ, len(p.data), p.flags, v)
	}
	h := sha512.Sum512(p.data)
	switch {
	case v.Data == nil && v.DataSHA512 == nil:
		t.Errorf("chunk %d: the vector has no data", typ)
	case v.Data != nil && !bytes.Equal(p.data, v.Data), v.DataSHA512 != nil && !bytes.Equal(h[:], v.DataSHA512),
		v.Text != nil && string(p.data) != *v.Text:
		t.Errorf("chunk %d: other data", typ)
	}
	if c.Author.Signet.SigningKey().Verify(p.signed(), p.signature()) != v.SigValid {
		t.Errorf("chunk %d: signature valid %v, want %v", typ, !v.SigValid, v.SigValid)
	}
}

// compareAnswer compares what we say and see with what libdime says and sees.
func compareAnswer(t *testing.T, b []byte, c *cast, a Actor, v answerVector, d decodedVector, exception string) {
	t.Helper()
	o, content, err := read(b, a, c.pairs[a].Encryption, c.Parties)
	if (err == nil) != v.accepts() != (exception != "") {
		t.Errorf("%v: %v, libdime accepts: %v, exception: %q", a, err, v.accepts(), exception)
	}
	if want := d.KEKs[a.String()]; v.KEK != nil && !bytes.Equal(v.KEK, slices.Concat(want.IV, want.Key)) {
		t.Errorf("%v: libdime's kek is another", a)
	}
	if o == nil || v.Crash != "" {
		return
	}
	compareEnvelope(t, o, v)
	if err == nil && content != nil && v.accepts() {
		compareContent(t, content, v)
	}
}

// compareEnvelope knows libdime's bug: it puts the recipient's fingerprint in the author's place (dmime.md §8.1).
func compareEnvelope(t *testing.T, o *Opened, v answerVector) {
	t.Helper()
	want := func(name string, got string, libdime *string) {
		t.Helper()
		if libdime == nil && got != "" || libdime != nil && *libdime != got {
			t.Errorf("%v: %s is %q", o.actor, name, got)
		}
	}
	chunk4, err4 := o.Origin()
	chunk5, err5 := o.Destination()
	if (err4 == nil) != (o.actor != Destination) || (err5 == nil) != (o.actor != Origin) {
		t.Errorf("%v: %v, %v", o.actor, err4, err5)
	}
	fp := func(ok error, f signet.Fingerprint) string {
		if ok != nil {
			return ""
		}
		return f.String()
	}
	want("author", chunk4.Author, v.EnvAuthor)
	want("destination", chunk4.Destination, v.EnvDestination)
	want("destination's fingerprint", fp(err4, chunk4.DestinationSignet), v.FPDestination)
	want("recipient", chunk5.Recipient, v.EnvRecipient)
	want("origin", chunk5.Origin, v.EnvOrigin)
	want("origin's fingerprint", fp(err5, chunk5.OriginSignet), v.FPOrigin)
	if err5 == nil {
		want("recipient's fingerprint", fp(err5, chunk5.RecipientSignet), v.FPAuthor)
	} else {
		want("author's fingerprint", fp(err4, chunk4.AuthorSignet), v.FPAuthor)
	}
	want("recipient's fingerprint at its own place", "", v.FPRecipient)
}

func compareContent(t *testing.T, c *Content, v answerVector) {
	t.Helper()
	headers := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(c.Common), "\r\n"), "\r\n") {
		label, value, _ := strings.Cut(line, ": ")
		headers[strings.ToLower(label)] = latin1([]byte(value))
	}
	if fmt.Sprint(headers) != fmt.Sprint(v.Headers) {
		t.Errorf("headers %v, want %v", headers, v.Headers)
	}
	if v.OtherHeaders == nil || latin1(c.Other) != *v.OtherHeaders {
		t.Error("other headers differ")
	}
	compare := func(name string, typ Type, got []Part, want []partVector) {
		if len(got) != len(want) {
			t.Errorf("%d %s chunks, want %d", len(got), name, len(want))
			return
		}
		for i, p := range got {
			h := sha512.Sum512(p.Data)
			if w := want[i]; w.Type != typ || p.Flags != w.Flags&FlagContinues || len(p.Data) != w.Size || !bytes.Equal(h[:], w.SHA512) {
				t.Errorf("%s %d: %d octets, want %+v", name, i, len(p.Data), w)
			}
		}
	}
	compare("display", TypeDisplay, c.Display, v.Display)
	compare("attachment", TypeAttachment, c.Attach, v.Attach)
}

// latin1 shows each octet as one character.
func latin1(b []byte) string {
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return string(r)
}

func TestVectorsSectionSubsets(t *testing.T) {
	w := openWorld(t)
	type item struct {
		File     string
		Sections int
		What     string
		Size     int
		Types    []Type       `json:"chunk_types"`
		Libdime  answerVector `json:"libdime_recipient"`
	}
	type subsets struct {
		Of, Note string
		Items    []item
	}
	v := vectors.Part[subsets](t, w.set, "section_subsets")
	i := slices.IndexFunc(w.messages, func(m messageVector) bool { return m.File == v.Of })
	if i < 0 {
		t.Fatalf("no message of file %q", v.Of)
	}
	base := w.messages[i]
	c := w.cast(t, base.Actors)
	whole := w.set.File(t, base.File)
	vectors.Each(t, v.Items, func(i item) string { return i.What }, func(t *testing.T, v item) {
		b := w.set.File(t, v.File)
		if len(b) != v.Size {
			t.Errorf("%d octets", len(b))
		}
		complete := slices.ContainsFunc(base.Decoded.Chunks, func(c chunkVector) bool { return !slices.Contains(v.Types, c.Type) }) == false
		o, content, err := read(b, Recipient, c.pairs[Recipient].Encryption, c.Parties)
		if complete {
			if err != nil || !bytes.Equal(b, whole) {
				t.Fatalf("the whole message: %v", err)
			}
			compareEnvelope(t, o, v.Libdime)
			compareContent(t, content, v.Libdime)
		} else if !errors.Is(err, ChunkMissing) || !errors.Is(err, Malformed) {
			t.Errorf("%v", err)
		}
		if complete != v.Libdime.accepts() {
			t.Errorf("libdime accepts: %v", v.Libdime.accepts())
		}
		var want []byte // the subset is the same chunks of the whole
		for _, cv := range base.Decoded.Chunks {
			if slices.Contains(v.Types, cv.Type) {
				want = append(want, whole[cv.Offset:][:cv.Serial]...)
			}
		}
		if !bytes.Equal(b[messageHeader:], want) {
			t.Error("other chunks than the whole message's")
		}
	})
}

// A limit of the reference's writer: what it refuses, and what ours answers.
var authoringLimits = map[string]struct {
	change func(*Content)
	class  Class // 0: accepted
	differ string
}{
	"no other-headers chunk":  {change: func(c *Content) { c.Other = nil }, class: BadDataLength},
	"empty other-headers":     {change: func(c *Content) { c.Other = []byte{} }, class: BadDataLength},
	"zero-byte display chunk": {change: func(c *Content) { c.Display = []Part{{}} }, class: BadDataLength},
	"no display chunk": {change: func(c *Content) { c.Display = nil },
		differ: "a mail may have no body; all of libdime's readers accept that (dmime.md §11)"},
	"missing Subject header": {change: func(c *Content) { c.Common = dropLine(c.Common, "Subject: ") }, class: HeaderMissing},
	"missing To header":      {change: func(c *Content) { c.Common = dropLine(c.Common, "To: ") }, class: HeaderMissing},
	"empty Subject value": {change: func(c *Content) {
		c.Common = append(dropLine(c.Common, "Subject: "), "Subject: \r\n"...)
	}},
}

func dropLine(b []byte, label string) (kept []byte) {
	for line := range bytes.Lines(b) {
		if !bytes.HasPrefix(line, []byte(label)) {
			kept = append(kept, line...)
		}
	}
	return kept
}

func someContent() *Content {
	return &Content{
		Common:  []byte("Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nTo: b@b.example\r\nFrom: a@a.example\r\nSubject: s\r\n"),
		Other:   []byte("X-One: 1\r\n"),
		Display: []Part{{Data: []byte("Hello.\r\n")}},
	}
}

func TestVectorsAuthoringLimits(t *testing.T) {
	w := openWorld(t)
	type limit struct{ What, Result string }
	c := w.cast(t, w.messages[0].Actors)
	vectors.Each(t, vectors.Part[[]limit](t, w.set, "authoring_limits"), func(l limit) string { return l.What }, func(t *testing.T, v limit) {
		ours, ok := authoringLimits[v.What]
		if !ok {
			t.Fatal("a limit that the test does not know")
		}
		content := someContent()
		ours.change(content)
		m, err := Compose(rand.Reader, c.Parties, content, c.pairs[Author].Signing)
		if ours.class == 0 && err != nil || ours.class != 0 && !errors.Is(err, ours.class) {
			t.Fatalf("%v", err)
		}
		if (err == nil) == (v.Result != "ok") != (ours.differ != "") {
			t.Errorf("%v, libdime: %s", err, v.Result)
		}
		if m != nil {
			if _, _, err := read(m.Bytes(), Author, c.pairs[Author].Encryption, c.Parties); err != nil {
				t.Errorf("written, but not readable: %v", err)
			}
		}
	})
}

func TestVectorsWrongReader(t *testing.T) {
	w := openWorld(t)
	type wrong struct {
		Actor  string `json:"as_actor"`
		Keys   string `json:"with_keys"`
		Answer string
		Errors []string
	}
	base := w.messages[0]
	c := w.cast(t, base.Actors)
	b := w.set.File(t, base.File)
	vectors.Each(t, vectors.Part[[]wrong](t, w.set, "wrong_reader"), func(v wrong) string { return v.Actor }, func(t *testing.T, v wrong) {
		_, _, err := read(b, actorOf(t, v.Actor), w.pair(t, v.Keys).Encryption, c.Parties)
		if !errors.Is(err, NotAuthentic) || v.Answer != "reject (envelope)" {
			t.Errorf("%v, libdime: %s", err, v.Answer)
		}
	})
}

func TestVectorsWrongAuthorSignet(t *testing.T) {
	w := openWorld(t)
	type wrong struct {
		Actor  string `json:"as_actor"`
		Signet string `json:"presented_author_signet"`
		Answer string
		Errors []string
	}
	base := w.messages[0]
	b := w.set.File(t, base.File)
	vectors.Each(t, vectors.Part[[]wrong](t, w.set, "wrong_author_signet"), func(v wrong) string { return v.Actor }, func(t *testing.T, v wrong) {
		c := w.cast(t, base.Actors)
		c.Author = Party{Signet: w.signet(t, "signets/"+v.Signet)}
		a := actorOf(t, v.Actor)
		_, _, err := read(b, a, c.pairs[a].Encryption, c.Parties)
		if !errors.Is(err, FingerprintMismatch) || !errors.Is(err, NotAuthentic) || v.Answer != "reject (decrypt)" {
			t.Errorf("%v, libdime: %s", err, v.Answer)
		}
	})
}

func actorOf(t *testing.T, name string) Actor {
	t.Helper()
	i := slices.Index(actorNames[:], name)
	if i < 0 {
		t.Fatalf("no actor %q", name)
	}
	return Actor(i)
}
