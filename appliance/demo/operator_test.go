package demo

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
)

// What a gateway's log says, at every level, names no person and quotes no message.
func TestLogNamesNobody(t *testing.T) {
	var log bytes.Buffer
	var out bytes.Buffer
	err := Run(t.Context(), Options{Out: io.MultiWriter(&out), Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug - 4}))})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if log.Len() == 0 {
		t.Fatal("no log")
	}
	for _, words := range []string{"alice@", "bob@", "alice", "bob", "Merger", "merger", canary, "terms.csv"} {
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, words) {
				t.Errorf("%q in %s", words, line)
			}
		}
	}
}
