package testpeer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// FetchInbox reads all messages of an inbox by IMAP (RFC 9051), BODY.PEEK[] of each, in the order of arrival. It knows
// just enough of the protocol for a server that sends every body as a literal, as Dovecot does.
func FetchInbox(ctx context.Context, addr, user, password string) ([][]byte, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := imapClient{w: conn, r: bufio.NewReader(conn)}
	if _, err := c.r.ReadString('\n'); err != nil { // the greeting
		return nil, err
	}
	exists := 0
	onSelect := func(line string, _ []byte) {
		if n, ok := strings.CutSuffix(line, " EXISTS"); ok {
			exists, _ = strconv.Atoi(strings.TrimPrefix(n, "* "))
		}
	}
	var all [][]byte
	onFetch := func(_ string, body []byte) {
		if body != nil {
			all = append(all, body)
		}
	}
	if err := c.command(fmt.Sprintf("LOGIN %q %q", user, password), nil); err != nil {
		return nil, err
	}
	if err := c.command("SELECT INBOX", onSelect); err != nil {
		return nil, err
	}
	if exists > 0 {
		if err := c.command("FETCH 1:* BODY.PEEK[]", onFetch); err != nil {
			return nil, err
		}
	}
	if len(all) != exists {
		return nil, fmt.Errorf("imap: %d messages, %d bodies", exists, len(all))
	}
	return all, c.command("LOGOUT", nil)
}

type imapClient struct {
	w io.Writer
	r *bufio.Reader
	n int
}

// command sends one command and reads up to its tagged reply; untagged lines go to each, with their literal if any.
func (c *imapClient) command(text string, each func(line string, literal []byte)) error {
	c.n++
	tag := fmt.Sprintf("a%d ", c.n)
	if _, err := io.WriteString(c.w, tag+text+"\r\n"); err != nil {
		return err
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimRight(line, "\r\n")
		if reply, ok := strings.CutPrefix(line, tag); ok {
			if !strings.HasPrefix(reply, "OK") {
				return errors.New("imap: " + reply)
			}
			return nil
		}
		var literal []byte
		if i := strings.LastIndexByte(line, '{'); i >= 0 && strings.HasSuffix(line, "}") {
			size, err := strconv.Atoi(line[i+1 : len(line)-1])
			if err != nil {
				return err
			}
			literal = make([]byte, size)
			if _, err := io.ReadFull(c.r, literal); err != nil {
				return err
			}
		}
		if each != nil {
			each(line, literal)
		}
	}
}
