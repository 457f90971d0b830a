package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"github.com/cloudflare/circl/group"

	"dimegate/internal/testescrow"
	"dimegate/vault/escrow"
	"dimegate/vault/escrow/officer"
)

// A searchReport says where the private scalar, made of a quorum's shares, was looked for.
type searchReport struct {
	Scalar  int   `json:"scalar_found"`
	Images  int   `json:"process_images"` // of officers at work, of the gateway and of the station
	Octets  int64 `json:"memory_octets"`
	Files   int   `json:"files"`
	Cores   int   `json:"core_dumps"`              // of officers killed at work, where the system makes them
	Control int   `json:"control_own_share_found"` // officers' processes in which their own share was found: the search works
}

// needles are the forms in which 32 octets may lie somewhere.
func needles(secret []byte) [][]byte {
	back := slices.Clone(secret)
	slices.Reverse(back)
	return [][]byte{secret, back, []byte(hex.EncodeToString(secret)), []byte(base64.StdEncoding.EncodeToString(secret)), []byte(base64.RawStdEncoding.EncodeToString(secret))}
}

// knowScalar unlocks a quorum's shares with the officers' passphrase and recombines the private scalar. It is in this process alone.
func (l *escrowLab) knowScalar(context.Context) error {
	list, err := l.shares(1, l.officers)
	if err != nil {
		return err
	}
	l.old = list
	g := group.Ristretto255
	x := combineShares(list[:l.report.Quorum])
	b, err := x.MarshalBinary()
	if err != nil {
		return err
	}
	l.scalar = b
	record, err := os.ReadFile(l.path("keys/discovery/key.dek1"))
	if err != nil {
		return err
	}
	h, err := g.NewElement().MulGen(x).MarshalBinaryCompress()
	if err != nil {
		return err
	}
	l.h = record[len(record)-32:]
	if !bytes.Equal(h, l.h) {
		return errors.New("the shares do not make the private key: the search would look for the wrong thing")
	}
	return nil
}

// A labShare is an officer's share, out of his folder.
type labShare struct {
	index uint16
	x     []byte
}

// shares opens the newest share file of an epoch in each officer's folder; who has none is left out.
func (l *escrowLab) shares(epoch int, officers []string) ([]labShare, error) {
	var list []labShare
	for _, o := range officers {
		names, err := filepath.Glob(l.path(o, fmt.Sprintf("share-*-%d-*.age", epoch)))
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			continue
		}
		s, err := l.openShare(o, names[0])
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func (l *escrowLab) openShare(o, file string) (labShare, error) {
	sealed, err := os.ReadFile(l.path(o, "officer.age"))
	if err != nil {
		return labShare{}, err
	}
	pass, err := age.NewScryptIdentity("a passphrase of the lab")
	if err != nil {
		return labShare{}, err
	}
	text, err := escrow.OpenFile(sealed, pass)
	if err != nil {
		return labShare{}, err
	}
	lines := strings.Split(string(text), "\n")
	ids, err := age.ParseIdentities(strings.NewReader(lines[2]))
	if err != nil {
		return labShare{}, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return labShare{}, err
	}
	plain, err := escrow.OpenFile(b, ids...)
	if err != nil {
		return labShare{}, err
	}
	s, err := escrow.ParseShare(plain)
	return labShare{s.Index, plain[len(plain)-32:]}, err
}

// combineShares is Lagrange at zero, written without the product's code.
func combineShares(list []labShare) group.Scalar {
	g := group.Ristretto255
	sum := g.NewScalar()
	for _, a := range list {
		term := g.NewScalar()
		if err := term.UnmarshalBinary(a.x); err != nil {
			panic(err) // ParseShare has read it
		}
		for _, b := range list {
			if b.index == a.index {
				continue
			}
			j, i := g.NewScalar().SetUint64(uint64(b.index)), g.NewScalar().SetUint64(uint64(a.index))
			d := g.NewScalar().Sub(j, i)
			term.Mul(term, j.Mul(j, d.Inv(d)))
		}
		sum.Add(sum, term)
	}
	return sum
}

// approve has an officer approve, and returns the processor time that it took.
func (l *escrowLab) approve(ctx context.Context, o, bundle, answer string) (time.Duration, error) {
	w, err := l.beginApproval(ctx, o, bundle, answer)
	if err != nil {
		return 0, err
	}
	err = w.end()
	return w.took, err
}

// approveSeen has an officer approve; its process is stopped as soon as it writes its answer, looked into, and let go on. One that is
// done before it could be stopped is begun again.
func (l *escrowLab) approveSeen(ctx context.Context, o, bundle, answer string) error {
	w, err := l.atWork(ctx, o, bundle, answer)
	if err != nil {
		return err
	}
	if err := l.look(w.pid, true); err != nil {
		w.kill(syscall.SIGKILL)
		return err
	}
	if err := syscall.Kill(w.pid, syscall.SIGCONT); err != nil {
		return err
	}
	return w.end()
}

// A working is an officer's process that approves.
type working struct {
	pid   int
	ended chan struct{}
	err   error
	took  time.Duration // of a processor, when it has ended
}

func (l *escrowLab) beginApproval(ctx context.Context, o, bundle, answer string) (*working, error) {
	cmd := exec.CommandContext(ctx, l.gateway, "officer", "approve", "--dir", o, "--passphrase-file", "pass", "--yes", "--out", answer, bundle)
	cmd.Dir = l.dir
	cmd.Env = append(os.Environ(), "GOTRACEBACK=crash") // for the one that is killed
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w := &working{pid: cmd.Process.Pid, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		if err := cmd.Wait(); err != nil {
			w.err = fmt.Errorf("%s approves: %w: %s", o, err, errs.String())
		}
		w.took = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}()
	return w, nil
}

func (w *working) end() error {
	<-w.ended
	return w.err
}

func (w *working) kill(s syscall.Signal) {
	_ = syscall.Kill(w.pid, s)
	_ = syscall.Kill(w.pid, syscall.SIGCONT)
	<-w.ended
}

// atWork is an officer's process that was stopped while it made its partials.
func (l *escrowLab) atWork(ctx context.Context, o, bundle, answer string) (*working, error) {
	for range 10 {
		w, err := l.beginApproval(ctx, o, bundle, answer)
		if err != nil {
			return nil, err
		}
		stopped, err := l.stop(w, answer)
		if err != nil {
			w.kill(syscall.SIGKILL)
			return nil, err
		}
		if stopped {
			return w, nil
		}
		if err := w.end(); err != nil {
			return nil, err
		}
		if err := os.Remove(l.path(answer)); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s is always done before its process could be looked into: take a larger case", o)
}

// stop waits until the process writes its answer and stops it; false when it has ended.
func (l *escrowLab) stop(w *working, answer string) (bool, error) {
	for {
		names, err := filepath.Glob(l.path("." + answer + ".*.tmp"))
		if err != nil {
			return false, err
		}
		if len(names) > 0 {
			if err := syscall.Kill(w.pid, syscall.SIGSTOP); err != nil {
				return false, nil // it ended
			}
			if names, _ = filepath.Glob(l.path("." + answer + ".*.tmp")); len(names) > 0 {
				return true, nil
			}
			return false, syscall.Kill(w.pid, syscall.SIGCONT) // it was about to end
		}
		select {
		case <-w.ended:
			return false, nil
		case <-time.After(200 * time.Microsecond):
		}
	}
}

func entries(bundle string) (int, error) {
	f, err := os.Open(bundle)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b, err := escrow.ReadBundle(f)
	if err != nil {
		return 0, err
	}
	return len(b.Manifest.Entries), nil
}

func (l *escrowLab) lookInto(p *part) error { return l.look(p.cmd.Process.Pid, false) }

// look searches the memory of a process for the scalar, and for the officers' shares as a control.
func (l *escrowLab) look(pid int, isOfficer bool) error {
	r := &l.report.Search
	own := false
	octets, err := eachRegion(pid, func(b []byte) {
		for _, n := range needles(l.scalar) {
			r.Scalar += bytes.Count(b, n)
		}
		for _, s := range append(slices.Clone(l.old), l.fresh...) {
			own = own || isOfficer && bytes.Contains(b, s.x)
		}
	})
	if err != nil {
		return fmt.Errorf("memory of process %d: %w (as root: it reads other processes' memory)", pid, err)
	}
	r.Images++
	r.Octets += octets
	if own {
		r.Control++
	}
	return nil
}

// eachRegion reads a process's memory, region by region, in pieces that overlap.
func eachRegion(pid int, visit func([]byte)) (int64, error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	const piece, overlap = 4 << 20, 128
	buf := make([]byte, piece+overlap)
	var total int64
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || mode[0] != 'r' || strings.Contains(lines.Text(), "[v") {
			continue
		}
		for at := from; at < to; at += piece {
			n, err := mem.ReadAt(buf[:min(uint64(len(buf)), to-at)], int64(at))
			if err != nil && n == 0 {
				break // a page that is not there: reserved, never touched
			}
			visit(buf[:n])
			total += int64(n)
		}
	}
	if total == 0 {
		return 0, errors.New("nothing could be read")
	}
	return total, nil
}

// forge makes officer n's answer false in one partial.
func (l *escrowLab) forge(n int) error {
	b, err := os.ReadFile(l.path(fmt.Sprintf("answer-%d", n)))
	if err != nil {
		return err
	}
	c, err := testescrow.LoadCase(l.path("case.json"))
	if err != nil {
		return err
	}
	d, err := officer.Open(l.path(l.officers[n-1]))
	if err != nil {
		return err
	}
	pass, err := age.NewScryptIdentity("a passphrase of the lab")
	if err != nil {
		return err
	}
	keys, err := d.Unlock(pass)
	if err != nil {
		return err
	}
	defer keys.Destroy()
	forged, err := testescrow.Forge(b, c, keys.Signing)
	if err != nil {
		return err
	}
	return os.WriteFile(l.path("forged"), forged, 0o600)
}

// allowCores lets the processes of the lab leave core dumps, if the system does.
func allowCores() {
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_CORE, &lim) == nil {
		lim.Cur = lim.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &lim)
	}
}

// crash kills an officer's process at its work, in the way that leaves a core dump.
func (l *escrowLab) crash(ctx context.Context) error {
	w, err := l.atWork(ctx, l.officers[1], "case.deb1", "crashed")
	if err != nil {
		return err
	}
	w.kill(syscall.SIGABRT)
	left, err := filepath.Glob(l.path(".crashed.*"))
	if err != nil {
		return err
	}
	for _, name := range left { // what it wrote is half an answer, sealed to the case
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	names, err := filepath.Glob(l.path("core*"))
	l.report.Search.Cores = len(names)
	return err
}

// searchFiles looks for the scalar in every file that the run has left.
func (l *escrowLab) searchFiles(context.Context) error {
	r := &l.report.Search
	return filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		r.Files++
		for _, n := range needles(l.scalar) {
			r.Scalar += bytes.Count(b, n)
		}
		return nil
	})
}
