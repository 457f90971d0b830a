package mailauth

import (
	"errors"
	"io"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dkim"

	"dimegate/bridge/translate"
)

// Bounds on what a message may make us compute. RFC 6376 §6.1 leaves them to the verifier. go-msgauth's time grows with the
// square of some of what a sender chooses; a message beyond these is not verified: its signatures are a permerror.
const (
	maxSignatures = 8         // the rest is not looked at
	maxFolding    = 256 << 20 // sum of octets × lines of each field: a field is put together line by line
	maxPicking    = 16 << 20  // sum of octets of signatures, times the number of fields: each name in h= is looked for
	maxBlank      = 64 << 10  // octets of white space in a row in the body: they are kept until something follows
)

// checkDKIM verifies the signatures of a message, the first maxSignatures. One verdict at least: none.
func checkDKIM(dns lookups, header []byte, message io.Reader) ([]verdict, error) {
	n, fields, folding, picking := 0, 0, 0, 0
	for f := range translate.Fields(header) {
		fields++
		lines := 0
		for _, c := range f.Raw {
			if c == '\n' {
				lines++
			}
		}
		folding += lines * len(f.Raw)
		if f.Is("DKIM-Signature") {
			n++
			picking += len(f.Raw)
		}
	}
	switch {
	case n == 0:
		return []verdict{{value: authres.ResultNone}}, nil
	case folding > maxFolding || picking*fields > maxPicking:
		return []verdict{{value: authres.ResultPermError}}, nil
	}
	src := &source{r: message}
	list, err := dkim.VerifyWithOptions(src, &dkim.VerifyOptions{LookupTXT: dns.text, MaxVerifications: maxSignatures})
	switch {
	case src.err == errBlank:
		return []verdict{{value: authres.ResultPermError}}, nil
	case src.err != nil:
		return nil, src.err
	case err != nil && !errors.Is(err, dkim.ErrTooManySignatures) || len(list) == 0: // no empty line behind the header
		return []verdict{{value: authres.ResultNeutral}}, nil
	}
	var all []verdict
	for _, v := range list {
		domain, _ := hostName(v.Domain)
		all = append(all, verdict{dkimValue(v.Err), domain})
	}
	return all, nil
}

// dkimValue is RFC 8601 §2.7.1's word.
func dkimValue(err error) authres.ResultValue {
	switch {
	case err == nil:
		return authres.ResultPass
	case dkim.IsTempFail(err):
		return authres.ResultTempError
	case dkim.IsPermFail(err):
		return authres.ResultPermError
	}
	return authres.ResultFail
}

var errBlank = errors.New("mailauth: too much white space in a row")

// A source reads a message for go-msgauth, which leaves goroutines behind when reading fails: it sees an end instead, and the
// error is kept. It fails with errBlank, too.
type source struct {
	r     io.Reader
	blank int
	err   error
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, io.EOF
	}
	n, err := s.r.Read(p)
	for _, c := range p[:n] {
		if s.blank++; c != '\r' && c != '\n' && c != ' ' && c != '\t' {
			s.blank = 0
		}
		if s.blank > maxBlank {
			err = errBlank
			break
		}
	}
	if err != nil && err != io.EOF {
		s.err = err
		return 0, io.EOF
	}
	return n, err
}
