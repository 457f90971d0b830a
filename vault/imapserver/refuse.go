package imapserver

import (
	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
)

// Everything that would change something is refused with NO, in the same words. Commands of extensions that are not offered (SETACL,
// SETMETADATA, SETQUOTA, REPLACE and others) the engine does not know: BAD.

var (
	_ imapserver.Session     = (*session)(nil)
	_ imapserver.SessionMove = (*session)(nil)
)

func (*session) Create(string, *imap.CreateOptions) error         { return errReadOnly }
func (*session) Delete(string) error                              { return errReadOnly }
func (*session) Rename(string, string, *imap.RenameOptions) error { return errReadOnly }
func (*session) Subscribe(string) error                           { return errReadOnly }
func (*session) Unsubscribe(string) error                         { return errReadOnly }

// Append leaves the literal to the engine, which reads it away.
func (*session) Append(string, imap.LiteralReader, *imap.AppendOptions) (*imap.AppendData, error) {
	return nil, errReadOnly
}

func (*session) Store(*imapserver.FetchWriter, imap.NumSet, *imap.StoreFlags, *imap.StoreOptions) error {
	return errReadOnly
}

func (*session) Copy(imap.NumSet, string) (*imap.CopyData, error) { return nil, errReadOnly }

func (*session) Move(*imapserver.MoveWriter, imap.NumSet, string) error { return errReadOnly }

// Expunge is called for EXPUNGE and UID EXPUNGE, which are refused, and for CLOSE, which removes nothing of a read-only mailbox and
// is no error (RFC 9051 §6.4.1): the engine gives CLOSE a writer that is empty.
func (*session) Expunge(w *imapserver.ExpungeWriter, uids *imap.UIDSet) error {
	if uids == nil && *w == (imapserver.ExpungeWriter{}) {
		return nil
	}
	return errReadOnly
}
