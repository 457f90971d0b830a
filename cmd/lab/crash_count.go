package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"dimegate/internal/killpoint"
	"dimegate/internal/testpeer"
)

// A found is where one message was found.
type found struct {
	taken   int      // times that the gateway said 250, by the sending server's log
	cut     int      // times that the 250 did not come, and the message may be sent more than once, by the same
	early   []copied // in the receiving mailbox when the sum is taken
	all     []copied // and when what waited was let go
	notices []string // the entries that the notices to its sender name
}

// A copied is a copy in a mailbox, by the numbers that both gateways gave it.
type copied struct{ origin, destination string }

// count takes the sum, and then lets go what waits and finds it, too.
func (c *crashRun) count(ctx context.Context) (*crashReport, error) {
	waiting, err := c.leaveSomeWaiting(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]found, c.fed)
	if err := c.readMailboxes(ctx, c.Bravo, func(m []byte) error { return noteCopy(all, m, false) }); err != nil {
		return nil, err
	}
	if err := c.letGo(ctx); err != nil {
		return nil, err
	}
	if err := c.readMailboxes(ctx, c.Bravo, func(m []byte) error { return noteCopy(all, m, true) }); err != nil {
		return nil, err
	}
	if err := c.readMailboxes(ctx, c.Alpha, func(m []byte) error { return noteNotice(all, m) }); err != nil {
		return nil, err
	}
	if err := c.readLog(all); err != nil {
		return nil, err
	}
	r := &crashReport{Kills: c.done, KillsElsewhere: c.elsewhere}
	r.sum(all, waiting)
	if err := c.copies(r, all); err != nil {
		return nil, err
	}
	c.strikes(r)
	return r, c.audits(ctx, r)
}

// leaveSomeWaiting sends the last messages while the destination is down, has some of them held, and ends the origin once
// more over them. It returns what waits then.
func (c *crashRun) leaveSomeWaiting(ctx context.Context) ([]queued, error) {
	if err := c.bravo.Stop(); err != nil {
		return nil, err
	}
	held, err := c.alpha.queue(ctx)
	if err != nil {
		return nil, err
	}
	c.plain = true
	if err := c.feed(ctx, lateMessages); err != nil {
		return nil, err
	}
	if err := c.drain(ctx, "held", "waiting"); err != nil {
		return nil, err
	}
	if err := c.alpha.Stop(); err != nil {
		return nil, err
	}
	list, err := c.alpha.queue(ctx)
	if err != nil {
		return nil, err
	}
	args := []string{"queue", "hold", "--config", c.alpha.Config}
	for _, q := range list {
		if q.State == "waiting" && len(args) < 4+lateMessages/2 {
			args = append(args, q.ID)
		}
	}
	if _, err := c.alpha.Command(ctx, args...); err != nil {
		return nil, err
	}
	if err := c.alpha.Run(ctx); err != nil {
		return nil, err
	}
	c.alpha.Kill()
	if err := c.alpha.Run(ctx); err != nil {
		return nil, err
	}
	// What the policy holds is decided about anew now.
	err = testpeer.Until(ctx, func() bool {
		list, err = c.alpha.queue(ctx)
		n := 0
		for _, q := range list {
			if q.State == "held" {
				n++
			}
		}
		return err != nil || n == len(held)+len(args)-4
	})
	return list, err
}

// letGo starts the destination, and has the origin deliver what it holds.
func (c *crashRun) letGo(ctx context.Context) error {
	if err := errors.Join(c.bravo.Run(ctx), c.alpha.Stop(), c.holding(false), c.alpha.Run(ctx)); err != nil {
		return err
	}
	if err := c.drain(ctx, "held"); err != nil {
		return err
	}
	list, err := c.alpha.queue(ctx)
	if err != nil {
		return err
	}
	for _, q := range list {
		if _, err := c.alpha.Command(ctx, "queue", "release", "--config", c.alpha.Config, q.ID); err != nil {
			return err
		}
	}
	return c.drain(ctx)
}

// readMailboxes reads what an organisation's users have.
func (c *crashRun) readMailboxes(ctx context.Context, o *Org, read func([]byte) error) error {
	users := []string{"carol@" + o.Domain}
	for i := range mailboxes {
		users = append(users, fmt.Sprintf("m%d@%s", i, o.Domain))
	}
	for _, u := range users {
		if o.Store.Count(u) == 0 {
			continue
		}
		list, err := o.Store.Inbox(ctx, u)
		if err != nil {
			return err
		}
		for _, m := range list {
			if err := read(m); err != nil {
				return fmt.Errorf("in the mailbox of %s: %w", u, err)
			}
		}
	}
	return nil
}

// labNumber is the number of a message in its Message-ID.
var labNumber = regexp.MustCompile(`(?m)^Message-I[Dd]: <lab-(\d+)@alpha\.test>\r?$`)

// which is the message that octets speak of.
func which(all []found, m []byte) (*found, error) {
	match := labNumber.FindSubmatch(m)
	if match == nil {
		return nil, errors.New("something that nobody sent")
	}
	n, err := strconv.Atoi(string(match[1]))
	if err != nil || n >= len(all) {
		return nil, fmt.Errorf("a message %s that nobody sent", match[1])
	}
	return &all[n], nil
}

func noteCopy(all []found, m []byte, late bool) error {
	f, err := which(all, m)
	if err != nil {
		return err
	}
	top, _ := split(m)
	d := copied{number(top, "dx.alpha.test"), number(top, "dx.bravo.test")}
	if d.origin == "" || d.destination == "" {
		return fmt.Errorf("a message without our numbers: %q", top)
	}
	if late {
		f.all = append(f.all, d)
	} else {
		f.early = append(f.early, d)
	}
	return nil
}

// noticeEntry is the entry that a notice names in its text for people, where lines are folded.
var noticeEntry = regexp.MustCompile(`Number of this entry in the queue of dx\.alpha\.test:\s+([0-9a-z]+)`)

func noteNotice(all []found, m []byte) error {
	f, err := which(all, m)
	if err != nil {
		return err
	}
	entry := noticeEntry.FindSubmatch(m)
	if entry == nil || !strings.Contains(string(m), "\r\nAction: failed\r\n") {
		return fmt.Errorf("no notice of ours: %.2000q", m)
	}
	f.notices = append(f.notices, string(entry[1]))
	return nil
}

// Lines of Postfix's log: which message has which number there, and what became of a try to give it to the gateway.
var (
	postfixID   = regexp.MustCompile(`/cleanup\[\d+\]: (\w+): message-id=<lab-(\d+)@alpha\.test>$`)
	postfixSent = regexp.MustCompile(`/smtp\[\d+\]: (\w+): to=<[^>]*>, relay=[^,]*:2525, .* status=(\w+) \((.*)\)$`)
)

// readLog reads in the sending server's log what the gateway took.
func (c *crashRun) readLog(all []found) error {
	byID := map[string]*found{}
	return eachLine(c.Alpha.Postfix.LogFile(), func(line string) {
		if m := postfixID.FindStringSubmatch(line); m != nil {
			if n, err := strconv.Atoi(m[2]); err == nil && n < len(all) && byID[m[1]] == nil {
				byID[m[1]] = &all[n]
			}
		}
		m := postfixSent.FindStringSubmatch(line)
		if m == nil || byID[m[1]] == nil {
			return
		}
		switch f := byID[m[1]]; {
		case m[2] == "sent":
			f.taken++
		case strings.Contains(m[3], "may be sent more than once"):
			f.cut++
		}
	})
}

// sum puts every message that was taken into its class.
func (r *crashReport) sum(all []found, waiting []queued) {
	bad := func(format string, args ...any) { r.Why = append(r.Why, fmt.Sprintf(format, args...)) }
	later, copies := 0, 0
	for n, f := range all {
		copies += len(f.all) - len(f.early)
		switch ends := len(f.all) > 0; {
		case f.taken == 0:
			bad("message %d: the sending server's log does not say that it was taken", n)
		case f.taken > 1:
			bad("message %d: the sending server gave it away %d times", n, f.taken)
		case ends && len(f.notices) > 0:
			bad("message %d was delivered, and its sender told that it was not", n)
		case len(f.early) > 0:
			r.Delivered++
		case ends:
			later++
		case len(f.notices) > 0:
			r.Bounced++
		default:
			r.Lost++
			bad("message %d is lost", n)
		}
		r.Accepted += min(f.taken, 1)
	}
	for _, q := range waiting {
		if q.State == "waiting" {
			r.Queued++ // each another message: they were sent when nothing was struck any more
		}
	}
	r.Held = later - r.Queued
	if copies != len(waiting) {
		bad("%d entries waited, and %d copies came of them", len(waiting), copies)
	}
}

// possibleDuplicate is what the destination logs of a hand-over that may be a second one.
const possibleDuplicate = "possible duplicate"

// copies counts what came more than once, and whether something excuses it.
func (c *crashRun) copies(r *crashReport, all []found) error {
	flights, err := c.unended(c.bravo, killpoint.IntentAfter, killpoint.SettledAfter)
	if err != nil {
		return err
	}
	entries, err := c.unended(c.alpha, killpoint.ClaimAfter, killpoint.OutcomeAfter)
	if err != nil {
		return err
	}
	for n, f := range all {
		by := map[string][]string{} // flights by the number of the first gateway
		for _, d := range f.all {
			by[d.origin] = append(by[d.origin], d.destination)
		}
		told := map[string]int{} // notices by entry
		for _, e := range f.notices {
			told[e]++
		}
		var strange int
		if again := max(len(by)+len(told)-1, 0); again > f.cut {
			strange += again
		} else {
			r.CutDuplicates += again
		}
		for _, list := range by {
			ended := 0 // flights that nothing interrupted
			for i, d := range list {
				if flights[d] == 0 || slices.Index(list, d) != i {
					ended++
				}
			}
			strange += max(ended-1, 0)
			r.WindowDuplicates += len(list) - max(ended, 1)
		}
		for e, times := range told {
			excused := min(times-1, entries[e])
			r.NoticeDuplicates += excused
			strange += times - 1 - excused
		}
		if strange > 0 {
			r.Why = append(r.Why, fmt.Sprintf("message %d: %d copies that nothing excuses: copies %v, notices %v, 250 cut %d times", n, strange, by, f.notices, f.cut))
		}
		r.Duplicates += strange
	}
	return eachLine(c.bravo.LogFile(), func(line string) {
		if strings.Contains(line, possibleDuplicate) {
			r.PossibleCounted++
		}
	})
}

// unended is what processes of a gateway that were killed had begun and not ended, by the trace that each of them wrote:
// how many processes by the number of the thing.
func (c *crashRun) unended(g *Gateway, begin, end killpoint.Point) (map[string]int, error) {
	open := map[string]map[string]bool{} // by process
	all := map[string]int{}
	err := eachLine(c.traceFile(g), func(line string) {
		words := strings.Fields(line)
		if len(words) < 3 {
			return
		}
		pid, point, id := words[0], killpoint.Point(words[1]), words[2]
		if open[pid] == nil {
			open[pid] = map[string]bool{}
		}
		switch point {
		case begin:
			open[pid][id] = true
		case end:
			delete(open[pid], id)
		}
		if len(words) == 4 {
			for id := range open[pid] {
				all[id]++
			}
			delete(open, pid) // another process may get its number
		}
	})
	return all, err
}

// strikes is how often each point was struck.
func (c *crashRun) strikes(r *crashReport) {
	r.KillsMinPerPoint = math.MaxInt
	for _, s := range c.targets() {
		for _, p := range s.points {
			n := c.kills[s.g][p]
			r.Points = append(r.Points, crashPoint{s.name, p, n})
			r.KillsMinPerPoint = min(r.KillsMinPerPoint, n)
		}
	}
}

// audits asks both gateways for the proof of their logs, and looks for files that nobody needs any more.
func (c *crashRun) audits(ctx context.Context, r *crashReport) error {
	for g, a := range map[*Gateway]*crashAudit{c.alpha: &r.Origin, c.bravo: &r.Destination} {
		_, err := g.Command(ctx, "audit", "verify", "--config", g.Config)
		if a.Verified = err == nil; err != nil {
			r.Why = append(r.Why, err.Error())
		}
		out, err := g.Command(ctx, "audit", "reconcile", "--json", "--config", g.Config)
		var found struct {
			OK      bool `json:"ok"`
			Missing int  `json:"missing_count"`
			Dropped int  `json:"dropped"`
		}
		if jerr := json.Unmarshal([]byte(out), &found); jerr != nil {
			return errors.Join(jerr, err)
		}
		if a.Missing = found.Missing; !found.OK {
			r.Why = append(r.Why, "gateway audit reconcile: "+out)
		}
		r.Dropped += found.Dropped
		// A file goes after the commit that its row went with: in a moment at the latest.
		for range 50 {
			files, err := os.ReadDir(filepath.Join(g.Data, "vault", "bodies"))
			if err != nil {
				return err
			}
			if a.FilesLeft = len(files); a.FilesLeft == 0 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}
