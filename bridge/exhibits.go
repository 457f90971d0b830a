package bridge

import (
	"encoding/json"

	"dimegate/bridge/queue"
	"dimegate/dmtp/signet"
)

// A SeenSignet is the signet of one party of a message, as it was seen when the message was made or opened.
type SeenSignet struct {
	Role   string `json:"role"` // author, recipient, origin or destination
	Name   string `json:"name"`
	Signet []byte `json:"signet"`
}

// SignetsExhibit is what an archive keeps of signets as seen.
func SignetsExhibit(list []SeenSignet) []byte {
	b, err := json.Marshal(list)
	if err != nil {
		panic(err) // of strings and octets
	}
	return b
}

// Seen is a party's signet; nothing where it is not known.
func Seen(role, name string, s *signet.Signet) []SeenSignet {
	if s == nil {
		return nil
	}
	return []SeenSignet{{role, name, s.Bytes()}}
}

// maxEvidence bounds what is kept of what a decision rests on.
const maxEvidence = 256 << 10

// exhibits is what an archive is to have of a delivery: the object, why it goes so, the signets and the DNS as seen.
func exhibits(octets []byte, author string, own *signet.Signet, r Route, d Decision) []queue.Exhibit {
	decision, err := json.Marshal(struct {
		Leg       string `json:"leg"`
		Rule      string `json:"rule"`
		Situation string `json:"situation"`
		Remote    string `json:"remote_policy"`
		Floor     string `json:"floor"`
	}{d.Action.String(), d.Rule, r.Situation.String(), r.Remote.String(), r.Terms.Floor.String()})
	if err != nil {
		panic(err) // of strings
	}
	var seen []SeenSignet
	seen = append(seen, Seen("author", author, own)...)
	seen = append(seen, Seen("recipient", r.Recipient.Name, r.Recipient.Signet)...)
	seen = append(seen, Seen("destination", r.Destination.Name, r.Destination.Signet)...)
	list := []queue.Exhibit{{Kind: queue.ExhibitObject, Octets: octets}, {Kind: queue.ExhibitDecision, Octets: decision}, {Kind: queue.ExhibitSignets, Octets: SignetsExhibit(seen)}}
	if r.Evidence == nil {
		return list
	}
	if b := r.Evidence(); len(b) > 0 && len(b) <= maxEvidence {
		list = append(list, queue.Exhibit{Kind: queue.ExhibitDNS, Octets: b})
	}
	return list
}
