package appliance

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"slices"
	"strings"
	"time"

	"dimegate/appliance/config"
	"dimegate/bridge/mx"
	"dimegate/bridge/queue"
	"dimegate/bridge/smtpwire"
	"dimegate/bridge/translate"
	"dimegate/dmtp/resolver"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

// An archivist says what of the mail that crosses is kept, in which class, and whose it is. nil: nothing is kept.
type archivist struct {
	archive  *archive.Archive
	config   *config.Config
	fallback string // the custodian of what names none of our users: nothing is left out for want of a name
}

// keepFunc is what vault.Draft.Keep takes.
type keepFunc = func(vault.KeepRequest) (*vault.Keeping, error)

// makeArchive opens the archive where mail, or keys, are to go into it.
func (t *tenant) makeArchive() error {
	if !t.config.Archive.Keep {
		return nil
	}
	a, err := archive.Open(context.Background(), t.vault.Vault)
	if err != nil {
		return err
	}
	t.archive = &archivist{a, t.config, "postmaster@" + t.domains()[0]}
	if err := t.archive.fault(); err != nil {
		t.Log.Error("archive.keep is on and no escrow key is in force: mail that must be kept waits outside until there is one", "error", err)
	}
	return nil
}

// escrowKeys is what escrows users' encryption keys, as they are made and those that were made before; nil: they are not escrowed.
func (t *tenant) escrowKeys(ctx context.Context) (vault.KeyEscrowFunc, error) {
	if !t.config.Archive.Continuity {
		return nil, nil
	}
	a, err := archive.Open(ctx, t.vault.Vault)
	if err != nil {
		return nil, err
	}
	return a.KeepKeys(t.config.Archive.LongestRetention()), nil
}

// fault tells why nothing can be kept now; nil: it can, or need not.
func (a *archivist) fault() error {
	if a == nil {
		return nil
	}
	_, err := a.archive.Sealer(context.Background(), escrow.Discovery)
	return err
}

// A crossing is a message on its way: who wrote it, as far as is known, the likeliest first, and all of its recipients.
type crossing struct{ from, to []string }

var directions = map[vault.Kind]string{vault.Outbound: "out", vault.Inbound: "in", vault.Internal: "internal"}

// keep is what makes a message's record an archived one; nil when it is not to be kept. archive.ErrNoKey: it must wait.
func (a *archivist) keep(ctx context.Context, way vault.Kind, m crossing) (keepFunc, error) {
	if a == nil {
		return nil, nil
	}
	from := a.both(m.from)
	to := a.both(m.to)
	class, kept := a.config.Archive.ClassOf(directions[way], from, to)
	if !kept {
		return nil, nil
	}
	msg := archive.Message{Recipients: to, Class: uint16(class.Number), Retention: class.Retention}
	if len(from) > 0 {
		msg.Author, msg.From = from[0], from[1:]
	}
	whose := to
	if way != vault.Inbound { // what a stranger writes as its author makes nobody of ours its custodian
		whose = slices.Concat(from, to)
	}
	for _, x := range whose {
		if _, ours := a.config.Organization(domainOf(x)); ours {
			msg.Custodians = append(msg.Custodians, a.mailbox(x))
		}
	}
	if len(msg.Custodians) == 0 {
		msg.Custodians = []string{a.fallback}
	}
	return a.archive.Keeping(ctx, msg)
}

// both are addresses in lower case with, of sub-addresses of ours, their mailboxes, each once.
func (a *archivist) both(addresses []string) []string {
	var list []string
	for _, x := range addresses {
		x = strings.ToLower(x)
		for _, y := range []string{x, a.mailbox(x)} {
			if strings.Contains(y, "@") && !slices.Contains(list, y) {
				list = append(list, y)
			}
		}
	}
	return list
}

// mailbox is an address of ours without the detail of a sub-address.
func (a *archivist) mailbox(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	if separator := a.config.SeparatorOf(domain); separator != "" {
		if user, _, found := strings.Cut(local, separator); found && user != "" {
			return user + "@" + domain
		}
	}
	return address
}

// outbound is what the spool asks about mail of ours; nil: nothing is kept.
func (a *archivist) outbound() func(context.Context, queue.Envelope, []byte) (keepFunc, error) {
	if a == nil {
		return nil
	}
	return func(ctx context.Context, env queue.Envelope, header []byte) (keepFunc, error) {
		m := crossing{from: append([]string{env.ReversePath}, fromOf(header)...)}
		for _, r := range env.Recipients {
			m.to = append(m.to, r.Address)
		}
		return a.keep(ctx, vault.Outbound, m)
	}
}

// maxFrom bounds the addresses of a From field that count.
const maxFrom = 16

// fromOf are the addresses that a header says its message is from, as far as they can be read: of an absence notice, whose reverse-path is
// the null one, nothing else tells the author.
func fromOf(header []byte) []string {
	var list []string
	for f := range translate.Fields(header) {
		if !f.Is("From") {
			continue
		}
		addresses, err := mail.ParseAddressList(f.Value())
		if err != nil {
			continue
		}
		for _, x := range addresses[:min(len(addresses), maxFrom)] {
			list = append(list, x.Address)
		}
	}
	return list[:min(len(list), maxFrom)]
}

// evidenceOf is what the decision about another organisation rests on, in JSON; nil when it is not known.
func evidenceOf(d *resolver.Domain) []byte {
	if d.Evidence == nil {
		return nil
	}
	b, err := json.Marshal(d.Evidence)
	if err != nil {
		return nil
	}
	return b
}

// seen is what is known of the domain of a message that came in.
func (t *tenant) seen(ctx context.Context, domain string) []byte {
	d, err := t.resolver.Org(ctx, domain)
	if err != nil {
		return nil
	}
	return evidenceOf(d)
}

// passages keep plain mail that passes from the outside to an inner server: mx.Keeper.
type passages struct{ intents }

// A Passage is the stored envelope of plain mail that came in.
type Passage struct {
	Hello      string    `json:"hello"`
	Peer       string    `json:"peer"`
	ReturnPath string    `json:"return_path"` // "": the null one
	Recipients []string  `json:"recipients"`
	At         time.Time `json:"at"`
}

func (p passages) Keep(ctx context.Context, a mx.Arrival, octets io.Reader) (mx.Kept, error) {
	head, err := translate.ReadHead(octets, maxPassageHead)
	if err != nil {
		return nil, err
	}
	keep, err := p.archive.keep(ctx, vault.Inbound, crossing{from: append([]string{a.From}, fromOf(head.Header)...), to: a.To})
	if err != nil || keep == nil {
		return nil, passageError(err)
	}
	envelope, err := json.Marshal(Passage{a.Hello, smtpwire.AddrText(a.Peer), a.From, a.To, a.At})
	if err != nil {
		return nil, err
	}
	d, err := p.vault.NewDraft()
	if err != nil {
		return nil, passageError(err)
	}
	defer d.Discard()
	d.Keep(keep)
	if _, err := io.Copy(d, io.MultiReader(head.Reader(), octets)); err != nil {
		return nil, passageError(err)
	}
	k := passage{intents: p.intents, id: vault.InboundID{Origin: passageOrigin}}
	rand.Read(k.id.Message[:])
	_, err = p.vault.BeginInbound(ctx, d, k.id, envelope, p.now())
	return k, passageError(err)
}

// passageOrigin stands for the origin of plain mail; it is no domain.
const passageOrigin = "(smtp)"

// maxPassageHead is more than the header block that gets so far.
const maxPassageHead = 4 << 20

// passageError is mx's word for an error; nil for nil.
func passageError(err error) error {
	switch {
	case errors.Is(err, vault.ErrFull):
		return errors.Join(mx.ErrFull, err)
	case errors.Is(err, archive.ErrNoKey):
		return errors.Join(mx.ErrArchive, err)
	}
	return err
}

// A passage is one message in hand.
type passage struct {
	intents
	id vault.InboundID
}

func (p passage) End(ctx context.Context, err error, lost bool) error {
	leaf, payload := vault.LeafAccepted, "accepted"
	refused, isReply := errors.AsType[*smtpwire.Error](err)
	switch {
	case err == nil:
	case isReply && !refused.Temporary():
		leaf, payload = vault.LeafRefused, fmt.Sprintf("refused %d %v", refused.Code, refused.Enhanced)
	default:
		leaf, payload = vault.LeafDeferred, "the inner server did not take it now"
	}
	return p.vault.EndPassage(ctx, p.id, leaf, err == nil || lost, []byte(payload), p.now())
}
