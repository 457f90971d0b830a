package appliance

import (
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/appliance/roles"
	"dimegate/appliance/setup"
	"dimegate/bridge/translate"
	"dimegate/dmtp/dmtpclient"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/internal/testescrow"
	"dimegate/trustful"
	"dimegate/vault"
	"dimegate/vault/audit"
)

// A house is two organisations on one gateway, each with a vault of its own, and a mail server and clients of its own.
type house struct {
	t            *testing.T
	alpha, bravo *site // one gateway, under both
}

// Where each organisation's clients call from.
const (
	ofAlpha = "127.0.0.11"
	ofBravo = "127.0.0.12"
)

func newHouse(t *testing.T) *house {
	t.Helper()
	w := newWorld(t, "alpha.example", "bravo.example")
	h := &house{t, w.sites[0], w.sites[1]}
	h.bravo.inner = newMailServer(t)
	h.alpha.make(nil, func(c *config.Config) {
		c.Organizations[0].Networks, c.Organizations[0].Vault = []string{ofAlpha}, "alpha"
		c.Organizations = append(c.Organizations, config.Organization{Name: "Bravo", Domains: []string{"bravo.example"}, DX: []string{"dx.bravo.example"},
			Inner: h.bravo.inner.addr, Networks: []string{ofBravo}, Vault: "bravo"})
		c.Vault.Own = map[string]config.OwnVault{"alpha": {}, "bravo": {}}
		c.Health.Listen = "127.0.0.1:0"
	})
	h.bravo.config = h.alpha.config
	made, err := setup.Make(t.Context(), h.alpha.config, time.Now())
	check(t, err)
	h.bravo.publish(made.Domains[1].RecordLine)
	for _, s := range []*site{h.alpha, h.bravo} {
		s.inner.rcpt = func(a string) error {
			switch name, domain, _ := strings.Cut(strings.ToLower(a), "@"); {
			case domain != s.domain || name != "ann" && name != "bob" && name != "late":
				return errNobody
			case name == "late":
				return errors.New("later") // 451: its mail stays with the sender's organisation
			}
			return nil
		}
	}
	return h
}

func (h *house) run() {
	h.alpha.run(Options{})
	h.bravo.gateway = h.alpha.gateway
}

// submit sends a message from a client, and wants replies to MAIL and to the message; "" for one that is not reached.
func (h *house) submit(client, from, to, header, mail, data string) {
	h.t.Helper()
	addr, _ := h.alpha.gateway.Addresses()
	c := call(h.t, addr, client)
	defer c.conn.Close()
	c.want("220")
	c.cmd("EHLO x", "250")
	c.cmd("MAIL FROM:<"+from+">", mail)
	if data == "" {
		return
	}
	c.cmd("RCPT TO:<"+to+">", "250")
	c.cmd("DATA", "354")
	c.send(header + "Subject: x\r\n\r\nhello\r\n.\r\n")
	c.want(data)
}

func (h *house) waiting(s *site) int {
	h.t.Helper()
	t, err := s.gateway.tenants.named(s.domain)
	check(h.t, err)
	rows, err := t.queue.List(h.t.Context(), "", "", 100)
	check(h.t, err)
	return len(rows)
}

func (h *house) exchange() {
	h.t.Helper()
	h.submit(ofAlpha, "ann@alpha.example", "bob@bravo.example", "", "250", "250")
	h.submit(ofBravo, "bob@bravo.example", "ann@alpha.example", "", "250", "250")
	h.submit(ofAlpha, "ann@alpha.example", "late@bravo.example", "", "250", "250")
	h.submit(ofBravo, "bob@bravo.example", "late@alpha.example", "", "250", "250")
	until(h.t, func() bool { return len(h.alpha.inner.messages()) == 1 && len(h.bravo.inner.messages()) == 1 })
	for s, author := range map[*site]string{h.alpha: "bob@bravo.example; origin=bravo.example", h.bravo: "ann@alpha.example; origin=alpha.example"} {
		if got := s.inner.messages()[0]; !strings.HasPrefix(got, "X-DIME: yes; author="+author+"\r\n") {
			h.t.Errorf("%s got %.80q", s.domain, got)
		}
		until(h.t, func() bool { return h.waiting(s) == 1 })
	}
}

// TestTwoOrganisations: neither's keys, officers, log or seals open anything of the other's.
func TestTwoOrganisations(t *testing.T) {
	h := newHouse(t)
	h.run()
	h.exchange()
	t.Run("senders", func(t *testing.T) { h.strangers() })
	t.Run("recipients", func(t *testing.T) { h.tricks(t) })
	h.alpha.stop()
	alpha, bravo := h.alpha.config.Tenants()[0], h.alpha.config.Tenants()[1]
	officers := map[*config.Config]*testescrow.Officers{alpha: archived(t, alpha), bravo: archived(t, bravo)}
	for name, side := range map[string][2]*config.Config{"alpha at bravo's": {alpha, bravo}, "bravo at alpha's": {bravo, alpha}} {
		t.Run(name, func(t *testing.T) {
			seals(t, side[0], side[1])
			wraps(t, side[0], side[1])
			contents(t, side[0], side[1])
			logs(t, side[0], side[1])
			grants(t, side[0], side[1])
			escrows(t, side[0], side[1], officers[side[0]], officers[side[1]])
		})
	}
}

// strangers send as the other organisation, by each way that a client has to say who it is.
func (h *house) strangers() {
	before := h.waiting(h.bravo)
	h.submit(ofAlpha, "bob@bravo.example", "", "", "550 5.7.1", "")
	h.submit(ofAlpha, "BOB@BRAVO.EXAMPLE", "", "", "550 5.7.1", "")
	h.submit("127.0.0.13", "bob@bravo.example", "", "", "550 5.7.1", "") // of nobody, while loopback may relay
	h.submit("127.0.0.13", "", "", "", "550 5.7.1", "")
	h.submit(ofAlpha, "", "late@bravo.example", "From: postmaster@bravo.example\r\n", "250", "550 5.7.1")
	if n := h.waiting(h.bravo); n != before {
		h.t.Errorf("%d entries in bravo's queue are alpha's", n-before)
	}
	own := h.waiting(h.alpha)
	h.submit(ofAlpha, "", "late@bravo.example", "From: postmaster@alpha.example\r\n", "250", "250")
	h.submit(ofAlpha, "", "late@bravo.example", "From: someone@else.example\r\n", "250", "250") // by the client
	if n := h.waiting(h.alpha); n != own+2 || h.waiting(h.bravo) != before {
		h.t.Errorf("%d of 2 messages without a sender are in alpha's queue", n-own)
	}
}

// tricks have one organisation's domain asked, or mailed, for the other's user.
func (h *house) tricks(t *testing.T) {
	c := call(t, h.alpha.single(), "127.0.3.1").secure(&tls.Config{})
	c.want("220")
	c.cmd("EHLO <gw.charlie.example>", "250")
	c.cmd("SGNT <bob@bravo.example>", "280")
	for _, name := range []string{"bob@bravo.example@alpha.example", "bob@bravo.example.alpha.example", "bob%bravo.example@alpha.example.", "@alpha.example:bob@bravo.example"} {
		if r := c.cmd("SGNT <"+name+">", ""); strings.HasPrefix(r, "2") {
			t.Errorf("%s: %s", name, r)
		}
	}
	c.conn.Close()

	a, err := h.alpha.gateway.tenants.named("alpha.example")
	check(t, err)
	b, err := h.alpha.gateway.tenants.named("bravo.example")
	check(t, err)
	if _, err := a.keeper.Current(t.Context(), "bob@bravo.example"); err == nil {
		t.Error("alpha's agent has a signet of bravo's user")
	}
	if _, err := a.keeper.Enrol(t.Context(), "eve@bravo.example"); err == nil {
		t.Error("alpha's agent makes keys for bravo's user")
	}
	bob, err := b.keeper.Current(t.Context(), "bob@bravo.example")
	check(t, err)
	for name, tt := range map[string]struct {
		sealed, told *tenant // whose key the destination's chunk is sealed to, and who is asked to take it
		code         int
	}{
		"control":                        {b, b, 254},
		"sealed to alpha, sent to alpha": {a, a, 550},
		"sealed to alpha, sent to bravo": {a, b, 550},
		"sealed to bravo, sent to alpha": {b, a, 550},
	} {
		destination := tt.sealed.config.Organizations[0].Domains[0]
		before := len(h.bravo.inner.messages()) + len(h.alpha.inner.messages())
		to := message.Party{Name: destination, Signet: orgSignet(t, tt.sealed, destination)}
		content, err := translate.Import(translate.Envelope{Author: "ann@alpha.example", Now: time.Now()}, []byte("From: ann@alpha.example\r\nSubject: x\r\n\r\ntrick "+name+"\r\n"))
		check(t, err)
		m, err := a.keeper.Seal(t.Context(), trustful.Outgoing{Author: "ann@alpha.example", Recipient: message.Party{Name: "bob@bravo.example", Signet: bob}, Destination: to,
			Governs: func(string, string) bool { return true }}, content)
		check(t, err)
		author, err := a.keeper.Current(t.Context(), "ann@alpha.example")
		check(t, err)
		m, err = a.orgs.Sign(t.Context(), m, message.Party{Name: "ann@alpha.example", Signet: author}, to, "alpha.example")
		check(t, err)
		told := tt.told.config.Organizations[0].Domains[0]
		d, err := a.resolver.Org(t.Context(), told)
		check(t, err)
		own, err := orgSignet(t, a, "alpha.example").Fingerprint(signet.Full)
		check(t, err)
		theirs, err := orgSignet(t, tt.told, told).Fingerprint(signet.Full)
		check(t, err)
		receipt, err := a.client.Deliver(t.Context(), target(d.Target()), dmtpclient.Envelope{Origin: "alpha.example", Destination: told, OriginSignet: own, DestinationSignet: theirs}, m.Bytes())
		got := len(h.bravo.inner.messages()) + len(h.alpha.inner.messages()) - before
		if (err == nil) != (tt.code == 254) || got != map[bool]int{true: 1}[tt.code == 254] {
			t.Errorf("%s: %+v, %v, %d handed over", name, receipt, err, got)
		}
	}
}

func orgSignet(t *testing.T, of *tenant, domain string) *signet.Signet {
	t.Helper()
	all, err := of.orgs.Signets(t.Context(), domain)
	check(t, err)
	return all[len(all)-1]
}

// seals: no seal that opens a root of thief's opens one of owner's.
func seals(t *testing.T, thief, owner *config.Config) {
	for _, role := range []vault.Role{vault.HostRole, vault.SigningRole} {
		for _, with := range []vault.Role{vault.HostRole, vault.SigningRole} {
			_, err := vault.OpenSeal(t.Context(), keystore.SealHeader(owner.Vault.Folder, role), role, keystore.Seals(thief.Vault, with)[0].Seal)
			if err == nil {
				t.Errorf("the %v seal of %s opens the %v seal of %s", with, thief.Vault.Name, role, owner.Vault.Name)
			}
		}
		root, err := vault.OpenSeal(t.Context(), keystore.SealHeader(owner.Vault.Folder, role), role, keystore.Seals(owner.Vault, role)[0].Seal)
		check(t, err)
		root.Destroy()
	}
}

// wraps: every wrap of every table of owner's is tried with thief's roots, as it is and renamed to them, under every label.
func wraps(t *testing.T, thief, owner *config.Config) {
	theirs, own := roots(t, thief), roots(t, owner)
	all, labels := wrapsOf(t, owner.Vault.Folder)
	names, _ := wrapsOf(t, thief.Vault.Folder)
	ids := map[string]bool{} // of thief's root keys, as its wraps name them
	for _, w := range names {
		ids[string(w[4:13])] = true
	}
	opened := 0
	for _, w := range all {
		good := 0
		for _, label := range labels {
			for _, r := range own {
				if s, err := r.Unwrap(w, label); err == nil {
					good++
					s.Destroy()
				}
			}
			for _, r := range theirs {
				if _, err := r.Unwrap(w, label); err == nil {
					t.Errorf("%x opens", w[:13])
				}
				for id := range ids {
					if _, err := r.Unwrap(append([]byte("DWB1"+id), w[13:]...), label); err == nil {
						t.Errorf("%x opens under another name", w[:13])
					}
				}
			}
		}
		if good != 1 {
			t.Errorf("control: %d of the labels open the wrap %x with the seals that made it", good, w[:13])
		}
		opened += good
	}
	t.Logf("%d wraps under %d labels: their own seals open %d", len(all), len(labels), opened)
	if len(all) < 8 {
		t.Errorf("only %d wraps: nothing was looked at", len(all))
	}
}

func roots(t *testing.T, c *config.Config) (list []*vault.Root) {
	t.Helper()
	for _, role := range []vault.Role{vault.HostRole, vault.SigningRole} {
		r, err := keystore.OpenRole(t.Context(), c.Vault, role)
		check(t, err)
		t.Cleanup(r.Destroy)
		list = append(list, r)
	}
	return list
}

// wrapsOf finds whatever looks like a wrap in any column of any table, and every label that the vault's code would give one.
func wrapsOf(t *testing.T, folder string) (all, labels [][]byte) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(folder, "vault.db"))
	check(t, err)
	defer db.Close()
	for _, table := range column(t, db, `SELECT name FROM sqlite_master WHERE type = 'table'`) {
		for _, name := range column(t, db, `SELECT name FROM pragma_table_info('`+string(table)+`')`) {
			for _, v := range column(t, db, `SELECT "`+string(name)+`" FROM "`+string(table)+`" WHERE typeof("`+string(name)+`") = 'blob'`) {
				if len(v) == vault.WrapSize && strings.HasPrefix(string(v), "DWB1") {
					all = append(all, v)
				}
			}
		}
	}
	label := func(query string, of func(parts []string) []byte) {
		for _, row := range column(t, db, query) {
			parts := strings.Split(string(row), "|")
			for i := range parts {
				if b, err := hex.DecodeString(parts[i]); err == nil && len(b) == len(vault.ID{}) {
					parts[i] = string(b)
				}
			}
			labels = append(labels, of(parts))
		}
	}
	label(`SELECT DISTINCT hex(owner) FROM wraps`, func(p []string) []byte { return vault.Label("key", p[0]) })
	label(`SELECT domain || '|' || CASE kind WHEN 1 THEN 'primary' WHEN 2 THEN 'secondary' ELSE 'encryption' END || '|' || hex(id) FROM org_keys`,
		func(p []string) []byte { return vault.Label("org key", p[0], p[1], p[2]) })
	label(`SELECT address || '|' || number || '|' || hex(id) FROM user_keys`, func(p []string) []byte { return vault.Label("user signing key", p[0], p[1], p[2]) })
	label(`SELECT name || '|' || hex((SELECT value FROM meta WHERE name = 'archive')) FROM named_keys`, func(p []string) []byte { return vault.Label("named key", p[0], p[1]) })
	return all, labels
}

func column(t *testing.T, db *sql.DB, query string) (list [][]byte) {
	t.Helper()
	rows, err := db.Query(query)
	check(t, err)
	defer rows.Close()
	for rows.Next() {
		var v []byte
		check(t, rows.Scan(&v))
		list = append(list, v)
	}
	check(t, rows.Err())
	return list
}

// contents: a copy of owner's folder with thief's seals on it shows nothing; with its own, everything.
func contents(t *testing.T, thief, owner *config.Config) {
	stolen := func(seals *config.Config) map[string]error {
		v := seals.Vault
		v.Folder = copyVault(t, owner.Vault.Folder)
		for _, role := range []vault.Role{vault.HostRole, vault.SigningRole} {
			header, err := os.ReadFile(keystore.SealHeader(seals.Vault.Folder, role))
			check(t, err)
			check(t, os.Remove(keystore.SealHeader(v.Folder, role)))
			check(t, os.WriteFile(keystore.SealHeader(v.Folder, role), header, 0o600))
		}
		o, err := keystore.Open(t.Context(), v, true)
		check(t, err)
		defer func() { check(t, o.Close()) }()
		return readAll(t, o.Vault, v.Folder, owner.Organizations[0].Domains[0])
	}
	good, bad := stolen(owner), stolen(thief)
	for what, err := range good {
		if err != nil {
			t.Errorf("control: %s with its own seals: %v", what, err)
		}
		if bad[what] == nil {
			t.Errorf("%s opens with the seals of %s", what, thief.Vault.Name)
		}
	}
	t.Logf("%d things are opened by their own seals alone", len(good))
	if len(good) < 12 {
		t.Errorf("only %d things: %v", len(good), good)
	}
}

// readAll reads everything in a vault that a seal protects.
func readAll(t *testing.T, v *vault.Vault, folder, domain string) map[string]error {
	ctx, got := t.Context(), map[string]error{}
	for _, kind := range []vault.OrgKeyKind{vault.PrimaryKey, vault.SecondaryKey} {
		_, got["the domain's "+kind.String()+" key"] = v.OrgSigning(ctx, domain, kind)
	}
	_, got["the domain's encryption key"] = v.OrgEncryption(ctx, domain)
	users, err := v.Users(ctx, "", 100)
	check(t, err)
	for _, u := range users {
		_, got[u.Address+" signs"] = v.UserSigning(ctx, u.Address, u.Number)
		_, got[u.Address+" reads"] = v.UserEncryption(ctx, u.Address, u.Number)
		_, got[u.Address+" reads the layer"] = v.UserLayer(ctx, u.Address, u.Number)
	}
	db, err := sql.Open("sqlite", filepath.Join(folder, "vault.db"))
	check(t, err)
	defer db.Close()
	for _, name := range column(t, db, `SELECT name FROM named_keys`) {
		_, got["the key "+string(name)] = v.NamedKey(ctx, string(name))
	}
	for _, row := range column(t, db, `SELECT kind || '|' || name FROM notes`) {
		kind, name, _ := strings.Cut(string(row), "|")
		_, got["the note "+kind+" "+name] = v.Note(ctx, kind, name)
	}
	rows, err := v.QueueRows(ctx, "", vault.ID{}, 100)
	check(t, err)
	for _, row := range rows {
		got["the entry "+row.ID.String()] = readRow(ctx, v, row)
	}
	return got
}

func readRow(ctx context.Context, v *vault.Vault, row vault.QueueRow) error {
	r, err := v.Record(ctx, row.Record)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := r.Envelope(); err != nil {
		return err
	}
	if _, err := r.RowRecipient(ctx, row.ID); err != nil {
		return err
	}
	b, err := r.Body(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	_, err = io.Copy(io.Discard, b)
	return err
}

// logs: neither's key, checkpoints or witness says anything about the other's log.
func logs(t *testing.T, thief, owner *config.Config) {
	ctx := t.Context()
	keyOf := func(c *config.Config) (*keystore.Opened, *audit.Key, []byte) {
		v, err := keystore.Open(ctx, c.Vault, false)
		check(t, err)
		t.Cleanup(func() { v.Close() })
		k, err := audit.VaultKey(ctx, v.Vault)
		check(t, err)
		signed, err := audit.New(v.Vault, k).Checkpoint(ctx, time.Now())
		check(t, err)
		return v, k, signed
	}
	own, ownKey, ownNote := keyOf(owner)
	_, key, note := keyOf(thief)
	kept := func(signed []byte, k *audit.Key) audit.Tree {
		tree, err := audit.ParseCheckpoint(signed, k.Verifier())
		check(t, err)
		return tree
	}
	if _, err := audit.Verify(ctx, own.Vault, ownKey.Verifier(), nil, kept(ownNote, ownKey)); err != nil {
		t.Errorf("control: %v", err)
	}
	if _, err := audit.Verify(ctx, own.Vault, key.Verifier(), nil); err == nil {
		t.Error("the log holds under the other's key")
	}
	if _, err := audit.Verify(ctx, own.Vault, ownKey.Verifier(), nil, kept(note, key)); err == nil {
		t.Error("a checkpoint of the other log holds for this one")
	}
	if _, err := audit.ParseCheckpoint(ownNote, key.Verifier()); err == nil {
		t.Error("a checkpoint is signed by the other log's key")
	}
	if ownKey.Name() == key.Name() {
		t.Error("both logs have one name")
	}
	witnessKey, err := audit.NewWitnessKey("w.example", make([]byte, 32))
	check(t, err)
	w, err := audit.NewWitness(witnessKey, t.TempDir(), []string{key.Verifier()})
	check(t, err)
	defer w.Close()
	for name, tt := range map[string]struct {
		note []byte
		code int
	}{"control": {note, http.StatusOK}, "other": {ownNote, http.StatusNotFound}} {
		if a, err := w.Add(audit.WitnessRequest(0, nil, tt.note), time.Now()); err != nil || a.Status != tt.code {
			t.Errorf("%s: the witness of one log says %d, %v", name, a.Status, err)
		}
	}
}

// grants: who has a role in one vault has none in the other, and the leaf that gives it says nothing there.
func grants(t *testing.T, thief, owner *config.Config) {
	ctx := t.Context()
	holders := func(c *config.Config) (roles.Grants, error) {
		v, err := vault.Open(ctx, vault.Options{Dir: c.Vault.Folder})
		check(t, err)
		defer v.Close()
		b, err := v.Roles(ctx)
		if err != nil {
			return nil, err
		}
		return roles.Parse(b)
	}
	change := func(c *config.Config, person string) {
		v, err := keystore.Open(ctx, c.Vault, false)
		check(t, err)
		defer v.Close()
		check(t, v.ChangeRoles(ctx, time.Now(), func(old []byte) ([]byte, error) {
			g, err := roles.Parse(old)
			check(t, err)
			if g, err = g.Grant(person, roles.Security); err != nil {
				return old, nil // it has been there before
			}
			return g.Octets(person, time.Now())
		}))
	}
	change(thief, "eve of "+thief.Vault.Name)
	change(owner, "ann of "+owner.Vault.Name)
	for c, other := range map[*config.Config]*config.Config{thief: owner, owner: thief} {
		g, err := holders(c)
		check(t, err)
		for person := range g {
			if strings.HasSuffix(person, " of "+other.Vault.Name) {
				t.Errorf("%s has a role in the vault %s", person, c.Vault.Name)
			}
		}
	}
	if g, _ := holders(thief); g.Check("eve of "+thief.Vault.Name, "seal add") != nil {
		t.Error("control: a security administrator may not add a seal")
	}
	if g, _ := holders(owner); g.Check("eve of "+thief.Vault.Name, "seal add") == nil {
		t.Error("the other's security administrator may add a seal")
	}
}

// TestOneVaultAway: while one organisation's vault is gone or sealed, the other's mail goes on, its own waits outside and is told so,
// and readiness names it; when it is back, mail goes on without a new start.
func TestOneVaultAway(t *testing.T) {
	h := newHouse(t)
	views := h.alpha.config.Tenants()
	folder := views[1].Vault.Folder
	check(t, os.Rename(folder, folder+".away"))
	h.run()
	h.submit(ofAlpha, "ann@alpha.example", "bob@alpha.example", "", "250", "250") // out and in again, as all mail by DMTP
	until(t, func() bool { return len(h.alpha.inner.messages()) == 1 })
	h.submit(ofBravo, "bob@bravo.example", "ann@alpha.example", "", "250", "451 4.3.0")
	if code, body := h.ready(""); code != http.StatusOK || body != "ok\nnot ready: Bravo\n" {
		t.Errorf("one of two: %d %q", code, body)
	}
	for name, want := range map[string]int{"alpha.example": 200, "bravo.example": 503, "Bravo": 503, "other": 404} {
		if code, _ := h.ready("/" + name); code != want {
			t.Errorf("readiness of %s: %d, want %d", name, code, want)
		}
	}
	c := call(t, h.alpha.single(), "127.0.3.1").secure(&tls.Config{})
	c.want("220")
	c.cmd("EHLO <gw.charlie.example>", "250")
	c.cmd("SGNT <alpha.example>", "270")
	if r := c.cmd("SGNT <bravo.example>", "4"); strings.Contains(r, "NO SUCH") {
		t.Errorf("a name of bravo's: %s", r)
	}
	c.conn.Close()
	plain := call(t, h.alpha.dual(), "127.0.3.2")
	plain.want("220")
	plain.cmd("EHLO charlie.example", "250")
	plain.cmd("MAIL FROM:<carol@charlie.example>", "250")
	plain.cmd("RCPT TO:<bob@bravo.example>", "451 4.3.2")
	plain.cmd("RCPT TO:<ann@alpha.example>", "250")
	plain.conn.Close()
	if got := h.bravo.inner.messages(); len(got) != 0 {
		t.Fatalf("bravo's server got %q", got)
	}

	check(t, os.Rename(folder+".away", folder))
	until(t, func() bool { code, _ := h.ready("/bravo.example"); return code == 200 })
	h.submit(ofBravo, "bob@bravo.example", "ann@alpha.example", "", "250", "250")
	until(t, func() bool { return len(h.alpha.inner.messages()) == 2 })

	check(t, os.Rename(filepath.Join(folder, "vault.db"), filepath.Join(folder, "vault.gone"))) // while it is in use
	until(t, func() bool { code, _ := h.ready("/bravo.example"); return code == 503 })
	h.submit(ofBravo, "bob@bravo.example", "ann@alpha.example", "", "250", "45")
	h.submit(ofAlpha, "ann@alpha.example", "bob@alpha.example", "", "250", "250")
	until(t, func() bool { return len(h.alpha.inner.messages()) == 3 })
	if code, body := h.ready(""); code != http.StatusOK || body != "ok\nnot ready: Bravo\n" {
		t.Errorf("gone while in use: %d %q", code, body)
	}
	check(t, os.Rename(filepath.Join(folder, "vault.gone"), filepath.Join(folder, "vault.db")))
}

// TestOneVaultFails: a part that fails takes its own organisation down, and nobody else; where it is the last one, the gateway ends.
func TestOneVaultFails(t *testing.T) {
	h := newHouse(t)
	spoil := func(c *config.Config) {
		db, err := sql.Open("sqlite", filepath.Join(c.Vault.Folder, "vault.db"))
		check(t, err)
		_, err = db.Exec(`UPDATE named_keys SET wrap = zeroblob(93) WHERE name = 'log'`)
		check(t, errors.Join(err, db.Close()))
	}
	views := h.alpha.config.Tenants()
	spoil(views[1])
	h.run()
	until(t, func() bool { code, _ := h.ready("/bravo.example"); return code == 503 })
	h.submit(ofBravo, "bob@bravo.example", "ann@alpha.example", "", "250", "451 4.3.0")
	h.submit(ofAlpha, "ann@alpha.example", "bob@alpha.example", "", "250", "250")
	until(t, func() bool { return len(h.alpha.inner.messages()) == 1 })
	h.alpha.stop()
	spoil(views[0])
	a, err := Open(t.Context(), h.alpha.config, Options{Log: slog.New(slog.DiscardHandler), Dial: h.alpha.world.dial})
	check(t, err)
	if err := a.Run(t.Context()); !errors.Is(err, vault.ErrCorrupt) {
		t.Errorf("with both spoilt it ends with %v", err)
	}
	check(t, a.Close())
}

// TestUnknownNeighbour: mail from one organisation to a user of the other who has no keys yet, since his server takes just any address and
// he never wrote, goes in by the shared port as plain mail does; what comes round again ends.
func TestUnknownNeighbour(t *testing.T) {
	h := newHouse(t)
	h.bravo.inner.rcpt = nil
	h.alpha.config.Policy.Floor = "opportunistic"
	made, err := setup.Make(t.Context(), h.alpha.config, time.Now())
	check(t, err)
	h.bravo.publish(made.Domains[1].RecordLine, "@ MX 10 dx")
	h.run()
	h.submit(ofAlpha, "ann@alpha.example", "silent@bravo.example", "Message-ID: <1@alpha.example>\r\nDate: Tue, 01 Dec 2026 00:00:00 +0000\r\n", "250", "250")
	until(t, func() bool { return len(h.bravo.inner.messages()) == 1 })
	got := h.bravo.inner.messages()[0]
	if !strings.HasPrefix(got, "X-DIME: no\r\n") {
		t.Errorf("bravo's server got %.200q", got)
	}
	h.submit(ofBravo, "", "silent@bravo.example", strings.TrimSuffix(got, "Subject: x\r\n\r\nhello\r\n"), "250", "250") // his server sends it back
	until(t, func() bool { return h.waiting(h.bravo) == 0 })
	if n := len(h.bravo.inner.messages()); n != 1 {
		t.Errorf("it was handed over %d times", n)
	}
}

// ready asks /readyz, or what is below it.
func (h *house) ready(below string) (int, string) {
	h.t.Helper()
	r, err := http.Get("http://" + h.alpha.gateway.listeners.health[0].Addr().String() + "/readyz" + below)
	check(h.t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	check(h.t, err)
	return r.StatusCode, string(b)
}
