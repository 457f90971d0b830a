// Package testpeer starts real mail and DNS servers for tests and for the lab: Postfix, Dovecot, Unbound, smtp-sink.
//
// Every peer runs in a folder of its own, writes its whole configuration there, and listens on a loopback address that
// nobody else has, so that standard ports can be used (25, 26, 53, 143) and any number of benches run side by side. No
// network namespace is needed. Nothing here leaves 127.0.0.0/8.
package testpeer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startWait bounds how long a peer may take until its port answers. Postfix takes four seconds on a busy machine.
const startWait = 60 * time.Second

// A Bench is where peers run: a folder, the loopback addresses it holds, and what has been started on it. The zero
// value is of no use: see NewBench and New. Safe for concurrent use.
type Bench struct {
	Dir string // 0755, short (a Unix socket's path is bounded), removed by Close

	mu    sync.Mutex
	stops []func() error // in starting order
	logs  []string       // files to show when a test failed
}

// NewBench makes an empty bench. The caller closes it.
func NewBench() (*Bench, error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	// Daemons that change to a user of their own must pass through.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	return &Bench{Dir: dir}, nil
}

// New makes a bench for a test: closed at its end, with the peers' logs attached when it failed.
func New(t testing.TB) *Bench {
	t.Helper()
	b, err := NewBench()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		t.Helper()
		// First stop, then read: a daemon says why it failed while it ends, too.
		stopped := b.stop()
		if t.Failed() {
			b.ShowLogs(t.Output())
		}
		if err := errors.Join(stopped, b.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Close stops everything in the reverse of the starting order and removes the folder.
func (b *Bench) Close() error {
	return errors.Join(b.stop(), os.RemoveAll(b.Dir))
}

func (b *Bench) stop() error {
	b.mu.Lock()
	stops := b.stops
	b.stops = nil
	b.mu.Unlock()
	var errs []error
	for _, f := range slices.Backward(stops) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func (b *Bench) onClose(stop func() error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stops = append(b.stops, stop)
}

// Go runs f beside the peers. When the bench closes f's context ends, and Close waits for it and returns its error.
func (b *Bench) Go(name string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	b.onClose(func() error {
		cancel()
		if err := <-done; err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

// Log adds a file to what ShowLogs prints.
func (b *Bench) Log(file string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.logs, file) {
		b.logs = append(b.logs, file)
	}
}

// ShowLogs writes the end of every peer's log, at most 8 KiB each.
func (b *Bench) ShowLogs(w io.Writer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, file := range b.logs {
		text, err := os.ReadFile(file)
		if err != nil {
			text = []byte(err.Error())
		}
		if len(text) == 0 {
			continue
		}
		name, _ := filepath.Rel(b.Dir, file)
		fmt.Fprintf(w, "---- %s\n%s\n", name, text[max(0, len(text)-8<<10):])
	}
}

// Address reserves a loopback address: no other bench of this machine gets it while this one is open.
func (b *Bench) Address() (string, error) {
	for range 100 {
		addr := fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(64), rand.IntN(256), 1+rand.IntN(254))
		// A listener on a port that nobody wants is the reservation, and ends with the process at the latest.
		guard, err := net.Listen("tcp", net.JoinHostPort(addr, "7"))
		if errors.Is(err, fs.ErrPermission) {
			guard, err = net.Listen("tcp", net.JoinHostPort(addr, "30007"))
		}
		if err != nil {
			continue
		}
		b.onClose(guard.Close)
		return addr, nil
	}
	return "", errors.New("testpeer: no loopback address is free")
}

// folder makes a folder of the bench with the given owner ("" is us).
func (b *Bench) folder(owner string, elem ...string) (string, error) {
	dir := filepath.Join(append([]string{b.Dir}, elem...)...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if owner == "" {
		return dir, nil
	}
	uid, gid, err := lookup(owner)
	if err != nil {
		return "", err
	}
	return dir, os.Chown(dir, uid, gid)
}

// A Process is one running program of a bench.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed after Wait returned
	err  error         // what Wait returned; read it after done
}

// Start runs a program in the foreground of its own process group, its output in LOGNAME.log of the bench. It is ended
// with SIGTERM when the bench closes, and with it when our own process dies.
func (b *Bench) Start(name string, argv ...string) (*Process, error) {
	return b.StartIn("", nil, name, argv...)
}

// StartIn is Start in a working folder, with environment variables beside our own.
func (b *Bench) StartIn(dir string, env []string, name string, argv ...string) (*Process, error) {
	path, err := program(argv[0])
	if err != nil {
		return nil, err
	}
	logFile := filepath.Join(b.Dir, name+".log")
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	b.Log(logFile)
	cmd := exec.Command(path, argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	b.onClose(p.Stop)
	return p, nil
}

// Pid is the program's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill ends the program at once, as a power cut would end it: SIGKILL to its whole group.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL) // gone already: what we want
	<-p.done
}

// Stop asks the program to end, waits for that, and kills it when it takes longer than ten seconds. It is idempotent.
func (p *Process) Stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		p.Kill()
		return fmt.Errorf("%s ignored SIGTERM for 10 s", p.name)
	}
}

// Done is closed when the program has ended; then ExitCode is valid.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode is what the program ended with, -1 for a signal.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// AnonymousMemory is the program's resident memory that no file backs, in octets.
func (p *Process) AnonymousMemory() (int64, error) { return AnonymousMemory(p.Pid()) }

// AnonymousMemory is the resident memory of a process that no file backs, in octets (RssAnon of proc_pid_status(5)).
func AnonymousMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no RssAnon in status")
}

// Up waits until every address accepts connections. It ends early when the program has ended.
func (p *Process) Up(ctx context.Context, addrs ...string) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for _, addr := range addrs {
		err := Until(ctx, func() bool {
			select {
			case <-p.done:
				return true
			default:
			}
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before %s answered: %w", p.name, addr, errors.Join(p.err, context.Cause(ctx)))
		default:
		}
		if err != nil {
			return fmt.Errorf("%s does not answer on %s: %w", p.name, addr, err)
		}
	}
	return nil
}

// Until waits for a condition that other processes bring about, looking every 20 ms, until ctx ends.
func Until(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
