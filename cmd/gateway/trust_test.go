package main

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp/resolver"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
)

func TestTrust(t *testing.T) {
	path := initKeys(t)
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	trusted, other := keyPair(t).Signing.Public(), keyPair(t).Signing.Public()
	text := base64.RawStdEncoding.EncodeToString(other[:])
	v, err := keystore.Open(t.Context(), c.Vault, false)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	pin := &resolver.Pin{Domain: "peer.example", Policy: "strict", Best: resolver.Insecure, First: now, Last: now, Until: now.AddDate(0, 1, 0), Gone: now,
		POKs: []resolver.POKPin{{Key: trusted, Text: base64.RawStdEncoding.EncodeToString(trusted[:]), Trusted: true, How: "first use", First: now, Last: now},
			{Key: other, Text: text, First: now, Last: now}}, Orgs: []resolver.OrgPin{{ID: "fingerprint", At: now, How: "first use"}}}
	if err := (keystore.DomainPins{Vault: v.Vault}).SetPin(t.Context(), pin); err != nil {
		t.Fatal(err)
	}
	v.Close()
	hash := strings.Repeat("0a", 32)
	tests := []struct {
		name string
		args []string
		code int
		want []string
		not  string
	}{
		{"list", []string{"list"}, 0, []string{"peer.example", "insecure", "strict", "1 keys", "no record since"}, "%!"},
		{"list as JSON", []string{"list", "--json"}, 0, []string{`"domain":"peer.example"`, `"dnssec":"insecure"`}, "%!"},
		{"list one", []string{"list", "Peer.Example"}, 0, []string{text, "NOT ACCEPTED, seen since", "accepted: first use", "gone since"}, "override"},
		{"list a stranger", []string{"list", "nowhere.example"}, 1, []string{"nothing is pinned"}, "%!"},
		{"list an unknown user", []string{"list", "bob@peer.example"}, 1, []string{"nothing is pinned"}, "%!"},
		{"list no name", []string{"list", "a b"}, 2, []string{"is not a domain"}, "%!"},

		{"accept without a reason", []string{"accept", "peer.example"}, 2, []string{"say why"}, "%!"},
		{"accept nobody", []string{"accept", "--why", "w"}, 2, []string{"give one name"}, "%!"},
		{"accept for ever", []string{"accept", "--why", "w", "--permit", "smtp", "peer.example"}, 2, []string{"--permit and --for go together"}, "%!"},
		{"accept for too long", []string{"accept", "--why", "w", "--permit", "smtp", "--for", "3000h", "peer.example"}, 2, []string{"at most 2160h"}, "%!"},
		{"accept anything", []string{"accept", "--why", "w", "--permit", "anything", "--for", "1h", "peer.example"}, 2, []string{"one of record-vanished"}, "%!"},
		{"accept a short key", []string{"accept", "--why", "w", "--pok", "abc", "peer.example"}, 2, []string{"43 characters"}, "%!"},
		{"accept a short certificate", []string{"accept", "--why", "w", "--certificate", "0a", "peer.example"}, 2, []string{"64 hexadecimal"}, "%!"},
		{"accept a stranger's keys", []string{"accept", "--why", "w", "nowhere.example"}, 1, []string{"no key waits"}, "%!"},
		{"accept a stranger's certificate", []string{"accept", "--why", "w", "--certificate", hash, "nowhere.example"}, 1, []string{"never met"}, "%!"},
		{"accept a user's POK", []string{"accept", "--why", "w", "--pok", text, "bob@peer.example"}, 2, []string{"are for domains"}, "%!"},

		{"accept what waits", []string{"accept", "--why", "told by telephone", "peer.example"}, 0, []string{"accepted: keys " + text}, "%!"},
		{"accept it again", []string{"accept", "--why", "w", "peer.example"}, 1, []string{"no key waits"}, "%!"},
		{"permit", []string{"accept", "--json", "--why", "their DNS is broken", "--by", "carol", "--permit", "smtp", "--for", "24h", "peer.example"}, 0, []string{`"what":"smtp"`, `"by":"carol"`}, "%!"},
		{"accept a certificate", []string{"accept", "--why", "w", "--certificate", hash, "peer.example"}, 0, []string{"certificate " + hash}, "%!"},
		{"list what was accepted", []string{"list", "peer.example"}, 0, []string{"accepted: manual", "smtp until", "by carol: their DNS is broken", hash}, "NOT ACCEPTED"},
		{"permit for a stranger", []string{"accept", "--why", "w", "--permit", "smtp", "--for", "1h", "nowhere.example"}, 0, []string{"accepted: smtp"}, "%!"},
		{"trust a stranger's key", []string{"accept", "--why", "w", "--pok", text, "new.example"}, 0, []string{"accepted: keys"}, "%!"},
		{"list them", []string{"list"}, 0, []string{"nowhere.example", "new.example", "peer.example"}, "%!"},
		{"list the stranger", []string{"list", "nowhere.example"}, 0, []string{"smtp until"}, "record"},

		{"forget without a reason", []string{"forget", "peer.example"}, 2, []string{"say why"}, "%!"},
		{"forget", []string{"forget", "--why", "gone", "peer.example"}, 0, []string{"the next meeting is the first"}, "%!"},
		{"forget again", []string{"forget", "--why", "gone", "peer.example"}, 1, []string{"nothing is pinned"}, "%!"},
		{"list no more", []string{"list"}, 0, nil, "peer.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := cli(t, append([]string{"trust", tt.args[0], "--config", path}, tt.args[1:]...)...)
			if code != tt.code {
				t.Fatalf("exit %d, want %d: %s%s", code, tt.code, out, errs)
			}
			for _, w := range tt.want {
				if !strings.Contains(out+errs, w) {
					t.Errorf("no %q in\n%s%s", w, out, errs)
				}
			}
			if strings.Contains(out+errs, tt.not) {
				t.Errorf("%q in\n%s%s", tt.not, out, errs)
			}
		})
	}
	if v, err = keystore.Open(t.Context(), c.Vault, false); err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	leaves, err := v.LogLeaves(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	decisions := 0
	for _, l := range leaves {
		if l[4] == 64 {
			decisions++
		}
	}
	if decisions != 6 {
		t.Errorf("%d decisions in the log; want 6", decisions)
	}
}

// TestTrustUser accepts a user's signet that took the place of another without custody.
func TestTrustUser(t *testing.T) {
	path := initKeys(t)
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	at, dial, _, s := foreign(t)
	c.DNS, c.DMTP.Permit = at.DNS, at.DMTP.Permit
	v, err := keystore.Open(t.Context(), c.Vault, false)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	pins := trustful.NewPins(keystore.Pins{Vault: v.Vault}, nil, time.Now)
	before, err := signet.NewUser(keyPair(t), signet.RequestDetails{}, keyPair(t).Signing, signet.Details{Name: "alice@alpha.test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := pins.Accept(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	a := acceptance{by: "carol", why: "told by telephone", dial: dial}
	d, err := a.user(t.Context(), c, v, "Alice@alpha.test")
	if err != nil || d.Domain != "alpha.test" || !strings.HasPrefix(d.What, "user signet ") {
		t.Fatalf("%+v, %v", d, err)
	}
	list, _, err := keystore.Pins{Vault: v.Vault}.Pins(t.Context(), "alice@alpha.test")
	id, _ := s.names["alice@alpha.test"].Fingerprint(signet.ID)
	if err != nil || len(list) != 2 || list[1].ID != id || list[1].How != trustful.Manual {
		t.Errorf("%d pins, %v", len(list), err)
	}
	if _, err := a.user(t.Context(), c, v, "bob@alpha.test"); err == nil {
		t.Error("accepted one who is not there")
	}
	leaves, err := v.LogSize(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{0, 1} { // forgotten once, then there is nothing
		code, out, errs := cli(t, "trust", "forget", "--config", path, "--why", "new computer", "Alice@alpha.test")
		if code != want || (want == 0) != strings.Contains(out, "alice@alpha.test: forgotten") || (want == 1) != strings.Contains(errs, "nothing is pinned") {
			t.Errorf("time %d: exit %d: %s%s", i, code, out, errs)
		}
	}
	if list, doubt, err := (keystore.Pins{Vault: v.Vault}).Pins(t.Context(), "alice@alpha.test"); err != nil || len(list) > 0 || doubt != nil {
		t.Errorf("%d pins left, doubt %v, %v", len(list), doubt, err)
	}
	if n, err := v.LogSize(t.Context()); err != nil || n != leaves+1 {
		t.Errorf("%d leaves more, %v", n-leaves, err)
	}
}
