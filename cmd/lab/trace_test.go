package main

import "testing"

func TestSplit(t *testing.T) {
	const (
		dovecot = "Return-Path: <a@alpha.test>\r\nDelivered-To: b@bravo.test\r\nReceived: from mx.bravo.test\r\n\tby store.bravo.test with LMTP\r\n"
		mail    = "Received: from x by mx.alpha.test (Postfix)\r\n\tid 1; Wed, 25 Nov 2026 10:00:00 +0000\r\n"
	)
	tests := map[string]struct {
		top, message string
		n            int
	}{
		"plain":              {dovecot + mail, "Subject: x\r\n\r\nbody\r\n", 4},
		"own trace kept":     {dovecot + mail, "Received: by mx.example.org\r\nDelivered-To: c@example.org\r\nReturn-Path: <>\r\n\r\n", 4},
		"own date kept":      {dovecot + mail, "Date: x\r\nMessage-ID: <1@x>\r\nSubject: x\r\n\r\n", 4},
		"given a date":       {dovecot + "X-DIME: yes\r\nDate: x\r\nMessage-ID: <1@x>\r\n" + mail, "Subject: x\r\n\r\n", 7},
		"given one, had one": {dovecot + "Message-ID: <1@x>\r\n" + mail, "Date: x\r\n\r\n", 5},
		"no field":           {dovecot + mail, "no field\r\n", 4},
		"only a body":        {dovecot, "\r\nReceived: by mx.alpha.test\r\n", 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			top, message := split([]byte(tt.top + tt.message))
			if len(top) != tt.n || string(message) != tt.message {
				t.Errorf("%d fields on top, message %q; want %d, %q", len(top), message, tt.n, tt.message)
			}
		})
	}
}
