package archive

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"dimegate/vault"
	"dimegate/vault/escrow"
)

// A Query asks for records before a quorum: what is empty does not narrow it, but a custodian, an address or a domain must be there.
type Query struct {
	Custodians []string // addresses, of whose copies any is asked for
	Parties    []string // addresses of author or recipients, any of them
	Domains    []string // or their domains
	From, To   time.Time
	MinOctets  int64
	MaxOctets  int64
	Direction  vault.Kind
	Classes    []uint16
}

// A Hit is one record, with the wraps of those custodians that were asked for.
type Hit struct {
	Record    vault.ID
	Made      time.Time
	Octets    int64
	Direction vault.Kind
	Class     uint16
	Expires   time.Time
	Leaf      int64 // of the intake
	Content   vault.Token
	Wraps     []HitWrap
}

// A HitWrap is one custodian's copy.
type HitWrap struct {
	Digest    vault.Digest
	Shred     vault.ID
	Custodian vault.CustodianID // zero when the shred key is gone
	Gone      bool              // it was erased: nobody opens it
}

// Search visits what a query finds, ascending by record, so by time of intake. The caller has written the leaf that says who asks.
// It reads month by month: memory is a month's shred keys and one record.
func (a *Archive) Search(ctx context.Context, q Query, visit func(Hit) error) error {
	if len(q.Custodians)+len(q.Parties)+len(q.Domains) == 0 {
		return errors.New("archive: a query names a custodian, an address or a domain")
	}
	s, err := a.search(ctx, q)
	if err != nil || len(q.Custodians) > 0 && len(s.custodians) == 0 {
		return err // nothing is kept of these
	}
	for first := s.first; first <= s.last; first++ {
		if err := s.month(ctx, first, visit); err != nil {
			return err
		}
	}
	return nil
}

// A search is a query in the archive's words.
type search struct {
	a           *Archive
	q           Query
	custodians  []vault.CustodianID
	tokens      []vault.Token
	first, last escrow.Month
}

func (a *Archive) search(ctx context.Context, q Query) (*search, error) {
	t, err := a.tokens(ctx)
	if err != nil {
		return nil, err
	}
	defer t.close()
	s := &search{a: a, q: q}
	for _, address := range q.Custodians {
		list, err := a.custodians(ctx, t, address)
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			s.custodians = append(s.custodians, c.ID)
		}
	}
	for _, p := range q.Parties {
		s.tokens = append(s.tokens, t.address(normal(p)))
	}
	for _, d := range q.Domains {
		s.tokens = append(s.tokens, t.domain(normal(d)))
	}
	if len(s.tokens) > vault.MaxQueryList || len(s.custodians) > vault.MaxQueryList {
		return nil, ErrTooWide
	}
	if s.q.To.IsZero() {
		s.q.To = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return s, s.months(ctx)
}

// months finds the months that anything was kept in.
func (s *search) months(ctx context.Context) error {
	all, err := s.a.v.Shreds(ctx, s.custodians, 0, 0xffff)
	if err != nil || len(all) == 0 {
		s.first, s.last = 1, 0
		return err
	}
	s.first, s.last = escrow.Month(all[0].Month), escrow.Month(all[len(all)-1].Month)
	if !s.q.From.IsZero() && s.q.From.Year() >= 1970 {
		s.first = max(s.first, escrow.MonthOf(s.q.From))
	}
	if s.q.To.Year() < 7000 {
		s.last = min(s.last, escrow.MonthOf(s.q.To))
	}
	return nil
}

// month visits what was kept in one month.
func (s *search) month(ctx context.Context, m escrow.Month, visit func(Hit) error) error {
	shreds, err := s.a.v.Shreds(ctx, s.custodians, uint16(m), uint16(m))
	if err != nil {
		return err
	}
	of := map[vault.ID]vault.Shred{}
	begin := time.Date(1970+int(m)/12, time.Month(int(m)%12+1), 1, 0, 0, 0, 0, time.UTC)
	q := vault.ArchiveQuery{Tokens: s.tokens, From: later(s.q.From, begin), To: earlier(s.q.To, begin.AddDate(0, 1, 0)), MinOctets: s.q.MinOctets, MaxOctets: s.q.MaxOctets, Direction: s.q.Direction}
	for _, k := range shreds {
		of[k.ID] = k
		if len(s.custodians) > 0 && (len(s.q.Classes) == 0 || slices.Contains(s.q.Classes, k.Class)) {
			q.Shreds = append(q.Shreds, k.ID)
		}
	}
	if len(s.custodians) > 0 && len(q.Shreds) == 0 {
		return nil
	}
	if len(q.Shreds) > vault.MaxQueryList {
		return ErrTooWide
	}
	// A record's id is of the moment when its octets began to come, its month of the intake's: a day before covers that.
	q.First, q.Last = idAt(begin.AddDate(0, 0, -1)), idAt(begin.AddDate(0, 1, 0))
	var hit Hit
	flush := func() error {
		if len(hit.Wraps) == 0 || len(s.q.Classes) > 0 && !slices.Contains(s.q.Classes, hit.Class) {
			return nil
		}
		return visit(hit)
	}
	err = s.a.v.FindArchived(ctx, q, func(w vault.ArchivedWrap) error {
		if w.Record != hit.Record {
			if err := flush(); err != nil {
				return err
			}
			hit = Hit{Record: w.Record, Made: w.Made, Octets: w.Octets, Direction: w.Direction, Class: w.Class, Expires: w.Expires, Leaf: w.Leaf, Content: w.Content}
		}
		hit.Wraps = append(hit.Wraps, HitWrap{Digest: w.Digest, Shred: w.Shred, Custodian: of[w.Shred].Custodian, Gone: w.Gone})
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// idAt is the least id of a moment.
func idAt(t time.Time) (id vault.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(t.UnixMilli())<<16)
	return id
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
