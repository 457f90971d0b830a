package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/vault"
)

const canary = "the merger closes on Friday"

// accept keeps a message of n octets for the recipients.
func (f *fixture) accept(t testing.TB, n int, to ...string) (vault.ID, []vault.ID, []byte) {
	t.Helper()
	d, err := f.NewDraft()
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte(canary), n/len(canary)+1)[:n]
	if _, err := d.Write(body); err != nil {
		t.Fatal(err)
	}
	var rows []vault.NewRow
	for _, a := range to {
		_, domain, _ := strings.Cut(a, "@")
		rows = append(rows, vault.NewRow{Domain: domain, Lane: domain, Recipient: []byte(a), State: 1, Due: made, Detail: []byte("{}")})
	}
	ids, err := f.Accept(t.Context(), d, []byte("envelope of "+canary), rows, made)
	if err != nil {
		t.Fatal(err)
	}
	return d.ID(), ids, body
}

// read reads everything of a record and its first row.
func (f *fixture) read(t testing.TB, record, row vault.ID) (body []byte, err error) {
	t.Helper()
	ctx := t.Context()
	r, err := f.Record(ctx, record)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if _, err := r.Envelope(); err != nil {
		return nil, err
	}
	if _, err := r.RowRecipient(ctx, row); err != nil {
		return nil, err
	}
	if built, err := r.Built(ctx, row); err == nil {
		_, err := io.Copy(io.Discard, built)
		built.Close()
		if err != nil {
			return nil, err
		}
	} else if !errors.Is(err, vault.ErrNotFound) {
		return nil, err
	}
	rc, err := r.Body(ctx)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

func TestRecord(t *testing.T) {
	for _, n := range []int{0, 1, 1000, vault.InlineMax - 200, vault.InlineMax, 1 << 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			f := newVault(t)
			record, rows, body := f.accept(t, n, "bob@y.example", "carol@z.example")
			f.reopen(t)
			got, err := f.read(t, record, rows[0])
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%d octets of %d, %v", len(got), n, err)
			}
			r, err := f.Record(t.Context(), record)
			if err != nil {
				t.Fatal(err)
			}
			if env, err := r.Envelope(); err != nil || string(env) != "envelope of "+canary {
				t.Errorf("envelope %q, %v", env, err)
			}
			if to, err := r.RowRecipient(t.Context(), rows[1]); err != nil || string(to) != "carol@z.example" {
				t.Errorf("recipient %q, %v", to, err)
			}
			if k := f.diskHolds(t, []byte("merger")) + f.diskHolds(t, []byte("bob@")); k > 0 {
				t.Errorf("plaintext in %d files", k)
			}
			files, err := os.ReadDir(filepath.Join(f.dir, "bodies"))
			if err != nil || (len(files) == 1) != (vault.SealedSize(int64(n)) > vault.InlineMax) {
				t.Errorf("%d files, %v", len(files), err)
			}
			for _, row := range rows {
				f.finish(t, r, row)
			}
			r.Close()
			if _, err := f.Record(t.Context(), record); !errors.Is(err, vault.ErrNotFound) {
				t.Errorf("after its last row: %v", err)
			}
			if files, err := os.ReadDir(filepath.Join(f.dir, "bodies")); err != nil || len(files) != 0 {
				t.Errorf("left %v, %v", files, err)
			}
			want := []vault.LeafType{vault.LeafIntake, vault.LeafRecipient, vault.LeafRecipient, vault.LeafDelivered, vault.LeafDelivered}
			if got := f.leafTypes(t); !slices.Equal(got, want) {
				t.Errorf("log %v, want %v", got, want)
			}
		})
	}
}

func (f *fixture) finish(t testing.TB, r *vault.Record, row vault.ID) {
	t.Helper()
	q, err := f.QueueRow(t.Context(), row)
	if err != nil {
		t.Fatal(err)
	}
	c := vault.RowChange{Detail: []byte("{}"), Due: made, Remove: true, Leaves: []vault.RowLeaf{{Type: vault.LeafDelivered, Payload: []byte("p")}}}
	if err := f.ChangeRow(t.Context(), r, q, c, made); err != nil {
		t.Fatal(err)
	}
	if err := f.ChangeRow(t.Context(), r, q, c, made); !errors.Is(err, vault.ErrChanged) {
		t.Errorf("finished twice: %v", err)
	}
}

// TestIntakeLeaf: the leaf of a message commits to what the specification says.
func TestIntakeLeaf(t *testing.T) {
	f := newVault(t)
	record, _, body := f.accept(t, 100_000, "bob@y.example")
	leaves, err := f.LogLeaves(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	l, err := vault.ParseLeaf(leaves[0])
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Record(t.Context(), record)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o, err := r.Opening(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	octets, envelope := vault.NewDigest("octets", body), vault.NewDigest("envelope", []byte("envelope of "+canary))
	if !bytes.Equal(o.Payload, append(octets[:], envelope[:]...)) || o.Commit(vault.LeafIntake) != l.Commitment {
		t.Error("the commitment is not to these octets and this envelope")
	}
	if l.Public != vault.IntakePublic(r.Digest, nil) || l.Subject != record {
		t.Error("the leaf is not of this sealed body")
	}
}

// TestDamagedRecords: whatever happens to a row or a file, the error says so and no octet is given out that was not sealed.
func TestDamagedRecords(t *testing.T) {
	file := func(change func([]byte) []byte) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			files, err := filepath.Glob(filepath.Join(f.dir, "bodies", "*"))
			if err != nil || len(files) == 0 {
				t.Fatalf("%v, %v", files, err)
			}
			for _, name := range files {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if b = change(b); b == nil {
					err = os.Remove(name)
				} else {
					err = os.WriteFile(name, b, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	query := func(q string) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) { f.raw(t, q) }
	}
	flip := func(table, column string) func(*testing.T, *fixture) {
		return query(fmt.Sprintf(`UPDATE %s SET %s = CAST(substr(%s, 1, 80) || X'0000' || substr(%s, 83) AS BLOB)`, table, column, column, column))
	}
	const small, large = 1000, 300_000
	tests := map[string]struct {
		size int
		do   func(*testing.T, *fixture)
		want error
	}{
		"body flipped":           {small, flip("records", "body"), vault.ErrCorrupt},
		"body cut":               {small, query(`UPDATE records SET body = substr(body, 1, 300)`), vault.ErrCorrupt},
		"body gone":              {small, query(`UPDATE records SET body = NULL`), vault.ErrTruncated},
		"body called a file":     {small, query(`UPDATE records SET file = 1`), vault.ErrCorrupt},
		"envelope flipped":       {small, flip("records", "envelope"), vault.ErrCorrupt},
		"envelope in body":       {small, query(`UPDATE records SET body = envelope`), vault.ErrCorrupt},
		"recipient flipped":      {small, flip("queue", "recipient"), vault.ErrCorrupt},
		"recipients swapped":     {small, query(`UPDATE queue SET recipient = (SELECT o.recipient FROM queue o WHERE o.id <> queue.id AND o.record = queue.record)`), vault.ErrWrongKey},
		"wrap flipped":           {small, query(`UPDATE wraps SET wrap = CAST(substr(wrap, 1, 50) || X'0000' || substr(wrap, 53) AS BLOB)`), vault.ErrWrongKey},
		"wraps swapped":          {small, query(`UPDATE wraps SET wrap = (SELECT o.wrap FROM wraps o WHERE o.owner <> wraps.owner)`), vault.ErrWrongKey},
		"wrap gone":              {small, query(`DELETE FROM wraps`), vault.ErrNotFound},
		"digest cut":             {small, query(`UPDATE records SET digest = X'00'`), vault.ErrCorrupt},
		"built flipped":          {small, flip("built", "object"), vault.ErrCorrupt},
		"file flipped":           {large, file(func(b []byte) []byte { b[100_000] ^= 1; return b }), vault.ErrCorrupt},
		"file cut":               {large, file(func(b []byte) []byte { return b[:100_000] }), vault.ErrCorrupt},
		"file cut at a segment":  {large, file(func(b []byte) []byte { return b[:70+2*(65536+16)] }), vault.ErrTruncated},
		"file longer":            {large, file(func(b []byte) []byte { return append(b, 0) }), vault.ErrCorrupt},
		"file empty":             {large, file(func(b []byte) []byte { return b[:0] }), vault.ErrTruncated},
		"file gone":              {large, file(func([]byte) []byte { return nil }), vault.ErrCorrupt},
		"file of another record": {large, func(t *testing.T, f *fixture) { swapFiles(t, f) }, vault.ErrWrongKey},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newVault(t)
			record, rows, body := f.accept(t, tt.size, "bob@y.example", "carol@y.example")
			f.accept(t, tt.size, "dave@y.example", "erin@y.example")
			r, err := f.Record(t.Context(), record)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.SaveBuilt(t.Context(), r, rows[0], body, nil, made); err != nil {
				t.Fatal(err)
			}
			r.Close()
			if _, err := f.read(t, record, rows[0]); err != nil {
				t.Fatalf("before: %v", err)
			}
			tt.do(t, f)
			got, err := f.read(t, record, rows[0])
			if !errors.Is(err, tt.want) || !bytes.HasPrefix(body, got) {
				t.Errorf("%d octets, %v; want %v", len(got), err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "merger") {
				t.Errorf("the error holds plaintext: %v", err)
			}
		})
	}
}

func swapFiles(t *testing.T, f *fixture) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(f.dir, "bodies", "*"))
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(s string) bool { return strings.HasSuffix(s, ".object") })
	if len(files) != 2 {
		t.Fatalf("%v", files)
	}
	for _, move := range [][2]string{{files[0], files[0] + "x"}, {files[1], files[0]}, {files[0] + "x", files[1]}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSweep: files that no row names go at the start; others, and what is not ours, stay.
func TestSweep(t *testing.T) {
	f := newVault(t)
	record, rows, body := f.accept(t, 200_000, "bob@y.example")
	r, err := f.Record(t.Context(), record)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SaveBuilt(t.Context(), r, rows[0], body, nil, made); err != nil {
		t.Fatal(err)
	}
	r.Close()
	keep := []string{record.String(), rows[0].String() + ".object", "README"}
	lost := []string{vault.NewID(made).String(), vault.NewID(made).String() + ".object", record.String() + ".object"}
	for _, name := range append(lost, "README") {
		if err := os.WriteFile(filepath.Join(f.dir, "bodies", name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	beside, err := vault.Open(t.Context(), vault.Options{Dir: f.dir}) // sweeps nothing: drafts may be in the making
	if err != nil {
		t.Fatal(err)
	}
	beside.Close()
	if files, _ := os.ReadDir(filepath.Join(f.dir, "bodies")); len(files) != 6 {
		t.Errorf("%d files after a command looked in", len(files))
	}
	f.reopen(t)
	files, err := os.ReadDir(filepath.Join(f.dir, "bodies"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range files {
		got = append(got, d.Name())
	}
	slices.Sort(keep)
	slices.Sort(got)
	if !slices.Equal(got, keep) {
		t.Errorf("left %v, want %v", got, keep)
	}
}

// TestNoRoom: what is to stay free is refused to new messages, and there for those that were accepted.
func TestNoRoom(t *testing.T) {
	f := newVault(t)
	record, rows, body := f.accept(t, 100_000, "bob@y.example")
	f.KeepFree(1 << 60)
	if _, err := f.NewDraft(); !errors.Is(err, vault.ErrFull) {
		t.Errorf("%v, want ErrFull", err)
	}
	r, err := f.Record(t.Context(), record)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := f.SaveBuilt(t.Context(), r, rows[0], body, nil, made); err != nil {
		t.Errorf("what was accepted cannot leave: %v", err)
	}
}

// TestFullDatabase: a database that may not grow gives ErrFull, keeps what it has, and goes on when there is room.
func TestFullDatabase(t *testing.T) {
	f := newVault(t)
	f.accept(t, 1000, "bob@y.example")
	f.SetMaxPages(t, 1)
	d, err := f.NewDraft()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write(make([]byte, 60_000)); err != nil {
		t.Fatal(err)
	}
	rows := []vault.NewRow{{Domain: "y.example", Lane: "y.example", Recipient: []byte("x"), State: 1, Due: made, Detail: []byte("{}")}}
	if _, err := f.Accept(t.Context(), d, nil, rows, made); !errors.Is(err, vault.ErrFull) {
		t.Errorf("%v, want ErrFull", err)
	}
	f.SetMaxPages(t, 1<<30)
	f.accept(t, 60_000, "carol@y.example")
	list, err := f.QueueRows(t.Context(), "", vault.ID{}, 10)
	if err != nil || len(list) != 2 {
		t.Errorf("%d rows, %v", len(list), err)
	}
	if n := len(f.leafTypes(t)); n != 4 {
		t.Errorf("%d leaves", n)
	}
}

func TestInbound(t *testing.T) {
	ctx := t.Context()
	f := newVault(t)
	id := func(n byte) vault.InboundID {
		return vault.InboundID{Origin: "peer.example", Message: [64]byte{n}, Octets: [64]byte{n, n}}
	}
	begin := func(n byte, at time.Time) vault.InboundStatus {
		t.Helper()
		d, err := f.NewDraft()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write(bytes.Repeat([]byte(canary), 5000)); err != nil {
			t.Fatal(err)
		}
		s, err := f.BeginInbound(ctx, d, id(n), []byte("envelope"), at)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	check := func(what string, n byte, want vault.InboundStatus) {
		t.Helper()
		if got, err := f.Inbound(ctx, id(n)); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", what, got, err, want)
		}
	}
	flight := vault.InboundStatus{State: vault.InboundFlight}
	accepted := vault.InboundStatus{State: vault.InboundAccepted}
	refused := vault.InboundStatus{State: vault.InboundRefused, Code: 550, Status: "5.1.1"}

	check("never seen", 1, vault.InboundStatus{})
	if s := begin(1, made); s != (vault.InboundStatus{}) {
		t.Errorf("first copy: %+v", s)
	}
	check("in flight", 1, flight)
	if s := begin(1, made); s != flight {
		t.Errorf("second copy: %+v", s)
	}
	if err := f.EndInbound(ctx, id(1), 0, "", []byte("ok"), made); err != nil {
		t.Fatal(err)
	}
	if err := f.EndInbound(ctx, id(1), 0, "", []byte("ok"), made); !errors.Is(err, vault.ErrChanged) {
		t.Errorf("ended twice: %v", err)
	}
	check("accepted", 1, accepted)
	if s := begin(1, made); s != accepted {
		t.Errorf("copy of what was accepted: %+v", s)
	}
	begin(2, made)
	if err := f.EndInbound(ctx, id(2), 550, "5.1.1", []byte("no"), made); err != nil {
		t.Fatal(err)
	}
	begin(3, made)
	if err := f.DeferInbound(ctx, id(3), false, []byte("later"), made); err != nil {
		t.Fatal(err)
	}
	check("deferred", 3, vault.InboundStatus{})
	begin(4, made)
	begin(5, made)
	f.reopen(t) // 4 and 5 died in flight
	check("refused, after a restart", 2, refused)
	check("died in flight", 4, vault.InboundStatus{Doubtful: true})
	if s := begin(4, made.Add(time.Hour)); s != (vault.InboundStatus{Doubtful: true}) {
		t.Errorf("retry of what died: %+v", s)
	}
	if err := f.EndInbound(ctx, id(4), 0, "", []byte("ok"), made); err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(filepath.Join(f.dir, "bodies")); err != nil || len(files) != 1 { // that of 5
		t.Errorf("%d files, %v", len(files), err)
	}
	if ab, fg, err := f.SweepInbound(ctx, made.AddDate(0, 0, 6)); ab+fg != 0 || err != nil {
		t.Errorf("swept early: %d, %d, %v", ab, fg, err)
	}
	if ab, fg, err := f.SweepInbound(ctx, made.AddDate(0, 0, 8)); ab != 1 || fg != 0 || err != nil {
		t.Errorf("swept %d, %d, %v", ab, fg, err)
	}
	check("abandoned", 5, vault.InboundStatus{})
	check("kept", 1, accepted)
	if _, fg, err := f.SweepInbound(ctx, made.AddDate(0, 0, 401)); fg != 3 || err != nil {
		t.Errorf("forgot %d, %v", fg, err)
	}
	check("forgotten", 1, vault.InboundStatus{})
	if files, err := os.ReadDir(filepath.Join(f.dir, "bodies")); err != nil || len(files) != 0 {
		t.Errorf("%d files, %v", len(files), err)
	}
	want := []vault.LeafType{
		vault.LeafIntake, vault.LeafAccepted, vault.LeafIntake, vault.LeafRefused, vault.LeafIntake, vault.LeafDeferred,
		vault.LeafIntake, vault.LeafIntake, vault.LeafIntake, vault.LeafAccepted, vault.LeafAbandoned,
	}
	if got := f.leafTypes(t); !slices.Equal(got, want) {
		t.Errorf("log %v,\nwant %v", got, want)
	}
	if n := f.diskHolds(t, []byte("merger")); n != 0 {
		t.Errorf("plaintext in %d files", n)
	}
}
