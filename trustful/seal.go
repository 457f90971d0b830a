package trustful

import (
	"context"
	"crypto/rand"
	"errors"

	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// Outgoing is who writes to whom. Recipient and Destination are as the resolver verified them: their signets in ID form,
// the recipient's under the destination's.
type Outgoing struct {
	Author      string // one of our addresses; its keys are made when it has none
	Recipient   message.Party
	Destination message.Party
	Remote      Remote
	Override    bool                                   // the administrator's accept-broken-custody for the destination
	Governs     func(organisation, domain string) bool // see message.Parties; nil: an address has its organisation's domain
}

// A Draft is a message whose four parties are settled and trusted, and whose content is still to be written.
type Draft struct {
	keeper  *Keeper
	author  user
	parties message.Parties
	layer   message.Layer
}

// Prepare settles the parties of a message: the recipient's signet must be one that Pins trusts, and the author is
// enrolled. Errors: message.AltPolicy where the alternate layer is demanded and not to be had, those of Pins.Trust, ErrAddress, ErrNotOurs, and the store's.
func (k *Keeper) Prepare(ctx context.Context, o Outgoing) (*Draft, error) {
	if o.Recipient.Signet == nil || o.Destination.Signet == nil {
		return nil, errors.New("trustful: no signet to seal to")
	}
	if o.Recipient.Name == "" {
		o.Recipient.Name = o.Recipient.Signet.Name()
	}
	err := k.Pins.Trust(ctx, Claim{Address: o.Recipient.Name, Signet: o.Recipient.Signet, Remote: o.Remote, Override: o.Override})
	if err != nil {
		return nil, err
	}
	layer := k.Layer.with(lower(o.Destination.Name))
	if _, err := layer.Suite(o.Recipient.Signet); err != nil {
		return nil, err
	}
	author, err := k.enrol(ctx, o.Author)
	if err != nil {
		return nil, err
	}
	if author.held {
		return nil, ErrOwnKeys
	}
	domain := domainOf(author.address)
	org, err := k.organization(ctx, domain)
	if err != nil {
		return nil, err
	}
	return &Draft{k, author, message.Parties{
		Author:      message.Party{Name: author.address, Signet: author.signet},
		Origin:      message.Party{Name: domain, Signet: org},
		Destination: o.Destination,
		Recipient:   o.Recipient,
		Governs:     o.Governs,
	}, layer}, nil
}

// Multi reports whether all who read the message take any number of parts.
func (d *Draft) Multi() bool { return d.parties.Multi() }

// Suite is that of the alternate layer under which the message will be written; 0: none.
func (d *Draft) Suite() message.SuiteID {
	id, _ := d.layer.Suite(d.parties.Recipient.Signet) // Prepare saw that there is no error
	return id
}

// Author returns the address that the message is signed for and its signet.
func (d *Draft) Author() (string, *signet.Signet) { return d.author.address, d.author.signet }

// Seal writes the message as its author; the origin's signatures are still to come. ErrNoKeys when the author's keys were
// rotated since Prepare: prepare again. It keeps no part of c.
func (d *Draft) Seal(ctx context.Context, c *message.Content) (*message.Message, error) {
	signing, err := d.keeper.Store.Signing(ctx, d.author.mailbox, d.author.number)
	if err != nil {
		return nil, err
	}
	defer signing.Destroy()
	return message.ComposeLayered(rand.Reader, d.parties, c, signing, d.layer)
}

// Seal is Prepare and Draft.Seal, for content that does not depend on who reads it.
func (k *Keeper) Seal(ctx context.Context, o Outgoing, c *message.Content) (*message.Message, error) {
	for again := true; ; again = false {
		d, err := k.Prepare(ctx, o)
		if err != nil {
			return nil, err
		}
		if m, err := d.Seal(ctx, c); !again || !errors.Is(err, ErrNoKeys) {
			return m, err
		}
	}
}
