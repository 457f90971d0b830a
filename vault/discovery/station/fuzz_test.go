package station

import (
	"strings"
	"testing"
)

// FuzzTexts reads whatever came as a message: no octets end the reading but a reader's fault, and what is looked at is bounded.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{
		"Subject: x\r\n\r\nbody", "no header", "", "\r\n\r\n", "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n--x--",
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\na\r\n--x--\r\n--x--",
		"Content-Type: text/html; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+", "Content-Type: message/rfc822\r\n\r\nSubject: =?x?q?=\r\n\r\n",
		"Content-Type: text/html\r\n\r\n<p a=\"b\" href='c'>&amp;<!-- <script>x</script>",
	} {
		f.Add([]byte(s))
	}
	q, err := ParseQuery(`body OR "x" subject:x file:y* -z`)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n := q.begin(), 0
		r := &texts{look: func(field, text string) { n += len(text); m.look(field, text) }, whole: true, left: maxText}
		if err := r.message(strings.NewReader(string(b)), 0); err != nil {
			t.Errorf("a reader that does not fail: %v", err)
		}
		m.found()
		if n > 16*len(b)+1024 {
			t.Errorf("%d octets of text out of %d", n, len(b))
		}
	})
}

// FuzzQuery: a query that is read looks at any text without a fault, and finds its own first word, where nothing speaks against it.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"a", "a OR b", `"a b" -c`, "subject:x*", "*", "-", `"`, "a\"b\"", "İ", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := ParseQuery(s)
		if err != nil {
			return
		}
		m := q.begin()
		m.look(q.all[0][0].field, q.all[0][0].text)
		if !m.all[0][0] {
			t.Errorf("%q does not find %q", s, q.all[0][0].text)
		}
	})
}
