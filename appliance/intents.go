package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"dimegate/bridge"
	"dimegate/bridge/queue"
	"dimegate/dmtp/dmtpserver"
	"dimegate/internal/killpoint"
	"dimegate/vault"
)

// intents keeps inbound messages and their outcomes: the vault in the bridge's words.
type intents struct {
	vault   *vault.Vault
	archive *archivist
	seen    func(ctx context.Context, domain string) []byte // what is known of a domain, and why, in JSON
	now     func() time.Time
}

func (i intents) Begin(ctx context.Context, a bridge.Arrival, body io.WriterTo) (bridge.Flight, error) {
	envelope, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	d, err := i.vault.NewDraft()
	if err != nil {
		return nil, noRoom(err)
	}
	defer d.Discard()
	keep, err := i.archive.keep(ctx, vault.Inbound, crossing{from: []string{a.Author, a.ReturnPath}, to: []string{a.Recipient}})
	if err != nil {
		return nil, err
	}
	d.Keep(keep)
	if keep != nil {
		i.exhibit(ctx, d, a)
	}
	if _, err := body.WriteTo(d); err != nil {
		return nil, noRoom(err)
	}
	id := vault.InboundID{Origin: a.Origin, Message: a.ID, Octets: a.Commit}
	killpoint.Here(killpoint.IntentBefore, d.ID())
	status, err := i.vault.BeginInbound(ctx, d, id, envelope, i.now())
	if err != nil {
		return nil, noRoom(err)
	}
	if err := outcomeError(status); err != nil {
		return nil, err
	}
	killpoint.Here(killpoint.IntentAfter, d.ID())
	return &flight{intents: i, inbound: id, record: d.ID(), doubtful: status.Doubtful}, nil
}

// exhibit adds what belongs to a message that is kept.
func (i intents) exhibit(ctx context.Context, d *vault.Draft, a bridge.Arrival) {
	about := d.ID()
	for _, x := range []queue.Exhibit{{Kind: queue.ExhibitObject, Octets: a.Object}, {Kind: queue.ExhibitSignets, Octets: bridge.SignetsExhibit(a.Signets)},
		{Kind: queue.ExhibitDNS, Octets: i.seen(ctx, a.Origin)}} {
		if len(x.Octets) > 0 {
			d.Exhibit(vault.Exhibit{Kind: uint8(x.Kind), Octets: x.Octets, About: about[:]})
		}
	}
}

func noRoom(err error) error {
	if errors.Is(err, vault.ErrFull) {
		return errors.Join(dmtpserver.ErrNoRoom, err)
	}
	return err
}

// Message is what became of a message before.
func (i intents) Message(ctx context.Context, _, origin string, id [64]byte) (dmtpserver.Outcome, error) {
	s, err := i.vault.Inbound(ctx, vault.InboundID{Origin: origin, Message: id})
	if err != nil {
		return dmtpserver.Outcome{}, err
	}
	switch s.State {
	case vault.InboundFlight:
		return dmtpserver.Outcome{State: dmtpserver.InFlight}, nil
	case vault.InboundAccepted:
		return dmtpserver.Outcome{State: dmtpserver.Accepted}, nil
	case vault.InboundRefused:
		return dmtpserver.Outcome{State: dmtpserver.Refused, Refusal: outcomeError(s)}, nil
	}
	return dmtpserver.Outcome{}, nil
}

// Accepted tells whether equal octets were accepted before.
func (i intents) Accepted(ctx context.Context, _, origin string, commit [64]byte) (bool, error) {
	return i.vault.InboundAcceptedOctets(ctx, origin, commit)
}

// outcomeError is dmtpserver's word for a state that is not new.
func outcomeError(s vault.InboundStatus) error {
	switch s.State {
	case vault.InboundNew:
		return nil
	case vault.InboundFlight:
		return dmtpserver.ErrInFlight
	case vault.InboundAccepted:
		return dmtpserver.ErrDuplicate
	}
	r := bridge.Refusal{Code: s.Code, Enhanced: s.Status, Recipient: s.Code == recipientCode}
	return r.Error()
}

// recipientCode is what is kept of a refusal that is about the recipient, whatever the inner server's own code was.
const recipientCode = 510

// flight is one message in hand.
type flight struct {
	intents
	inbound  vault.InboundID
	record   vault.ID
	doubtful bool
}

func (f *flight) ID() string     { return f.record.String() }
func (f *flight) Doubtful() bool { return f.doubtful }

func (f *flight) End(ctx context.Context, r *bridge.Refusal) error {
	code, status, payload := 0, "", "accepted"
	if r != nil {
		code, status = r.Code, r.Enhanced
		if r.Recipient {
			code = recipientCode
		}
		payload = fmt.Sprintf("refused %d %s", r.Code, r.Enhanced)
	}
	killpoint.Here(killpoint.VerdictAfter, f.record)
	err := f.vault.EndInbound(ctx, f.inbound, code, status, []byte(payload), f.now())
	if err == nil {
		killpoint.Here(killpoint.SettledAfter, f.record)
	}
	return landed(err)
}

func (f *flight) Defer(ctx context.Context, lost bool, why string) error {
	return landed(f.vault.DeferInbound(ctx, f.inbound, lost, []byte(why), f.now()))
}

// landed says that a flight cannot be ended any more, whoever did.
func landed(err error) error {
	if errors.Is(err, vault.ErrChanged) || errors.Is(err, vault.ErrNotFound) {
		return errors.Join(bridge.ErrLanded, err)
	}
	return err
}
