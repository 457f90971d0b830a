package trustful

import (
	"context"
	"errors"
	"fmt"

	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// ErrStaleSignet is returned for a message that is sealed to a signet whose key we do not have, or not any more: the
// origin has to look the recipient up again (586).
var ErrStaleSignet = errors.New("trustful: sealed to a signet that we cannot open")

// Incoming is a message for one of our users, as far as his organisation could verify it.
type Incoming struct {
	Message         *message.Message
	Recipient       string                                 // of chunk 5
	RecipientSignet signet.Fingerprint                     // of chunk 5
	Origin          message.Party                          // its domain, and the organisational signet under which the origin's signature holds
	Remote          Remote                                 // what the origin's record says
	Override        bool                                   // the administrator's accept-broken-custody for the origin
	Governs         func(organisation, domain string) bool // see message.Parties
}

// A Letter is a message that was opened: everything that its recipient must verify holds. Or it is one that only he can open.
type Letter struct {
	Author       string
	AuthorSignet *signet.Signet
	Content      *message.Content
	Retired      bool            // it was sealed to a key that is not the recipient's current one
	Suite        message.SuiteID // under which the content lay beneath the outer scheme; 0: none
	Unlayered    bool            // it lay under none, and the recipient asks for one

	Sealed bool           // the recipient has the keys himself: nothing was opened, and of the above only Retired is known
	Own    *signet.Signet // then: the recipient's, that it is sealed to
}

// Open opens a message as its recipient, in the order of dmime.md §10.4: identities, the author's signet by the
// fingerprint inside, every signature and binding, what is known of the author, and only then the content. It is all or
// nothing. Errors: ErrNoUser, ErrStaleSignet; ErrUnavailable, ErrNoSignet and ErrHeld about the author; *message.Error for
// a message that is malformed or not authentic, or whose alternate layer is not to be taken off (dmime.md §17.5).
func (k *Keeper) Open(ctx context.Context, in Incoming) (*Letter, error) {
	address, err := Normal(in.Recipient)
	if err != nil {
		return nil, err
	}
	own, retired, err := k.addressed(ctx, address, in.RecipientSignet)
	if err != nil {
		return nil, err
	}
	if own.held {
		return &Letter{Sealed: true, Own: own.signet, Retired: retired}, nil
	}
	secret, err := k.Store.Encryption(ctx, own.mailbox, own.number)
	if errors.Is(err, ErrNoKeys) {
		return nil, ErrStaleSignet
	} else if err != nil {
		return nil, err
	}
	defer secret.Destroy()
	opened, err := in.Message.Open(message.Recipient, secret)
	if err != nil {
		return nil, err
	}
	parties, err := k.parties(ctx, in, opened)
	if err != nil {
		return nil, err
	}
	parties.Recipient = message.Party{Name: address, Signet: own.signet}
	if err := opened.Verify(parties); err != nil {
		return nil, err
	}
	author := parties.Author
	err = k.Pins.Trust(ctx, Claim{Address: author.Name, Signet: author.Signet, Remote: in.Remote, Override: in.Override, Reading: true})
	if err != nil {
		return nil, err
	}
	layers, err := k.Store.Layers(ctx, own.mailbox, own.number)
	if err != nil {
		return nil, err
	}
	opened.UseLayer(layers...)
	content, err := opened.Content()
	if err != nil {
		return nil, err
	}
	l := &Letter{Author: author.Name, AuthorSignet: author.Signet, Content: content, Retired: retired, Suite: opened.Layer()}
	required := k.Layer.with(lower(in.Origin.Name)).Mode == message.LayerRequired
	l.Unlayered = l.Suite == 0 && (message.WantsLayer(own.signet) || required && len(message.Offered(own.signet)) > 0)
	if l.Unlayered && required {
		return nil, &message.Error{Class: message.AltPolicy, Reason: "the alternate layer is required, the recipient's signet offers it, and the message has none"}
	}
	return l, nil
}

// addressed finds the generation that a message is sealed to, by its cryptographic fingerprint, as a user with that signet.
func (k *Keeper) addressed(ctx context.Context, address string, crypto signet.Fingerprint) (u user, retired bool, err error) {
	mailbox, all, err := k.generations(ctx, address)
	if err != nil {
		return user{}, false, err
	}
	if len(all) == 0 {
		return user{}, false, ErrNoUser
	}
	for _, g := range all {
		s, err := parseStored(g)
		if err != nil {
			return user{}, false, err
		}
		if fp, err := s.Fingerprint(signet.Crypto); err != nil || fp != crypto {
			continue
		}
		if !g.Destroyed.IsZero() {
			return user{}, false, ErrStaleSignet
		}
		s, err = k.signetFor(ctx, address, g)
		return user{address, mailbox, g.Number, s, g.Made, g.Held, nil}, !g.Current(), err
	}
	return user{}, false, ErrStaleSignet
}

// parties reads who the message says it is from, and gets the signets that it names. The author's domain must be the
// proved origin's before anybody is asked about him.
func (k *Keeper) parties(ctx context.Context, in Incoming, opened *message.Opened) (p message.Parties, err error) {
	chunk, err := opened.Origin()
	if err != nil {
		return p, err
	}
	p.Origin, p.Governs = in.Origin, in.Governs
	author, err := Normal(chunk.Author)
	if err != nil {
		return p, &message.Error{Class: message.EnvelopeMismatch, Reason: "the author is no address that we can look up", Err: err}
	}
	if d, org := domainOf(author), lower(in.Origin.Name); d != org && (in.Governs == nil || !in.Governs(org, d)) {
		return p, &message.Error{Class: message.EnvelopeMismatch, Reason: "the author is not of the origin"}
	}
	if p.Destination, err = k.destination(ctx, in, chunk.DestinationSignet); err != nil {
		return p, err
	}
	p.Author.Name = author
	p.Author.Signet, err = k.Peers.Author(ctx, author, chunk.AuthorSignet)
	return p, err
}

// destination is our organisation under the signet that the author used, which may be an earlier one.
func (k *Keeper) destination(ctx context.Context, in Incoming, crypto signet.Fingerprint) (message.Party, error) {
	domain := lower(domainOf(in.Recipient))
	all, err := k.Organization.Signets(ctx, domain)
	if err != nil {
		return message.Party{}, err
	}
	for _, s := range all {
		if fp, err := s.Fingerprint(signet.Crypto); err == nil && fp == crypto {
			return message.Party{Name: domain, Signet: s}, nil
		}
	}
	return message.Party{}, &message.Error{Class: message.FingerprintMismatch, Reason: "the author used a signet that our organisation never had"}
}

// parseStored reads a signet out of the store; a fault there is damage, and said as that.
func parseStored(g Generation) (*signet.Signet, error) {
	s, err := signet.Parse(g.Signet)
	if err != nil {
		return nil, fmt.Errorf("trustful: the signet of generation %d in the store: %w", g.Number, err)
	}
	return s, nil
}
