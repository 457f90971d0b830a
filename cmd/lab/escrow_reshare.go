package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cloudflare/circl/group"
)

// reshare lets the last officer go and another come, by the lowest quorum's deals; the new ones open the custodian's mail, and every
// mixture of old and new shares is tried.
func (l *escrowLab) reshare(ctx context.Context) error {
	q, last := l.report.Quorum, l.officers[l.report.Officers-1]
	if err := l.hire(ctx, "newcomer"); err != nil {
		return err
	}
	if err := l.deal(ctx, l.officers[:q], last); err != nil {
		return err
	}
	members := append(append([]string{}, l.officers[:l.report.Officers-1]...), "newcomer")
	for _, o := range members {
		args := []string{"officer", "reshare", "accept", "--dir", o, "--passphrase-file", "pass", "--yes", "--deals", "deals", "--out", "new", "plan"}
		if o == "newcomer" {
			args = append(args, append([]string{"--key-record", "keys/discovery/key.dek1", "--epoch", "keys/discovery/epoch-1.dee1"}, l.log...)...)
		}
		if _, err := l.command(ctx, args...); err != nil {
			return err
		}
	}
	attestations, err := filepath.Glob(l.path("new", "attest-2-*.deg1"))
	if err != nil {
		return err
	}
	for _, name := range attestations { // where the gateway looks for them
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(l.path(filepath.Base(name)), b, 0o600); err != nil {
			return err
		}
	}
	if l.fresh, err = l.shares(2, members); err != nil {
		return err
	}
	l.mix()
	if err := l.openByNew(ctx, members[len(members)-q:]); err != nil {
		return err
	}
	return l.erase(ctx, attestations)
}

func (l *escrowLab) deal(ctx context.Context, dealers []string, leaves string) error {
	var names []string
	for _, o := range dealers {
		names = append(names, o+"@example.org")
	}
	if _, err := l.command(ctx, "officer", "reshare", "plan", "--dir", dealers[0], "--remove", leaves+"@example.org", "--add", "newcomer/officer.pub",
		"--dealers", strings.Join(names, ","), "--out", "plan"); err != nil {
		return err
	}
	for _, o := range dealers {
		if _, err := l.command(ctx, "officer", "reshare", "deal", "--dir", o, "--passphrase-file", "pass", "--yes", "--out", "deals", "plan"); err != nil {
			return err
		}
	}
	return nil
}

// mix tries every set of the quorum's size that holds old and new shares.
func (l *escrowLab) mix() {
	type tagged struct {
		labShare
		old bool
	}
	var all []tagged
	for _, s := range l.old {
		all = append(all, tagged{s, true})
	}
	for _, s := range l.fresh {
		all = append(all, tagged{s, false})
	}
	var try func(from int, set []tagged)
	try = func(from int, set []tagged) {
		if len(set) < l.report.Quorum {
			for i := from; i < len(all); i++ {
				try(i+1, append(set, all[i]))
			}
			return
		}
		var list []labShare
		olds, seen := 0, map[uint16]bool{}
		for _, s := range set {
			if seen[s.index] {
				return // one officer's old and new share: no set at all
			}
			seen[s.index] = true
			if s.old {
				olds++
			}
			list = append(list, s.labShare)
		}
		if olds == 0 || olds == len(set) {
			return
		}
		l.report.MixedSets++
		h, err := group.Ristretto255.NewElement().MulGen(combineShares(list)).MarshalBinaryCompress()
		if err != nil || bytes.Equal(h, l.h) {
			l.report.OpenedByMixed++
		}
	}
	try(0, nil)
}

// openByNew opens a case over all of the custodian's mail, sealed before and after the change.
func (l *escrowLab) openByNew(ctx context.Context, quorum []string) error {
	if err := l.noteKnown(); err != nil {
		return err
	}
	const more = 20
	p, err := l.start(ctx, "gateway", l.dir, "2", fmt.Sprint(more), fmt.Sprint(more))
	if err != nil {
		return err
	}
	var done struct{ SealMS float64 }
	if err := p.answer(&done); err != nil {
		return err
	}
	if err := p.finish(); err != nil {
		return err
	}
	var names []string
	for i, o := range quorum {
		name := fmt.Sprintf("after-%d", i+1)
		if err := l.approveSeen(ctx, o, "after.deb1", name); err != nil {
			return err
		}
		names = append(names, name)
	}
	if p, err = l.start(ctx, "station", l.dir, "2", "after.json", strings.Join(names, ",")); err != nil {
		return err
	}
	var got []stationResult
	if err := p.answer(&got); err != nil {
		return err
	}
	if err := p.finish(); err != nil {
		return err
	}
	l.report.Reshared, l.report.OpenedByNew, l.report.WantedByNew = true, got[0].Opened, l.report.Case+more
	return nil
}

// noteKnown tells the gateway which checkpoints the officers saw last: their statements say it to a real one.
func (l *escrowLab) noteKnown() error {
	var sizes []string
	for _, o := range l.officers {
		b, err := os.ReadFile(l.path(o, "state.json"))
		if err != nil {
			return err
		}
		var s struct{ Logs []struct{ Size int64 } }
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		for _, log := range s.Logs {
			sizes = append(sizes, fmt.Sprint(log.Size))
		}
	}
	return os.WriteFile(l.path("known"), []byte(strings.Join(sizes, "\n")), 0o600)
}

// erase has every old officer destroy his old share.
func (l *escrowLab) erase(ctx context.Context, attestations []string) error {
	for i, o := range l.officers[:l.report.Officers] {
		args := []string{"officer", "reshare", "erase", "--dir", o, "--passphrase-file", "pass", "--yes", "--epoch", "new/epoch-2.dee1", "--out", fmt.Sprintf("erased-%d", i)}
		if _, err := l.command(ctx, append(args, attestations...)...); err != nil {
			return err
		}
	}
	left, err := l.shares(1, l.officers)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d old shares are still there", len(left))
	}
	return err
}
