package officer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"dimegate/vault/escrow"
)

// A Continuation is a log that goes on under another name, because its vault was restored from a backup: what stood behind the backup's
// end is lost, and what officers saw of it is not to be proved any more.
type Continuation struct {
	Old  string // verifier key of the log so far
	Size int64  // of it, as this officer saw it last
	Keys []string
}

// Continues says which log of this officer's t continues: one of the same archive, restored fewer times. It changes nothing.
func (d *Desk) Continues(t escrow.Trust) (Continuation, error) {
	if err := t.Check(); err != nil {
		return Continuation{}, err
	}
	archive, times, ok := origin(t.Log)
	if !ok {
		return Continuation{}, errors.New("this is no key of a gateway's log")
	}
	var c Continuation
	for _, k := range d.state.Keys {
		a, n, ok := origin(k.Log)
		if !ok || a != archive || n >= times {
			continue
		}
		c.Old, c.Keys = k.Log, append(c.Keys, k.key.Organisation+", "+k.key.Purpose.String())
		if l := d.log(k.Log); l != nil {
			c.Size = max(c.Size, l.Size)
		}
	}
	if len(c.Keys) == 0 {
		return c, fmt.Errorf("no log that is known here goes on as %s: it must be of the same archive, with a greater number", t.Log)
	}
	return c, nil
}

// Follow believes, of the keys whose log t continues, that log from now on. What was seen of the old one stays in the folder.
func (d *Desk) Follow(t escrow.Trust) error {
	if _, err := d.Continues(t); err != nil {
		return err
	}
	if err := d.trustLog(t); err != nil {
		return err
	}
	archive, times, _ := origin(t.Log)
	for _, k := range d.state.Keys {
		if a, n, ok := origin(k.Log); ok && a == archive && n < times {
			k.Log = t.Log
		}
	}
	return d.save()
}

// origin is the archive of a log's key, and how often that was restored: "dimegate/ARCHIVE" or "dimegate/ARCHIVE/TIMES", before a plus.
func origin(verifier string) (archive string, times int, ok bool) {
	name, _, _ := strings.Cut(verifier, "+")
	rest, ok := strings.CutPrefix(name, "dimegate/")
	archive, number, more := strings.Cut(rest, "/")
	if !ok || archive == "" || !more {
		return archive, 0, ok && archive != ""
	}
	times, err := strconv.Atoi(number)
	return archive, times, err == nil && times > 0 && strconv.Itoa(times) == number
}
