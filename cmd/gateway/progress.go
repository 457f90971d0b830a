package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// A progress shows on a terminal how far something long has come. Elsewhere, and in its first second, it is silent.
type progress struct {
	w           io.Writer // nil: silent
	what        string
	done, total int64
	next        time.Time
	shown       bool
	mu          sync.Mutex // of reach
}

func newProgress(std stdio, what string, total int64) *progress {
	p := &progress{what: what, total: total, next: time.Now().Add(time.Second)}
	if f, ok := std.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = f
	}
	return p
}

// Write counts what goes through it.
func (p *progress) Write(b []byte) (int, error) {
	p.add(int64(len(b)))
	return len(b), nil
}

func (p *progress) add(n int64) {
	if p.done += n; p.w == nil || time.Now().Before(p.next) {
		return
	}
	p.next, p.shown = time.Now().Add(200*time.Millisecond), true
	if p.total > 0 {
		fmt.Fprintf(p.w, "\r\x1b[K%s %d of %d", p.what, p.done, p.total)
		return
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s %d", p.what, p.done)
}

// end takes it off the screen.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// reach says how far it has come, of how much.
func (p *progress) reach(done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = int64(total)
	p.add(int64(done) - p.done)
}
