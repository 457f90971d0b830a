package appliance

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"dimegate/appliance/config"
	"dimegate/dmtp/signet"
)

// An addressKind is a row of the table in docs/operating.md, "Kinds of addresses".
type addressKind struct {
	name    string
	address string // reverse-path of what leaves, recipient of what comes; "": the null reverse-path
	from    string // the message's From; "": the address
	author  string // who signs what leaves, in X-DIME
	keysOf  string // whose keys those are: whose signet shows them
	comes   bool   // it is a recipient, too
}

var addressKinds = []addressKind{
	{"mailbox", "alice@alpha.example", "", "alice@alpha.example", "alice@alpha.example", true},
	{"alias of a mailbox", "al@alpha.example", "", "al@alpha.example", "al@alpha.example", true},
	{"sub-address", "alice+shop@alpha.example", "", "alice+shop@alpha.example", "alice@alpha.example", true},
	{"shared mailbox", "sales@alpha.example", "", "sales@alpha.example", "sales@alpha.example", true},
	{"distribution list", "everyone@alpha.example", "", "everyone@alpha.example", "everyone@alpha.example", true},
	{"a list's reverse-path for each member", "list-bounces+bob=bravo.example@alpha.example", "alice@alpha.example", "list-bounces+bob=bravo.example@alpha.example", "list-bounces@alpha.example", true},
	{"null reverse-path", "", "alice@alpha.example", "postmaster@alpha.example", "postmaster@alpha.example", false},
	{"null reverse-path, another domain", "", "alice@alias.example", "postmaster@alias.example", "postmaster@alias.example", false},
	{"null reverse-path, nobody of ours", "", "x@stranger.example", "postmaster@alpha.example", "postmaster@alpha.example", false},
	{"forwarded on", "someone@stranger.example", "", "postmaster@alpha.example", "postmaster@alpha.example", false},
	{"domain alias", "alice@alias.example", "", "alice@alias.example", "alice@alias.example", true},
	{"another organisation", "dora@other.example", "", "dora@other.example", "dora@other.example", true},
}

// TestAddresses sends mail from and to every kind of address, through whole gateways, and looks at who signed it, whose keys were
// used, and at which address it was handed over.
func TestAddresses(t *testing.T) {
	w := newWorld(t, "alpha.example", "alias.example", "other.example", "bravo.example")
	alpha, other, bravo := w.sites[0], w.sites[2], w.sites[3]
	other.inner = newMailServer(t)
	alpha.make(nil, func(c *config.Config) {
		c.Submission.Forwarding = true
		c.Organizations[0].Domains = append(c.Organizations[0].Domains, "alias.example")
		c.Organizations = append(c.Organizations, config.Organization{Domains: []string{"other.example"}, DX: []string{alpha.host}, Inner: other.inner.addr})
	})
	bravo.make(nil, nil)
	handed := recipients{}
	handed.of(alpha.inner, "alpha.example", "alias.example")
	handed.of(other.inner, "other.example")
	bravo.inner.only("bob@bravo.example")
	alpha.run(Options{})
	bravo.run(Options{})
	for i, k := range addressKinds {
		t.Run(k.name, func(t *testing.T) {
			from := k.from
			if from == "" {
				from = k.address
			}
			submit(t, alpha, k.address, "bob@bravo.example", fmt.Sprintf("From: %s\r\nSubject: out %d\r\n", from, i))
			got := arrived(t, bravo.inner, fmt.Sprintf("Subject: out %d\r\n", i))
			if origin := domainOf(k.author); !strings.Contains(got, "X-DIME: yes; author="+k.author+"; origin="+origin+"\r\n") {
				t.Errorf("author is not %s: %.200q", k.author, got)
			}
			full := func(name string) signet.Fingerprint {
				s, err := alpha.gateway.Signet(t.Context(), name)
				check(t, err)
				fp, err := s.Fingerprint(signet.Full)
				check(t, err)
				return fp
			}
			if full(k.author) != full(k.keysOf) {
				t.Errorf("the keys are not those of %s", k.keysOf)
			}
			if !k.comes {
				return
			}
			inner := alpha.inner
			if domainOf(k.address) == "other.example" {
				inner = other.inner
			}
			submit(t, bravo, "bob@bravo.example", k.address, fmt.Sprintf("From: bob@bravo.example\r\nSubject: in %d\r\n", i))
			if got := arrived(t, inner, fmt.Sprintf("Subject: in %d\r\n", i)); !strings.Contains(got, "X-DIME: yes; author=bob@bravo.example; ") {
				t.Errorf("came otherwise: %.200q", got)
			}
			if !handed.has(k.address) {
				t.Errorf("it was not handed over at %s", k.address)
			}
		})
	}
	t.Run("from one organisation to the other", func(t *testing.T) {
		submit(t, alpha, "alice@alpha.example", "dora@other.example", "From: alice@alpha.example\r\nSubject: across\r\n")
		if got := arrived(t, other.inner, "Subject: across\r\n"); !strings.Contains(got, "X-DIME: yes; author=alice@alpha.example; origin=alpha.example\r\n") {
			t.Errorf("came otherwise: %.200q", got)
		}
	})
}

// submit gives a message to a gateway as its mail server does. Fields are the first of its header.
func submit(t *testing.T, s *site, from, to, fields string) {
	t.Helper()
	addr, _ := s.gateway.Addresses()
	c := call(t, addr, "")
	c.want("220")
	c.cmd("EHLO inner", "250")
	c.send("MAIL FROM:<" + from + ">\r\nRCPT TO:<" + to + ">\r\n")
	c.want("250", "250")
	c.cmd("DATA", "354")
	c.send(fields + "Date: Tue, 01 Dec 2026 00:00:00 +0000\r\nMessage-ID: <1@inner.example>\r\n\r\nhello\r\n.\r\n")
	c.want("250")
}

// arrived waits for the message that holds a text.
func arrived(t *testing.T, m *mailServer, text string) (found string) {
	t.Helper()
	until(t, func() bool {
		all := m.messages()
		i := slices.IndexFunc(all, func(got string) bool { return strings.Contains(got, text) })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

// recipients are what mail servers were asked to take, octet for octet. It is made empty and not copied after of.
type recipients struct {
	mu  sync.Mutex
	all map[string]bool
}

// of has a mail server know the addresses of addressKinds in some domains.
func (r *recipients) of(m *mailServer, domains ...string) {
	m.rcpt = func(a string) error {
		if !slices.Contains(domains, domainOf(a)) || !slices.ContainsFunc(addressKinds, func(k addressKind) bool { return strings.EqualFold(k.address, a) }) {
			return errNobody
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.all == nil {
			r.all = map[string]bool{}
		}
		r.all[a] = true
		return nil
	}
}

func (r *recipients) has(address string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[address]
}
