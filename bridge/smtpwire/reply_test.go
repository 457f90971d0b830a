package smtpwire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadReply(t *testing.T) {
	tests := map[string]struct {
		in   string
		want Reply
		err  error
	}{
		"one line":            {"250 ok\r\n", Reply{Code: 250, Text: "ok"}, nil},
		"code alone":          {"250\r\n", Reply{Code: 250}, nil},
		"LF":                  {"250 ok\n", Reply{Code: 250, Text: "ok"}, nil},
		"enhanced":            {"550 5.1.1 no\r\n", Reply{Code: 550, Enhanced: [3]int{5, 1, 1}, Text: "no"}, nil},
		"enhanced alone":      {"550 5.1.1\r\n", Reply{Code: 550, Enhanced: [3]int{5, 1, 1}}, nil},
		"enhanced, each line": {"550-5.1.1 no\r\n550 5.1.1 such\r\n", Reply{Code: 550, Enhanced: [3]int{5, 1, 1}, Text: "no such"}, nil},
		"another class":       {"550 4.1.1 no\r\n", Reply{Code: 550, Text: "4.1.1 no"}, nil},
		"no enhanced code":    {"550 5.1.1.1 no\r\n", Reply{Code: 550, Text: "5.1.1.1 no"}, nil},
		"signs":               {"550 5.-1.1 no\r\n", Reply{Code: 550, Text: "5.-1.1 no"}, nil},
		"codes that differ":   {"250-a\r\n251 b\r\n", Reply{}, ErrProtocol},
		"no code":             {"hello\r\n", Reply{}, ErrProtocol},
		"empty":               {"\r\n", Reply{}, ErrProtocol},
		"four digits":         {"2500 ok\r\n", Reply{}, ErrProtocol},
		"below":               {"199 ok\r\n", Reply{}, ErrProtocol},
		"above":               {"600 ok\r\n", Reply{}, ErrProtocol},
		"too many lines":      {strings.Repeat("250-x\r\n", 300) + "250 x\r\n", Reply{}, ErrProtocol},
		"line too long":       {"250 " + strings.Repeat("x", 5000) + "\r\n", Reply{}, ErrProtocol},
		"cut short":           {"250-a\r\n250", Reply{}, io.EOF},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := readReply(bufio.NewReaderSize(strings.NewReader(tt.in), maxReplyLine+16))
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("250-5.1.1 a\r\n250 5.1.1 b\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readReply(bufio.NewReaderSize(bytes.NewReader(b), maxReplyLine+16))
		if err != nil {
			return
		}
		if r.Code < 200 || r.Code > 599 || len(r.Text) > maxReplyText || strings.ContainsFunc(r.Text, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("%+v", r)
		}
	})
}

func TestReceived(t *testing.T) {
	r := Received{Hello: "a\r\nBcc: x", By: "gw.example", With: "ESMTP", ID: "1"}
	if got := string(r.Append(nil)); got != "Received: from unknown\r\n\tby gw.example with ESMTP id 1;\r\n\tMon, 01 Jan 0001 00:00:00 +0000\r\n" {
		t.Errorf("%q", got)
	}
	for _, tt := range []struct {
		hello           string
		utf8, tls, auth bool
		want            string
	}{{"HELO", false, false, false, "SMTP"}, {"EHLO", false, false, false, "ESMTP"}, {"EHLO", false, true, true, "ESMTPSA"}, {"EHLO", true, true, false, "UTF8SMTPS"}, {"EHLO", true, false, true, "UTF8SMTPA"}} {
		if got := Protocol(tt.hello, tt.utf8, tt.tls, tt.auth); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

// Errors are logged: a server that quotes an address must not bring it there.
func TestErrorQuotesNoAddress(t *testing.T) {
	for stage, shown := range map[Stage]bool{StageBanner: true, StageHello: true, StageMail: false, StageRcpt: false, StageData: false, StageBody: false} {
		e := &Error{Reply: Reply{Code: 450, Enhanced: [3]int{4, 2, 0}, Text: "<bob@bravo.example>: greylisted"}, Stage: stage}
		if got := e.Error(); strings.Contains(got, "greylisted") != shown || !strings.Contains(got, "450 4.2.0") {
			t.Errorf("%s: %s", stage, got)
		}
	}
}
