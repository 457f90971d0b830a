package imapserver

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"dimegate/vault/discovery"
	"dimegate/vault/discovery/access"
)

func slogErr(err error) slog.Attr { return slog.Any("error", err) }

const inbox = "INBOX" // the one mailbox there is

// A session is one connection. The engine calls it from one goroutine, but for end.
type session struct {
	*server
	engine *imapserver.Conn
	conn   *conn

	failures int
	who      *Credential // nil before the login
	timer    *time.Timer // of who's expiry
	ending   sync.WaitGroup

	view   []discovery.Item // the messages by sequence number, while a mailbox is selected
	cached message          // the last one that was taken apart
}

// The answers. A client's words and our errors are in none of them.
var (
	errReadOnly    = no(imap.ResponseCodeNoPerm, "This mailbox is read-only: nothing in it can be changed, removed or stored")
	errNoMailbox   = no(imap.ResponseCodeNonExistent, "There is no such mailbox: the case is in INBOX")
	errBadLogin    = no(imap.ResponseCodeAuthenticationFailed, "Unknown user or wrong password")
	errUsed        = no(imap.ResponseCodeAuthenticationFailed, "This credential has served its one session: ask for another")
	errTooManyTry  = no(imap.ResponseCodeAuthenticationFailed, "This credential is void after too many wrong passwords: ask for another")
	errOver        = no(imap.ResponseCodeExpired, "This credential or its case has expired")
	errNoRecord    = no(imap.ResponseCodeUnavailable, "The access record cannot be written now, so nothing is shown")
	errUnavailable = no(imap.ResponseCodeUnavailable, "The message cannot be opened now")
	errTooLarge    = no(imap.ResponseCodeLimit, "The message is too large to be taken apart: fetch it whole, BODY[]")
	errWithheld    = no(imap.ResponseCodeNoPerm, "One of the messages is withheld")
	errNoBinary    = no(imap.ResponseCodeCannot, "BINARY is not offered: fetch BODY")
	errSlow        = no(imap.ResponseCodeLimit, "The search took too long: narrow it by date, size or header")
)

func no(code imap.ResponseCode, text string) *imap.Error {
	return &imap.Error{Type: imap.StatusResponseTypeNo, Code: code, Text: text}
}

// Close is the engine's last call.
func (s *session) Close() error {
	if s.timer != nil && !s.timer.Stop() {
		s.ending.Wait()
	}
	s.cached.clear()
	if s.who != nil {
		s.note(access.Entry{What: access.Logout})
	}
	s.forget(s)
	return nil
}

// end tells the client why and closes the connection; the engine's goroutine then ends by itself.
func (s *session) end(why string) {
	s.conn.timed.endAt(time.Now())
	s.engine.Bye(why)
}

// Login takes a credential: right, of this case, in time, for the first time.
func (s *session) Login(user, password string) error {
	if s.over() {
		return errOver
	}
	if s.failures >= maxFailures {
		s.conn.timed.endAt(time.Now())
		return errBadLogin
	}
	c, err := s.Credentials.use(user, password, s.Case, time.Now())
	if err != nil {
		s.failures++
		if c != nil { // a user that exists: his tries are counted, so the record stays bounded
			if err := s.Record.Record(s.ctx, access.Entry{Person: c.Person, Credential: c.User, What: access.Refused}); err != nil {
				s.Log.Error("the access record cannot be written", slogErr(err))
			}
		}
		s.Log.Warn("mailbox login refused", slogErr(err))
		return loginReply(err)
	}
	s.who = c
	if err := s.record(access.Entry{What: access.Login}); err != nil {
		s.who = nil
		return err
	}
	s.conn.timed.endAt(c.Expires)
	s.ending.Add(1)
	s.timer = time.AfterFunc(time.Until(c.Expires), func() {
		defer s.ending.Done()
		s.end("This credential has expired")
	})
	return nil
}

func loginReply(err error) error {
	switch {
	case errors.Is(err, ErrCredentialUsed):
		return errUsed
	case errors.Is(err, ErrCredentialExpired):
		return errOver
	case errors.Is(err, ErrCredentialVoid):
		return errTooManyTry
	}
	return errBadLogin
}

// over tells whether the session's time is up; its connection has a deadline too, which strikes first.
func (s *session) over() bool {
	now := time.Now()
	return s.ctx.Err() != nil || !now.Before(s.Expires) || s.who != nil && !now.Before(s.who.Expires)
}

// record writes entries to the record, in the name of the session's person, before what they tell of is done.
func (s *session) record(entries ...access.Entry) error {
	for i := range entries {
		entries[i].Person, entries[i].Credential = s.who.Person, s.who.User
	}
	if err := s.Record.Record(s.ctx, entries...); err != nil {
		s.Log.Error("the access record cannot be written", slogErr(err))
		return errNoRecord
	}
	return nil
}

// note is record for what has happened already.
func (s *session) note(a access.Entry) {
	a.Person, a.Credential = s.who.Person, s.who.User
	if err := s.Record.Record(context.WithoutCancel(s.ctx), a); err != nil {
		s.Log.Error("the access record cannot be written", slogErr(err))
	}
}

// visible are the items that may be shown, by number.
func (s *session) visible() []discovery.Item {
	all := slices.DeleteFunc(slices.Clone(s.Items.Items()), discovery.Item.Withheld)
	sort.Slice(all, func(i, j int) bool { return all[i].Number < all[j].Number })
	return all
}

func (s *session) Select(mailbox string, _ *imap.SelectOptions) (*imap.SelectData, error) {
	if s.over() {
		return nil, errOver
	}
	if mailbox != inbox {
		return nil, errNoMailbox
	}
	s.view = s.visible()
	s.conn.selecting.Store(true)
	return &imap.SelectData{NumMessages: uint32(len(s.view)), UIDNext: s.uidNext(), UIDValidity: s.uidValidity()}, nil
}

// uidNext counts withheld items too: UIDs are the items' numbers.
func (s *session) uidNext() imap.UID {
	last := 0
	for _, i := range s.Items.Items() {
		last = max(last, i.Number)
	}
	return imap.UID(last + 1)
}

func (s *session) Unselect() error {
	s.view = nil
	s.cached.clear()
	return nil
}

func (s *session) Status(mailbox string, _ *imap.StatusOptions) (*imap.StatusData, error) {
	if s.over() {
		return nil, errOver
	}
	if mailbox != inbox {
		return nil, errNoMailbox
	}
	all := s.visible()
	var zero, n uint32 = 0, uint32(len(all))
	var octets, none int64
	for _, i := range all {
		octets += i.Octets
	}
	return &imap.StatusData{
		Mailbox: inbox, NumMessages: &n, NumRecent: &zero, UIDNext: s.uidNext(), UIDValidity: s.uidValidity(),
		NumUnseen: &n, NumDeleted: &zero, Size: &octets, AppendLimit: &zero, DeletedStorage: &none,
	}, nil
}

// maxPattern bounds what the engine's matching, which tries every way, is asked to do.
const maxPattern = 64

func (s *session) List(w *imapserver.ListWriter, ref string, patterns []string, o *imap.ListOptions) error {
	if s.over() {
		return errOver
	}
	if len(patterns) == 0 { // asks for the hierarchy delimiter
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}})
	}
	if !slices.ContainsFunc(patterns, func(p string) bool { return matches(ref, p) }) {
		return nil
	}
	data := &imap.ListData{Mailbox: inbox, Attrs: []imap.MailboxAttr{imap.MailboxAttrHasNoChildren}}
	if o.ReturnSubscribed || o.SelectSubscribed {
		data.Attrs = append(data.Attrs, imap.MailboxAttrSubscribed)
	}
	if o.ReturnStatus != nil {
		data.Status, _ = s.Status(inbox, o.ReturnStatus)
	}
	return w.WriteList(data)
}

func matches(ref, pattern string) bool {
	if len(pattern) > maxPattern {
		return false
	}
	for _, twice := range []string{"**", "*%", "%*", "%%"} { // there is no hierarchy: the two are one
		for strings.Contains(pattern, twice) {
			pattern = strings.ReplaceAll(pattern, twice, "*")
		}
	}
	return imapserver.MatchList(inbox, 0, ref, pattern)
}

// Poll tells of messages that were withheld since the mailbox was selected, as removed.
func (s *session) Poll(w *imapserver.UpdateWriter, allowExpunge bool) error {
	if s.over() {
		return errOver
	}
	if s.view == nil || !allowExpunge {
		return nil
	}
	shown := map[int]bool{}
	for _, i := range s.visible() {
		shown[i.Number] = true
	}
	for n := len(s.view) - 1; n >= 0; n-- {
		if shown[s.view[n].Number] {
			continue
		}
		s.view = slices.Delete(slices.Clone(s.view), n, n+1)
		if err := w.WriteExpunge(uint32(n + 1)); err != nil {
			return err
		}
	}
	return nil
}

// Idle has nothing to tell before the client's DONE: the next command does.
func (s *session) Idle(_ *imapserver.UpdateWriter, stop <-chan struct{}) error {
	<-stop
	return nil
}
