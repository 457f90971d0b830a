package dmtp

import (
	"bufio"
	"errors"
	"math"
	"strings"
	"testing"
)

const fp = "F6thMk3Vt56WC0kFWLeKqNtpf6IqEsSTFOQnMjOM9aP2JBPvySdvkmAAZ+QAKUVdMoKJJnG7ljGvNZq+7U8svA"

func TestParse(t *testing.T) {
	tests := map[string]struct {
		line string
		want Command
	}{
		"starttls of libdime":         {"STARTTLS <dx.example> MODE=DMTPv1", StartTLS{"dx.example", ModeDMTP}},
		"starttls without mode":       {"starttls <DX.Example.>", StartTLS{"dx.example", ModeDMTP}},
		"starttls named":              {"STARTTLS HOST=<dx.example> MODE=SMTP", StartTLS{"dx.example", ModeSMTP}},
		"starttls address literal":    {"STARTTLS <127.0.0.1> MODE=dmtp", StartTLS{"127.0.0.1", ModeDMTP}},
		"ehlo":                        {"EHLO <a.example>", Hello{"a.example", true}},
		"ehlo close":                  {"EHLO<a.example>", Hello{"a.example", true}},
		"helo named":                  {"HELO\tHOST=<a.example>", Hello{"a.example", false}},
		"mail of libdime":             {"MAIL FROM: <a.example> [fingerprint] SIZE=11", Mail{"a.example", "fingerprint", 11, true, 0}},
		"mail all parameters":         {"mail from:<a.example>[x]SIZE=1 return=full data=8bit", Mail{"a.example", "x", 1, true, ReturnFull}},
		"mail display first":          {"MAIL FROM: <a.example> [x] RETURN=DISPLAY SIZE=1", Mail{"a.example", "x", 1, true, ReturnDisplay}},
		"mail huge":                   {"MAIL FROM: <a.example> [x] SIZE=" + strings.Repeat("9", 40), Mail{"a.example", "x", math.MaxUint64, true, 0}},
		"mail named":                  {"MAIL FROM=<a.example> FINGERPRINT=[x]", Mail{"a.example", "x", 0, false, 0}},
		"mail named, size":            {"MAIL FROM=<a.example> FINGERPRINT=[x] SIZE=5", Mail{"a.example", "x", 5, true, 0}},
		"rcpt":                        {"RCPT TO: <b.example> [fingerprint]", Rcpt{"b.example", "fingerprint"}},
		"rcpt named":                  {"RCPT TO=<b.example> FINGERPRINT=[" + fp + "]", Rcpt{"b.example", fp}},
		"data":                        {"DATA", Data{}},
		"data commit":                 {"DATA [" + fp + "]", Data{fp}},
		"data commit named":           {"DATA COMMIT=[" + fp + "]", Data{fp}},
		"sgnt domain":                 {"SGNT <B.example>", Sgnt{"b.example", ""}},
		"sgnt address":                {"SGNT <Bob+x@B.example> [" + fp + "]", Sgnt{"bob+x@b.example", fp}},
		"sgnt placeholder":            {"SGNT <b.example> [fingerprint]", Sgnt{"b.example", "fingerprint"}},
		"sgnt named user":             {"SGNT USER=<bob@b.example> FINGERPRINT=[" + fp + "]", Sgnt{"bob@b.example", fp}},
		"sgnt named domain":           {"SGNT DOMAIN=<b.example>", Sgnt{"b.example", ""}},
		"vrfy":                        {"VRFY <bob@b.example> [" + fp + "]", Vrfy{"bob@b.example", fp}},
		"vrfy named":                  {"VRFY DOMAIN=<b.example> FINGERPRINT=[" + fp + "]", Vrfy{"b.example", fp}},
		"hist":                        {"HIST <bob@b.example> [" + fp + "]", Hist{"bob@b.example", fp, ""}},
		"hist both":                   {"HIST <bob@b.example> [" + fp + "] [" + fp + "]", Hist{"bob@b.example", fp, fp}},
		"hist named":                  {"HIST USER=<bob@b.example>", Hist{"bob@b.example", "", ""}},
		"hist named stop":             {"HIST USER=<bob@b.example> STOP=[" + fp + "]", Hist{"bob@b.example", "", fp}},
		"hist named domain":           {"HIST DOMAIN=<b.example> START=[" + fp + "]", Hist{"b.example", fp, ""}},
		"quit, spaces":                {"quit \t", Bare(QUIT)},
		"noop with anything":          {"NOOP =one <two] three", Bare(NOOP)},
		"help with a verb":            {"HELP MAIL", Bare(HELP)},
		"stats with a nonce":          {"STATS [x]", Bare(STATS)},
		"mode":                        {"MODE", Bare(MODE)},
		"rset":                        {"RSET", Bare(RSET)},
		"verb":                        {"VERB", Bare(VERB)},
		"an open bracket in brackets": {"RCPT TO: <b.example> [a[b]", Rcpt{"b.example", "a[b"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(tt.line)
			if err != nil || got != tt.want {
				t.Errorf("Parse(%q) = %#v, %v; want %#v", tt.line, got, err, tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]struct{ line, want string }{
		"empty":                    {"", "500 INVALID COMMAND"},
		"unknown":                  {"XYZZY", "500 INVALID COMMAND"},
		"a verb and more":          {"DATA1", "500 INVALID COMMAND"},
		"leading space":            {" QUIT", "500 INVALID COMMAND"},
		"NUL":                      {"NOOP \x00", "500 INVALID COMMAND"},
		"eight bits":               {"NOOP é", "500 INVALID COMMAND"},
		"long s folds to s":        {"\u017fGNT <a.example>", "500 INVALID COMMAND"},
		"argument to quit":         {"QUIT now", "501 BAD QUIT SYNTAX"},
		"argument to rset":         {"RSET <x>", "501 BAD RSET SYNTAX"},
		"plain ehlo":               {"EHLO a.example", "501 BAD EHLO SYNTAX"},
		"ehlo empty":               {"EHLO <>", "501 BAD EHLO SYNTAX"},
		"ehlo address":             {"EHLO <a@a.example>", "501 INVALID EHLO PARAMETER"},
		"ehlo open":                {"EHLO HOST=<a.example", "501 BAD EHLO SYNTAX"},
		"ehlo space in brackets":   {"EHLO <a. example>", "501 BAD EHLO SYNTAX"},
		"label empty":              {"EHLO <a..example>", "501 INVALID EHLO PARAMETER"},
		"label of 64":              {"EHLO <" + strings.Repeat("a", 64) + ".example>", "501 INVALID EHLO PARAMETER"},
		"domain of 254":            {"EHLO <" + strings.Repeat("a.", 127) + ">", "501 INVALID EHLO PARAMETER"},
		"underscore":               {"EHLO <a_b.example>", "501 INVALID EHLO PARAMETER"},
		"starttls empty":           {"STARTTLS <>", "501 BAD STARTTLS SYNTAX"},
		"starttls bare":            {"STARTTLS", "501 BAD STARTTLS SYNTAX"},
		"starttls bad host":        {"STARTTLS <a_b>", "501 BAD STARTTLS SYNTAX"},
		"starttls unknown mode":    {"STARTTLS <a.example> MODE=XMTP", "501 BAD STARTTLS SYNTAX"},
		"starttls empty mode":      {"STARTTLS <a.example> MODE=", "501 BAD STARTTLS SYNTAX"},
		"starttls close mode":      {"STARTTLS <a.example>MODE=DMTP", "501 BAD STARTTLS SYNTAX"},
		"starttls twice":           {"STARTTLS <a.example> MODE=DMTP MODE=DMTP", "501 BAD STARTTLS SYNTAX"},
		"mail without size":        {"MAIL FROM: <a.example> [x]", "501 INVALID MAIL FROM PARAMETER"},
		"mail size not a number":   {"MAIL FROM: <a.example> [x] SIZE=1x", "501 INVALID MAIL FROM PARAMETER"},
		"mail size signed":         {"MAIL FROM: <a.example> [x] SIZE=+1", "501 INVALID MAIL FROM PARAMETER"},
		"mail size twice":          {"MAIL FROM: <a.example> [x] SIZE=1 SIZE=1", "501 INVALID MAIL FROM PARAMETER"},
		"mail 7bit":                {"MAIL FROM: <a.example> [x] SIZE=1 DATA=7BIT", "501 UNSUPPORTED MAIL FROM PARAMETER"},
		"mail 9bit":                {"MAIL FROM: <a.example> [x] SIZE=1 DATA=9BIT", "501 INVALID MAIL FROM PARAMETER"},
		"mail unknown":             {"MAIL FROM: <a.example> [x] SIZE=1 BODY=8BITMIME", "501 UNSUPPORTED MAIL FROM PARAMETER"},
		"mail return":              {"MAIL FROM: <a.example> [x] SIZE=1 RETURN=ALL", "501 INVALID MAIL FROM PARAMETER"},
		"mail without bracket":     {"MAIL FROM: <a.example> SIZE=1", "501 BAD MAIL FROM SYNTAX"},
		"mail empty bracket":       {"MAIL FROM: <a.example> [] SIZE=1", "501 BAD MAIL FROM SYNTAX"},
		"mail address":             {"MAIL FROM: <al@a.example> [x] SIZE=1", "501 INVALID MAIL FROM PARAMETER"},
		"mail named unfinished":    {"MAIL FROM=<a.example>", "501 BAD MAIL FROM SYNTAX"},
		"mail named close":         {"MAIL FROM=<a.example>FINGERPRINT=[x]", "501 BAD MAIL FROM SYNTAX"},
		"mail null":                {"MAIL FROM:<>", "501 BAD MAIL FROM SYNTAX"},
		"rcpt named, other order":  {"RCPT FINGERPRINT=[x] TO=<b.example>", "501 BAD RCPT TO SYNTAX"},
		"rcpt more":                {"RCPT TO: <b.example> [x] SIZE=1", "501 BAD RCPT TO SYNTAX"},
		"data word":                {"DATA x", "501 BAD DATA SYNTAX"},
		"data two":                 {"DATA [x] [y]", "501 BAD DATA SYNTAX"},
		"sgnt nothing":             {"SGNT", "501 BAD SGNT SYNTAX"},
		"sgnt two names":           {"SGNT USER=<a@b.example> DOMAIN=<b.example>", "501 BAD SGNT SYNTAX"},
		"sgnt user is domain":      {"SGNT USER=<b.example>", "501 INVALID SGNT PARAMETER"},
		"sgnt domain is address":   {"SGNT DOMAIN=<a@b.example>", "501 INVALID SGNT PARAMETER"},
		"sgnt quoted":              {`SGNT <"a b"@b.example>`, "501 BAD SGNT SYNTAX"},
		"sgnt dot":                 {"SGNT <.a@b.example>", "501 INVALID SGNT PARAMETER"},
		"sgnt local of 65":         {"SGNT <" + strings.Repeat("a", 65) + "@b.example>", "501 INVALID SGNT PARAMETER"},
		"sgnt two at":              {"SGNT <a@b@b.example>", "501 INVALID SGNT PARAMETER"},
		"vrfy without fingerprint": {"VRFY <a@b.example>", "501 BAD VRFY SYNTAX"},
		"vrfy placeholder":         {"VRFY <a@b.example> [fingerprint]", "501 INVALID VRFY PARAMETER"},
		"hist without start":       {"HIST <a@b.example>", "501 BAD HIST SYNTAX"},
		"hist placeholder":         {"HIST <a@b.example> [fingerprint]", "501 INVALID HIST PARAMETER"},
		"hist placeholder end":     {"HIST <a@b.example> [" + fp + "] [x]", "501 INVALID HIST PARAMETER"},
		"hist three":               {"HIST <a@b.example> [" + fp + "] [" + fp + "] [" + fp + "]", "501 BAD HIST SYNTAX"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cmd, err := Parse(tt.line)
			perr, ok := errors.AsType[*ParseError](err)
			if !ok {
				t.Fatalf("Parse(%q) = %#v, %v; want %s", tt.line, cmd, err, tt.want)
			}
			if got := strings.TrimSuffix(perr.Reply.Lines()[0], "\r\n"); got != tt.want || cmd != nil {
				t.Errorf("Parse(%q) answers %q (%v), want %q", tt.line, got, cmd, tt.want)
			}
		})
	}
}

// FuzzLine reads octets as command lines. What parses must, written and read again, be the same command; nothing may quote
// the input to the peer.
func FuzzLine(f *testing.F) {
	for _, s := range []string{
		"EHLO <a.example>\r\n", "MAIL FROM: <a.example> [fingerprint] SIZE=11 RETURN=FULL\r\n", "RCPT TO=<b.example> FINGERPRINT=[x]\n",
		"DATA [" + fp + "]\r\nHIST <a@b.example> [" + fp + "] [" + fp + "]\r\n", "STARTTLS HOST=<a.example> MODE=SMTP\r\n",
		"SGNT USER=<a@b.example>\r\n", "NOOP\r\r\n", strings.Repeat("A", 2000) + "\nQUIT\n", "VRFY <a@b.example> [" + fp + "]\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReaderSize(strings.NewReader(string(b)), MaxCommandLine)
		for {
			line, err := ReadLine(r, MaxCommandLine, false)
			if errors.Is(err, ErrLineTooLong) || errors.Is(err, ErrLineOctets) {
				continue
			}
			if err != nil {
				return
			}
			checkLine(t, string(line))
		}
	})
}

func checkLine(t *testing.T, line string) {
	cmd, err := Parse(line)
	if err != nil {
		perr, ok := errors.AsType[*ParseError](err)
		if !ok || perr.Reply.Code != 500 && perr.Reply.Code != 501 || len(perr.Reply.Text) > 40 {
			t.Fatalf("Parse(%q): %v", line, err)
		}
		return
	}
	switch c := cmd.(type) {
	case Mail:
		if !c.HasSize {
			return // only the named grammar can say it, which we do not write
		}
	case Hist:
		if c.Start == "" {
			return
		}
	}
	wire := cmd.AppendTo(nil)
	again, err := Parse(strings.TrimSuffix(string(wire), "\r\n"))
	if err != nil || again != cmd {
		t.Fatalf("%q is %#v, written %q, read %#v, %v", line, cmd, wire, again, err)
	}
}

func TestWrittenFits(t *testing.T) {
	name := strings.Repeat("a", 64) + "@" + strings.Repeat(strings.Repeat("a", 62)+".", 4) + "a"
	if _, err := Name(name); err != nil {
		t.Fatal(err)
	}
	if n := len(Hist{name, fp, fp}.AppendTo(nil)); n > MaxCommandSent {
		t.Errorf("the longest HIST has %d octets, over %d", n, MaxCommandSent)
	}
}
