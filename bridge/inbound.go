package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"dimegate/bridge/handoff"
	"dimegate/bridge/scanner"
	"dimegate/bridge/smtpwire"
	"dimegate/bridge/translate"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
)

// An Opener opens a proved message as its recipient: the users' agent. It verifies all that a recipient must before it
// gives the content away. Errors are dmtpserver's; others count as temporary.
type Opener interface {
	Open(ctx context.Context, in *dmtpserver.Incoming) (*Letter, error)
}

// A Letter is an opened message, or one that only its recipient can open.
type Letter struct {
	Author    string // proved
	Content   *message.Content
	Suite     message.SuiteID // of the alternate layer that the content lay under; 0: none
	Unlayered bool            // it lay under none, and the recipient's signet asks for one

	Sealed bool           // the recipient has the keys himself: nothing was opened, and nothing of the above is known
	Own    *signet.Signet // then: the recipient's
}

// An InnerServer is the recipient's own mail server (bridge/handoff).
type InnerServer interface {
	Confirm(ctx context.Context, rcpt string) (handoff.Answer, error)
	Deliver(ctx context.Context, d handoff.Delivery) error
}

// Inner finds the inner server of one of our domains.
type Inner interface {
	Server(domain string) (InnerServer, error)
}

// Intents keeps inbound messages until they are handed over, and what became of them.
type Intents interface {
	// Begin seals a message and notes that it is in hand, in one durable commit. dmtpserver.ErrDuplicate, ErrInFlight and
	// the refusals say that it is or was already; then nothing is kept.
	Begin(ctx context.Context, a Arrival, body io.WriterTo) (Flight, error)
	// Message and Accepted are dmtpserver.Outcomes.
	dmtpserver.Outcomes
}

// An Arrival is what is known of an inbound message beside its octets.
type Arrival struct {
	Origin     string    `json:"origin"`
	ID         [64]byte  `json:"-"` // of the D/MIME message
	Commit     [64]byte  `json:"-"` // of the octets that came
	Author     string    `json:"author"`
	Recipient  string    `json:"recipient"`
	ReturnPath string    `json:"return_path"` // "": the null one
	At         time.Time `json:"at"`

	Object  []byte       `json:"-"` // as it came; with Signets what an archive keeps beside the message
	Signets []SeenSignet `json:"-"`
}

// ErrLanded is returned for a flight that somebody else has ended.
var ErrLanded = errors.New("bridge: the flight has ended already")

// A Flight is a message between its intent and its outcome. One of End and Defer is called until it does not fail, or fails
// with ErrLanded.
type Flight interface {
	ID() string
	Doubtful() bool // an earlier try died between hand-off and outcome: this one may be a second copy
	// End notes the outcome: nil for accepted, or the refusal that every later copy gets.
	End(ctx context.Context, refusal *Refusal) error
	// Defer ends it without an outcome: a later try starts afresh. Lost says that nobody knows whether it was handed over.
	Defer(ctx context.Context, lost bool, why string) error
}

// A Refusal is the inner server's last word.
type Refusal struct {
	Code      int
	Enhanced  string
	Recipient bool // it is about the recipient: there is no such mailbox
}

// InboundOptions is what Inbound is made of.
type InboundOptions struct {
	Opener   Opener
	Inner    Inner
	Intents  Intents
	Scanner  *scanner.Scanner // sees every message before it is handed over; nil: nobody does
	Firewall handoff.Firewall
	Loops    *handoff.LoopGuard
	Hostname string        // ours, in trace fields
	Patience time.Duration // for the inner server's answer after the session has given up; 30m
	Now      func() time.Time
	Log      *slog.Logger
}

// Inbound takes a proved DMTP message and hands it to the inner server before it answers: the gateway never owns inbound
// mail (dmtp.md §9.4 checks 8 to 13, §9.5). It is a dmtpserver.Deliverer, safe for concurrent use.
type Inbound struct {
	InboundOptions
	late     sync.WaitGroup // hand-offs whose session has given up
	stop     sync.Once
	stopping chan struct{}
}

// NewInbound starts nothing.
func NewInbound(o InboundOptions) *Inbound {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Patience == 0 {
		o.Patience = 30 * time.Minute
	}
	return &Inbound{InboundOptions: o, stopping: make(chan struct{})}
}

// Wait waits for the hand-offs that go on after their session: call it when no session is left. What cannot be noted now is
// given up then: after the next start it is a flight that died.
func (b *Inbound) Wait() {
	b.stop.Do(func() { close(b.stopping) })
	b.late.Wait()
}

// Deliver is checks 8 to 13. When ctx ends during the hand-off it answers ErrInFlight and waits on by itself, so that the
// origin's next try finds the outcome.
func (b *Inbound) Deliver(ctx context.Context, in *dmtpserver.Incoming) error {
	server, err := b.Inner.Server(in.Destination)
	if err != nil {
		return err
	}
	if err := confirm(ctx, server, in.Recipient); err != nil {
		return err
	}
	letter, err := b.Opener.Open(ctx, in)
	if err != nil {
		return err
	}
	mail, err := b.mail(in, letter)
	if err != nil {
		return errors.Join(dmtpserver.ErrMessage, err)
	}
	defer giveBack(mail.Len())
	head, body := mail.Parts()
	if err := b.Loops.Check(head, in.Recipient); err != nil {
		return errors.Join(dmtpserver.ErrRefused, err)
	}
	clean, removed, err := b.Firewall.Filter(head)
	if err != nil {
		return errors.Join(dmtpserver.ErrMessage, err)
	}
	a := Arrival{Origin: in.Origin, ID: in.ID, Commit: in.Commit, Author: letter.Author, Recipient: in.Recipient,
		ReturnPath: returnPath(mail, letter.Author, in.Origin), At: b.Now()}
	if in.Message != nil {
		a.Object = in.Message.Bytes()
	}
	a.Signets = append(Seen("origin", in.Origin, in.OriginSignet), Seen("destination", in.Destination, in.DestinationSignet)...)
	whole := smtpwire.OnTop(clean.Bytes(), body) // what is scanned is what is handed over
	if err := b.scan(ctx, in, a, whole); err != nil {
		return err
	}
	flight, err := b.Intents.Begin(ctx, a, mail)
	if err != nil {
		return err
	}
	if flight.Doubtful() {
		b.Log.LogAttrs(ctx, slog.LevelWarn, "possible duplicate: an earlier hand-off ended without an outcome", slog.String("id", flight.ID()))
	}
	if letter.Unlayered {
		b.Log.LogAttrs(ctx, slog.LevelWarn, "without the alternate layer that the recipient's signet asks for", slog.String("id", flight.ID()), slog.String("origin", in.Origin))
	}
	if len(removed) > 0 { // in one line, and without the peer's names for them: there may be very many
		signed := slices.ContainsFunc(removed, func(c translate.Change) bool { return c.Signed })
		b.Log.LogAttrs(ctx, slog.LevelInfo, "fields removed at hand-off", slog.String("id", flight.ID()), slog.Int("fields", len(removed)), slog.Bool("signed", signed))
	}
	return b.handOff(ctx, server, flight, b.delivery(in, a, flight.ID(), mark(in.Origin, letter), clean, whole))
}

// mail is what is handed over: the message as its author wrote it, or one that brings it sealed.
func (b *Inbound) mail(in *dmtpserver.Incoming, l *Letter) (*translate.Exported, error) {
	if !l.Sealed {
		return translate.Export(l.Content, in.ID)
	}
	return translate.Carrier{Message: in.Message.Bytes(), ID: in.ID, Recipient: in.Recipient, RecipientSignet: l.Own,
		Origin: in.Origin, OriginSignet: in.OriginSignet, Destination: in.Destination, Now: b.Now()}.Export(), nil
}

// scan has the content scanners judge what would be handed over. There is nowhere to hold it.
func (b *Inbound) scan(ctx context.Context, in *dmtpserver.Incoming, a Arrival, m smtpwire.Message) error {
	if b.Scanner == nil {
		return nil
	}
	e := scanner.Envelope{ID: fmt.Sprintf("%x", in.ID[:10]), Client: netip.AddrPortFrom(in.Peer, 0), Hello: a.Origin, From: a.ReturnPath, To: []string{a.Recipient}}
	err := b.Scanner.Scan(ctx, e, m.Reader())
	switch {
	case err == nil:
		return nil
	case errors.Is(err, scanner.ErrRejected), errors.Is(err, scanner.ErrQuarantined), errors.Is(err, scanner.ErrTooLarge):
		return errors.Join(dmtpserver.ErrRefused, err)
	}
	return errors.Join(dmtpserver.ErrDeferred, err)
}

// mark is the value of MarkField.
func mark(origin string, l *Letter) string {
	switch {
	case l.Sealed:
		return "sealed; origin=" + origin
	case l.Unlayered:
		return "yes; author=" + l.Author + "; origin=" + origin + "; layer=missing"
	}
	return "yes; author=" + l.Author + "; origin=" + origin
}

// delivery is what the inner server gets: the message behind our trace.
func (b *Inbound) delivery(in *dmtpserver.Incoming, a Arrival, id, mark string, head translate.Message, m smtpwire.Message) handoff.Delivery {
	top := fmt.Appendf(nil, "%s: %s\r\n", MarkField, mark)
	top = append(top, b.Loops.Mark(head, a.Recipient)...)
	top = smtpwire.Received{Hello: a.Origin, Addr: in.Peer, By: b.Hostname, With: "DMTP", ID: id, Time: a.At}.Append(top)
	who := smtpwire.Caller{Addr: netip.AddrPortFrom(in.Peer, 0), Hello: a.Origin}
	return handoff.Delivery{From: a.ReturnPath, To: a.Recipient, Top: top, Message: m, Caller: who}
}

// MarkField is the field by which the inner server and its users can tell mail that came sealed and verified, and a warning in it
// mail without the alternate layer that its recipient asks for; "sealed" is mail that its recipient alone can open. Fields of that name from outside never get there.
const MarkField = "X-DIME"

// confirm is check 8: the inner server knows the recipient. A server that would take anyone is believed at the hand-off.
func confirm(ctx context.Context, s InnerServer, rcpt string) error {
	answer, err := s.Confirm(ctx, rcpt)
	if err != nil {
		return fmt.Errorf("%w: %w", dmtpserver.ErrDeferred, err)
	}
	if !answer.Known {
		return dmtpserver.ErrRecipient
	}
	return nil
}

// returnPath is what the author's side gave as DIME-Return, if it may: nothing, or an address of the origin's own domain.
// Without one it is the author.
func returnPath(mail *translate.Exported, author, origin string) string {
	if !mail.HasReturn {
		return author
	}
	if mail.Return == translate.NullPath {
		return ""
	}
	if _, domain, ok := strings.Cut(mail.Return, "@"); ok && strings.EqualFold(domain, origin) {
		return mail.Return
	}
	return author
}

// handOff gives the mail to the inner server and ends the flight with what it says.
func (b *Inbound) handOff(ctx context.Context, s InnerServer, f Flight, d handoff.Delivery) error {
	done := make(chan error, 1)
	b.late.Go(func() {
		// The hand-off outlives the session: its end must be known.
		done <- b.hand(context.WithoutCancel(ctx), s, f, d)
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errors.Join(dmtpserver.ErrInFlight, ctx.Err())
	}
}

// errPanic is a hand-off of which nobody knows how far it came.
var errPanic = errors.New("bridge: hand-off panicked")

// hand hands over and notes what came of it.
func (b *Inbound) hand(ctx context.Context, s InnerServer, f Flight, d handoff.Delivery) error {
	err := b.give(ctx, s, f, d)
	refused, isReply := errors.AsType[*smtpwire.Error](err)
	switch {
	case err == nil:
		b.Log.LogAttrs(ctx, slog.LevelInfo, "handed over", slog.String("id", f.ID()), slog.Int64("octets", d.Message.Len()))
		return b.settle(ctx, f, func() error { return f.End(ctx, nil) })
	case errors.Is(err, smtpwire.ErrUncertain), errors.Is(err, errPanic):
		// Nobody knows whether the inner server has it, and the origin will try again: the window that SMTP leaves open.
		b.Log.LogAttrs(ctx, slog.LevelWarn, "possible duplicate: the inner server's verdict was lost", slog.String("id", f.ID()))
		return errors.Join(dmtpserver.ErrDeferred, err, b.settle(ctx, f, func() error { return f.Defer(ctx, true, "the inner server's verdict was lost") }))
	case isReply && !refused.Temporary():
		r := &Refusal{Code: refused.Code, Enhanced: enhanced(refused.Enhanced), Recipient: refused.UnknownRecipient()}
		if err := b.settle(ctx, f, func() error { return f.End(ctx, r) }); err != nil {
			return err
		}
		return r.Error()
	}
	return errors.Join(dmtpserver.ErrDeferred, err, b.settle(ctx, f, func() error { return f.Defer(ctx, false, "the inner server did not take it now") }))
}

// give is the hand-off itself, within Patience.
func (b *Inbound) give(ctx context.Context, s InnerServer, f Flight, d handoff.Delivery) (err error) {
	defer func() {
		if r := recover(); r != nil { // on a goroutine of ours: it must not take the gateway with it
			b.Log.LogAttrs(ctx, slog.LevelError, "hand-off panicked", slog.String("id", f.ID()), slog.String("stack", string(debug.Stack())))
			err = errPanic
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, b.Patience)
	defer cancel()
	return s.Deliver(ctx, d)
}

// settleMost is the longest wait between two tries to note an outcome.
const settleMost = 30 * time.Second

// settle notes what came of a flight. A storage in trouble, such as a full disk, is tried until it is not or the gateway
// stops: a flight that nobody ended would be answered as in flight until the origin gives up mail that was delivered.
func (b *Inbound) settle(ctx context.Context, f Flight, note func() error) error {
	for wait := time.Second; ; wait = min(2*wait, settleMost) {
		err := note()
		if err == nil || errors.Is(err, ErrLanded) {
			return err
		}
		b.Log.LogAttrs(ctx, slog.LevelError, "an inbound outcome could not be noted", slog.String("id", f.ID()), slog.Any("error", err))
		select {
		case <-b.stopping:
			return err
		case <-time.After(wait):
		}
	}
}

// Error is dmtpserver's word for a refusal.
func (r *Refusal) Error() error {
	if r.Recipient {
		return dmtpserver.ErrRecipient
	}
	return dmtpserver.ErrRefused
}

func enhanced(e [3]int) string {
	if e == [3]int{} {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2])
}
