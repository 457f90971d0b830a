package appliance

import (
	"context"
	"errors"

	"dimegate/dmtp/dmtpserver"
	"dimegate/trustful"
)

func notFound(err error) error {
	if errors.Is(err, trustful.ErrNoUser) || errors.Is(err, trustful.ErrNotOurs) {
		return errors.Join(dmtpserver.ErrNotFound, err)
	}
	return err
}

// Organization is dmtpserver's view of a domain of ours: every encryption key with the signet that shows it.
func (all organizations) Organization(_ context.Context, domain string) (*dmtpserver.Organization, error) {
	o, err := all.get(domain)
	if err != nil {
		return nil, dmtpserver.ErrNotFound
	}
	shown := &dmtpserver.Organization{}
	for _, k := range o.encryption {
		for i := len(o.signets) - 1; i >= 0; i-- { // the newest that shows the key
			if o.signets[i].EncryptionKey() == k.Public() {
				shown.Keys = append(shown.Keys, dmtpserver.OrganizationKey{Signet: o.signets[i], Key: k})
				break
			}
		}
	}
	return shown, nil
}
