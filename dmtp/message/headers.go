package message

import "bytes"

// commonLabels are the lines that chunk 33 may hold, in the order in which they are written; on reading, any order is right.
// Source: libdime dmessage/parser.c dmime_header_keys, whose reader also lets bare line feeds and missing fields pass.
var commonLabels = [...]struct {
	text     string
	required bool
}{
	{"Date: ", true},
	{"To: ", true},
	{"CC: ", false},
	{"From: ", true},
	{"Organization: ", false},
	{"Subject: ", true},
}

// checkCommon checks the grammar of chunk 33's data: each label once at most, the required ones there, a value without CR,
// LF and NUL, CRLF at each end.
func checkCommon(data []byte) error {
	var seen [len(commonLabels)]bool
	for len(data) > 0 {
		line, rest, ok := bytes.Cut(data, []byte("\r\n"))
		if !ok {
			return fail(BadHeaders, TypeCommon, "the last line has no end")
		}
		i := commonLabel(line)
		switch {
		case i < 0:
			return fail(BadHeaders, TypeCommon, "a label that has no place here")
		case seen[i]:
			return fail(BadHeaders, TypeCommon, "a label stands there twice")
		case bytes.ContainsAny(line, "\r\n\x00"):
			return fail(BadHeaders, TypeCommon, "CR, LF or NUL in a value")
		}
		seen[i], data = true, rest
	}
	for i, l := range commonLabels {
		if l.required && !seen[i] {
			return fail(HeaderMissing, TypeCommon, "no %s line", l.text[:len(l.text)-2])
		}
	}
	return nil
}

func commonLabel(line []byte) int {
	for i, l := range commonLabels {
		if bytes.HasPrefix(line, []byte(l.text)) {
			return i
		}
	}
	return -1
}
