package appliance

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/bridge"
	"dimegate/dmtp/dmtpserver"
	"dimegate/dmtp/message"
	"dimegate/dmtp/record"
	"dimegate/dmtp/resolver"
	"dimegate/trustful"
	"dimegate/vault"
)

// What trustful says of a message is what its origin hears (dmtp.md §9.4); what is in no row is temporary.
func TestOpenErrors(t *testing.T) {
	for _, c := range []struct{ is, want error }{
		{trustful.ErrNoUser, dmtpserver.ErrRecipient},
		{trustful.ErrAddress, dmtpserver.ErrRecipient},
		{trustful.ErrStaleSignet, dmtpserver.ErrRecipientSignet},
		{trustful.ErrUnavailable, dmtpserver.ErrOriginUnavailable},
		{&trustful.HeldError{}, dmtpserver.ErrOriginUnavailable},
		{trustful.ErrNoSignet, dmtpserver.ErrOriginGone},
		{peerError(&resolver.Error{Verdict: resolver.ErrTemporary}), dmtpserver.ErrOriginUnavailable},
		{peerError(&resolver.Error{Verdict: resolver.ErrUntrusted}), dmtpserver.ErrOriginUnavailable},
		{peerError(&resolver.Error{Verdict: resolver.ErrNotDIME}), dmtpserver.ErrOriginGone},
		{&message.Error{Class: message.SigAuthor}, dmtpserver.ErrAuthorSignature},
		{&message.Error{Class: message.BadHeaders}, dmtpserver.ErrMessage},
	} {
		if got := openError(fmt.Errorf("wrapped: %w", c.is)); !errors.Is(got, c.want) {
			t.Errorf("%v: %v, want %v", c.is, got, c.want)
		}
	}
	for _, of := range []error{dmtpserver.ErrRecipient, dmtpserver.ErrRefused, dmtpserver.ErrMessage} {
		if errors.Is(openError(vault.ErrFull), of) {
			t.Errorf("a fault of ours is %v", of)
		}
	}
}

// The resolver's verdicts in the policy table, and the hold that each brings.
func TestSituations(t *testing.T) {
	for _, c := range []struct {
		err    *resolver.Error
		is     bridge.Situation
		life   time.Duration
		remote record.Policy
	}{
		{&resolver.Error{Verdict: resolver.ErrTemporary}, bridge.Unreachable, 0, record.Experimental},
		{&resolver.Error{Verdict: resolver.ErrNotDIME}, bridge.NoRecord, 0, record.Experimental},
		{&resolver.Error{Verdict: resolver.ErrNoSignet}, bridge.NoSignet, 0, record.Strict},
		{&resolver.Error{Verdict: resolver.ErrDoubtful}, bridge.Doubtful, 0, record.Experimental},
		{&resolver.Error{Verdict: resolver.ErrUntrusted}, bridge.Untrusted, 0, record.Experimental},
		{&resolver.Error{Verdict: resolver.ErrUntrusted, Change: &resolver.KeyDecision{Life: time.Hour}}, bridge.Untrusted, time.Hour, record.Experimental},
		{&resolver.Error{Verdict: resolver.ErrVanished, Change: &resolver.KeyDecision{Life: 120 * time.Hour}}, bridge.Vanished, 120 * time.Hour, record.Experimental},
		{&resolver.Error{Verdict: resolver.ErrGarbled}, bridge.Untrusted, 24 * time.Hour, record.Experimental},
	} {
		r := failed(bridge.Route{}, c.err)
		if r.Situation != c.is || r.Life != c.life || r.Remote != c.remote {
			t.Errorf("%v: %v for %v, %v", c.err, r.Situation, r.Life, r.Remote)
		}
	}
}

// Whose Received fields lose their "for" clause: ours and the inner servers' (dmtp.md §9.6).
func TestOwnHosts(t *testing.T) {
	c := &config.Config{Hostname: "GW.alpha.example", Organizations: []config.Organization{
		{Inner: "Mail.alpha.example:25"}, {Inner: "mail.alpha.example.:2525"}, {Inner: "127.0.0.1:25"}, {Inner: "[::1]:25"}, {Inner: "localhost:25"},
	}}
	if got := ownHosts(c); !slices.Equal(got, []string{"gw.alpha.example", "mail.alpha.example"}) {
		t.Errorf("%q", got)
	}
}

// A flight that is gone is not tried again.
func TestLanded(t *testing.T) {
	for err, want := range map[error]bool{nil: false, vault.ErrChanged: true, vault.ErrNotFound: true, vault.ErrFull: false} {
		if got := errors.Is(landed(err), bridge.ErrLanded); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}
