package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// describe prints where everything is and a few lines to try.
func (l *Lab) describe(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(tw, "resolver\t%s\n", l.Resolver.Addr)
	for _, o := range l.Orgs() {
		fmt.Fprintf(tw, "%s\tPostfix %s\tgateway %s, ports 26, 25 and 2525\tIMAP %s\n", o.Domain, o.Postfix.Addr, o.DX, o.Store.IMAP)
	}
	tw.Flush()
	fmt.Fprintf(w, "Configurations, logs and data: %s\n", l.Dir)
	fmt.Fprintf(w, `
Send:  swaks --server %[1]s --from alice@alpha.test --to bob@bravo.test
       (bob@direct.bravo.test goes from one Postfix to the other without gateways)
Read:  curl -s -u bob@bravo.test:pw 'imap://%[2]s/INBOX;MAILINDEX=1'
Stop:  Ctrl-C
`, l.Alpha.Postfix.Addr, l.Bravo.Store.IMAP)
}
