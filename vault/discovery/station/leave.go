package station

import "dimegate/vault/escrow"

// Signing is the requester's key, which signs what leaves the station. It is gone with k's Destroy.
func (k *Keys) Signing() escrow.SigningKey { return k.signing }

// Trust is what the station believes of the gateway's log.
func (s *Station) Trust() escrow.Trust { return s.trust() }
