package appliance

import (
	"bytes"
	"encoding/json"
	"errors"

	"dimegate/bridge"
	"dimegate/bridge/queue"
	"dimegate/vault"
	"dimegate/vault/discovery"
)

// StoredEnvelopes reads the envelope of an archived record as whoever accepted the message wrote it: what a discovery station shows
// of it.
func StoredEnvelopes(direction vault.Kind, stored []byte) ([]discovery.Envelope, error) {
	switch {
	case bytes.HasPrefix(stored, []byte("{")):
		var a bridge.Arrival
		if err := json.Unmarshal(stored, &a); err != nil {
			return nil, errors.New("appliance: not the envelope of an arrival")
		}
		return []discovery.Envelope{{From: a.ReturnPath, Recipients: []string{a.Recipient}, Received: a.At, Source: "dmtp"}}, nil
	default:
		e, err := queue.ParseEnvelope(stored)
		if err != nil {
			return nil, err
		}
		d := discovery.Envelope{From: e.ReversePath, Received: e.Received, Source: "smtp"}
		for _, r := range e.Recipients {
			d.Recipients = append(d.Recipients, r.Address)
		}
		return []discovery.Envelope{d}, nil
	}
}
