package config

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// believed checks a list of those who may say who their client is.
func believed(k checker, key string, list []string) {
	networks(k, key, list)
	for _, p := range prefixes(list) {
		if p.Bits() == 0 {
			k.bad(key, "%s is the whole world: anyone could take any address for his own: name those who speak for others", p)
		}
	}
}

func prefixes(networks []string) []netip.Prefix {
	var list []netip.Prefix
	for _, n := range networks {
		if p, err := parseNetwork(n); err == nil {
			list = append(list, p)
		}
	}
	return list
}

func networks(k checker, key string, list []string) {
	for _, n := range list {
		if _, err := parseNetwork(n); err != nil {
			k.bad(key, "%q is neither an address nor a prefix such as 192.0.2.0/24", n)
		}
	}
}

func addresses(k checker, key string, list []string) {
	for _, a := range list {
		address(k, key, a)
	}
}

// address wants host:port with a numeric port; the host may be empty, a name or an address.
func address(k checker, key, a string) {
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		k.bad(key, "%q is not host:port", a)
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		k.bad(key, "%q: the port is not a number from 0 to 65535", a)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" && !isDomain(host) {
		k.bad(key, "%q: the host is neither a name nor an address", a)
	}
}

func oneOf(k checker, key, v string, allowed ...string) {
	if !slices.Contains(allowed, v) {
		k.bad(key, "%q is not one of: %s", v, strings.Join(allowed, ", "))
	}
}

func within(k checker, key string, d, low, high time.Duration) {
	if d < low {
		k.bad(key, "%v is under %v", FormatDuration(d), FormatDuration(low))
	} else if d > high {
		k.bad(key, "%v is over %v", FormatDuration(d), FormatDuration(high))
	}
}

// FormatDuration writes a duration as the file does: 5m for 5m0s.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func octets(k checker, key string, n, low, high int64) {
	if n < low || n > high {
		k.bad(key, "%d is not from %d to %d octets", n, low, high)
	}
}

func count(k checker, key string, n, low, high int) {
	if n < low || n > high {
		k.bad(key, "%d is not from %d to %d", n, low, high)
	}
}

func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// isDomain says whether s is a host name in lower-case ASCII: RFC 1123 §2.1, without a final dot.
func isDomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}
