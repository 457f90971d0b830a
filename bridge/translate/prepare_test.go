package translate

import (
	"reflect"
	"strings"
	"testing"
)

var preparation = Preparation{
	Now:       now,
	MessageID: "id-1@alpha.example",
	OwnHosts:  []string{"mx.alpha.example", "gw.alpha.example"},
	LoopField: "X-DIME-Loop",
	OwnLoop:   func(v []byte) bool { return string(v) == "ours" },
}

func TestPrepare(t *testing.T) {
	const ids = "Date: d\r\nMessage-ID: <m@x>\r\n"
	const received = "Received: from a (b [192.0.2.1])\r\n\tby MX.alpha.example. (Postfix) with ESMTPS id 4F2 (for <no@x>)\r\n\tfor <bob@bravo.example>;\r\n\tThu, 26 Nov 2026 10:00:00 +0100 (CET)\r\n"
	tests := map[string]struct {
		in, out string
		report  Report
	}{
		"nothing to do": {ids + "Subject: s\r\n\r\nbody", ids + "Subject: s\r\n\r\nbody", Report{}},
		"Bcc, folded and twice": {ids + "Bcc: a,\r\n b\r\nSubject: s\r\nbCC : c\r\n\r\nBcc: in the body\r\n", ids + "Subject: s\r\n\r\nBcc: in the body\r\n",
			Report{Removed: []Change{{Name: "Bcc"}, {Name: "Bcc"}}}},
		"X-DIME-Require": {"x-dime-require: yes\r\n" + ids, ids, Report{Removed: []Change{{Name: "X-DIME-Require"}}}},
		"own marker, not others'": {ids + "X-DIME-Loop: ours\r\nX-DIME-Loop: theirs\r\n", ids + "X-DIME-Loop: theirs\r\n",
			Report{Removed: []Change{{Name: "X-DIME-Loop"}}}},
		"Resent-Bcc stays": {ids + "Resent-Bcc: x\r\n", ids + "Resent-Bcc: x\r\n", Report{}},
		"date and id missing": {"Subject: s\r\n\r\nbody", "Date: Thu, 26 Nov 2026 10:00:00 +0000\r\nMessage-ID: <id-1@alpha.example>\r\nSubject: s\r\n\r\nbody",
			Report{Added: []Change{{Name: "Date"}, {Name: "Message-ID"}}}},
		"id missing":              {"date: d\r\n\r\n", "Message-ID: <id-1@alpha.example>\r\ndate: d\r\n\r\n", Report{Added: []Change{{Name: "Message-ID"}}}},
		"no header":               {"\r\nbody", "Date: Thu, 26 Nov 2026 10:00:00 +0000\r\nMessage-ID: <id-1@alpha.example>\r\n\r\nbody", Report{Added: []Change{{Name: "Date"}, {Name: "Message-ID"}}}},
		"begins with white space": {" x\r\nSubject: s\r\n\r\n", " x\r\nSubject: s\r\n\r\n", Report{}},
		"for clause of ours": {received + ids, strings.Replace(received, "\r\n\tfor <bob@bravo.example>;", ";", 1) + ids,
			Report{Edited: []Change{{Name: "Received"}}}},
		"for clause of who submitted": {"Received: from Hub.inside.example ([192.0.2.9])\r\n\tby gw.alpha.example with ESMTP id 1; d\r\nReceived: from x by hub.inside.example (Postfix) for <bob@x>; d\r\nReceived: from y by x for <bob@x>; d\r\n" + ids,
			"Received: from Hub.inside.example ([192.0.2.9])\r\n\tby gw.alpha.example with ESMTP id 1; d\r\nReceived: from x by hub.inside.example (Postfix); d\r\nReceived: from y by x for <bob@x>; d\r\n" + ids,
			Report{Edited: []Change{{Name: "Received"}}}},
		"for clause of who is said to have submitted, not by us": {"Received: from x by other.example; d\r\nReceived: from y by x for <bob@x>; d\r\n" + ids, "Received: from x by other.example; d\r\nReceived: from y by x for <bob@x>; d\r\n" + ids, Report{}},
		"for clause of another":                                  {strings.Replace(received, "MX.alpha", "mx.other", 1) + ids, strings.Replace(received, "MX.alpha", "mx.other", 1) + ids, Report{}},
		"for clause with comments, not last": {"Received: by gw.alpha.example for\r\n <bob@x> (bob@x) (y) with SMTP; d\r\n" + ids, "Received: by gw.alpha.example with SMTP; d\r\n" + ids,
			Report{Edited: []Change{{Name: "Received"}}}},
		"for clause without end":        {"Received: by gw.alpha.example for bob@x\r\n" + ids, "Received: by gw.alpha.example\r\n" + ids, Report{Edited: []Change{{Name: "Received"}}}},
		"for clause, several addresses": {"Received: by gw.alpha.example for <a@x>, <\"b; c\"@x>; d\r\n" + ids, "Received: by gw.alpha.example; d\r\n" + ids, Report{Edited: []Change{{Name: "Received"}}}},
		"a host called for":             {"Received: from for (by gw.alpha.example) by other id by; for <b@x>\r\n" + ids, "Received: from for (by gw.alpha.example) by other id by; for <b@x>\r\n" + ids, Report{}},
		"signed": {"DKIM-Signature: v=1; h=From : bcc\r\n :Date:Message-ID; b=x\r\nBcc: a\r\n", "Date: Thu, 26 Nov 2026 10:00:00 +0000\r\nMessage-ID: <id-1@alpha.example>\r\nDKIM-Signature: v=1; h=From : bcc\r\n :Date:Message-ID; b=x\r\n",
			Report{Removed: []Change{{Name: "Bcc", Signed: true}}, Added: []Change{{Name: "Date", Signed: true}, {Name: "Message-ID", Signed: true}}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := []byte(tt.in)
			m, report := Prepare(preparation, Split(in))
			if got := string(m.Bytes()); got != tt.out {
				t.Errorf("got  %q\nwant %q", got, tt.out)
			}
			if !reflect.DeepEqual(report, tt.report) {
				t.Errorf("report %+v", report)
			}
			if string(in) != tt.in {
				t.Error("the input was written to")
			}
			again, second := Prepare(preparation, m)
			if string(again.Bytes()) != tt.out || second.Changed() {
				t.Errorf("a second time: %q %+v", again.Bytes(), second)
			}
		})
	}
}

func TestPrepareCopiesNothing(t *testing.T) {
	raw := []byte("Date: d\r\nMessage-ID: <m@x>\r\n\r\nbody")
	m, _ := Prepare(preparation, Split(raw))
	if &m.Header[0] != &raw[0] || &m.Body[0] != &raw[len(raw)-4] {
		t.Error("an unchanged message was copied")
	}
}

func TestRequires(t *testing.T) {
	for header, want := range map[string]bool{
		"X-DIME-Require: yes\r\n": true, "x-dime-require:\r\n YES \r\n": true, "X-DIME-Require: no\r\n": false, "X-DIME-Required: yes\r\n": false, "\r\nX-DIME-Require: yes\r\n": false, "": false,
	} {
		if got := Requires(Split([]byte(header))); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}
