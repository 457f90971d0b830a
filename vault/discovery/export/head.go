package export

import (
	"bufio"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"net/mail"
	"strings"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/charset"
)

// MIH is the EDRM Message Identification Hash 1.0 of a message: MD5, in lower-case hexadecimal, of the value of its Message-ID
// field, angle brackets and case as they are, unfolded, without white space around it. Without a value there is none.
func MIH(messageID string) string {
	v := strings.TrimSpace(messageID)
	if v == "" {
		return ""
	}
	sum := md5.Sum([]byte(v))
	return hex.EncodeToString(sum[:])
}

// Bounds of what is looked at in a message; what is beyond goes into the native and is not told of.
const (
	maxHead  = 1 << 20
	maxParts = 10_000
	maxDepth = 32
)

// read reads a message to its end: hashes, header and the names of what is attached. No octets are an error, only the reader's
// are.
func (r *row) read(body io.Reader) error {
	sums := struct {
		md5, sha256 interface {
			io.Writer
			Sum([]byte) []byte
		}
	}{md5.New(), sha256.New()}
	n := new(count)
	source := &kept{r: io.TeeReader(body, io.MultiWriter(sums.md5, sums.sha256, n))}
	in := bufio.NewReader(source)
	r.head = readHead(in)
	a := attachments{}
	if e, err := message.New(r.head.part(), in); readable(e, err) {
		a.walk(e, 0)
	}
	r.files = a.names
	if _, err := io.Copy(io.Discard, in); err != nil && source.err == nil {
		source.err = err
	}
	r.octets, r.md5, r.sha256 = int64(*n), hex.EncodeToString(sums.md5.Sum(nil)), hex.EncodeToString(sums.sha256.Sum(nil))
	return source.err
}

type count int64

func (c *count) Write(p []byte) (int, error) {
	*c += count(len(p))
	return len(p), nil
}

// kept keeps an error of the reader below, which those who take a message apart may take for an end.
type kept struct {
	r   io.Reader
	err error
}

func (k *kept) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		k.err = err
	}
	return n, err
}

// A head is a message's header block, as far as it can be read: lines that are no field are passed over.
type head []field

type field struct{ name, value string } // value: unfolded, white space around it gone, nothing decoded

// readHead reads the header block and the empty line behind it.
func readHead(r *bufio.Reader) head {
	var h head
	open := false // whether a continuation line belongs to the last field
	for left := maxHead; left > 0; {
		line, err := readLine(r, left)
		left -= len(line)
		text := strings.TrimRight(string(line), "\r\n")
		switch name, value, ok := strings.Cut(text, ":"); {
		case text == "":
			return h
		case text[0] == ' ' || text[0] == '\t':
			if open {
				h[len(h)-1].value += text
			}
		case ok:
			h, open = append(h, field{strings.TrimRight(name, " \t"), value}), true
		default:
			open = false
		}
		if err != nil {
			return h
		}
	}
	return h
}

// readLine reads up to a line feed, or limit octets of a longer line.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part[:min(len(part), limit-len(line))]...)
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) >= limit {
			return line, err
		}
	}
}

// values are those of all fields of a name.
func (h head) values(name string) []string {
	var list []string
	for _, f := range h {
		if strings.EqualFold(f.name, name) {
			list = append(list, strings.TrimSpace(f.value))
		}
	}
	return list
}

// value is the first of a name, as it stands.
func (h head) value(name string) string { return first(h.values(name)) }

// text is the values of all fields of a name, decoded (RFC 2047).
func (h head) text(name string) string {
	list := h.values(name)
	for i, v := range list {
		list[i] = decode(v)
	}
	return join(list)
}

var words = mime.WordDecoder{CharsetReader: charset.Reader}

func decode(s string) string {
	t, err := words.DecodeHeader(s)
	if err != nil {
		t = s
	}
	return cell(t)
}

var addressParser = mail.AddressParser{WordDecoder: &words}

// parsed are the addresses of all fields of a name; ok is false when one cannot be read.
func (h head) parsed(name string) (list []*mail.Address, ok bool) {
	for _, v := range h.values(name) {
		if v == "" {
			continue
		}
		more, err := addressParser.ParseList(v)
		if err != nil {
			return list, false
		}
		list = append(list, more...)
	}
	return list, true
}

// addresses are those of all fields of a name as text: name <address>; what cannot be read is decoded and left as it is.
func (h head) addresses(name string) string {
	list, ok := h.parsed(name)
	if !ok {
		return h.text(name)
	}
	var all []string
	for _, a := range list {
		if a.Name == "" {
			all = append(all, cell(a.Address))
		} else {
			all = append(all, cell(a.Name+" <"+a.Address+">"))
		}
	}
	return join(all)
}

// list are the bare addresses of all fields of a name, as far as they can be read.
func (h head) list(name string) []string {
	list, _ := h.parsed(name)
	var all []string
	for _, a := range list {
		all = append(all, a.Address)
	}
	return all
}

// date is the Date field in UTC; "" when there is none that can be read.
func (h head) date() string {
	t, err := mail.ParseDate(h.value("Date"))
	if err != nil || t.Year() < 1 || t.Year() > 9999 {
		return ""
	}
	return moment(t)
}

// part is what the header says of the body's form.
func (h head) part() message.Header {
	var m message.Header
	for _, name := range []string{"Content-Type", "Content-Transfer-Encoding", "Content-Disposition"} {
		if v := h.value(name); v != "" {
			m.Set(name, strings.Map(func(r rune) rune {
				if r < ' ' || r == 0x7f {
					return ' '
				}
				return r
			}, v))
		}
	}
	return m
}

// attachments gathers the names of what is attached: parts that say so or have a file name, and whole messages.
type attachments struct {
	names []string
	parts int
}

// readable tells whether a part can be looked at: one in an unknown encoding can, as far as it is looked at here.
func readable(e *message.Entity, err error) bool {
	return e != nil && (err == nil || message.IsUnknownCharset(err) || message.IsUnknownEncoding(err))
}

// walk goes through a part in order. What cannot be taken apart ends it, with what was found.
func (a *attachments) walk(e *message.Entity, depth int) {
	if a.parts++; a.parts > maxParts || depth > maxDepth {
		return
	}
	if mr := e.MultipartReader(); mr != nil {
		for a.parts <= maxParts {
			p, err := mr.NextPart()
			if !readable(p, err) {
				return
			}
			a.walk(p, depth+1)
		}
		return
	}
	kind, typeParams, _ := e.Header.ContentType()
	disposition, params, _ := e.Header.ContentDisposition()
	name := params["filename"]
	if name == "" {
		name = typeParams["name"]
	}
	switch {
	case name != "":
		a.names = append(a.names, decode(name))
	case strings.EqualFold(kind, "message/rfc822"), strings.EqualFold(disposition, "attachment"):
		a.names = append(a.names, "(no name)")
	}
}
