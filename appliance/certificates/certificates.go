// Package certificates watches the files of certificates while the gateway runs, and says which to show: a new one is shown when
// others can know it.
package certificates

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dimegate/appliance/config"
	"dimegate/internal/safefile"
)

// A Vouch says whether a new certificate may be shown: every record of ours that vouches for certificates vouches for it, and when it
// has done so for Wait, since others remember the record from before for as long.
type Vouch struct {
	OK   bool
	Wait time.Duration
	Why  string // not OK: the domains whose records lack it
}

// Options are what a Watcher is made of.
type Options struct {
	Files []config.Certificate
	Kept  string                                                                  // a folder with what is shown, so that a restart shows the same; "": none
	Vouch func(ctx context.Context, shown, next *x509.Certificate) (Vouch, error) // nil: all may be shown
	Show  func(all []tls.Certificate) error                                       // what is shown from now on, in the order of Files
	Now   func() time.Time
	Log   *slog.Logger
}

// A Watcher has the certificates that are shown, and those that wait. It is safe for concurrent use.
type Watcher struct {
	Options
	mu    sync.Mutex
	pairs []*pair
	leafs atomic.Pointer[[]*x509.Certificate] // of what is shown
}

// A pair is one certificate with its key: what is shown, and what waits in its files, if anything does.
type pair struct {
	file  config.Certificate
	first []byte // PEM of what New read, until it is kept
	shown tls.Certificate
	next  *waiting
	aged  time.Time // when it was last said that what is shown ages
}

// Aged is the percentage of a certificate's life from which it is said to age: its successor should be there.
const Aged = 80

// Life is how much of a certificate's life has passed, in percent.
func Life(c *x509.Certificate, now time.Time) int {
	return int(now.Sub(c.NotBefore) / max(c.NotAfter.Sub(c.NotBefore)/100, 1))
}

// Aging lists what is shown, and has four fifths of its life behind it or ended.
func (w *Watcher) Aging() (list []*x509.Certificate) {
	for _, leaf := range *w.leafs.Load() {
		if Life(leaf, w.Now()) >= Aged {
			list = append(list, leaf)
		}
	}
	return list
}

// tell says once a day that what is shown ages.
func (w *Watcher) tell(p *pair) {
	if now := w.Now(); Life(p.shown.Leaf, now) >= Aged && now.Sub(p.aged) >= 24*time.Hour {
		p.aged = now
		w.Log.Warn("a certificate has four fifths of its life behind it: renew it", "file", p.file.CertificateFile, "not_after", p.shown.Leaf.NotAfter)
	}
}

// waiting is a certificate that is not shown yet.
type waiting struct {
	pem    []byte // key and chain
	cert   tls.Certificate
	known  time.Time // since when others can know it, as far as we saw; zero: they cannot
	told   string    // what was logged of it
	broken bool
}

// Every is how often a Watcher looks.
const Every = time.Minute

// New reads what is to be shown, and shows it: what was shown last, else what is in the files. Errors name the file. It writes nothing:
// a gateway that does not come to run leaves no mark.
func New(o Options) (*Watcher, error) {
	w := &Watcher{Options: o}
	for _, f := range o.Files {
		text, err := read(f)
		if err != nil {
			return nil, err
		}
		p := &pair{file: f, first: text}
		if p.shown, err = tls.X509KeyPair(text, text); err != nil {
			return nil, fmt.Errorf("%s: %w", f.CertificateFile, err)
		}
		if kept, err := readKept(o.Kept, f); err == nil {
			p.shown = kept
		} else if !errors.Is(err, fs.ErrNotExist) {
			o.Log.Warn("what was shown last cannot be read: the files are shown", "file", f.CertificateFile, "error", err)
		}
		w.pairs = append(w.pairs, p)
	}
	return w, w.show()
}

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	for {
		w.Check(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(Every):
		}
	}
}

// Check looks once at all files, and shows what may be shown.
func (w *Watcher) Check(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pairs {
		w.keepFirst(p)
		w.tell(p)
		if w.look(p); p.next == nil || p.next.broken || !w.known(ctx, p) {
			continue
		}
		old, next := p.shown, p.next
		p.shown = next.cert
		if err := w.show(); err != nil {
			p.shown, next.broken, next.told = old, true, err.Error()
			w.Log.Warn("a new certificate cannot be shown: the one before is shown on", "file", p.file.CertificateFile, "error", err)
			continue
		}
		p.next = nil
		w.Log.Info("a new certificate is shown: the record may leave the one before out", "file", p.file.CertificateFile, "not_after", p.shown.Leaf.NotAfter)
		if err := w.keep(p.file, next.pem, p.shown); err != nil {
			w.Log.Error("the certificate that is shown could not be kept: a restart shows the one before again", "file", p.file.CertificateFile, "error", err)
		}
	}
}

// keepFirst keeps what New read, once.
func (w *Watcher) keepFirst(p *pair) {
	if p.first == nil {
		return
	}
	if err := w.keep(p.file, p.first, p.shown); err != nil {
		w.Log.Error("the certificate that is shown could not be kept: a restart shows what is in the files, whether others know it or not", "file", p.file.CertificateFile, "error", err)
		return
	}
	p.first = nil
}

func (w *Watcher) show() error {
	var all []tls.Certificate
	var leafs []*x509.Certificate
	for _, p := range w.pairs {
		all, leafs = append(all, p.shown), append(leafs, p.shown.Leaf)
	}
	if err := w.Show(all); err != nil {
		return err
	}
	w.leafs.Store(&leafs)
	return nil
}

// look reads a pair's files.
func (w *Watcher) look(p *pair) {
	text, err := read(p.file)
	if err == nil && p.next != nil && (!p.next.broken || p.next.told != "") && bytes.Equal(text, p.next.pem) {
		return
	}
	n := &waiting{pem: text}
	if err == nil {
		n.cert, err = tls.X509KeyPair(text, text)
	}
	switch {
	case err != nil: // being written, or wrong if it still is the next time: what is shown stays
		n.broken = true
		if p.next != nil && p.next.broken {
			n.told = err.Error()
			if p.next.told != n.told {
				w.Log.Warn("a certificate's files cannot be used: the one before is shown on", "file", p.file.CertificateFile, "error", err)
			}
		}
		p.next = n
	case bytes.Equal(n.cert.Certificate[0], p.shown.Certificate[0]):
		p.next = nil
	default:
		p.next = n
	}
}

// known tells whether others can know a pair's next certificate.
func (w *Watcher) known(ctx context.Context, p *pair) bool {
	if w.Vouch == nil {
		return true
	}
	n, v := p.next, Vouch{}
	v, err := w.Vouch(ctx, p.shown.Leaf, n.cert.Leaf)
	say := func(what string, more ...any) bool {
		if told := fmt.Sprint(what, v.Why); n.told != told {
			n.told = told
			w.Log.Warn("a new certificate waits: "+what, append([]any{"file", p.file.CertificateFile}, more...)...)
		}
		return false
	}
	switch {
	case err != nil && ctx.Err() == nil:
		return say("the records cannot be looked up now", "error", err)
	case err != nil:
		return false
	case !v.OK:
		n.known = time.Time{}
		return say(`publish what "gateway keys tls" prints`, "domains", v.Why)
	}
	if n.known.IsZero() {
		n.known = w.Now()
	}
	if left := n.known.Add(v.Wait).Sub(w.Now()); left > 0 {
		return say("others may still have the record from before", "for", left.Round(time.Minute))
	}
	return true
}

// maxFile bounds a file of certificates or keys, in octets.
const maxFile = 1 << 20

// read returns the key and the chain of a pair, as PEM in one.
func read(f config.Certificate) ([]byte, error) {
	key, err := safefile.Read(f.KeyFile, maxFile)
	if err != nil {
		return nil, err
	}
	chain, err := safefile.Read(f.CertificateFile, maxFile)
	return slices.Concat(key, []byte("\n"), chain), err
}

// keep writes what is shown of a pair, unless it is there already.
func (w *Watcher) keep(f config.Certificate, text []byte, shown tls.Certificate) error {
	if w.Kept == "" {
		return nil
	}
	if kept, err := readKept(w.Kept, f); err == nil && bytes.Equal(kept.Certificate[0], shown.Certificate[0]) {
		return nil
	}
	if err := os.MkdirAll(w.Kept, 0o700); err != nil {
		return err
	}
	return safefile.Write(keptFile(w.Kept, f), text)
}

// Folder is where a gateway keeps what its DMTP listeners show.
func Folder(c *config.Config) string { return filepath.Join(c.DataFolder, "tls") }

// keptFile is where a folder has what is shown of a pair.
func keptFile(folder string, f config.Certificate) string {
	d := sha256.Sum256([]byte(f.CertificateFile))
	return filepath.Join(folder, "shown-"+hex.EncodeToString(d[:8])+".pem")
}

func readKept(folder string, f config.Certificate) (tls.Certificate, error) {
	if folder == "" {
		return tls.Certificate{}, fs.ErrNotExist
	}
	text, err := safefile.ReadSecret(keptFile(folder, f), 2*maxFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(text, text)
}

// Shown returns the leaf that a gateway with this folder shows for a pair, in DER; nil when nothing is kept of it.
func Shown(folder string, f config.Certificate) []byte {
	text, err := safefile.ReadSecret(keptFile(folder, f), 2*maxFile)
	if err != nil {
		return nil
	}
	if leaf := leafOf(text); leaf != nil {
		return leaf.Raw
	}
	return nil
}

// leafOf is the first certificate in PEM, nil where there is none.
func leafOf(text []byte) *x509.Certificate {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			return c
		}
	}
	return nil
}

// InUse returns the leaf of each certificate that a configuration names, by its file: what a gateway shows if it can be read, else what the
// file holds. What cannot be read is left out.
func InUse(c *config.Config) map[string]*x509.Certificate {
	all := map[string]*x509.Certificate{}
	for _, f := range append(slices.Clone(c.DMTP.Certificates), config.Certificate{CertificateFile: c.Submission.CertificateFile}) {
		text, err := safefile.ReadSecret(keptFile(Folder(c), f), 2*maxFile)
		if err != nil {
			text, err = safefile.Read(f.CertificateFile, maxFile)
		}
		if leaf := leafOf(text); err == nil && leaf != nil {
			all[f.CertificateFile] = leaf
		}
	}
	return all
}
