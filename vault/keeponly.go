package vault

import (
	"context"
	"errors"
	"time"
)

// A KeptOnly is a draft that the archive alone keeps, with the envelope to store.
type KeptOnly struct {
	Draft    *Draft // with Keep
	Envelope []byte
}

// KeepOnly makes drafts records of which nothing waits: no wrap but the archive's opens them. All are in one commit: when it returns
// nil they are on stable storage and in the log. It ends the drafts in any case.
func (v *Vault) KeepOnly(ctx context.Context, list []KeptOnly, now time.Time) ([]ID, error) {
	defer func() {
		for _, k := range list {
			k.Draft.Discard()
		}
	}()
	var all []*intake
	for _, k := range list {
		in, err := v.prepare(k.Draft, Internal, k.Envelope, now)
		if err != nil {
			return nil, err
		}
		if in.kept == nil || len(in.kept.Wraps) == 0 {
			return nil, errors.New("vault: a record that nothing would open")
		}
		all = append(all, in)
	}
	err := v.update(ctx, func(tx *Tx) error {
		for _, in := range all {
			if err := in.put(tx, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var ids []ID
	for _, in := range all {
		ids = append(ids, in.d.id)
		in.d.done()
	}
	return ids, nil
}
