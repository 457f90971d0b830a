// Package roles says who may do what with a gateway's commands. Its one table is Table; docs/roles.md explains it.
//
// A role is given to a person, who is the account that the command was started by. The commands of officers, and of whoever
// else works on a machine of his own, ask for no role: there a key says who somebody is.
package roles

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Role is a set of duties.
type Role string

// The roles.
const (
	Operator   Role = "operator"               // keeps mail flowing; sees ids, domains, sizes, states
	Security   Role = "security-administrator" // keys, seals, trust in others, and who has which role
	Compliance Role = "compliance-officer"     // asks for cases, never holds a share
	Escrow     Role = "escrow-officer"         // holds a share
	Auditor    Role = "auditor"                // checks the log, changes nothing
	Privacy    Role = "privacy-officer"        // is told of every case, and sees who looked at what
)

// All is every role.
var All = []Role{Operator, Security, Compliance, Escrow, Auditor, Privacy}

// A Rule is one command's row.
type Rule struct {
	Roles []Role
	Leaf  bool // it shows addresses: who asked, and for what, is written into the log first
	All   bool // it works on every vault of the configuration; all others on that of one organisation
}

// Table is who may use the commands that open a gateway's vault, by their names behind "gateway". A command that is not here
// must not open one.
var Table = map[string]Rule{
	"archive sweep":    {Roles: []Role{Compliance, Privacy}},
	"archive erase":    {Roles: []Role{Privacy}},
	"archive rename":   {Roles: []Role{Compliance}},
	"archive erasures": {Roles: []Role{Compliance, Auditor, Privacy}, Leaf: true},

	"audit verify":     {Roles: []Role{Operator, Security, Compliance, Auditor, Privacy}},
	"audit checkpoint": {Roles: []Role{Security, Auditor, Privacy}},
	"audit reconcile":  {Roles: []Role{Operator, Security, Auditor, Privacy}},
	"audit prove":      {Roles: []Role{Security, Compliance, Auditor, Privacy}},

	"escrow install": {Roles: []Role{Security}},
	"escrow rewrap":  {Roles: []Role{Security, Compliance}},
	"escrow list":    {Roles: []Role{Security, Compliance, Auditor, Privacy}},

	"hold add":       {Roles: []Role{Compliance}},
	"hold list":      {Roles: []Role{Compliance, Auditor, Privacy}, Leaf: true},
	"hold release":   {Roles: []Role{Compliance}},
	"backup create":  {Roles: []Role{Operator, Security}},
	"backup restore": {Roles: []Role{Security}}, // where there is a vault it is refused anyhow

	"case open":    {Roles: []Role{Compliance}},
	"case dsar":    {Roles: []Role{Compliance}},
	"case list":    {Roles: []Role{Compliance, Auditor, Privacy}, Leaf: true},
	"case show":    {Roles: []Role{Compliance, Auditor, Privacy}, Leaf: true},
	"case search":  {Roles: []Role{Compliance}}, // leaves a leaf of its own, whether roles are given or not
	"case select":  {Roles: []Role{Compliance}},
	"case submit":  {Roles: []Role{Compliance}},
	"case approve": {Roles: []Role{Compliance}},
	"case decrypt": {Roles: []Role{Compliance}},
	"case close":   {Roles: []Role{Compliance}},

	"init": {Roles: []Role{Security}, All: true}, // of what an installation has not yet; before there is a vault, anyone

	"keys list":          {Roles: []Role{Operator, Security, Auditor, Privacy}},
	"keys show":          {Roles: []Role{Operator, Security, Auditor, Privacy}},
	"keys export-signet": {Roles: []Role{Operator, Security}},
	"keys check":         {Roles: []Role{Operator, Security, Auditor}},
	"keys disable":       {Roles: []Role{Security}},
	"keys enable":        {Roles: []Role{Security}},
	"keys vouch":         {Roles: []Role{Security}},
	"keys sign-request":  {Roles: []Role{Security}},
	"keys take-back":     {Roles: []Role{Security}},
	"keys schedule":      {Roles: []Role{Operator, Security, Auditor}},
	"keys tls":           {Roles: []Role{Operator, Security}},

	"keys primary rollover": {Roles: []Role{Security}},
	"keys primary finish":   {Roles: []Role{Security}},

	"policy explain": {Roles: []Role{Operator, Security, Compliance, Auditor, Privacy}},
	"policy replay":  {Roles: []Role{Security, Auditor}, Leaf: true},

	"queue list":    {Roles: []Role{Operator, Auditor}},
	"queue show":    {Roles: []Role{Operator, Privacy}, Leaf: true},
	"queue retry":   {Roles: []Role{Operator}},
	"queue hold":    {Roles: []Role{Operator}},
	"queue release": {Roles: []Role{Operator}},
	"queue route":   {Roles: []Role{Operator}},
	"queue dump":    {Roles: []Role{Operator}},
	"queue fail":    {Roles: []Role{Operator}},
	"queue drop":    {Roles: []Role{Operator}},

	"roles list":   {Roles: []Role{Operator, Security, Compliance, Escrow, Auditor, Privacy}},
	"roles grant":  {Roles: []Role{Security}},
	"roles revoke": {Roles: []Role{Security}},

	"seal status": {Roles: []Role{Operator, Security, Auditor}},
	"seal test":   {Roles: []Role{Operator, Security}},
	"seal add":    {Roles: []Role{Security}},
	"seal remove": {Roles: []Role{Security}},
	"seal rewrap": {Roles: []Role{Security}},

	"trust list":   {Roles: []Role{Operator, Security, Auditor}, Leaf: true},
	"trust accept": {Roles: []Role{Security}},
	"trust forget": {Roles: []Role{Security}},
}

// apart are roles that one person must not have together: who opens is not who asks or runs the machine, and nobody audits
// himself.
var apart = [][2]Role{{Escrow, Compliance}, {Escrow, Operator}, {Escrow, Security}, {Auditor, Operator}, {Auditor, Security}}

// Grants are the roles that people have. Empty, nobody has been given one: whoever may read the vault may do everything.
type Grants map[string][]Role

// Parse reads grants as Octets writes them.
func Parse(octets []byte) (Grants, error) {
	if len(octets) == 0 {
		return Grants{}, nil
	}
	var p payload
	if err := json.Unmarshal(octets, &p); err != nil || p.Grants == nil {
		return nil, errors.New("roles: not a table of who has which role")
	}
	return p.Grants, nil
}

// A payload is what a leaf of the log attests.
type payload struct {
	By     string    `json:"by"`
	At     time.Time `json:"at"`
	Grants Grants    `json:"grants"`
}

// Octets are the grants as the log attests them, with who gave them and when.
func (g Grants) Octets(by string, at time.Time) ([]byte, error) {
	return json.Marshal(payload{by, at.UTC().Truncate(time.Second), g})
}

// Grant gives a person a role. The first must be a security administrator, or nobody could give the next.
func (g Grants) Grant(person string, r Role) (Grants, error) {
	switch {
	case !slices.Contains(All, r):
		return nil, fmt.Errorf("there is no role %q: there are %s", r, list(All))
	case len(g) == 0 && r != Security:
		return nil, fmt.Errorf("the first to be given a role must be a %s: from then on nobody else gives one", Security)
	case slices.Contains(g[person], r):
		return nil, fmt.Errorf("%s is %s already", person, r)
	}
	for _, pair := range apart {
		for i, one := range pair {
			if other := pair[1-i]; one == r && slices.Contains(g[person], other) {
				return nil, fmt.Errorf("%s is %s: nobody is both that and %s", person, other, r)
			}
		}
	}
	all := maps.Clone(g)
	if all == nil {
		all = Grants{}
	}
	all[person] = append(slices.Clone(g[person]), r)
	return all, nil
}

// Revoke takes a role from a person, the last security administrator excepted.
func (g Grants) Revoke(person string, r Role) (Grants, error) {
	i := slices.Index(g[person], r)
	if i < 0 {
		return nil, fmt.Errorf("%s is not %s", person, r)
	}
	all := maps.Clone(g)
	if all[person] = slices.Delete(slices.Clone(g[person]), i, i+1); len(all[person]) == 0 {
		delete(all, person)
	}
	for _, roles := range all {
		if slices.Contains(roles, Security) {
			return all, nil
		}
	}
	return nil, fmt.Errorf("%s is the last %s: make another one first", person, Security)
}

// Check tells why a person may not use a command; nil: he may.
func (g Grants) Check(person, command string) error {
	rule, ok := Table[command]
	switch {
	case !ok:
		return fmt.Errorf("%q is in no role's duties", command) // fail closed: a command that was forgotten
	case len(g) == 0:
		return nil
	}
	for _, r := range g[person] {
		if slices.Contains(rule.Roles, r) {
			return nil
		}
	}
	has := "no role"
	if len(g[person]) > 0 {
		has = list(g[person])
	}
	return fmt.Errorf("%q is for: %s; %s has %s. A %s grants roles: gateway roles grant ROLE %s", command, list(rule.Roles), person, has, Security, person)
}

func list(roles []Role) string {
	var b strings.Builder
	for i, r := range roles {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(r))
	}
	return b.String()
}
