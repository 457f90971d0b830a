package handoff

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"dimegate/bridge/smtpwire"
)

// How long the inner server's answers hold, and how many are kept.
const (
	knownFor   = 30 * time.Minute
	unknownFor = 5 * time.Minute
	probedFor  = time.Hour
	maxAnswers = 20_000
)

// An Answer is what the inner server says about a recipient.
type Answer struct {
	Known bool
	// AcceptsAll tells that the server also took a recipient that cannot exist: then Known means nothing.
	AcceptsAll bool
}

// Confirm asks the inner server, by MAIL from the null reverse-path and RCPT, whether a recipient exists, and with the first
// one of a domain whether the server takes just anyone. Answers are kept: 30 minutes yes, 5 minutes no.
//
// Errors mean that there is no answer: *smtpwire.Error for a refusal that is no "unknown" (greylisting, policy),
// ErrUnavailable, ctx's. They are not kept.
func (h *Inner) Confirm(ctx context.Context, rcpt string) (Answer, error) {
	at := strings.LastIndexByte(rcpt, '@')
	if at < 1 || at == len(rcpt)-1 {
		return Answer{}, nil
	}
	known, err := h.exists(ctx, strings.ToLower(rcpt), rcpt)
	if err != nil || !known {
		return Answer{}, err
	}
	domain := strings.ToLower(rcpt[at:])
	all, err := h.exists(ctx, domain, "x"+strings.ToLower(rand.Text())+domain)
	if refused, ok := errors.AsType[*smtpwire.Error](err); ok && refused.Temporary() {
		return Answer{Known: true}, nil // greylisted, perhaps: not taken, at any rate
	}
	return Answer{Known: err == nil, AcceptsAll: all}, err
}

// exists asks about an address and keeps the answer under a key. The key of a probe is the domain with its "@".
func (h *Inner) exists(ctx context.Context, key, address string) (bool, error) {
	if known, ok := h.asked.get(key, time.Now()); ok {
		return known, nil
	}
	err := h.with(ctx, func(s *session) error { return s.Try(ctx, "", address) })
	refused, isReply := errors.AsType[*smtpwire.Error](err)
	probe := key[0] == '@'
	switch {
	case err == nil:
	case isReply && refused.UnknownRecipient():
	case isReply && refused.Code/100 == 5 && probe: // refused for whatever reason: not everyone is taken
	default:
		return false, err
	}
	keep := unknownFor
	if probe {
		keep = probedFor
	} else if err == nil {
		keep = knownFor
	}
	h.asked.put(key, err == nil, time.Now().Add(keep))
	return err == nil, nil
}

// answers is a bounded memory. When it is full, what has expired goes, then anything.
type answers struct {
	mu sync.Mutex
	m  map[string]answer
}

type answer struct {
	known bool
	until time.Time
}

func (a *answers) get(key string, now time.Time) (known, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.m[key]
	return e.known, ok && now.Before(e.until)
}

func (a *answers) put(key string, known bool, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m == nil {
		a.m = make(map[string]answer)
	}
	if _, old := a.m[key]; !old && len(a.m) >= maxAnswers {
		a.evict(time.Now())
	}
	a.m[key] = answer{known, until}
}

// evict makes room: about a tenth at once, so that a flood of names does not pay for the whole walk each time.
func (a *answers) evict(now time.Time) {
	for k, e := range a.m {
		if !now.Before(e.until) {
			delete(a.m, k)
		}
	}
	for k := range a.m { // in no order
		if len(a.m) <= maxAnswers*9/10 {
			return
		}
		delete(a.m, k)
	}
}
