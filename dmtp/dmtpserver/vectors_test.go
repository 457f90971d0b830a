package dmtpserver

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dimegate/dmtp"
	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/internal/testcert"
	"dimegate/internal/transcript"
	"dimegate/internal/vectors"
)

// lying are the dialogues in which the recorded server does not tell the truth about the name: ours does.
var lying = vectors.Exceptions{
	"user-lookup-fingerprint-mismatch": "another signet than the one with that fingerprint",
	"sgnt-other-user-same-org":         "another user's signet",
	"sgnt-crypto-split":                "the crypto form, when nobody asked for it; we serve the ID form",
	"vrfy-update":                      "an update to the crypto fingerprint of the same signet, which is current",
}

// TestVectorsServer says to our server what libdime's client said, over TLS as it has it, and reads the answers as it does.
func TestVectorsServer(t *testing.T) {
	set := vectors.Open(t)
	known := signetsOf(t, set)
	var names []string
	vectors.Each(t, transcript.Scenarios(t, set), func(s transcript.Scenario) string { return s.Name }, func(t *testing.T, s transcript.Scenario) {
		names = append(names, s.Name)
		e := newEcho(t, set, known, s)
		r := run(t, e.config(t, s))
		c := e.connect(t, r, s)
		if c == nil {
			return
		}
		e.replay(t, c, s)
	})
	lying.Stale(t, set, names)
}

// signetsOf are the set's signets in ID form, by each of their fingerprints.
func signetsOf(t *testing.T, set *vectors.Set) map[string]*signet.Signet {
	list := vectors.Part[[]json.RawMessage](t, set, "signets")
	known := make(map[string]*signet.Signet)
	for _, raw := range list {
		var entry struct{ File, Kind string }
		if err := json.Unmarshal(raw, &entry); err != nil {
			t.Fatal(err)
		}
		if s, err := signet.Decode(set.File(t, entry.File)); err == nil && s.Form() == signet.ID {
			for _, f := range forms {
				known[fpOf(t, s, f)] = s
			}
		}
	}
	if len(known) == 0 {
		t.Fatal("no signets")
	}
	return known
}

// An echo is a backend that knows of each name what the recorded server said of it.
type echo struct {
	*backend
	chains map[string][]*signet.Signet
	keys   []OrganizationKey
	origin *signet.Signet
	names  []string // of the host
}

func (e *echo) Current(ctx context.Context, name string) (*signet.Signet, error) {
	chain, err := e.Chain(ctx, name)
	if err != nil {
		return nil, err
	}
	return chain[len(chain)-1], nil
}

func (e *echo) Chain(_ context.Context, name string) ([]*signet.Signet, error) {
	if chain := e.chains[name]; len(chain) > 0 {
		return chain, nil
	}
	return nil, ErrNotFound
}

func (e *echo) Organization(context.Context, string) (*Organization, error) {
	return &Organization{Keys: e.keys}, nil
}

func (e *echo) OriginSignet(context.Context, string, string, signet.Fingerprint, func() bool) (*signet.Signet, error) {
	return e.origin, nil
}

var brackets = regexp.MustCompile(`\[([A-Za-z0-9+/=]{100,})\]`)

func newEcho(t *testing.T, set *vectors.Set, known map[string]*signet.Signet, s transcript.Scenario) *echo {
	t.Helper()
	e := &echo{backend: newBackend(newWorld(t, 1)), chains: make(map[string][]*signet.Signet)}
	asked := ""
	for _, step := range s.Steps {
		if step.Kind == transcript.Client {
			asked = ""
			switch c, _ := dmtp.Parse(strings.TrimSpace(step.Octets)); c := c.(type) {
			case dmtp.Sgnt:
				asked = c.Name
			case dmtp.Hist:
				asked = c.Name
			case dmtp.Vrfy:
				e.chains[c.Name] = append(e.chains[c.Name], known[string(c.Signet)])
				asked = c.Name
			case dmtp.StartTLS:
				e.names = append(e.names, c.Host)
			}
			continue
		}
		for _, m := range brackets.FindAllStringSubmatch(step.Octets, -1) {
			raw, _ := base64.StdEncoding.DecodeString(m[1])
			if sig, err := signet.Parse(raw); err == nil && sig.Name() == asked {
				e.chains[asked] = append(e.chains[asked], sig)
			}
		}
		if _, fp, ok := strings.Cut(step.Octets, "UPDATE ["); ok && asked != "" {
			e.chains[asked] = append(e.chains[asked], known[fp[:dmtp.TokenLen]])
		}
		if asked != "" && strings.HasPrefix(step.Octets, "5") {
			delete(e.chains, asked)
		}
	}
	for _, sig := range known { // the recorded server said nothing usable
		if asked != "" && e.chains[asked] == nil && sig.Name() == asked && s.ClientRC == 0 {
			e.chains[asked] = []*signet.Signet{sig}
		}
	}
	if s.ReceivedEquals != "" {
		e.learn(t, set, s.ReceivedEquals)
	}
	return e
}

type actor struct{ Address, Keys, Signet string }

// learn takes origin and destination of the message in file from the manifest.
func (e *echo) learn(t *testing.T, set *vectors.Set, file string) {
	t.Helper()
	for _, raw := range vectors.Part[[]json.RawMessage](t, set, "messages") {
		var m struct {
			File   string
			Actors json.RawMessage
		}
		if json.Unmarshal(raw, &m) != nil || m.File != file {
			continue
		}
		var actors map[string]actor
		if err := json.Unmarshal(m.Actors, &actors); err != nil {
			t.Fatal(err)
		}
		ok := must[*signet.Signet](t)
		e.origin = ok(signet.Decode(set.File(t, actors["origin"].Signet)))
		e.keys = []OrganizationKey{{Signet: ok(signet.Decode(set.File(t, actors["destination"].Signet)))}}
		e.names = append(e.names, actors["destination"].Address)
		keys := vectors.Part[map[string]json.RawMessage](t, set, "keys")
		var owner struct {
			Scalar vectors.Hex `json:"enc_priv"`
		}
		if err := json.Unmarshal(keys[actors["destination"].Keys], &owner); err != nil {
			t.Fatal(err)
		}
		e.keys[0].Key = must[key.Encryption](t)(key.NewEncryption(owner.Scalar))
		return
	}
	t.Fatalf("no message has the file %s", file)
}

func (e *echo) config(t *testing.T, s transcript.Scenario) Config {
	c := e.backend.config(t)
	certs, err := NewCertificates(Host{Names: append([]string{"dx.b.example"}, e.names...), Certificates: []tls.Certificate{testcert.ECDSA(t, "dx"), testcert.RSA(t, "dx")}})
	if err != nil {
		t.Fatal(err)
	}
	c.Certificates, c.Directory, c.Domains, c.Origins = certs, e, e, e
	c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	return c
}

// connect goes as far as libdime's client needs before its first command.
func (e *echo) connect(t *testing.T, r *running, s transcript.Scenario) *wire {
	if !s.Connected {
		return nil
	}
	addr := r.single
	if s.Dual() {
		addr = r.dual
	}
	c := dialClear(t, addr)
	var state tls.ConnectionState
	if s.Dual() {
		banner(t, textOf(c.want("220")))
		for _, l := range s.ClientLines[:1] {
			c.send(strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(l))
		}
		for strings.HasPrefix(c.want("220"), "220-") { // in clear, where a read gives what it likes; it is short
		}
		state = c.upgrade("")
		if r := c.reply(); r.Code/100 != 2 || r.Text != "OK DMTPv1" {
			t.Fatalf("after STARTTLS: %d %s", r.Code, r.Text)
		}
	} else {
		state = c.upgrade("dx.b.example")
		banner(t, c.reply())
	}
	if state.CipherSuite != tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 || state.Version != tls.VersionTLS12 {
		t.Errorf("TLS %x, suite %x", state.Version, state.CipherSuite)
	}
	return c
}

func banner(t *testing.T, r dmtp.Reply) {
	t.Helper()
	fields := strings.Fields(r.Text)
	if r.Code != 220 || strings.Contains(r.Text, "\n") || len(fields) < 2 || !slices.Contains(fields[1:], "DMTPv1") {
		t.Fatalf("banner %d %q", r.Code, r.Text)
	}
}

// reply reads a reply as libdime does: what one read gives, which is one TLS record, must be one whole line of at most 4095
// octets.
func (w *wire) reply() dmtp.Reply {
	w.tb.Helper()
	var all strings.Builder
	for {
		buf := make([]byte, 64<<10)
		n, err := w.Conn.Read(buf)
		if n == 0 {
			w.tb.Fatalf("reading a reply: %v", err)
		}
		line := string(buf[:n])
		if n > dmtp.MaxReplySent || !strings.HasSuffix(line, "\r\n") || strings.Count(line, "\n") != 1 || n < 6 {
			w.tb.Fatalf("one read gives %d octets, not one line: %.80q", n, line)
		}
		all.WriteString(line)
		if line[3] != '-' {
			break
		}
	}
	lines := strings.Split(strings.TrimSuffix(all.String(), "\r\n"), "\r\n")
	r := dmtp.Reply{}
	for i, l := range lines {
		code := 0
		fmt.Sscanf(l[:3], "%d", &code)
		if i > 0 && code != r.Code {
			w.tb.Fatalf("codes differ: %d, %d", r.Code, code)
		}
		r.Code = code
		lines[i] = l[4:]
	}
	r.Text = strings.Join(lines, "\n")
	return r
}

// replay says the recorded lines and holds the answers against what the client needs, and where the recorded server told the
// truth against what it said.
func (e *echo) replay(t *testing.T, c *wire, s transcript.Scenario) {
	var recorded []dmtp.Reply
	said := ""
	for _, step := range s.Steps {
		switch {
		case step.Kind == transcript.Client:
			said = step.Octets
		case step.Kind == transcript.Server && said != "" && !strings.HasPrefix(said, "STARTTLS"):
			recorded = append(recorded, textOf(step.Octets))
		}
	}
	lines := s.ClientLines
	if s.Dual() {
		lines = lines[1:]
	}
	for i, l := range lines {
		line := strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(l)
		if strings.HasPrefix(line, "RCPT") && s.ReceivedEquals != "" { // the recorded server is not the message's destination
			line = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(line, "<"+e.names[len(e.names)-1]+">")
		}
		c.send(line)
		r := c.reply()
		verb := line[:4]
		if err := needs(verb, r); err != nil && s.ClientRC == 0 && !(lying.Has(t, s.Name) && r == dmtp.ReplyNoSignet) {
			t.Fatalf("%s: libdime cannot use %d %.80q: %v", verb, r.Code, r.Text, err)
		}
		if lookup := slices.Contains([]string{"SGNT", "VRFY", "HIST"}, verb); lookup && s.ClientRC == 0 && !lying.Has(t, s.Name) && r.Text != recorded[i].Text {
			t.Errorf("%s: answered\n %.200q\nrecorded\n %.200q", verb, r.Text, recorded[i].Text)
		} else if lookup && r.Code/100 != 2 && r != dmtp.ReplyNoSignet {
			t.Errorf("%s: %d %s", verb, r.Code, r.Text)
		}
	}
	if s.ReceivedEquals != "" {
		e.send(t, c, s)
	} else if s.ClientRC == 0 {
		c.send("NOOP\r\n") // in step
		if r := c.reply(); r != dmtp.ReplyOK {
			t.Errorf("NOOP: %d %s", r.Code, r.Text)
		}
	}
}

func (e *echo) send(t *testing.T, c *wire, s transcript.Scenario) {
	message := string(vectors.Open(t).File(t, s.ReceivedEquals))
	c.send(message + "\r\n")
	if r := c.reply(); r.Code != 254 || needs("data", r) != nil {
		t.Fatalf("the message: %d %s", r.Code, r.Text)
	}
	if got := e.messages(); len(got) != 1 || got[0] != message {
		t.Error("it did not arrive as it was sent")
	}
	c.send("QUIT\r\n")
	if r := c.reply(); r != dmtp.ReplyBye {
		t.Errorf("QUIT: %d %s", r.Code, r.Text)
	}
}

func textOf(octets string) (r dmtp.Reply) {
	var lines []string
	for l := range strings.SplitSeq(strings.TrimSpace(octets), "\r\n") {
		fmt.Sscanf(l[:3], "%d", &r.Code)
		lines = append(lines, l[4:])
	}
	r.Text = strings.Join(lines, "\n")
	return r
}

var (
	needSGNT = regexp.MustCompile(`^OK\s*\[[A-Za-z0-9+/=]+\]$`)
	needVRFY = regexp.MustCompile(`(?i)^(CURRENT|UPDATE\s+\S+)`)
	needHIST = regexp.MustCompile(`^(\[[^\]]+\]\n)+OK$`)
	need354  = regexp.MustCompile(`(?i)^CONTINUE\s+\[[^\]]+\]`)
	needDATA = regexp.MustCompile(`(?i)^OK\s+\[[^\]]+\]`)
)

// needs is what libdime's client insists on: dmtp.md §14.1.
func needs(verb string, r dmtp.Reply) error {
	want, class, multi := map[string]*regexp.Regexp{"SGNT": needSGNT, "VRFY": needVRFY, "HIST": needHIST, "DATA": need354, "data": needDATA}[verb], 2, verb == "EHLO" || verb == "HIST"
	if verb == "DATA" {
		class = 3
	}
	switch {
	case r.Code/100 != class:
		return fmt.Errorf("code %d", r.Code)
	case !multi && strings.Contains(r.Text, "\n"):
		return fmt.Errorf("several lines")
	case want != nil && !want.MatchString(r.Text):
		return fmt.Errorf("text not as needed")
	}
	return nil
}
