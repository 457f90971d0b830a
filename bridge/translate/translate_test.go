package translate

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dimegate/dmtp/message"
	"dimegate/internal/testmail"
)

func TestSplit(t *testing.T) {
	tests := map[string]struct {
		raw, header, body string
		separator         bool
	}{
		"ordinary":               {"A: b\r\n\r\nbody", "A: b\r\n", "body", true},
		"empty":                  {"", "", "", false},
		"separator alone":        {"\r\n", "", "", true},
		"body alone":             {"\r\nbody", "", "body", true},
		"header alone":           {"A: b\r\n", "A: b\r\n", "", false},
		"no line end":            {"A: b", "A: b", "", false},
		"empty body":             {"A: b\r\n\r\n", "A: b\r\n", "", true},
		"bare LF is no line end": {"A: b\n\nbody\r\n", "A: b\n\nbody\r\n", "", false},
		"LF before CRLF":         {"A: b\n\r\nbody", "A: b\n\r\nbody", "", false},
		"CR before CRLF":         {"A: b\r\r\nbody", "A: b\r\r\nbody", "", false},
		"white line is none":     {"A: b\r\n \r\nc", "A: b\r\n \r\nc", "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := Split([]byte(tt.raw))
			if string(m.Header) != tt.header || string(m.Body) != tt.body || m.Separator != tt.separator {
				t.Errorf("header %q, body %q, separator %v", m.Header, m.Body, m.Separator)
			}
			if string(m.Bytes()) != tt.raw {
				t.Errorf("Bytes is %q", m.Bytes())
			}
		})
	}
}

func TestFields(t *testing.T) {
	block := "A: b\r\nB : c\r\n d\r\n\te\r\nno field\r\n : continued\r\nC:\r\n: nameless\r\nB\xffd: x\r\nE\r\n : f\r\nG \r\n\t \r\n :\r\nD: last"
	want := []string{`A=" b"`, `B=" c\r\n d\r\n\te"`, `=""`, `C=""`, `=""`, `=""`, `E=" f"`, `G=""`, `D=" last"`}
	var got []string
	var joined []byte
	for f := range Fields([]byte(block)) {
		got = append(got, fmt.Sprintf("%s=%q", f.Name, f.Body))
		joined = append(joined, f.Raw...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if string(joined) != block {
		t.Errorf("joined %q", joined)
	}
}

// Chunk 33 by dmime.md §12.2.
func TestDerive(t *testing.T) {
	tests := map[string]struct{ header, common string }{
		"all, in the order of the labels": {
			"Subject: s\r\nOrganization: o\r\nFrom: f\r\nCc: c\r\nTo: t\r\nDate: d\r\n",
			"Date: d\r\nTo: t\r\nCC: c\r\nFrom: f\r\nOrganization: o\r\nSubject: s\r\n"},
		"synthetic": {"", "Date: Thu, 26 Nov 2026 10:00:00 +0000\r\nTo: undisclosed-recipients:;\r\nFrom: alice@alpha.example\r\nSubject: \r\n"},
		"empty ones are there": {"Subject:\r\nTo: \r\nDate:\t\r\nFrom:\r\nCc:\r\nOrganization:\r\n",
			"Date: \r\nTo: \r\nCC: \r\nFrom: \r\nOrganization: \r\nSubject: \r\n"},
		"joined and first": {"Date: 1\r\nDate: 2\r\nTo: a\r\nto: b\r\nCC: c\r\ncc: d\r\nFrom: e\r\nFrom: f\r\nSubject: g\r\nSubject: h\r\nOrganization: i\r\nOrganization: j\r\n",
			"Date: 1\r\nTo: a, b\r\nCC: c, d\r\nFrom: e\r\nOrganization: i\r\nSubject: g\r\n"},
		"unfolded": {"Date: a\r\n b\r\n\tc\r\nTo: \r\n x\r\nFrom:  y  \r\nSubject: =?utf-8?q?x?=\r\n",
			"Date: a b\tc\r\nTo: x\r\nFrom: y\r\nSubject: =?utf-8?q?x?=\r\n"},
	}
	tests["line ends and NUL inside"] = struct{ header, common string }{
		"Date: a\rb\nc\x00d\r\r\nTo: t\r\nFrom: ä\xff\r\nSubject: s", "Date: a b c d\r\nTo: t\r\nFrom: ä\xff\r\nSubject: s\r\n"}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Import(env, []byte(tt.header))
			if err != nil {
				t.Fatal(err)
			}
			if string(c.Common) != tt.common {
				t.Errorf("got  %q\nwant %q", c.Common, tt.common)
			}
		})
	}
}

func TestLayoutBlock(t *testing.T) {
	with := func(path string) Envelope { e := env; e.Return = path; return e }
	tests := map[string]struct {
		env   Envelope
		raw   string
		other string
	}{
		"body":         {env, "A: b\r\n\r\nx", "DIME-Layout: 1 hdr=full body=concat\r\n\r\nA: b\r\n"},
		"no body":      {env, "A: b\r\n", "DIME-Layout: 1 hdr=full body=none\r\n\r\nA: b\r\n"},
		"empty":        {env, "", "DIME-Layout: 1 hdr=full body=none\r\n\r\n"},
		"null path":    {with(NullPath), "\r\n", "DIME-Layout: 1 hdr=full body=concat\r\nDIME-Return: <>\r\n\r\n"},
		"reverse-path": {with("b+1@alpha.example"), "\r\n", "DIME-Layout: 1 hdr=full body=concat\r\nDIME-Return: <b+1@alpha.example>\r\n\r\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Import(tt.env, []byte(tt.raw))
			if err != nil || string(c.Other) != tt.other {
				t.Errorf("%v\ngot  %q\nwant %q", err, c.Other, tt.other)
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	big := strings.Repeat("x", MaxHeader)
	tests := map[string]struct {
		env  Envelope
		raw  string
		want error
	}{
		"header block over 1 MiB":   {env, "X: " + big + "\r\n\r\n", message.TooLarge},
		"no separator in 1 MiB":     {env, big + "\r\n", message.TooLarge},
		"body over one chunk":       {env, "\r\n" + strings.Repeat("x", message.MaxData+1), ErrNeedsMulti},
		"line break in the path":    {Envelope{Author: env.Author, Return: "a@b\r\nDIME-Return: <c@d>"}, "", ErrAddress},
		"bracket in the path":       {Envelope{Author: env.Author, Return: "a>@b"}, "", ErrAddress},
		"path without domain":       {Envelope{Author: env.Author, Return: "a@"}, "", ErrAddress},
		"no author":                 {Envelope{}, "", ErrAddress},
		"line break in the author":  {Envelope{Author: "a\n@b"}, "", ErrAddress},
		"path that is not UTF-8":    {Envelope{Author: env.Author, Return: "\xff@b"}, "", ErrAddress},
		"path of C1 controls":       {Envelope{Author: env.Author, Return: "a\u0085@b"}, "", ErrAddress},
		"more than 17 GB of chunks": {env, "", nil}, // cannot be held here: add is tested below
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Import(tt.env, []byte(tt.raw)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if err := (&body{multi: true, left: 0}).add(new([]message.Part), []byte("x")); !errors.Is(err, message.TooLarge) {
		t.Errorf("no chunk left: %v", err)
	}
}

func TestCut(t *testing.T) {
	const typ = "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	tests := map[string]struct {
		raw    string
		attach []string // with dmime-multi; without, they are one
	}{
		"text and file":           {typ + "pre\r\n--b\r\n\r\none\r\n--b\r\nX: y\r\n\r\ntwo\r\n--b--\r\nepi", []string{"\r\n--b\r\nX: y\r\n\r\ntwo\r\n--b--\r\nepi"}},
		"three":                   {typ + "--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b \t\r\n\r\nthree\r\n--b--", []string{"\r\n--b\r\n\r\ntwo", "\r\n--b \t\r\n\r\nthree\r\n--b--"}},
		"never closed":            {typ + "--b\r\n\r\none\r\n--b\r\n\r\ntwo", []string{"\r\n--b\r\n\r\ntwo"}},
		"behind the close":        {typ + "--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n--b\r\n\r\nthree", []string{"\r\n--b\r\n\r\ntwo\r\n--b--\r\n--b\r\n\r\nthree"}},
		"similar boundaries":      {typ + "--b\r\n\r\none\r\n--bb\r\n--b-\r\n--b x\r\n--b\r\n\r\ntwo", []string{"\r\n--b\r\n\r\ntwo"}},
		"empty part":              {typ + "--b\r\n--b\r\n--b\r\n--b--", []string{"\r\n--b", "\r\n--b\r\n--b--"}},
		"delimiter at the end":    {typ + "--b\r\n\r\n1\r\n--b", []string{"\r\n--b"}},
		"html first":              {typ + "--b\r\nContent-Type: text/html\r\n\r\n1\r\n--b\r\n\r\n2", []string{"\r\n--b\r\n\r\n2"}},
		"alternative first":       {typ + "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n1\r\n--b\r\n\r\n2", []string{"\r\n--b\r\n\r\n2"}},
		"one part":                {typ + "--b\r\n\r\none\r\n--b--", nil},
		"image first":             {typ + "--b\r\nContent-Type: image/png\r\n\r\n1\r\n--b\r\n\r\n2", nil},
		"unreadable type first":   {typ + "--b\r\nContent-Type: ;;\r\n\r\n1\r\n--b\r\n\r\n2", nil},
		"signed first":            {typ + "--b\r\nContent-Type: multipart/signed\r\n\r\n1\r\n--b\r\n\r\n2", nil},
		"bare LF delimiters":      {typ + "\n--b\n\n1\n--b\n\n2", nil},
		"closed at once":          {typ + "--b--\r\n--b\r\n\r\n--b\r\n", nil},
		"no delimiter":            {typ + "nothing", nil},
		"alternative":             {"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\n1\r\n--b\r\n\r\n2", nil},
		"mixed in name only":      {"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\n1\r\n--b\r\n\r\n2", nil},
		"twice a boundary":        {"Content-Type: multipart/mixed; boundary=b; boundary=c\r\n\r\n--b\r\n\r\n1\r\n--b\r\n\r\n2", nil},
		"first Content-Type only": {"Content-Type: text/plain\r\n" + typ + "--b\r\n\r\n1\r\n--b\r\n\r\n2", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			trip(t, env, []byte(tt.raw))
			env := env
			env.MultiOK = true
			c, err := Import(env, []byte(tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range c.Attach {
				got = append(got, string(p.Data))
			}
			if !slices.Equal(got, tt.attach) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestHints(t *testing.T) {
	for _, m := range testmail.Ours(t) {
		if m.Name != "mixed" {
			continue
		}
		c, err := Import(env, m.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"DIME-Part: n=1; type=image/png; name*=UTF-8''sch%C3%B6nes%20photo.png; size=",
			"DIME-Part: n=2; type=application/pdf; name*=UTF-8''Vertr%C3%A4ge.pdf; size=12\r\n",
		} {
			if !bytes.Contains(c.Other, []byte(want)) {
				t.Errorf("no %q in\n%s", want, c.Other)
			}
		}
		return
	}
	t.Error("no message mixed")
}

func TestExportRefuses(t *testing.T) {
	good := func() *message.Content {
		c, err := Import(env, []byte("Date: d\r\nFrom: f\r\nTo: t\r\nSubject: s\r\nCc: c\r\n\r\nbody"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	tests := map[string]struct {
		edit func(c *message.Content)
		want error
	}{
		"another subject": {func(c *message.Content) {
			c.Common = bytes.Replace(c.Common, []byte("Subject: s"), []byte("Subject: t"), 1)
		}, message.HeaderMismatch},
		"a line that is missing": {func(c *message.Content) { c.Common = bytes.Replace(c.Common, []byte("CC: c\r\n"), nil, 1) }, message.HeaderMismatch},
		"another header block":   {func(c *message.Content) { c.Other = bytes.Replace(c.Other, []byte("To: t"), []byte("To: u"), 1) }, message.HeaderMismatch},
		"a second To":            {func(c *message.Content) { c.Other = append(c.Other, "To: eve\r\n"...) }, message.HeaderMismatch},
		"an unknown label":       {func(c *message.Content) { c.Common = append(c.Common, "Bcc: x\r\n"...) }, message.BadHeaders},
		"no final line end":      {func(c *message.Content) { c.Common = c.Common[:len(c.Common)-2] }, message.BadHeaders},
		"a repeated label":       {func(c *message.Content) { c.Common = append(c.Common, "To: t\r\n"...) }, message.BadHeaders},
		"bare LF in a value":     {func(c *message.Content) { c.Common = append(c.Common, "Organization: a\nb\r\n"...) }, message.BadHeaders},
		"compressed":             {func(c *message.Content) { c.Display[0].Flags = 4 }, message.BadFlags},
		"header without its end": {func(c *message.Content) { c.Other = c.Other[:len(c.Other)-2] }, message.BadLayout},
		"header with two ends":   {func(c *message.Content) { c.Other = append(c.Other, "\r\nX: y\r\n"...) }, message.BadLayout},
		"header that is an end": {func(c *message.Content) {
			c.Other = []byte("DIME-Layout: 1 hdr=full body=none\r\n\r\n\r\nX: y\r\n")
			c.Display = nil
		}, message.BadLayout},
		"no last piece":          {func(c *message.Content) { c.Display[0].Flags = message.FlagContinues }, message.BadSpan},
		"no last piece attached": {func(c *message.Content) { c.Attach = []message.Part{{Flags: message.FlagContinues, Data: []byte("x")}} }, message.BadSpan},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := good()
			if _, err := Export(c, [64]byte{}); err != nil {
				t.Fatal(err)
			}
			tt.edit(c)
			if _, err := Export(c, [64]byte{}); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// A field that chunk 34 has not may stand in chunk 33 with any value, and does not come out.
func TestSyntheticIsNotExported(t *testing.T) {
	c, err := Import(env, []byte("X: y\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	c.Common = []byte("Subject: made up\r\nOrganization: Evil\r\nTo: x\r\nFrom: y\r\nDate: z\r\n")
	if e, err := Export(c, [64]byte{}); err != nil || string(e.Bytes()) != "X: y\r\n\r\n" {
		t.Errorf("%v %q", err, e.Bytes())
	}
}
