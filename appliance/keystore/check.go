package keystore

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"reflect"
	"time"

	"dimegate/dmtp"
	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/vault"
	"dimegate/vault/archive"
)

// A Finding is something that is wrong with keys, and what is to be done.
type Finding struct {
	Thing  string `json:"thing"` // a file, a domain's key, an address and generation
	Fault  string `json:"fault"`
	Remedy string `json:"remedy"`
}

// Checked counts what CheckKeys looked at.
type Checked struct {
	Domains int `json:"domains"`
	Users   int `json:"users"`
	Keys    int `json:"keys"` // that were opened, and fit their signets
}

// A KeyCheck looks at every key of a vault: it changes nothing, and may run beside the gateway.
type KeyCheck struct {
	Vault         *vault.Vault
	Host, Signing bool          // which seal is open; what lies under another is not opened
	Grace         time.Duration // of retired keys
	Now           time.Time
	Found         func(Finding) error
	Checked

	failed error // of Found, or of the storage
}

const (
	remedyRestore = "restore a backup of before: gateway backup restore"
	remedyUser    = "where only this user is hit: gateway keys disable ADDRESS --now, then gateway keys enable ADDRESS, and he gets new keys; else " + remedyRestore
	remedyHeader  = "put the seal header back that belongs to this database, or " + remedyRestore
	remedySweep   = "the gateway destroys it within the hour while it runs; if it runs, its log says why it does not"
	remedySwept   = "the gateway destroys the rest within a day while it runs; if it runs, its log says why it does not"
)

// Run looks at everything. What it found is no error.
func (c *KeyCheck) Run(ctx context.Context) error {
	if err := c.Vault.Intact(ctx); errors.Is(err, vault.ErrCorrupt) {
		c.found("vault.db", err.Error(), "stop the gateway and "+remedyRestore)
	} else if err != nil {
		return err
	}
	if c.Host {
		if err := c.Vault.NamedKeysOpen(ctx); err != nil {
			c.unopened("the vault's own keys", err, remedyRestore)
		}
	}
	signets, err := c.domains(ctx)
	if err != nil {
		return err
	}
	const page = 200
	for after := ""; ; {
		list, err := c.Vault.Addresses(ctx, after, page)
		if err != nil {
			return err
		}
		for _, address := range list {
			after = address
			if err := c.settled(ctx, address, signets[dmtp.DomainOf(address)]); err != nil {
				return err
			}
		}
		if len(list) < page || c.failed != nil {
			return c.failed
		}
	}
}

func (c *KeyCheck) found(thing, fault, remedy string) {
	if c.failed == nil {
		c.failed = c.Found(Finding{thing, fault, remedy})
	}
}

// unopened says why a key does not open.
func (c *KeyCheck) unopened(thing string, err error, remedy string) {
	switch {
	case errors.Is(err, vault.ErrSealed):
		c.found(thing, "it was wrapped under a root key that the seal header does not have: the header is of another time, or of another vault", remedyHeader)
	case errors.Is(err, vault.ErrWrongKey):
		c.found(thing, "its wrap does not open: it was changed, or is another key's", remedy)
	case errors.Is(err, vault.ErrNotFound):
		c.found(thing, "it has no wrap: nothing opens it", remedy)
	case errors.Is(err, vault.ErrCorrupt):
		c.found(thing, "it is damaged", remedy)
	default:
		if c.failed == nil {
			c.failed = err
		}
	}
}

// domains looks at every domain's keys and signets, and returns the signets, the oldest first.
func (c *KeyCheck) domains(ctx context.Context) (map[string][]*signet.Signet, error) {
	keys, err := c.Vault.OrgKeys(ctx, "")
	if err != nil {
		return nil, err
	}
	signets, of := map[string][]*signet.Signet{}, map[string][]vault.OrgKey{}
	for _, k := range keys {
		of[k.Domain] = append(of[k.Domain], k)
		if err := c.orgKey(ctx, k); err != nil {
			return nil, err
		}
	}
	for domain, keys := range of {
		c.Domains++
		list, err := c.Vault.OrgSignets(ctx, domain)
		if err != nil {
			return nil, err
		}
		for i, b := range list {
			s, err := signet.Parse(b)
			if err != nil {
				c.found(fmt.Sprintf("signet %d of %s", i+1, domain), "it is damaged", remedyRestore)
				continue
			}
			signets[domain] = append(signets[domain], s)
		}
		c.orgFits(domain, keys, signets[domain])
	}
	return signets, nil
}

// orgKey opens one key, or sees that it is gone.
func (c *KeyCheck) orgKey(ctx context.Context, k vault.OrgKey) error {
	thing := fmt.Sprintf("%v key %v of %s", k.Kind, k.ID, k.Domain)
	purpose, open := vault.WrapSigning, c.Signing
	if k.Kind == vault.EncryptionKey {
		purpose, open = vault.WrapHost, c.Host
	}
	if !k.Destroyed.IsZero() {
		return c.gone(ctx, thing, k.ID, purpose)
	}
	if !open {
		return nil
	}
	if err := c.Vault.OrgKeyOpens(ctx, k); err != nil {
		c.unopened(thing, err, remedyRestore)
		return c.failed
	}
	c.Keys++
	return nil
}

// gone sees that a destroyed key has no wrap.
func (c *KeyCheck) gone(ctx context.Context, thing string, id vault.ID, p vault.Purpose) error {
	there, err := c.Vault.HasWrap(ctx, id, p)
	if there {
		c.found(thing, "it was destroyed, and has a wrap still: the database is a mixture of two", remedyRestore)
	}
	return err
}

// orgFits compares a domain's signet with its keys.
func (c *KeyCheck) orgFits(domain string, keys []vault.OrgKey, signets []*signet.Signet) {
	if len(signets) == 0 {
		c.found("signet of "+domain, "there is none", remedyRestore)
		return
	}
	s := signets[len(signets)-1]
	if err := s.VerifyOrg([]key.SigningPublic{s.SigningKey()}); err != nil {
		c.found("signet of "+domain, "its signature does not hold", remedyRestore)
	}
	signing, encryption := s.SigningKey(), s.EncryptionKey().Bytes()
	primary, reading := false, false
	for _, k := range keys {
		primary = primary || k.Kind == vault.PrimaryKey && k.Retired.IsZero() && string(k.Public) == string(signing[:])
		reading = reading || k.Kind == vault.EncryptionKey && k.Retired.IsZero() && string(k.Public) == string(encryption[:])
	}
	if !primary {
		c.found("signet of "+domain, "it does not name the domain's current primary key: a roll-over ended half-way, or the keys are of another time", remedyRestore)
	}
	if !reading {
		c.found("signet of "+domain, "it does not name the domain's current encryption key: a replacement ended half-way, or the keys are of another time", remedyRestore)
	}
}

// settled looks at an address until its keys did not change meanwhile: the gateway may be rotating them.
func (c *KeyCheck) settled(ctx context.Context, address string, orgs []*signet.Signet) error {
	for {
		before, err := c.Vault.UserKeys(ctx, address)
		if err != nil {
			return err
		}
		user := KeyCheck{Vault: c.Vault, Host: c.Host, Signing: c.Signing, Grace: c.Grace, Now: c.Now}
		var list []Finding
		user.Found = func(f Finding) error { list = append(list, f); return nil }
		if err := user.user(ctx, before, orgs); err != nil {
			return err
		}
		after, err := c.Vault.UserKeys(ctx, address)
		if err != nil {
			return err
		}
		if len(list) > 0 && !reflect.DeepEqual(before, after) {
			continue
		}
		c.Users++
		c.Keys += user.Keys
		for _, f := range list {
			c.found(f.Thing, f.Fault, f.Remedy)
		}
		return user.failed
	}
}

// user looks at the generations of one address.
func (c *KeyCheck) user(ctx context.Context, list []vault.UserKey, orgs []*signet.Signet) error {
	var previous *signet.Signet
	for i, g := range list {
		thing := fmt.Sprintf("%s, keys %d", g.Address, g.Number)
		last := i == len(list)-1
		if want := i + 1; i == 0 && g.Number != 1 || i > 0 && g.Number != list[i-1].Number+1 {
			c.found(thing, fmt.Sprintf("generation %d is missing before it", max(want, g.Number-1)), remedyRestore)
			previous = nil
		}
		switch {
		case last && !g.Retired.IsZero() && g.Destroyed.IsZero(): // disabled keys stay current until they are destroyed
			c.found(thing, "they are retired, and nothing took their place: a rotation ended half-way", remedyUser)
		case !last && g.Retired.IsZero():
			c.found(thing, "they are current, and so are those behind them: a rotation ended half-way", remedyUser)
		}
		s, err := signet.Parse(g.Signet)
		if err != nil {
			c.found(thing, "their signet is damaged", remedyUser)
			previous = nil
			continue
		}
		c.signet(thing, g, s, previous, i > 0 && g.Number == list[i-1].Number+1 && !broken(list[i-1], g), orgs)
		if err := c.userKeys(ctx, thing, g, s); err != nil {
			return err
		}
		previous = s
	}
	return c.failed
}

// broken tells whether keys could not vouch for the next: they were destroyed before those were made.
func broken(before, next vault.UserKey) bool {
	return !before.Destroyed.IsZero() && !before.Destroyed.After(next.Made)
}

// signet judges a user's signet: the name, the organisation's signature, the chain of custody.
func (c *KeyCheck) signet(thing string, g vault.UserKey, s, previous *signet.Signet, chained bool, orgs []*signet.Signet) {
	if s.Name() != g.Address {
		c.found(thing, fmt.Sprintf("their signet is of %q", s.Name()), remedyUser)
		return
	}
	certified := false
	for _, o := range orgs {
		certified = certified || s.VerifyUser(o) == nil
	}
	if !certified {
		c.found(thing, "their signet is not signed by a key that the domain's signets name", remedyUser)
	}
	if chained && previous != nil && s.VerifyCustody(previous) != nil {
		c.found(thing, "their chain of custody is broken: the keys before did not sign their signet", remedyUser)
	}
}

// userKeys opens what a generation has, and compares it with its signet.
func (c *KeyCheck) userKeys(ctx context.Context, thing string, g vault.UserKey, s *signet.Signet) error {
	if g.Held {
		return c.notHere(ctx, thing, g)
	}
	if !g.Retired.IsZero() {
		if err := c.gone(ctx, thing+", signing key", g.ID, vault.WrapSigning); err != nil {
			return err
		}
	} else if c.Signing {
		k, err := c.Vault.UserSigning(ctx, g.Address, g.Number)
		if err == nil && k.Public() != s.SigningKey() {
			err = errNotIts
		}
		c.judge(ctx, thing+", signing key", g.ID, vault.WrapSigning, err)
		k.Destroy()
	}
	if err := c.escrow(ctx, thing+", escrow", g.ID); err != nil {
		return err
	}
	if !g.Destroyed.IsZero() {
		return c.gone(ctx, thing+", encryption key", g.ID, vault.WrapHost)
	}
	if !g.Retired.IsZero() && c.Now.After(g.Retired.Add(c.Grace+24*time.Hour)) {
		c.found(thing+", encryption key", "its grace has ended, and it is there still", remedySweep)
	}
	if !c.Host {
		return nil
	}
	k, err := c.Vault.UserEncryption(ctx, g.Address, g.Number)
	if err == nil && k.Public() != s.EncryptionKey() {
		err = errNotIts
	}
	c.judge(ctx, thing+", encryption key", g.ID, vault.WrapHost, err)
	k.Destroy()
	layer, err := c.Vault.UserLayer(ctx, g.Address, g.Number)
	clear(layer)
	if err != nil && !errors.Is(err, vault.ErrSealed) && !errors.Is(err, vault.ErrWrongKey) {
		c.judge(ctx, thing+", keys of the alternate layer", g.ID, vault.WrapHost, err)
	}
	return c.failed
}

// escrow sees that what officers would be given of a key is there, and is about the key that rests here. What is in it only they can see.
func (c *KeyCheck) escrow(ctx context.Context, thing string, id vault.ID) error {
	if !c.Host {
		return nil
	}
	_, _, err := c.Vault.KeyWrap(ctx, id)
	if errors.Is(err, vault.ErrNotFound) || errors.Is(err, vault.ErrDestroyed) {
		return nil
	} else if err != nil {
		return err
	}
	w, err := archive.KeyWrap(ctx, c.Vault, id)
	if errors.Is(err, vault.ErrDestroyed) {
		c.found(thing, "its shred key is gone: it was erased, and came back with a backup", remedySwept)
		return c.failed
	} else if err != nil {
		c.found(thing, "it does not open: it was changed", remedyRestore)
		return c.failed
	}
	_, encryption, _, err := c.Vault.SealedUserKey(ctx, id)
	switch {
	case errors.Is(err, vault.ErrDestroyed):
		c.found(thing, "the sealed key is gone that it opens", remedyRestore)
	case err != nil:
		return err
	case sha512.Sum512_256(encryption) != w.Label.Body:
		c.found(thing, "it is of another sealed key", remedyRestore)
	}
	return c.failed
}

// notHere sees that a user's own keys have no wrap.
func (c *KeyCheck) notHere(ctx context.Context, thing string, g vault.UserKey) error {
	for _, p := range []vault.Purpose{vault.WrapSigning, vault.WrapHost} {
		there, err := c.Vault.HasWrap(ctx, g.ID, p)
		if err != nil {
			return err
		}
		if there {
			c.found(thing, "they are the user's own, and have a wrap here: the database is a mixture of two", remedyRestore)
		}
	}
	return nil
}

var errNotIts = errors.New("keystore: not the key of the signet")

// judge counts a key that opened, or says what is wrong with it.
func (c *KeyCheck) judge(ctx context.Context, thing string, id vault.ID, p vault.Purpose, err error) {
	if err == nil {
		c.Keys++
		return
	}
	if errors.Is(err, errNotIts) {
		c.found(thing, "it opens, and is not the one that the signet names", remedyUser)
		return
	}
	if there, werr := c.Vault.HasWrap(ctx, id, p); werr == nil && !there {
		err = vault.ErrNotFound
	}
	c.unopened(thing, err, remedyUser)
}
