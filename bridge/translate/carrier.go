package translate

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"time"

	"dimegate/dmtp/signet"
)

// SealedType is the media type of a D/MIME message within a mail.
const SealedType = "application/vnd.dime-message"

// A Carrier is a plain mail that brings a D/MIME message to a recipient who has the keys himself, with what he needs to open it and
// we know: the signets of the origin and of himself. It says nothing of what is in the message, nor who wrote it: that is sealed.
type Carrier struct {
	Message         []byte   // as it came
	ID              [64]byte // of the message
	Recipient       string
	RecipientSignet *signet.Signet
	Origin          string
	OriginSignet    *signet.Signet
	Destination     string // the recipient's domain, whose postmaster the mail is from
	Now             time.Time
}

const carrierText = `This mail brings a message that is sealed to your own key. Your mail server
could not open it, and its sender's name is inside. It came from %[1]s,
which is proved.

Save the attachments in one folder, and open the message with your key file:

  gateway message open --as recipient --keys YOUR.key \
    --origin-signet origin.signet --recipient-signet recipient.signet \
    --author-signet author.signet --eml message.eml message.dmsg

The author's signet is not here, since nobody but you can know who it is.
Leave --author-signet out to be told, and then get it from his domain:

  gateway signet fetch --out author.signet ADDRESS
`

// Export makes the mail. Its return path is the null one: nothing about it can be told to anybody.
func (c Carrier) Export() *Exported {
	id := hex.EncodeToString(c.ID[:16])
	boundary := "=_" + id
	header := fmt.Appendf(nil, "From: <postmaster@%s>\r\nTo: <%s>\r\nDate: %s\r\nMessage-ID: <%s@%s>\r\nSubject: Sealed message\r\n"+
		"MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=\"%s\"\r\n",
		c.Destination, c.Recipient, c.Now.Format(time.RFC1123Z), id, c.Destination, boundary)
	part := func(fields string, a ...any) []byte {
		return fmt.Appendf(nil, "\r\n--"+boundary+"\r\n"+fields+"\r\n", a...)
	}
	e := &Exported{Return: NullPath, HasReturn: true, pieces: octets{{data: header}, {data: crlf}}}
	add := func(b ...[]byte) { e.pieces = append(e.pieces, piece{data: bytes.Join(b, nil)}) }
	lines := func(text []byte) []byte { return bytes.ReplaceAll(text, []byte("\n"), crlf) }
	add(part("Content-Type: text/plain; charset=us-ascii\r\n"), lines(fmt.Appendf(nil, carrierText, c.Origin)))
	add(part("Content-Type: %s; name=\"message.dmsg\"\r\nContent-Disposition: attachment; filename=\"message.dmsg\"\r\n"+
		"Content-Transfer-Encoding: base64\r\n", SealedType))
	e.pieces = append(e.pieces, piece{data: c.Message, b64: true})
	for _, s := range []struct {
		name   string
		signet *signet.Signet
	}{{"origin", c.OriginSignet}, {"recipient", c.RecipientSignet}} {
		add(part("Content-Type: text/plain; charset=us-ascii; name=\"%[1]s.signet\"\r\nContent-Disposition: attachment; filename=\"%[1]s.signet\"\r\n", s.name),
			lines(s.signet.Armored()))
	}
	add([]byte("\r\n--" + boundary + "--\r\n"))
	return e
}
