package dmtp

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
)

// A Reply is a server's answer. The lines of a longer text are parted by LF; they all carry the same code. No line needs
// more than what a reply line may hold: see MaxReplyLine.
type Reply struct {
	Code int
	Text string
}

// Lines returns the reply's wire lines, each with its CRLF. A server writes each in a TLS record of its own: libdime's reader
// merges lines that arrive together, and loses text.
func (r Reply) Lines() []string {
	lines := strings.Split(r.Text, "\n")
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		lines[i] = digits(r.Code) + sep + l + "\r\n"
	}
	return lines
}

func digits(code int) string {
	return string([]byte{byte('0' + code/100%10), byte('0' + code/10%10), byte('0' + code%10)})
}

// The replies of a server that carry no values. Texts are ours; codes are libdime's unfinished list, except where its client
// or the one server that it was written against insist on another.
var (
	ReplyMode              = Reply{200, "OK DMTPv1"}
	ReplyModeClear         = Reply{200, "OK ESMTP"}
	ReplyBye               = Reply{221, "BYE"}
	ReplyOK                = Reply{250, "OK"}
	ReplySwitched          = Reply{250, "OK DMTPv1"} // unasked, the first octets after STARTTLS
	ReplySwitchedSMTP      = Reply{250, "OK SMTP"}
	ReplyDomainCurrent     = Reply{271, "CURRENT"}
	ReplyAddressCurrent    = Reply{281, "CURRENT"}
	ReplyTooMany           = Reply{421, "TOO MANY CONNECTIONS - TRY LATER"}
	ReplyEnough            = Reply{421, "SESSION LIMIT REACHED - GOOD BYE"}
	ReplyDataTimeout       = Reply{421, "DATA TIMED OUT"}
	ReplyDestinationLimits = Reply{431, "DESTINATION LIMITS EXCEEDED"}
	ReplyDenied            = Reply{450, "ACCESS DENIED - TRY LATER"}
	ReplyCorrupted         = Reply{451, "DATA CORRUPTED"}
	ReplyInternal          = Reply{451, "INTERNAL ERROR"}
	ReplyInFlight          = Reply{451, "DELIVERY IN PROGRESS"}
	ReplyDeferred          = Reply{451, "DELIVERY DEFERRED"}
	ReplyEncrypted         = Reply{454, "SESSION IS ALREADY ENCRYPTED"}
	ReplyOriginDoubtful    = Reply{470, "ORIGIN SIGNET UNAVAILABLE"}
	ReplySignetDoubtful    = Reply{476, "SIGNET TEMPORARILY UNAVAILABLE"}
	ReplyBadCommand        = Reply{500, "INVALID COMMAND"}
	ReplyLineTooLong       = Reply{500, "LINE TOO LONG"}
	ReplyBadStartTLS       = Reply{501, "BAD STARTTLS SYNTAX"}
	ReplyDisabled          = Reply{502, "COMMAND DISABLED"}
	ReplyNeedTLS           = Reply{503, "DMTP COMMAND REQUIRES STARTTLS FIRST"}
	ReplyNoStartTLS        = Reply{503, "STARTTLS NOT POSSIBLE NOW"}
	ReplyNeedHello         = Reply{503, "PLEASE PROVIDE AN EHLO AND TRY AGAIN"}
	ReplyNeedMail          = Reply{503, "PLEASE PROVIDE A MAIL FROM AND TRY AGAIN"}
	ReplyNeedRcpt          = Reply{503, "PLEASE PROVIDE A RCPT TO AND TRY AGAIN"}
	ReplyOneRcpt           = Reply{503, "ONE RECIPIENT DOMAIN PER TRANSACTION"}
	ReplyNoRecipient       = Reply{510, "INVALID RECIPIENT"}
	ReplyRelay             = Reply{551, "RELAY ACCESS DENIED"}
	ReplyTooLarge          = Reply{552, "MESSAGE SIZE EXCEEDS LIMIT"}
	ReplyBadMessage        = Reply{554, "INVALID MESSAGE DATA"}
	ReplyRefused           = Reply{554, "MESSAGE REFUSED BY POLICY"}
	ReplyNoCertificate     = Reply{554, "CERTIFICATE NOT FOUND FOR DOMAIN"}
	ReplyOriginGone        = Reply{570, "ORIGIN SIGNET UNAVAILABLE"}
	ReplyBadOrigin         = Reply{575, "INVALID ORIGIN SIGNET"}
	ReplyBadDestination    = Reply{576, "INVALID DESTINATION SIGNET"}
	ReplyNoSignet          = Reply{576, "SIGNET NOT FOUND"}
	ReplyBadSignature      = Reply{578, "INVALID ORIGIN SIGNATURE"}
	ReplyBadAuthor         = Reply{578, "INVALID AUTHOR SIGNATURE"}
	ReplyBadRecipient      = Reply{586, "INVALID RECIPIENT SIGNET"}
)

// A Status is what a reply code means to SMTP: the enhanced status code of RFC 3463, and the reply code for a permanent
// failure (0 when there is none).
type Status struct {
	Meaning  string
	Enhanced string
	SMTP     int
}

// codes is the registry of reply codes that DMTP defines, or that its servers are known to send.
var codes = map[int]Status{
	200: {"ok", "2.0.0", 0},
	214: {"help", "2.0.0", 0},
	220: {"ready", "2.0.0", 0},
	221: {"bye", "2.0.0", 0},
	250: {"ok", "2.0.0", 0},
	254: {"message accepted", "2.0.0", 0},
	255: {"message already accepted", "2.0.0", 0},
	270: {"organizational signet", "2.0.0", 0},
	271: {"organizational signet current", "2.0.0", 0},
	280: {"user signet", "2.0.0", 0},
	281: {"user signet current", "2.0.0", 0},
	290: {"signet history", "2.0.0", 0},
	291: {"signet current", "2.0.0", 0},
	354: {"ready for the message", "2.0.0", 0},
	421: {"session ended", "4.4.2", 0},
	431: {"destination limits exceeded", "4.5.3", 0},
	450: {"access denied", "4.7.0", 0},
	451: {"data corrupted, or a local error", "4.3.0", 0},
	454: {"TLS not available", "4.7.0", 0},
	470: {"origin signet temporarily unavailable", "4.7.5", 0},
	476: {"signet temporarily unavailable", "4.7.5", 0},
	500: {"command not understood", "5.5.1", 550},
	501: {"arguments not understood", "5.5.4", 550},
	502: {"command disabled", "5.5.1", 550},
	503: {"command out of sequence", "5.5.1", 550},
	510: {"invalid recipient", "5.1.1", 550},
	550: {"refused", "5.1.1", 550},
	551: {"not a domain of this server", "5.1.2", 550},
	552: {"message too large", "5.3.4", 552},
	554: {"message refused", "5.6.0", 554},
	570: {"origin signet unavailable", "5.7.5", 550},
	575: {"invalid origin signet", "5.7.5", 550},
	576: {"invalid destination signet, or no such signet", "5.7.5", 550},
	578: {"invalid signature", "5.7.7", 554},
	586: {"invalid recipient signet", "5.7.5", 550},
}

// StatusOf returns the meaning of a reply code. Of an unknown one the first digit decides.
func StatusOf(code int) Status {
	if s, ok := codes[code]; ok {
		return s
	}
	switch code / 100 {
	case 2, 3:
		return Status{"unknown success", "2.0.0", 0}
	case 4:
		return Status{"unknown temporary failure", "4.0.0", 0}
	default:
		return Status{"unknown failure", "5.0.0", 554}
	}
}

// ErrReply says that a peer's reply breaks the grammar of replies, or is larger than MaxReplyOctets or MaxReplyLines.
var ErrReply = errors.New("dmtp: malformed reply")

// ReadReply reads one reply, whose lines may end with CRLF or LF; r must hold MaxReplyLine octets. All lines must carry the
// same code, followed by a space, or by a hyphen when there is more. The text is the peer's: escape it before it is shown.
func ReadReply(r *bufio.Reader) (Reply, error) {
	var reply Reply
	var text strings.Builder
	for n := 0; ; n++ {
		line, err := ReadLine(r, MaxReplyLine, true)
		if errors.Is(err, ErrLineTooLong) || errors.Is(err, ErrLineEndless) || errors.Is(err, ErrLineOctets) {
			return Reply{}, fmt.Errorf("%w: %w", ErrReply, err)
		}
		if err != nil {
			return Reply{}, err
		}
		code, more, ok := replyCode(line)
		if !ok || n > 0 && code != reply.Code || n == MaxReplyLines || text.Len()+len(line) > MaxReplyOctets {
			return Reply{}, ErrReply
		}
		if n > 0 {
			text.WriteByte('\n')
		}
		reply.Code = code
		text.Write(line[4:])
		if !more {
			reply.Text = text.String()
			return reply, nil
		}
	}
}

func replyCode(line []byte) (code int, more, ok bool) {
	if len(line) < 4 || line[3] != ' ' && line[3] != '-' && line[3] != '\t' || line[0] < '1' || line[0] > '5' {
		return 0, false, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		code = code*10 + int(c-'0')
	}
	return code, line[3] == '-', true
}
