package station_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/internal/testcase"
	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/discovery/access"
	"dimegate/vault/discovery/station"
	"dimegate/vault/escrow"
)

func mail(subject, body string) []byte {
	return []byte("From: Sender <sender@example.net>\r\nTo: alice@example.org\r\nSubject: " + subject + "\r\n\r\n" + body + "\r\n")
}

// TestCase is a case on a station, from the case file to its end: items that are the octets, equal content once, marks, and nothing
// that opens any more.
func TestCase(t *testing.T) {
	second := discovery.Envelope{From: "sender@example.net", Recipients: []string{"bob@example.org", "hidden@example.org"}, Source: "dmtp"}
	w, c := testcase.Opened(t,
		testcase.Message{Octets: mail("one", "the merger closes")},
		testcase.Message{Octets: mail("two", "nothing"), Custodians: []string{"alice@example.org", "bob@example.org"}},
		testcase.Message{Octets: mail("one", "the merger closes"), Custodians: []string{"bob@example.org"}, Envelopes: []discovery.Envelope{second}, Class: 2},
	)
	items := c.Items()
	if len(items) != 2 || !c.Whole() || len(c.Faults()) != 0 {
		t.Fatalf("%d items, whole %v, faults %v", len(items), c.Whole(), c.Faults())
	}
	one := items[0]
	if len(one.Envelopes) != 2 || !slices.Equal(one.Custodians, []string{"alice@example.org", "bob@example.org"}) || one.Envelopes[1].Recipients[1] != "hidden@example.org" ||
		one.Envelopes[1].Record == one.Record || one.Envelopes[1].Class != 2 || one.Record != w.Records[0] {
		t.Errorf("the first item is %+v", one)
	}
	if got := read(t, c, 1); got != string(mail("one", "the merger closes")) {
		t.Errorf("octets are %q", got)
	}
	intakes, err := c.Intakes(t.Context(), 1)
	if err != nil || len(intakes) != 2 || intakes[1].Leaf.Index != one.Envelopes[1].Leaf || len(intakes[0].Wraps) != 1 {
		t.Errorf("intakes %+v, %v", intakes, err)
	}
	if err := c.Mark(discovery.MarkPrivilege, []int{2}, false); err != nil {
		t.Fatal(err)
	}
	again, err := w.Station.Case(w.Keys, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !again.Items()[1].Withheld() || again.Items()[0].Withheld() {
		t.Error("the mark is not kept")
	}
	if err := again.Mark(discovery.MarkRelevant, []int{1}, false); err != nil {
		t.Fatal(err)
	}
	if err := c.Refresh(); err != nil || !slices.Equal(c.Items()[0].Marks, []string{discovery.MarkRelevant}) {
		t.Errorf("marks of another process: %v, %v", c.Items()[0].Marks, err)
	}
	log, err := access.Open(w.Station.AccessRecord(), w.Station.Selection().Manifest.Digest())
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Record(t.Context(), access.Entry{What: access.Fetch, Item: 1}); err != nil {
		t.Fatal(err)
	}
	head, accesses := log.Head()
	log.Close()
	if _, err := w.Station.Case(w.Keys, w.Now.Add(2*time.Hour)); !errors.Is(err, station.ErrExpired) {
		t.Errorf("after it expired: %v", err)
	}
	dir := filepath.Dir(w.CaseFile)
	b, err := w.Station.CloseCase(w.Keys, vault.Digest{1}, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	closing, err := discovery.ParseClosing(b, w.Station.Selection().Manifest)
	if err != nil || len(closing.Opened) != 3 || closing.Export != (vault.Digest{1}) || closing.Access != head || closing.Accesses != accesses || accesses != 1 {
		t.Fatalf("closing %+v, %v", closing, err)
	}
	if _, err := discovery.ParseClosing([]byte(strings.Replace(string(b), `"opened":[0,`, `"opened":[`, 1)), w.Station.Selection().Manifest); err == nil {
		t.Error("a closing with another list is accepted")
	}
	if _, err := w.Station.Unlock(nil); !errors.Is(err, station.ErrClosed) {
		t.Errorf("unlocked after close: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "station", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if want := []string{"access.log", "case.request", "closing.json", "request.deg1", "selection.json", "station.json"}; !slices.Equal(left, want) {
		t.Errorf("after close the folder holds %v, want %v", left, want)
	}
}

func read(t *testing.T, c *station.Case, n int) string {
	t.Helper()
	r, err := c.Open(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNothingRestsOpen looks for a message's words in every file of a station.
func TestNothingRestsOpen(t *testing.T) {
	w, c := testcase.Opened(t, testcase.Message{Octets: mail("canaryword", "canaryword")})
	if err := c.Mark("canaryword", []int{1}, false); err != nil {
		t.Fatal(err)
	}
	n := 0
	filepath.Walk(filepath.Dir(w.CaseFile), func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			n++
			if b, _ := os.ReadFile(path); strings.Contains(string(b), "canaryword") {
				t.Errorf("%s holds a word of the message", path)
			}
		}
		return nil
	})
	if n < 6 {
		t.Errorf("%d files were looked at", n)
	}
}

// TestResume ends an opening after every second entry, with the last frame cut short, and goes on: the end is what one run gives.
func TestResume(t *testing.T) {
	w := testcase.New(t)
	for i := range 7 {
		w.Seal(t, testcase.Message{Octets: mail("n", fmt.Sprint(i/2)), Custodians: []string{"alice@example.org", "bob@example.org"}[:1+i%2]})
	}
	w.Damage(w.Records[3])
	w.Grant(t, 1, 2, 3)
	w.Unlock(t)
	journal := filepath.Join(filepath.Dir(w.CaseFile), "station", "opened")
	runs := 0
	for ended := false; !ended; runs++ {
		first := -1
		ended = func() (ended bool) {
			defer func() { recover() }()
			r, err := w.Station.OpenCase(t.Context(), w.Keys, w.CaseFile, testcase.Envelopes, w.Now, func(done, total int) {
				if first = max(first, done); done == first+1 || total != 10 {
					panic("as if the process ended here")
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.Entries != 10 || r.Opened != 8 || len(r.Faults) != 2 || r.Faults[0].Record != w.Records[3] {
				t.Errorf("report %+v", r)
			}
			return true
		}()
		if ended {
			break
		}
		st, err := os.Stat(journal)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(journal, st.Size()-3); err != nil {
			t.Fatal(err)
		}
		if runs > 20 {
			t.Fatal("it does not get on")
		}
	}
	c, err := w.Station.Case(w.Keys, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got []string
	for _, i := range c.Items() {
		got = append(got, fmt.Sprint(len(i.Envelopes), len(i.Custodians)))
	}
	if want := []string{"2 2", "1 1", "2 2", "1 1"}; !slices.Equal(got, want) || !c.Whole() {
		t.Errorf("items %q, want %q", got, want)
	}
}

// TestOpenRefuses is what a station does not open.
func TestOpenRefuses(t *testing.T) {
	message := testcase.Message{Octets: mail("s", "b")}
	try := func(w *testcase.World, now time.Time) error {
		w.Unlock(t)
		_, err := w.Station.OpenCase(t.Context(), w.Keys, w.CaseFile, testcase.Envelopes, now, func(int, int) {})
		return err
	}
	t.Run("not signed", func(t *testing.T) {
		w := testcase.New(t)
		if err := try(w, w.Now); !errors.Is(err, station.ErrNotSigned) {
			t.Error(err)
		}
	})
	t.Run("expired", func(t *testing.T) {
		w := testcase.New(t)
		w.Seal(t, message)
		w.Grant(t, 1, 2)
		if err := try(w, w.Now.Add(2*time.Hour)); !errors.Is(err, station.ErrExpired) {
			t.Error(err)
		}
	})
	t.Run("one officer of two", func(t *testing.T) {
		w := testcase.New(t)
		w.Seal(t, message)
		w.Grant(t, 2)
		if err := try(w, w.Now); !errors.Is(err, escrow.ErrQuorum) {
			t.Error(err)
		}
	})
	t.Run("another station's case", func(t *testing.T) {
		w, other := testcase.New(t), testcase.New(t)
		for _, w := range []*testcase.World{w, other} {
			w.Seal(t, message)
			w.Grant(t, 1, 2)
		}
		w.CaseFile = other.CaseFile
		if err := try(w, w.Now); err == nil || !strings.Contains(err.Error(), "another case") {
			t.Error(err)
		}
	})
	t.Run("cut short", func(t *testing.T) {
		w := testcase.New(t)
		w.Seal(t, message)
		w.Grant(t, 1, 2)
		st, err := os.Stat(w.CaseFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(w.CaseFile, st.Size()-10); err != nil {
			t.Fatal(err)
		}
		if err := try(w, w.Now); err == nil || !strings.Contains(err.Error(), "not a case file") {
			t.Error(err)
		}
	})
	t.Run("the log does not attest the answers", func(t *testing.T) {
		w := testcase.New(t)
		w.Seal(t, message)
		w.Relay = false
		w.Grant(t, 1, 2)
		if err := try(w, w.Now); err == nil || !strings.Contains(err.Error(), "does not attest the answer") {
			t.Error(err)
		}
	})
}

func TestSearch(t *testing.T) {
	_, c := testcase.Opened(t,
		testcase.Message{Octets: mail("=?utf-8?q?Fusion_=C3=A9t=C3=A9?=", "the Merger  closes\r\non Friday; budget")},
		testcase.Message{Octets: []byte("From: a@b\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>gr=FC<b>n</b>er&nbsp;Tee</p><p>und</p>\r\n--x\r\n" +
			"Content-Type: application/pdf; name=\"contract-7.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ndeep water\r\n--x--\r\n")},
		testcase.Message{Octets: mail("budgets", "会議は東京で")},
		testcase.Message{Octets: []byte("no header at all")},
	)
	tests := map[string][]int{
		"merger":                    {1},
		"MERGER friday":             {1},
		`"merger closes on friday"`: {1},
		`"closes merger"`:           {},
		"budget":                    {1},
		"budget*":                   {1, 3},
		"budget* -merger":           {3},
		"merger OR deep":            {1, 2},
		"merger OR deep budget":     {1},
		"été":                       {1},
		"subject:été":               {1},
		"subject:merger":            {},
		"grüner":                    {2},
		`"grüner tee und"`:          {2},
		"file:contract*":            {2},
		"subject:inner water":       {2},
		"東京":                        {3},
		"to:alice@example.org":      {1, 2, 3, 4},
		"from:sender":               {1, 2, 3, 4},
		"from:a@b":                  {2},
		"absent":                    {},
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			q, err := station.ParseQuery(text)
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Search(t.Context(), q, func(int, int) {})
			if err != nil || !slices.Equal(r.Found, want) {
				t.Errorf("found %v, want %v; %v", r.Found, want, err)
			}
			if !slices.Contains(r.Unsearched, 2) || slices.Contains(r.Unsearched, 1) {
				t.Errorf("not searched whole: %v", r.Unsearched)
			}
		})
	}
	for _, text := range []string{"", "OR a", "a OR", "a OR OR b", "a OR -b", `"open`, "subject:", "-a", strings.Repeat("a ", 4096)} {
		if _, err := station.ParseQuery(text); err == nil {
			t.Errorf("%q is a query", text)
		}
	}
}
