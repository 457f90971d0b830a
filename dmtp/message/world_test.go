package message_test

import (
	"bytes"
	"crypto/rand"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

var actors = []message.Actor{message.Author, message.Origin, message.Destination, message.Recipient}

// A world is four parties with all their keys, made for one test.
type world struct {
	message.Parties
	keys [4]key.Pair
}

// newWorld makes keys and signets, which say the given Extensions.
func newWorld(tb testing.TB, author, recipient, extensions string) *world {
	tb.Helper()
	w := new(world)
	for i := range w.keys {
		p, err := key.GeneratePair(rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		w.keys[i] = p
	}
	details := func(name string) signet.Details {
		d := signet.Details{Name: name}
		if extensions != "" {
			d.Fields = []signet.Field{{ID: 26, Value: []byte(extensions)}}
		}
		return d
	}
	org := func(a message.Actor, name string) message.Party {
		s, err := signet.NewOrg(w.keys[a], details(name))
		if err != nil {
			tb.Fatal(err)
		}
		return message.Party{Name: name, Signet: s}
	}
	user := func(a, of message.Actor, name string) message.Party {
		s, err := signet.NewUser(w.keys[a], signet.RequestDetails{}, w.keys[of].Signing, details(name))
		if err != nil {
			tb.Fatal(err)
		}
		return message.Party{Name: name, Signet: s}
	}
	_, origin, _ := bytes.Cut([]byte(author), []byte("@"))
	_, destination, _ := bytes.Cut([]byte(recipient), []byte("@"))
	w.Author = user(message.Author, message.Origin, author)
	w.Origin = org(message.Origin, string(origin))
	w.Destination = org(message.Destination, string(destination))
	w.Recipient = user(message.Recipient, message.Destination, recipient)
	return w
}

func plainWorld(tb testing.TB) *world {
	return newWorld(tb, "alice@origin.example", "bob@destination.example", "")
}

func contentOf(display ...[]byte) *message.Content {
	c := &message.Content{
		Common: []byte("Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nTo: bob@destination.example\r\nFrom: alice@origin.example\r\nSubject: one\r\n"),
		Other:  []byte("X-One: 1\r\n"),
	}
	for _, d := range display {
		c.Display = append(c.Display, message.Part{Data: d})
	}
	return c
}

// compose writes a message and signs it as the origin.
func (w *world) compose(tb testing.TB, c *message.Content) *message.Message {
	tb.Helper()
	draft, err := message.Compose(rand.Reader, w.Parties, c, w.keys[message.Author].Signing)
	if err != nil {
		tb.Fatal(err)
	}
	return w.sign(tb, draft.Bytes())
}

func (w *world) sign(tb testing.TB, draft []byte) *message.Message {
	tb.Helper()
	o, _, err := w.read(draft, message.Origin)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := o.SignOrigin(w.keys[message.Origin].Signing)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// unlimited lets the largest messages of the tests through.
var unlimited = message.Limits{Total: 1 << 30}

// read is all that an actor does with a message.
func (w *world) read(b []byte, a message.Actor) (*message.Opened, *message.Content, error) {
	m, err := message.Parse(b, unlimited)
	if err != nil {
		return nil, nil, err
	}
	o, err := m.Open(a, w.keys[a].Encryption)
	if err != nil {
		return nil, nil, err
	}
	if err := o.Verify(w.seen(a)); err != nil {
		return o, nil, err
	}
	if a == message.Origin || a == message.Destination {
		return o, nil, nil
	}
	c, err := o.Content()
	return o, c, err
}

// seen is what an actor knows of the four.
func (w *world) seen(a message.Actor) message.Parties {
	p := w.Parties
	switch a {
	case message.Origin:
		p.Recipient = message.Party{}
	case message.Destination:
		p.Author = message.Party{}
	}
	return p
}
