package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dimegate/internal/testpeer"
)

// A stat is what /proc/PID/stat tells of a process (proc_pid_stat(5)).
type stat struct {
	parent int
	ticks  int64 // of processor time, its own and that of its children that have ended and were waited for
}

// clockTick is sysconf(_SC_CLK_TCK) of every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

func readStat(pid int) (s stat, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	// The second field is the program's name in parentheses, and may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return s, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	if s.parent, err = strconv.Atoi(fields[1]); err != nil {
		return s, err
	}
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return s, err
		}
		s.ticks += n
	}
	return s, nil
}

// family is every living process that descends from the given ones, these included, with its stat.
func family(pids []int) (map[int]stat, error) {
	all := map[int]stat{}
	list, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range list {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		if s, err := readStat(pid); err == nil { // else it has ended meanwhile
			all[pid] = s
		}
	}
	ours := map[int]stat{}
	for pid := range all {
		for at := pid; at > 0; at = all[at].parent {
			if slices.Contains(pids, at) {
				ours[pid] = all[pid]
				break
			}
		}
	}
	if len(ours) < len(pids) {
		return nil, errors.New("a process of the side under test has ended")
	}
	return ours, nil
}

// familyTime is what processes have used with all their descendants, those that have ended included.
func familyTime(pids []int) (time.Duration, error) {
	ours, err := family(pids)
	var ticks int64
	for _, s := range ours {
		ticks += s.ticks
	}
	return time.Duration(ticks) * clockTick, err
}

// anonymousMemory is RssAnon of processes and their descendants together.
func anonymousMemory(pids []int) (sum int64, err error) {
	ours, err := family(pids)
	for pid := range ours {
		if n, err := testpeer.AnonymousMemory(pid); err == nil {
			sum += n
		}
	}
	return sum, err
}

// descriptors is how many files a process has open.
func descriptors(pid int) (int, error) {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(list), err
}

// syncCalls are the system calls that wait for a disk.
const syncCalls = "fsync,fdatasync,sync_file_range,msync,sync,syncfs"

// countSyncs counts the calls that bring data to the disk in processes and their descendants while f runs, by strace(1).
func countSyncs(ctx context.Context, pids []int, f func() error) (int, error) {
	ours, err := family(pids)
	if err != nil {
		return 0, err
	}
	argv := []string{"-f", "-q", "-e", "trace=" + syncCalls}
	for pid := range ours {
		argv = append(argv, "-p", strconv.Itoa(pid))
	}
	out, err := os.CreateTemp("", "strace-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.CommandContext(ctx, "strace", append(argv, "-o", out.Name())...)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	traced := func() bool { return allTraced(pids) || len(ended) > 0 }
	err = errors.Join(testpeer.Until(ctx, traced), f())
	_ = cmd.Process.Signal(os.Interrupt) // it lets the processes go and ends by that signal
	<-ended
	if err != nil {
		return 0, fmt.Errorf("strace: %w\n%s", err, said.Bytes())
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		return 0, err
	}
	return syncs(string(text)), nil
}

// syncs counts the calls in what strace wrote: each once, also where it was interrupted by another thread's and resumed.
func syncs(text string) (n int) {
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "resumed>") && !strings.Contains(line, "+++") && !strings.Contains(line, "---") {
			n++
		}
	}
	return n
}

// allTraced reports whether somebody traces each of the processes.
func allTraced(pids []int) bool {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || strings.Contains(string(text), "TracerPid:\t0\n") {
			return false
		}
	}
	return true
}
