package dmtpserver

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"dimegate/dmtp"
	"dimegate/dmtp/signet"
)

// forms are all that a fingerprint may be of.
var forms = [...]signet.Form{signet.ID, signet.Full, signet.Crypto}

// lookup answers SGNT, VRFY or HIST within the limits. The asker of an unknown name waits, and is soon refused: addresses
// must not be had by trying.
func (ss *session) lookup(ctx context.Context, ask func() (dmtp.Reply, error)) error {
	if ss.lookups++; ss.lookups > ss.s.c.Limits.Lookups {
		return ss.answer(ctx, dmtp.ReplyEnough)
	}
	if !ss.v.mayLookUp() {
		return ss.answer(ctx, dmtp.ReplyDenied)
	}
	began := time.Now()
	reply, err := ask()
	switch {
	case errors.Is(err, ErrNotFound):
		ss.v.missed()
		if d := ss.s.c.Limits.MissDelay; d > 0 { // a multiple of it, so that how long the search took is not seen
			pause(ctx, d-time.Since(began)%d)
		}
		reply = dmtp.ReplyNoSignet
	case err != nil:
		ss.s.c.Log.LogAttrs(ctx, slog.LevelWarn, "dmtp look-up", slog.Any("error", err))
		reply = dmtp.ReplySignetDoubtful
	}
	return ss.answer(ctx, reply)
}

// kind picks the reply code for a domain or an address.
func kind(name string, domain, address int) int {
	if dmtp.IsAddress(name) {
		return address
	}
	return domain
}

// sgnt shows the current signet, or the one with the fingerprint, cut to the form that it names. A placeholder is no
// fingerprint.
func (ss *session) sgnt(ctx context.Context, c dmtp.Sgnt) (dmtp.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, ss.s.c.Timeouts.Lookup)
	defer cancel()
	var found *signet.Signet
	if !c.Signet.WellFormed() {
		current, err := ss.s.c.Directory.Current(ctx, c.Name)
		if err != nil {
			return dmtp.Reply{}, err
		}
		found = current
	} else {
		chain, err := ss.s.c.Directory.Chain(ctx, c.Name)
		if err != nil {
			return dmtp.Reply{}, err
		}
		i, form := find(chain, c.Signet)
		if i < 0 {
			return dmtp.Reply{}, ErrNotFound
		}
		if found, err = chain[i].Cut(form); err != nil {
			return dmtp.Reply{}, err
		}
		ss.v.knew()
	}
	return ss.warn(ctx, c.Name, dmtp.Reply{Code: kind(c.Name, 270, 280), Text: "OK [" + found.Base64() + "]"}), nil
}

// find looks for a fingerprint among signets: the newest that has it, and the form whose fingerprint it is; -1 for none.
func find(chain []*signet.Signet, t dmtp.Token) (int, signet.Form) {
	want, ok := t.Octets()
	if !ok {
		return -1, 0
	}
	for i := len(chain) - 1; i >= 0; i-- {
		for _, f := range forms {
			if fp, err := chain[i].Fingerprint(f); err == nil && fp == want {
				return i, f
			}
		}
	}
	return -1, 0
}

// vrfy tells whether a fingerprint, of any form, is that of the current signet.
func (ss *session) vrfy(ctx context.Context, c dmtp.Vrfy) (dmtp.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, ss.s.c.Timeouts.Lookup)
	defer cancel()
	chain, err := ss.s.c.Directory.Chain(ctx, c.Name)
	if err != nil {
		return dmtp.Reply{}, err
	}
	i, _ := find(chain, c.Signet)
	if i < 0 {
		return dmtp.Reply{}, ErrNotFound
	}
	if i == len(chain)-1 {
		return dmtp.Reply{Code: kind(c.Name, 271, 281), Text: "CURRENT"}, nil
	}
	fp, err := chain[len(chain)-1].Fingerprint(signet.ID)
	if err != nil {
		return dmtp.Reply{}, err
	}
	return dmtp.Reply{Code: 250, Text: "UPDATE [" + fp.String() + "]"}, nil
}

// hist shows the chain from one signet to another, both included, at most 64 of them: the client asks again from the last.
func (ss *session) hist(ctx context.Context, c dmtp.Hist) (dmtp.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, ss.s.c.Timeouts.Lookup)
	defer cancel()
	chain, err := ss.s.c.Directory.Chain(ctx, c.Name)
	if err != nil {
		return dmtp.Reply{}, err
	}
	from, to := 0, len(chain)-1
	if c.Start != "" {
		from, _ = find(chain, c.Start)
	}
	if c.Stop != "" {
		to, _ = find(chain, c.Stop)
	}
	if from < 0 || to < from {
		return dmtp.Reply{}, ErrNotFound
	}
	chain = chain[from : to+1]
	var text strings.Builder
	for _, s := range chain[:min(len(chain), dmtp.MaxHistory)] {
		text.WriteString("[" + s.Base64() + "]\n")
	}
	return ss.warn(ctx, c.Name, dmtp.Reply{Code: 290, Text: text.String() + "OK"}), nil
}

// warn logs a signet that libdime cannot fetch, because its line is too long.
func (ss *session) warn(ctx context.Context, name string, r dmtp.Reply) dmtp.Reply {
	for line := range strings.SplitSeq(r.Text, "\n") {
		if n := len("250 ") + len(line) + len("\r\n"); n > dmtp.MaxReplySent {
			ss.s.c.Log.LogAttrs(ctx, slog.LevelWarn, "signet is too large for libdime", slog.String("domain", dmtp.DomainOf(name)), slog.Int("line", n), slog.Int("limit", dmtp.MaxReplySent))
			break
		}
	}
	return r
}
