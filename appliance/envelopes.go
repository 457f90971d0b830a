package appliance

import (
	"encoding/json"
	"errors"

	"dimegate/bridge"
	"dimegate/bridge/journal"
	"dimegate/bridge/queue"
	"dimegate/vault"
	"dimegate/vault/discovery"
)

// StoredEnvelopes reads the envelope of an archived record as whoever accepted the message wrote it: what a discovery station shows
// of it. Each direction has its own form, so that a record whose direction was changed in a case file is told.
func StoredEnvelopes(direction vault.Kind, stored []byte) ([]discovery.Envelope, error) {
	switch direction {
	case vault.Internal:
		return journaled(stored)
	case vault.Inbound:
		var a struct {
			bridge.Arrival
			Recipients []string `json:"recipients"` // of plain mail: see Passage
		}
		if err := json.Unmarshal(stored, &a); err != nil || a.Recipient == "" && len(a.Recipients) == 0 {
			return nil, errors.New("appliance: not the envelope of an arrival")
		}
		source := "dmtp"
		if a.Recipients == nil {
			a.Recipients = []string{a.Recipient}
		} else {
			source = "smtp"
		}
		return []discovery.Envelope{{From: a.ReturnPath, Recipients: a.Recipients, Received: a.At, Source: source}}, nil
	case vault.Outbound:
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
	return nil, errors.New("appliance: the envelope of a record without a direction")
}

// journaled is the envelope that a journal report tells of; that of the report itself, where it could not be read.
func journaled(stored []byte) ([]discovery.Envelope, error) {
	s, err := journal.ParseStored(stored)
	if err != nil {
		return nil, err
	}
	d := discovery.Envelope{From: s.Sender, Received: s.Received, Source: "journal"}
	if s.Messages == 0 {
		d.From, d.Recipients = s.From, []string{s.To}
	}
	for _, r := range s.Recipients {
		d.Recipients = append(d.Recipients, r.Address)
	}
	return []discovery.Envelope{d}, nil
}
