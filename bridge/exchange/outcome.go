package exchange

import (
	"errors"
	"fmt"
	"strings"

	"dimegate/bridge/exchange/tlsrpt"
	"dimegate/bridge/queue"
	"dimegate/bridge/smtpwire"
)

// A failure is why one host, or a whole destination, did not take a message.
type failure struct {
	class  queue.Class
	status string // RFC 3463
	why    string // ours: names and our own words
	host   string
	reply  smtpwire.Reply // the server's; zero: none
	report tlsrpt.Result  // "": none of TLS
	final  bool           // no other host is to be asked
	unmet  bool           // the administrator's floor, and nothing else, stands in the way
}

func (f *failure) Error() string { return "exchange: " + f.why }

// An outcome is what came of a try.
type outcome struct {
	failure *failure // nil: taken, or with a probe: it would be offered
	host    string
	relayed bool // the host takes over what was asked of notices
	rule    string
	rung    Rung
}

func (o outcome) result() queue.Result {
	f := o.failure
	if f == nil {
		return queue.Result{Class: queue.Done, Code: 250, Host: o.host, Protocol: "smtp", Reason: o.rule, Relayed: o.relayed}
	}
	return queue.Result{Class: f.class, Status: f.status, Code: f.reply.Code, Text: f.reply.Text, Host: f.host, Protocol: "smtp", Reason: f.why}
}

// weights order failures by how much they say about the destination: what a server answered, then what could not be trusted.
// Permanent counts only when every host says so.
var weights = map[queue.Class]int{queue.Remote: 4, queue.Trust: 3, queue.Protocol: 2, queue.Network: 1, queue.Permanent: 0}

// worst is the failure that stands for all: the last of the heaviest. A final one stands for itself.
func worst(all []*failure) *failure {
	var w *failure
	for _, f := range all {
		if f.final {
			return f
		}
		if w == nil || weights[f.class] >= weights[w.class] {
			w = f
		}
	}
	return w
}

// statuses are RFC 3463's for refusals without an enhanced code; what is not here is 5.0.0.
var statuses = map[string]string{
	"mail 552": "5.3.4", "mail 553": "5.1.7", "rcpt 550": "5.1.1", "rcpt 551": "5.1.6", "rcpt 552": "5.2.2", "rcpt 553": "5.1.3",
	"data 552": "5.3.4", "body 552": "5.3.4", "body 554": "5.6.0",
}

// refused turns what a session ended with into a failure.
func refused(host string, err error) *failure {
	f := &failure{class: queue.Network, host: host, status: "4.4.2", why: "the connection to " + host + " was lost"}
	if errors.Is(err, smtpwire.ErrUncertain) {
		f.why, f.final = "the connection to "+host+" was lost before it said whether it took the message", true // another host may get it twice
		return f
	}
	if errors.Is(err, smtpwire.ErrProtocol) {
		f.class, f.status, f.why = queue.Protocol, "4.5.0", host+" does not keep to SMTP"
		return f
	}
	e, ok := errors.AsType[*smtpwire.Error](err)
	if !ok {
		return f
	}
	f.reply, f.class, f.status = e.Reply, queue.Remote, enhanced(e)
	f.why = fmt.Sprintf("%s refused %s: %d", host, e.Stage, e.Code)
	switch {
	case e.Local:
		f.class, f.host, f.reply, f.why = queue.Permanent, "", smtpwire.Reply{}, host+" cannot carry it: "+e.Text // the text is ours
	case e.Code == 421 && e.Stage != smtpwire.StageBody:
		f.class = queue.Network
	case before(e.Stage) && e.Code/100 == 5:
		f.status = "" // it refuses us, not this message: by another host or later
	case e.Code/100 == 5:
		f.class, f.final = queue.Permanent, true
	}
	return f
}

// before tells the stages at which a server knows nothing of the message yet.
func before(s smtpwire.Stage) bool {
	return s == smtpwire.StageBanner || s == smtpwire.StageHello || s == smtpwire.StageStartTLS || s == smtpwire.StageAuth
}

func enhanced(e *smtpwire.Error) string {
	if e.Enhanced != [3]int{} {
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(e.Enhanced), " ", "."), "[]")
	}
	if e.Code/100 != 5 {
		return ""
	}
	if s, ok := statuses[fmt.Sprintf("%s %d", e.Stage, e.Code)]; ok {
		return s
	}
	return "5.0.0"
}
