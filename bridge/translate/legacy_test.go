package translate

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"strings"
	"testing"

	"dimegate/dmtp/message"
)

const legacyCommon = "From: f@x\r\nDate: d\r\nTo: t@x\r\nCC: c@x\r\nOrganization: o\r\nSubject: s\r\n"

// Messages of libdime's writers: dmime.md §12.5.
func TestExportLegacy(t *testing.T) {
	const six = "Date: d\r\nFrom: f@x\r\nTo: t@x\r\nCc: c@x\r\nSubject: s\r\nOrganization: o\r\n"
	const id = "Message-ID: <aeaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@dime.invalid>\r\n"
	const text = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
	tests := map[string]struct {
		other   string
		display []string
		attach  []string
		want    string
	}{
		"one text":             {"X: y\r\n", []string{"Hellö\r\n"}, nil, six + id + "X: y\r\n" + text + "Hellö\r\n"},
		"line feeds":           {"X: y", []string{"a\nb\rc"}, nil, six + id + "X: y\r\n" + text + "a\r\nb\r\nc"},
		"not UTF-8":            {"X: y\r\n", []string{"\xff"}, nil, six + id + "X: y\r\n" + strings.Replace(text, "utf-8", "unknown-8bit", 1) + "\xff"},
		"no other headers":     {"", []string{"x"}, nil, six + id + text + "x"},
		"no body":              {"X: y\r\n", nil, nil, six + id + "X: y\r\nMIME-Version: 1.0\r\n\r\n"},
		"their Message-ID":     {"Message-Id: <a@b>\r\n", []string{"x"}, nil, six + "Message-Id: <a@b>\r\n" + text + "x"},
		"their MIME, one part": {"Content-Type: text/html\r\n", []string{"<p>\n"}, nil, six + id + "Content-Type: text/html\r\n\r\n<p>\n"},
		"their multipart": {"Content-Type: multipart/mixed; boundary=b\r\n", []string{"--b\r\n\r\n1"}, []string{"\r\n--b\r\n\r\n2\r\n--b--"},
			six + id + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n1\r\n--b\r\n\r\n2\r\n--b--"},
		"NUL in text": {"X: y\r\n", []string{"a\x00"}, nil, six + id + "X: y\r\n" + strings.Replace(text, "8bit", "base64", 1) + "YQA=\r\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e, err := Export(content(tt.other, tt.display, tt.attach), [64]byte{1})
			if err != nil || e.Form != Legacy || e.HasReturn {
				t.Fatalf("%v %+v", err, e)
			}
			if got := string(e.Bytes()); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func content(other string, display, attach []string) *message.Content {
	c := &message.Content{Common: []byte(legacyCommon), Other: []byte(other)}
	for _, s := range display {
		c.Display = append(c.Display, message.Part{Data: []byte(s)})
	}
	for _, s := range attach {
		c.Attach = append(c.Attach, message.Part{Data: []byte(s)})
	}
	return c
}

// Read by the standard library, every part is there with its octets.
func TestExportParts(t *testing.T) {
	big := strings.Repeat("\x00\xffbig", 50_000)
	tests := map[string]struct {
		c     *message.Content
		form  Form
		parts map[string]string // by file name, or by number
	}{
		"texts and files":      {content("X: y\r\n", []string{"one\r\n", "two=_dime_\r\n"}, []string{"a\x00b", big}), Legacy, map[string]string{"0": "one\r\n", "1": "two=_dime_\r\n", "attachment-1.bin": "a\x00b", "attachment-2.bin": big}},
		"lines that are none":  {content("not a field\r\n", []string{"one"}, nil), Legacy, map[string]string{"0": "one", "other-headers.txt": "not a field\r\n"}},
		"hidden line":          {content("X: y\nBcc: z\r\n", []string{"one"}, nil), Legacy, map[string]string{"0": "one", "other-headers.txt": "X: y\nBcc: z\r\n"}},
		"type without its own": {content("Content-Type: text/html\r\nMIME-Version: 1.0\r\n", []string{"one"}, []string{"two"}), Legacy, map[string]string{"0": "one", "attachment-1.bin": "two"}},
		"layout of version 2":  {content("DIME-Layout: 2 hdr=full body=concat\r\n\r\nA: b\r\n", []string{"one"}, []string{"two"}), Raw, map[string]string{"other-headers.txt": "DIME-Layout: 2 hdr=full body=concat\r\n\r\nA: b\r\n", "display-1.bin": "one", "attachment-1.bin": "two"}},
		"unknown body":         {content("DIME-Layout: 1 hdr=full body=tree\r\n\r\n", []string{"one"}, nil), Raw, map[string]string{"display-1.bin": "one"}},
		"no hdr":               {content("DIME-Layout: 1 body=none\r\n\r\n", nil, nil), Raw, nil},
		"none, and a body":     {content("DIME-Layout: 1 hdr=full body=none\r\n\r\n", []string{"one"}, nil), Raw, map[string]string{"display-1.bin": "one"}},
		"never ends":           {content("DIME-Layout: 1 hdr=full body=none\r\n", nil, nil), Raw, nil},
		"65 lines":             {content("DIME-Layout: 1 hdr=full body=none\r\n"+strings.Repeat("DIME-X: y\r\n", 64)+"\r\n", nil, nil), Raw, nil},
		"two reverse-paths":    {content("DIME-Layout: 1 hdr=full body=none\r\nDIME-Return: <>\r\nDIME-Return: <a@b>\r\n\r\n", nil, nil), Raw, nil},
		"reverse-path of none": {content("DIME-Layout: 1 hdr=full body=none\r\nDIME-Return: \r\n\r\n", nil, nil), Raw, nil},
		"an alien line":        {content("DIME-Layout: 1 hdr=full body=none\r\nX: y\r\n\r\n", nil, nil), Raw, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e, err := Export(tt.c, [64]byte{1})
			if err != nil || e.Form != tt.form {
				t.Fatalf("%v, form %v", err, e.Form)
			}
			got := readParts(t, e.Reader())
			for name, want := range tt.parts {
				if got[name] != want {
					t.Errorf("part %s has %d octets, want %d", name, len(got[name]), len(want))
				}
			}
			if tt.form == Legacy && len(got) != len(tt.parts) {
				t.Errorf("%d parts", len(got))
			}
		})
	}
}

func readParts(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	m, err := mail.ReadMessage(r)
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{}
	mr := multipart.NewReader(m.Body, params["boundary"])
	for n := 0; ; n++ {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return parts
		} else if err != nil {
			t.Fatal(err)
		}
		name := p.FileName()
		if name == "" {
			name = string(rune('0' + n))
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		if p.Header.Get("Content-Transfer-Encoding") == "base64" {
			b = decode64(t, b)
		}
		parts[name] = string(b)
	}
}

func TestExportExtra(t *testing.T) {
	c := content("DIME-Layout: 1 future=x hdr=extra body=concat\r\nDIME-Future: y\r\nDIME-Return: b@x\r\n\r\nX: y\r\n", []string{"one"}, nil)
	e, err := Export(c, [64]byte{})
	if err != nil || e.Return != "b@x" || !e.HasReturn {
		t.Fatalf("%v %+v", err, e)
	}
	if want := "Date: d\r\nFrom: f@x\r\nTo: t@x\r\nCc: c@x\r\nSubject: s\r\nOrganization: o\r\nX: y\r\n\r\none"; string(e.Bytes()) != want {
		t.Errorf("got %q", e.Bytes())
	}
}

func TestFoldLongValues(t *testing.T) {
	c := content("", []string{"x"}, nil)
	c.Common = []byte("Date: d\r\nTo: " + strings.Repeat("user@bravo.example, ", 1000) + "\r\nFrom: " + strings.Repeat("y", 3000) + "\r\nSubject: s\r\n")
	e, err := Export(c, [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	for f := range Fields(joined(t, e).Header) {
		for line := range bytes.SplitSeq(f.Raw, crlf) {
			if len(line) > maxLine && f.Is("To") {
				t.Errorf("a line of %d octets", len(line))
			}
		}
		if f.Is("To") && string(unfold(f.Body)) != strings.TrimSpace(strings.Repeat("user@bravo.example, ", 1000)) {
			t.Error("folding changed the value")
		}
	}
}

func decode64(t *testing.T, b []byte) []byte {
	t.Helper()
	for line := range bytes.SplitSeq(b, crlf) {
		if len(line) > 76 {
			t.Errorf("a base64 line of %d characters", len(line))
		}
	}
	out, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(b)))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
