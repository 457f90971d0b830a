package smtpwire

import "testing"

func TestOriginalRecipient(t *testing.T) {
	for line, want := range map[string]string{
		`RCPT TO:<bøb@x.example> ORCPT=rfc822;b+C3+B8b@x.example`:                               `RCPT TO:<bøb@x.example> ORCPT=utf-8;b\x{F8}b@x.example`,
		`RCPT TO:<bøb@x.example> orcpt=RFC822;b+C3+B8b+2B1@x.example NOTIFY=FAILURE`:            `RCPT TO:<bøb@x.example> ORCPT=utf-8;b\x{F8}b\x{2B}1@x.example NOTIFY=FAILURE`,
		`RCPT TO:<bob@x.example> ORCPT=rfc822;bob+2B1@x.example`:                                "",
		`RCPT TO:<bob@x.example> ORCPT=rfc822;b+C3b@x.example`:                                  "", // no UTF-8
		`RCPT TO:<bob@x.example> ORCPT=rfc822;b+C`:                                              "",
		`RCPT TO:<bob@x.example> ORCPT=rfc822;b+XXb`:                                            "",
		`RCPT TO:<bob@x.example> ORCPT=utf-8;b\x{F8}b@x.example`:                                "",
		`RCPT TO:<bob@x.example>`:                                                               "",
		"RCPT TO:<\u0131\u0131\u0131\u0131\u0131bob@x.example> ORCPT=rfc822;b+C3+B8b@x.example": "RCPT TO:<\u0131\u0131\u0131\u0131\u0131bob@x.example> ORCPT=utf-8;b\\x{F8}b@x.example",
	} {
		if want == "" {
			want = line
		}
		if got := originalRecipient(line); got != want {
			t.Errorf("%q\n got %q\nwant %q", line, got, want)
		}
	}
}
