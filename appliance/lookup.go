package appliance

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"dimegate/appliance/config"
	"dimegate/dmtp/resolver"
	"dimegate/internal/safefile"
)

// NewResolver makes the part of a gateway that looks other organisations up, with the [dns], [tls] and [dmtp] tables of a
// configuration, over the given pins. No vault is opened and nothing is started; close ends the connections that it made.
func NewResolver(c *config.Config, known resolver.Store, o Options) (r *resolver.Resolver, close func() error, err error) {
	t := &tenant{gateway: &gateway{Options: o, config: c}, config: c, known: known}
	if err := t.makeClient(); err != nil {
		return nil, nil, err
	}
	if err := each(t.makeDNS, t.makeResolver); err != nil {
		t.client.Close()
		return nil, nil, err
	}
	return t.resolver, t.client.Close, nil
}

// maxList bounds a revocation list, in octets: large CAs have some of tens of megabytes.
const maxList = 128 << 20

// revocationLists reads the files of tls.crl_files. Their signatures are checked against each issuer when they are used.
func revocationLists(files []string) ([]*x509.RevocationList, error) {
	var lists []*x509.RevocationList
	for i, f := range files {
		b, err := safefile.Read(f, maxList)
		if err != nil {
			return nil, fmt.Errorf("tls.crl_files[%d]: %w", i+1, err)
		}
		if block, _ := pem.Decode(b); block != nil {
			b = block.Bytes
		}
		l, err := x509.ParseRevocationList(b)
		if err != nil {
			return nil, fmt.Errorf("tls.crl_files[%d]: %s is no revocation list: %w", i+1, f, err)
		}
		lists = append(lists, l)
	}
	return lists, nil
}
