package dmtpclient

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dimegate/dmtp"
)

func TestLookups(t *testing.T) {
	fp, other := [64]byte{1}, [64]byte{2}
	answers := map[string]string{
		"SGNT": "270 OK [AAEC]\r\n",
		"HIST": "290-[AAEC]\r\n290-[AwQFBg==]\r\n290 OK\r\n",
	}
	vrfy := "271 CURRENT\r\n"
	p := start(t, func(l *link) {
		if l.tls() {
			l.say(banner)
			for {
				verb, _, _ := strings.Cut(strings.TrimSpace(l.hear()), " ")
				if verb == "VRFY" {
					l.say(vrfy)
				} else if answers[verb] == "" {
					return
				} else {
					l.say(answers[verb])
				}
			}
		}
	})
	conn := p.connect(t, nil)
	if got, err := conn.Signet(t.Context(), "B.Example"); err != nil || string(got) != "\x00\x01\x02" {
		t.Errorf("Signet: %x, %v", got, err)
	}
	if got, err := conn.SignetByFingerprint(t.Context(), "bob@b.example", fp); err != nil || string(got) != "\x00\x01\x02" {
		t.Errorf("SignetByFingerprint: %x, %v", got, err)
	}
	if got, err := conn.History(t.Context(), "bob@b.example", fp, nil); err != nil || fmt.Sprintf("%x", got) != "[000102 03040506]" {
		t.Errorf("History: %x, %v", got, err)
	}
	if _, err := conn.Signet(t.Context(), "not a name"); ClassOf(err) != Permanent || !errors.Is(err, dmtp.ErrName) {
		t.Errorf("a name that is none: %v", err)
	}
	if current, _, err := conn.Verify(t.Context(), "b.example", fp); err != nil || !current {
		t.Errorf("Verify: %v, %v", current, err)
	}
	vrfy = "250 update [" + string(dmtp.TokenOf(other)) + "]\r\n"
	if current, update, err := conn.Verify(t.Context(), "b.example", fp); err != nil || current || update != other {
		t.Errorf("Verify of an old one: %v, %x, %v", current, update, err)
	}
	want := []string{
		"SGNT <b.example>\r\n", fmt.Sprintf("SGNT <bob@b.example> [%s]\r\n", dmtp.TokenOf(fp)), fmt.Sprintf("HIST <bob@b.example> [%s]\r\n", dmtp.TokenOf(fp)),
		fmt.Sprintf("VRFY <b.example> [%s]\r\n", dmtp.TokenOf(fp)), fmt.Sprintf("VRFY <b.example> [%s]\r\n", dmtp.TokenOf(fp)),
	}
	if got := p.got.all(); !slices.Equal(got, want) {
		t.Errorf("said\n %q\nwant\n %q", got, want)
	}
	vrfy = "250 UPDATE [fingerprint]\r\n"
	if _, _, err := conn.Verify(t.Context(), "b.example", fp); ClassOf(err) != Protocol {
		t.Errorf("an update to nothing: %v", err)
	}
}

// TestHistoryInParts asks a server that gives 64 signets a reply for a chain of 150.
func TestHistoryInParts(t *testing.T) {
	chain := make([]string, 150)
	for i := range chain {
		chain[i] = base64.StdEncoding.EncodeToString([]byte{byte(i)})
	}
	stuck := false
	p := start(t, func(l *link) {
		if !l.tls() {
			return
		}
		l.say(banner)
		for {
			cmd, err := dmtp.Parse(strings.TrimSpace(l.hear()))
			hist, ok := cmd.(dmtp.Hist)
			if err != nil || !ok {
				return
			}
			at, _ := hist.Start.Octets()
			from := int(at[0])
			if stuck {
				from = 0
			}
			for _, s := range chain[from:min(len(chain), from+64)] {
				l.say("290-[" + s + "]\r\n")
			}
			l.say("290 OK\r\n")
		}
	})
	next := func(last []byte) ([64]byte, error) { return [64]byte{last[0]}, nil }
	got, err := p.connect(t, nil).History(t.Context(), "bob@b.example", [64]byte{}, next)
	if err != nil || len(got) != len(chain) {
		t.Fatalf("%d signets, %v", len(got), err)
	}
	for i, s := range got {
		if int(s[0]) != i {
			t.Fatalf("signet %d is %d", i, s[0])
		}
	}
	stuck = true
	if _, err := p.connect(t, nil).History(t.Context(), "bob@b.example", [64]byte{}, next); ClassOf(err) != Protocol {
		t.Errorf("a server that begins again: %v", err)
	}
}
