package audit

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"dimegate/vault"
)

// A RemoteWitness is a witness elsewhere, as a log knows it. It belongs to one goroutine at a time.
type RemoteWitness struct {
	Verifier note.Verifier
	// Add carries a request to the witness: see WitnessRequest. Its time is bounded by ctx.
	Add func(ctx context.Context, request []byte) (Answer, error)

	seen    int64 // the size that it has seen, as far as is known
	trouble string
	told    time.Time
}

// witnessTime bounds what one witness may take.
const witnessTime = 5 * time.Second

// Cosign has a witness cosign the last checkpoint, unless it has, and keeps what it signs. A *Fault: the log is not one that
// grew from what the witness saw.
func (l *Log) Cosign(ctx context.Context, w *RemoteWitness) error {
	ctx, cancel := context.WithTimeout(ctx, witnessTime)
	defer cancel()
	c, err := l.src.LastCheckpoint(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(Cosigned(c.Note, []note.Verifier{w.Verifier}), w.Verifier.Name()) {
		return nil
	}
	a, err := l.submit(ctx, w, c)
	if err == nil && a.Status == 409 && a.Size {
		size, serr := strconv.ParseInt(strings.TrimSuffix(a.Body, "\n"), 10, 64)
		switch {
		case serr != nil || size < 0:
			return fmt.Errorf("audit: witness %s: no size in its answer", w.Verifier.Name())
		case size > c.Size:
			return &Fault{Leaf: c.Size, Reason: fmt.Sprintf("the witness %s has seen %d leaves, the log has %d", w.Verifier.Name(), size, c.Size)}
		}
		w.seen = size
		a, err = l.submit(ctx, w, c)
	}
	if err != nil {
		return fmt.Errorf("audit: witness %s: %w", w.Verifier.Name(), err)
	}
	return l.accept(ctx, w, c, a)
}

func (l *Log) submit(ctx context.Context, w *RemoteWitness, c vault.Checkpoint) (Answer, error) {
	var proof tlog.TreeProof
	if w.seen > 0 && w.seen < c.Size {
		var err error
		if proof, err = ProveGrowth(ctx, l.src, w.seen, c.Size); err != nil {
			return Answer{}, err
		}
	}
	return w.Add(ctx, WitnessRequest(min(w.seen, c.Size), proof, c.Note))
}

// accept keeps a cosignature, if it is one.
func (l *Log) accept(ctx context.Context, w *RemoteWitness, c vault.Checkpoint, a Answer) error {
	switch {
	case a.Status == 409 || a.Status == 422:
		return &Fault{Leaf: -1, Reason: fmt.Sprintf("the witness %s saw another log than this one", w.Verifier.Name())}
	case a.Status != 200:
		return fmt.Errorf("audit: witness %s: status %d", w.Verifier.Name(), a.Status)
	case len(c.Note)+len(a.Body) > maxNote:
		return fmt.Errorf("audit: witness %s: its answer is too large", w.Verifier.Name())
	}
	n, err := note.Open(append(slices.Clone(c.Note), a.Body...), note.VerifierList(w.Verifier))
	if err != nil {
		return fmt.Errorf("audit: witness %s: its answer is no cosignature of this checkpoint by its key", w.Verifier.Name())
	}
	// Of its answer the one line that was verified is kept: what else is in it is nobody's word.
	if err := l.src.CosignCheckpoint(ctx, c.Size, []byte("— "+n.Sigs[0].Name+" "+n.Sigs[0].Base64+"\n")); err != nil {
		return err
	}
	w.seen = c.Size
	return nil
}

// tellAgain is how often a trouble that lasts is told.
const tellAgain = 10 * time.Minute

// report tells of trouble when it begins and while it lasts, and of its end.
func (w *RemoteWitness) report(ctx context.Context, log *slog.Logger, err error, now time.Time) {
	name := slog.String("witness", w.Verifier.Name())
	switch {
	case err == nil && w.trouble != "":
		log.LogAttrs(ctx, slog.LevelInfo, "the witness cosigns again", name)
		w.trouble = ""
	case err != nil && ctx.Err() == nil && (err.Error() != w.trouble || now.Sub(w.told) >= tellAgain):
		log.LogAttrs(ctx, slog.LevelError, "the log is not cosigned: nobody but this host vouches for it", name, slog.Any("error", err))
		w.trouble, w.told = err.Error(), now
	}
}
