package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"
)

// A Stored is the envelope of an archived message that a journal report told of. A record holds one message; what is left of its
// report is here, so that the report can be made again: Frame[0], message 0, Frame[1], …
type Stored struct {
	Format     string      `json:"format"` // StoredFormat
	Report     string      `json:"report"` // the same in all records of one report
	Message    int         `json:"message"`
	Messages   int         `json:"messages"` // 0: the record holds the report itself, which could not be read
	Received   time.Time   `json:"received"` // the report
	From       string      `json:"from"`     // its reverse-path
	To         string      `json:"to"`       // the journal's address
	Peer       string      `json:"peer"`
	Sender     string      `json:"sender"` // of the message, like what follows
	OnBehalfOf string      `json:"on_behalf_of,omitempty"`
	MessageID  string      `json:"message_id,omitempty"`
	Mailbox    string      `json:"mailbox,omitempty"`
	Label      string      `json:"label,omitempty"`
	Recipients []Recipient `json:"recipients,omitempty"`
	Frame      [][]byte    `json:"frame,omitempty"`
}

// StoredFormat names the form.
const StoredFormat = "dimegate-journal-v1"

// Of takes what a report says.
func (s Stored) Of(r *Report, message int) Stored {
	s.Message, s.Messages = message, len(r.Messages)
	s.Sender, s.OnBehalfOf, s.MessageID, s.Mailbox, s.Label, s.Recipients, s.Frame = r.Sender, r.OnBehalfOf, r.MessageID, r.Mailbox, r.Label, r.Recipients, r.Frame
	return s
}

// Octets is what is stored.
func (s Stored) Octets() ([]byte, error) {
	s.Format = StoredFormat
	return json.Marshal(s)
}

// ParseStored reads what Octets wrote.
func ParseStored(b []byte) (*Stored, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	s := new(Stored)
	if d.Decode(s) != nil || s.Format != StoredFormat {
		return nil, errors.New("journal: not the envelope of a journal report")
	}
	return s, nil
}
