package appliance

import (
	"database/sql"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dimegate/appliance/config"
)

// TestLogGoneOrStuck: while the log cannot be written no mail is taken, in either direction, no key is made, and the gateway is
// not ready; nobody waits for it. When it can be again, all goes on without a restart.
func TestLogGoneOrStuck(t *testing.T) {
	w := newWorld(t, "alpha.example", "bravo.example")
	for _, s := range w.sites {
		s.make(nil, func(c *config.Config) { c.Health.Listen = "127.0.0.1:0" })
		s.run(Options{})
	}
	alpha := w.sites[0]
	alpha.inner.only("bob@alpha.example", "new-gone@alpha.example", "new-stuck@alpha.example")
	db := filepath.Join(alpha.config.Vault.Folder, "vault.db")
	other, err := sql.Open("sqlite", "file:"+db+"?_pragma=busy_timeout(10000)")
	check(t, err)
	defer other.Close()
	conn, err := other.Conn(t.Context())
	check(t, err)
	defer conn.Close()
	run := func(query string) {
		_, err := conn.ExecContext(t.Context(), query)
		check(t, err)
	}
	for _, harm := range []struct {
		name       string
		do, undo   func()
		mustNotice bool // readiness shows it
	}{
		{"gone", func() { check(t, os.Rename(db, db+".away")) }, func() { check(t, os.Rename(db+".away", db)) }, true},
		{"stuck", func() { run("BEGIN EXCLUSIVE") }, func() { run("ROLLBACK") }, false},
	} {
		t.Run(harm.name, func(t *testing.T) {
			alpha.offered(t, "250")
			if got := alpha.readiness(t); got != http.StatusOK {
				t.Errorf("readiness before: %d", got)
			}
			harm.do()
			alpha.offered(t, "451")
			if got := alpha.readiness(t); harm.mustNotice && got != http.StatusServiceUnavailable {
				t.Errorf("readiness: %d", got)
			}
			c := asker(t, alpha, "127.0.3.1")
			c.cmd("SGNT <new-"+harm.name+"@"+alpha.domain+">", "4")
			harm.undo()
			until(t, func() bool { return strings.HasPrefix(alpha.offer(t), "250") }) // a commit that waits may have to end first
			c.cmd("SGNT <new-"+harm.name+"@"+alpha.domain+">", "280 OK [")
			c.conn.Close()
		})
	}
}

func (s *site) offered(t *testing.T, code string) {
	t.Helper()
	if got := s.offer(t); !strings.HasPrefix(got, code) {
		t.Errorf("reply %q, want %s", got, code)
	}
}

// offer submits a message and returns the answer.
func (s *site) offer(t *testing.T) string {
	t.Helper()
	c := call(t, s.gateway.listeners.submission[0].Addr().String(), "")
	c.want("220")
	c.cmd("EHLO mail."+s.domain, "250")
	c.send("MAIL FROM:<bob@" + s.domain + ">\r\nRCPT TO:<alice@bravo.example>\r\n")
	c.want("250", "250")
	c.cmd("DATA", "354")
	c.send("Subject: x\r\n\r\nhello\r\n.\r\n")
	defer c.conn.Close()
	return c.reply()
}

func (s *site) readiness(t *testing.T) int {
	t.Helper()
	r, err := http.Get("http://" + s.gateway.listeners.health[0].Addr().String() + "/readyz")
	check(t, err)
	r.Body.Close()
	return r.StatusCode
}
