package discovery_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dimegate/internal/testcase"
	"dimegate/vault"
	"dimegate/vault/discovery"
)

// TestCaseFileRecord reads records whose lengths do not fit what is there: each is refused by name, none is read beyond its own part.
func TestCaseFileRecord(t *testing.T) {
	id := vault.RandomID()
	whole := discovery.RecordInfo{Record: id, EnvelopeOctets: 3, BodyOctets: 5, Exhibits: []discovery.SealedExhibit{{Octets: 2}}}
	tests := map[string]struct {
		change func(*discovery.RecordInfo)
		cut    int
		ok     bool
	}{
		"whole":                  {func(*discovery.RecordInfo) {}, 0, true},
		"another record":         {func(r *discovery.RecordInfo) { r.Record = vault.RandomID() }, 0, false},
		"body longer":            {func(r *discovery.RecordInfo) { r.BodyOctets++ }, 0, false},
		"body without end":       {func(r *discovery.RecordInfo) { r.BodyOctets = math.MaxInt64 }, 0, false},
		"body negative":          {func(r *discovery.RecordInfo) { r.BodyOctets = -1 }, 0, false},
		"envelope too long":      {func(r *discovery.RecordInfo) { r.EnvelopeOctets = 1 << 30 }, 0, false},
		"exhibit without end":    {func(r *discovery.RecordInfo) { r.Exhibits[0].Octets = math.MaxInt64 }, 0, false},
		"exhibit negative":       {func(r *discovery.RecordInfo) { r.Exhibits[0].Octets = -2 }, 0, false},
		"spare octets":           {func(r *discovery.RecordInfo) { r.BodyOctets-- }, 0, false},
		"cut":                    {func(*discovery.RecordInfo) {}, 1, false},
		"nothing but its length": {func(*discovery.RecordInfo) {}, 1 << 20, false},
	}
	w := testcase.New(t)
	w.Seal(t, testcase.Message{Octets: []byte("x")})
	w.Grant(t, 1, 2)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := whole
			r.Exhibits = []discovery.SealedExhibit{whole.Exhibits[0]}
			tt.change(&r)
			head, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			octets := append(binary.BigEndian.AppendUint32(nil, uint32(len(head))), head...)
			octets = append(octets, "envbodyyxx"...)
			c := withMember(t, w, "records/"+id.String(), octets[:max(4, len(octets)-tt.cut)])
			got, err := c.Record(id)
			if (err == nil) != tt.ok {
				t.Fatalf("read: %v", err)
			}
			if err != nil {
				return
			}
			body, err := io.ReadAll(got.Body())
			x, xerr := io.ReadAll(got.Exhibit(0))
			if err != nil || xerr != nil || string(got.Envelope) != "env" || string(body) != "bodyy" || string(x) != "xx" {
				t.Errorf("%q %q %q, %v %v", got.Envelope, body, x, err, xerr)
			}
		})
	}
}

// withMember is a case file of w's case with one more member.
func withMember(t *testing.T, w *testcase.World, name string, octets []byte) *discovery.CaseFile {
	t.Helper()
	from, err := discovery.OpenCaseFile(w.CaseFile)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(t.TempDir(), "case.zip")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := discovery.NewCaseFile(f, from.Case, from.LogKey, time.Now())
	if err == nil {
		err = out.Key(from.Key, from.Epochs, from.Attestations)
	}
	if err == nil {
		err = out.Leaves(from.Leaves)
	}
	if err == nil {
		err = out.Put(name, octets)
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := discovery.OpenCaseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestFiles reads what is written, and refuses any cut of it.
func TestFiles(t *testing.T) {
	w := testcase.New(t)
	w.Seal(t, testcase.Message{Octets: []byte("x"), Custodians: []string{"a@example.org", "b@example.org"}})
	request := []byte(w.Station.Request().Line())
	r, err := discovery.ParseCaseRequest(request)
	if err != nil || r.Line() != string(request) {
		t.Fatalf("request: %v", err)
	}
	for n := range len(request) - 1 {
		if _, err := discovery.ParseCaseRequest(request[:n]); err == nil {
			t.Errorf("the first %d octets are a request", n)
		}
	}
	selection, err := w.Selection(t, time.Hour).Octets()
	if err != nil {
		t.Fatal(err)
	}
	s, err := discovery.ParseSelection(selection)
	if err != nil || len(s.Custodians) != 2 {
		t.Fatalf("selection: %v", err)
	}
	if again, err := s.Octets(); err != nil || !bytes.Equal(again, selection) {
		t.Errorf("selection: %v", err)
	}
	other := bytes.Replace(selection, []byte("a@example.org"), []byte("c@example.org"), 1)
	if _, err := discovery.ParseSelection(other); err == nil {
		t.Error("a custodian under another's name is read")
	}
	for n := 0; n < len(selection); n += 7 {
		if _, err := discovery.ParseSelection(selection[:n]); err == nil {
			t.Errorf("the first %d octets are a selection", n)
		}
	}
}
