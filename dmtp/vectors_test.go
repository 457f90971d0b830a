package dmtp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"dimegate/internal/vectors"
)

// otherwise are the rules by which ours answers otherwise than libdime's command library, by the lines that they cover.
var otherwise = map[string]func(line string) bool{
	"positional grammar, which the library does not know": func(l string) bool { return positional.MatchString(l) },
	"verbs in lower case":                                    func(l string) bool { return lowerVerb.MatchString(l) },
	"empty brackets: nothing is no name":                     func(l string) bool { return strings.Contains(l, "<>") || strings.Contains(l, "[]") },
	"lines of 513 to 1,024 octets":                           func(l string) bool { return len(l) > 512 && len(l) <= MaxCommandLine },
	"an argument of NOOP that is no argument":                func(l string) bool { return strings.HasPrefix(l, "NOOP ") && !strings.HasPrefix(l, "NOOP =") },
	"arguments of HELP":                                      func(l string) bool { return strings.HasPrefix(l, "HELP ") },
	"parameters of ours: SIZE, RETURN, DATA, COMMIT":         func(l string) bool { return extensions.MatchString(l) },
	"HIST DOMAIN":                                            func(l string) bool { return strings.HasPrefix(l, "HIST DOMAIN=") },
	"domains and addresses that are none, and two of a kind": func(l string) bool { return badName(l) },
}

var (
	positional = regexp.MustCompile(`(?i)^(STARTTLS|[EH][EH]LO|SGNT|VRFY|HIST)\s*<|^(MAIL FROM|RCPT TO):|^DATA\s*\[|^(STATS|VERB)\b`)
	lowerVerb  = regexp.MustCompile(`^[A-Za-z]*[a-z]`)
	extensions = regexp.MustCompile(`\s(SIZE|RETURN|DATA)=|^DATA COMMIT=`)
	value      = regexp.MustCompile(`(\w*)=(?:<([^>]*)>|\[([^\]]*)\]|(\S*))`)
)

func badName(l string) bool {
	for _, m := range value.FindAllStringSubmatch(l, -1) {
		if _, err := Name(m[2]); m[2] != "" && err != nil {
			return true
		}
	}
	return false
}

// TestVectorsCommandLibrary reads what libdime's command library writes, and what it reads.
func TestVectorsCommandLibrary(t *testing.T) {
	part := vectors.Part[struct {
		Note   string
		Format []struct{ Call, Line string }
		Parse  []struct {
			Line   string
			Result struct {
				State, Command string
				Args           map[string]string
			}
		}
	}](t, vectors.Open(t), "dmtp_command_library")
	vectors.Each(t, part.Format, func(e struct{ Call, Line string }) string { return e.Call }, func(t *testing.T, e struct{ Call, Line string }) {
		if e.Line == "(crash)" {
			t.Log("the library crashes here")
			return
		}
		cmd, err := parseWire(e.Line)
		if err != nil {
			t.Fatalf("%q: %v", e.Line, err)
		}
		compare(t, cmd, valuesIn(e.Line))
	})
	if len(part.Parse) == 0 {
		t.Fatal("no lines to parse")
	}
	for _, e := range part.Parse {
		t.Run(fmt.Sprintf("%.40q", e.Line), func(t *testing.T) {
			cmd, err := parseWire(e.Line)
			if success := e.Result.State == "success"; success != (err == nil) {
				for _, covers := range otherwise {
					if covers(strings.TrimRight(e.Line, "\r\n")) {
						return
					}
				}
				t.Fatalf("ours: %v, the library: %s", err, e.Result.State)
			}
			if err != nil {
				return
			}
			if got := cmd.Verb().String(); got != e.Result.Command {
				t.Errorf("verb %s, want %s", got, e.Result.Command)
			}
			args := make(map[string]string)
			for k, v := range e.Result.Args {
				_, name, _ := strings.Cut(k, ":")
				args[name] = v
			}
			compare(t, cmd, args)
		})
	}
}

func parseWire(wire string) (Command, error) {
	line, err := ReadLine(bufio.NewReaderSize(strings.NewReader(wire), MaxCommandLine), MaxCommandLine, false)
	if err != nil {
		return nil, err
	}
	return Parse(string(line))
}

func valuesIn(line string) map[string]string {
	values := make(map[string]string)
	for _, m := range value.FindAllStringSubmatch(line, -1) {
		values[m[1]] = m[2] + m[3] + m[4]
	}
	return values
}

// compare holds a command against the library's argument names.
func compare(t *testing.T, cmd Command, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	name := func(n string) {
		key := "DOMAIN"
		if IsAddress(n) {
			key = "USER"
		}
		got[key] = n
	}
	switch c := cmd.(type) {
	case StartTLS:
		got["HOST"], got["MODE"] = c.Host, map[Mode]string{ModeDMTP: "DMTP", ModeSMTP: "SMTP"}[c.Mode]
		if want["MODE"] == "" {
			delete(got, "MODE") // DMTP when it is not said
			if c.Mode != ModeDMTP {
				t.Error("not DMTP")
			}
		}
	case Hello:
		got["HOST"] = c.Domain
	case Mail:
		got["FROM"], got["FINGERPRINT"] = c.Origin, string(c.Signet)
	case Rcpt:
		got["TO"], got["FINGERPRINT"] = c.Destination, string(c.Signet)
	case Sgnt:
		name(c.Name)
		got["FINGERPRINT"] = string(c.Signet)
	case Vrfy:
		name(c.Name)
		got["FINGERPRINT"] = string(c.Signet)
	case Hist:
		name(c.Name)
		got["START"], got["STOP"] = string(c.Start), string(c.Stop)
	case Data:
		got["COMMIT"] = string(c.Commit)
	}
	if cmd.Verb() == NOOP {
		return // ignored
	}
	for k, v := range got {
		if v != want[k] {
			t.Errorf("%s is %q, want %q", k, v, want[k])
		}
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %q, want %q", k, got[k], v)
		}
	}
}

// TestOtherwise shows that each exception is one: the line parses, or is refused, as the library does not.
func TestOtherwise(t *testing.T) {
	for line, accepted := range map[string]bool{
		"EHLO <a.example>\r\n": true, "quit\r\n": true, "DATA [x]\r\n": true, "NOOP " + strings.Repeat("x", 600) + "\r\n": true, "NOOP x\r\n": true, "HELP x\r\n": true,
		"DATA COMMIT=[x]\r\n": true, "HIST DOMAIN=<a.example>\r\n": true, "MAIL FROM=<a.example> FINGERPRINT=[x] SIZE=1\r\n": true,
		"EHLO HOST=<>\r\n": false, "EHLO HOST=<a b>\r\n": false,
	} {
		_, err := parseWire(line)
		if (err == nil) != accepted {
			t.Errorf("%.40q: %v", line, err)
		}
		covered := false
		for _, covers := range otherwise {
			covered = covered || covers(strings.TrimRight(line, "\r\n"))
		}
		if !covered {
			t.Errorf("%.40q is covered by no rule", line)
		}
	}
	if _, err := parseWire("NOOP"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a line without end: %v", err)
	}
}
