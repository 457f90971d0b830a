// Package transcript reads the recorded dialogues of libdime's client among the vectors, so that tests can replay either side.
package transcript

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"dimegate/internal/vectors"
)

// A Kind is what a step of a dialogue is.
type Kind uint8

// The kinds of steps.
const (
	Server Kind = iota // octets that the server sent
	Client             // octets that the client sent
	TLS                // the handshake, which succeeded
	Data               // the client sent N message octets and CRLF
)

// A Step is one step of a dialogue.
type Step struct {
	Kind   Kind
	Octets string
	N      int
	SNI    string // of the handshake; "" without
}

// A Scenario is an entry of the manifest's dmtp_client part with its dialogue.
type Scenario struct {
	Name           string   `json:"name"`
	File           string   `json:"file"`
	Client         string   `json:"client"`
	ClientLines    []string `json:"client_lines"`
	ClientRC       int      `json:"client_rc"`
	ClientErrors   []string `json:"client_errors"`
	ReceivedSHA512 string   `json:"received_sha512"`
	ReceivedEquals string   `json:"received_equals"`

	Steps     []Step `json:"-"`
	Connected bool   `json:"-"` // the client made a TCP connection
	Port      int    `json:"-"`
}

// Scenarios reads all dialogues of a set.
func Scenarios(tb testing.TB, s *vectors.Set) []Scenario {
	tb.Helper()
	part := vectors.Part[struct {
		Note      string     `json:"note"`
		Scenarios []Scenario `json:"scenarios"`
	}](tb, s, "dmtp_client")
	for i := range part.Scenarios {
		part.Scenarios[i].parse(tb, string(s.File(tb, part.Scenarios[i].File)))
	}
	return part.Scenarios
}

var (
	accepted = regexp.MustCompile(`^# TCP connection accepted on port (\d+)$`)
	sni      = regexp.MustCompile(`^# TLS SNI: (?:None|'([^']*)')$`)
	raw      = regexp.MustCompile(`^# (\d+) raw message bytes follow`)
	elided   = regexp.MustCompile(`\[([^\[\]]*)\.\.\.\((\d+) characters\)\.\.\.([^\[\]]*)\]`)
)

func (s *Scenario) parse(tb testing.TB, text string) {
	name := ""
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := accepted.FindStringSubmatch(line); m != nil {
			s.Connected, s.Port = true, number(m[1])
		} else if m := sni.FindStringSubmatch(line); m != nil {
			name = m[1]
		} else if strings.HasPrefix(line, "# TLS TLS") {
			s.Steps = append(s.Steps, Step{Kind: TLS, SNI: name})
		} else if m := raw.FindStringSubmatch(line); m != nil {
			s.Steps = append(s.Steps, Step{Kind: Data, N: number(m[1])})
		} else if said, ok := strings.CutPrefix(line, "S: "); ok {
			s.Steps = append(s.Steps, Step{Kind: Server, Octets: fill(unescape.Replace(said))})
		} else if said, ok := strings.CutPrefix(line, "C: "); ok {
			s.Steps = append(s.Steps, Step{Kind: Client, Octets: unescape.Replace(said)})
			lines = append(lines, said)
		} else if !strings.HasPrefix(line, "# ") && !strings.HasPrefix(line, "client rc=") && line != "" {
			tb.Fatalf("%s: not understood: %.40q", s.File, line)
		}
	}
	if strings.Join(lines, "|") != strings.Join(s.ClientLines, "|") {
		tb.Fatalf("%s: the dialogue and the manifest's client_lines differ", s.File)
	}
}

var unescape = strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\t`, "\t", `\\`, `\`)

// fill makes up the middle of a value that the recording leaves out.
func fill(s string) string {
	return elided.ReplaceAllStringFunc(s, func(in string) string {
		m := elided.FindStringSubmatch(in)
		return "[" + m[1] + strings.Repeat("A", max(0, number(m[2])-len(m[1])-len(m[3]))) + m[3] + "]"
	})
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // the expressions let digits through only
	return n
}

// Command is the recorded command line: the tool, its options with their values, and the operand.
func (s *Scenario) Command() (tool string, options map[string]string, operand string) {
	words := strings.Fields(s.Client)
	options = make(map[string]string)
	for i := 1; i < len(words); i++ {
		switch w := words[i]; w {
		case "-n", "-c", "-h", "-0":
			options[w] = ""
		case "-i", "-d", "-p", "-f", "-e", "-o", "-x", "-k":
			if i++; i < len(words) {
				options[w] = words[i]
			}
		default:
			operand = w
		}
	}
	return words[0], options, operand
}

// Dual reports whether the dialogue begins in clear.
func (s *Scenario) Dual() bool { return len(s.Steps) > 0 && s.Steps[0].Kind != TLS }

// Handshake reports whether the recorded client and server agreed on TLS.
func (s *Scenario) Handshake() bool {
	for _, st := range s.Steps {
		if st.Kind == TLS {
			return true
		}
	}
	return false
}
