package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// An escrowReport is what the escrow test found.
type escrowReport struct {
	Officers int `json:"officers"`
	Quorum   int `json:"quorum"`
	Records  int `json:"records"`
	Case     int `json:"case"`

	Opened        int  `json:"opened"` // and compared octet by octet with what was sealed
	OpenedOutside int  `json:"opened_outside_case"`
	OpenedWithout int  `json:"-"`                    // answers of one officer less than a quorum: see MarshalJSON
	Slipped       bool `json:"rerandomised_refused"` // by every officer's tool, named
	Forged        bool `json:"forged_rejected"`
	ForgedBy      int  `json:"forged_attributed_to"`
	ForgedWant    int  `json:"forged_by"`
	AfterForged   int  `json:"opened_beside_forged"` // by the other officers

	Search searchReport `json:"search"`

	Reshared      bool `json:"reshared"` // one officer left, one came
	OpenedByNew   int  `json:"opened_after_reshare"`
	WantedByNew   int  `json:"case_after_reshare"`
	MixedSets     int  `json:"mixed_sets_tried"` // of old and new shares, of the quorum's size
	OpenedByMixed int  `json:"mixed_sets_that_open"`

	SealMS      float64 `json:"seal_ms"`                    // with the check of what was sealed, one core
	OfficerRate float64 `json:"officer_records_per_second"` // review and partials, one process
	StationRate float64 `json:"station_records_per_second"` // checks of wraps and partials, combination, comparison
	CheckedWhat string  `json:"rates_are"`

	OK  bool     `json:"ok"`
	Why []string `json:"why,omitempty"`
}

var escrowCommand = command{
	"escrow", "[--quorum M] [--officers N] [--records N] [--case N] [--json]",
	"make an escrow key, seal an archive to it, and open a case of it with officers who are processes of their own; attack\n" +
		"it, and look for the private key in their memory and files (as root: it reads other processes' memory)",
	runEscrow,
}

func runEscrow(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("lab escrow", flag.ContinueOnError)
	r := &escrowReport{CheckedWhat: "for a second of one processor"}
	fs.IntVar(&r.Quorum, "quorum", 3, "officers who open")
	fs.IntVar(&r.Officers, "officers", 5, "officers")
	fs.IntVar(&r.Records, "records", 10000, "archived messages")
	fs.IntVar(&r.Case, "case", 412, "messages of the case")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 {
		return errUsage
	}
	if r.Quorum < 2 || r.Quorum >= r.Officers || r.Case < 2 || r.Case >= r.Records {
		return errUsage
	}
	dir, err := os.MkdirTemp("", "lab-escrow-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l := &escrowLab{dir: dir, report: r}
	if err := l.run(ctx); err != nil {
		return err
	}
	l.judge()
	return tell(out, *asJSON, "escrow", r, r.OK, r.Why)
}

// MarshalJSON names what fewer officers opened by their number: opened_with_2, for a quorum of three.
func (r *escrowReport) MarshalJSON() ([]byte, error) {
	type plain escrowReport
	b, err := json.Marshal((*plain)(r))
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, `{"opened_with_%d":%d,`, r.Quorum-1, r.OpenedWithout), b[1:]...), nil
}

func (r *escrowReport) print(w io.Writer) {
	fmt.Fprintf(w, "%d of %d officers, %d records, a case of %d\n", r.Quorum, r.Officers, r.Records, r.Case)
	fmt.Fprintf(w, "opened %d, outside the case %d, with one officer less %d\n", r.Opened, r.OpenedOutside, r.OpenedWithout)
	fmt.Fprintf(w, "re-randomised wrap refused %v; forged partial rejected %v, attributed to officer %d; beside it opened %d\n", r.Slipped, r.Forged, r.ForgedBy, r.AfterForged)
	fmt.Fprintf(w, "private scalar found %d times in %d process images, %d MB, and %d files; cores %d; control: own shares found %d times\n",
		r.Search.Scalar, r.Search.Images, r.Search.Octets>>20, r.Search.Files, r.Search.Cores, r.Search.Control)
	fmt.Fprintf(w, "after a change of officers opened %d of %d; of %d mixed sets open %d\n", r.OpenedByNew, r.WantedByNew, r.MixedSets, r.OpenedByMixed)
	fmt.Fprintf(w, "seal and check %.2f ms; an officer %.0f records/s, the station %.0f records/s (%s)\n", r.SealMS, r.OfficerRate, r.StationRate, r.CheckedWhat)
	fmt.Fprintf(w, "ok %v %s\n", r.OK, strings.Join(r.Why, "; "))
}

// judge says what is not as it must be.
func (l *escrowLab) judge() {
	r := l.report
	for _, c := range []struct {
		ok  bool
		why string
	}{
		{r.Opened == r.Case, "not all of the case was opened"},
		{r.OpenedOutside == 0, "something outside the case was opened"},
		{r.OpenedWithout == 0, "fewer than a quorum opened something"},
		{r.Slipped, "a re-randomised wrap was not refused"},
		{r.Forged && r.ForgedBy == r.ForgedWant, "a forged partial was not attributed"},
		{r.AfterForged == r.Case, "the others did not open beside a forger"},
		{r.Search.Scalar == 0, "the private scalar was found"},
		{r.Search.Images >= 2*r.Quorum+3, "too few processes were looked into"},
		{r.Search.Control >= r.Quorum, "the search does not find what is there: an officer's own share"},
		{r.Search.Cores == 0, "a process left a core dump"},
		{r.Reshared && r.OpenedByNew == r.WantedByNew && r.WantedByNew >= r.Case, "the new officers did not open the old records"},
		{r.MixedSets > 0 && r.OpenedByMixed == 0, "old and new shares open together"},
	} {
		if !c.ok {
			r.Why = append(r.Why, c.why)
		}
	}
	r.OK = len(r.Why) == 0
}

// An escrowLab is one run: a folder, in which the dealer, the officers, the gateway and the station are processes of their own.
type escrowLab struct {
	dir      string
	report   *escrowReport
	gateway  string   // the program, as it is shipped
	self     string   // this program, for gateway and station
	officers []string // folders
	log      []string // --log and --witness

	waiting    *part      // the gateway's process, until it was looked into
	scalar, h  []byte     // the private scalar, and the public key
	old, fresh []labShare // of the first epoch and of the second
}

func (l *escrowLab) path(name ...string) string {
	return filepath.Join(append([]string{l.dir}, name...)...)
}

func (l *escrowLab) run(ctx context.Context) error {
	var err error
	if l.gateway, err = Build(ctx, l.dir); err != nil {
		return err
	}
	if l.self, err = os.Executable(); err != nil {
		return err
	}
	allowCores()
	for _, step := range []func(context.Context) error{l.ceremony, l.archive, l.knowScalar, l.slipped, l.approvals, l.open, l.crash, l.reshare, l.searchFiles} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// command runs the shipped program to its end in the lab's folder.
func (l *escrowLab) command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, l.gateway, args...)
	cmd.Dir = l.dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("gateway %s: %w: %s", strings.Join(args[:min(3, len(args))], " "), err, strings.TrimSpace(errs.String()))
	}
	return out, nil
}

// ceremony makes officers and key, and has every officer attest.
func (l *escrowLab) ceremony(ctx context.Context) error {
	if err := os.WriteFile(l.path("pass"), []byte("a passphrase of the lab\n"), 0o600); err != nil {
		return err
	}
	if err := l.newArchive(); err != nil {
		return err
	}
	var files []string
	for i := 1; i <= l.report.Officers; i++ {
		if err := l.hire(ctx, fmt.Sprintf("officer%d", i)); err != nil {
			return err
		}
		files = append(files, filepath.Join(l.officers[i-1], "officer.pub"))
	}
	if _, err := l.command(ctx, "escrow", "init", "--org", "example.org", "--officers", strings.Join(files, ","), "--quorum", fmt.Sprint(l.report.Quorum),
		"--purpose", "discovery", "--out", "keys", "--with-network"); err != nil {
		return err
	}
	for i, o := range l.officers {
		args := append([]string{"officer", "attest", "--dir", o, "--passphrase-file", "pass", "--yes", "--out", fmt.Sprintf("attest-1-%d.deg1", i+1),
			"--transcript", "keys/discovery/transcript.txt", "--share", fmt.Sprintf("keys/discovery/share-%d.age", i+1)}, l.log...)
		if _, err := l.command(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// hire makes an officer's keys.
func (l *escrowLab) hire(ctx context.Context, name string) error {
	l.officers = append(l.officers, name)
	_, err := l.command(ctx, "officer", "keygen", "--dir", name, "--person", name+"@example.org", "--passphrase-file", "pass")
	return err
}

// archive has the gateway's process seal the records, and make the case and its bundle.
func (l *escrowLab) archive(ctx context.Context) error {
	p, err := l.start(ctx, "gateway", l.dir, "1", fmt.Sprint(l.report.Records), fmt.Sprint(l.report.Case))
	if err != nil {
		return err
	}
	var done struct{ SealMS float64 }
	if err := p.answer(&done); err != nil {
		return err
	}
	l.report.SealMS = done.SealMS
	l.waiting = p // looked into when the scalar is known
	return nil
}

// slipped has every officer's tool review the case with a re-randomised wrap from outside in it.
func (l *escrowLab) slipped(ctx context.Context) error {
	if err := l.lookInto(l.waiting); err != nil {
		return err
	}
	if err := l.waiting.finish(); err != nil {
		return err
	}
	l.report.Slipped = true
	for _, o := range l.officers {
		_, err := l.command(ctx, "officer", "review", "--dir", o, "slipped.deb1")
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(err.Error(), "wrap: proof") {
			l.report.Slipped = false
		}
	}
	return nil
}

// approvals has a quorum and one more approve, each a process that is looked into while it holds its share.
func (l *escrowLab) approvals(ctx context.Context) error {
	for i := range l.report.Quorum + 1 {
		if err := l.approveSeen(ctx, l.officers[i], "case.deb1", fmt.Sprintf("answer-%d", i+1)); err != nil {
			return err
		}
	}
	if err := l.forge(2); err != nil {
		return err
	}
	return l.rate(ctx)
}

// rate compares an officer's work on the case with that on all records of the others: what is between is so many records. A passphrase
// costs as much processor time as many records, and on a busy machine more one time than the next: of several runs the shortest counts.
func (l *escrowLab) rate(ctx context.Context) error {
	n, err := entries(l.path("big.deb1"))
	if err != nil {
		return err
	}
	o := l.officers[l.report.Officers-1]
	var small, large time.Duration
	for try := 0; try < 5 && large <= small; try++ {
		s, err := l.approve(ctx, o, "case.deb1", fmt.Sprintf("answer-rate-%d", try))
		if err != nil {
			return err
		}
		b, err := l.approve(ctx, o, "big.deb1", fmt.Sprintf("answer-big-%d", try))
		if err != nil {
			return err
		}
		if try == 0 {
			small, large = s, b
		}
		small, large = min(small, s), min(large, b)
	}
	l.report.OfficerRate = float64(n-l.report.Case) / (large - small).Seconds()
	return nil
}

// open has the station combine: the quorum, one officer less, wraps from outside, a forged answer among others.
func (l *escrowLab) open(ctx context.Context) error {
	var names []string
	for i := range l.report.Quorum + 1 {
		names = append(names, fmt.Sprintf("answer-%d", i+1))
	}
	q := l.report.Quorum
	forged := append([]string{"forged"}, names[0])
	forged = append(forged, names[2:]...)
	p, err := l.start(ctx, "station", l.dir, "1", "case.json", strings.Join(names[:q], ","), strings.Join(names[:q-1], ","), strings.Join(forged, ","), "outside:"+strings.Join(names[:q], ","))
	if err != nil {
		return err
	}
	var got []stationResult
	if err := p.answer(&got); err != nil {
		return err
	}
	if err := l.lookInto(p); err != nil {
		return err
	}
	if err := p.finish(); err != nil {
		return err
	}
	r := l.report
	r.Opened, r.OpenedWithout, r.AfterForged, r.OpenedOutside = got[0].Opened, got[1].Opened, got[2].Opened, got[3].Opened
	r.StationRate = got[0].Rate
	r.ForgedWant, r.Forged = 2, len(got[2].Refused) == 1
	if r.Forged {
		r.ForgedBy = int(got[2].Refused[0].Officer)
		r.Forged = got[2].Refused[0].Class == "proof"
	}
	return nil
}
