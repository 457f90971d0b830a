package appliance

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp"
	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
	"dimegate/internal/transcript"
	"dimegate/internal/vectors"
	"dimegate/trustful"
	"dimegate/vault"
)

// A recorded message's people.
type recordedActor struct{ Address, Keys, Signet string }

// recordedActors are those of the message in a file.
func recordedActors(t *testing.T, set *vectors.Set, file string) map[string]recordedActor {
	t.Helper()
	for _, raw := range vectors.Part[[]json.RawMessage](t, set, "messages") {
		var m struct {
			File   string
			Actors json.RawMessage
		}
		if json.Unmarshal(raw, &m) == nil && m.File == file {
			var actors map[string]recordedActor
			check(t, json.Unmarshal(m.Actors, &actors))
			return actors
		}
	}
	t.Fatalf("no message has the file %s", file)
	return nil
}

// recordedPair are the keys of a name in the manifest.
func recordedPair(t *testing.T, set *vectors.Set, name string) key.Pair {
	t.Helper()
	var owner struct {
		Seed   vectors.Hex `json:"sign_priv"`
		Scalar vectors.Hex `json:"enc_priv"`
	}
	check(t, json.Unmarshal(vectors.Part[map[string]json.RawMessage](t, set, "keys")[name], &owner))
	s, err := key.NewSigning(owner.Seed)
	check(t, err)
	e, err := key.NewEncryption(owner.Scalar)
	check(t, err)
	return key.Pair{Signing: s, Encryption: e}
}

// bring makes a site whose organisation and user are recorded ones.
func (s *site) bring(set *vectors.Set, org, user recordedActor) {
	t := s.world.t
	t.Helper()
	s.make(func(v *vault.Vault) {
		signetOf := func(a recordedActor) []byte {
			sig, err := signet.Decode(set.File(t, a.Signet))
			check(t, err)
			return sig.Bytes()
		}
		now := time.Now()
		pair := recordedPair(t, set, org.Keys)
		check(t, v.CreateOrg(t.Context(), org.Address, vault.OrgKeys{Primary: pair.Signing, Encryption: pair.Encryption}, signetOf(org), now))
		check(t, keystore.Keys{Vault: v}.Append(t.Context(), user.Address, trustful.Generation{Number: 1, Signet: signetOf(user), Made: now}, trustful.Keys{Pair: recordedPair(t, set, user.Keys)}))
	}, func(c *config.Config) { c.Alt.Mode = "off" }) // the organisation's signet is the recorded one, to the octet
	s.inner.only(user.Address)
	s.run(Options{})
}

// TestVectorsLibdime says to a whole gateway what libdime's tools said in the recordings, on 26 and on 25, and reads the
// answers as they do: signets of the organisation and a user, freshness, history, and a message that arrives. Keys, signets
// and the message are libdime's.
func TestVectorsLibdime(t *testing.T) {
	set := vectors.Open(t)
	scenarios := transcript.Scenarios(t, set)
	message := ""
	for _, s := range scenarios {
		if s.ReceivedEquals != "" {
			message = s.ReceivedEquals
		}
	}
	actors := recordedActors(t, set, message)
	w := newWorld(t, actors["origin"].Address, actors["destination"].Address)
	w.sites[0].bring(set, actors["origin"], actors["author"])
	w.sites[1].bring(set, actors["destination"], actors["recipient"])
	lookups, lines := 0, map[string]int{}
	for _, s := range scenarios {
		if s.ClientRC != 0 || len(s.ClientLines) == 0 { // where libdime gave up, the recorded server was at fault
			continue
		}
		for _, dual := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, dual %v", s.Name, dual), func(t *testing.T) {
				to := w.sites[0]
				if s.ReceivedEquals != "" {
					to = w.sites[1]
				}
				c := dialLibdime(t, to, dual)
				for _, l := range s.ClientLines {
					if !strings.HasPrefix(l, "STARTTLS") {
						lines[l[:4]]++
						lookups += c.say(set, actors, strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(l))
					}
				}
				if s.ReceivedEquals == "" {
					return
				}
				before := len(to.inner.messages())
				c.send(string(set.File(t, s.ReceivedEquals)) + "\r\n")
				r := c.record()
				// The same message comes twice in the recordings, and twice more: one arrives.
				if r.Code != 254 && r.Code != 255 || !regexp.MustCompile(`(?i)^OK\s+\[[^\]]+\]`).MatchString(r.Text) {
					t.Fatalf("the message: %d %s", r.Code, r.Text)
				}
				got := to.inner.messages()
				if r.Code == 254 && (len(got) != before+1 || !strings.HasPrefix(got[before], "X-DIME: yes; author="+actors["author"].Address+"; origin="+actors["origin"].Address+"\r\n")) {
					t.Errorf("arrived: %q", got[before:])
				}
			})
		}
	}
	if n := len(w.sites[1].inner.messages()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
	for _, verb := range []string{"SGNT", "VRFY", "HIST", "DATA"} {
		if lines[verb] == 0 {
			t.Errorf("no %s was recorded", verb)
		}
	}
	if lookups < 10 {
		t.Errorf("only %d signets", lookups)
	}
}

// A libdime is a client that reads as libdime does: what one read gives, which is one TLS record, must be one whole line.
type libdime struct {
	*talk
	site *site
}

func dialLibdime(t *testing.T, s *site, dual bool) *libdime {
	t.Helper()
	cfg := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}}
	c := &libdime{site: s}
	if dual {
		c.talk = call(t, s.dual(), "")
		if banner := strings.Fields(c.want("220 ")); !slices.Contains(banner[2:], "DMTPv1") {
			t.Errorf("banner %q", banner)
		}
		c.cmd("STARTTLS <"+s.host+"> MODE=DMTPv1", "220")
		c.secure(cfg)
		if r := c.record(); r.Code/100 != 2 || r.Text != "OK DMTPv1" {
			t.Errorf("after STARTTLS: %d %s", r.Code, r.Text)
		}
	} else {
		c.talk = call(t, s.single(), "").secure(cfg)
		if r := c.record(); r.Code != 220 || !slices.Contains(strings.Fields(r.Text)[1:], "DMTPv1") {
			t.Errorf("banner %d %s", r.Code, r.Text)
		}
	}
	if c.state.CipherSuite != 0xc030 || c.state.Version != tls.VersionTLS12 {
		t.Errorf("TLS %x, suite %x", c.state.Version, c.state.CipherSuite)
	}
	// libdime looks at the first signature alone.
	r, err := record.Parse(s.text)
	check(t, err)
	if r.TLS = r.TLS[:1]; !r.MatchesCertificate(c.state.PeerCertificates[0].Raw) {
		t.Error("the first tls value of the record is not for the certificate that libdime sees")
	}
	return c
}

// record reads one reply, a TLS record a line.
func (c *libdime) record() (r dmtp.Reply) {
	c.t.Helper()
	var texts []string
	for {
		buf := make([]byte, 64<<10)
		n, err := c.conn.Read(buf)
		line := string(buf[:n])
		if err != nil || n > dmtp.MaxReplySent || !strings.HasSuffix(line, "\r\n") || strings.Count(line, "\n") != 1 || n < 6 {
			c.t.Fatalf("one read gives %d octets, not one line: %.80q, %v", n, line, err)
		}
		fmt.Sscanf(line[:3], "%d", &r.Code)
		texts = append(texts, strings.TrimSuffix(line[4:], "\r\n"))
		if line[3] != '-' {
			r.Text = strings.Join(texts, "\n")
			return r
		}
	}
}

var (
	inBrackets = regexp.MustCompile(`\[([A-Za-z0-9+/=]{86,})\]`)
	domainIn   = regexp.MustCompile(`<[^>]*>`)
	needed     = map[string]*regexp.Regexp{
		"SGNT": regexp.MustCompile(`^OK\s*\[[A-Za-z0-9+/=]+\]$`), "VRFY": regexp.MustCompile(`(?i)^CURRENT`),
		"HIST": regexp.MustCompile(`^(\[[^\]]+\]\n)+OK$`), "DATA": regexp.MustCompile(`(?i)^CONTINUE\s+\[[^\]]+\]`),
	}
)

// say says a recorded line about the names and signets that there are, holds the answer to what libdime needs (dmtp.md
// §14.1), and tells how many signets were in it, all of them right.
func (c *libdime) say(set *vectors.Set, actors map[string]recordedActor, line string) (signets int) {
	c.t.Helper()
	verb, class := line[:4], 2
	user, err := signet.Decode(set.File(c.t, actors["author"].Signet))
	check(c.t, err)
	form := signet.Full
	switch verb {
	case "SGNT":
		form = signet.ID
	case "RCPT": // the recorded server took itself for the destination
		line = domainIn.ReplaceAllString(line, "<"+actors["destination"].Address+">")
	case "DATA":
		class = 3
	}
	fp, err := user.Fingerprint(form)
	check(c.t, err)
	c.send(inBrackets.ReplaceAllString(line, "["+fp.String()+"]"))
	r := c.record()
	if want := needed[verb]; r.Code/100 != class || want != nil && !want.MatchString(r.Text) {
		c.t.Fatalf("%s: libdime cannot use %d %.80q", verb, r.Code, r.Text)
	}
	org, err := signet.Decode(set.File(c.t, actors["origin"].Signet))
	check(c.t, err)
	for _, m := range inBrackets.FindAllStringSubmatch(r.Text, -1) {
		raw, err := base64.StdEncoding.DecodeString(m[1])
		check(c.t, err)
		got, err := signet.Parse(raw)
		check(c.t, err)
		want := org
		if strings.Contains(line, "@") {
			want = user
		}
		if string(got.Bytes()) != string(want.Bytes()) {
			c.t.Errorf("%s: another signet than %s", verb, want.Name())
		}
		signets++
	}
	return signets
}
