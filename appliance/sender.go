package appliance

import (
	"errors"
	"io"
	"slices"

	"dimegate/appliance/config"
	"dimegate/bridge"
	"dimegate/bridge/submission"
	"dimegate/bridge/translate"
)

// maxHeader is how much of a message may be its header block where that says whose it is.
const maxHeader = 1 << 20

// names tells whether an organisation names the client of a message as one that sends for it.
func names(o config.Organization, env submission.Envelope) bool {
	if env.User != "" && slices.Contains(o.Users, env.User) {
		return true
	}
	for _, p := range o.Prefixes() {
		if p.Contains(env.Client.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// lets tells whether a client may send for an organisation: one that it names, or anyone where it names nobody.
func lets(o config.Organization, env submission.Envelope) bool {
	return len(o.Networks)+len(o.Users) == 0 || names(o, env)
}

// may is submission.Config.May: a client sends for organisations that let it.
func (all tenants) may(env submission.Envelope, domain string) bool {
	for _, t := range all {
		for _, o := range t.config.Organizations {
			if (domain == "" || slices.Contains(o.Domains, domain)) && lets(o, env) {
				return true
			}
		}
	}
	return false
}

// sender finds the tenant of a message by its reverse-path. One with the null path, or a stranger's that is forwarded, is of the domain of
// ours that its From field names, where that lets the client; else of the first organisation that names the client, or that names nobody.
// It returns the body whole. The client may send.
func (all tenants) sender(env submission.Envelope, body io.Reader) (*tenant, io.Reader, error) {
	if t, ours := all.of(domainOf(env.From)); ours {
		return t, body, nil
	}
	if all.alike() {
		return all[0], body, nil
	}
	head, err := translate.ReadHead(body, maxHeader)
	if errors.Is(err, translate.ErrHeader) {
		return nil, nil, errors.Join(submission.ErrTooLarge, err)
	}
	if err != nil {
		return nil, nil, err
	}
	body = io.MultiReader(head.Reader(), body)
	if domain := bridge.FromDomain(head, all.serve); domain != "" {
		t, _ := all.of(domain)
		if o, _ := t.config.Organization(domain); !lets(o, env) {
			return nil, nil, submission.ErrPolicy
		}
		return t, body, nil
	}
	for _, takes := range []func(config.Organization, submission.Envelope) bool{names, lets} {
		for _, t := range all {
			if slices.ContainsFunc(t.config.Organizations, func(o config.Organization) bool { return takes(o, env) }) {
				return t, body, nil
			}
		}
	}
	return nil, nil, submission.ErrPolicy
}

// alike tells that there is one tenant, and that whoever may send at all may send as anyone of its domains.
func (all tenants) alike() bool {
	return len(all) == 1 && !slices.ContainsFunc(all[0].config.Organizations, func(o config.Organization) bool { return len(o.Networks)+len(o.Users) > 0 })
}
