package queue

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// The kinds of notice, as a row's detail holds them.
const (
	noticeFailed  = "failed"
	noticeDelayed = "delayed"
	noticeRelayed = "relayed"
)

// How many octets of the original a notice returns: of its header, or of all of it where that was asked for. What is larger
// comes back as its header.
const (
	maxReturned = 64 << 10
	maxFull     = 1 << 20
)

// giveNotice hands over what the row still owes its sender. The notice is made anew at each try, out of what is sealed.
func (a *attempt) giveNotice(ctx context.Context) (c Change) {
	d := &a.detail
	err := a.notify(ctx, a.report(d.Notice))
	a.now = a.o.Now()
	lost := errors.Is(err, ErrRefused) || err != nil && a.now.Sub(d.Decided) >= a.o.Life
	switch {
	case err == nil:
		a.o.Log.Info("notice given", slog.String("entry", a.row.ID), slog.String("kind", d.Notice))
		return a.remove(Leaf{NoticeGiven, fields("notice", d.Notice)})
	case lost:
		a.o.Log.Error("notice lost", slog.String("entry", a.row.ID), slog.String("kind", d.Notice), slog.Any("error", err))
		return a.remove(Leaf{NoticeLost, fields("no notice", d.Notice)})
	case ctx.Err() == nil:
		d.NoticeNo++
		a.complain(ctx, "queue notice "+a.row.ID, err)
	}
	c = a.change(Notice, a.now.Add(a.o.scheduled(d.NoticeNo)))
	c.Lane = noticeLane
	return c
}

// tellDelay sends the one notice of a delay and reports whether it need not be tried again.
func (a *attempt) tellDelay(ctx context.Context, end time.Time) bool {
	r := a.report(noticeDelayed)
	r.Until = end
	err := a.notify(ctx, r)
	if err != nil {
		a.complain(ctx, "queue notice "+a.row.ID, err)
	}
	return err == nil || errors.Is(err, ErrRefused)
}

// report is what a notice says.
func (a *attempt) report(kind string) report {
	r := report{
		Kind: kind, ID: a.row.ID, Postmaster: a.o.Postmaster, Hostname: a.o.Hostname, Now: a.now,
		Envelope: a.env, Recipient: a.rcpt, Arrived: a.row.Made,
	}
	if t := a.trouble; t != nil {
		r.Status, r.Last = t.Status, t.Time
		if t.Code != 0 { // RFC 3464 §2.3.5: a host is named that said something
			r.Host, r.Protocol, r.Diagnostic = t.Host, t.Protocol, strconv.Itoa(t.Code)+" "+t.Text
		} else {
			r.Reason = a.detail.Reason
		}
	}
	if kind == noticeDelayed {
		r.Status = waitStatus(a.detail.Class, r.Status)
	}
	return r
}

// waits are the statuses of a delay whose cause has said none of its own, by class; what is not here is 4.0.0.
var waits = map[string]string{Network.String(): "4.4.1", Protocol.String(): "4.5.0", Trust.String(): "4.7.5"}

// waitStatus is why mail waits (RFC 3463 §2: of class 4, whatever it may end in).
func waitStatus(class, status string) string {
	if _, detail, ok := strings.Cut(status, "."); ok && status != expired {
		return "4." + detail
	}
	if s, ok := waits[class]; ok {
		return s
	}
	return "4.0.0"
}

// notify makes the notice and hands it over. A panic in the Notifier is a fault that is tried again.
func (a *attempt) notify(ctx context.Context, r report) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicError{panicPlace()}
		}
	}()
	if r.Header, err = a.header(ctx); err != nil {
		return err
	}
	if r.Kind == noticeFailed && a.env.Return == ReturnFull && a.row.Octets <= maxFull { // RFC 3461 §4.3: of a failure alone
		if r.Message, err = a.message(ctx); err != nil {
			return err
		}
	}
	return a.n.Notify(ctx, r.mail())
}

// message reads all of the original.
func (a *attempt) message(ctx context.Context) ([]byte, error) {
	body, err := a.entry.Body(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// header reads the original's header: up to the empty line, whole lines, at most maxReturned octets.
func (a *attempt) header(ctx context.Context) ([]byte, error) {
	body, err := a.entry.Body(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var header []byte
	lines := bufio.NewReader(io.LimitReader(body, maxReturned))
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) || err == nil && len(line) <= 2 && (line[0] == '\n' || line[0] == '\r') {
			return header, nil
		}
		if err != nil {
			return nil, err
		}
		header = append(header, line...)
	}
}
