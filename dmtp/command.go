package dmtp

import "strconv"

// A Verb is the first word of a command.
type Verb uint8

// The verbs. HELO, and the named grammar, exist in libdime's command library only; STATS and VERB in its client only.
const (
	NoVerb Verb = iota
	STARTTLS
	HELO
	EHLO
	MODE
	NOOP
	RSET
	HELP
	QUIT
	MAIL
	RCPT
	DATA
	SGNT
	HIST
	VRFY
	STATS
	VERB
)

// verbs is the registry: how a verb is written, and how a 501 calls it.
var verbs = [...]struct{ word, said string }{
	STARTTLS: {"STARTTLS", "STARTTLS"},
	HELO:     {"HELO", "HELO"},
	EHLO:     {"EHLO", "EHLO"},
	MODE:     {"MODE", "MODE"},
	NOOP:     {"NOOP", "NOOP"},
	RSET:     {"RSET", "RSET"},
	HELP:     {"HELP", "HELP"},
	QUIT:     {"QUIT", "QUIT"},
	MAIL:     {"MAIL", "MAIL FROM"},
	RCPT:     {"RCPT", "RCPT TO"},
	DATA:     {"DATA", "DATA"},
	SGNT:     {"SGNT", "SGNT"},
	HIST:     {"HIST", "HIST"},
	VRFY:     {"VRFY", "VRFY"},
	STATS:    {"STATS", "STATS"},
	VERB:     {"VERB", "VERB"},
}

func (v Verb) String() string {
	if int(v) >= len(verbs) {
		return ""
	}
	return verbs[v].word
}

// A Mode is the protocol that a session on the shared port 25 is to speak after its handshake.
type Mode uint8

// The modes. DMTPv1 is what libdime's client writes, DMTP what its command library does; both are ModeDMTP.
const (
	ModeDMTP Mode = iota
	ModeSMTP
)

// A Command is one parsed command. AppendTo writes it as a client sends it: positional, with CRLF.
type Command interface {
	Verb() Verb
	AppendTo(b []byte) []byte
}

type (
	// StartTLS is the DMTP form of STARTTLS: it names the host whose certificate the client wants to see.
	StartTLS struct {
		Host string
		Mode Mode
	}
	// Hello is EHLO, or HELO when it is not Extended. The domain is not authenticated.
	Hello struct {
		Domain   string
		Extended bool
	}
	// Mail opens a transaction. Signet is a fingerprint of the origin's organizational signet. SIZE is mandatory in the
	// positional grammar; a Size of 2^64-1 also stands for any number that is larger.
	Mail struct {
		Origin  string
		Signet  Token
		Size    uint64
		HasSize bool
		Return  Return
	}
	// Rcpt names the destination domain. Signet is a fingerprint of the organizational signet encrypted to.
	Rcpt struct {
		Destination string
		Signet      Token
	}
	// Data announces the message. Commit is its commit value, when given.
	Data struct{ Commit Token }
	// Sgnt asks for the signet of a domain or address: the current one, or the one with a fingerprint.
	Sgnt struct {
		Name   string
		Signet Token
	}
	// Hist asks for the signets of a name from one to another; an empty Start is the first, an empty Stop the last.
	Hist struct {
		Name        string
		Start, Stop Token
	}
	// Vrfy asks whether a fingerprint is that of the current signet.
	Vrfy struct {
		Name   string
		Signet Token
	}
	// Bare is a command without arguments that matter: MODE, NOOP, RSET, HELP, QUIT, STATS, VERB.
	Bare Verb
)

// Return tells which sections a bounce may bring back. Nothing is returned by us, so it is checked and not used.
type Return uint8

// The values of RETURN; without it HEADER is meant.
const (
	ReturnHeader Return = iota
	ReturnDisplay
	ReturnFull
)

// Verb implements Command.
func (StartTLS) Verb() Verb { return STARTTLS }

// Verb implements Command.
func (h Hello) Verb() Verb {
	if h.Extended {
		return EHLO
	}
	return HELO
}

// Verb implements Command.
func (Mail) Verb() Verb { return MAIL }

// Verb implements Command.
func (Rcpt) Verb() Verb { return RCPT }

// Verb implements Command.
func (Data) Verb() Verb { return DATA }

// Verb implements Command.
func (Sgnt) Verb() Verb { return SGNT }

// Verb implements Command.
func (Hist) Verb() Verb { return HIST }

// Verb implements Command.
func (Vrfy) Verb() Verb { return VRFY }

// Verb implements Command.
func (b Bare) Verb() Verb { return Verb(b) }

// AppendTo implements Command.
func (c StartTLS) AppendTo(b []byte) []byte {
	b = angle(append(b, "STARTTLS "...), c.Host)
	if c.Mode == ModeSMTP {
		return append(b, " MODE=SMTP\r\n"...)
	}
	return append(b, " MODE=DMTPv1\r\n"...)
}

// AppendTo implements Command.
func (h Hello) AppendTo(b []byte) []byte {
	b = angle(append(append(b, h.Verb().String()...), ' '), h.Domain)
	return append(b, "\r\n"...)
}

// AppendTo implements Command. libdime's server of old takes SIZE as the first parameter only.
func (c Mail) AppendTo(b []byte) []byte {
	b = square(angle(append(b, "MAIL FROM: "...), c.Origin), c.Signet)
	if c.HasSize {
		b = strconv.AppendUint(append(b, " SIZE="...), c.Size, 10)
	}
	switch c.Return {
	case ReturnDisplay:
		b = append(b, " RETURN=DISPLAY"...)
	case ReturnFull:
		b = append(b, " RETURN=FULL"...)
	}
	return append(b, "\r\n"...)
}

// AppendTo implements Command.
func (c Rcpt) AppendTo(b []byte) []byte {
	return append(square(angle(append(b, "RCPT TO: "...), c.Destination), c.Signet), "\r\n"...)
}

// AppendTo implements Command.
func (c Data) AppendTo(b []byte) []byte {
	return append(square(append(b, "DATA"...), c.Commit), "\r\n"...)
}

// AppendTo implements Command.
func (c Sgnt) AppendTo(b []byte) []byte {
	return append(square(angle(append(b, "SGNT "...), c.Name), c.Signet), "\r\n"...)
}

// AppendTo implements Command.
func (c Hist) AppendTo(b []byte) []byte {
	return append(square(square(angle(append(b, "HIST "...), c.Name), c.Start), c.Stop), "\r\n"...)
}

// AppendTo implements Command.
func (c Vrfy) AppendTo(b []byte) []byte {
	return append(square(angle(append(b, "VRFY "...), c.Name), c.Signet), "\r\n"...)
}

// AppendTo implements Command.
func (b Bare) AppendTo(dst []byte) []byte {
	return append(append(dst, Verb(b).String()...), "\r\n"...)
}

func angle(b []byte, s string) []byte { return append(append(append(b, '<'), s...), '>') }

func square(b []byte, t Token) []byte {
	if t == "" {
		return b
	}
	return append(append(append(b, " ["...), t...), ']')
}
