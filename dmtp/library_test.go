package dmtp

import (
	"bufio"
	"fmt"
	"strings"
	"testing"

	"dimegate/internal/vectors"
)

// libdime's command library speaks the named grammar, which nothing of libdime puts on a network: its vectors say what it
// writes and reads.

type written struct{ Call, Line string }

type libraryRead struct {
	Line   string
	Result struct {
		State   string
		Command string
		Args    map[string]string
	}
}

// read takes a line as the server does.
func read(line string) (Command, error) {
	b, err := ReadLine(bufio.NewReaderSize(strings.NewReader(line), MaxCommandLine), MaxCommandLine, false)
	if err != nil {
		return nil, err
	}
	return Parse(string(b))
}

func TestVectorsCommandLibraryWritten(t *testing.T) {
	all := vectors.Part[[]written](t, vectors.Open(t), "dmtp_command_library.format")
	vectors.Each(t, all, func(v written) string { return v.Call }, func(t *testing.T, v written) {
		if v.Line == "(crash)" {
			return // nothing was written
		}
		c, err := read(v.Line)
		if err != nil {
			t.Fatalf("%q: %v", v.Line, err)
		}
		verb, rest, _ := strings.Cut(strings.TrimSpace(v.Line), " ")
		if got := fmt.Sprint(c.Verb()); got != verb {
			t.Errorf("%q: read as %s", v.Line, got)
		}
		out := string(c.AppendTo(nil))
		for _, word := range strings.Fields(rest) {
			if _, value, _ := strings.Cut(word, "="); strings.ContainsAny(value, "<[") && !strings.Contains(out, value) {
				t.Errorf("%q: %s is lost: %q", v.Line, value, out)
			}
		}
	})
}

// differs says where ours reads a line otherwise than the library, and why.
func differs(v libraryRead) string {
	verb, rest, _ := strings.Cut(strings.TrimRight(v.Line, "\r\n"), " ")
	switch {
	case v.Result.State == "success":
		if strings.Contains(v.Line, "<>") {
			return "an empty name names nobody"
		}
		return ""
	case verb != strings.ToUpper(verb):
		return "verbs in any letter case"
	case strings.HasPrefix(rest, "<"), strings.HasPrefix(rest, "FROM: "), strings.HasPrefix(rest, "TO: "), verb == "DATA" && strings.HasPrefix(rest, "["):
		return "the positional grammar, which the library does not know"
	case verb == "NOOP":
		return "what follows NOOP is ignored"
	}
	return ""
}

func TestVectorsCommandLibraryRead(t *testing.T) {
	all := vectors.Part[[]libraryRead](t, vectors.Open(t), "dmtp_command_library.parse")
	vectors.Each(t, all, func(v libraryRead) string { return fmt.Sprintf("%.40q", v.Line) }, func(t *testing.T, v libraryRead) {
		c, err := read(v.Line)
		want := v.Result.State == "success"
		if why := differs(v); why != "" {
			want = !want
		}
		if (err == nil) != want {
			t.Fatalf("%q: %v; the library says %s", v.Line, err, v.Result.State)
		}
		if err != nil || v.Result.State != "success" {
			return
		}
		if got := fmt.Sprint(c.Verb()); got != v.Result.Command {
			t.Errorf("read as %s, want %s", got, v.Result.Command)
		}
		out := string(c.AppendTo(nil))
		for name, value := range v.Result.Args {
			if !strings.HasSuffix(name, ":") && !strings.Contains(out, value) {
				t.Errorf("%s is lost: %q", name, out)
			}
		}
	})
}
