package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Archive is the [archive] table: what is kept of the mail that crosses, sealed to the officers of the escrow key.
type Archive struct {
	Keep    bool   `toml:"keep"`    // default false: it needs an escrow key, see "gateway escrow"
	Default string `toml:"default"` // the class of what no rule speaks of, or none; default mail
	// Continuity seals users' encryption keys to the officers of the continuity key, once there is one; default true.
	Continuity bool `toml:"continuity"`
	// JournalAddress is where the inner mail servers send Exchange's journal reports: archived, and not sent on.
	JournalAddress string `toml:"journal_address"` // default none

	Classes []Class       `toml:"class"` // default: one, 1, mail, 87600h
	Rules   []ArchiveRule `toml:"rule"`  // the first that fits says the class; default none
}

// A Class is one [[archive.class]] table: how long something is kept. A message has the number and the end that held when it came.
type Class struct {
	Number    int           `toml:"number"`    // from 1 to 65535, and never used for anything else
	Name      string        `toml:"name"`      // in rules, and for people
	Retention time.Duration `toml:"retention"` // from a day to 876000h; from the day of intake
	// Instead of a retention time: kept until its custodian asks for erasure; default false.
	UntilErased bool `toml:"until_erased"`
}

// An ArchiveRule is one [[archive.rule]] table. What is empty fits everything.
type ArchiveRule struct {
	Direction string `toml:"direction"` // out, in, or internal
	From      string `toml:"from"`      // an address or a domain: of the author, or of the reverse-path
	To        string `toml:"to"`        // an address or a domain: of any recipient; where class is none, of all
	Class     string `toml:"class"`     // the name of a class, or none: it is not kept
}

// NoClass is the class of what is not kept.
const NoClass = "none"

// maxRetention is a hundred years.
const maxRetention = 876000 * time.Hour

func (a *Archive) resolve() {
	if len(a.Classes) == 0 {
		a.Classes = []Class{{Number: 1, Name: "mail", Retention: 87600 * time.Hour}}
	}
	a.JournalAddress = strings.ToLower(a.JournalAddress)
	for i := range a.Rules {
		r := &a.Rules[i]
		r.From, r.To = strings.ToLower(r.From), strings.ToLower(r.To)
	}
}

func (a *Archive) check(k checker) {
	var names []string
	numbers := map[int]bool{}
	for i, c := range a.Classes {
		k := k.at("class[%d].", i+1)
		count(k, "number", c.Number, 1, 0xffff)
		if numbers[c.Number] {
			k.bad("number", "%d stands twice: a class keeps its number for good", c.Number)
		}
		if !isVaultName(c.Name) || c.Name == NoClass {
			k.bad("name", "%q is not made of a-z, 0-9 and \"-\", or is \"none\"", c.Name)
		}
		if slices.Contains(names, c.Name) {
			k.bad("name", "%q stands twice", c.Name)
		}
		if !c.UntilErased {
			within(k, "retention", c.Retention, 24*time.Hour, maxRetention)
		} else if c.Retention != 0 {
			k.bad("until_erased", "what is kept until it is erased has no retention: leave one of the two out")
		}
		numbers[c.Number], names = true, append(names, c.Name)
	}
	if local, domain, ok := strings.Cut(a.JournalAddress, "@"); a.JournalAddress != "" && (!ok || local == "" || !isDomain(domain)) {
		k.bad("journal_address", "%q is no address", a.JournalAddress)
	} else if ok && !a.Keep {
		k.bad("journal_address", "nothing is kept while archive.keep is false: reports to %s would be lost", a.JournalAddress)
	}
	known := append([]string{NoClass}, names...)
	oneOf(k, "default", a.Default, known...)
	for i, r := range a.Rules {
		k := k.at("rule[%d].", i+1)
		oneOf(k, "class", r.Class, known...)
		oneOf(k, "direction", r.Direction, "", "out", "in", "internal")
		for key, who := range map[string]string{"from": r.From, "to": r.To} {
			if who != "" && !isDomain(who[strings.LastIndexByte(who, '@')+1:]) {
				k.bad(key, "%q is neither an address nor a domain", who)
			}
		}
	}
}

// LongestRetention is that of the class that keeps mail longest; zero: one of them keeps it until it is erased.
func (a *Archive) LongestRetention() time.Duration {
	longest := time.Duration(0)
	for _, c := range a.Classes {
		if c.Retention == 0 {
			return 0
		}
		longest = max(longest, c.Retention)
	}
	return longest
}

// ClassOf is the class of a message, by who wrote it (author and reverse-path) and to whom, and whether it is kept at all. Direction
// is "out", "in" or, of what a journal told of, "internal". The table is resolved and checked.
func (a *Archive) ClassOf(direction string, from, to []string) (Class, bool) {
	name := a.Default
	if i := slices.IndexFunc(a.Rules, func(r ArchiveRule) bool { return r.fits(direction, from, to) }); i >= 0 {
		name = a.Rules[i].Class
	}
	i := slices.IndexFunc(a.Classes, func(c Class) bool { return c.Name == name })
	if !a.Keep || i < 0 {
		return Class{}, false
	}
	return a.Classes[i], true
}

func (r ArchiveRule) fits(direction string, from, to []string) bool {
	return (r.Direction == "" || r.Direction == direction) && r.names(r.From, from) && r.names(r.To, to)
}

// names tells whether a side of a rule is about a message. Mail that is not to be kept is that of the named alone: who writes a second
// address into his From takes nothing out of the archive, and what one recipient is not to have kept, another is.
func (r ArchiveRule) names(name string, addresses []string) bool {
	switch {
	case name == "":
		return true
	case r.Class == NoClass:
		return len(addresses) > 0 && !slices.ContainsFunc(addresses, func(s string) bool { return !is(name)(s) })
	}
	return slices.ContainsFunc(addresses, is(name))
}

// is tells whether an address is the one named, or in the domain named.
func is(name string) func(address string) bool {
	return func(address string) bool {
		address = strings.ToLower(address)
		return address == name || address[strings.LastIndexByte(address, '@')+1:] == name
	}
}

// String is what people see of a class.
func (c Class) String() string { return fmt.Sprintf("%d (%s)", c.Number, c.Name) }
