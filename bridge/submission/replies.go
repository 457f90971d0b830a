package submission

import (
	"errors"

	"github.com/emersion/go-smtp"

	"dimegate/bridge/scanner"
	"dimegate/bridge/smtpwire"
)

// What an Acceptor can say beside "durable": the reply of each stands in replies.
var (
	ErrFull      = errors.New("submission: no room") // disk, queue
	ErrBusy      = errors.New("submission: too much at one time")
	ErrStopping  = errors.New("submission: going down")
	ErrTooLarge  = errors.New("submission: message too large")
	ErrPolicy    = errors.New("submission: refused by policy")
	ErrContent   = errors.New("submission: message cannot be processed")
	ErrRecipient = errors.New("submission: no such recipient")
	ErrArchive   = errors.New("submission: the message must be kept, and cannot be")
)

// replies is the one place where our errors become the client's words; first match wins. What is not here is 451 4.3.0, the
// client's to retry: mail is neither lost nor sent unsealed. The class of the enhanced code is the code's.
var replies = []struct {
	err            error
	code           int
	subject, datum int
	text           string
}{
	{smtpwire.ErrNoDomain, 501, 1, 3, "an address needs a domain"},
	{smtpwire.ErrNeedsUTF8, 553, 6, 7, "an internationalized address needs SMTPUTF8"},
	{smtpwire.ErrAddress, 501, 1, 3, "bad address"},
	{smtpwire.ErrBareEnd, 554, 6, 0, "a CR or LF in the message is no line end (RFC 5321, 2.3.8)"},
	{smtpwire.ErrLongLine, 554, 6, 0, "a line of the message is longer than 1 MiB"},
	{smtpwire.ErrTooLarge, 552, 3, 4, "message too large"},
	{ErrTooLarge, 552, 3, 4, "message too large"},
	{ErrFull, 452, 3, 1, "insufficient system storage"},
	{ErrArchive, 451, 3, 5, "mail is to be archived here, and the archive has no key: try again later"},
	{ErrBusy, 451, 3, 2, "busy, try again later"},
	{ErrStopping, 451, 3, 2, "shutting down, try again later"},
	{errStopping, 451, 3, 2, "shutting down, try again later"},
	{errTenant, 550, 7, 1, "the message is not of the organization that may send through this relay"},
	{errLimit, 450, 7, 1, "too much mail from this sender in an hour, try again later"},
	{scanner.ErrRejected, 550, 7, 1, "refused by the content scanner"},
	{scanner.ErrTooLarge, 552, 3, 4, "larger than the content scanner may be shown"},
	{scanner.ErrUnavailable, 451, 7, 1, "the content scanner gives no verdict, try again later"},
	{ErrPolicy, 550, 7, 1, "refused by policy"},
	{ErrContent, 554, 6, 0, "the message cannot be processed"},
	{ErrRecipient, 550, 1, 1, "no such recipient"},
}

// replyFor finds the reply to an error; nil for nil.
func replyFor(err error) *smtp.SMTPError {
	if err == nil {
		return nil
	}
	for _, r := range replies {
		if errors.Is(err, r.err) {
			return reply(r.code, r.subject, r.datum, r.text)
		}
	}
	return reply(451, 3, 0, "local error, try again later")
}

func reply(code, subject, datum int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, subject, datum}, Message: text}
}
