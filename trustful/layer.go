package trustful

import (
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// A Layer is what the administrator says of the alternate layer (dmime.md §17). The zero value makes no keys of it and writes
// nothing under it; what others wrote under it is read all the same.
type Layer struct {
	Offer  []message.SuiteID                 // a key of each is made with a user's other keys, and advertised
	Always bool                              // users' signets ask that mail to them always lie under the layer
	For    func(domain string) message.Layer // of mail to, and from, another domain; nil: off
}

// with is what holds for mail to, or from, another domain.
func (l Layer) with(domain string) message.Layer {
	if l.For == nil {
		return message.Layer{}
	}
	return l.For(domain)
}

// Suite is the suite under which mail to a user of another domain would be written; 0: none. Errors: message.AltPolicy.
func (l Layer) Suite(domain string, recipient *signet.Signet) (message.SuiteID, error) {
	return l.with(lower(domain)).Suite(recipient)
}

// generate makes a user's keys.
func (l Layer) generate() ([]message.LayerKey, error) {
	keys := make([]message.LayerKey, 0, len(l.Offer))
	for _, id := range l.Offer {
		k, err := message.GenerateLayerKey(id)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Advertised is what our organisational signets say that we can read: messages in any number of pieces (dmime.md §11). The
// reference ignores it.
func Advertised() []signet.Field { return advertised(signet.Org, false) }

// advertised is what a signet of a kind says in its Extensions.
func advertised(k signet.Kind, layer bool) []signet.Field {
	id, ok := signet.FieldByTitle(k, "Extensions")
	if !ok {
		return nil
	}
	text := "dmime-multi"
	if layer {
		text += ";dmime-alt"
	}
	return []signet.Field{{ID: id, Value: []byte(text)}}
}
