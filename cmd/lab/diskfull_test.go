package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dimegate/bridge/queue"
	"dimegate/internal/testpeer"

	"golang.org/x/sys/unix"
)

// The file system of each gateway in TestDiskFull, how much of it must stay free by configuration, and how much it has left
// when that is not so. Octets.
const (
	diskOctets   = 64 << 20
	diskMinFree  = 16 << 20
	diskLeftOver = 8 << 20
)

// TestDiskFull fills the file system of each gateway while Postfix feeds, and frees it: once down to what must stay free,
// and once to the last octet, so that commits fail. Nobody restarts anything. What a gateway took is delivered once, what
// it did not take the other side keeps.
func TestDiskFull(t *testing.T) {
	testpeer.Require(t, "postfix", "dovecot", "unbound")
	binary, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	disks := [2]*disk{newDisk(t), newDisk(t)} // before the bench: unmounted behind it
	ctx := limited(t)
	c, err := newCrashRun(ctx, testpeer.New(t), binary, crashPlan{}, func(l *Lab) {
		for i, o := range l.Orgs() {
			o.volume = disks[i].dir
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, minFree := range []int64{diskMinFree, 0} {
		for _, g := range []*Gateway{c.bravo, c.alpha} {
			if g.Process != nil {
				if err := g.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			err := g.Configure(func(text string) string {
				return strings.Replace(text, "[queue]\n", fmt.Sprintf("[queue]\nmin_free_octets = %d\n", minFree), 1)
			})
			if err := errors.Join(err, g.Run(ctx)); err != nil {
				t.Fatal(err)
			}
		}
		name := map[bool]string{true: "to the last octet", false: "down to what must stay free"}[minFree == 0]
		leave := max(0, minFree-diskLeftOver)
		t.Run("origin "+name, func(t *testing.T) {
			c.whileFull(ctx, t, c.alpha, disks[0], leave, c.Alpha.Postfix.LogFile(), "said: 452 4.3.1 ")
			c.checkFaults(t)
		})
		t.Run("destination "+name, func(t *testing.T) {
			c.whileFull(ctx, t, c.bravo, disks[1], leave, c.alpha.LogFile(), "class=remote code=431 ")
		})
	}
	c.eachOnce(ctx, t)
}

// whileFull feeds, fills a gateway's disk until a log has shown often enough that mail was put off for want of room, and, when
// nothing is left, until a commit has failed; frees it, and waits until all has left.
func (c *crashRun) whileFull(ctx context.Context, t *testing.T, g *Gateway, d *disk, leave int64, log, says string) {
	before := countLines(t, log, says)
	pids := [2]int{c.alpha.Pid(), c.bravo.Pid()}
	feed, stop := context.WithCancel(ctx)
	var feeding sync.WaitGroup
	feeding.Go(func() {
		for feed.Err() == nil {
			_ = c.Alpha.Postfix.Flush(ctx) // the next time, then
			if err := c.feed(ctx, batch); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	free := d.fill(t, leave)
	err := testpeer.Until(ctx, func() bool {
		return countLines(t, log, says) >= before+10 && (leave > 0 || countLines(t, g.LogFile(), "database or disk is full") > 0)
	})
	if err != nil {
		t.Errorf("no %q in %s: %v", says, filepath.Base(log), err)
	}
	free()
	handed := countLines(t, c.bravo.LogFile(), `msg="handed over"`)
	if err := testpeer.Until(ctx, func() bool { return countLines(t, c.bravo.LogFile(), `msg="handed over"`) > handed+batch }); err != nil {
		t.Errorf("mail does not flow again: %v", err)
	}
	stop()
	feeding.Wait()
	if err := c.drainAtOnce(ctx); err != nil {
		t.Errorf("it does not recover: %v", err)
	}
	for i, g := range []*Gateway{c.alpha, c.bravo} {
		select {
		case <-g.Done():
			t.Errorf("the gateway of %s ended", g.org.Domain)
		default:
		}
		if g.Pid() != pids[i] {
			t.Error("somebody restarted it")
		}
	}
}

// checkFaults: what failed in a delivery because the disk was full counts against no entry: the queue was told.
func (c *crashRun) checkFaults(t *testing.T) {
	text, err := os.ReadFile(c.alpha.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `msg="queue delivery`) && strings.Contains(line, "disk is full") && !strings.Contains(line, queue.ErrFull.Error()) {
			t.Errorf("counted as a fault of the entry: %s", line)
		}
	}
}

// drainAtOnce does not wait for the quarter of an hour that mail rests after a 431 (dmtp.md §10.1).
func (c *crashRun) drainAtOnce(ctx context.Context) error {
	hurry, stop := context.WithCancel(ctx)
	var hurrying sync.WaitGroup
	hurrying.Go(func() {
		for hurry.Err() == nil {
			_ = c.Alpha.Postfix.Flush(hurry) // the next time, then
			_, _ = c.alpha.Command(hurry, "queue", "retry", "--all", "--config", c.alpha.Config)
			time.Sleep(200 * time.Millisecond)
		}
	})
	defer hurrying.Wait()
	defer stop()
	return c.drain(ctx)
}

// eachOnce: what was fed lies in one mailbox, once, or its sender was told once that it does not.
func (c *crashRun) eachOnce(ctx context.Context, t *testing.T) {
	all := make([]found, c.fed)
	err := errors.Join(
		c.readMailboxes(ctx, c.Bravo, func(m []byte) error { return noteCopy(all, m, true) }),
		c.readMailboxes(ctx, c.Alpha, func(m []byte) error { return noteNotice(all, m) }),
		c.readLog(all))
	if err != nil {
		t.Fatal(err)
	}
	for n, f := range all {
		if f.taken != 1 || f.cut != 0 || len(f.all)+len(f.notices) != 1 {
			t.Errorf("message %d was taken %d times, its 250 cut %d times; copies %v, notices %v", n, f.taken, f.cut, f.all, f.notices)
		}
	}
	t.Logf("%d messages", len(all))
}

// countLines is how often a log says something.
func countLines(t *testing.T, log, says string) int {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Error(err)
	}
	return strings.Count(string(text), says)
}

// A disk is a file system of its own.
type disk struct{ dir string }

func newDisk(t *testing.T) *disk {
	t.Helper()
	d := &disk{dir: t.TempDir()}
	if err := unix.Mount("tmpfs", d.dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskOctets)); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mounting a file system wants root: %v", err)
		}
		t.Skipf("mounting a file system wants root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.dir, 0); err != nil {
			t.Error(err)
		}
	})
	return d
}

// fill takes all of a disk but what is to be left, and goes on taking what gets free. What it returns gives all of it back.
func (d *disk) fill(t *testing.T, leave int64) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(d.dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		var size int64
		for ctx.Err() == nil {
			var st unix.Statfs_t
			if err := unix.Statfs(d.dir, &st); err != nil {
				t.Error(err)
				return
			}
			if more := int64(st.Bavail)*st.Bsize - leave; more > 0 {
				err := unix.Fallocate(int(f.Fd()), 0, size, more)
				switch {
				case err == nil:
					size += more
				case !errors.Is(err, syscall.ENOSPC): // somebody was quicker
					t.Error(err)
					return
				}
			}
			time.Sleep(time.Millisecond)
		}
	})
	return func() {
		cancel()
		wg.Wait()
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Error(err)
		}
	}
}
