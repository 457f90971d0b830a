package resolver

import (
	"errors"
	"slices"
	"testing"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
)

const alice = "alice@alpha.test"

func TestUser(t *testing.T) {
	tests := []struct {
		name    string
		arrange func(t *testing.T, n *network, o *org)
		verdict error
		why     string
		alarm   string
	}{
		{"fine", func(t *testing.T, n *network, o *org) { o.user(alice, newPair(t), nil) }, nil, "", ""},
		{"rotated, first seen now", func(t *testing.T, n *network, o *org) {
			first := newPair(t)
			o.user(alice, first, nil)
			o.user(alice, newPair(t), &first.Signing)
		}, nil, "", ""},
		{"none", func(t *testing.T, n *network, o *org) {}, ErrNoSignet, "", ""},
		{"of another user", func(t *testing.T, n *network, o *org) {
			o.raw[alice] = o.user("bob@alpha.test", newPair(t), nil).Bytes()
		}, ErrUntrusted, "another's", "substitution"},
		{"of another organisation", func(t *testing.T, n *network, o *org) {
			o.raw[alice] = newOrg(t, "alpha.test").user(alice, newPair(t), nil).Bytes()
		}, ErrUntrusted, "does not hold", "substitution"},
		{"without a name", func(t *testing.T, n *network, o *org) {
			cut, err := o.user(alice, newPair(t), nil).Cut(signet.Full)
			if err != nil {
				t.Fatal(err)
			}
			o.raw[alice] = cut.Bytes()
		}, ErrUntrusted, "no name", "substitution"},
		{"the organisation's", func(t *testing.T, n *network, o *org) { o.raw[alice] = o.signet.Bytes() }, ErrUntrusted, "user signet was wanted", "substitution"},
		{"noise", func(t *testing.T, n *network, o *org) { o.raw[alice] = []byte{1} }, ErrGarbled, "", ""},
		{"refused", func(t *testing.T, n *network, o *org) {
			n.rewrite = failing("SGNT", alice, errors.New("450 ACCESS DENIED"))
		}, ErrTemporary, "450", ""},
		{"unreachable", func(t *testing.T, n *network, o *org) { n.deaf["dx.alpha.test"] = true }, ErrTemporary, "no DX", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, o := ready(t, "alpha.test", "pol=mixed")
			tt.arrange(t, n, o)
			u, err := n.r.User(t.Context(), "Alice@ALPHA.test", true)
			e := verdict(t, err, tt.verdict, tt.why)
			n.alarmed(t, tt.alarm)
			if err == nil {
				if u.Address != alice || !same(u.Signet, last(o.served[alice])) || u.Org.Name != "alpha.test" || u.Evidence.UserSignet == "" || u.Evidence.Certificate == nil {
					t.Errorf("%+v, %+v", u, u.Evidence)
				}
				return
			}
			if tt.verdict == ErrNoSignet && (e.Domain == nil || e.Domain.Record.Policy != record.Mixed) {
				t.Errorf("whose policy follows? %+v", e)
			}
		})
	}
	n, _ := ready(t, "alpha.test", "")
	for _, address := range []string{"", "alice", "alice@", "@alpha.test", "a@b@alpha.test", "a b@alpha.test", "alice@al pha.test", `"a b"@alpha.test`} {
		if _, err := n.r.User(t.Context(), address, true); !errors.Is(err, ErrBadName) {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := n.r.User(t.Context(), "alice@plain.test", true); !errors.Is(err, ErrNotDIME) {
		t.Errorf("a domain without a record: %v", err)
	}
}

func last(list []*signet.Signet) *signet.Signet { return list[len(list)-1] }

func failing(verb, name string, err error) func(string, string) error {
	return func(v, n string) error {
		if v == verb && n == name {
			return err
		}
		return nil
	}
}

func TestUserCache(t *testing.T) {
	n, o := ready(t, "alpha.test", "")
	pair := newPair(t)
	first := o.user(alice, pair, nil)
	look := func(sending bool, want *signet.Signet, verdictWanted error, asked ...string) {
		t.Helper()
		n.asked = nil
		u, err := n.r.User(t.Context(), alice, sending)
		verdict(t, err, verdictWanted, "")
		if verdictWanted == nil && !same(u.Signet, want) {
			t.Error("another signet")
		}
		if got := slices.DeleteFunc(n.asked, func(q string) bool { return q == "VRFY alpha.test" }); !slices.Equal(got, asked) {
			t.Errorf("asked %q; want %q", got, asked)
		}
	}
	look(true, first, nil, "SGNT "+alice)
	look(true, first, nil)
	n.later(time.Hour - time.Second)
	look(true, first, nil)
	n.later(time.Second)
	look(false, first, nil) // a day is soon enough for reading
	look(true, first, nil, "VRFY "+alice)
	look(true, first, nil)

	second := o.user(alice, newPair(t), &pair.Signing)
	look(true, first, nil)
	n.later(time.Hour)
	look(true, second, nil, "VRFY "+alice, "SGNT "+alice)
	n.alarmed(t, "")

	n.rewrite = failing("VRFY", alice, errors.New("time-out"))
	n.later(time.Hour)
	look(true, second, nil, "VRFY "+alice)
	n.rewrite = nil
	n.deaf["dx.alpha.test"] = true
	n.later(24 * time.Hour)
	look(true, second, nil)
	look(false, second, nil)
	n.deaf["dx.alpha.test"] = false

	o.served[alice] = nil // vanished: both questions say so
	look(true, nil, ErrNoSignet, "VRFY "+alice, "SGNT "+alice)
	o.served[alice] = []*signet.Signet{second}
	look(true, nil, ErrNoSignet)
	n.later(noSignetTTL)
	look(true, second, nil, "SGNT "+alice)

	n.later(25 * 24 * time.Hour) // the hard time: nothing older than thirty days is used
	look(true, second, nil, "VRFY "+alice)
	n.rewrite = failing("VRFY", alice, errors.New("time-out"))
	n.later(5*24*time.Hour - time.Minute)
	look(true, second, nil, "VRFY "+alice)
	n.deaf["dx.alpha.test"] = true
	n.later(2 * time.Minute)
	look(true, nil, ErrTemporary)

	n, o = ready(t, "alpha.test", "")
	first = o.user(alice, newPair(t), nil)
	if _, err := n.r.User(t.Context(), alice, true); err != nil {
		t.Fatal(err)
	}
	n.r.Forget(alice)
	look(true, first, nil, "SGNT alpha.test", "SGNT "+alice)
	n.now = n.now.Add(-time.Hour)
	look(true, first, nil, "SGNT alpha.test", "SGNT "+alice)
}

// TestUserUnderNewOrg: the organisation signs with a key that its old signet does not have.
func TestUserUnderNewOrg(t *testing.T) {
	n, o := ready(t, "alpha.test", "")
	sok := newPair(t).Signing
	renewed, err := signet.NewOrg(o.pair, signet.Details{Name: "alpha.test", Secondary: []signet.SecondaryKey{{Permissions: signet.SignSignets, Key: sok.Public()}}})
	if err != nil {
		t.Fatal(err)
	}
	o.served["alpha.test"] = append(o.served["alpha.test"], renewed)
	s, err := signet.NewUser(newPair(t), signet.RequestDetails{}, sok, signet.Details{Name: alice})
	if err != nil {
		t.Fatal(err)
	}
	o.served[alice] = []*signet.Signet{s}
	n.later(2 * time.Minute)
	u, err := n.r.User(t.Context(), alice, true)
	if err != nil || !same(u.Org.Signet, renewed) {
		t.Fatalf("%v: the org signet is known since two minutes, and is old", err)
	}
	n.alarmed(t, "")
}

func TestByFingerprint(t *testing.T) {
	n, o := ready(t, "alpha.test", "")
	pair := newPair(t)
	first := o.user(alice, pair, nil)
	second := o.user(alice, newPair(t), &pair.Signing)
	other := o.user("bob@alpha.test", newPair(t), nil)
	firstOrg := o.signet
	n.later(2 * time.Minute)
	secondOrg := o.sign("alpha.test", signet.Field{ID: signet.FieldName, Value: []byte("Alpha")})
	for _, f := range []signet.Form{signet.Crypto, signet.Full, signet.ID} {
		for name, s := range map[string]*signet.Signet{"current": second, "past": first} {
			fp, _ := s.Fingerprint(f)
			u, err := n.r.UserByFingerprint(t.Context(), alice, fp)
			if err != nil || !same(u.Signet, s) {
				t.Errorf("%s, %v: %v", name, f, err)
			}
		}
		for name, s := range map[string]*signet.Signet{"current": secondOrg, "past": firstOrg} {
			fp, _ := s.Fingerprint(f)
			got, d, err := n.r.OrgByFingerprint(t.Context(), "alpha.test", fp)
			if err != nil || !has(got, fp) || d.Name != "alpha.test" || name == "past" && got.Form() != signet.ID {
				t.Errorf("org, %s, %v: %v", name, f, err)
			}
		}
		fp, _ := other.Fingerprint(f)
		_, err := n.r.UserByFingerprint(t.Context(), alice, fp)
		verdict(t, err, ErrNoSignet, "fingerprint")
		_, _, err = n.r.OrgByFingerprint(t.Context(), "alpha.test", fp)
		verdict(t, err, ErrNoSignet, "fingerprint")
	}
	n.alarmed(t, "")

	fp, _ := first.Fingerprint(signet.Crypto)
	t.Run("one who has left", func(t *testing.T) {
		n.r.Forget(alice)
		n.rewrite = failing("SGNT", alice, ErrNoSignet)
		defer func() { n.rewrite = nil }()
		if u, err := n.r.UserByFingerprint(t.Context(), alice, fp); err != nil || !same(u.Signet, first) || !u.Fresh.IsZero() {
			t.Errorf("%+v, %v", u, err)
		}
	})
	t.Run("a peer without histories", func(t *testing.T) {
		n.rewrite = failing("HIST", alice, errors.New("500"))
		defer func() { n.rewrite = nil }()
		_, err := n.r.UserByFingerprint(t.Context(), alice, fp)
		verdict(t, err, ErrUntrusted, "no name")
		n.alarms = nil
		id, _ := first.Fingerprint(signet.ID)
		if u, err := n.r.UserByFingerprint(t.Context(), alice, id); err != nil || !same(u.Signet, first) {
			t.Errorf("ID form: %v", err)
		}
	})
	t.Run("a POK that is retired", func(t *testing.T) {
		next := newOrg(t, "alpha.test")
		next.cert = o.cert
		next.served["alpha.test"] = append([]*signet.Signet{firstOrg}, next.served["alpha.test"]...)
		n.publish(t, next, txt(next.record("dx=dx.alpha.test")))
		n.later(time.Hour)
		fp, _ := firstOrg.Fingerprint(signet.Crypto)
		_, _, err := n.r.OrgByFingerprint(t.Context(), "alpha.test", fp)
		verdict(t, err, ErrUntrusted, "not in the management record")
	})
}

func TestHistory(t *testing.T) {
	n, o := ready(t, "alpha.test", "")
	var pairs []key.Pair
	var list []*signet.Signet
	for i := range 4 {
		pairs = append(pairs, newPair(t))
		var previous *key.Signing
		if i > 0 {
			previous = &pairs[i-1].Signing
		}
		list = append(list, o.user(alice, pairs[i], previous))
	}
	full := func(s *signet.Signet) signet.Fingerprint { fp, _ := s.Fingerprint(signet.Full); return fp }
	got, err := n.r.History(t.Context(), alice, full(list[1]))
	if err != nil || len(got) != 3 || !same(got[0], list[1]) || !same(got[2], list[3]) {
		t.Errorf("%d signets, %v", len(got), err)
	}
	if got, err = n.r.History(t.Context(), alice, full(list[3])); err != nil || len(got) != 1 {
		t.Errorf("from the current: %d signets, %v", len(got), err)
	}
	_, err = n.r.History(t.Context(), alice, full(o.signet))
	verdict(t, err, ErrNoSignet, "no history")

	tests := map[string]struct {
		served []*signet.Signet
		why    string
	}{
		"a link is missing":    {[]*signet.Signet{list[0], list[2], list[3]}, "custody"},
		"no custody":           {append(slices.Clone(list), o.user(alice, newPair(t), nil)), "custody"},
		"custody by a forger":  {append(slices.Clone(list), o.user(alice, newPair(t), &newPairOf(t).Signing)), "custody"},
		"backwards":            {[]*signet.Signet{list[0], list[1], list[0]}, "custody"},
		"another's":            {append(slices.Clone(list), o.user("bob@alpha.test", newPair(t), &pairs[3].Signing)), "another's"},
		"another organisation": {append(slices.Clone(list), newOrg(t, "alpha.test").user(alice, newPair(t), &pairs[3].Signing)), "does not hold"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o.served[alice] = tt.served
			n.alarms, n.r.alarms = nil, newCache(8, 1<<20, func(struct{}) int { return 1 })
			_, err := n.r.History(t.Context(), alice, full(list[0]))
			verdict(t, err, ErrUntrusted, tt.why)
			n.alarmed(t, "substitution")
		})
	}
	t.Run("across a change of the organisation's key", func(t *testing.T) {
		n, o := ready(t, "alpha.test", "")
		pair := newPair(t)
		first := o.user(alice, pair, nil)
		next := newOrg(t, "alpha.test")
		next.cert = o.cert
		next.served["alpha.test"] = append([]*signet.Signet{o.signet}, next.served["alpha.test"]...)
		next.served[alice] = []*signet.Signet{first}
		next.user(alice, newPair(t), &pair.Signing)
		n.publish(t, next, txt(next.record("dx=dx.alpha.test")))
		n.later(time.Hour)
		if got, err := n.r.History(t.Context(), alice, full(first)); err != nil || len(got) != 2 {
			t.Errorf("%d signets, %v", len(got), err)
		}
	})
}

func newPairOf(t *testing.T) *key.Pair { p := newPair(t); return &p }

func TestCurrent(t *testing.T) {
	n, o := ready(t, "alpha.test", "")
	pair := newPair(t)
	first := o.user(alice, pair, nil)
	second := o.user(alice, newPair(t), &pair.Signing)
	for s, want := range map[*signet.Signet]bool{first: false, second: true, o.signet: false} {
		fp, _ := s.Fingerprint(signet.Full)
		n.connect = nil
		if got, err := n.r.Current(t.Context(), alice, fp); err != nil || got != want || len(n.connect) != 1 {
			t.Errorf("%v, %v; want %v; connected to %v", got, err, want, n.connect)
		}
	}
	n.rewrite = failing("VRFY", alice, errors.New("time-out"))
	fp, _ := second.Fingerprint(signet.Full)
	_, err := n.r.Current(t.Context(), alice, fp)
	verdict(t, err, ErrTemporary, "")
	n.publish(t, o, txt(o.record("dx=dx.alpha.test dx=other.alpha.test")))
	n.dx["other.alpha.test"], n.rewrite, n.connect = o, nil, nil
	n.later(time.Hour)
	if got, err := n.r.Current(t.Context(), alice, fp); err != nil || !got || last2(n.connect) != "other.alpha.test" {
		t.Errorf("%v, %v, connected to %v: want the other host first", got, err, n.connect)
	}
}

func last2(s []string) string { return s[len(s)-1] }
