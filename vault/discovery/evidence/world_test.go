package evidence

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/internal/testescrow"
	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

// A world is an organisation with officers and an archive, and a case over it that a quorum approved: a Source of tests.
type world struct {
	t       testing.TB
	now     time.Time
	quorum  *testescrow.Officers
	archive *testescrow.Archive
	c       *testescrow.Case
	answers []*escrow.Statement
	mine    []discovery.ProvedLeaf // of answers and partials
	record  *discovery.CaseRecord
	items   []discovery.Item
	from    map[int][]int  // records of an item
	things  map[int][]byte // exhibits, by item
	exhibit map[int]discovery.Exhibit
	outcome vault.Opening // of a leaf about item 1
	said    int64         // the leaf
}

const class = 3

// newWorld archives messages of two custodians, some of both, two of equal octets, and one of somebody else; opens a case over the two
// and has officers 1 and 3 approve and officer 2 decline it. The last but one item is privileged, the last could not be opened.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, now: time.Unix(1795000000, 0).UTC(), archive: testescrow.New(), from: map[int][]int{}, things: map[int][]byte{}, exhibit: map[int]discovery.Exhibit{}}
	w.quorum = must[*testescrow.Officers](t)(testescrow.NewOfficers(escrow.Discovery, "corp.example", 2, 3, w.now))
	sealer := must[*escrow.Sealer](t)(w.quorum.Sealer())
	for _, m := range []struct {
		text       string
		custodians []string
	}{
		{"one", []string{"alice@corp.example"}}, {"two", []string{"bob@corp.example"}}, {"other", []string{"carol@corp.example"}},
		{"both", []string{"alice@corp.example", "bob@corp.example"}}, {"two", []string{"alice@corp.example"}}, {"three", []string{"bob@corp.example"}},
		{"privileged", []string{"alice@corp.example"}}, {"broken", []string{"alice@corp.example"}},
	} {
		w.check(w.archive.Seal(sealer, []byte("Subject: "+m.text+"\r\n\r\n"+strings.Repeat(m.text+" ", 200)+"\r\n"), class, w.now, m.custodians...))
	}
	w.open()
	return w
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// open opens a case and takes it to where a station has it.
func (w *world) open() {
	w.t.Helper()
	ctx := w.t.Context()
	w.c = must[*testescrow.Case](w.t)(w.archive.Open(testescrow.Order{Key: w.quorum.Key, Epoch: w.quorum.Epoch, Custodians: []string{"alice@corp.example", "bob@corp.example"},
		Class: class, Requester: "rita@corp.example", Basis: "Court order 12 O 34/26", Opened: w.now.Add(time.Hour), Life: 48 * time.Hour,
		First: escrow.MonthOf(w.now), Last: escrow.MonthOf(w.now)}))
	w.answers = nil
	first := int64(len(w.archive.Leaves))
	for _, i := range []uint16{1, 3} {
		st, err := w.quorum.Approve(ctx, w.archive, w.c, i, w.now.Add(time.Duration(i)*time.Hour+time.Minute))
		w.check(err)
		w.answers = append(w.answers, st)
	}
	decline := must[*escrow.Statement](w.t)(w.quorum.Sign(2, escrow.Statement{Kind: escrow.Decline, Time: w.now.Add(2 * time.Hour), Subject: w.c.File.Manifest.Digest()}))
	must[int64](w.t)(w.archive.Append(vault.Leaf{Type: vault.LeafAnswer, Time: w.now.Add(5 * time.Hour), Subject: w.c.File.Manifest.Case, Public: decline.LeafDigest()}))
	w.answers = append(w.answers, decline)
	last := int64(len(w.archive.Leaves))
	w.itemise()
	w.settle(first, last)
}

// itemise makes the items: records of equal octets are one.
func (w *world) itemise() {
	w.items, w.from = nil, map[int][]int{}
	for i, r := range w.archive.Records {
		if bytes.Contains(r.Plain, []byte("other")) || bytes.Contains(r.Plain, []byte("broken")) {
			continue
		}
		e := discovery.Envelope{Record: r.ID, Leaf: uint64(r.Leaf), From: "x@y.example", Recipients: []string{"alice@corp.example", "hidden@corp.example"}, Received: w.now, Source: "smtp", Direction: vault.Outbound}
		n := slices.IndexFunc(w.items, func(o discovery.Item) bool { return o.Content == vault.NewDigest("octets", r.Plain) })
		if n < 0 {
			n = len(w.items)
			w.items = append(w.items, discovery.Item{Number: n + 1, Record: r.ID, Leaf: uint64(r.Leaf), Octets: int64(len(r.Plain)), Content: vault.NewDigest("octets", r.Plain), Custodians: []string{"alice@corp.example"}})
			if bytes.Contains(r.Plain, []byte("privileged")) {
				w.items[n].Marks = []string{discovery.MarkPrivilege}
			}
		}
		w.items[n].Envelopes = append(w.items[n].Envelopes, e)
		w.from[n+1] = append(w.from[n+1], i)
	}
	w.attach(1)
}

// attach gives an item an exhibit, with its leaf.
func (w *world) attach(item int) {
	x := discovery.Exhibit{Record: w.items[item-1].Record, Kind: discovery.ExhibitObject, Made: w.now, Digest: vault.NewDigest("test", []byte("sealed"))}
	w.things[item] = []byte("a D/MIME object")
	index := must[int64](w.t)(w.archive.Append(vault.Leaf{Type: leafExhibit, Time: w.now, Subject: x.Record, Public: vault.NewDigest("exhibit", []byte{byte(x.Kind)}, x.Digest[:])}))
	x.Leaf.Index = uint64(index)
	w.exhibit[item] = x
	w.outcome = vault.Opening{Salt: [32]byte{7}, Payload: []byte("delivered")}
	w.said = must[int64](w.t)(w.archive.Append(vault.Leaf{Type: vault.LeafDelivered, Time: w.now, Subject: vault.RandomID(), Public: vault.Digest(append(x.Record[:], make([]byte, 16)...)), Commitment: w.outcome.Commit(vault.LeafDelivered)}))
}

// settle takes the case's checkpoint, with all proofs under it; leaves first to last are the case's.
func (w *world) settle(first, last int64) {
	w.t.Helper()
	f := w.c.File
	f.Known = []int64{f.Size}
	f.Size = int64(len(w.archive.Leaves))
	f.Checkpoint = must[[]byte](w.t)(w.archive.Checkpoint())
	var bundle bytes.Buffer
	c := *w.c
	c.File = f
	w.check(w.archive.WriteBundle(w.t.Context(), &bundle, &c))
	head := must[*escrow.BundleReader](w.t)(escrow.ReadBundle(&bundle))
	w.mine = nil
	for i := first; i < last; i++ {
		w.mine = append(w.mine, w.prove(i))
	}
	trust := must[escrow.Trust](w.t)(w.archive.Trust())
	w.record = &discovery.CaseRecord{Head: head.Bundle, Key: w.quorum.Key, Epochs: []*escrow.Epoch{w.quorum.Epoch}, Attestations: w.quorum.Attestations,
		Answers: w.answers, Leaves: w.mine, LogKey: trust.Log}
}

func (w *world) prove(i int64) discovery.ProvedLeaf {
	w.t.Helper()
	p, err := w.archive.ProveLeaf(context.Background(), int64(len(w.archive.Leaves)), i)
	w.check(err)
	return discovery.ProvedLeaf{Index: uint64(i), Octets: w.archive.Leaves[i], Proof: p}
}

func (w *world) Items() []discovery.Item { return w.items }

func (w *world) Open(_ context.Context, n int) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(w.archive.Records[w.from[n][0]].Plain)), nil
}

func (w *world) Exhibits(_ context.Context, n int) ([]discovery.Exhibit, error) {
	x, ok := w.exhibit[n]
	if !ok {
		return nil, nil
	}
	x.Leaf = w.prove(int64(x.Leaf.Index))
	return []discovery.Exhibit{x}, nil
}

func (w *world) OpenExhibit(_ context.Context, x discovery.Exhibit) (io.ReadCloser, error) {
	for n, o := range w.exhibit {
		if o.Record == x.Record {
			return io.NopCloser(bytes.NewReader(w.things[n])), nil
		}
	}
	return nil, io.ErrUnexpectedEOF
}

func (w *world) Intakes(_ context.Context, n int) ([]discovery.Intake, error) {
	var list []discovery.Intake
	for _, i := range w.from[n] {
		r := w.archive.Records[i]
		in := discovery.Intake{Record: r.ID, Leaf: w.prove(r.Leaf), Body: vault.Digest(sha512.Sum512_256(r.Sealed)), Named: r.Wraps, Salt: r.Salt, Envelope: r.Envelope}
		for _, octets := range r.Wraps {
			in.Wraps = append(in.Wraps, vault.NewDigest("wrap", octets))
		}
		if n == 1 {
			in.Events = []discovery.Event{{Leaf: w.prove(w.said), Salt: w.outcome.Salt, Payload: w.outcome.Payload}}
		}
		list = append(list, in)
	}
	return list, nil
}

func (w *world) Case() *discovery.CaseRecord { return w.record }

func (w *world) input() Input {
	trust := must[escrow.Trust](w.t)(w.archive.Trust())
	return Input{Witnesses: trust.Witnesses, Transcript: must[[]byte](w.t)(w.quorum.Transcript()), Requester: w.c.Signing, Software: "dimegate test", Now: w.now.Add(24 * time.Hour),
		Custody: []Event{{Time: w.now.Add(10 * time.Hour), Who: "rita@corp.example", What: "opened the case at the station"}, {Time: w.now.Add(11 * time.Hour), Who: "rita@corp.example", What: "marked item 5"}}}
}

func (w *world) pack() []byte {
	w.t.Helper()
	var b bytes.Buffer
	w.check(Write(w.t.Context(), &b, w, w.input()))
	return b.Bytes()
}

func verify(t testing.TB, b []byte, trust *Trust) (*Report, error) {
	return Verify(t.Context(), bytes.NewReader(b), int64(len(b)), trust)
}

// A parcel is a package taken apart: the hand of an attacker.
type parcel struct {
	base  string
	files map[string][]byte
}

func unpack(t testing.TB, b []byte) *parcel {
	t.Helper()
	z := must[*zip.Reader](t)(zip.NewReader(bytes.NewReader(b), int64(len(b))))
	p := &parcel{files: map[string][]byte{}}
	for _, f := range z.File {
		r := must[io.ReadCloser](t)(f.Open())
		base, name, _ := strings.Cut(f.Name, "/")
		p.base, p.files[name] = base, must[[]byte](t)(io.ReadAll(r))
	}
	return p
}

func (p *parcel) clone() *parcel {
	o := &parcel{p.base, map[string][]byte{}}
	for n, b := range p.files {
		o.files[n] = bytes.Clone(b)
	}
	return o
}

func (p *parcel) names() []string {
	var list []string
	for n := range p.files {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}

// zip is the package with its lists as they are.
func (p *parcel) zip() []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, n := range p.names() {
		w, _ := z.CreateHeader(&zip.FileHeader{Name: p.base + "/" + n, Method: zip.Store})
		w.Write(p.files[n])
	}
	z.Close()
	return b.Bytes()
}

// listed makes all lists of hashes anew, as RFC 8493 says and without the product's code.
func (p *parcel) listed() *parcel {
	var octets, count int
	var m256, m512 strings.Builder
	for _, n := range p.names() {
		if strings.HasPrefix(n, "data/") {
			fmt.Fprintf(&m256, "%x  %s\n", sha256.Sum256(p.files[n]), n)
			fmt.Fprintf(&m512, "%x  %s\n", sha512.Sum512(p.files[n]), n)
			octets, count = octets+len(p.files[n]), count+1
		}
	}
	p.files["manifest-sha256.txt"], p.files["manifest-sha512.txt"] = []byte(m256.String()), []byte(m512.String())
	if info, before, ok := strings.Cut(string(p.files["bag-info.txt"]), "Payload-Oxum: "); ok {
		_, after, _ := strings.Cut(before, "\n")
		p.files["bag-info.txt"] = []byte(fmt.Sprintf("%sPayload-Oxum: %d.%d\n%s", info, octets, count, after))
	}
	m256.Reset()
	m512.Reset()
	for _, n := range []string{"bag-info.txt", "bagit.txt", "manifest-sha256.txt", "manifest-sha512.txt"} {
		fmt.Fprintf(&m256, "%x  %s\n", sha256.Sum256(p.files[n]), n)
		fmt.Fprintf(&m512, "%x  %s\n", sha512.Sum512(p.files[n]), n)
	}
	p.files["tagmanifest-sha256.txt"], p.files["tagmanifest-sha512.txt"] = []byte(m256.String()), []byte(m512.String())
	return p
}

// signed has the requester sign the package anew: the most that an attacker with his key can do.
func (p *parcel) signed(t testing.TB, k escrow.SigningKey) *parcel {
	t.Helper()
	cp := must[escrow.Checkpoint](t)(escrow.ReadCheckpoint(p.files[fileCheckpoint]))
	old := must[*escrow.Statement](t)(escrow.ParseStatement(p.files[fileSignature]))
	st := must[*escrow.Statement](t)(escrow.Statement{Kind: escrow.Export, Time: old.Time, Subject: vault.NewDigest("case", p.files[fileCase]),
		Extra: vault.NewDigest("export", p.files["tagmanifest-sha512.txt"]), Size: uint64(cp.Size), Root: cp.Root}.Sign(k))
	p.files[fileSignature] = st.Octets()
	return p
}
