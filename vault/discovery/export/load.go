package export

import (
	"bufio"
	"encoding/csv"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"dimegate/vault"
	"dimegate/vault/discovery"
)

// A row is what a load file says of an item.
type row struct {
	control string
	item    discovery.Item
	native  string // relative to the export's folder, with slashes; "" for none
	octets  int64
	md5     string
	sha256  string
	head    head
	files   []string // of attachments, by name
}

func newRow(control string, item discovery.Item) row { return row{control: control, item: item} }

// columns are those of both load files, in order. Of an item that is withheld those alone are filled that a list of withheld
// documents has.
var columns = []struct {
	name  string
	open  bool // of a withheld item, too
	value func(row) string
}{
	{"Control Number", true, func(r row) string { return r.control }},
	{"Custodian", true, func(r row) string { return first(r.item.Custodians) }},
	{"All Custodians", true, func(r row) string { return join(r.item.Custodians) }},
	{"From", true, func(r row) string { return r.head.addresses("From") }},
	{"To", true, func(r row) string { return r.head.addresses("To") }},
	{"CC", true, func(r row) string { return r.head.addresses("Cc") }},
	{"BCC", false, func(r row) string { return join(r.blind()) }},
	{"Envelope From", true, func(r row) string {
		return join(r.each(func(e discovery.Envelope) []string { return []string{"<" + e.From + ">"} }))
	}},
	{"Envelope Recipients", false, func(r row) string { return join(r.recipients()) }},
	{"Subject", false, func(r row) string { return r.head.text("Subject") }},
	{"Date Sent (UTC)", true, func(r row) string { return r.head.date() }},
	{"Date Received (UTC)", true, func(r row) string {
		return join(r.each(func(e discovery.Envelope) []string { return []string{moment(e.Received)} }))
	}},
	{"Message ID", false, func(r row) string { return r.head.text("Message-ID") }},
	{"In Reply To", false, func(r row) string { return r.head.text("In-Reply-To") }},
	{"References", false, func(r row) string { return r.head.text("References") }},
	{"Attachment Count", true, func(r row) string { return strconv.Itoa(len(r.files)) }},
	{"Attachment Names", false, func(r row) string { return join(r.files) }},
	{"File Size", true, func(r row) string { return strconv.FormatInt(r.octets, 10) }},
	{"MD5 Hash", false, func(r row) string { return r.md5 }},
	{"SHA-256 Hash", false, func(r row) string { return r.sha256 }},
	{"EDRM MIH", false, func(r row) string { return MIH(r.head.value("Message-ID")) }},
	{"Direction", true, func(r row) string {
		return join(r.each(func(e discovery.Envelope) []string { return []string{direction(e)} }))
	}},
	{"Marks", true, func(r row) string { return join(r.item.Marks) }},
	{"Record", true, func(r row) string {
		return join(r.each(func(e discovery.Envelope) []string { return []string{e.Record.String()} }))
	}},
	{"Log Leaf", true, func(r row) string {
		return join(r.each(func(e discovery.Envelope) []string { return []string{strconv.FormatUint(e.Leaf, 10)} }))
	}},
	{"Native Path", true, func(r row) string { return r.native }},
}

func (r row) values() []string {
	list := make([]string, len(columns))
	for i, c := range columns {
		if c.open || !r.item.Withheld() {
			list[i] = c.value(r)
		}
	}
	return list
}

func names() []string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.name
	}
	return list
}

// each gathers something of every envelope, in order and once.
func (r row) each(f func(discovery.Envelope) []string) []string {
	var list []string
	seen := map[string]bool{}
	for _, e := range r.item.Envelopes {
		for _, s := range f(e) {
			if !seen[s] {
				seen[s] = true
				list = append(list, s)
			}
		}
	}
	return list
}

func (r row) recipients() []string {
	return r.each(func(e discovery.Envelope) []string { return e.Recipients })
}

// blind are recipients of the envelopes whom the header does not show.
func (r row) blind() []string {
	shown := map[string]bool{}
	for _, name := range []string{"To", "Cc"} {
		for _, a := range r.head.list(name) {
			shown[strings.ToLower(a)] = true
		}
	}
	return slices.DeleteFunc(r.recipients(), func(a string) bool { return shown[strings.ToLower(a)] })
}

func direction(e discovery.Envelope) string {
	switch {
	case e.Source == "journal":
		return "internal"
	case e.Direction == vault.Outbound:
		return "outbound"
	case e.Direction == vault.Inbound:
		return "inbound"
	}
	return ""
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// join puts several values into one cell.
func join(list []string) string { return strings.Join(list, "; ") }

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateTime)
}

// cell is text that a cell may have: UTF-8, no control characters but line feeds, no byte order marks.
func cell(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\ufeff':
			return -1
		case unicode.IsControl(r):
			return ' '
		}
		return r
	}, strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\r\n", "\n"))
}

// A loadFile takes rows.
type loadFile interface {
	row(row) error
	end() error
}

// byteOrderMark begins both load files: without it those who read them on Windows take them for another encoding.
const byteOrderMark = "\ufeff"

// A dat is a Concordance load file: fields in þ, U+0014 between them, ® for a line end in a field, CRLF behind a row. A þ in a
// text is doubled; ® has no form of its own and becomes (R).
type dat struct{ w *bufio.Writer }

const (
	datSeparator = "\u0014"
	datQualifier = "\u00fe"
	datNewline   = "\u00ae"
)

var datText = strings.NewReplacer(datNewline, "(R)", datQualifier, datQualifier+datQualifier, "\n", datNewline)

func newDAT(w *bufio.Writer) dat {
	w.WriteString(byteOrderMark) // what fails here fails at the end again
	d := dat{w}
	d.line(names())
	return d
}

func (d dat) row(r row) error {
	r.native = strings.ReplaceAll(r.native, "/", `\`)
	return d.line(r.values())
}

func (d dat) line(values []string) error {
	for i, v := range values {
		if i > 0 {
			d.w.WriteString(datSeparator)
		}
		d.w.WriteString(datQualifier + datText.Replace(cell(v)) + datQualifier)
	}
	_, err := d.w.WriteString("\r\n")
	return err
}

func (d dat) end() error { return nil }

// A csvFile is RFC 4180. A text that a spreadsheet would compute has an apostrophe before it.
type csvFile struct{ w *csv.Writer }

func newCSV(w *bufio.Writer) csvFile {
	w.WriteString(byteOrderMark)
	c := csvFile{csv.NewWriter(w)}
	c.w.UseCRLF = true
	c.line(names())
	return c
}

func (c csvFile) row(r row) error { return c.line(r.values()) }

func (c csvFile) line(values []string) error {
	for i, v := range values {
		v = cell(v)
		if strings.IndexAny(strings.TrimLeftFunc(v, unicode.IsSpace), "=+-@＝＋－＠") == 0 {
			v = "'" + v
		}
		values[i] = v
	}
	return c.w.Write(values)
}

func (c csvFile) end() error {
	c.w.Flush()
	return c.w.Error()
}
