package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestProgress: nothing in the first second and nothing in a pipe; on a terminal one line that goes away.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	quiet := newProgress(stdio{err: &out}, "entries", 10)
	quiet.next = time.Time{}
	quiet.add(5)
	quiet.end()
	p := &progress{w: &out, what: "entries", total: 10, next: time.Now().Add(time.Hour)}
	p.add(1)
	p.end()
	if out.Len() > 0 {
		t.Errorf("said %q", out.String())
	}
	p.next = time.Time{}
	p.add(2)
	p.Write(make([]byte, 4)) // too soon to be shown
	p.end()
	if got := out.String(); strings.Count(got, "entries") != 1 || !strings.Contains(got, "entries 3 of 10") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("said %q", got)
	}
}
