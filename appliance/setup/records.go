package setup

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/vault"
)

// A Cover is one certificate that a record vouches for.
type Cover struct {
	File     string    `json:"file"`
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
	der      []byte
}

// ReadCover reads a certificate's leaf.
func ReadCover(file string) (Cover, error) {
	der, err := readCertificate(file)
	if err != nil {
		return Cover{}, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Cover{}, fmt.Errorf("%s: %w", file, err)
	}
	return Cover{File: file, Subject: c.Subject.String(), NotAfter: c.NotAfter, der: der}, nil
}

// Records makes the records of all domains of the configuration that have keys: for the certificates in use, those that
// libdime meets first, and behind them for others, which are to come or have just gone. A name picks one domain.
func Records(ctx context.Context, c *config.Config, v *vault.Vault, name string, others []Cover) ([]Domain, error) {
	ders, _, err := readCertificates(c)
	if err != nil {
		return nil, err
	}
	if c.DMTP.ACME.On() {
		ders = nil // peers find the authority above them
	}
	for _, o := range others {
		if !slices.ContainsFunc(ders, func(d []byte) bool { return slices.Equal(d, o.der) }) {
			ders = append(ders, o.der)
		}
	}
	org := keystore.Organization{Vault: v}
	var list []Domain
	for _, o := range c.Organizations {
		for _, n := range o.Domains {
			if name != "" && n != name {
				continue
			}
			all, err := org.Signets(ctx, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", n, err)
			}
			d := Domain{Name: n}
			if err := d.describe(ctx, v, all[len(all)-1], o, ders); err != nil {
				return nil, fmt.Errorf("%s: %w", n, err)
			}
			list = append(list, d)
		}
	}
	return list, nil
}
