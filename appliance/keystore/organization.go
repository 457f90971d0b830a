package keystore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"dimegate/dmtp/key"
	"dimegate/dmtp/signet"
	"dimegate/trustful"
	"dimegate/vault"
)

// An Organization is a trustful.Organization on a vault: it signs for the domains whose keys are there.
type Organization struct {
	Vault *vault.Vault
}

var _ trustful.Organization = Organization{}

// Signets returns the organisational signets of a domain, oldest first.
func (o Organization) Signets(ctx context.Context, domain string) ([]*signet.Signet, error) {
	list, err := o.Vault.OrgSignets(ctx, domain)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, trustful.ErrNotOurs
	}
	all := make([]*signet.Signet, len(list))
	for i, b := range list {
		if all[i], err = signet.Parse(b); err != nil {
			return nil, fmt.Errorf("signet %d of %s in the vault: %w", i+1, domain, err)
		}
	}
	return all, nil
}

// Certify signs a user's signet; see trustful.Organization.
func (o Organization) Certify(ctx context.Context, domain string, u *signet.Uncertified, d signet.Details) (*signet.Signet, error) {
	return o.sign(ctx, domain, func(k key.Signing) (*signet.Signet, error) { return u.Certify(k, d) })
}

// SignRequest signs the signet of keys that their user made; see trustful.Organization.
func (o Organization) SignRequest(ctx context.Context, domain string, request *signet.Signet, d signet.Details) (*signet.Signet, error) {
	return o.sign(ctx, domain, func(k key.Signing) (*signet.Signet, error) { return signet.SignRequest(request, k, d) })
}

// Rename signs a user's signet under another name; see trustful.Organization.
func (o Organization) Rename(ctx context.Context, domain string, s *signet.Signet, name string) (*signet.Signet, error) {
	return o.sign(ctx, domain, func(k key.Signing) (*signet.Signet, error) { return s.Renamed(k, name) })
}

// sign makes a user's signet with the domain's secondary key, where it has one that may, else with its primary.
func (o Organization) sign(ctx context.Context, domain string, with func(key.Signing) (*signet.Signet, error)) (*signet.Signet, error) {
	all, err := o.Signets(ctx, domain)
	if err != nil {
		return nil, err
	}
	signers := all[len(all)-1].Signers(signet.SignSignets)
	secondary, err := o.Vault.OrgSigning(ctx, domain, vault.SecondaryKey)
	switch {
	case err == nil && slices.Contains(signers, secondary.Public()):
		defer secondary.Destroy()
		return with(secondary)
	case err == nil: // made, and not in the signet yet
		secondary.Destroy()
	case !errors.Is(err, vault.ErrNotFound):
		return nil, err
	}
	primary, err := o.Vault.OrgSigning(ctx, domain, vault.PrimaryKey)
	if err != nil {
		return nil, err
	}
	defer primary.Destroy()
	return with(primary)
}

// CreateOrganization makes the keys of a domain and its signet, in ID form, and keeps them; vault.ErrExists when it has
// some. The secondary key signs users' signets alone: messages are signed with the primary, since libdime takes no other
// there. Name is for people; more are fields that the signet has beside.
func CreateOrganization(ctx context.Context, v *vault.Vault, domain, name string, now time.Time, more ...signet.Field) (*signet.Signet, error) {
	pair, err := key.GeneratePair(rand.Reader)
	if err != nil {
		return nil, err
	}
	defer pair.Destroy()
	secondary, err := key.GenerateSigning(rand.Reader)
	if err != nil {
		return nil, err
	}
	defer secondary.Destroy()
	fields := append(trustful.Advertised(), more...)
	if name != "" {
		fields = append(fields, signet.Field{ID: signet.FieldName, Value: []byte(name)})
	}
	made, err := signet.NewOrg(pair, signet.Details{
		Name:      domain,
		Secondary: []signet.SecondaryKey{{Permissions: signet.SignSignets, Key: secondary.Public()}},
		Fields:    fields,
	})
	if err != nil {
		return nil, err
	}
	if err := made.VerifyOrg([]key.SigningPublic{pair.Signing.Public()}); err != nil {
		return nil, fmt.Errorf("the signet of %s: %w", domain, err)
	}
	return made, v.CreateOrg(ctx, domain, vault.OrgKeys{Primary: pair.Signing, Secondary: secondary, Encryption: pair.Encryption}, made.Bytes(), now)
}

// SayInSignet publishes a domain's signet anew, with the same keys, so that the field 251 of a name has this value; "" takes it out.
// It reports whether that was necessary.
func SayInSignet(ctx context.Context, v *vault.Vault, domain, name, value string, now time.Time) (bool, error) {
	all, err := Organization{Vault: v}.Signets(ctx, domain)
	if err != nil {
		return false, err
	}
	said := ""
	named := func(f signet.Field) bool { return f.ID == signet.FieldNamed && f.Name == name }
	for _, f := range all[len(all)-1].Fields() {
		if named(f) {
			said = string(f.Value)
		}
	}
	if said == value {
		return false, nil
	}
	return true, publish(ctx, v, domain, vault.OrgChange{}, now, func(d *signet.Details) {
		d.Fields = slices.DeleteFunc(d.Fields, named)
		if value != "" {
			d.Fields = append(d.Fields, signet.Field{ID: signet.FieldNamed, Name: name, Value: []byte(value)})
		}
	})
}

// signAnew makes another signet of a primary key and the encryption key of a domain's current one.
func signAnew(ctx context.Context, v *vault.Vault, domain string, primary key.Signing, current *signet.Signet, d signet.Details) (*signet.Signet, error) {
	list, err := v.OrgEncryption(ctx, domain)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, k := range list {
			k.Destroy()
		}
	}()
	if list[0].Public() != current.EncryptionKey() {
		return nil, fmt.Errorf("the encryption key of the signet of %s is not the one in the vault", domain)
	}
	return signet.NewOrg(key.Pair{Signing: primary, Encryption: list[0]}, d)
}
