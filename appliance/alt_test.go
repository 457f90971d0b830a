package appliance

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/bridge"
	"dimegate/bridge/queue"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/vault"
)

// pair is two gateways whose users write to each other, alpha and bravo, each with its own word on the alternate layer, "" for the
// default; what they send is recorded. Hurry may shorten what the queue waits below what a configuration may say.
func pair(t *testing.T, alpha, bravo string, hurry func(*config.Queue)) (w *world, sent func() [][]byte) {
	t.Helper()
	w = newWorld(t, "alpha.example", "bravo.example")
	var mu sync.Mutex
	var all [][]byte
	for i, mode := range []string{alpha, bravo} {
		w.sites[i].make(nil, func(c *config.Config) {
			if mode != "" {
				c.Alt.Mode = mode
			}
		})
		if hurry != nil {
			hurry(&w.sites[i].config.Queue)
		}
		w.sites[i].run(Options{Sealed: func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, b)
		}})
		w.sites[i].inner.only("bob@" + w.sites[i].domain)
	}
	return w, func() [][]byte {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// opened is a recorded message as its recipient's outer key alone opens it, every signature verified.
func opened(t *testing.T, w *world, octets []byte, from, to *site) *message.Opened {
	t.Helper()
	party := func(s *site, name string) message.Party {
		sig, err := s.gateway.Signet(t.Context(), name)
		check(t, err)
		return message.Party{Name: name, Signet: sig}
	}
	k, err := to.gateway.EncryptionKey(t.Context(), to.domain, "bob@"+to.domain)
	check(t, err)
	m, err := message.Parse(octets, message.Limits{})
	check(t, err)
	o, err := m.Open(message.Recipient, k)
	check(t, err)
	check(t, o.Verify(message.Parties{Author: party(from, "bob@"+from.domain), Origin: party(from, from.domain),
		Destination: party(to, to.domain), Recipient: party(to, "bob@"+to.domain)}))
	return o
}

// Two gateways use the layer by default, under a post-quantum suite; whoever has the outer key of a recorded message, or the inner
// one, reads nothing. One with the layer off and one with it on exchange mail as ever.
func TestAlternateLayer(t *testing.T) {
	for _, c := range []struct {
		alpha, bravo string
		suite        message.SuiteID
	}{{"", "", message.SuiteHybridAES}, {"", "off", 0}} { // both ways each
		t.Run("alpha "+c.alpha+", bravo "+c.bravo, func(t *testing.T) {
			w, sent := pair(t, c.alpha, c.bravo, nil)
			alpha, bravo := w.sites[0], w.sites[1]
			for _, way := range [][2]*site{{alpha, bravo}, {bravo, alpha}} {
				from, to := way[0], way[1]
				check(t, from.write("bob@"+to.domain))
				until(t, func() bool { return len(to.inner.messages()) == 1 })
				if got := to.inner.messages()[0]; !strings.HasSuffix(got, "Subject: x\r\n\r\nhello\r\n") || !strings.HasPrefix(got, "X-DIME: yes; author=bob@"+from.domain+"; origin="+from.domain+"\r\n") {
					t.Errorf("arrived: %q", got)
				}
				all := sent()
				o := opened(t, w, all[len(all)-1], from, to)
				_, err := o.Content()
				if c.suite == 0 {
					if err != nil {
						t.Errorf("without the layer: %v", err)
					}
					continue
				}
				if !errors.Is(err, message.AltNoKey) {
					t.Errorf("the outer key alone: %v", err)
				}
				other, err := from.gateway.LayerKeys(t.Context(), "bob@"+from.domain)
				check(t, err)
				o.UseLayer(other...)
				if _, err := o.Content(); !errors.Is(err, message.AltNoKey) {
					t.Errorf("with another's inner key: %v", err)
				}
				own, err := to.gateway.LayerKeys(t.Context(), "bob@"+to.domain)
				check(t, err)
				o.UseLayer(own...)
				if content, err := o.Content(); err != nil || o.Layer() != c.suite || !strings.Contains(string(content.Common), "Subject: x") {
					t.Errorf("with both: %v, under %v", err, o.Layer())
				}
			}
			explain(t, alpha, "bob@bravo.example", c.suite)
		})
	}
}

// explain asks what would become of a message now.
func explain(t *testing.T, s *site, to string, suite message.SuiteID) {
	t.Helper()
	e, err := OpenExplainer(t.Context(), s.config, Options{Dial: s.world.dial})
	check(t, err)
	defer e.Close()
	got, err := e.Explain(t.Context(), bridge.Question{Sender: "bob@" + s.domain, Recipient: to})
	check(t, err)
	want := "none"
	if suite != 0 {
		want = suite.Digits() + " " + suite.String()
	}
	if got.Action != "dmtp" || got.Suite != want {
		t.Errorf("explains %q, under %q, want %q", got.Action, got.Suite, want)
	}
}

// Where one side requires the layer and the other has it off, mail is held for trust in both directions, and then returned with a
// reason that its sender understands.
func TestAlternateLayerRequired(t *testing.T) {
	w, sent := pair(t, "required", "off", func(q *config.Queue) {
		q.TrustLife, q.Schedule = time.Second, []time.Duration{200 * time.Millisecond}
	})
	for i, from := range w.sites {
		to := w.sites[1-i]
		to.known(t) // its user has keys, so that his word counts
		check(t, from.write("bob@"+to.domain))
		var row queue.Info
		until(t, func() bool {
			list, err := from.gateway.tenants[0].queue.List(t.Context(), "", "", 1)
			if err != nil || len(list) != 1 || list[0].Attempts == 0 {
				return false
			}
			row = list[0]
			return true
		})
		if row.Class != queue.Trust.String() || row.Status != "5.7.10" || !strings.HasPrefix(row.Reason, "a second layer of encryption is required for mail to this recipient") {
			t.Errorf("%s: %+v", from.domain, row)
		}
		e, err := OpenExplainer(t.Context(), from.config, Options{Dial: w.dial})
		check(t, err)
		got, err := e.Explain(t.Context(), bridge.Question{Sender: "bob@" + from.domain, Recipient: "bob@" + to.domain})
		check(t, errors.Join(err, e.Close()))
		if got.Action != "hold" || got.Status != "5.7.10" || !strings.HasPrefix(got.Reason, "a second layer of encryption is required for mail to this recipient") || got.Suite != "" {
			t.Errorf("%s explains %+v", from.domain, got)
		}
	}
	for _, from := range w.sites {
		until(t, func() bool { return len(from.inner.messages()) == 1 })
		dsn := strings.Join(strings.Fields(from.inner.messages()[0]), " ")
		if !strings.Contains(dsn, "Status: 5.7.10") || !strings.Contains(dsn, "a second layer of encryption is required for mail to this recipient, and his published keys offer none that may be used.") {
			t.Errorf("%s got %s", from.domain, dsn)
		}
	}
	if len(sent()) != 0 {
		t.Error("something left")
	}
}

// known has a user's keys made, by asking for his signet.
func (s *site) known(t *testing.T) {
	t.Helper()
	_, err := s.gateway.Signet(t.Context(), "bob@"+s.domain)
	check(t, err)
}

// An organisation from before the layer gets its policy into the signet at the start, once; another word changes it, "off" takes it
// out; the keys stay.
func TestOrganizationSaysLayer(t *testing.T) {
	s := newWorld(t, "alpha.example").sites[0]
	s.make(func(v *vault.Vault) {
		_, err := keystore.CreateOrganization(t.Context(), v, "alpha.example", "Alpha", time.Now())
		check(t, err)
	}, nil)
	said := func(mode string, signets int, want string) {
		t.Helper()
		s.config.Alt.Mode = mode
		s.run(Options{})
		all, err := s.gateway.tenants[0].orgs.Signets(t.Context(), "alpha.example")
		check(t, err)
		now, got := all[len(all)-1], ""
		for _, f := range now.Fields() {
			if f.ID == signet.FieldNamed && f.Name == "Alternate-Policy" {
				got = string(f.Value)
			}
		}
		if got != want || len(all) != signets || now.EncryptionKey() != all[0].EncryptionKey() || len(now.SecondaryKeys()) != 1 || now.Form() != signet.ID {
			t.Errorf("%s: %d signets, says %q", mode, len(all), got)
		}
		if name, _ := now.Field(signet.FieldName); string(name) != "Alpha" {
			t.Errorf("%s: named %q", mode, name)
		}
		s.stop()
	}
	said("off", 1, "")
	said("opportunistic", 2, "v=1; suites=0201,0202,0101; require=no")
	said("opportunistic", 2, "v=1; suites=0201,0202,0101; require=no")
	said("required", 3, "v=1; suites=0201,0202,0101; require=yes")
	said("off", 4, "")
}

// A suite that the program has not stops the start, with the key and the remedy.
func TestUnknownSuite(t *testing.T) {
	s := newWorld(t, "alpha.example").sites[0]
	s.make(nil, nil)
	s.config.Alt.Suites = []string{"0201", "f00d"}
	_, err := Open(t.Context(), s.config, Options{})
	if err == nil || !strings.Contains(err.Error(), `alt.suites: "f00d" is none of the suites that this program has: 0201, 0202, 0101`) {
		t.Errorf("%v", err)
	}
}

// What cannot be opened under the layer stays with its origin; what must not come without it is refused.
func TestAltErrors(t *testing.T) {
	for class, want := range map[message.Class]error{message.AltUnknown: dmtpserver.ErrDeferred, message.AltNoKey: dmtpserver.ErrDeferred,
		message.AltAuth: dmtpserver.ErrDeferred, message.AltPolicy: dmtpserver.ErrRefused} {
		if err := openError(&message.Error{Class: class}); !errors.Is(err, want) || errors.Is(err, dmtpserver.ErrAuthorSignature) {
			t.Errorf("%v: %v", class, err)
		}
	}
}
