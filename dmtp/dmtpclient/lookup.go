package dmtpclient

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"

	"dimegate/dmtp"
)

// Signet asks for the current signet of a domain or address and returns its octets, unchecked: form, name and signatures are
// the resolver's to judge. A name that the peer does not know is ErrNoSignet.
func (c *Conn) Signet(ctx context.Context, name string) ([]byte, error) {
	return c.signet(ctx, dmtp.Sgnt{Name: name})
}

// SignetByFingerprint asks for the signet, current or past, that has the fingerprint, in the form that the fingerprint names.
// The peer may answer with any other: the caller compares.
func (c *Conn) SignetByFingerprint(ctx context.Context, name string, fp [64]byte) ([]byte, error) {
	return c.signet(ctx, dmtp.Sgnt{Name: name, Signet: dmtp.TokenOf(fp)})
}

func (c *Conn) signet(ctx context.Context, cmd dmtp.Sgnt) ([]byte, error) {
	name, err := dmtp.Name(cmd.Name)
	if err != nil {
		return nil, &Error{Class: Permanent, Host: c.host, Step: "SGNT", Err: err}
	}
	cmd.Name = name
	r, cerr := c.command(ctx, cmd, true)
	if cerr != nil {
		return nil, unknown(cerr, r)
	}
	text, ok := strings.CutPrefix(r.Text, "OK")
	if !ok {
		return nil, c.malformed(dmtp.SGNT, r)
	}
	octets, ok := bracketed(strings.TrimLeft(text, " \t"))
	if !ok {
		return nil, c.malformed(dmtp.SGNT, r)
	}
	return octets, nil
}

// unknown marks the refusals that mean "no such signet". They are Permanent here; about a domain with a record it is the
// resolver that knows better.
func unknown(e *Error, r dmtp.Reply) *Error {
	if noSignet(r) {
		e.Class, e.Err = Permanent, ErrNoSignet
	}
	return e
}

// bracketed decodes [base64], with or without padding.
func bracketed(s string) ([]byte, bool) {
	if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
		return nil, false
	}
	octets, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s[1:len(s)-1], "="))
	return octets, err == nil && len(octets) > 0
}

// Verify asks whether fp is the fingerprint of the current signet of name. If it was once, current is false and update is the
// ID fingerprint of the signet that is now. A fingerprint or name that never was is ErrNoSignet.
func (c *Conn) Verify(ctx context.Context, name string, fp [64]byte) (current bool, update [64]byte, err error) {
	name, nerr := dmtp.Name(name)
	if nerr != nil {
		return false, update, &Error{Class: Permanent, Host: c.host, Step: "VRFY", Err: nerr}
	}
	r, cerr := c.command(ctx, dmtp.Vrfy{Name: name, Signet: dmtp.TokenOf(fp)}, true)
	if cerr != nil {
		return false, update, unknown(cerr, r)
	}
	fields := strings.Fields(r.Text)
	switch {
	case len(fields) > 0 && strings.EqualFold(fields[0], "CURRENT"):
		return true, update, nil
	case len(fields) > 1 && strings.EqualFold(fields[0], "UPDATE"):
		token := strings.TrimSuffix(strings.TrimPrefix(fields[1], "["), "]")
		if update, ok := dmtp.Token(token).Octets(); ok {
			return false, update, nil
		}
	}
	return false, update, c.malformed(dmtp.VRFY, r)
}

// maxHistory bounds the signets of one History, over all replies that it takes; their octets together stay within one reply's.
const maxHistory = 4096

// History asks for the signets of name from the one with the fingerprint start to the current one, both included, oldest
// first, and returns their octets unchecked. A peer may answer in parts, of which each next begins with the last of the one
// before: next, given that signet's octets, tells its full fingerprint for the following question. An unknown name or
// fingerprint, or a gap, is ErrNoSignet.
func (c *Conn) History(ctx context.Context, name string, start [64]byte, next func(last []byte) ([64]byte, error)) ([][]byte, error) {
	name, nerr := dmtp.Name(name)
	if nerr != nil {
		return nil, &Error{Class: Permanent, Host: c.host, Step: "HIST", Err: nerr}
	}
	var all [][]byte
	octets := 0
	for {
		part, err := c.history(ctx, dmtp.Hist{Name: name, Start: dmtp.TokenOf(start)})
		if err != nil {
			return nil, err
		}
		full := len(part) >= dmtp.MaxHistory
		if len(all) > 0 { // it begins with the signet that we have
			if !bytes.Equal(part[0], all[len(all)-1]) {
				return nil, c.malformed(dmtp.HIST, dmtp.Reply{Code: 290})
			}
			part = part[1:]
		}
		for _, s := range part {
			octets += len(s)
		}
		if all = append(all, part...); len(all) > maxHistory || octets > dmtp.MaxReplyOctets {
			return nil, c.malformed(dmtp.HIST, dmtp.Reply{Code: 290})
		}
		if !full || next == nil {
			return all, nil
		}
		if start, err = next(all[len(all)-1]); err != nil {
			return nil, &Error{Class: Protocol, Host: c.host, Step: "HIST", Err: err}
		}
	}
}

// HistoryUntil is History from one fingerprint to another, in one reply.
func (c *Conn) HistoryUntil(ctx context.Context, name string, start, stop [64]byte) ([][]byte, error) {
	name, err := dmtp.Name(name)
	if err != nil {
		return nil, &Error{Class: Permanent, Host: c.host, Step: "HIST", Err: err}
	}
	return c.history(ctx, dmtp.Hist{Name: name, Start: dmtp.TokenOf(start), Stop: dmtp.TokenOf(stop)})
}

func (c *Conn) history(ctx context.Context, cmd dmtp.Hist) ([][]byte, error) {
	r, err := c.command(ctx, cmd, false)
	if err != nil {
		return nil, unknown(err, r)
	}
	lines := strings.Split(r.Text, "\n")
	last := len(lines) - 1
	if word, _, _ := strings.Cut(lines[last], " "); word != "OK" || last == 0 {
		return nil, c.malformed(dmtp.HIST, r)
	}
	part := make([][]byte, last)
	for i, l := range lines[:last] {
		var ok bool
		if part[i], ok = bracketed(l); !ok {
			return nil, c.malformed(dmtp.HIST, r)
		}
	}
	return part, nil
}
