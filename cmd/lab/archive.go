package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/note"

	"dimegate/appliance"
	"dimegate/internal/testescrow"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/audit"
	"dimegate/vault/discovery"
	"dimegate/vault/discovery/export"
	"dimegate/vault/discovery/station"
	"dimegate/vault/escrow"
	"dimegate/vault/escrow/officer"
)

// An archiveReport is what a case over a large archive took.
type archiveReport struct {
	Records int   `json:"records"` // in the archive, generated ones and real ones
	Find    int   `json:"find"`    // real ones, which the case is about
	Octets  int64 `json:"archive_octets"`

	FillSeconds float64 `json:"fill_seconds"`
	IntakeRate  float64 `json:"intake_messages_per_second"` // of the real ones, sealed to the escrow key

	Found    int     `json:"found"`
	Searches int     `json:"searches"`
	SearchMS percent `json:"search_ms"` // of "case search": leaf, tokens, and the set kept
	TokensMS percent `json:"tokens_ms"` // of it, the archive's part

	SelectRate  float64 `json:"select_records_per_second"`  // every wrap checked as an officer's tool does
	OfficerRate float64 `json:"officer_records_per_second"` // review and partials
	ReleaseRate float64 `json:"release_records_per_second"` // the case file
	CaseOctets  int64   `json:"case_file_octets"`
	TDH2Rate    float64 `json:"station_limit_records_per_second"` // checks and combination alone: what bounds the station
	StationRate float64 `json:"station_records_per_second"`       // with bodies opened, compared with the log, and kept
	TextRate    float64 `json:"text_search_items_per_second"`
	ExportRate  float64 `json:"export_items_per_second"` // .eml and load file, out of the station
	ExportMB    float64 `json:"export_megabytes_per_second"`
	Overall     float64 `json:"opened_and_exported_per_second"` // station and export together
	OfLimit     float64 `json:"of_limit"`                       // StationRate over TDH2Rate

	Items    int `json:"items"`
	Exported int `json:"exported"`
	Matched  int `json:"text_matches"` // of the one message that is searched for by its number

	OK  bool     `json:"ok"`
	Why []string `json:"why,omitempty"`
}

// A percent is how durations are spread, in milliseconds.
type percent struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func percentOf(list []time.Duration) percent {
	slices.Sort(list)
	at := func(p float64) float64 { return float64(list[min(len(list)-1, int(p*float64(len(list))))]) / 1e6 }
	return percent{at(.5), at(.9), at(.99), at(1)}
}

var archiveCommand = command{
	"archive", "[--records N] [--find N] [--searches N] [--json]",
	"fill an archive with generated records, among them real ones; search for these, and take them through a whole case to an export",
	runArchive,
}

func runArchive(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("lab archive", flag.ContinueOnError)
	r := &archiveReport{}
	fs.IntVar(&r.Records, "records", 1_000_000, "records in the archive")
	fs.IntVar(&r.Find, "find", 10_000, "real ones among them, which are found")
	fs.IntVar(&r.Searches, "searches", 50, "how often it is searched")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 || r.Find < labSlices || r.Find > r.Records || r.Searches < 1 {
		return errUsage
	}
	dir, err := os.MkdirTemp("", "lab-archive-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l := &archiveLab{dir: dir, report: r}
	defer l.close()
	if err := l.run(ctx); err != nil {
		return err
	}
	l.judge()
	return tell(out, *asJSON, "archive", r, r.OK, r.Why)
}

// An archiveLab is a vault with an archive, officers, a witness and a station, all in this process.
type archiveLab struct {
	dir    string
	report *archiveReport

	clock    time.Time
	vault    *vault.Vault
	archive  *archive.Archive
	officers *testescrow.Officers
	desk     *discovery.Desk
	station  *station.Station
	keys     *station.Keys
	trust    escrow.Trust
	closers  []func()
}

func (l *archiveLab) close() {
	for _, f := range slices.Backward(l.closers) {
		f()
	}
}

func (l *archiveLab) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{l.open, l.fill, l.search, l.grant, l.opened} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// open makes the vault, holds the ceremony, and installs the key.
func (l *archiveLab) open(ctx context.Context) error {
	folder := filepath.Join(l.dir, "vault")
	if err := vault.Create(ctx, folder); err != nil {
		return err
	}
	keyFile := filepath.Join(l.dir, "host.key")
	if err := vault.CreateKeyFile(keyFile); err != nil {
		return err
	}
	seal, err := vault.KeyFile(keyFile)
	if err != nil {
		return err
	}
	root, err := vault.CreateSeal(ctx, filepath.Join(folder, "host.seal"), vault.HostRole, time.Now(), seal)
	if err != nil {
		return err
	}
	l.closers = append(l.closers, root.Destroy)
	l.clock = time.Now().Add(-labPeriod)
	if l.vault, err = vault.Open(ctx, vault.Options{Dir: folder, Host: root, Owner: true, Now: func() time.Time { return l.clock }}); err != nil {
		return err
	}
	l.closers = append(l.closers, func() { l.vault.Close() })
	if l.officers, err = testescrow.NewOfficers(escrow.Discovery, "corp.test", 2, 3, l.clock); err != nil {
		return err
	}
	if l.archive, err = archive.Open(ctx, l.vault); err != nil {
		return err
	}
	if err := l.archive.Install(ctx, l.officers.Key, []*escrow.Epoch{l.officers.Epoch}, l.officers.Attestations, l.clock); err != nil {
		return err
	}
	return l.openDesk(ctx)
}

func (l *archiveLab) openDesk(ctx context.Context) error {
	k, err := audit.VaultKey(ctx, l.vault)
	if err != nil {
		return err
	}
	seed := vault.NewSecret().Octets()
	wk, err := audit.NewWitnessKey("witness.test", seed)
	if err != nil {
		return err
	}
	state := filepath.Join(l.dir, "seen")
	if err := os.Mkdir(state, 0o700); err != nil {
		return err
	}
	w, err := audit.NewWitness(wk, state, []string{k.Verifier()})
	if err != nil {
		return err
	}
	l.closers = append(l.closers, func() { w.Close() })
	verifier, err := audit.ParseWitness(wk.Verifier())
	if err != nil {
		return err
	}
	log := audit.New(l.vault, k)
	remote := &audit.RemoteWitness{Verifier: verifier, Add: func(_ context.Context, request []byte) (audit.Answer, error) { return w.Add(request, time.Now()) }}
	l.trust = escrow.Trust{Log: k.Verifier(), Witnesses: []string{wk.Verifier()}}
	l.desk = &discovery.Desk{Vault: l.vault, Archive: l.archive, Log: log, LogKey: k.Verifier(), Witnesses: []note.Verifier{verifier},
		Cosign: func(ctx context.Context) error { return log.Cosign(ctx, remote) }, By: "lab", Now: time.Now}
	return nil
}

// fill writes real and generated records in turns, spread over the period.
func (l *archiveLab) fill(ctx context.Context) error {
	r := l.report
	begin := time.Now()
	f, err := newFiller(filepath.Join(l.dir, "vault"), l.vault.Archive())
	if err != nil {
		return err
	}
	defer f.db.Close()
	start, slice := l.clock, labPeriod/labSlices
	var intake time.Duration
	real, made := 0, 0
	for i := range labSlices {
		l.clock = start.Add(time.Duration(i) * slice)
		n := r.Find*(i+1)/labSlices - real
		t := time.Now()
		if err := keepReal(ctx, l.vault, l.archive, real, n, l.clock); err != nil {
			return err
		}
		intake += time.Since(t)
		real += n
		m := (r.Records-r.Find)*(i+1)/labSlices - made
		if err := f.fill(ctx, m, l.clock, slice/time.Duration(m+1)); err != nil {
			return err
		}
		made += m
	}
	r.FillSeconds, r.IntakeRate = time.Since(begin).Seconds(), float64(real)/intake.Seconds()
	l.clock = time.Now()
	for _, name := range []string{"vault.db", "vault.db-wal"} {
		if st, err := os.Stat(filepath.Join(l.dir, "vault", name)); err == nil {
			r.Octets += st.Size()
		}
	}
	return nil
}

const labPassphrase = "five words by chance here"

// search opens the case and searches it.
func (l *archiveLab) search(ctx context.Context) error {
	to, err := age.NewScryptRecipient(labPassphrase)
	if err != nil {
		return err
	}
	to.SetWorkFactor(10)
	if l.station, err = station.Create(filepath.Join(l.dir, "station"), "rita@corp.test", l.trust, officer.Lock{To: to}); err != nil {
		return err
	}
	c, err := l.desk.Open(ctx, discovery.Order{Request: l.station.Request(), Basis: "a test", Custodians: []string{labCustodian}, Expires: time.Now().Add(24 * time.Hour)})
	if err != nil {
		return err
	}
	var whole, tokens []time.Duration
	for range l.report.Searches {
		t := time.Now()
		s, err := l.desk.Search(ctx, c.ID, discovery.Terms{Parties: []string{labParty}})
		if err != nil {
			return err
		}
		whole = append(whole, time.Since(t))
		l.report.Found = s.Found.Records
		t = time.Now()
		n := 0
		if err := l.archive.Search(ctx, archive.Query{Custodians: []string{labCustodian}, Parties: []string{labParty}}, func(archive.Hit) error { n++; return nil }); err != nil {
			return err
		}
		tokens = append(tokens, time.Since(t))
	}
	l.report.SearchMS, l.report.TokensMS = percentOf(whole), percentOf(tokens)
	return nil
}

// rate is how many a second since begin.
func rate(n int, begin time.Time) float64 { return float64(n) / time.Since(begin).Seconds() }

// grant takes the set to the officers and writes the case file.
func (l *archiveLab) grant(ctx context.Context) error {
	cases, err := l.desk.Cases(ctx)
	if err != nil {
		return err
	}
	id, r := cases[0].ID, l.report
	t := time.Now()
	sel, _, err := l.desk.Select(ctx, id, nil)
	if err != nil {
		return err
	}
	r.SelectRate = rate(r.Find, t)
	identity, err := age.NewScryptIdentity(labPassphrase)
	if err != nil {
		return err
	}
	k, err := l.station.Unlock(identity)
	if err != nil {
		return err
	}
	request, err := l.station.Sign(k, sel, time.Now())
	k.Destroy()
	if err != nil {
		return err
	}
	if l.keys, err = l.station.Unlock(identity); err != nil { // now with the key of what the station keeps
		return err
	}
	l.closers = append(l.closers, l.keys.Destroy)
	if err := l.desk.Submit(ctx, id, request); err != nil {
		return err
	}
	var bundle bytes.Buffer
	if err := l.desk.WriteBundle(ctx, id, &bundle, nil); err != nil {
		return err
	}
	t = time.Now()
	for _, i := range []uint16{1, 3} {
		answer, err := l.officers.Answer(ctx, bundle.Bytes(), l.trust, time.Now(), i)
		if err != nil {
			return err
		}
		if _, _, err := l.desk.Relay(ctx, id, bytes.NewReader(answer)); err != nil {
			return err
		}
	}
	r.OfficerRate = rate(2*r.Find, t)
	t = time.Now()
	f, err := os.Create(filepath.Join(l.dir, "case.zip"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := l.desk.Release(ctx, id, f, func(int, int) {}); err != nil {
		return err
	}
	r.ReleaseRate = rate(r.Find, t)
	st, err := f.Stat()
	if err == nil {
		r.CaseOctets = st.Size()
	}
	return err
}

// opened opens the case file on the station, searches it and exports it.
func (l *archiveLab) opened(ctx context.Context) error {
	r, path := l.report, filepath.Join(l.dir, "case.zip")
	var err error
	if r.TDH2Rate, err = l.limit(ctx); err != nil {
		return err
	}
	begin := time.Now()
	report, err := l.station.OpenCase(ctx, l.keys, path, appliance.StoredEnvelopes, time.Now(), func(int, int) {})
	if err != nil {
		return err
	}
	took := time.Since(begin)
	r.StationRate = float64(report.Opened) / took.Seconds()
	r.OfLimit = r.StationRate / r.TDH2Rate
	c, err := l.station.Case(l.keys, time.Now())
	if err != nil {
		return err
	}
	defer c.Close()
	r.Items = len(c.Items())
	q, err := station.ParseQuery("subject:number10 friday")
	if err != nil {
		return err
	}
	t := time.Now()
	found, err := c.Search(ctx, q, func(int, int) {})
	if err != nil {
		return err
	}
	r.TextRate, r.Matched = rate(r.Items, t), len(found.Found)
	t = time.Now()
	x, err := export.Write(ctx, c, export.Options{Folder: filepath.Join(l.dir, "export"), Formats: []export.Format{export.EML, export.DAT}})
	if err != nil {
		return err
	}
	exported := time.Since(t)
	r.Exported = x.Items
	r.ExportRate, r.ExportMB = float64(x.Items)/exported.Seconds(), float64(x.Octets)/1e6/exported.Seconds()
	r.Overall = float64(report.Opened) / (took + exported).Seconds()
	return nil
}

// limitRecords is how many records the limit is measured over: two batches.
const limitRecords = 2000

// limit is the rate of the station's cryptography alone, of another archive with as many officers and nothing in its messages: the
// checks of wraps and partials, and the combination.
func (l *archiveLab) limit(ctx context.Context) (float64, error) {
	q, err := testescrow.NewOfficers(escrow.Discovery, "corp.test", 2, 3, time.Now())
	if err != nil {
		return 0, err
	}
	sealer, err := q.Sealer()
	if err != nil {
		return 0, err
	}
	a := testescrow.New()
	n := min(l.report.Find, limitRecords)
	for range n {
		if err := a.Seal(sealer, nil, 1, time.Now(), labCustodian); err != nil {
			return 0, err
		}
	}
	month := escrow.MonthOf(time.Now())
	c, err := a.Open(testescrow.Order{Key: q.Key, Epoch: q.Epoch, Custodians: []string{labCustodian}, Class: 1, Requester: "rita@corp.test", Basis: "a test",
		Opened: time.Now(), Life: time.Hour, First: month, Last: month})
	if err != nil {
		return 0, err
	}
	trust, err := a.Trust()
	if err != nil {
		return 0, err
	}
	var bundle bytes.Buffer
	if err := a.WriteBundle(ctx, &bundle, c); err != nil {
		return 0, err
	}
	var files []string
	for _, i := range []uint16{1, 3} {
		answer, err := q.Answer(ctx, bundle.Bytes(), trust, time.Now(), i)
		if err != nil {
			return 0, err
		}
		files = append(files, filepath.Join(l.dir, fmt.Sprintf("limit-%d", i)))
		if err := os.WriteFile(files[len(files)-1], answer, 0o600); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	report, err := a.Combine(ctx, q.Key, q.Epoch, c, files...)
	if err != nil {
		return 0, err
	}
	return rate(len(report.Opened), begin), nil
}

func (l *archiveLab) judge() {
	r := l.report
	bad := func(format string, a ...any) { r.Why = append(r.Why, fmt.Sprintf(format, a...)) }
	if r.Found != r.Find {
		bad("found %d of %d", r.Found, r.Find)
	}
	if r.SearchMS.P90 >= 1000 {
		bad("a search takes %.0f ms", r.SearchMS.P90)
	}
	if want := r.Find - r.Find/10; r.Items != want || r.Exported != want {
		bad("%d items, %d exported, %d contents", r.Items, r.Exported, want)
	}
	if r.Matched != 1 {
		bad("a message is found %d times by its number", r.Matched)
	}
	r.OK = len(r.Why) == 0
}

func (r *archiveReport) print(w io.Writer) {
	fmt.Fprintf(w, "archive     %d records, %.1f GB of tables, filled in %.0f s; real ones sealed at %.0f a second\n", r.Records, float64(r.Octets)/1e9, r.FillSeconds, r.IntakeRate)
	fmt.Fprintf(w, "search      %d found; %d searches: p50 %.0f ms, p90 %.0f, p99 %.0f, most %.0f (tokens alone p50 %.0f)\n", r.Found, r.Searches, r.SearchMS.P50, r.SearchMS.P90, r.SearchMS.P99, r.SearchMS.Max, r.TokensMS.P50)
	fmt.Fprintf(w, "select      %.0f records a second, every wrap checked\nofficer     %.0f\ncase file   %.0f, %.0f MB\n", r.SelectRate, r.OfficerRate, r.ReleaseRate, float64(r.CaseOctets)/1e6)
	fmt.Fprintf(w, "station     %.0f records a second; its limit, TDH2 alone: %.0f (%.2f of it)\ntext        %.0f items a second\n", r.StationRate, r.TDH2Rate, r.OfLimit, r.TextRate)
	fmt.Fprintf(w, "export      %.0f items a second, %.0f MB; opened and exported: %.0f a second\n", r.ExportRate, r.ExportMB, r.Overall)
}
