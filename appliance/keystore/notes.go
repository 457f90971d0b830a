package keystore

import (
	"context"
	"errors"
	"strings"

	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/vault"
)

// Policies keeps MTA-STS policies in a vault: an mtasts.Store.
type Policies struct{ Vault *vault.Vault }

const stsPolicy = "mta-sts policy"

// Policy returns what is kept of a domain; nil when nothing is.
func (p Policies) Policy(ctx context.Context, domain string) ([]byte, error) {
	return note(ctx, p.Vault, stsPolicy, domain)
}

// SetPolicy keeps a policy.
func (p Policies) SetPolicy(ctx context.Context, domain string, octets []byte) error {
	return p.Vault.SetNote(ctx, stsPolicy, domain, octets)
}

// DropPolicy forgets a policy.
func (p Policies) DropPolicy(ctx context.Context, domain string) error {
	return drop(ctx, p.Vault, stsPolicy, domain)
}

// Policies lists the domains.
func (p Policies) Policies(ctx context.Context) ([]string, error) {
	return p.Vault.NoteNames(ctx, stsPolicy)
}

// TLSResults keeps the counts of TLS reports in a vault: a tlsrpt.Store.
type TLSResults struct{ Vault *vault.Vault }

const tlsResults = "tls results"

// TLSResults returns what is kept of a domain's day; nil when nothing is.
func (r TLSResults) TLSResults(ctx context.Context, day, domain string) ([]byte, error) {
	return note(ctx, r.Vault, tlsResults, day+" "+domain)
}

// SetTLSResults keeps a domain's day.
func (r TLSResults) SetTLSResults(ctx context.Context, day, domain string, octets []byte) error {
	return r.Vault.SetNote(ctx, tlsResults, day+" "+domain, octets)
}

// DropTLSResults forgets a domain's day.
func (r TLSResults) DropTLSResults(ctx context.Context, day, domain string) error {
	return drop(ctx, r.Vault, tlsResults, day+" "+domain)
}

// TLSResultDays lists the days of all domains.
func (r TLSResults) TLSResultDays(ctx context.Context) ([]tlsrpt.Day, error) {
	names, err := r.Vault.NoteNames(ctx, tlsResults)
	var days []tlsrpt.Day
	for _, n := range names {
		day, domain, _ := strings.Cut(n, " ")
		days = append(days, tlsrpt.Day{Day: day, Domain: domain})
	}
	return days, err
}

// History keeps past decisions in a vault: a bridge.HistoryStore.
type History struct{ Vault *vault.Vault }

const history = "history"

// HistoryNames lists the batches.
func (h History) HistoryNames(ctx context.Context) ([]string, error) {
	return h.Vault.NoteNames(ctx, history)
}

// History returns a batch; nil when it is gone.
func (h History) History(ctx context.Context, name string) ([]byte, error) {
	return note(ctx, h.Vault, history, name)
}

// SetHistory keeps a batch.
func (h History) SetHistory(ctx context.Context, name string, octets []byte) error {
	return h.Vault.SetNote(ctx, history, name, octets)
}

// DropHistory forgets a batch.
func (h History) DropHistory(ctx context.Context, name string) error {
	return drop(ctx, h.Vault, history, name)
}

func note(ctx context.Context, v *vault.Vault, kind, name string) ([]byte, error) {
	b, err := v.Note(ctx, kind, name)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, nil
	}
	return b, err
}

func drop(ctx context.Context, v *vault.Vault, kind, name string) error {
	if err := v.DropNote(ctx, kind, name); !errors.Is(err, vault.ErrNotFound) {
		return err
	}
	return nil
}
