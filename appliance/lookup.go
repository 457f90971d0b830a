package appliance

import (
	"dimegate/appliance/config"
	"dimegate/dmtp/resolver"
)

// NewResolver makes the part of a gateway that looks other organisations up, with the [dns], [tls] and [dmtp] tables of a
// configuration, over the given pins. No vault is opened and nothing is started; close ends the connections that it made.
func NewResolver(c *config.Config, known resolver.Store, o Options) (r *resolver.Resolver, close func() error, err error) {
	a := &Appliance{Options: o, config: c, known: known}
	if err := a.makeClient(); err != nil {
		return nil, nil, err
	}
	if err := a.makeResolver(); err != nil {
		a.client.Close()
		return nil, nil, err
	}
	return a.resolver, a.client.Close, nil
}
