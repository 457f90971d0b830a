package dmtpclient

import (
	"bytes"
	"crypto/tls"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dimegate/dmtp"
	"dimegate/internal/testcert"
	"dimegate/internal/transcript"
	"dimegate/internal/vectors"
)

// otherwise are the recorded dialogues that end for our client in another way than for libdime's.
var otherwise = vectors.Exceptions{
	"banner-lf-only":         "a bare LF ends a line for us; libdime hangs",
	"data-354-bare":          "any 3xx means go on; libdime wants CONTINUE and a bracket",
	"data-no-transaction":    "any 2xx means accepted; libdime wants a bracket",
	"tls13-only-server":      "we speak TLS 1.3",
	"ecdsa-certificate":      "we speak the ECDSA suites",
	"sgnt-wrong-org":         "what a signet is worth is for the resolver to say, not for the transport",
	"sgnt-user-of-other-org": "what a signet is worth is for the resolver to say, not for the transport",
}

// classes are the classes of the failures.
var classes = map[string]Class{
	"banner-without-dmtpv1": Network, "banner-554": Network, "banner-dmtpv1-only": Network, "starttls-refused": Network,
	"sgnt-550": Permanent, "vrfy-unknown": Permanent, "mail-550": Permanent, "rcpt-550": Permanent, "data-rejected": Permanent,
	"sgnt-unbracketed": Protocol, "sgnt-lowercase-ok": Protocol, "sgnt-multiline": Protocol, "sgnt-large": Protocol,
	"tls12-aes128-only": Network, "tls12-cbc-only": Network,
	"no-tls-signature-selfsigned": Trust, "tls-signature-of-other-cert": Trust, "untrusted-record-selfsigned": Trust, "dns-no-dx-no-mx": Trust,
}

// TestVectorsClient plays the recorded server to our client, which does what libdime's tool did there.
func TestVectorsClient(t *testing.T) {
	set := vectors.Open(t)
	scenarios := transcript.Scenarios(t, set)
	var names []string
	vectors.Each(t, scenarios, func(s transcript.Scenario) string { return s.Name }, func(t *testing.T, s transcript.Scenario) {
		names = append(names, s.Name)
		if !s.Connected {
			t.Log("no connection was made: a matter of the resolver")
			if len(s.Steps) > 0 {
				t.Error("but there is a dialogue")
			}
			return
		}
		replay(t, set, s)
	})
	otherwise.Stale(t, set, names)
}

func replay(t *testing.T, set *vectors.Set, s transcript.Scenario) {
	_, options, _ := s.Command()
	p := start(t, func(l *link) { play(l, s) })
	target := Target{Domain: "origin.example", Hosts: []Host{{Name: "dx.example", Dual: s.Dual()}}, Verify: accept}
	if options["-x"]+options["-d"] != "" {
		target.Hosts[0].Name = options["-x"]
		if options["-x"] == "" {
			target.Hosts[0].Name = options["-d"]
		}
	} else if s.Dual() {
		target.Hosts[0].Name = hostIn(s)
	}
	certRefused := slices.ContainsFunc(s.ClientErrors, func(e string) bool { return strings.Contains(e, "DX certificate verification failed") })
	if certRefused {
		target.Verify = refuse
	}
	c := client(t, func(o *Options) {
		o.Port, o.DualPort = p.port, closedPort(t)
		if s.Dual() {
			o.Port, o.DualPort = closedPort(t), p.port
		}
	})
	err := act(t, set, c, target, s)
	if class, ok := classes[s.Name]; err != nil && ok && ClassOf(err) != class {
		t.Errorf("class %v, want %v", ClassOf(err), class)
	}
	if failed, wanted := err != nil, (s.ClientRC != 0) != otherwise.Has(t, s.Name); failed != wanted {
		t.Errorf("error %v; libdime's client ended with %d", err, s.ClientRC)
	}
	if certRefused && len(p.got.all()) > 0 {
		t.Errorf("said %q to a server whose certificate was refused", p.got.all())
	}
	want := slices.Clone(s.ClientLines)
	got := p.got.all()
	got = slices.DeleteFunc(got, func(l string) bool { return l == "QUIT\r\n" || l == "handshake failed" }) // libdime just leaves
	if !s.Handshake() || otherwise.Has(t, s.Name) {
		got = got[:min(len(got), len(want))]
	}
	for i := range want {
		want[i] = ours(strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(want[i]))
	}
	for i := range got {
		got[i] = ours(got[i])
	}
	if !slices.Equal(got, want) {
		t.Errorf("said\n %q\nlibdime said\n %q", got, want)
	}
}

var (
	tokens = regexp.MustCompile(`^((?:MAIL FROM: <[^>]*>|RCPT TO: <[^>]*>|DATA) )\[[^\]]*\]`)
	host   = regexp.MustCompile(`^STARTTLS <([^>]*)>`)
)

// ours takes the fingerprints out of the commands where libdime sends a placeholder.
func ours(line string) string { return tokens.ReplaceAllString(line, "$1[]") }

func hostIn(s transcript.Scenario) string {
	for _, l := range s.ClientLines {
		if m := host.FindStringSubmatch(l); m != nil {
			return m[1]
		}
	}
	return "dx.example"
}

// play is the recorded server.
func play(l *link, s transcript.Scenario) {
	if !s.Handshake() && !s.Dual() {
		cfg := &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
		switch {
		case strings.Contains(s.Name, "tls13"):
			cfg = &tls.Config{MinVersion: tls.VersionTLS13}
		case strings.Contains(s.Name, "ecdsa"):
			cfg.Certificates = []tls.Certificate{testcert.ECDSA(l.t, "dx.example")}
		case strings.Contains(s.Name, "aes128"):
			cfg.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		case strings.Contains(s.Name, "cbc"):
			cfg.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA}
		}
		if l.handshake(cfg) {
			l.say("220 dx.example DMTPv1 ready\r\n")
			l.replies(map[string]string{"SGNT": "250 OK [AAAA]\r\n"})
		}
		return
	}
	if s.Name == "data-354-bare" { // where the recording ends, the message follows
		s.Steps = append(s.Steps, transcript.Step{Kind: transcript.Data, N: -1}, transcript.Step{Kind: transcript.Server, Octets: "250 OK\r\n"})
	}
	for _, step := range s.Steps {
		switch step.Kind {
		case transcript.TLS:
			if !l.tls() {
				return
			}
		case transcript.Server:
			l.say(step.Octets)
		case transcript.Client:
			if l.hear() == "" {
				return
			}
		case transcript.Data:
			n := step.N
			if n < 0 {
				n = sizeIn(s)
			}
			body := make([]byte, n+2)
			if _, err := io.ReadFull(l.r, body); err != nil || !bytes.HasSuffix(body, []byte("\r\n")) {
				l.t.Errorf("the message: %v", err)
			}
		}
	}
	l.replies(map[string]string{"SGNT": "250 OK [AAAA]\r\n"}) // past the recording's end
}

var sizes = regexp.MustCompile(`SIZE=(\d+)`)

func sizeIn(s transcript.Scenario) (n int) {
	for _, l := range s.ClientLines {
		if m := sizes.FindStringSubmatch(l); m != nil {
			for _, d := range m[1] {
				n = n*10 + int(d-'0')
			}
		}
	}
	return n
}

// act does with our client what the recorded tool did.
func act(t *testing.T, set *vectors.Set, c *Client, target Target, s transcript.Scenario) error {
	tool, options, operand := s.Command()
	if tool == "dmtp" {
		message := make([]byte, sizeIn(s)) // where it never arrives, only its size was told
		if s.ReceivedEquals != "" {
			message = set.File(t, s.ReceivedEquals)
		}
		_, err := c.Deliver(t.Context(), target, Envelope{Origin: options["-o"], Destination: options["-d"]}, message)
		return err
	}
	conn, err := c.Connect(t.Context(), target)
	if err != nil {
		return err
	}
	defer conn.Close()
	fp, hasFP := dmtp.Token(options["-f"]).Octets()
	_, current := options["-c"]
	_, history := options["-h"]
	switch end, hasEnd := dmtp.Token(options["-e"]).Octets(); {
	case current:
		isCurrent, update, err := conn.Verify(t.Context(), operand, fp)
		if err == nil && isCurrent == (update != [64]byte{}) {
			t.Error("VRFY says CURRENT as well as UPDATE, or neither")
		}
		return err
	case history && hasEnd:
		_, err = conn.HistoryUntil(t.Context(), operand, fp, end)
		return err
	case history:
		_, err = conn.History(t.Context(), operand, fp, nil)
		return err
	}
	if _, err = conn.Signet(t.Context(), dmtp.DomainOf(operand)); err != nil || !dmtp.IsAddress(operand) {
		return err
	}
	if hasFP {
		_, err = conn.SignetByFingerprint(t.Context(), operand, fp)
		return err
	}
	_, err = conn.Signet(t.Context(), operand)
	return err
}
