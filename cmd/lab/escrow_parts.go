package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dimegate/internal/testescrow"
	"dimegate/vault/escrow"
)

// The gateway and the station of the escrow test are this very program, called again, so that their memory is theirs alone. A part
// prints one line of JSON and ends when its standard input does.

// A part is such a process.
type part struct {
	name string
	cmd  *exec.Cmd
	in   io.Closer
	out  *bufio.Reader
	errs *bytes.Buffer
}

func (l *escrowLab) start(ctx context.Context, args ...string) (*part, error) {
	cmd := exec.CommandContext(ctx, l.self, append([]string{"escrow-part"}, args...)...)
	p := &part{name: args[0], cmd: cmd, errs: new(bytes.Buffer)}
	cmd.Stderr = p.errs
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewReader(out)
	return p, cmd.Start()
}

// answer reads what the part has to say.
func (p *part) answer(v any) error {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		p.in.Close()
		return fmt.Errorf("%s: %w: %s", p.name, errors.Join(err, p.cmd.Wait()), p.errs)
	}
	return json.Unmarshal(line, v)
}

// finish ends it.
func (p *part) finish() error {
	p.in.Close()
	return p.cmd.Wait()
}

// runEscrowPart is a part: PART FOLDER EPOCH ARGUMENT...
func runEscrowPart(ctx context.Context, args []string, _ io.Writer) error {
	if len(args) < 4 {
		return errUsage
	}
	epoch, err := strconv.Atoi(args[2])
	if err != nil {
		return errUsage
	}
	p := escrowPart{dir: args[1], epoch: epoch}
	if err := p.load(); err != nil {
		return err
	}
	var v any
	switch args[0] {
	case "gateway":
		v, err = p.gateway(ctx, args[3:])
	case "station":
		v, err = p.station(ctx, args[3:])
	default:
		err = errUsage
	}
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

type escrowPart struct {
	dir     string
	epoch   int
	key     *escrow.Key
	epochs  []*escrow.Epoch
	archive *testescrow.Archive
	known   []int64 // sizes of checkpoints that officers have seen, or will have
}

func (p *escrowPart) path(name string) string { return filepath.Join(p.dir, name) }

// load reads key, epochs and archive.
func (p *escrowPart) load() error {
	b, err := os.ReadFile(p.path("keys/discovery/key.dek1"))
	if err != nil {
		return err
	}
	if p.key, err = escrow.ParseKey(b); err != nil {
		return err
	}
	for n := 1; n <= p.epoch; n++ {
		name := p.path("keys/discovery/epoch-1.dee1")
		if n > 1 {
			name = p.path(fmt.Sprintf("new/epoch-%d.dee1", n))
		}
		if b, err = os.ReadFile(name); err != nil {
			return err
		}
		e, err := escrow.ParseEpoch(b)
		if err != nil {
			return err
		}
		p.epochs = append(p.epochs, e)
	}
	p.archive, err = testescrow.Load(p.path("archive.json"))
	return err
}

// custodian has the mail of the case; the others have the rest.
const custodian = "custodian00@example.org"

func (p *escrowPart) order(custodians ...string) testescrow.Order {
	now := time.Now()
	return testescrow.Order{Key: p.key, Epoch: p.epochs[len(p.epochs)-1], Custodians: custodians, Class: 1, Requester: "rita@example.org",
		Basis: "Order 12 O 34/26 of the district court", Opened: now, Life: 24 * time.Hour, First: escrow.MonthOf(now) - 1, Last: escrow.MonthOf(now) + 1}
}

// gateway seals RECORDS records, CASE of them the custodian's, and makes bundles: of the case, of a case with a slipped wrap, and
// of all records of the others (for rates). With no records it makes a case over what there is.
func (p *escrowPart) gateway(ctx context.Context, args []string) (any, error) {
	records, err := strconv.Atoi(args[0])
	if err != nil || len(args) != 2 {
		return nil, errUsage
	}
	inCase, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, errUsage
	}
	s, err := p.sealer()
	if err != nil {
		return nil, err
	}
	took, err := p.seal(s, records, inCase)
	if err != nil {
		return nil, err
	}
	p.known = known(p.path("known"))
	if p.epoch > 1 {
		err = p.bundle(ctx, "after", custodian)
	} else {
		err = errors.Join(p.slip(ctx), p.bundle(ctx, "case", custodian), p.bundle(ctx, "big", testescrow.Addresses(10, "example.org")[1:]...))
	}
	if err != nil {
		return nil, err
	}
	return struct{ SealMS float64 }{took.Seconds() * 1000 / float64(max(1, records))}, p.archive.Save(p.path("archive.json"))
}

func (p *escrowPart) sealer() (*escrow.Sealer, error) {
	names, err := filepath.Glob(p.path(fmt.Sprintf("attest-%d-*.deg1", p.epoch)))
	if err != nil {
		return nil, err
	}
	var attestations []*escrow.Statement
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		st, err := escrow.ParseStatement(b)
		if err != nil {
			return nil, err
		}
		attestations = append(attestations, st)
	}
	return escrow.NewSealer(p.key, p.epochs, attestations)
}

// seal archives messages of one to nine kilobytes and returns the processor time that it took: bodies, wraps, checks and leaves.
func (p *escrowPart) seal(s *escrow.Sealer, records, inCase int) (time.Duration, error) {
	others := testescrow.Addresses(10, "example.org")[1:]
	began := processorTime()
	for i := range records {
		who := others[i%len(others)]
		if i*inCase/records != (i+1)*inCase/records { // spread evenly
			who = custodian
		}
		plain := bytes.Repeat(fmt.Appendf(nil, "line of message %d\r\n", i), 50+i%400)
		if err := p.archive.Seal(s, plain, 1, time.Now(), who); err != nil {
			return 0, err
		}
	}
	return processorTime() - began, nil
}

// processorTime is what this process has had of processors.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (p *escrowPart) bundle(ctx context.Context, name string, custodians ...string) error {
	o := p.order(custodians...)
	o.Known = p.known
	c, err := p.archive.Open(o)
	if err != nil {
		return err
	}
	p.known = append(p.known, c.File.Size)
	if err := c.Save(p.path(name + ".json")); err != nil {
		return err
	}
	return p.write(ctx, name, c)
}

func (p *escrowPart) write(ctx context.Context, name string, c *testescrow.Case) error {
	f, err := os.Create(p.path(name + ".deb1"))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	err = p.archive.WriteBundle(ctx, w, c)
	return errors.Join(err, w.Flush(), f.Close())
}

// slip makes a bundle with a wrap of another custodian's in the custodian's clothes.
func (p *escrowPart) slip(ctx context.Context) error {
	var outside, inside []byte
	id := p.archive.Custodian(custodian)
	for _, r := range p.archive.Records {
		w, err := escrow.ParseWrap(r.Wraps[0])
		if err != nil {
			return err
		}
		if w.Label.Custodian == escrow.CustodianOf(id.Salt, id.Address) {
			inside = r.Wraps[0]
		} else {
			outside = r.Wraps[0]
		}
	}
	wrap, err := testescrow.Rerandomise(p.key, outside, inside)
	if err != nil {
		return err
	}
	c, err := p.archive.Slip(p.order(custodian), wrap)
	if err != nil {
		return err
	}
	return p.write(ctx, "slipped", c)
}

// known are the sizes of the checkpoints that officers have seen, a line each.
func known(path string) []int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var list []int64
	for line := range strings.Lines(string(b)) {
		if n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// A stationResult is one try of the station.
type stationResult struct {
	Opened  int
	Rate    float64
	Error   string
	Refused []struct {
		Officer uint16
		Class   string
	}
}

// station opens the case in FILE with each of the lists of answers. "outside:" gives it wraps from outside the case.
func (p *escrowPart) station(ctx context.Context, args []string) (any, error) {
	c, err := testescrow.LoadCase(p.path(args[0]))
	if err != nil {
		return nil, err
	}
	var results []stationResult
	for _, arg := range args[1:] {
		list, outside := strings.CutPrefix(arg, "outside:")
		var files []string
		for name := range strings.SplitSeq(list, ",") {
			files = append(files, p.path(name))
		}
		began := processorTime()
		var report *escrow.OpenReport
		if outside {
			report, err = p.openOutside(ctx, c, files)
		} else {
			report, err = p.archive.Combine(ctx, p.key, p.epochs[len(p.epochs)-1], c, files...)
		}
		if errors.Is(err, testescrow.ErrDiffers) || report == nil {
			return nil, err
		}
		r := stationResult{Opened: len(report.Opened), Rate: float64(len(report.Opened)) / (processorTime() - began).Seconds()}
		if err != nil {
			r.Error = err.Error()
		}
		for _, b := range report.Refused {
			class, _ := errors.AsType[escrow.Class](b.Err)
			r.Refused = append(r.Refused, struct {
				Officer uint16
				Class   string
			}{b.Officer, string(class)})
		}
		results = append(results, r)
	}
	return results, nil
}

// openOutside counts what opens when the station is handed other records' wraps.
func (p *escrowPart) openOutside(ctx context.Context, c *testescrow.Case, files []string) (*escrow.OpenReport, error) {
	mine := map[int]bool{}
	for _, e := range c.Entries {
		mine[e.Record] = true
	}
	var others [][]byte
	for i, r := range p.archive.Records {
		if !mine[i] {
			others = append(others, r.Wraps[0])
		}
	}
	var answers []escrow.Answer
	for _, f := range files {
		answers = append(answers, answerFile(f))
	}
	s := escrow.Station{Key: p.key, Epoch: p.epochs[len(p.epochs)-1], Manifest: c.File.Manifest, CaseKey: c.CaseKey}
	return s.Open(ctx, answers, func(n int) ([]byte, error) { return others[n%len(others)], nil }, func(escrow.Opened) error { return nil })
}

type answerFile string

func (f answerFile) Open() (io.ReadCloser, error) { return os.Open(string(f)) }

// newArchive makes the archive that parts load, and tells officers whom to believe.
func (l *escrowLab) newArchive() error {
	a := testescrow.New()
	t, err := a.Trust()
	if err != nil {
		return err
	}
	l.log = []string{"--log", t.Log, "--witness", t.Witnesses[0]}
	return a.Save(l.path("archive.json"))
}
