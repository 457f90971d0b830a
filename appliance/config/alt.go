package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// AltModes are the names of alt.mode.
var AltModes = []string{"off", "opportunistic", "required"}

// ModeFor is the mode of mail to, and from, another domain.
func (a *Alt) ModeFor(domain string) string {
	if d, ok := a.Domains[strings.ToLower(domain)]; ok {
		return d.Mode
	}
	return a.Mode
}

var suiteDigits = regexp.MustCompile(`^[0-9a-f]{4}$`)

// checkAlt cannot know which suites the program has: see appliance.CheckSuites.
func (c *Config) checkAlt(k checker) {
	a := &c.Alt
	oneOf(k, "mode", a.Mode, AltModes...)
	count(k, "bucket_octets", a.Bucket, 0, 65536)
	used := a.Mode != "off"
	for _, name := range slices.Sorted(maps.Keys(a.Domains)) {
		k, mode := k.at("domain.%q.", name), a.Domains[name].Mode
		if !isDomain(name) {
			k.bad("mode", "%q is not a domain in ASCII", name)
		}
		oneOf(k, "mode", mode, AltModes...)
		used = used || mode != "off"
		if floor := c.Policy.Domains[name].Floor; mode == "required" && floor != "dime" && floor != "hold" {
			k.bad("mode", "is \"required\", and mail for the domain could leave by plain SMTP: set floor = \"dime\" in [policy.domain.%q]", name)
		}
	}
	if used && len(a.Suites) == 0 {
		k.bad("suites", "is empty: name one, such as \"0201\", or set mode = \"off\"")
	}
	for i, s := range a.Suites {
		switch {
		case !suiteDigits.MatchString(s):
			k.bad("suites", "%q is not four hexadecimal digits in lower case, such as \"0201\"", s)
		case slices.Contains(a.Suites[:i], s):
			k.bad("suites", "%q stands twice", s)
		}
	}
}
