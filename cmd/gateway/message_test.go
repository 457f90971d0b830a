package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dimegate/bridge/translate"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/internal/vectors"
)

// A vectorMessage is what these tests want of an entry of the manifest; package message's tests read it whole.
type vectorMessage struct {
	Name, File string
	Actors     vectorActors
	Decoded    struct {
		Chunks []struct {
			Index     int
			Type      message.Type
			Flags     byte
			Signature vectors.Hex
			Data      vectors.Hex `json:"data_hex"`
			Size      int         `json:"data_size"`
		}
		Signatures map[string]any
		Views      map[string][]int
	}
}

// vectorActors are the four, or `as "NAME"`: those of another message.
type vectorActors struct {
	as  string
	all map[string]struct{ Address, Keys, Signet string }
}

func (v *vectorActors) UnmarshalJSON(b []byte) error {
	if b[0] != '"' {
		return json.Unmarshal(b, &v.all)
	}
	err := json.Unmarshal(b, &v.as)
	v.as = strings.Trim(strings.TrimPrefix(v.as, "as "), `"`)
	return err
}

// messageWorld writes the files of one set where the command finds them.
type messageWorld struct {
	set      *vectors.Set
	messages []vectorMessage
	keys     map[string]struct{ File string }
	dir      string
}

func openMessageWorld(t *testing.T) *messageWorld {
	t.Helper()
	w := &messageWorld{set: vectors.Open(t), dir: t.TempDir(), keys: map[string]struct{ File string }{}}
	for name, raw := range vectors.Part[map[string]json.RawMessage](t, w.set, "keys") {
		var v struct{ File string }
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		w.keys[name] = v
	}
	for _, raw := range vectors.Part[[]json.RawMessage](t, w.set, "messages") {
		var v vectorMessage
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		w.messages = append(w.messages, v)
	}
	for i, v := range w.messages {
		for _, other := range w.messages {
			if v.Actors.as == other.Name {
				w.messages[i].Actors = other.Actors
			}
		}
	}
	return w
}

// file writes a file of the set to the test's folder, changed by change where there is one.
func (w *messageWorld) file(t *testing.T, name string, change func([]byte) []byte) string {
	t.Helper()
	b := w.set.File(t, name)
	out := filepath.Join(w.dir, strings.ReplaceAll(name, "/", "_"))
	if change != nil {
		b, out = change(b), out+".changed"
	}
	if err := os.WriteFile(out, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// binaryKeys and binarySignet turn armored files into their binary form.
func binaryKeys(t *testing.T) func([]byte) []byte {
	return func(b []byte) []byte {
		f, err := key.ParseFile(b)
		if err != nil {
			t.Fatal(err)
		}
		return f.Bytes()
	}
}

func binarySignet(t *testing.T) func([]byte) []byte {
	return func(b []byte) []byte {
		s, err := signet.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		return s.Bytes()
	}
}

// open runs the command as one actor, with all four signets, and returns what it printed and its exit code.
func (w *messageWorld) open(t *testing.T, v vectorMessage, actor string, binary bool) (view openView, code int) {
	t.Helper()
	var keys, signets func([]byte) []byte
	if binary {
		keys, signets = binaryKeys(t), binarySignet(t)
	}
	args := []string{"message", "open", "--json", "--as", actor, "--keys", w.file(t, w.keys[v.Actors.all[actor].Keys].File, keys)}
	for role, a := range v.Actors.all {
		args = append(args, "--"+role+"-signet", w.file(t, a.Signet, signets))
	}
	var out, errs bytes.Buffer
	code = dispatch(t.Context(), stdio{strings.NewReader(""), &out, &errs}, append(args, w.file(t, v.File, nil)))
	if errs.Len() > 0 {
		t.Fatalf("as %s: %s", actor, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &view); err != nil {
		t.Fatalf("as %s: %v in %s", actor, err, out.String())
	}
	return view, code
}

// TestVectorsMessageOpen: the command shows of every message what the manifest says, to every actor.
func TestVectorsMessageOpen(t *testing.T) {
	w := openMessageWorld(t)
	vectors.Each(t, w.messages, func(v vectorMessage) string { return v.Name }, func(t *testing.T, v vectorMessage) {
		_, domain, _ := strings.Cut(v.Actors.all["author"].Address, "@")
		foreign := domain != v.Actors.all["origin"].Address
		flagged := false // a flag that has no meaning, or that is not true
		for _, c := range v.Decoded.Chunks {
			flagged = flagged || c.Flags&^1 != 0
		}
		for i, actor := range []string{"author", "origin", "destination", "recipient"} {
			view, code := w.open(t, v, actor, i%2 == 1)
			unsigned := (actor == "destination" || actor == "recipient") && strings.Contains(fmt.Sprint(v.Decoded.Signatures), "zeros")
			reads := actor == "author" || actor == "recipient"
			refused := foreign && actor != "destination" || unsigned || flagged && reads
			if code == 0 == refused || (view.Error == nil) == refused {
				t.Errorf("as %s: exit code %d, %+v", actor, code, view.Error)
			}
			w.compare(t, v, actor, view, refused)
		}
	})
}

func (w *messageWorld) compare(t *testing.T, v vectorMessage, actor string, view openView, refused bool) {
	t.Helper()
	got := view.Chunks
	for _, i := range v.Decoded.Views[actor] {
		want := v.Decoded.Chunks[i]
		content := want.Type >= message.TypeCommon && want.Type <= message.TypeAttachment
		if content && refused {
			continue // nothing of it is shown
		}
		if len(got) == 0 || got[0].Type != want.Type || got[0].Name != want.Type.String() || got[0].Flags != want.Flags {
			t.Fatalf("as %s: chunk %d is not there", actor, want.Type)
		}
		data := []byte(want.Data)
		if want.Size == 0 {
			data = want.Signature
		}
		if data != nil && !bytes.Equal(got[0].Data, data) || want.Size > 0 && len(got[0].Data) != want.Size {
			t.Errorf("as %s: chunk %d has other data", actor, want.Type)
		}
		got = got[1:]
	}
	if len(got) > 0 {
		t.Errorf("as %s: chunk %d too many", actor, got[0].Type)
	}
	for name, is := range view.Signatures {
		if fmt.Sprint(is) != fmt.Sprint(v.Decoded.Signatures[name]) {
			t.Errorf("as %s: %s %v, want %v", actor, name, is, v.Decoded.Signatures[name])
		}
	}
	if !refused && len(view.Signatures) < 3 {
		t.Errorf("as %s: signatures %v", actor, view.Signatures)
	}
}

// TestMessageOpenHeaderMismatch: an author who signs another subject in chunk 33 than in 34 shows neither.
func TestMessageOpenHeaderMismatch(t *testing.T) {
	w := openMessageWorld(t)
	v := w.messages[0]
	var parties message.Parties
	pairs := map[string]key.Pair{}
	for i, role := range []string{"author", "origin", "destination", "recipient"} {
		a := v.Actors.all[role]
		s, err := signet.Decode(w.set.File(t, a.Signet))
		if err != nil {
			t.Fatal(err)
		}
		f, err := key.ParseFile(w.set.File(t, w.keys[a.Keys].File))
		if err != nil {
			t.Fatal(err)
		}
		*partyOf(&parties, message.Actor(i)), pairs[role] = message.Party{Name: a.Address, Signet: s}, f.Pair
	}
	const mail = "Date: today\r\nFrom: a\r\nTo: b\r\nSubject: one\r\n\r\nbody\r\n"
	for subject, want := range map[string]string{"one": "", "two": "HeaderMismatch"} {
		c, err := translate.Import(translate.Envelope{Author: parties.Author.Name}, []byte(mail))
		if err != nil {
			t.Fatal(err)
		}
		c.Common = bytes.Replace(c.Common, []byte("Subject: one"), []byte("Subject: "+subject), 1)
		m, err := message.Compose(rand.Reader, parties, c, pairs["author"].Signing)
		if err != nil {
			t.Fatal(err)
		}
		view := openView{Signatures: map[string]any{}}
		err = view.open(m.Bytes(), message.Author, pairs["author"].Encryption, parties)
		if e, ok := errors.AsType[*message.Error](err); ok && e.Class.String() != want || !ok && want != "" {
			t.Errorf("subject %s: %v, want %q", subject, err, want)
		}
		shown := slices.ContainsFunc(view.Chunks, func(c chunkView) bool { return c.Type == message.TypeCommon })
		if shown != (want == "") || (view.mail != nil) != (want == "") {
			t.Errorf("subject %s: content shown: %v", subject, shown)
		}
	}
}
