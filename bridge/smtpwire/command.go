package smtpwire

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
	"strings"
)

// next reads one command line and decides: pass it on (c.line), or answer it here.
func (c *Conn) next() error {
	auth := c.now() == inAuth
	text, err := c.readLine(auth)
	if err != nil || text == nil {
		return err
	}
	if auth {
		c.verb, c.line = "AUTH", []byte(*text+"\r\n")
		return nil
	}
	if c.count++; c.count > maxCommands {
		return c.end("421 4.7.0 Too many commands")
	}
	return c.command(*text)
}

// readLine reads one line, without its end; nil when it was answered here.
func (c *Conn) readLine(auth bool) (*string, error) {
	c.set(inCommands)
	line, err := c.in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull:
		return nil, c.end("500 5.5.2 Line too long")
	case err != nil && c.interrupted(err):
		return nil, c.end("421 4.3.2 Shutting down")
	case err != nil:
		return nil, err // an unfinished line is no command
	}
	text, ended := bytes.CutSuffix(line, []byte("\r\n"))
	if !ended && c.guard.LineFeeds {
		text, ended = bytes.CutSuffix(line, []byte("\n"))
	}
	limit := maxCommand
	if auth || len(text) > 5 && strings.EqualFold(string(text[:5]), "AUTH ") {
		limit = maxAuthLine
	}
	switch {
	case !ended:
		return nil, c.end("500 5.5.2 A line ends with CR LF")
	case bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return nil, c.end("500 5.5.2 Control characters in a command")
	case len(text) > limit:
		return nil, c.say("500 5.5.2 Line too long")
	}
	s := string(text)
	return &s, nil
}

// command takes one well-formed line.
func (c *Conn) command(text string) error {
	if strings.Contains(text, " HTTP/1.") { // a browser was led here: its body would be read as commands
		return c.end("500 5.5.1 This is no web server")
	}
	verb, arg, _ := strings.Cut(text, " ")
	switch verb = strings.ToUpper(verb); verb {
	case "STARTTLS":
		return c.startTLS(arg)
	case "BDAT":
		return c.bdat(strings.Fields(arg))
	case "XCLIENT":
		if c.guard.XClient != "" {
			return c.xclient(strings.Fields(arg))
		}
	case "XEXCH50": // Exchange's: behind 354 would come so many octets. The same, then, as of DATA
		if c.waiting() {
			return c.end("503 5.5.0 Wait for the reply to XEXCH50")
		}
	case "DATA":
		// RFC 2920 §3.1: DATA is the last command of a group. What comes with it is a body whose sender did not wait for 354, or
		// commands that should look like one; if we refused DATA, it would be read as commands.
		if c.waiting() {
			return c.end("503 5.5.0 Wait for the reply to DATA")
		}
	case "RCPT": // go-smtp wants a domain in every path
		const alone = "TO:<postmaster>"
		if p := c.guard.Postmaster; p != "" && len(arg) >= len(alone) && strings.EqualFold(arg[:len(alone)], alone) {
			text = verb + " TO:<" + p + ">" + arg[len(alone):]
		}
		text = originalRecipient(text)
	case "HELO", "EHLO", "LHLO":
		if !validHello(arg) {
			return c.say("501 5.5.4 A host name or address literal is needed")
		}
		c.mustEHLO = false
		c.mu.Lock()
		c.hello = verb
		c.mu.Unlock()
	}
	if strings.HasPrefix(verb, "X") { // XEXCH50 and the like (RFC 5321 §4.1.5): go-smtp would hang up at the third
		return c.say("502 5.5.1 Not offered here")
	}
	if c.mustEHLO {
		switch verb {
		case "MAIL", "RCPT", "DATA", "AUTH", "VRFY", "EXPN":
			return c.say("503 5.5.1 EHLO first")
		}
	}
	c.verb, c.line = verb, []byte(text+"\r\n")
	return nil
}

// startTLS makes the connection TLS (RFC 3207). Whatever the peer said before is forgotten: the next command must be EHLO,
// which resets go-smtp's session.
func (c *Conn) startTLS(arg string) error {
	_, on := c.TLS()
	switch {
	case arg != "":
		return c.say("501 5.5.4 STARTTLS has no parameters")
	case c.guard.TLS == nil:
		return c.say("502 5.5.1 STARTTLS is not offered")
	case on:
		return c.say("503 5.5.1 TLS is on")
	case c.waiting(): // injected into the session that is to come (CVE-2011-0411)
		return c.end("503 5.5.0 Nothing may follow STARTTLS")
	}
	if err := c.say("220 2.0.0 Ready to start TLS"); err != nil {
		return err
	}
	if err := c.handshake(); err != nil {
		c.over = true
		return io.EOF
	}
	c.mustEHLO = true
	return nil
}

// xclient takes the word of a server that speaks for a client (Postfix's XCLIENT_README), and begins the session anew: the
// next command must be EHLO or another XCLIENT, which adds to this one. What was said of an earlier client is forgotten.
func (c *Conn) xclient(attributes []string) error {
	var who Caller
	prior, more := c.Caller()
	switch {
	case c.mail:
		return c.say("503 5.5.1 Not in a transaction")
	case c.authed:
		return c.say("503 5.5.1 XCLIENT comes before AUTH")
	case len(attributes) == 0:
		return c.say("501 5.5.4 XCLIENT needs attributes")
	case more && c.mustEHLO:
		who = prior
	default:
		who.Addr = Peer(c.netConn())
	}
	for _, a := range attributes {
		if !who.take(c.guard.XClient, a) {
			return c.say("501 5.5.4 An attribute that is not offered, or makes no sense")
		}
	}
	c.mu.Lock()
	c.caller = &who
	c.mu.Unlock()
	c.mustEHLO = true
	return c.send(c.banner)
}

// bdat begins a message that comes in chunks. go-smtp is asked as if for DATA. Where the size of a chunk cannot be known, the
// session is over.
func (c *Conn) bdat(args []string) error {
	refused, err := c.startChunk(args)
	switch {
	case err != nil:
		return err
	case refused != "":
		return c.refuseChunk(refused)
	case c.mustEHLO:
		return c.refuseChunk("503 5.5.1 EHLO first")
	}
	c.verb, c.line = "BDAT", []byte("DATA\r\n")
	return nil
}

// startChunk reads BDAT's arguments: c.chunk octets follow, whether they are refused or not.
func (c *Conn) startChunk(args []string) (refused string, err error) {
	if len(args) == 0 {
		return "", c.end("501 5.5.4 BDAT needs a size")
	}
	size, err := strconv.ParseUint(args[0], 10, 63)
	switch {
	case err != nil:
		return "", c.end("501 5.5.4 BDAT needs a size")
	case size > maxChunk:
		return "", c.end("552 5.3.4 Chunk too large")
	}
	c.chunk, c.last = int64(size), len(args) == 2 && strings.EqualFold(args[1], "LAST")
	if len(args) > 1 && !c.last {
		return "501 5.5.4 BDAT size [LAST]", nil
	}
	return "", nil
}

func (c *Conn) refuseChunk(reply string) error {
	if err := c.skipChunk(); err != nil {
		return err
	}
	return c.say(reply)
}

// A chunkReader is a message in chunks (RFC 3030), on its connection.
type chunkReader struct {
	c   *Conn
	err error
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for r.err == nil && r.c.chunk == 0 {
		r.err = r.next()
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.c.in.Read(p[:min(int64(len(p)), r.c.chunk)])
	r.c.chunk -= int64(n)
	r.err = cutShort(err)
	return n, r.err
}

// next begins the next chunk. NOOP may stand between two; any other command takes the message back, and so does a BDAT that
// makes no sense.
func (r *chunkReader) next() error {
	c := r.c
	if c.last {
		return io.EOF
	}
	if err := c.say("250 2.0.0 Continue"); err != nil {
		return err
	}
	for {
		text, err := c.readLine(false)
		if err != nil {
			c.mute = true
			return cutShort(err)
		}
		if text == nil {
			continue
		}
		verb, arg, _ := strings.Cut(*text, " ")
		switch strings.ToUpper(verb) {
		case "NOOP":
			if c.count++; c.count > maxCommands {
				c.mute = true
				return cutShort(c.end("421 4.7.0 Too many commands"))
			}
			if err := c.say("250 2.0.0 OK"); err != nil {
				return err
			}
			continue
		case "BDAT":
			refused, err := c.startChunk(strings.Fields(arg))
			if err == nil && refused == "" {
				if c.chunk == 0 { // of others there may be as many as it takes
					c.count++
				}
				if c.count <= maxCommands {
					c.set(inChunk)
					return nil
				}
			}
			c.mute = true
			if c.count > maxCommands {
				return cutShort(c.end("421 4.7.0 Too many commands"))
			}
			if err == nil {
				err = c.refuseChunk(refused)
			}
			if err == nil {
				err = ErrAborted
			}
			return cutShort(err)
		}
		c.mute, c.pending = true, text
		return ErrAborted
	}
}

// validHello holds EHLO's argument to what may stand in a Received field. Its truth is another matter.
func validHello(arg string) bool {
	if arg == "" || len(arg) > 255 {
		return false
	}
	for i := range len(arg) {
		switch c := arg[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= 0x80, strings.IndexByte("-._:[]", c) >= 0:
		default:
			return false
		}
	}
	return true
}
