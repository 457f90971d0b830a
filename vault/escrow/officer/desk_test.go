package officer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/cloudflare/circl/group"

	"dimegate/internal/testescrow"
	"dimegate/vault"
	"dimegate/vault/audit"
	"dimegate/vault/escrow"
)

var now = time.Unix(1795000000, 0).UTC()

// A member is an officer with his folder. What protects his keys is an age identity: quicker than a passphrase.
type member struct {
	*Desk
	dir  string
	lock *age.X25519Identity
	keys *Keys
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func hire(t *testing.T, name string) *member {
	t.Helper()
	m := &member{dir: filepath.Join(t.TempDir(), name), lock: must[*age.X25519Identity](t)(age.GenerateX25519Identity())}
	m.Desk = must[*Desk](t)(Create(m.dir, name+"@example.org", Lock{To: m.lock.Recipient()}))
	m.keys = must[*Keys](t)(m.Unlock(m.lock))
	t.Cleanup(m.keys.Destroy)
	return m
}

// reopen reads the folder anew, as the next process does.
func (m *member) reopen(t *testing.T) {
	t.Helper()
	m.Desk = must[*Desk](t)(Open(m.dir))
}

// A board is officers who hold a ceremony's shares.
type board struct {
	t       *testing.T
	members []*member
	key     *escrow.Key
	trust   escrow.Trust
}

func newBoard(t *testing.T, quorum int, names ...string) *board {
	t.Helper()
	b := &board{t: t, trust: must[escrow.Trust](t)(testescrow.New().Trust())}
	for _, name := range names {
		b.members = append(b.members, hire(t, name))
	}
	b.hold(escrow.Discovery, quorum)
	return b
}

// hold is a ceremony with every officer's attestation.
func (b *board) hold(purpose escrow.Purpose, quorum int) {
	b.t.Helper()
	c := escrow.Ceremony{Suite: escrow.R255, Purpose: purpose, Organisation: "example.org", Quorum: quorum, Now: now}
	for _, m := range b.members {
		c.Officers = append(c.Officers, m.Officer())
	}
	d := must[*escrow.Dealt](b.t)(c.Deal())
	if b.key == nil {
		b.key = d.Key
	}
	dealer := must[escrow.SigningKey](b.t)(escrow.NewSigningKey(bytes.Repeat([]byte{9}, 32)))
	tr := must[*escrow.Transcript](b.t)(escrow.NewTranscript("test", now, d.Key, d.Epoch, dealer))
	var all []*escrow.Statement
	for i, m := range b.members {
		to := must[age.Recipient](b.t)(escrow.NativeRecipient(m.Officer().Recipient))
		file := must[[]byte](b.t)(escrow.SealFile(to, d.Shares[i].Octets()))
		at := must[*Ceremony](b.t)(m.Ceremony(m.keys, tr, file))
		all = append(all, must[*escrow.Statement](b.t)(m.Attest(m.keys, at, b.trust, now)))
		m.reopen(b.t)
	}
	if err := escrow.Attested(d.Epoch, all); err != nil {
		b.t.Fatal(err)
	}
}

func (b *board) plan(by int, on uint32, add []escrow.Officer, remove, dealers []string, quorum int) (*Change, error) {
	return b.members[by].NewPlan(b.key.ID(), on, add, remove, dealers, quorum, now)
}

// deals has the members of these numbers deal, and gives each new officer's receipt.
func (b *board) deals(c *Change, dealers ...int) map[uint16]Receipt {
	b.t.Helper()
	out := map[uint16]Receipt{}
	for _, i := range dealers {
		m := b.members[i]
		d := must[*Dealt](b.t)(m.Deal(m.keys, must[*Change](b.t)(m.Change(c.Plan, KnownKey{})), Recipients{}, now))
		for to, file := range d.Sealed {
			r := out[to]
			r.Deals, r.Statements, r.Sealed = append(r.Deals, d.Deal), append(r.Statements, d.Statement), append(r.Sealed, file)
			out[to] = r
		}
	}
	return out
}

func TestComplaint(t *testing.T) {
	b := newBoard(t, 2, "anna", "ben", "cleo")
	c := must[*Change](t)(b.plan(0, 1, nil, nil, []string{"anna@example.org", "ben@example.org"}, 2))
	r := b.deals(c, 0, 1)[3]
	cleo := b.members[2]
	wrong := must[escrow.SubShare](t)(escrow.ParseSubShare(must[[]byte](t)(cleo.keys.open(r.Sealed[1])))).Octets()
	one := group.Ristretto255.NewScalar()
	if err := one.UnmarshalBinary(wrong[len(wrong)-32:]); err != nil {
		t.Fatal(err)
	}
	copy(wrong[len(wrong)-32:], must[[]byte](t)(one.Add(one, group.Ristretto255.NewScalar().SetUint64(1)).MarshalBinary()))
	good := r.Sealed[1]
	r.Sealed[1] = must[[]byte](t)(escrow.SealFile(must[age.Recipient](t)(escrow.NativeRecipient(cleo.Officer().Recipient)), wrong))

	e, st, err := cleo.Accept(cleo.keys, c, r, escrow.Trust{}, Recipients{}, now)
	f, ok := errors.AsType[*escrow.DealFault](err)
	if !ok || !errors.Is(err, escrow.ErrFeldman) || f.Dealer != 2 || e != nil || st == nil {
		t.Fatalf("%v, %v, %v", e, st, err)
	}
	if err := c.Plan.VerifyComplaint(st, r.Deals[1]); err != nil {
		t.Error(err)
	}
	if err := c.Plan.VerifyComplaint(st, r.Deals[0]); !errors.Is(err, escrow.ErrSignature) {
		t.Errorf("against another deal: %v", err)
	}
	cleo.reopen(t)
	if k := cleo.Keys(); len(k) != 1 || len(k[0].Epochs) != 1 {
		t.Error("a wrong deal left an epoch behind")
	}
	r.Sealed[1] = good
	if _, _, err := cleo.Accept(cleo.keys, c, r, escrow.Trust{}, Recipients{}, now); err != nil {
		t.Errorf("the right sub-share: %v", err)
	}
}

func shareFiles(t *testing.T, m *member) []string {
	t.Helper()
	return must[[]string](t)(filepath.Glob(filepath.Join(m.dir, "share-*")))
}

// TestFailedPlan accepts a plan that never comes into force, and then another on the same epoch.
func TestFailedPlan(t *testing.T) {
	b := newBoard(t, 2, "anna", "ben", "cleo")
	anna := b.members[0]
	first := must[*Change](t)(b.plan(0, 1, nil, nil, []string{"anna@example.org", "ben@example.org"}, 2))
	e1, _, err := anna.Accept(anna.keys, first, b.deals(first, 0, 1)[1], escrow.Trust{}, Recipients{}, now)
	if err != nil || len(shareFiles(t, anna)) != 2 {
		t.Fatal(err, shareFiles(t, anna))
	}
	anna.reopen(t)
	second := must[*Change](t)(b.plan(0, 1, nil, []string{"ben@example.org"}, []string{"anna@example.org", "cleo@example.org"}, 2))
	receipts := b.deals(second, 0, 2)
	e2, st, err := anna.Accept(anna.keys, second, receipts[1], escrow.Trust{}, Recipients{}, now)
	if err != nil || e2.Digest() == e1.Digest() {
		t.Fatal(err)
	}
	anna.reopen(t)
	k := anna.Keys()[0]
	if len(k.Epochs) != 2 || k.Epochs[1].Digest() != e2.Digest() || len(shareFiles(t, anna)) != 2 {
		t.Errorf("%d epochs, shares %v", len(k.Epochs), shareFiles(t, anna))
	}
	// Only one of two has attested: the old share stays.
	if _, err := anna.Erase(anna.keys, e2, []*escrow.Statement{st}, now); !errors.Is(err, escrow.ErrQuorum) || len(shareFiles(t, anna)) != 2 {
		t.Errorf("erased too early: %v", err)
	}
	cleo := b.members[2]
	_, other, err := cleo.Accept(cleo.keys, second, receipts[3], escrow.Trust{}, Recipients{}, now)
	if err != nil {
		t.Fatal(err)
	}
	file := slices.DeleteFunc(shareFiles(t, anna), func(name string) bool { return !strings.Contains(name, "-1-") })[0]
	held := must[*os.File](t)(os.Open(file)) // a second name would show the octets as well
	defer held.Close()
	before := must[[]byte](t)(os.ReadFile(file))
	erased := must[*escrow.Statement](t)(anna.Erase(anna.keys, e2, []*escrow.Statement{st, other}, now))
	if err := erased.VerifyOfficer(k.Epochs[0], escrow.AttestErasure, k.Epochs[0].Digest(), e2.Digest()); err != nil {
		t.Error(err)
	}
	after := make([]byte, len(before))
	if _, err := held.ReadAt(after, 0); err != nil || bytes.Equal(before, after) {
		t.Errorf("the share's octets are still in the file: %v", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the share's file is still there: %v", err)
	}
	if _, err := anna.Deal(anna.keys, second, Recipients{}, now); err == nil {
		t.Error("dealt a share that was erased")
	}
}

// TestQuorumsOfBothKeys holds the rule that continuity needs one more.
func TestQuorumsOfBothKeys(t *testing.T) {
	b := newBoard(t, 2, "anna", "ben", "cleo")
	b.hold(escrow.Continuity, 3)
	if _, err := b.plan(0, 1, nil, nil, []string{"anna@example.org", "ben@example.org"}, 3); !errors.Is(err, escrow.ErrQuorum) {
		t.Errorf("discovery raised to continuity's quorum: %v", err)
	}
	if _, err := b.plan(0, 1, nil, nil, []string{"anna@example.org", "ben@example.org"}, 2); err != nil {
		t.Error(err)
	}
}

func TestPlanRefuses(t *testing.T) {
	b := newBoard(t, 2, "anna", "ben", "cleo")
	dan := hire(t, "dan").Officer()
	tests := map[string]struct {
		on              uint32
		add             []escrow.Officer
		remove, dealers []string
		quorum          int
	}{
		"no such epoch":           {2, nil, nil, []string{"anna@example.org", "ben@example.org"}, 2},
		"a stranger deals":        {1, nil, nil, []string{"anna@example.org", "dan@example.org"}, 2},
		"a stranger leaves":       {1, nil, []string{"dan@example.org"}, []string{"anna@example.org", "ben@example.org"}, 2},
		"too few deal":            {1, nil, nil, []string{"anna@example.org"}, 2},
		"too many deal":           {1, nil, nil, []string{"anna@example.org", "ben@example.org", "cleo@example.org"}, 2},
		"one deals twice":         {1, nil, nil, []string{"anna@example.org", "anna@example.org"}, 2},
		"a quorum above officers": {1, []escrow.Officer{dan}, nil, []string{"anna@example.org", "ben@example.org"}, 5},
		"a quorum of one":         {1, nil, nil, []string{"anna@example.org", "ben@example.org"}, 1},
		"another's key":           {1, []escrow.Officer{{Person: "eve@example.org", Key: b.members[0].Officer().Key, Recipient: dan.Recipient}}, nil, []string{"anna@example.org", "ben@example.org"}, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if c, err := b.plan(0, tt.on, tt.add, tt.remove, tt.dealers, tt.quorum); err == nil {
				t.Errorf("planned %+v", c.Plan)
			}
		})
	}
}

// TestFolder is about what a folder must be like.
func TestFolder(t *testing.T) {
	tests := map[string]struct {
		spoil func(t *testing.T, m *member)
		ok    bool
	}{
		"as made":         {func(*testing.T, *member) {}, true},
		"open to others":  {func(t *testing.T, m *member) { os.Chmod(m.dir, 0o755) }, false},
		"state of others": {func(t *testing.T, m *member) { os.Chmod(filepath.Join(m.dir, stateFile), 0o644) }, false},
		"no state":        {func(t *testing.T, m *member) { os.Remove(filepath.Join(m.dir, stateFile)) }, false},
		"unknown key": {func(t *testing.T, m *member) {
			m.write(t, stateFile, `{"version":1,"logs":null,"keys":null,"cases":null,"x":1}`)
		}, false},
		"another version": {func(t *testing.T, m *member) {
			m.write(t, stateFile, `{"version":2,"logs":null,"keys":null,"cases":null}`)
		}, false},
		"more after it": {func(t *testing.T, m *member) {
			m.write(t, stateFile, `{"version":1,"logs":null,"keys":null,"cases":null} {}`)
		}, false},
		"no record": {func(t *testing.T, m *member) {
			m.write(t, stateFile, `{"version":1,"logs":null,"keys":[{"record":"00","log":"","epochs":[],"shares":null}],"cases":null}`)
		}, false},
		"no officer file":   {func(t *testing.T, m *member) { os.Remove(filepath.Join(m.dir, publicFile)) }, false},
		"a torn public key": {func(t *testing.T, m *member) { m.write(t, publicFile, "dimegate-officer-v1 anna@example.org") }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := hire(t, "anna")
			tt.spoil(t, m)
			if _, err := Open(m.dir); tt.ok != (err == nil) {
				t.Errorf("%v", err)
			}
		})
	}
	m := hire(t, "ben")
	other := must[*age.X25519Identity](t)(age.GenerateX25519Identity())
	if _, err := m.Unlock(other); !errors.Is(err, escrow.ErrAEAD) {
		t.Errorf("unlocked by another: %v", err)
	}
	if _, err := Create(m.dir, "ben@example.org", Lock{To: other.Recipient()}); err == nil {
		t.Error("made keys over keys")
	}
	m.write(t, publicFile, hire(t, "cleo").Officer().Line())
	m.reopen(t)
	if _, err := m.Unlock(m.lock); err == nil {
		t.Error("the private keys are another's")
	}
	secret := must[[]byte](t)(os.ReadFile(filepath.Join(m.dir, secretFile)))
	for _, word := range []string{"AGE-SECRET", secretWord} {
		if bytes.Contains(secret, []byte(word)) {
			t.Errorf("%s lies open", word)
		}
	}
}

func (m *member) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestApprovedRecords keeps what was approved apart by case.
func TestApprovedRecords(t *testing.T) {
	m := hire(t, "anna")
	var want []vault.ID
	for i := range 3 {
		ids := []vault.ID{vault.RandomID(), vault.RandomID()}
		want = append(want, ids...)
		if err := m.keepRecords(fmt.Sprint("case", i), ids); err != nil {
			t.Fatal(err)
		}
	}
	seen := must[map[vault.ID]struct{}](t)(m.approvedRecords())
	for _, id := range want {
		if _, ok := seen[id]; !ok || len(seen) != len(want) {
			t.Errorf("%d of %d records are remembered", len(seen), len(want))
		}
	}
}

// TestFollow: a log is followed to one of the same archive that was restored more often, and to no other.
func TestFollow(t *testing.T) {
	b := newBoard(t, 2, "anna", "ben")
	anna := b.members[0]
	archive, _, _ := origin(b.trust.Log)
	key := func(name string, seed byte) escrow.Trust {
		k := must[*audit.Key](t)(audit.NewKey(name, bytes.Repeat([]byte{seed}, 32)))
		return escrow.Trust{Log: k.Verifier(), Witnesses: b.trust.Witnesses}
	}
	for name, other := range map[string]escrow.Trust{
		"the same":         b.trust,
		"another archive":  key("dimegate/00000000000000000000000000/1", 1),
		"the same number":  key("dimegate/"+archive, 2),
		"no number":        key("dimegate/"+archive+"/x", 3),
		"a padded number":  key("dimegate/"+archive+"/01", 3),
		"another's log":    key("example.org/log", 4),
		"without witness":  {Log: key("dimegate/"+archive+"/1", 5).Log},
		"what is no key":   {Log: "x", Witnesses: b.trust.Witnesses},
		"a number below 1": key("dimegate/"+archive+"/0", 6),
	} {
		if err := anna.Follow(other); err == nil {
			t.Errorf("%s: followed", name)
		}
	}
	first, second := key("dimegate/"+archive+"/1", 7), key("dimegate/"+archive+"/2", 8)
	for _, next := range []escrow.Trust{first, second} {
		if err := anna.Follow(next); err != nil {
			t.Fatal(err)
		}
		anna.reopen(t)
		if k := must[*keyState](t)(anna.key(b.key.ID())); k.Log != next.Log || anna.log(b.trust.Log) == nil {
			t.Errorf("follows %q", k.Log)
		}
	}
	if err := anna.Follow(first); err == nil {
		t.Error("followed back")
	}
}
