package message

import (
	"crypto/subtle"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
)

// A Verdict is what became of one signature.
type Verdict uint8

const (
	Unchecked Verdict = iota // not this actor's to check, or not reached
	Valid
	Invalid
	Absent   // the chunk is not there
	Unsigned // zeros: the author's placeholder
)

func (v Verdict) String() string {
	return [...]string{"unchecked", "valid", "invalid", "absent", "unsigned"}[v]
}

// A Report says what became of each signature that was looked at.
type Report struct {
	OriginChunk, DestinationChunk             Verdict // the author's signature inside chunks 4 and 5
	AuthorTree, AuthorFull                    Verdict
	MetadataBounce, DisplayBounce, OriginFull Verdict
	CorrectedTree                             bool // the tree signature is without the reference's slip
}

// Verify checks everything that this actor must before he trusts the message (dmime.md §7.6, §10, §15.4), in this order: that
// the signets are those whose fingerprints the author wrote, the author's signatures in chunks 4 and 5, tree and full
// signature, the origin's signatures, and who belongs to whom.
//
//	author       needs his own signet
//	origin       the author's and its own
//	destination  the origin's and its own
//	recipient    the author's, the origin's and his own
//
// Other parties are checked as far as they are given, by signet or by name alone; what this actor cannot know is not looked at.
// Origin.Name is, for the destination, the domain that the session proved; Author.Name, for the origin, the address that the
// submitter proved. Both signets of a user and his organisation are the caller's to verify: see Party.
func (o *Opened) Verify(p Parties) error {
	o.parties, o.verified = p, false
	if o.originBy == nil || o.originBy != p.Origin.Signet {
		o.report = Report{}
	}
	if err := o.signets(); err != nil {
		return err
	}
	if err := o.signatures(); err != nil {
		return err
	}
	var chunk4 *OriginChunk
	var chunk5 *DestinationChunk
	if kinds[TypeOrigin].slots.has(o.actor) {
		chunk4 = &o.origin
	}
	if kinds[TypeDestination].slots.has(o.actor) {
		chunk5 = &o.destination
	}
	if err := o.parties.bind(chunk4, chunk5); err != nil {
		return err
	}
	o.verified = true
	return nil
}

// VerifyOriginSignature checks the origin's signatures by org, as the destination must before it uses chunk 5. It is a part of
// Verify.
func (o *Opened) VerifyOriginSignature(org *signet.Signet) error {
	p := Party{Signet: org}
	if err := p.has(Origin); err != nil {
		return err
	}
	return o.originSignatures(p)
}

// needed are the signets without which an actor cannot verify.
var needed = [...][]Actor{
	Author:      {Author},
	Origin:      {Author, Origin},
	Destination: {Origin, Destination},
	Recipient:   {Author, Origin, Recipient},
}

// party returns the one with the given role.
func (p *Parties) party(role Actor) *Party {
	return [...]*Party{&p.Author, &p.Origin, &p.Destination, &p.Recipient}[role]
}

// signets checks that the signets are there, are the right ones, and that the actor's own has his key.
func (o *Opened) signets() error {
	p := &o.parties
	for _, role := range needed[o.actor] {
		if err := p.party(role).has(role); err != nil {
			return err
		}
	}
	if err := p.party(o.actor).owns(o.actor, o.own); err != nil {
		return err
	}
	if kinds[TypeOrigin].slots.has(o.actor) {
		if err := p.Author.fingerprint(Author, TypeOrigin, o.origin.AuthorSignet); err != nil {
			return err
		}
		if err := p.Destination.fingerprint(Destination, TypeOrigin, o.origin.DestinationSignet); err != nil {
			return err
		}
	}
	if kinds[TypeDestination].slots.has(o.actor) {
		if err := p.Recipient.fingerprint(Recipient, TypeDestination, o.destination.RecipientSignet); err != nil {
			return err
		}
		if err := p.Origin.fingerprint(Origin, TypeDestination, o.destination.OriginSignet); err != nil {
			return err
		}
	}
	return nil
}

// signatures checks those that are this actor's to check: the author's by A, O and R, the origin's by D and R. For author and
// origin the report also says, where the origin's signet is at hand, whether the origin has signed; nothing depends on it.
func (o *Opened) signatures() error {
	if o.actor != Destination {
		if err := o.authorSignatures(o.parties.Author.Signet.SigningKey()); err != nil {
			return err
		}
	}
	if o.parties.Origin.Signet == nil {
		return nil // the author's choice alone: see needed
	}
	if err := o.originSignatures(o.parties.Origin); err != nil && (o.actor == Destination || o.actor == Recipient) {
		return err
	}
	return nil
}

func verdict(ok bool) Verdict {
	if ok {
		return Valid
	}
	return Invalid
}

// authorSignatures checks those in chunks 4 and 5, then tree and full. The order matters: the full one covers all the others.
func (o *Opened) authorSignatures(author key.SigningPublic) error {
	for _, s := range []struct {
		typ  Type
		p    *standardPayload
		into *Verdict
	}{{TypeOrigin, &o.chunk4, &o.report.OriginChunk}, {TypeDestination, &o.chunk5, &o.report.DestinationChunk}} {
		if s.p.payload == nil {
			continue
		}
		if *s.into = verdict(author.Verify(s.p.signed(), s.p.signature())); *s.into != Valid {
			return fail(SigChunk, s.typ, "the author's signature does not hold")
		}
	}
	sig := o.signatureOf(TypeAuthorTree)
	ok := author.Verify(o.m.tree(false), sig)
	if !ok {
		ok = author.Verify(o.m.tree(true), sig)
		o.report.CorrectedTree = ok
	}
	if o.report.AuthorTree = verdict(ok); !ok {
		return fail(SigTree, TypeAuthorTree, "the author's tree signature does not hold")
	}
	ok = author.Verify(o.m.span(TypeAuthorTree), o.signatureOf(TypeAuthorFull))
	if o.report.AuthorFull = verdict(ok); !ok {
		return fail(SigAuthor, TypeAuthorFull, "the author's full signature does not hold")
	}
	return nil
}

// signatureOf decrypts the signature chunk of type t; nil when it is not there.
func (o *Opened) signatureOf(t Type) []byte {
	c, ok := o.m.find(t)
	if !ok {
		return nil
	}
	return o.decrypt(c)
}

// originSignatures checks 255, then 248 and 249 where they are there, by any key with which the origin signs messages. libdime
// takes the POK alone. What has held once by the same signet is not checked again: it hashes the whole message.
func (o *Opened) originSignatures(origin Party) (err error) {
	if o.originBy != nil && o.originBy == origin.Signet {
		return nil
	}
	keys := origin.messageKeys()
	for _, s := range []struct {
		typ, last Type
		class     Class
		into      *Verdict
	}{
		{TypeOriginSignature, TypeDisplayBounce, SigOrigin, &o.report.OriginFull},
		{TypeMetadataBounce, TypeOther, SigBounce, &o.report.MetadataBounce},
		{TypeDisplayBounce, TypeDisplay, SigBounce, &o.report.DisplayBounce},
	} {
		*s.into = o.m.originSignature(keys, s.last, o.signatureOf(s.typ))
		switch {
		case err != nil:
		case *s.into == Unsigned:
			err = fail(s.class, s.typ, "the origin has not signed")
		case *s.into == Invalid:
			err = fail(s.class, s.typ, "the origin's signature does not hold")
		}
	}
	if err == nil {
		o.originBy = origin.Signet
	}
	return err
}

// originSignature looks at one signature over the chunks up to last. Destination and recipient both have to, each by what he
// himself decrypted: where that is the same, over the same octets and by the same key, the answer is, too.
func (m *Message) originSignature(keys []key.SigningPublic, last Type, sig []byte) Verdict {
	var zeros [signatureSize]byte
	switch {
	case sig == nil:
		return Absent
	case subtle.ConstantTimeCompare(sig, zeros[:]) == 1:
		return Unsigned
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		s := heldSignature{k, last, [signatureSize]byte(sig)}
		if m.held[s] {
			return Valid
		}
		if k.Verify(m.span(last), sig) {
			if m.held == nil {
				m.held = map[heldSignature]bool{}
			}
			m.held[s] = true
			return Valid
		}
	}
	return Invalid
}
