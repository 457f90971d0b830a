package dmtp

import (
	"math"
	"strconv"
	"strings"
)

// A ParseError says that a line is no command. Verb is NoVerb when not even its first word is known; Reply is the server's
// answer, which never quotes the line.
type ParseError struct {
	Verb  Verb
	Reply Reply
}

func (e *ParseError) Error() string { return "dmtp: " + e.Reply.Text }

// Parse reads one command line without its line end, in either grammar: an argument that begins with a bracket (or FROM:, TO:)
// makes it positional, NAME= named. Verbs and keywords may be in any case; names come back in lower case, fingerprints as they
// stand. Errors are *ParseError.
func Parse(line string) (Command, error) {
	if strings.ContainsFunc(line, func(r rune) bool { return (r < ' ' && r != '\t') || r > '~' }) {
		return nil, &ParseError{NoVerb, ReplyBadCommand}
	}
	word := line
	if i := strings.IndexAny(line, " \t<["); i >= 0 {
		word = line[:i]
	}
	v := verbOf(word)
	if v == NoVerb {
		return nil, &ParseError{NoVerb, ReplyBadCommand}
	}
	c := &cursor{rest: line[len(word):], verb: v}
	c.space()
	c.named = !c.at("<") && !c.at("[") && !c.at("FROM:") && !c.at("TO:")
	cmd := c.command()
	c.space()
	if c.rest != "" {
		c.fail("BAD %s SYNTAX")
	}
	if c.err != nil {
		return nil, c.err
	}
	return cmd, nil
}

func verbOf(word string) Verb {
	for v := STARTTLS; int(v) < len(verbs); v++ {
		if strings.EqualFold(word, verbs[v].word) {
			return v
		}
	}
	return NoVerb
}

// A cursor walks one line after its verb. It keeps its first failure.
type cursor struct {
	rest  string
	verb  Verb
	named bool // NAME=value instead of positions
	err   *ParseError
}

func (c *cursor) command() Command {
	switch c.verb {
	case STARTTLS:
		return c.startTLS()
	case EHLO, HELO:
		return Hello{Domain: c.domain(c.argument("HOST=", '<', '>')), Extended: c.verb == EHLO}
	case MAIL:
		return c.mail()
	case RCPT:
		return c.rcpt()
	case DATA:
		return Data{c.optional("COMMIT=")}
	case SGNT:
		name := c.name()
		return Sgnt{name, c.optional("FINGERPRINT=")}
	case VRFY:
		name := c.name()
		c.gap()
		return Vrfy{name, c.fingerprint(Token(c.argument("FINGERPRINT=", '[', ']')))}
	case HIST:
		return c.hist()
	case NOOP, HELP, STATS, VERB:
		c.rest = "" // what follows is not looked at
	}
	return Bare(c.verb)
}

func (c *cursor) startTLS() Command {
	cmd := StartTLS{Host: c.domain(strings.TrimSuffix(c.argument("HOST=", '<', '>'), "."))}
	had := c.space()
	if c.rest == "" {
		return cmd
	}
	mode, ok := c.keyword("MODE=")
	switch strings.ToUpper(mode) {
	case "DMTPV1", "DMTP":
	case "SMTP", "ESMTP":
		cmd.Mode = ModeSMTP
	default:
		ok = false
	}
	if !had || !ok {
		c.fail("BAD %s SYNTAX")
	}
	return cmd
}

// mail reads FROM: <origin> [fp] SIZE=n …, or FROM=<origin> FINGERPRINT=[fp] and the same parameters, there optional.
func (c *cursor) mail() Command {
	var cmd Mail
	if !c.named && !c.skip("FROM:") {
		c.fail("BAD %s SYNTAX")
	}
	c.space()
	cmd.Origin = c.domain(c.argument("FROM=", '<', '>'))
	c.gap()
	cmd.Signet = Token(c.argument("FINGERPRINT=", '[', ']'))
	var seen [len(mailParams)]bool
	for first := true; c.err == nil; first = false {
		had := c.space()
		if c.rest == "" {
			break
		}
		if !had && (c.named || !first) { // only a bracket may stand close to what follows
			c.fail("BAD %s SYNTAX")
			break
		}
		c.mailParam(&cmd, &seen)
	}
	if !c.named && !cmd.HasSize {
		c.fail("INVALID %s PARAMETER")
	}
	return cmd
}

var mailParams = [...]string{"SIZE=", "RETURN=", "DATA="}

func (c *cursor) mailParam(cmd *Mail, seen *[len(mailParams)]bool) {
	for i, key := range mailParams {
		val, ok := c.keyword(key)
		if !ok {
			continue
		}
		if seen[i] {
			c.fail("INVALID %s PARAMETER")
		}
		seen[i] = true
		switch key {
		case "SIZE=":
			cmd.Size, cmd.HasSize = c.size(val), true
		case "RETURN=":
			cmd.Return = c.returns(val)
		case "DATA=":
			c.dataKind(val)
		}
		return
	}
	c.fail("UNSUPPORTED %s PARAMETER")
}

func (c *cursor) size(val string) uint64 {
	if val == "" || strings.ContainsFunc(val, func(r rune) bool { return r < '0' || r > '9' }) {
		c.fail("INVALID %s PARAMETER")
		return 0
	}
	n, err := strconv.ParseUint(val, 10, 64)
	if err != nil {
		return math.MaxUint64 // too large for any limit
	}
	return n
}

func (c *cursor) returns(val string) Return {
	switch strings.ToUpper(val) {
	case "HEADER":
		return ReturnHeader
	case "DISPLAY":
		return ReturnDisplay
	case "FULL":
		return ReturnFull
	}
	c.fail("INVALID %s PARAMETER")
	return 0
}

// dataKind passes DATA=8BIT, which is what always happens. What 7BIT would mean is nowhere defined.
func (c *cursor) dataKind(val string) {
	switch strings.ToUpper(val) {
	case "8BIT":
	case "7BIT":
		c.fail("UNSUPPORTED %s PARAMETER")
	default:
		c.fail("INVALID %s PARAMETER")
	}
}

func (c *cursor) rcpt() Command {
	var cmd Rcpt
	if !c.named && !c.skip("TO:") {
		c.fail("BAD %s SYNTAX")
	}
	c.space()
	cmd.Destination = c.domain(c.argument("TO=", '<', '>'))
	c.gap()
	cmd.Signet = Token(c.argument("FINGERPRINT=", '[', ']'))
	return cmd
}

// hist reads the start as mandatory in the positional grammar; in the named one both ends may be missing.
func (c *cursor) hist() Command {
	cmd := Hist{Name: c.name()}
	if cmd.Start = c.optional("START="); cmd.Start != "" {
		c.fingerprint(cmd.Start)
	} else if !c.named {
		c.fail("BAD %s SYNTAX")
	}
	if cmd.Stop = c.optional("STOP="); cmd.Stop != "" {
		c.fingerprint(cmd.Stop)
	}
	return cmd
}

// name reads <name>, or exactly one of USER=<address> and DOMAIN=<domain>.
func (c *cursor) name() string {
	if c.named && c.at("USER=") {
		return c.checked(Address, c.argument("USER=", '<', '>'))
	}
	if c.named {
		return c.domain(c.argument("DOMAIN=", '<', '>'))
	}
	return c.checked(Name, c.argument("", '<', '>'))
}

func (c *cursor) domain(s string) string { return c.checked(Domain, s) }

func (c *cursor) checked(check func(string) (string, error), s string) string {
	name, err := check(s)
	if err != nil && c.verb == STARTTLS {
		c.fail("BAD %s SYNTAX")
	} else if err != nil {
		c.fail("INVALID %s PARAMETER")
	}
	return name
}

// fingerprint refuses placeholders, where an answer about nothing in particular would be a wrong one.
func (c *cursor) fingerprint(t Token) Token {
	if !t.WellFormed() {
		c.fail("INVALID %s PARAMETER")
	}
	return t
}

// optional reads [token], or key[token], if it is there.
func (c *cursor) optional(key string) Token {
	mark := c.rest
	had := c.space()
	if c.rest == "" || c.named && !c.at(key) {
		c.rest = mark
		return ""
	}
	if c.named && !had && c.verb != DATA {
		c.fail("BAD %s SYNTAX")
	}
	return Token(c.argument(key, '[', ']'))
}

// argument reads one bracketed value, after its key in the named grammar. An empty one is refused.
func (c *cursor) argument(key string, open, end byte) string {
	if c.named && !c.skip(key) || len(c.rest) == 0 || c.rest[0] != open {
		c.fail("BAD %s SYNTAX")
		return ""
	}
	val, rest, ok := strings.Cut(c.rest[1:], string(end))
	if !ok || val == "" || strings.ContainsAny(val, " \t") {
		c.fail("BAD %s SYNTAX")
		return ""
	}
	c.rest = rest
	return val
}

// keyword reads key and the word behind it.
func (c *cursor) keyword(key string) (string, bool) {
	if !c.skip(key) {
		return "", false
	}
	val := c.rest
	if i := strings.IndexAny(val, " \t"); i >= 0 {
		val = val[:i]
	}
	c.rest = c.rest[len(val):]
	return val, true
}

// gap asks for white-space between two arguments in the named grammar, where nothing else parts them.
func (c *cursor) gap() {
	if had := c.space(); c.named && !had {
		c.fail("BAD %s SYNTAX")
	}
}

func (c *cursor) at(key string) bool {
	return len(c.rest) >= len(key) && strings.EqualFold(c.rest[:len(key)], key)
}

func (c *cursor) skip(key string) bool {
	if !c.at(key) {
		return false
	}
	c.rest = c.rest[len(key):]
	return true
}

func (c *cursor) space() bool {
	rest := strings.TrimLeft(c.rest, " \t")
	had := len(rest) < len(c.rest)
	c.rest = rest
	return had
}

// fail notes the first failure; the text is one of the 501s, with the command's name.
func (c *cursor) fail(text string) {
	if c.err == nil {
		c.err = &ParseError{c.verb, Reply{501, strings.Replace(text, "%s", verbs[c.verb].said, 1)}}
	}
}
