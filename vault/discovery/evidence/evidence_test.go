package evidence

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dimegate/internal/testcase"
	"dimegate/internal/testpeer"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

func TestUntouched(t *testing.T) {
	w := newWorld(t)
	b := w.pack()
	r, err := verify(t, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Messages) != 4 || r.Entries != 6 || len(r.Withheld) != 2 || r.Withheld[0].Reason != "privilege" || r.Withheld[1].Reason != notOpened || r.Quorum != 2 || len(r.Cosigned) != 1 {
		t.Errorf("%+v", r)
	}
	if m := r.Messages[1]; len(m.Records) != 2 || m.Records[0].Custodians[0] != "bob@corp.example" || m.Records[1].Custodians[0] != "alice@corp.example" {
		t.Errorf("an item of two records: %+v", m)
	}
	if r.Officers[0].Answer != "approves" || r.Officers[1].Answer != "declines" || r.Messages[0].Exhibits != 1 {
		t.Errorf("%+v", r)
	}
	trust, err := ParseTrust([]byte(strings.Join(r.Trust, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify(t, b, trust); err != nil {
		t.Errorf("its own start: %v", err)
	}
	p := unpack(t, b)
	if _, err := verify(t, p.clone().listed().signed(t, w.c.Signing).zip(), nil); err != nil {
		t.Fatalf("the attacker's tools do not make what Write makes: %v", err)
	}
}

// TestStation packs what a station opened.
func TestStation(t *testing.T) {
	w, c := testcase.Opened(t, testcase.Message{Octets: []byte("Subject: a\r\n\r\nb\r\n"), Custodians: []string{"alice@example.org", "bob@example.org"}},
		testcase.Message{Octets: []byte("Subject: a\r\n\r\nb\r\n")}, testcase.Message{Octets: []byte("Subject: c\r\n\r\n")})
	if err := c.Mark(discovery.MarkPrivilege, []int{2}, false); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(t.Context(), &b, c, Input{Witnesses: w.Station.Trust().Witnesses, Requester: w.Keys.Signing(), Software: "test", Now: w.Now}); err != nil {
		t.Fatal(err)
	}
	r, err := verify(t, b.Bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Messages) != 1 || len(r.Messages[0].Records) != 2 || len(r.Withheld) != 1 || r.Withheld[0].Reason != "privilege" {
		t.Errorf("%+v", r)
	}
}

// TestTrust: a package that is whole and of other keys than the reader trusts.
func TestTrust(t *testing.T) {
	a, b := newWorld(t), newWorld(t)
	whole := a.pack()
	other, err := verify(t, b.pack(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range other.Trust {
		trust, err := ParseTrust([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify(t, whole, trust); !isFault(err) {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, line := range []string{"log x", "witness y", "dealer 12", "escrow-key zz", "officer a", "requester a b", "log", "friend x", other.Trust[0] + "\n" + other.Trust[0]} {
		if _, err := ParseTrust([]byte(line)); err == nil {
			t.Errorf("%q is taken for trust", line)
		}
	}
}

func isFault(err error) bool { _, ok := errors.AsType[*Fault](err); return ok }

// refused says that a package does not verify, and that what is said names one of the files.
func refused(t *testing.T, what string, b []byte, names ...string) {
	t.Helper()
	_, err := verify(t, b, nil)
	f, ok := errors.AsType[*Fault](err)
	if !ok {
		t.Errorf("%s: %v", what, err)
		return
	}
	for _, n := range names {
		if strings.Contains(f.Error(), n) {
			return
		}
	}
	if len(names) > 0 {
		t.Errorf("%s: %q names none of %q", what, f, names)
	}
}

// TestFlippedBits flips bits in every file: as it is, with the lists of hashes made anew, and with the ZIP file's octets themselves.
func TestFlippedBits(t *testing.T) {
	w := newWorld(t)
	whole := w.pack()
	p := unpack(t, whole)
	rest := p.clone().listed().zip()
	for _, name := range p.names() {
		octets := p.files[name]
		for _, at := range []int{0, len(octets) / 3, len(octets) / 2, len(octets) - 1} {
			q := p.clone()
			q.files[name][at] ^= 1 << (at % 8)
			refused(t, "flip in "+name, q.zip(), name, "manifest")
			if !bytes.Equal(q.listed().zip(), rest) { // else the flip was in what is made anew
				refused(t, "flip in "+name+", lists anew", q.zip(), name, fileSignature)
			}
		}
	}
	for at := 0; at < len(whole); at += 997 {
		b := bytes.Clone(whole)
		b[at] ^= 0x10
		if _, err := verify(t, b, nil); err == nil {
			inside(t, whole, at)
		}
	}
	for _, n := range []int{0, 1, 21, len(whole) / 2, len(whole) - 1} {
		refused(t, "cut short", whole[:n])
	}
	refused(t, "spare octets", append(bytes.Clone(whole), 0))
}

// inside fails when an octet of a ZIP file belongs to a file in it: what is around them, such as times, is nobody's evidence.
func inside(t *testing.T, whole []byte, at int) {
	t.Helper()
	for name, octets := range unpack(t, whole).files {
		if start := bytes.Index(whole, octets); start <= at && at < start+len(octets) && len(octets) > 16 {
			t.Errorf("octet %d, in %s, may be another", at, name)
		}
	}
}

// TestTampering does what row 2 of the issue names, and more. Each attack is tried with the lists of hashes as they were, made anew, and signed
// by the requester, unless the last is what he could have done in the first place.
func TestTampering(t *testing.T) {
	w := newWorld(t)
	p, signer, note := unpack(t, w.pack()), w.c.Signing, w.c.File.Checkpoint
	w.open() // another case over the same records, in a log that grew
	another := unpack(t, w.pack())
	const one, two = "data/messages/0000001/", "data/messages/0000002/"
	swap := func(a, b string) func(*parcel) {
		return func(q *parcel) { q.files[a], q.files[b] = q.files[b], q.files[a] }
	}
	for name, a := range map[string]struct {
		do     func(q *parcel)
		names  []string // of what is named when the lists were made anew
		signed bool     // the requester's signature does not help
	}{
		"message changed":  {func(q *parcel) { q.files[one+nameMessage] = append(q.files[one+nameMessage], "more\r\n"...) }, []string{one + nameProof}, true},
		"message removed":  {func(q *parcel) { q.drop(one) }, []string{"data/messages lacks"}, true},
		"native removed":   {func(q *parcel) { q.drop(one + nameMessage) }, []string{one + nameMessage}, true},
		"proof removed":    {func(q *parcel) { q.drop(one + nameProof) }, []string{"data/messages"}, true},
		"exhibit removed":  {func(q *parcel) { q.drop(one + nameExhibits) }, []string{one + nameExhibits}, true},
		"file added":       {func(q *parcel) { q.files["data/messages/note.txt"] = []byte("hello") }, []string{"data/messages/note.txt"}, true},
		"tag file added":   {func(q *parcel) { q.files["fetch.txt"] = []byte("hello") }, []string{"fetch.txt"}, true},
		"messages swapped": {swap(one+nameMessage, two+nameMessage), []string{one + nameProof, one + nameMessage}, true},
		"folders swapped":  {func(q *parcel) { swap(one+nameMessage, two+nameMessage)(q); swap(one+nameProof, two+nameProof)(q) }, []string{one}, true},
		"envelopes swapped": {func(q *parcel) {
			exchange(t, q, one, two, func(a, b *record) { a.Envelope, b.Envelope = b.Envelope, a.Envelope })
		}, []string{one + nameMessage}, true},
		"records swapped":      {func(q *parcel) { exchange(t, q, one, two, func(a, b *record) { *a, *b = *b, *a }) }, []string{one + nameMessage}, true},
		"message twice":        {func(q *parcel) { again(t, q, one, "data/messages/0000009/") }, []string{"data/messages/0000009/"}, true},
		"custody reordered":    {func(q *parcel) { reorder(t, q, false) }, []string{fileCustody}, true},
		"custody chained anew": {func(q *parcel) { reorder(t, q, true) }, []string{fileCustody}, true},
		"custody line taken out": {func(q *parcel) {
			lines := bytes.SplitAfter(q.files[fileCustody], []byte("\n"))
			q.files[fileCustody] = bytes.Join(slices.DeleteFunc(lines, func(l []byte) bool { return bytes.Contains(l, []byte("marked item")) }), nil)
		}, []string{fileCustody}, true},
		"custody tells twice":      {func(q *parcel) { twice(t, q) }, []string{fileCustody}, true},
		"answer not logged":        {func(q *parcel) { unlogged(t, q) }, []string{answerFile(1)}, true},
		"custody cut":              {func(q *parcel) { q.files[fileCustody] = q.files[fileCustody][:0] }, []string{fileCustody}, true},
		"approval forged":          {func(q *parcel) { forge(t, q) }, []string{answerFile(1)}, true},
		"approval another's":       {func(q *parcel) { q.files[answerFile(1)] = q.files[answerFile(3)] }, []string{answerFile(1)}, true},
		"approval of another case": {func(q *parcel) { q.files[answerFile(1)] = another.files[answerFile(1)] }, []string{answerFile(1)}, true},
		"approval removed":         {func(q *parcel) { q.drop(answerFile(1)) }, []string{folderAnswers}, true},
		"refusal removed":          {func(q *parcel) { q.drop(answerFile(2)) }, []string{fileLeaves}, true},
		"case of another":          {func(q *parcel) { q.files[fileCase] = another.files[fileCase] }, []string{fileRequest}, true},
		"request of another":       {func(q *parcel) { q.files[fileRequest] = another.files[fileRequest] }, []string{fileRequest}, true},
		"older checkpoint":         {func(q *parcel) { q.files[fileCheckpoint] = note }, []string{fileCheckpoint, fileProofs}, true},
		"newer checkpoint":         {func(q *parcel) { q.files[fileCheckpoint] = another.files[fileCheckpoint] }, []string{fileProofs}, true},
		"cosignature removed":      {uncosigned, []string{fileCheckpoint}, true},
		"leaves of another case":   {func(q *parcel) { q.files[fileLeaves] = another.files[fileLeaves] }, []string{fileLeaves}, true},
		"attestation removed":      {func(q *parcel) { q.drop(folderAttest + "00002") }, []string{folderAttest}, true},
		"withheld is shown":        {func(q *parcel) { q.files[fileWithheld] = nil }, []string{"data/messages lacks"}, true},
		"custodians renamed": {func(q *parcel) {
			q.files[fileCustodians] = bytes.ReplaceAll(q.files[fileCustodians], []byte("alice@"), []byte("alicf@"))
		}, []string{fileCustodians}, true},
		"outcome changed": {func(q *parcel) {
			exchange(t, q, one, two, func(a, b *record) { a.Events[0].Payload = []byte("failed") })
		}, []string{one + nameProof}, true},
		"salt changed":   {func(q *parcel) { exchange(t, q, one, two, func(a, b *record) { a.Salt[0] ^= 1 }) }, []string{one + nameMessage}, true},
		"readme changed": {func(q *parcel) { q.files[fileReadme] = []byte("believe me\n") }, []string{fileSignature}, false},
		"mark changed": {func(q *parcel) {
			q.files[one+nameProof] = bytes.Replace(q.files[one+nameProof], []byte(`"marks": []`), []byte("\"marks\": [\n  \"relevant\"\n ]"), 1)
		}, []string{fileSignature}, false},
		"exhibit changed": {func(q *parcel) { q.files[q.first(one+nameExhibits)][0] ^= 1 }, []string{fileSignature}, false},
		"custody of no leaf": {func(q *parcel) {
			q.files[fileCustody] = bytes.Replace(q.files[fileCustody], []byte("marked item 5"), []byte("marked item 6"), 1)
			chained(t, q, bytes.SplitAfter(q.files[fileCustody], []byte("\n")))
		}, []string{fileSignature}, false},
	} {
		t.Run(name, func(t *testing.T) {
			q := p.clone()
			a.do(q)
			if bytes.Equal(q.zip(), p.zip()) {
				t.Fatal("nothing was changed")
			}
			refused(t, "lists as they were", q.zip())
			refused(t, "lists made anew", q.listed().zip(), a.names...)
			if a.signed {
				refused(t, "signed by the requester", q.signed(t, signer).zip(), a.names...)
			} else if _, err := verify(t, q.signed(t, signer).zip(), nil); err != nil {
				t.Errorf("it is the requester's word, and he signed it: %v", err)
			}
		})
	}
}

// drop takes away the files whose names begin so.
func (p *parcel) drop(prefix string) {
	for _, n := range p.names() {
		if strings.HasPrefix(n, prefix) {
			delete(p.files, n)
		}
	}
}

func (p *parcel) first(prefix string) string {
	names := p.names()
	return names[slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, prefix) })]
}

// exchange changes the first records of two messages.
func exchange(t *testing.T, p *parcel, one, two string, f func(a, b *record)) {
	t.Helper()
	var a, b message
	for name, m := range map[string]*message{one: &a, two: &b} {
		if err := decode(p.files[name+nameProof], m, encode); err != nil {
			t.Fatal(err)
		}
	}
	f(&a.Records[0], &b.Records[0])
	p.files[one+nameProof], p.files[two+nameProof] = must[[]byte](t)(encode(a)), must[[]byte](t)(encode(b))
}

// again puts a message a second time under another number.
func again(t *testing.T, p *parcel, from, to string) {
	t.Helper()
	var m message
	if err := decode(p.files[from+nameProof], &m, encode); err != nil {
		t.Fatal(err)
	}
	m.Number, m.Exhibits = 9, []exhibit{}
	p.files[to+nameProof], p.files[to+nameMessage] = must[[]byte](t)(encode(m)), p.files[from+nameMessage]
}

// reorder swaps two lines of the custody record, with their chain as it was or made anew.
func reorder(t *testing.T, p *parcel, anew bool) {
	t.Helper()
	lines := bytes.SplitAfter(p.files[fileCustody], []byte("\n"))
	lines[1], lines[2] = lines[2], lines[1]
	p.files[fileCustody] = bytes.Join(lines, nil)
	if anew {
		chained(t, p, lines)
	}
}

func chained(t *testing.T, p *parcel, lines [][]byte) {
	t.Helper()
	var events []Event
	for _, l := range lines {
		if len(l) == 0 {
			continue
		}
		var e Event
		if err := decode(l, &e, line); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	p.files[fileCustody] = must[[]byte](t)(chain(events))
}

// twice repeats the last event that has a leaf.
func twice(t *testing.T, p *parcel) {
	t.Helper()
	lines := bytes.SplitAfter(p.files[fileCustody], []byte("\n"))
	for _, l := range slices.Backward(lines) {
		if bytes.Contains(l, []byte(`"leaf"`)) {
			chained(t, p, append(lines, l))
			return
		}
	}
	t.Fatal("no event has a leaf")
}

// unlogged takes the first leaf of leaves.json, which is that of officer 1's answer, away, and its event.
func unlogged(t *testing.T, p *parcel) {
	t.Helper()
	var list []leafProof
	if err := decode(p.files[fileLeaves], &list, encode); err != nil {
		t.Fatal(err)
	}
	p.files[fileLeaves] = must[[]byte](t)(encode(list[1:]))
	lines := bytes.SplitAfter(p.files[fileCustody], []byte("\n"))
	chained(t, p, slices.DeleteFunc(lines, func(l []byte) bool { return bytes.Contains(l, fmt.Appendf(nil, `"leaf":%d,`, list[0].Index)) }))
}

// forge signs an approval with a key of the forger's.
func forge(t *testing.T, p *parcel) {
	t.Helper()
	st := must[*escrow.Statement](t)(escrow.ParseStatement(p.files[answerFile(1)]))
	k := must[escrow.SigningKey](t)(escrow.NewSigningKey(bytes.Repeat([]byte{9}, 32)))
	p.files[answerFile(1)] = must[*escrow.Statement](t)(st.Sign(k)).Octets()
}

// uncosigned takes the witness's line from the checkpoint.
func uncosigned(p *parcel) {
	lines := bytes.SplitAfter(p.files[fileCheckpoint], []byte("\n"))
	p.files[fileCheckpoint] = bytes.Join(slices.DeleteFunc(lines, func(l []byte) bool { return bytes.Contains(l, []byte("witness.test")) }), nil)
}

// TestContainer: ZIP files that can be read in two ways, swell, or are no package at all.
func TestContainer(t *testing.T) {
	make := func(files ...zip.FileHeader) []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for i := range files {
			w, err := z.CreateHeader(&files[i])
			if err != nil {
				t.Fatal(err)
			}
			w.Write(bytes.Repeat([]byte("0"), 5000))
		}
		z.Close()
		return b.Bytes()
	}
	for name, b := range map[string][]byte{
		"traversal":  make(zip.FileHeader{Name: "x/../../etc/passwd"}),
		"absolute":   make(zip.FileHeader{Name: "/etc/passwd"}),
		"backslash":  make(zip.FileHeader{Name: `x/a\b`}),
		"control":    make(zip.FileHeader{Name: "x/a\nb"}),
		"twice":      make(zip.FileHeader{Name: "x/a"}, zip.FileHeader{Name: "x/a"}),
		"two bases":  make(zip.FileHeader{Name: "x/a"}, zip.FileHeader{Name: "y/a"}),
		"compressed": make(zip.FileHeader{Name: "x/a", Method: zip.Deflate}),
		"deep":       make(zip.FileHeader{Name: "x/" + strings.Repeat("d/", 40) + "a"}),
		"empty":      make(),
		"nothing":    nil,
		"no package": make(zip.FileHeader{Name: "x/a"}),
	} {
		refused(t, name, b)
	}
	two := make(zip.FileHeader{Name: "x/a"}, zip.FileHeader{Name: "x/b"})
	two[bytes.LastIndex(two[:bytes.Index(two, []byte("PK\x01\x02"))], []byte("x/b"))+2] = 'c'
	refused(t, "another name in the header", two, "another name in its own header")
	refused(t, "something before the first file", append([]byte("MZ"), make(zip.FileHeader{Name: "x/a"})...))
	many := make(zip.FileHeader{Name: "x/a"})
	end := many[len(many)-22:]
	copy(end[8:12], "\xff\xff\xff\xff")
	refused(t, "a wrong count", many)
	locator := append(bytes.Clone(many[:len(many)-22]), make64(uint64(len(many)-22), 1<<40)...)
	refused(t, "a huge count", append(locator, end...), "says that it has")
	overlap := make(zip.FileHeader{Name: "x/a"}, zip.FileHeader{Name: "x/b"})
	for at := bytes.Index(overlap, []byte("PK\x01\x02")); at >= 0; { // both as long as the file, and one behind the other
		for _, field := range []int{20, 24} {
			binary.LittleEndian.PutUint32(overlap[at+field:], uint32(len(overlap)-100))
		}
		next := bytes.Index(overlap[at+4:], []byte("PK\x01\x02"))
		if next < 0 {
			break
		}
		at += 4 + next
	}
	refused(t, "overlapping files", overlap, "overlap")
}

// make64 is a ZIP64 end record that tells of so many files, at an offset, with its locator.
func make64(at, files uint64) []byte {
	rec := make([]byte, 56)
	copy(rec, "PK\x06\x06")
	binary.LittleEndian.PutUint64(rec[4:], 44)
	binary.LittleEndian.PutUint64(rec[24:], files)
	binary.LittleEndian.PutUint64(rec[32:], files)
	loc := make([]byte, 20)
	copy(loc, "PK\x06\x07")
	binary.LittleEndian.PutUint64(loc[8:], at)
	return append(rec, loc...)
}

// TestPythonReadsTheBag checks the lists of hashes with nothing of ours: Python's zipfile and hashlib.
func TestPythonReadsTheBag(t *testing.T) {
	testpeer.Require(t, "python3")
	file := filepath.Join(t.TempDir(), "package.zip")
	if err := os.WriteFile(file, newWorld(t).pack(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("python3", "-c", `
import hashlib, sys, zipfile
z = zipfile.ZipFile(sys.argv[1])
assert z.testzip() is None
names = [i.filename for i in z.infolist()]
assert len(set(names)) == len(names)
base = names[0].split("/")[0]
assert all(n.startswith(base + "/") for n in names)
read = lambda n: z.read(base + "/" + n)
assert read("bagit.txt") == b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
checked = set()
for algorithm in "sha256", "sha512":
    for manifest in "manifest-", "tagmanifest-":
        listed = set()
        for line in read(manifest + algorithm + ".txt").decode().splitlines():
            digest, name = line.split("  ", 1)
            assert hashlib.new(algorithm, read(name)).hexdigest() == digest, name
            assert name not in listed
            listed.add(name)
        if manifest == "manifest-":
            assert listed == {n[len(base) + 1:] for n in names if n.startswith(base + "/data/")}
        checked |= listed
info = dict(l.split(": ", 1) for l in read("bag-info.txt").decode().splitlines())
payload = [i for i in z.infolist() if i.filename.startswith(base + "/data/")]
assert info["Payload-Oxum"] == "%d.%d" % (sum(i.file_size for i in payload), len(payload))
previous = "0" * 64
import json
for line in read("data/custody.jsonl").splitlines(True):
    assert json.loads(line)["previous"] == previous
    previous = hashlib.sha256(line).hexdigest()
print(len(checked))
`, file).CombinedOutput()
	if err != nil || len(out) < 3 {
		t.Fatalf("%v: %s", err, out)
	}
}

// FuzzContainer: no octets make the reader of ZIP files panic, and what it lets in has plain names, each once, and no more octets than
// the file.
func FuzzContainer(f *testing.F) {
	for _, files := range []map[string][]byte{{"bagit.txt": []byte(bagit)}, {"a": nil, "data/b": []byte("c"), "manifest-sha256.txt": []byte("00  data/b\n")}} {
		f.Add((&parcel{"x", files}).zip())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := openContainer(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		total := 0
		for _, name := range c.names {
			if !plain(name) {
				t.Errorf("%q", name)
			}
			if b, err := c.read(name, maxSmall); err == nil {
				total += len(b)
			}
			if l, err := c.listing(name); err == nil {
				for range 10 {
					if _, _, err := l.next(); err != nil {
						break
					}
				}
				l.file.Close()
			}
		}
		if total > len(raw) {
			t.Errorf("%d octets out of %d", total, len(raw))
		}
		if _, err := verify(t, raw, nil); !isFault(err) {
			t.Errorf("it passes, or is the reader's fault: %v", err)
		}
	})
}

// FuzzDocument: a document that is read is written to the same octets.
func FuzzDocument(f *testing.F) {
	f.Add(must[[]byte](f)(encode(message{Records: []record{{Events: []event{{}}}}, Exhibits: []exhibit{{}}})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m message
		if err := decode(raw, &m, encode); err != nil {
			return
		}
		if b, err := encode(m); err != nil || !bytes.Equal(b, raw) {
			t.Errorf("%q is written %q", raw, b)
		}
	})
}
