package translate

import (
	"bytes"
	"time"

	"dimegate/dmtp/message"
)

// commonFields is chunk 33: the labels in the order in which they are written, and the header fields that they stand for.
// Source: dmime.md §8.2 (libdime dmime_header_keys).
var commonFields = [...]struct {
	label    string
	field    string
	required bool
	joined   bool // several fields are joined by ", "; otherwise the first counts
}{
	{label: "Date: ", field: "Date", required: true},
	{label: "To: ", field: "To", required: true, joined: true},
	{label: "CC: ", field: "Cc", joined: true},
	{label: "From: ", field: "From", required: true},
	{label: "Organization: ", field: "Organization"},
	{label: "Subject: ", field: "Subject", required: true},
}

// common holds a value for each label; nil is an absent one.
type common [len(commonFields)][]byte

// derive takes the six values from a header block.
func derive(block []byte) common {
	var c common
	for f := range Fields(block) {
		if f.Name == nil {
			continue
		}
		for i, row := range commonFields {
			switch {
			case !f.Is(row.field):
			case c[i] == nil:
				c[i] = unfold(f.Body)
			case row.joined:
				c[i] = append(append(c[i], ", "...), unfold(f.Body)...)
			}
		}
	}
	return c
}

// synthesize fills in what libdime's readers demand and the message lacks. These values never leave chunk 33.
func (c *common) synthesize(author string, now time.Time) {
	for i, row := range commonFields {
		if !row.required || c[i] != nil {
			continue
		}
		switch row.field {
		case "Date":
			c[i] = now.AppendFormat(nil, time.RFC1123Z)
		case "To":
			c[i] = []byte("undisclosed-recipients:;")
		case "From":
			c[i] = []byte(author)
		default:
			c[i] = []byte{}
		}
	}
}

// encode writes chunk 33's data.
func (c *common) encode() []byte {
	n := 0
	for i, row := range commonFields {
		n += len(row.label) + len(c[i]) + 2
	}
	out := make([]byte, 0, n)
	for i, row := range commonFields {
		if c[i] != nil {
			out = append(append(append(out, row.label...), c[i]...), "\r\n"...)
		}
	}
	return out
}

// parseCommon reads chunk 33: its lines in any order, each label once at most. Values are slices of data.
func parseCommon(data []byte) (common, error) {
	var c common
	for len(data) > 0 {
		line, rest, ended := bytes.Cut(data, crlf)
		if !ended || bytes.ContainsAny(line, "\r\n\x00") {
			return common{}, fail(message.BadHeaders, message.TypeCommon, "a line that does not end with CRLF, or holds CR, LF or NUL")
		}
		i := 0
		for i < len(commonFields) && !bytes.HasPrefix(line, []byte(commonFields[i].label)) {
			i++
		}
		if i == len(commonFields) || c[i] != nil {
			return common{}, fail(message.BadHeaders, message.TypeCommon, "an unknown or repeated label")
		}
		c[i] = line[len(commonFields[i].label):]
		data = rest
	}
	return c, nil
}

// check compares chunk 33 with what the header block says. A field that the block has not may have any value in chunk 33:
// that is a synthetic one.
func (c *common) check(block []byte) error {
	derived := derive(block)
	for i, row := range commonFields {
		if derived[i] != nil && (c[i] == nil || !bytes.Equal(c[i], derived[i])) {
			return fail(message.HeaderMismatch, message.TypeCommon, row.field+" differs from the header block")
		}
	}
	return nil
}

func fail(c message.Class, t message.Type, reason string) *message.Error {
	return &message.Error{Class: c, Chunk: t, Reason: reason}
}
