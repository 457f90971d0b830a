package message

import (
	"strconv"
	"strings"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// A Party is one of the four with the signet that its agent or the resolver has verified: signatures, custody, organisation
// and record are settled before (dmime.md §15.4, rule 5). Name is the address or domain for which the signet was fetched; it
// may be left empty where the signet names its owner (field 254), and must agree with it where both are there.
type Party struct {
	Name   string
	Signet *signet.Signet
}

// Parties are the four of a message. Whoever reads leaves empty what he cannot know: see Opened.Verify.
type Parties struct {
	Author, Origin, Destination, Recipient Party

	// Governs says whether an address's domain belongs to an organisation's, when they are not the same: the subdomain rule
	// of the management record. Nil: it never does.
	Governs func(organisation, domain string) bool
}

// The fields of both kinds of signets that matter here, and the token of the first: its owner takes any number of chunks 67 and
// 131, and flag 128.
const (
	fieldExtensions = 26
	fieldSizeLimit  = 27
	extensionMulti  = "dmime-multi"
)

// Multi reports whether origin, destination and recipient all advertise dmime-multi, so that a message may have more than one
// chunk of display or attachment. libdime's reader corrupts its memory over such messages.
func (p *Parties) Multi() bool {
	return p.Origin.advertises(extensionMulti) && p.Destination.advertises(extensionMulti) && p.Recipient.advertises(extensionMulti)
}

// advertises looks for a token in the semicolon-separated Extensions.
func (p *Party) advertises(token string) bool {
	if p.Signet == nil {
		return false
	}
	text, _ := p.Signet.Field(fieldExtensions)
	for t := range strings.SplitSeq(string(text), ";") {
		if strings.TrimSpace(t) == token {
			return true
		}
	}
	return false
}

// sizeLimit is the party's Message-Size-Limit in octets, 0 for none or none that is a number.
func (p *Party) sizeLimit() uint64 {
	if p.Signet == nil {
		return 0
	}
	text, _ := p.Signet.Field(fieldSizeLimit)
	n, err := strconv.ParseUint(string(text), 10, 63)
	if err != nil {
		return 0
	}
	return n
}

// has checks that the party has a signet, of the kind that its role wants.
func (p *Party) has(role Actor) error {
	want := signet.User
	if role == Origin || role == Destination {
		want = signet.Org
	}
	switch {
	case p.Signet == nil:
		return fail(SignetInvalid, 0, "the %v's signet is needed", role)
	case p.Signet.Kind() != want:
		return fail(SignetInvalid, 0, "the %v's signet is of another kind", role)
	}
	return nil
}

// owns checks that the party's signet, if it is there, holds the encryption key that opened the message.
func (p *Party) owns(role Actor, k key.EncryptionPublic) error {
	if p.Signet != nil && p.Signet.EncryptionKey() != k {
		return fail(FingerprintMismatch, 0, "the %v's signet does not hold the key that is used", role)
	}
	return nil
}

// fingerprint checks that the signet, if it is there, is the one whose fingerprint the author wrote in chunk t.
func (p *Party) fingerprint(role Actor, t Type, want signet.Fingerprint) error {
	if p.Signet == nil {
		return nil
	}
	got, err := p.Signet.Fingerprint(signet.Crypto)
	if err != nil {
		return &Error{Class: SignetInvalid, Reason: "the " + role.String() + "'s signet has no fingerprint", Err: err}
	}
	if !got.Equal(want) {
		return fail(FingerprintMismatch, t, "the %v's signet is another one than the author's", role)
	}
	return nil
}

// named checks that the party is the one that chunk t names: by the identifier of its signet, and by the name for which it
// was fetched. A party without signet and name is unknown to the reader, and fits.
func (p *Party) named(role Actor, t Type, name string) error {
	id := p.Name
	if p.Signet != nil {
		own := p.Signet.Name()
		switch {
		case own == "" && id == "":
			return fail(SignetInvalid, t, "the %v's signet does not say whose it is", role)
		case own != "" && id != "" && !signet.SameName(own, id):
			return fail(EnvelopeMismatch, t, "the %v's signet is somebody else's", role)
		case id == "":
			id = own
		}
	}
	if id != "" && !signet.SameName(id, name) {
		return fail(EnvelopeMismatch, t, "the %v is somebody else", role)
	}
	return nil
}

// name is the party's, as given or as its signet says.
func (p *Party) name() string {
	if p.Name == "" && p.Signet != nil {
		return p.Signet.Name()
	}
	return p.Name
}

// belongs checks that address is of the organisation (dmime.md §15.4, rule 1).
func (p *Parties) belongs(t Type, address, organisation string) error {
	domain := domainOf(address)
	if signet.SameName(domain, organisation) || p.Governs != nil && p.Governs(organisation, domain) {
		return nil
	}
	return fail(EnvelopeMismatch, t, "the address is not of the organisation")
}

// bind checks who belongs to whom, as far as the two chunks can be seen (dmime.md §15.4). libdime checks none of it.
func (p *Parties) bind(chunk4 *OriginChunk, chunk5 *DestinationChunk) error {
	origin, destination := p.Origin.name(), p.Destination.name() // the reader's own, where the chunk that names it is closed to him
	if err := p.Origin.named(Origin, 0, origin); chunk5 == nil && err != nil {
		return err
	}
	if err := p.Destination.named(Destination, 0, destination); chunk4 == nil && err != nil {
		return err
	}
	if chunk4 != nil {
		destination = chunk4.Destination
		if err := p.Author.named(Author, TypeOrigin, chunk4.Author); err != nil {
			return err
		}
		if err := p.Destination.named(Destination, TypeOrigin, chunk4.Destination); err != nil {
			return err
		}
	}
	if chunk5 != nil {
		origin = chunk5.Origin
		if err := p.Recipient.named(Recipient, TypeDestination, chunk5.Recipient); err != nil {
			return err
		}
		if err := p.Origin.named(Origin, TypeDestination, chunk5.Origin); err != nil {
			return err
		}
		if err := p.belongs(TypeDestination, chunk5.Recipient, destination); err != nil {
			return err
		}
	}
	if chunk4 != nil {
		return p.belongs(TypeOrigin, chunk4.Author, origin)
	}
	return nil
}
