package appliance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dimegate/bridge"
	"dimegate/bridge/handoff"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/message"
	"dimegate/dmtp/resolver"
	"dimegate/trustful"
)

// opener is the recipient's agent in the bridge's words.
type opener struct {
	keeper   *trustful.Keeper
	resolver *resolver.Resolver
}

// openErrors is what trustful's errors mean to the DMTP server; first match wins. A *message.Error that is in none of the
// rows is the author's signature or the message itself, by its outcome.
var openErrors = []struct{ trustful, server error }{
	{trustful.ErrNoUser, dmtpserver.ErrRecipient},
	{trustful.ErrAddress, dmtpserver.ErrRecipient},
	{trustful.ErrStaleSignet, dmtpserver.ErrRecipientSignet},
	{trustful.ErrUnavailable, dmtpserver.ErrOriginUnavailable},
	{trustful.ErrHeld, dmtpserver.ErrOriginUnavailable},
	{trustful.ErrNoSignet, dmtpserver.ErrOriginGone},
	{resolver.ErrNotDIME, dmtpserver.ErrOriginGone},
	{resolver.ErrUntrusted, dmtpserver.ErrOriginUnavailable}, // an alarm was given: it may be mended
	{message.AltUnknown, dmtpserver.ErrDeferred},             // the origin keeps it: the key or the suite may come (dmime.md §17.5)
	{message.AltNoKey, dmtpserver.ErrDeferred},
	{message.AltAuth, dmtpserver.ErrDeferred},
	{message.AltPolicy, dmtpserver.ErrRefused},
	{message.NotAuthentic, dmtpserver.ErrAuthorSignature},
	{message.Malformed, dmtpserver.ErrMessage},
	{message.Policy, dmtpserver.ErrMessage},
}

func (o opener) Open(ctx context.Context, in *dmtpserver.Incoming) (*bridge.Letter, error) {
	override, err := o.resolver.Overridden(ctx, in.Origin, resolver.OverrideBrokenCustody)
	if err != nil {
		return nil, err
	}
	remote := trustful.Strict // what is not known is not lowered
	if d, err := o.resolver.Org(ctx, in.Origin); err == nil {
		remote = remotes[d.Record.Policy]
	}
	letter, err := o.keeper.Open(ctx, trustful.Incoming{
		Message: in.Message, Recipient: in.Recipient, RecipientSignet: in.RecipientSignet,
		Origin: message.Party{Name: in.Origin, Signet: in.OriginSignet}, Remote: remote, Override: override,
	})
	if err == nil && letter.Sealed {
		return &bridge.Letter{Sealed: true, Own: letter.Own}, nil
	}
	if err == nil {
		return &bridge.Letter{Author: letter.Author, Content: letter.Content, Suite: letter.Suite, Unlayered: letter.Unlayered}, nil
	}
	return nil, openError(err)
}

func openError(err error) error {
	for _, e := range openErrors {
		if errors.Is(err, e.trustful) {
			return errors.Join(e.server, err)
		}
	}
	return err
}

// inner finds the mail server of a domain of ours, and tells trustful which mailboxes exist.
type inner map[string]*handoff.Inner // by domain

func (i inner) Server(domain string) (bridge.InnerServer, error) {
	if s, ok := i[domain]; ok {
		return s, nil
	}
	return nil, fmt.Errorf("appliance: no mail server for %s", domain)
}

// Confirm is trustful.Mailboxes: keys are made only for what the mail server knows, and would not take from just anyone.
func (i inner) Confirm(ctx context.Context, address string) error {
	s, ok := i[domainOf(address)]
	if !ok {
		return trustful.ErrNoUser
	}
	answer, err := s.Confirm(ctx, address)
	if err == nil && (!answer.Known || answer.AcceptsAll) {
		return trustful.ErrNoUser
	}
	return err
}

// Close ends the kept sessions.
func (i inner) Close() error {
	var errs []error
	for _, s := range i {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

func domainOf(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}
