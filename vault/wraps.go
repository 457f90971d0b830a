package vault

// A Purpose says by which root key a wrap opens.
type Purpose uint8

const (
	WrapHost    Purpose = 2 // under the host seal: the queue's of a record's key, keys that open mail, shred keys
	WrapSigning Purpose = 3 // under the signing seal: keys that sign
)

// A destroyed key must be in no corner of the file. SQLite copies rows from page to page while a table's tree grows and shrinks,
// and what it leaves behind it does not clear in pages that it gives back: overwriting the row of today is not enough. Rows of
// wraps are therefore written where they stand: all are of one length, none is ever deleted, and a new one takes the place of
// one that is no longer used, or stands at the end, where SQLite begins a page and moves nothing.

// putWrap keeps a wrap of WrapSize octets. ErrExists when the owner has one of that purpose.
func (tx *Tx) putWrap(owner ID, p Purpose, wrap []byte) error {
	n, err := tx.change(`UPDATE wraps SET owner = ?, purpose = ?, wrap = ?, used = 1
		WHERE slot = (SELECT slot FROM wraps WHERE used = 0 LIMIT 1)`, owner[:], p, wrap)
	if err != nil || n == 1 {
		return err
	}
	return tx.exec(`INSERT INTO wraps (owner, purpose, wrap, used) VALUES (?, ?, ?, 1)`, owner[:], p, wrap)
}

// dropWrap overwrites an owner's wrap of a purpose, if there is one. It is out of the write-ahead log after Scrub.
func (tx *Tx) dropWrap(owner ID, p Purpose) error {
	return tx.exec(`UPDATE wraps SET wrap = zeroblob(length(wrap)), used = 0 WHERE owner = ? AND purpose = ? AND used = 1`, owner[:], p)
}
