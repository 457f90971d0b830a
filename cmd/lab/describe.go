package main

import (
	"fmt"
	"io"
)

// describe prints where everything is and a few lines to try.
func (l *Lab) describe(w io.Writer) {
	fmt.Fprintf(w, "resolver %s   folder %s\n", l.Resolver.Addr, l.Dir)
	for _, o := range l.Orgs() {
		fmt.Fprintf(w, "%s   Postfix %s   gateway %s   IMAP %s   LMTP %s   log %s\n", o.Domain, o.Postfix.Addr, o.DX, o.Store.IMAP, o.Store.LMTP,
			o.Postfix.LogFile())
	}
	fmt.Fprintf(w, `
Send:  swaks --server %[1]s --from alice@alpha.test --to bob@bravo.test
       (bob@direct.bravo.test goes from one Postfix to the other without gateways)
Read:  curl -s -u bob@bravo.test:pw 'imap://%[2]s/INBOX;MAILINDEX=1'
Stop:  Ctrl-C
`, l.Alpha.Postfix.Addr, l.Bravo.Store.IMAP)
}
