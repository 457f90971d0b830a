package main

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/term"

	"dimegate/bridge/queue"
	"dimegate/internal/safefile"
)

// A dumped says what was written.
type dumped struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"` // queue.DumpBuilt or queue.DumpSealed
	Octets int64  `json:"octets"`
	Digest string `json:"sha512_256"` // of the octets; of a sealed body its digest in the log's intake leaf
	File   string `json:"file"`
}

func runQueueDump(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print what was written as JSON")
	out := fs.String("out", "", "write to a new `FILE`; without it to standard output")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usagef("queue dump: one entry")
	}
	switch f, ok := std.out.(*os.File); {
	case *out == "" && *asJSON:
		return usagef("queue dump: --json needs --out: standard output takes the object")
	case *out == "" && ok && term.IsTerminal(int(f.Fd())):
		return usagef("queue dump: the object is binary: give --out, or redirect standard output")
	}
	q, done, err := openQueue(ctx, *path)
	if err != nil {
		return err
	}
	defer done()
	d, err := q.Dump(ctx, rest[0])
	if errors.Is(err, queue.ErrNotFound) {
		return fmt.Errorf("%s: no such entry: it has ended, or never was", rest[0])
	}
	if err != nil {
		return err
	}
	defer d.Close()
	w, err := writeDump(std, d, *out)
	if err != nil {
		return err
	}
	w.ID = rest[0]
	switch {
	case *asJSON:
		return json.NewEncoder(std.out).Encode(w)
	case *out != "":
		_, err = fmt.Fprintf(std.out, "%s: %s, %d octets, SHA-512/256 %s\n", w.File, w.Kind, w.Octets, w.Digest)
	}
	return err
}

// writeDump copies the object and digests it on the way.
func writeDump(std stdio, d queue.Dump, out string) (dumped, error) {
	bar, sum := newProgress(std, "queue dump: octets", d.Octets), sha512.New512_256()
	defer bar.end()
	r := io.TeeReader(d, io.MultiWriter(sum, bar))
	var err error
	if out == "" {
		_, err = io.Copy(std.out, r)
	} else if err = safefile.CreateFrom(out, r); errors.Is(err, fs.ErrExist) {
		err = usagef("%s is there already: remove it, or name another", out)
	}
	return dumped{Kind: d.Kind, Octets: bar.done, Digest: hex.EncodeToString(sum.Sum(nil)), File: out}, err
}
