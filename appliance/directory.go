package appliance

import (
	"context"
	"errors"

	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/signet"
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
		var all []*signet.Signet // that show the key, the newest last
		for _, s := range o.signets {
			if s.EncryptionKey() == k.Public() {
				all = append(all, s)
			}
		}
		if n := len(all) - 1; n >= 0 {
			shown.Keys = append(shown.Keys, dmtpserver.OrganizationKey{Signet: all[n], Past: all[:n], Key: k})
		}
	}
	return shown, nil
}
