package discovery

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/audit"
	"dimegate/vault/escrow"
)

// A Refusal is what policy does not allow, with what would.
type Refusal string

func (r Refusal) Error() string { return "discovery: " + string(r) }

func refusef(format string, a ...any) error { return Refusal(fmt.Sprintf(format, a...)) }

// A Desk is the gateway's side of cases. It opens no mail. Safe for concurrent use.
type Desk struct {
	Vault     *vault.Vault
	Archive   *archive.Archive
	Log       *audit.Log
	LogKey    string                          // its verifier
	Witnesses []note.Verifier                 // at least one has to cosign what officers and stations are shown
	Cosign    func(ctx context.Context) error // has the witnesses cosign the last checkpoint
	By        string                          // the person at the desk, for the log
	Now       func() time.Time
}

// An Order is what a case is to be about.
type Order struct {
	Request    CaseRequest
	Basis      string // the law, order or request, in words
	Custodians []string
	Classes    []uint16  // none: any
	From, To   time.Time // of intake, from inclusive, to exclusive; zero: any
	Expires    time.Time
	Key        string // how the id of the escrow key begins, in hexadecimal, that the mail is sealed to; empty: the one in force
}

// A State is what is kept of a case, sealed.
type State struct {
	By          string        `json:"by"`
	Requester   string        `json:"requester"`
	Fingerprint string        `json:"request_fingerprint"`
	Request     string        `json:"request"` // the case request file
	Basis       string        `json:"basis"`
	Key         string        `json:"escrow_key,omitempty"` // its id, where it is not the one in force
	Custodians  []string      `json:"custodians"`
	Classes     []uint16      `json:"classes"`
	From        time.Time     `json:"from"`
	To          time.Time     `json:"to"`
	Hold        vault.ID      `json:"hold"`
	HoldGoesOn  bool          `json:"hold_goes_on,omitempty"`
	Searches    []Search      `json:"searches"`
	Selected    *Selected     `json:"selected,omitempty"`
	Bundles     []int64       `json:"bundles,omitempty"` // sizes of the log under whose checkpoints bundles went out
	Answers     []OfficerSaid `json:"answers"`
	Released    time.Time     `json:"released"` // when the case file was written first
	Closed      *Closed       `json:"closed,omitempty"`
}

// A Search is one that was made in a case.
type Search struct {
	Number int       `json:"number"`
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Terms  Terms     `json:"terms"`
	Found  Counts    `json:"found"`
	Done   bool      `json:"done"` // what it found is kept
}

// Terms narrow a search within the bounds of its case.
type Terms struct {
	Parties   []string   `json:"parties,omitempty"` // addresses, one of which wrote or got it
	Domains   []string   `json:"domains,omitempty"`
	From      time.Time  `json:"from"`
	To        time.Time  `json:"to"`
	MinOctets int64      `json:"min_octets,omitempty"`
	MaxOctets int64      `json:"max_octets,omitempty"`
	Direction vault.Kind `json:"direction,omitempty"`
}

// Counts are what is said of a set of entries before anybody opens one.
type Counts struct {
	Entries int            `json:"entries"` // wraps: a record is one for each of its custodians
	Records int            `json:"records"`
	Octets  int64          `json:"octets"`
	Gone    int            `json:"shredded"` // wraps that were found and open nothing any more
	By      []escrow.Count `json:"by,omitempty"`
}

// A Selected is the set that the officers are asked for.
type Selected struct {
	At       time.Time `json:"at"`
	Searches []int     `json:"searches"`
	Digest   string    `json:"case_digest"`
	Found    Counts    `json:"found"`
	Damaged  []string  `json:"damaged"`             // records that are left out, and why
	OtherKey int       `json:"other_key,omitempty"` // entries that are left out, because they are sealed to another escrow key
}

// An OfficerSaid is an answer that was relayed.
type OfficerSaid struct {
	Index    uint16    `json:"officer"`
	Person   string    `json:"person"`
	Approved bool      `json:"approved"`
	At       time.Time `json:"at"`
	Digest   string    `json:"statement"` // its leaf digest
}

// A Closed is how a case ended.
type Closed struct {
	At         time.Time `json:"at"`
	Abandoned  string    `json:"abandoned,omitempty"` // why; it was never before the officers, or not opened
	Opened     int       `json:"opened"`
	Unopenable int       `json:"unopenable"`
	Export     string    `json:"export,omitempty"`
	Access     string    `json:"access,omitempty"` // head of the mailbox's access record
	Accesses   int       `json:"accesses,omitempty"`
}

// A Case is a case as the desk shows it.
type Case struct {
	ID      vault.ID  `json:"case"`
	State   string    `json:"state"`
	Opened  time.Time `json:"opened"`
	Expires time.Time `json:"expires"`
	Quorum  int       `json:"quorum,omitempty"`
	About   State     `json:"about"`

	state vault.CaseState
}

func caseOf(c vault.Case) (*Case, error) {
	out := &Case{ID: c.ID, State: c.State.String(), state: c.State, Opened: c.Opened, Expires: c.Expires}
	if err := json.Unmarshal(c.Octets, &out.About); err != nil {
		return nil, fmt.Errorf("discovery: case %v: %w", c.ID, vault.ErrCorrupt)
	}
	return out, nil
}

// Cases lists all cases.
func (d *Desk) Cases(ctx context.Context) ([]*Case, error) {
	rows, err := d.Vault.Cases(ctx)
	if err != nil {
		return nil, err
	}
	var list []*Case
	for _, r := range rows {
		c, err := d.shown(r)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// Case reads one.
func (d *Desk) Case(ctx context.Context, id vault.ID) (*Case, error) {
	r, err := d.Vault.Case(ctx, id)
	if err != nil {
		return nil, err
	}
	return d.shown(r)
}

func (d *Desk) shown(r vault.Case) (*Case, error) {
	c, err := caseOf(r)
	if err != nil {
		return nil, err
	}
	if c.state != vault.CaseClosed && !d.Now().Before(c.Expires) {
		c.State += ", expired"
	}
	return c, nil
}

// working reads a case that must be in one of these states, and not expired.
func (d *Desk) working(ctx context.Context, id vault.ID, states ...vault.CaseState) (*Case, error) {
	c, err := d.Case(ctx, id)
	if err != nil {
		return nil, err
	}
	return c, d.may(c, states)
}

func (d *Desk) may(c *Case, states []vault.CaseState) error {
	switch {
	case c.state == vault.CaseClosed:
		return refusef("case %v is closed", c.ID)
	case !d.Now().Before(c.Expires):
		return refusef("case %v expired on %s: open another one", c.ID, c.Expires.UTC().Format(time.DateOnly))
	case !slices.Contains(states, c.state):
		return refusef("case %v is %s: %s", c.ID, c.state, afterState[c.state])
	}
	return nil
}

// afterState is what can be done in a state.
var afterState = map[vault.CaseState]string{
	vault.CaseOpen:      "search it, then select",
	vault.CaseSelected:  "have the requester sign the selection at the station, then submit",
	vault.CaseSubmitted: "its set is before the officers and cannot change: relay their answers, or open another case",
	vault.CaseGranted:   "a quorum has approved: write the case file for the station, or close",
}

// change changes a case's state, in one commit with leaves.
func (d *Desk) change(ctx context.Context, id vault.ID, states []vault.CaseState, f func(c *Case) ([]vault.CaseLeaf, error)) error {
	return d.Vault.ChangeCase(ctx, id, d.Now(), func(r *vault.Case) ([]vault.CaseLeaf, error) {
		c, err := caseOf(*r)
		if err != nil {
			return nil, err
		}
		if states != nil {
			if err := d.may(c, states); err != nil {
				return nil, err
			}
		}
		leaves, err := f(c)
		if err != nil {
			return nil, err
		}
		r.State = c.state
		r.Octets, err = json.Marshal(c.About)
		return leaves, err
	})
}

// installed is the escrow key that is in force.
func (d *Desk) installed(ctx context.Context) (*archive.Key, error) {
	sealer, err := d.Archive.Sealer(ctx, escrow.Discovery)
	if errors.Is(err, archive.ErrNoKey) {
		return nil, refusef("there is no escrow key: gateway escrow install")
	} else if err != nil {
		return nil, err
	}
	return d.keyOf(ctx, sealer.Key().ID())
}

// keyOf is an escrow key by its id.
func (d *Desk) keyOf(ctx context.Context, id vault.Digest) (*archive.Key, error) {
	keys, err := d.Archive.Keys(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.Key.ID() == id {
			return k, nil
		}
	}
	return nil, refusef("the escrow key of the case is not here any more")
}

// Open opens a case: from this moment what it is about is on hold, and the privacy officer's list has it.
func (d *Desk) Open(ctx context.Context, o Order) (*Case, error) {
	now := d.Now()
	if err := d.checkOrder(ctx, o, now); err != nil {
		return nil, err
	}
	for i, a := range o.Custodians {
		o.Custodians[i] = strings.ToLower(a)
		names, err := d.Archive.CustodianNames(ctx, a)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("discovery: the archive has no mail of %s", a)
		}
	}
	slices.Sort(o.Custodians)
	o.Custodians = slices.Compact(o.Custodians)
	slices.Sort(o.Classes)
	o.Classes = slices.Compact(o.Classes)
	id, hold := vault.NewID(now), vault.NewID(now)
	st := State{By: d.By, Requester: o.Request.Requester, Fingerprint: o.Request.Fingerprint(), Request: o.Request.Line(), Basis: o.Basis, Custodians: o.Custodians,
		Classes: o.Classes, From: o.From, To: o.To, Hold: hold, Searches: []Search{}, Answers: []OfficerSaid{}}
	if o.Key != "" {
		k, err := d.orderKey(ctx, o)
		if err != nil {
			return nil, err
		}
		key := k.Key.ID()
		st.Key = hex.EncodeToString(key[:])
	}
	octets, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	c := vault.Case{ID: id, State: vault.CaseOpen, Opened: now, Expires: o.Expires, Octets: octets}
	h := vault.LegalHold{ID: hold, Basis: "case " + id.String() + ": " + o.Basis, Custodians: slices.Clone(o.Custodians), Classes: o.Classes, From: o.From, To: o.To}
	if err := d.Vault.OpenCase(ctx, c, h, octets, now); err != nil {
		return nil, err
	}
	return d.Case(ctx, id)
}

func (d *Desk) checkOrder(ctx context.Context, o Order, now time.Time) error {
	key, err := d.orderKey(ctx, o)
	if err != nil {
		return err
	}
	for _, f := range key.Epoch().Officers {
		if f.Person == o.Request.Requester || f.Key == o.Request.Key {
			return refusef("%s is an escrow officer: who asks for a case cannot take part in opening it", o.Request.Requester)
		}
	}
	switch {
	case o.Basis == "" || len(o.Basis) > escrow.MaxBasis:
		return fmt.Errorf("discovery: a basis has 1 to %d octets: the law, order or request, in words", escrow.MaxBasis)
	case !o.Expires.After(now) || o.Expires.Sub(now) > escrow.MaxCase:
		return errors.New("discovery: a case expires within 90 days")
	case !o.To.IsZero() && !o.To.After(o.From):
		return errors.New("discovery: the last day is before the first")
	case len(o.Custodians) == 0:
		return errors.New("discovery: a case names its custodians")
	case key.Key.Suite() != escrow.R255:
		return errors.New("discovery: the escrow key is of a suite that stations do not know")
	}
	return nil
}
