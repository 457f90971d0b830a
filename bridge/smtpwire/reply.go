package smtpwire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Bounds of a peer's reply.
const (
	maxReplyLine  = 4096 // RFC 5321 §4.5.3.1.5 asks for 512
	maxReplyLines = 200
	maxReplyText  = 500 // octets of it that are kept
)

// A Reply is one reply of a server (RFC 5321 §4.2) with its enhanced code (RFC 2034), if it has one.
type Reply struct {
	Code     int
	Enhanced [3]int // zero: none
	Text     string // its lines, without codes, escaped and cut: safe to show, but it may quote addresses
}

// An Error is a server's refusal, or ours in its place when the server cannot carry the message.
type Error struct {
	Reply
	Stage Stage
	Local bool // nothing was sent: the message needs what the server does not offer
}

// A Stage is the command that was refused.
type Stage string

const (
	StageBanner   Stage = "banner"
	StageHello    Stage = "hello"
	StageStartTLS Stage = "starttls"
	StageAuth     Stage = "auth"
	StageClient   Stage = "xclient"
	StageMail     Stage = "mail"
	StageRcpt     Stage = "rcpt"
	StageData     Stage = "data" // the command
	StageBody     Stage = "body" // the message itself: the verdict
)

// Error has the server's words only of stages that come before it knows an address: later it quotes them, and errors are
// logged. Text has all.
func (e *Error) Error() string {
	who := "server"
	if e.Local {
		who = "smtpwire"
	}
	text := fmt.Sprintf("%s refuses %s: %d %d.%d.%d", who, e.Stage, e.Code, e.Enhanced[0], e.Enhanced[1], e.Enhanced[2])
	switch e.Stage {
	case StageBanner, StageHello, StageStartTLS, StageClient:
		return text + " " + e.Text
	}
	if e.Local { // our words
		return text + " " + e.Text
	}
	return text
}

// Temporary tells whether trying again may help.
func (e *Error) Temporary() bool { return e.Code/100 == 4 }

// UnknownRecipient tells whether the server says that there is no such mailbox: an enhanced code x.1.x but those that speak of
// the sender (x.1.7, x.1.8), or 550, 551 or 553 without any. A refusal for another reason, as 550 5.7.1, is none (dmtp.md
// OC-38).
func (e *Error) UnknownRecipient() bool {
	if e.Code/100 != 5 {
		return false
	}
	if e.Enhanced != [3]int{} {
		return e.Enhanced[1] == 1 && e.Enhanced[2] != 7 && e.Enhanced[2] != 8
	}
	return e.Stage == StageRcpt && (e.Code == 550 || e.Code == 551 || e.Code == 553)
}

// ErrProtocol means that what came is no SMTP reply.
var ErrProtocol = errors.New("smtpwire: the server's reply is not SMTP")

func readReply(in *bufio.Reader) (Reply, error) {
	r, _, err := readLines(in)
	return r, err
}

// readLines reads a reply and its lines as they came, without their codes.
func readLines(in *bufio.Reader) (Reply, []string, error) {
	var r Reply
	var lines []string
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			if err == bufio.ErrBufferFull {
				err = ErrProtocol
			}
			return Reply{}, nil, err
		}
		text := string(bytes.TrimRight(line, "\r\n"))
		code := 0
		for i := 0; i < 3 && i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
			code = code*10 + int(text[i]-'0')
		}
		if len(line) > maxReplyLine || len(lines) >= maxReplyLines || code < 200 || code > 599 || len(text) > 3 && text[3] != ' ' && text[3] != '-' || r.Code != 0 && code != r.Code {
			return Reply{}, nil, ErrProtocol
		}
		r.Code = code
		lines = append(lines, text[min(4, len(text)):])
		if len(text) <= 3 || text[3] == ' ' {
			break
		}
	}
	r.Enhanced, r.Text = enhanced(r.Code, lines)
	return r, lines, nil
}

// enhanced takes the enhanced code from each line. Its class must be the reply's, or it is text.
func enhanced(code int, lines []string) (ec [3]int, text string) {
	var b strings.Builder
	for i, l := range lines {
		word, rest, _ := strings.Cut(l, " ")
		if e, ok := parseEnhanced(word); ok && e[0] == code/100 && (i == 0 || e == ec) {
			ec, l = e, rest
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(l)
	}
	return ec, Printable(b.String(), maxReplyText)
}

func parseEnhanced(s string) (ec [3]int, ok bool) {
	if len(s) > len("5.999.999") {
		return ec, false
	}
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return ec, false
	}
	for i, p := range parts {
		if p == "" || len(p) > 3 {
			return ec, false
		}
		for _, c := range []byte(p) {
			if c < '0' || c > '9' {
				return ec, false
			}
			ec[i] = ec[i]*10 + int(c-'0')
		}
	}
	return ec, ec[0] == 2 || ec[0] == 4 || ec[0] == 5
}

// Printable makes a peer's text safe to show and to log: printable ASCII, everything else as "?", cut at limit.
func Printable(s string, limit int) string {
	b := []byte(s[:min(len(s), limit)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
