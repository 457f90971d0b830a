package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Scanner is the [scanner] table: content scanners on this machine, which see mail in plain text.
type Scanner struct {
	Outbound      []string      `toml:"outbound"`       // before mail is sealed: milter:// or smtp://, and host:port or the path of a socket; default none
	Inbound       []string      `toml:"inbound"`        // after it was opened, and plain mail; default none
	Timeout       time.Duration `toml:"timeout"`        // of a step, and of the verdict; default 1m, at most 4m
	MaxOctets     int64         `toml:"max_octets"`     // a message; a larger one is refused; default 104857600
	HeaderChanges string        `toml:"header_changes"` // refuse milters that want to change header fields, or ignore what they want; default refuse
}

func (s *Scanner) check(k checker) {
	for key, list := range map[string][]string{"outbound": s.Outbound, "inbound": s.Inbound} {
		if len(list) > maxScanners {
			k.bad(key, "names %d scanners: at most %d", len(list), maxScanners)
		}
		for _, text := range list {
			if _, _, _, err := ParseScanner(text); err != nil {
				k.bad(key, "%v", err)
			}
		}
	}
	within(k, "timeout", s.Timeout, time.Second, 4*time.Minute)
	octets(k, "max_octets", s.MaxOctets, 64<<10, 4<<30-1)
	oneOf(k, "header_changes", s.HeaderChanges, "refuse", "ignore")
}

// maxScanners bounds a list: all of them see each message at one time.
const maxScanners = 8

// ParseScanner takes the address of a scanner apart: milter or smtp, tcp or unix, and where. The error says what is wrong with it.
func ParseScanner(text string) (kind, network, address string, err error) {
	kind, address, ok := strings.Cut(text, "://")
	if !ok || kind != "milter" && kind != "smtp" {
		return "", "", "", fmt.Errorf("%q is neither milter://… nor smtp://…", text)
	}
	if strings.HasPrefix(address, "/") {
		return kind, "unix", address, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", "", "", fmt.Errorf("%q: behind :// stands host:port or the path of a socket", text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", "", fmt.Errorf("%q: the port is not a number from 1 to 65535", text)
	}
	if a, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !a.IsLoopback()) {
		return "", "", "", fmt.Errorf("%q: mail would cross the network in plain text: name an address of loopback or a socket", text)
	}
	return kind, "tcp", address, nil
}
