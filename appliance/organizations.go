package appliance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault"
)

// organizations are the agents of the configured domains: they hold the organisations' keys, sign users' signets and
// outgoing messages, and open the destination chunks of incoming ones. The domains are those of the start; what each has is renewed by
// refresh. Safe for concurrent use.
type organizations struct {
	signer  keystore.Organization // of users' signets
	domains map[string]*domain
}

// A domain is one of ours: its organization as it was read last, and those from before, which others may be using.
type domain struct {
	now     atomic.Pointer[organization]
	renewal sync.Mutex
	past    []*organization // a few in a year
}

// An organization is one domain of ours with its keys, opened. It does not change.
type organization struct {
	domain     string
	config     config.Organization
	signets    []*signet.Signet // every one published, oldest first; the last is the current one
	primary    key.Signing
	encryption []key.Encryption
}

// openOrganizations opens the keys of every configured domain. The error names the domain and the remedy.
func openOrganizations(ctx context.Context, v *vault.Vault, c *config.Config) (organizations, error) {
	all := organizations{keystore.Organization{Vault: v}, map[string]*domain{}}
	for _, o := range c.Organizations {
		for _, name := range o.Domains {
			org, err := openOrganization(ctx, v, name)
			if err != nil {
				all.destroy()
				return organizations{}, fmt.Errorf("keys of %s: %w: make them with \"gateway init --domain %s\"", name, err, name)
			}
			org.config = o
			d := &domain{}
			d.now.Store(org)
			all.domains[name] = d
		}
	}
	return all, nil
}

// refresh reads a domain's keys and signets again where they changed: by a step of ours, another gateway on the vault, or a command
// beside us.
func (all organizations) refresh(ctx context.Context, name string) (changed bool, err error) {
	d := all.domains[name]
	d.renewal.Lock()
	defer d.renewal.Unlock()
	old := d.now.Load()
	published, err := all.signer.Vault.OrgSignets(ctx, name)
	if err != nil || len(published) == len(old.signets) {
		return false, err
	}
	org, err := openOrganization(ctx, all.signer.Vault, name)
	if err != nil {
		return false, fmt.Errorf("keys of %s: %w", name, err)
	}
	org.config = old.config
	d.now.Store(org)
	d.past = append(d.past, old)
	return true, nil
}

func openOrganization(ctx context.Context, v *vault.Vault, domain string) (*organization, error) {
	published, err := v.OrgSignets(ctx, domain)
	if err != nil {
		return nil, err
	}
	if len(published) == 0 {
		return nil, vault.ErrNotFound
	}
	org := &organization{domain: domain}
	for _, b := range published {
		s, err := signet.Parse(b)
		if err != nil {
			return nil, fmt.Errorf("organisational signet: %w", err)
		}
		org.signets = append(org.signets, s)
	}
	if org.primary, err = v.OrgSigning(ctx, domain, vault.PrimaryKey); err != nil {
		return nil, err
	}
	if org.encryption, err = v.OrgEncryption(ctx, domain); err != nil {
		return nil, err
	}
	if org.current().SigningKey() != org.primary.Public() {
		return nil, fmt.Errorf("%w: the primary key is not that of the current signet", vault.ErrCorrupt)
	}
	return org, nil
}

func (all organizations) destroy() {
	for _, d := range all.domains {
		for _, o := range append(d.past, d.now.Load()) {
			o.primary.Destroy()
			for _, e := range o.encryption {
				e.Destroy()
			}
		}
	}
}

func (o *organization) current() *signet.Signet { return o.signets[len(o.signets)-1] }

// get returns the organisation of a domain of ours, which is in lower case, or trustful.ErrNotOurs.
func (all organizations) get(domain string) (*organization, error) {
	d, ok := all.domains[domain]
	if !ok {
		return nil, trustful.ErrNotOurs
	}
	return d.now.Load(), nil
}

// Signets is the published chain of a domain, from memory; see trustful.Organization.
func (all organizations) Signets(_ context.Context, domain string) ([]*signet.Signet, error) {
	o, err := all.get(domain)
	if err != nil {
		return nil, err
	}
	return slices.Clone(o.signets), nil
}

// Certify signs a user's signet; see trustful.Organization.
func (all organizations) Certify(ctx context.Context, domain string, u *signet.Uncertified, d signet.Details) (*signet.Signet, error) {
	return all.signer.Certify(ctx, domain, u, d)
}

// SignRequest signs the signet of keys that their user made; see trustful.Organization.
func (all organizations) SignRequest(ctx context.Context, domain string, request *signet.Signet, d signet.Details) (*signet.Signet, error) {
	return all.signer.SignRequest(ctx, domain, request, d)
}

// Rename signs a user's signet under another name; see trustful.Organization.
func (all organizations) Rename(ctx context.Context, domain string, s *signet.Signet, name string) (*signet.Signet, error) {
	return all.signer.Rename(ctx, domain, s, name)
}

// Sign signs m as its origin, after the checks that an origin owes its author: the message names this author, his signet
// and the domain it goes to, and his signatures hold. The POK signs: libdime accepts no other key here (dmime.md §7.5). Only what
// it returns may be used afterwards.
func (all organizations) Sign(_ context.Context, m *message.Message, author, destination message.Party, domain string) (*message.Message, error) {
	o, err := all.get(domain)
	if err != nil {
		return nil, err
	}
	opened, err := m.Open(message.Origin, o.encryption[0])
	if err != nil {
		return nil, err
	}
	err = opened.Verify(message.Parties{Author: author, Origin: message.Party{Name: domain, Signet: o.current()}, Destination: destination})
	if err != nil {
		return nil, err
	}
	return opened.SignOriginHere(o.primary)
}
