package appliance

import (
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/bridge"
	"dimegate/dmtp/resolver"
)

// A logbook keeps what a gateway logs.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) log() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// acquainted is alpha, which has written to alice at bravo and at charlie, and has keys of its own user bob. It is stopped.
func acquainted(t *testing.T) (w *world, alpha *site) {
	t.Helper()
	w = newWorld(t, "alpha.example", "bravo.example", "charlie.example")
	for _, s := range w.sites {
		s.make(nil, func(c *config.Config) { c.Queue.Schedule = []time.Duration{time.Second} })
		s.inner.only("alice@"+s.domain, "bob@"+s.domain)
		s.run(Options{})
	}
	alpha = w.sites[0]
	for _, s := range w.sites[1:] {
		check(t, alpha.write("alice@"+s.domain))
		until(t, func() bool { return len(s.inner.messages()) == 1 })
	}
	alpha.flushed()
	alpha.stop()
	return w, alpha
}

// flushed waits until nothing waits to leave: what has arrived may not have been answered.
func (s *site) flushed() {
	t := s.world.t
	t.Helper()
	until(t, func() bool {
		list, err := s.gateway.tenants[0].queue.List(t.Context(), "", "", 1)
		return err == nil && len(list) == 0
	})
}

// write composes a message from bob to someone, as the queue does, as far as its octets: what may leave is sealed then.
func (s *site) write(to string) error {
	c := call(s.world.t, s.gateway.listeners.submission[0].Addr().String(), "")
	c.want("220")
	c.cmd("EHLO mail."+s.domain, "250")
	c.send("MAIL FROM:<bob@" + s.domain + ">\r\nRCPT TO:<" + to + ">\r\n")
	c.want("250", "250")
	c.cmd("DATA", "354")
	c.send("Subject: x\r\n\r\nhello\r\n.\r\n")
	c.want("250")
	return c.conn.Close()
}

// trust tells what alpha makes of alice at a domain now: the route, and whether a message can be sealed to her.
func (s *site) trust(t *testing.T, to string) (bridge.Route, error) {
	t.Helper()
	route, err := router{s.gateway.tenants[0].resolver, s.gateway.tenants[0].client, s.config.Policy}.Route(t.Context(), "bob@"+s.domain, to)
	if err != nil || route.Situation != bridge.Verified {
		return route, err
	}
	_, err = author{s.gateway.tenants[0].keeper, s.gateway.tenants[0].resolver}.Draft(t.Context(), "bob@alpha.example", route)
	return route, err
}

// sql runs a statement on the vault of a site that is stopped. It must change something.
func (s *site) sql(statement string, args ...any) {
	t := s.world.t
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.config.Vault.Folder, "vault.db"))
	check(t, err)
	defer db.Close()
	r, err := db.Exec(statement, args...)
	check(t, err)
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%s: %d rows, %v", statement, n, err)
	}
}

// octets reads one column of one row.
func (s *site) octets(query string) (b []byte) {
	t := s.world.t
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.config.Vault.Folder, "vault.db"))
	check(t, err)
	defer db.Close()
	check(t, db.QueryRow(query).Scan(&b))
	return b
}

// What is remembered of others is damaged, or put in another's place: nothing is sealed and nothing believed until an
// administrator has mended it, the reason is said, and the rest of the world is as it was.
func TestDamagedMemory(t *testing.T) {
	w, alpha := acquainted(t)
	note := func(domain string) string {
		return "SELECT sealed FROM notes WHERE kind = 'domain pin' AND name = '" + domain + "'"
	}
	setNote := "UPDATE notes SET sealed = ? WHERE kind = 'domain pin' AND name = 'bravo.example'"
	bravo, charlie := alpha.octets(note("bravo.example")), alpha.octets(note("charlie.example"))
	// Whose pin is whose is not to be seen: they were made in this order.
	pins := "SELECT pin FROM pins ORDER BY rowid LIMIT 1 OFFSET "
	first, second := alpha.octets(pins+"0"), alpha.octets(pins+"1")
	setPin := "UPDATE pins SET pin = ? WHERE rowid = (SELECT rowid FROM pins ORDER BY rowid LIMIT 1)"
	flipped := func(b []byte, at int) []byte {
		b = append([]byte(nil), b...)
		b[at] ^= 1
		return b
	}
	for name, tt := range map[string]struct {
		do, undo func()
		all      bool // charlie is concerned, too
	}{
		"note, first octet":      {func() { alpha.sql(setNote, flipped(bravo, 0)) }, func() { alpha.sql(setNote, bravo) }, false},
		"note, an octet":         {func() { alpha.sql(setNote, flipped(bravo, len(bravo)/2)) }, func() { alpha.sql(setNote, bravo) }, false},
		"note, last octet":       {func() { alpha.sql(setNote, flipped(bravo, len(bravo)-1)) }, func() { alpha.sql(setNote, bravo) }, false},
		"note, cut":              {func() { alpha.sql(setNote, bravo[:len(bravo)/2]) }, func() { alpha.sql(setNote, bravo) }, false},
		"note, empty":            {func() { alpha.sql(setNote, []byte{}) }, func() { alpha.sql(setNote, bravo) }, false},
		"note, another domain's": {func() { alpha.sql(setNote, charlie) }, func() { alpha.sql(setNote, bravo) }, false},
		"note, a word":           {func() { alpha.sql(setNote, `{"domain":"bravo.example"}`) }, func() { alpha.sql(setNote, bravo) }, false},
		"pin, an octet":          {func() { alpha.sql(setPin, flipped(first, len(first)/2)) }, func() { alpha.sql(setPin, first) }, false},
		"pin, cut":               {func() { alpha.sql(setPin, first[:len(first)/2]) }, func() { alpha.sql(setPin, first) }, false},
		"pin, empty":             {func() { alpha.sql(setPin, []byte{}) }, func() { alpha.sql(setPin, first) }, false},
		"pin, another's":         {func() { alpha.sql(setPin, second) }, func() { alpha.sql(setPin, first) }, false},
		"pin, another number":    {func() { alpha.sql("UPDATE pins SET number = 1") }, func() { alpha.sql("UPDATE pins SET number = 0") }, true},
		"key of notes, an octet": {damageKey(alpha, "notes", 1), damageKey(alpha, "notes", 1), true},
		"key of pins, an octet":  {damageKey(alpha, "pins", 1), damageKey(alpha, "pins", 1), true},
	} {
		t.Run(name, func(t *testing.T) {
			log := &logbook{}
			tt.do()
			alpha.run(Options{Log: log.log()})
			defer func() { alpha.stop() }() // the one that runs then
			before := len(w.sites[1].inner.messages())
			route, err := alpha.trust(t, "alice@bravo.example")
			if err == nil && (route.Situation == bridge.Verified || route.Situation == bridge.NoRecord || route.Situation == bridge.NoSignet) {
				t.Errorf("believed: %v, %s", route.Situation, route.Why)
			}
			if said := errors.Join(err, errors.New(route.Why)).Error(); !strings.Contains(said, "vault: ") {
				t.Errorf("said: %s", said)
			}
			if _, err := alpha.trust(t, "alice@charlie.example"); (err != nil) != tt.all && !strings.HasPrefix(name, "note, ") == tt.all {
				t.Errorf("charlie: %v", err)
			}
			check(t, alpha.write("alice@bravo.example"))
			until(t, func() bool { return strings.Contains(log.String(), "vault: ") })
			alpha.stop()
			if n := len(w.sites[1].inner.messages()); n != before {
				t.Errorf("%d messages arrived", n-before)
			}
			tt.undo()
			alpha.run(Options{Log: log.log()})
			if route, err := alpha.trust(t, "alice@bravo.example"); err != nil || route.Situation != bridge.Verified {
				t.Errorf("mended: %v, %s, %v", route.Situation, route.Why, err)
			}
			until(t, func() bool { return len(w.sites[1].inner.messages()) == before+1 }) // what waited goes
			alpha.flushed()
		})
	}
}

// damageKey changes one octet of a key of the vault's own, and back.
func damageKey(s *site, name string, at int) func() {
	return func() {
		b := s.octets("SELECT wrap FROM named_keys WHERE name = '" + name + "'")
		b[len(b)-at] ^= 1
		s.sql("UPDATE named_keys SET wrap = ? WHERE name = ?", b, name)
	}
}

// The clock jumps by a year while the gateway runs, either way: nothing is believed on the word of what is out of date, and
// when the clock is right again all is well.
func TestClockJumps(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, jump := range map[string]time.Duration{"forwards": year, "backwards": -year} {
		t.Run(name, func(t *testing.T) {
			_, alpha := acquainted(t)
			var mu sync.Mutex
			var offset time.Duration
			set := func(d time.Duration) { mu.Lock(); offset = d; mu.Unlock() }
			log := &logbook{}
			alpha.run(Options{Log: log.log(), Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(offset) }})
			want := func(s bridge.Situation) {
				t.Helper()
				for _, d := range []string{"bravo.example", "charlie.example", "unknown.bravo.example"} {
					if d == "unknown.bravo.example" && s == bridge.Verified {
						continue
					}
					route, err := alpha.trust(t, "alice@"+d)
					if err != nil || route.Situation != s {
						t.Errorf("%s: %v, %s, %v", d, route.Situation, route.Why, err)
					}
				}
			}
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(log.String())
				}
			})
			want(bridge.Verified) // and in the cache
			set(jump)
			want(bridge.Doubtful)
			s, _, err := alpha.gateway.tenants[0].resolver.OrgByFingerprint(t.Context(), "bravo.example", [64]byte{1})
			if err == nil || errors.Is(err, resolver.ErrNotDIME) {
				t.Errorf("as an origin: %v, %v", s, err)
			}
			// Our own signets are served as ever: they have no time.
			c := asker(t, alpha, "127.0.4.1")
			c.cmd("SGNT <alpha.example>", "270 OK [")
			set(0)
			want(bridge.Verified)
		})
	}
}
