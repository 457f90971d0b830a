package mx

import (
	"errors"

	"github.com/emersion/go-smtp"

	"dimegate/bridge/handoff"
	"dimegate/bridge/scanner"
	"dimegate/bridge/smtpwire"
	"dimegate/bridge/translate"
)

// Why we refuse by ourselves.
var (
	errRelay     = errors.New("mx: the domain is none of ours")
	errStrict    = errors.New("mx: the domain takes no plain mail")
	errElsewhere = errors.New("mx: the recipient is of another inner server than those before")
	errUnknown   = errors.New("mx: the client has tried too many unknown recipients")
	errEnough    = errors.New("mx: too many recipients of this session were refused")
	errEightBit  = errors.New("mx: the inner server takes no octets above 127")
	ErrFull      = errors.New("mx: no room to hold a message") // of Held
	errDown      = errors.New("mx: nothing can be taken for the domain now")
	ErrArchive   = errors.New("mx: the message must be kept, and cannot be")
	errSlow      = errors.New("mx: the message comes in too slowly")
)

// replies is the one place where our errors become the client's words; first match wins. What the inner server says has no row:
// see replyFor. What is neither is 451 4.3.0, the client's to retry.
var replies = []struct {
	err            error
	code           int
	subject, datum int
	text           string
}{
	{smtpwire.ErrNoDomain, 501, 1, 3, "an address needs a domain"},
	{smtpwire.ErrNeedsUTF8, 553, 6, 7, "an internationalized address needs SMTPUTF8"},
	{smtpwire.ErrAddress, 501, 1, 3, "bad address"},
	{errRelay, 550, 7, 1, "relaying denied: the recipient's domain is not served here"},
	{errStrict, 550, 7, 10, "the recipient's domain takes mail by DIME only"},
	{errElsewhere, 452, 5, 3, "send to this recipient in a transaction of its own"},
	{errUnknown, 450, 7, 1, "too many unknown recipients, try again later"},
	{errEnough, 421, 7, 0, "too many unknown recipients"},
	{smtpwire.ErrBareEnd, 554, 6, 0, "a CR or LF in the message is no line end (RFC 5321, 2.3.8)"},
	{smtpwire.ErrLongLine, 554, 6, 0, "a line of the message is longer than 1 MiB"},
	{smtpwire.ErrTooLarge, 552, 3, 4, "message too large"},
	{handoff.ErrHiddenHeader, 554, 6, 0, "NUL in the header of the message"},
	{translate.ErrHeader, 552, 3, 4, "the header of the message is too large"},
	{handoff.ErrLoop, 554, 4, 6, "the message goes round: a loop"},
	{errEightBit, 554, 6, 3, "the recipient's server takes no 8-bit message"},
	{ErrFull, 452, 3, 1, "insufficient system storage"},
	{ErrArchive, 451, 3, 5, "mail is archived here, and cannot be now: try again later"},
	{scanner.ErrRejected, 550, 7, 1, "refused by the content scanner"},
	{scanner.ErrQuarantined, 550, 7, 1, "refused by the content scanner"}, // there is nowhere to hold it
	{scanner.ErrTooLarge, 552, 3, 4, "larger than the content scanner may be shown"},
	{scanner.ErrUnavailable, 451, 7, 1, "the content scanner gives no verdict, try again later"},
	{errDown, 451, 3, 2, "the recipient's domain takes no mail now, try again later"},
	{errSlow, 451, 4, 2, "the message comes in too slowly"},
	{smtpwire.ErrUncertain, 451, 4, 2, "the recipient's server gave no answer, try again later"},
	{handoff.ErrUnavailable, 451, 4, 1, "the recipient's server cannot be reached, try again later"},
	{handoff.ErrClosed, 451, 3, 2, "shutting down, try again later"},
	{errStopping, 451, 3, 2, "shutting down, try again later"},
}

// replyFor finds the reply to an error; nil for nil. A verdict of the inner server is passed on with its code, its enhanced code
// and its text, which is printable by then: it is the organisation's own word to the sender.
func replyFor(err error) *smtp.SMTPError {
	if err == nil {
		return nil
	}
	for _, r := range replies {
		if errors.Is(err, r.err) {
			return &smtp.SMTPError{Code: r.code, EnhancedCode: smtp.EnhancedCode{r.code / 100, r.subject, r.datum}, Message: r.text}
		}
	}
	if e, ok := errors.AsType[*smtpwire.Error](err); ok && (e.Code/100 == 4 || e.Code/100 == 5) {
		r := passed(e.Reply, "refused")
		if e.UnknownRecipient() && e.Enhanced == [3]int{} {
			r.EnhancedCode = smtp.EnhancedCode{5, 1, 1}
		}
		return r
	}
	return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "local error, try again later"}
}

// maxText is how much of a text fits in a reply line of RFC 5321 §4.5.3.1.5.
const maxText = 480

// passed is a reply of the inner server as ours. That it ends its session with us is no reason to end this one.
func passed(r smtpwire.Reply, empty string) *smtp.SMTPError {
	if r.Code == 421 {
		r.Code = 451
	}
	if r.Enhanced == [3]int{} {
		r.Enhanced[0] = r.Code / 100
	}
	if r.Text == "" {
		r.Text = empty
	}
	return &smtp.SMTPError{Code: r.Code, EnhancedCode: smtp.EnhancedCode(r.Enhanced), Message: r.Text[:min(len(r.Text), maxText)]}
}
