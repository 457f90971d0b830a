package appliance

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"dimegate/appliance/config"
	"dimegate/bridge/journal"
	"dimegate/bridge/smtpwire"
	"dimegate/bridge/submission"
	"dimegate/vault"
)

// A journalist archives the journal reports that come to one address: the messages that they are about, each with its envelope. What
// comes to that address goes no other way.
type journalist struct {
	tenants tenants
	address string // in lower case; "": there is none
	now     func() time.Time
	log     *slog.Logger
	reading chan struct{} // whose report may be in memory now
}

// reportsAtOnce bounds the reports that are in memory at one time, each of at most submission.max_octets.
const reportsAtOnce = 4

func (g *gateway) journalist(all tenants) *journalist {
	return &journalist{all, g.config.Archive.JournalAddress, g.Now, g.Log, make(chan struct{}, reportsAtOnce)}
}

// is tells whether an address is the journal's.
func (j *journalist) is(address string) bool {
	return j.address != "" && strings.EqualFold(address, j.address)
}

// read reads a message for the journal whole; submission bounds it. Done gives the memory to the next.
func (j *journalist) read(ctx context.Context, body io.Reader) (octets []byte, done func(), err error) {
	select {
	case j.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if octets, err = io.ReadAll(body); err != nil {
		<-j.reading
		return nil, nil, err
	}
	return octets, func() { <-j.reading }, nil
}

// archive keeps what a client gave for the journal's address: when it returns nil, all of it is durable. What is no report that can be
// read, or came with a password in place of from a listed network, is kept whole, as the journal mailbox's, with a warning.
func (j *journalist) archive(ctx context.Context, env submission.Envelope, octets []byte) error {
	octets = octets[env.Trace:] // ours, and not of the report
	s := journal.Stored{Report: env.ID, Received: j.now().UTC(), From: env.From, To: j.address, Peer: smtpwire.AddrText(env.Client.Addr())}
	r, err := journal.Parse(octets)
	if err == nil && env.User != "" {
		err = errors.New("it came with a password, not from a listed network")
	}
	if err != nil {
		j.log.LogAttrs(ctx, slog.LevelWarn, "a journal report that cannot be read is archived whole, as the journal mailbox's", slog.String("id", env.ID), slog.Any("error", err))
		return j.whole(ctx, env, report{octets, s})
	}
	m := crossing{}
	m.from, m.to = r.Addresses()
	var list []report
	for n, one := range r.Messages {
		list = append(list, report{one.Octets, s.Of(r, n)})
	}
	concerned := j.concerned(env, m)
	if len(concerned) == 0 {
		j.log.LogAttrs(ctx, slog.LevelWarn, "a journal report names nobody of ours: its messages are archived as the journal mailbox's", slog.String("id", env.ID))
		concerned = j.sendsFor(env)[:1]
	}
	for _, t := range concerned {
		if err := j.store(ctx, t, list, m); err != nil {
			return err
		}
	}
	return nil
}

// A report is one record in the making: a message of a report, or all of it.
type report struct {
	octets []byte
	stored journal.Stored
}

// whole keeps a report as it is.
func (j *journalist) whole(ctx context.Context, env submission.Envelope, r report) error {
	return j.store(ctx, j.sendsFor(env)[0], []report{r}, crossing{[]string{env.From}, []string{j.address}})
}

// sendsFor are the tenants that the client sends for; it could not send for none.
func (j *journalist) sendsFor(env submission.Envelope) []*tenant {
	var list []*tenant
	for _, takes := range []func(config.Organization, submission.Envelope) bool{names, lets} {
		for _, t := range j.tenants {
			if slices.ContainsFunc(t.config.Organizations, func(o config.Organization) bool { return takes(o, env) }) && !slices.Contains(list, t) {
				list = append(list, t)
			}
		}
	}
	return list
}

// concerned are those of them whose users a message concerns: each keeps it.
func (j *journalist) concerned(env submission.Envelope, m crossing) []*tenant {
	return slices.DeleteFunc(j.sendsFor(env), func(t *tenant) bool {
		return !slices.ContainsFunc(slices.Concat(m.from, m.to), func(address string) bool {
			o, ours := t.config.Organization(domainOf(strings.ToLower(address)))
			return ours && lets(o, env)
		})
	})
}

// store archives the messages of one report in a tenant's archive, in one commit.
func (j *journalist) store(ctx context.Context, t *tenant, list []report, m crossing) error {
	if !t.up.Load() {
		return errDown
	}
	a := *t.archive // there is one: config says that archive.journal_address needs it
	a.fallback = j.address
	keep, err := a.keep(ctx, vault.Internal, m)
	if err != nil {
		return err
	}
	if keep == nil {
		j.log.LogAttrs(ctx, slog.LevelInfo, "a journal report of mail that archive.rule does not keep", slog.String("id", list[0].stored.Report))
		return nil
	}
	var drafts []vault.KeptOnly
	defer func() {
		for _, d := range drafts {
			d.Draft.Discard()
		}
	}()
	for _, r := range list {
		d, err := draftOf(t.vault.Vault, r, keep)
		if err != nil {
			return err
		}
		drafts = append(drafts, d)
	}
	_, err = t.vault.KeepOnly(ctx, drafts, j.now())
	return err
}

func draftOf(v *vault.Vault, r report, keep keepFunc) (vault.KeptOnly, error) {
	envelope, err := r.stored.Octets()
	if err != nil {
		return vault.KeptOnly{}, err
	}
	d, err := v.NewDraft()
	if err != nil {
		return vault.KeptOnly{}, err
	}
	d.Keep(keep)
	if _, err := d.Write(r.octets); err != nil {
		d.Discard()
		return vault.KeptOnly{}, err
	}
	return vault.KeptOnly{Draft: d, Envelope: envelope}, nil
}
