package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"dimegate/internal/testpeer"
	"dimegate/vault"
	"dimegate/vault/discovery"
)

// TestMIH: the vector of the EDRM MIH 1.0, and how a field may be written around it.
func TestMIH(t *testing.T) {
	const id, want = "<CALckR-a8UDkRjO4xJyjd_s0GPxQWw@mail.gmail.com>", "1de319c276884bd0c9e2f1621ada26cc"
	if got := MIH(id); got != want {
		t.Fatalf("MIH is %s, want %s", got, want)
	}
	for _, field := range []string{"Message-ID: " + id, "message-id:" + id + "  ", "Message-Id :\r\n " + id} {
		var r row
		if err := r.read(strings.NewReader("From: a@b\r\n" + field + "\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if got := MIH(r.head.value("Message-ID")); got != want {
			t.Errorf("%q: MIH %s", field, got)
		}
	}
	if MIH(" ") != "" || MIH(strings.ToUpper(id)) == want {
		t.Error("no id has a MIH, or case does not count")
	}
}

// items is a source in memory.
type items struct {
	list []discovery.Item
	body [][]byte
	fail int // the item that cannot be read; 0: none
}

func (s *items) Items() []discovery.Item { return s.list }

func (s *items) Open(_ context.Context, n int) (io.ReadCloser, error) {
	if n == s.fail {
		return io.NopCloser(io.MultiReader(bytes.NewReader(s.body[n-1][:3]), iotest.ErrReader(errDisk))), nil
	}
	return io.NopCloser(bytes.NewReader(s.body[n-1])), nil
}

var errDisk = errors.New("disk")

func (s *items) add(raw string, recipients ...string) *discovery.Item {
	n := len(s.list) + 1
	e := discovery.Envelope{Record: vault.ID{byte(n)}, Leaf: uint64(n), Direction: vault.Outbound, From: "alice@corp.example",
		Recipients: recipients, Received: time.Date(2026, 12, 1, 2, 49, n, 0, time.UTC), Source: "smtp"}
	s.list = append(s.list, discovery.Item{Number: n, Record: e.Record, Leaf: e.Leaf, Custodians: []string{"alice@corp.example", "bob@corp.example"},
		Octets: int64(len(raw)), Content: vault.NewDigest("octets", []byte(raw)), Envelopes: []discovery.Envelope{e}})
	s.body = append(s.body, []byte(raw))
	return &s.list[n-1]
}

// awkward has what exports stumble over.
func awkward() *items {
	s := new(items)
	s.add("From: Alice <alice@corp.example>\r\nTo: bob@corp.example\r\nSubject: =?utf-8?q?Caf=C3=A9_=C3=BE_=C2=AE?=\r\nDate: Tue, 01 Dec 2026 04:49:00 +0200\r\n"+
		"Message-ID: <CALckR-a8UDkRjO4xJyjd_s0GPxQWw@mail.gmail.com>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"+
		"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\nFrom the desk\r\n>From before\r\n>>From twice\r\nFromage\r\n"+
		"--b\r\nContent-Type: application/pdf; name=\"plan.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n"+
		"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx\r\n--b--\r\n", "bob@corp.example", "boss@corp.example")
	s.add("Subject: =1+1;\r\nFrom: \"quo\"\"ted\" <x@y.example>,\r\n\tz@y.example\r\n\r\nFrom\r\nFrom \r\n\n\nFrom x\n>\r\n\r\n", "c@d.example")
	s.add("no header at all, and no end of line\x00\xff", "c@d.example")
	s.add("", "c@d.example")
	s.add("Subject: secret words\r\nFrom: counsel@law.example\r\n\r\nprivileged body\r\n", "alice@corp.example").Marks = []string{discovery.MarkPrivilege}
	s.add("From \r\nSubject: begins like a separator\r\n\r\n"+strings.Repeat("From here to there \r\n", 9000), "c@d.example")
	return s
}

func write(t *testing.T, s *items, o Options) *Report {
	t.Helper()
	r, err := Write(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// unquoted reads an mbox by the rule in mbox.go, without the code that wrote it.
func unquoted(t *testing.T, box []byte) [][]byte {
	var all [][]byte
	for line := range bytes.Lines(box) {
		if bytes.HasPrefix(line, []byte("From ")) {
			all = append(all, nil)
			continue
		}
		if rest := bytes.TrimLeft(line, ">"); len(rest) < len(line) && bytes.HasPrefix(rest, []byte("From ")) {
			line = line[1:]
		}
		if len(all) == 0 {
			t.Fatal("octets before the first separator")
		}
		all[len(all)-1] = append(all[len(all)-1], line...)
	}
	for i := range all {
		var ok bool
		if all[i], ok = bytes.CutSuffix(all[i], []byte("\n")); !ok {
			t.Fatalf("message %d has no line feed behind it", i)
		}
	}
	return all
}

func TestNativesAndMbox(t *testing.T) {
	s, dir := awkward(), t.TempDir()
	write(t, s, Options{Folder: dir, Formats: []Format{EML, MBox}})
	box, err := os.ReadFile(filepath.Join(dir, "VOL001", "VOL001.mbox"))
	if err != nil {
		t.Fatal(err)
	}
	messages := unquoted(t, box)
	n := 0
	for i, item := range s.list {
		native, err := os.ReadFile(filepath.Join(dir, "VOL001", "NATIVES", fmt.Sprintf("DG%08d.eml", item.Number)))
		if item.Withheld() {
			if err == nil {
				t.Errorf("item %d is withheld, and there", item.Number)
			}
			continue
		}
		if err != nil || !bytes.Equal(native, s.body[i]) {
			t.Errorf("native %d differs: %v", item.Number, err)
		}
		if n >= len(messages) || !bytes.Equal(messages[n], s.body[i]) {
			t.Errorf("item %d differs in the mbox", item.Number)
		}
		n++
	}
	if n != len(messages) {
		t.Errorf("%d messages in the mbox, %d exported", len(messages), n)
	}
	if bytes.Contains(box, []byte("privileged body")) {
		t.Error("the mbox has what is withheld")
	}
}

// TestMailboxOfPython reads the mbox with Python's mailbox module. Messages that end with a line feed, as all mail does that came
// by SMTP, are read octet for octet; of others Python takes the line feed behind them for theirs.
func TestMailboxOfPython(t *testing.T) {
	testpeer.Require(t, "python3")
	s, dir := awkward(), t.TempDir()
	write(t, s, Options{Folder: dir, Formats: []Format{MBox, DAT, CSV, EML}})
	out, err := exec.Command("python3", "-c", `
import csv, hashlib, json, mailbox, re, sys
folder = sys.argv[1]
box = mailbox.mbox(folder + "/VOL001/VOL001.mbox", create=False)
mail = [re.sub(rb"(?m)^>(>*From )", rb"\1", box.get_bytes(k)) for k in box.keys()]
with open(folder + "/VOL001/VOL001.csv", encoding="utf-8-sig", newline="") as f:
    table = list(csv.DictReader(f))
with open(folder + "/VOL001/VOL001.dat", encoding="utf-8-sig", newline="") as f:
    dat = list(csv.DictReader(f, delimiter="\x14", quotechar="\xfe"))
natives = {r["Control Number"]: hashlib.sha256(open(folder + "/" + r["Native Path"], "rb").read()).hexdigest() for r in table if r["Native Path"]}
json.dump({"mail": [hashlib.sha256(m).hexdigest() for m in mail], "csv": table, "dat": dat, "natives": natives}, sys.stdout)
`, dir).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderrOf(err))
	}
	var got struct {
		Mail     []string
		CSV, DAT []map[string]string
		Natives  map[string]string
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, item := range s.list {
		if item.Withheld() {
			continue
		}
		want := s.body[i]
		if !bytes.HasSuffix(want, []byte("\n")) && len(want) > 0 {
			want = append(slices.Clone(want), '\n')
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(want)); n >= len(got.Mail) || got.Mail[n] != sum {
			t.Errorf("Python reads item %d otherwise", item.Number)
		}
		if row := got.CSV[i]; got.Natives[row["Control Number"]] != row["SHA-256 Hash"] {
			t.Errorf("the hash of item %d is not its native's", item.Number)
		}
		n++
	}
	if len(got.CSV) != len(s.list) || len(got.DAT) != len(s.list) || len(got.Natives) != n || len(got.Mail) != n {
		t.Fatalf("%d rows of CSV, %d of DAT, %d natives, %d messages", len(got.CSV), len(got.DAT), len(got.Natives), len(got.Mail))
	}
	for name, want := range map[string]string{
		"Control Number": "DG00000001", "Custodian": "alice@corp.example", "All Custodians": "alice@corp.example; bob@corp.example",
		"From": "Alice <alice@corp.example>", "To": "bob@corp.example", "BCC": "boss@corp.example", "Subject": "Café þ ®",
		"Date Sent (UTC)": "2026-12-01 02:49:00", "Date Received (UTC)": "2026-12-01 02:49:01", "Attachment Count": "2",
		"Attachment Names": "plan.pdf; (no name)", "EDRM MIH": "1de319c276884bd0c9e2f1621ada26cc", "Native Path": "VOL001/NATIVES/DG00000001.eml",
		"Envelope Recipients": "bob@corp.example; boss@corp.example", "Direction": "outbound", "Log Leaf": "1",
	} {
		if got.CSV[0][name] != want {
			t.Errorf("CSV %s is %q, want %q", name, got.CSV[0][name], want)
		}
		switch name {
		case "Subject":
			want = "Café þ (R)"
		case "Native Path":
			want = `VOL001\NATIVES\DG00000001.eml`
		}
		if got.DAT[0][name] != want {
			t.Errorf("DAT %s is %q, want %q", name, got.DAT[0][name], want)
		}
	}
	if v := got.CSV[1]["Subject"]; v != "'=1+1;" {
		t.Errorf("a spreadsheet would compute %q", v)
	}
	if v := got.DAT[1]["Subject"]; v != "=1+1;" {
		t.Errorf("DAT has %q", v)
	}
	if row := got.CSV[4]; row["Marks"] != "privilege" || row["Subject"] != "" || row["Native Path"] != "" || row["SHA-256 Hash"] != "" || row["From"] == "" {
		t.Errorf("withheld: %v", row)
	}
}

func stderrOf(err error) []byte {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.Stderr
	}
	return nil
}

// TestResume: an export that was cut short keeps its whole volumes and goes on; a folder of another export is refused.
func TestResume(t *testing.T) {
	s, dir := awkward(), t.TempDir()
	o := Options{Folder: dir, Formats: []Format{EML, CSV}, VolumeItems: 2}
	s.fail = 3
	if _, err := Write(t.Context(), s, o); !errors.Is(err, errDisk) {
		t.Fatalf("an error of the source is %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "VOL002")); err == nil {
		t.Fatal("half a volume has its name")
	}
	before, err := os.Stat(filepath.Join(dir, "VOL001", "VOL001.csv"))
	if err != nil {
		t.Fatal(err)
	}
	s.fail = 0
	var steps []int
	o.Progress = func(done, total int) { steps = append(steps, done) }
	r := write(t, s, o)
	if r.Volumes != 3 || r.Kept != 1 || r.Items != 6 || r.Withheld != 1 {
		t.Errorf("%+v", r)
	}
	if !slices.Equal(steps, []int{2, 3, 4, 5, 6}) {
		t.Errorf("progress %v", steps)
	}
	after, err := os.Stat(filepath.Join(dir, "VOL001", "VOL001.csv"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the whole volume was written again: %v", err)
	}
	s.list[0].Marks = []string{discovery.MarkRelevant}
	if _, err := Write(t.Context(), s, o); !errors.Is(err, ErrOther) {
		t.Errorf("other marks: %v", err)
	}
}

// TestSpreadsheet: no cell begins with what a spreadsheet computes, behind white space or in full width either.
func TestSpreadsheet(t *testing.T) {
	for text, want := range map[string]string{"=1": "'=1", "\n=1": "'\n=1", "\t@x": "' @x", "＝1": "'＝1", "a=1": "a=1", "": ""} {
		var b bytes.Buffer
		c := csvFile{csv.NewWriter(&b)}
		if err := errors.Join(c.line([]string{text, "x"}), c.end()); err != nil {
			t.Fatal(err)
		}
		if got, err := csv.NewReader(&b).Read(); err != nil || got[0] != want {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	for name, o := range map[string]Options{"prefix": {Formats: Formats, Prefix: "../x"}, "format": {Formats: []Format{"pst"}}, "none": {}} {
		o.Folder = filepath.Join(t.TempDir(), "x")
		if _, err := Write(t.Context(), awkward(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(o.Folder); err == nil {
			t.Errorf("%s: a folder was made", name)
		}
	}
}

// FuzzHead: no octets make the header's reading panic, or change what is hashed; rows of any text can be read again.
func FuzzHead(f *testing.F) {
	for _, b := range awkward().body[:5] {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := newRow("X1", discovery.Item{Envelopes: []discovery.Envelope{{From: string(raw), Recipients: []string{string(raw)}}}})
		if err := r.read(iotest.OneByteReader(bytes.NewReader(raw))); err != nil {
			t.Fatal(err)
		}
		if r.octets != int64(len(raw)) || r.sha256 != fmt.Sprintf("%x", sha256.Sum256(raw)) {
			t.Error("other octets were hashed")
		}
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		c := csvFile{w}
		if err := c.row(r); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		if row, err := csv.NewReader(&b).Read(); err != nil || len(row) != len(columns) {
			t.Errorf("%d cells: %v", len(row), err)
		}
		for _, v := range r.values() {
			if strings.ContainsAny(cell(v), "\x00\x14\x1b\r") {
				t.Errorf("a control character in %q", v)
			}
		}
	})
}

// FuzzMbox: what is quoted comes back, however it is cut.
func FuzzMbox(f *testing.F) {
	f.Add([]byte("From a\n>From b\n>>F\nFrom"), 3)
	f.Fuzz(func(t *testing.T, raw []byte, cut int) {
		var b bytes.Buffer
		m, err := newMboxMessage(&b, discovery.Item{})
		if err != nil {
			t.Fatal(err)
		}
		for part := range slices.Chunk(raw, max(1, cut%7)) {
			if n, err := m.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if got := unquoted(t, b.Bytes()); len(got) != 1 || !bytes.Equal(got[0], raw) {
			t.Errorf("%q comes back as %q", raw, got)
		}
	})
}
