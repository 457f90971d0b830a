package station

import (
	"bufio"
	"context"
	"errors"
	"io"
	"mime"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	mail "github.com/emersion/go-message"
	"github.com/emersion/go-message/charset"
	"golang.org/x/net/html"
	"golang.org/x/sync/errgroup"

	"dimegate/vault/discovery"
)

// Bounds of what is looked at in one message. What is beyond makes it one that was not searched whole.
const (
	maxParts = 1024
	maxDepth = 16
	maxText  = 64 << 20 // octets of text, decoded
)

// A Result is what a search found.
type Result struct {
	Found []int `json:"found"` // items
	// Parts that are no text, or text that cannot be read: pictures, documents, what is encrypted end to end. Nobody looked into them.
	Unsearched []int `json:"not_searched_whole"`
}

// Search looks through every item, decoded: header fields, texts, names of attachments, messages inside messages.
func (c *Case) Search(ctx context.Context, q *Query, progress func(done, total int)) (*Result, error) {
	items := c.Items()
	found, part := make([]bool, len(items)), make([]bool, len(items))
	var next, done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < len(items); i = int(next.Add(1)) - 1 {
				if err := ctx.Err(); err != nil {
					return err
				}
				m := q.begin()
				whole, err := c.read(ctx, items[i], m)
				if err != nil {
					return err
				}
				found[i], part[i] = m.found(), !whole
				progress(int(done.Add(1)), len(items))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	r := &Result{Found: []int{}, Unsearched: []int{}}
	for i := range items {
		if found[i] {
			r.Found = append(r.Found, i+1)
		}
		if part[i] {
			r.Unsearched = append(r.Unsearched, i+1)
		}
	}
	return r, nil
}

func (c *Case) read(ctx context.Context, i discovery.Item, m *match) (whole bool, err error) {
	body, err := c.Open(ctx, i.Number)
	if err != nil {
		return false, err
	}
	defer body.Close()
	t := &texts{look: m.look, whole: true, left: maxText}
	for _, e := range i.Envelopes {
		t.say("from", e.From)
		for _, r := range e.Recipients {
			t.say("to", r)
		}
	}
	err = t.message(body, 0)
	if err == nil { // what stands behind the message's end must open too: a damaged item is told, not passed over
		_, err = io.Copy(io.Discard, body)
	}
	return t.whole, err
}

// Subject reads an item's subject and date as its header says them, decoded; empty where there is none.
func (c *Case) Subject(ctx context.Context, number int) (subject, date string, err error) {
	body, err := c.Open(ctx, number)
	if err != nil {
		return "", "", err
	}
	defer body.Close()
	e, err := mail.ReadWithOptions(body, readOptions)
	if e == nil {
		return "", "", nil // no header that can be read
	}
	return decoded(e.Header.Get("Subject")), e.Header.Get("Date"), nil
}

var readOptions = &mail.ReadOptions{MaxHeaderBytes: 16 << 20}

var words = mime.WordDecoder{CharsetReader: charset.Reader}

func decoded(s string) string {
	if d, err := words.DecodeHeader(s); err == nil {
		return d
	}
	return s
}

// texts walks through a message and gives its texts to look.
type texts struct {
	look  func(field, text string)
	whole bool
	parts int
	left  int64
}

func (t *texts) say(field, text string) {
	if text != "" {
		t.look(field, fold(text))
	}
}

// message reads a message or part of one. Its error is the reader's below: what is malformed is read as far as it goes.
func (t *texts) message(r io.Reader, depth int) error {
	below := &remembers{r: r}
	e, err := mail.ReadWithOptions(below, readOptions)
	if below.err != nil {
		return below.err
	}
	if e == nil {
		t.whole = false
		return nil
	}
	if err != nil { // an unknown charset or encoding
		t.whole = false
	}
	t.entity(e, depth)
	return below.err
}

// fieldOf says which field of a query looks at a header field.
var fieldOf = map[string]string{"subject": "subject", "from": "from", "sender": "from", "reply-to": "from", "to": "to", "cc": "to", "bcc": "to"}

func (t *texts) entity(e *mail.Entity, depth int) {
	if t.parts++; t.parts > maxParts || depth > maxDepth {
		t.whole = false
		return
	}
	for f := e.Header.Fields(); f.Next(); {
		t.say(fieldOf[strings.ToLower(f.Key())], decoded(f.Value()))
	}
	kind, params, err := e.Header.ContentType()
	if err != nil {
		kind = "text/plain"
	}
	_, disposition, _ := e.Header.ContentDisposition()
	t.say("file", decoded(disposition["filename"]))
	t.say("file", decoded(params["name"]))
	if mr := e.MultipartReader(); mr != nil {
		t.multipart(mr, depth)
		return
	}
	switch {
	case kind == "text/html":
		t.html(e.Body)
	case strings.HasPrefix(kind, "text/"):
		t.plain(e.Body)
	case kind == "message/rfc822" || kind == "message/global":
		if t.message(e.Body, depth+1) != nil {
			t.whole = false
		}
	case kind == "message/delivery-status" || kind == "message/disposition-notification":
		t.plain(e.Body)
	default:
		t.whole = false
	}
}

func (t *texts) multipart(mr mail.MultipartReader, depth int) {
	defer mr.Close()
	for {
		p, err := mr.NextPart()
		if p == nil || errors.Is(err, io.EOF) {
			t.whole = t.whole && (err == nil || errors.Is(err, io.EOF))
			return
		}
		if err != nil {
			t.whole = false
		}
		t.entity(p, depth+1)
		if t.parts > maxParts {
			return
		}
	}
}

func (t *texts) plain(r io.Reader) {
	b, err := io.ReadAll(io.LimitReader(r, t.left+1))
	t.left -= int64(len(b))
	if err != nil || t.left < 0 {
		t.whole, t.left = false, max(t.left, 0)
	}
	t.say("", string(b))
}

// html looks at the text of a document, and at what its links and pictures say.
func (t *texts) html(r io.Reader) {
	in := &io.LimitedReader{R: r, N: t.left + 1}
	z := html.NewTokenizer(bufio.NewReader(in))
	z.SetMaxBuf(1 << 20)
	var b strings.Builder
	for {
		switch z.Next() {
		case html.ErrorToken:
			if !errors.Is(z.Err(), io.EOF) || in.N == 0 {
				t.whole = false
			}
			t.left = max(t.left-int64(b.Len()), 0)
			t.say("", b.String())
			return
		case html.TextToken:
			b.Write(z.Text())
		case html.StartTagToken, html.SelfClosingTagToken, html.EndTagToken:
			name, more := z.TagName()
			if !inline[string(name)] {
				b.WriteByte(' ')
			}
			for more {
				var key, value []byte
				key, value, more = z.TagAttr()
				if slices.Contains([]string{"href", "alt", "title"}, string(key)) {
					b.WriteByte(' ')
					b.Write(value)
					b.WriteByte(' ')
				}
			}
		}
	}
}

// inline are elements that do not end a word.
var inline = map[string]bool{"a": true, "b": true, "i": true, "u": true, "em": true, "strong": true, "span": true, "font": true, "small": true, "sub": true, "sup": true, "wbr": true}

// remembers keeps the error of the reader below, which a parser above may hide.
type remembers struct {
	r   io.Reader
	err error
}

func (r *remembers) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}
