package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
	"sync"

	"dimegate/bridge/smtpwire"
	"dimegate/internal/testmail"
	"dimegate/internal/testpeer"
)

// A letterOut is a message that is sent, with the octets of the wire.
type letterOut struct {
	name string
	wire []byte
	sign bool // a signed copy shall travel, too
}

// fromFiles makes mail of files: a bare LF ends a line there.
func fromFiles(files []testmail.Message, sign bool) []letterOut {
	var list []letterOut
	for _, f := range files {
		list = append(list, letterOut{f.Name, testpeer.CRLF(f.Raw), sign})
	}
	return list
}

// An arrival is what lies in a mailbox: what the hosts on the way put on top, and the message below.
type arrival struct {
	top     []Field
	message []byte
}

// trips are the ways of a list of messages from one organisation to the other. What arrived has the list's order; nil is a
// message that was refused or returned.
type trips struct {
	lab  *Lab
	from *Org
	list []letterOut

	base, line               []*arrival
	baseRefused, lineRefused []string
}

// carry sends everything both ways at one time.
func (t *trips) carry(ctx context.Context) error {
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { t.base, t.baseRefused, errs[0] = t.through(ctx, direct) })
	wg.Go(func() { t.line, t.lineRefused, errs[1] = t.through(ctx, "") })
	wg.Wait()
	return errors.Join(errs[:]...)
}

// mailbox is where the i-th message goes: label is "" for the line through the gateways or direct for the way without.
func (t *trips) mailbox(i int, label string) string {
	return fmt.Sprintf("m%d@%s%s", i, label, t.lab.Other(t.from).Domain)
}

// through gives every message to the first mail server, each for a mailbox of its own, and reads them there.
func (t *trips) through(ctx context.Context, label string) (got []*arrival, refused []string, err error) {
	got, refused = make([]*arrival, len(t.list)), make([]string, len(t.list))
	c, err := testpeer.DialSMTP(ctx, t.from.Postfix.Addr)
	if err != nil {
		return nil, nil, err
	}
	for i, m := range t.list {
		err := c.Send("alice@"+t.from.Domain, []string{t.mailbox(i, label)}, m.wire, "BODY=8BITMIME")
		if _, isReply := errors.AsType[*textproto.Error](err); isReply {
			refused[i] = err.Error()
		} else if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if err := c.Close(); err != nil {
		return nil, nil, err
	}
	for i := range t.list {
		if refused[i] == "" {
			if got[i], refused[i], err = t.read(ctx, t.mailbox(i, label)); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", t.list[i].name, err)
			}
		}
	}
	return got, refused, nil
}

// read waits until one message lies in a mailbox at the other end, or until its sender has it back.
func (t *trips) read(ctx context.Context, mailbox string) (*arrival, string, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLong)
	defer cancel()
	store, seen, returned := t.lab.Other(t.from).Store, 0, ""
	err := testpeer.Until(ctx, func() bool {
		if store.Count(mailbox) > 0 {
			return true
		}
		if n := t.from.Store.Count("alice@" + t.from.Domain); n > seen {
			seen, returned = n, t.returned(ctx, mailbox)
		}
		return returned != ""
	})
	if err != nil {
		return nil, "", fmt.Errorf("neither arrived at %s nor returned: %w", mailbox, err)
	}
	if returned != "" {
		return nil, "returned to its sender: " + returned, nil
	}
	inbox, err := store.Inbox(ctx, mailbox)
	if err != nil {
		return nil, "", err
	}
	if len(inbox) != 1 {
		return nil, "", fmt.Errorf("arrived %d times", len(inbox))
	}
	top, message := split(inbox[0])
	return &arrival{top, message}, "", nil
}

// returned is the status of the report about a mailbox that lies in the sender's, if there is one (RFC 3464).
func (t *trips) returned(ctx context.Context, mailbox string) string {
	all, err := t.from.Store.Inbox(ctx, "alice@"+t.from.Domain)
	if err != nil {
		return "" // looked at again
	}
	for _, m := range all {
		if bytes.Contains(m, []byte("\r\nFinal-Recipient: rfc822; "+mailbox+"\r\n")) {
			if s := statusField.FindSubmatch(m); s != nil {
				return string(s[1])
			}
			return "without a status"
		}
	}
	return ""
}

// compare says what is not as it must be in the i-th message that came by the line: its octets, what was put on top, the
// reverse-path. "": nothing.
func (t *trips) compare(i int, want []byte) string {
	line, base := t.line[i], t.base[i]
	if !bytes.Equal(line.message, want) {
		return parting(line.message, want)
	}
	if got, want := line.top[0], base.top[0]; got != want {
		return fmt.Sprintf("%v, want %v", got, want)
	}
	header := fields(base.message)
	for _, must := range []string{"Date", "Message-Id"} {
		had, added := header[must] != "", slices.ContainsFunc(line.top, func(f Field) bool { return textproto.CanonicalMIMEHeaderKey(f.Name) == must })
		if had == added {
			return fmt.Sprintf("had %s: %v, was given one: %v", must, had, added)
		}
	}
	for _, f := range line.top {
		words := strings.Fields(f.Value)
		if by := slices.Index(words, "by"); by >= 0 && strings.HasPrefix(words[by+1], "dx.") && slices.Contains(words, "for") {
			return fmt.Sprintf("a gateway's trace names a recipient: %q", f.Value)
		}
	}
	return ""
}

// parting shows where two messages part.
func parting(got, want []byte) string {
	n := 0
	for n < min(len(got), len(want)) && got[n] == want[n] {
		n++
	}
	from := max(0, n-20)
	return fmt.Sprintf("at octet %d of %d: got %.80q, want %.80q", n, len(want), got[from:], want[from:])
}

// withoutInstructions is a message without the fields by which senders instruct a gateway and gateways vouch for mail: the
// first gateway takes out the ones, the second whatever would pass for the others. taken is their names.
func withoutInstructions(message []byte) (out []byte, taken string) {
	rest := message
	var names []string
	for {
		f, next, ok := cutField(rest)
		if !ok {
			break
		}
		if strings.HasPrefix(strings.ToUpper(f.Name), "X-DIME") {
			names = append(names, f.Name)
		} else {
			out = append(out, rest[:len(rest)-len(next)]...)
		}
		rest = next
	}
	if names == nil {
		return message, ""
	}
	return append(out, rest...), strings.Join(names, ", ")
}

// fields is a header's fields by canonical name, the last of each.
func fields(message []byte) map[string]string {
	all := map[string]string{}
	for {
		f, rest, ok := cutField(message)
		if !ok {
			return all
		}
		all[textproto.CanonicalMIMEHeaderKey(f.Name)] = f.Value + " "
		message = rest
	}
}

// straight gives a message to the first gateway itself where a mail server before it hides what the gateway does: line ends
// that are none, which must be refused, and fields that want SMTPUTF8.
func (r *roundtripReport) straight(ctx context.Context, t *trips, i int, m letterOut) error {
	facts, err := smtpwire.Examine(bytes.NewReader(m.wire))
	if err != nil {
		return err
	}
	head, _, _ := bytes.Cut(m.wire, []byte("\r\n\r\n"))
	international := bytes.ContainsFunc(head, func(c rune) bool { return c > 0x7f }) && t.base[i] != nil && bytes.Equal(t.base[i].message, m.wire)
	if !facts.BareEnds && !international {
		return nil
	}
	params := []string{"BODY=8BITMIME"}
	if international {
		params = append(params, "SMTPUTF8")
	}
	mailbox := t.mailbox(len(t.list)+i, "")
	c, err := testpeer.DialSMTP(ctx, t.from.DX+":2525")
	if err != nil {
		return err
	}
	err = errors.Join(c.Send("alice@"+t.from.Domain, []string{mailbox}, m.wire, params...), c.Close())
	reply, isReply := errors.AsType[*textproto.Error](err)
	bad := func(format string, args ...any) {
		r.Changed = append(r.Changed, difference{m.name, "without a Postfix before the gateway: " + fmt.Sprintf(format, args...)})
	}
	switch {
	case err != nil && !isReply:
		return err
	case isReply:
		r.Refused = append(r.Refused, refusal{m.name, byGateway, fmt.Sprint(reply.Code, " ", reply.Msg)})
		if !facts.BareEnds || reply.Code/100 != 5 {
			bad("refused: %d %s", reply.Code, reply.Msg)
		}
		return nil
	case facts.BareEnds:
		bad("a CR or LF that is no line end was not refused")
		return nil
	}
	got, returned, err := t.read(ctx, mailbox)
	if err != nil {
		return err
	}
	if got == nil {
		bad("did not arrive: %s", returned)
	} else if !bytes.Equal(got.message, m.wire) {
		bad("%s", parting(got.message, m.wire))
	}
	return nil
}
