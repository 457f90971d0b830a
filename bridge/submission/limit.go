package submission

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"dimegate/bridge/smtpwire"
	"dimegate/internal/redact"
)

// errLimit means that a sender has done what he may do in an hour.
var errLimit = errors.New("submission: the sender is over his limit")

// A sender is whom limits are for; zero: nobody.
type sender struct{ user, path string }

// senderOf is who authenticated, for whatever reverse-paths he uses, else the reverse-path.
func senderOf(env Envelope) sender {
	if env.User != "" {
		return sender{user: env.User}
	}
	return sender{path: strings.ToLower(env.From)}
}

// meters are those that hold for a sender, with what a message of so many recipients adds to each.
func (s *Server) meters(from sender, recipients int) []metered {
	var list []metered
	if from == (sender{}) {
		return nil
	}
	if s.MessagesHourly > 0 {
		list = append(list, metered{&s.messages, from, 1})
	}
	if s.RecipientsHourly > 0 {
		list = append(list, metered{&s.recipients, from, recipients})
	}
	return list
}

type metered struct {
	*smtpwire.Meter[sender]
	from sender
	n    int
}

// mayAdd tells whether a message could have so many recipients now; nothing is counted yet.
func (s *session) mayAdd(env Envelope, recipients int) error {
	now := s.server.now()
	for _, m := range s.server.meters(senderOf(env), recipients) {
		if m.Over(m.from, m.n, now) {
			return s.limited(m, now)
		}
	}
	return nil
}

// spend counts a message. What was counted is given back when the message is not accepted.
func (s *session) spend(env Envelope) (giveBack func(), err error) {
	now := s.server.now()
	var taken []metered
	giveBack = func() {
		for _, m := range taken {
			m.Add(m.from, -m.n, s.server.now())
		}
	}
	for _, m := range s.server.meters(senderOf(env), len(env.To)) {
		if !m.Take(m.from, m.n, now) {
			giveBack()
			return func() {}, s.limited(m, now)
		}
		taken = append(taken, m)
	}
	return giveBack, nil
}

// limited warns, once an hour for a sender: his account may be in other hands.
func (s *session) limited(m metered, now time.Time) error {
	if m.Tell(m.from, now) {
		who := slog.String("sender", redact.Addr(m.from.path))
		if m.from.user != "" {
			who = slog.String("user", m.from.user)
			if strings.Contains(m.from.user, "@") {
				who = slog.String("user", redact.Addr(m.from.user))
			}
		}
		s.server.log.LogAttrs(s.ctx, slog.LevelWarn, "a sender is over his hourly limit and must wait: is the account in other hands?", who,
			slog.String("peer", smtpwire.AddrText(s.peer().Addr())), slog.Int("limit", m.Hourly))
	}
	return errLimit
}
