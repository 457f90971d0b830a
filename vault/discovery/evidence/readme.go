package evidence

import (
	"fmt"
	"strings"
	"time"

	"dimegate/vault/discovery"
)

// readme tells a reader who knows nothing of the product what he has before him.
func readme(c *discovery.CaseRecord) []byte {
	m, e := c.Head.Manifest, c.Epochs[len(c.Epochs)-1]
	var b strings.Builder
	fmt.Fprintf(&b, `EVIDENCE PACKAGE OF CASE %v

Organisation       %s
Requested by       %s
Basis              %s
Case opened        %s
Case expires       %s
Opened by          %d of %d officers, each of whom decided alone

What this is

The messages of this case, octet for octet as the organisation's mail gateway took or sent them, with the papers by which anyone can
check, without the organisation, its machines or a network, that

  - each message and the addresses on its envelope are those that the gateway entered in its log when the message crossed it;
  - that log was seen and cosigned by at least one witness outside, so that nothing in it was changed afterwards;
  - each message is one of those that the request names, and the officers listed under data/answers approved exactly this request;
  - nothing was added, taken away or changed since the requester signed the package.

How to check it

With the program (any copy, on any machine; no network is needed):

    gateway evidence verify %s.zip

It says for every message what is proved, and from which keys it starts. Compare these keys with what the organisation's officers, the
keeper of the log and the witnesses tell you themselves, or put them into a file and name it with --trust: then the program compares.

With common tools, that the files are those that were listed: unpack the ZIP file, go into the folder, and run

    sha256sum -c manifest-sha256.txt
    sha256sum -c tagmanifest-sha256.txt

Where things are

    data/messages/NUMBER/message.eml    a message; open it with any mail program
    data/messages/NUMBER/message.json   its envelope, and its proofs
    data/messages/NUMBER/exhibits/      what belongs to it: the sealed object that was sent, decisions, keys and DNS answers as seen
    data/withheld.jsonl                 what the case names and the package does not have, with the reason
    data/custody.jsonl                  who did what, and when
    data/case/, data/answers/           the request, and the officers' signed answers
    data/escrow/, data/log/             keys, and the state of the log with its signatures

What it does not prove

That a message says the truth, or that its author is who it names: the gateway logs what crossed it. That these are all messages that
exist: mail that did not cross the gateway is not in its archive. That the officers were right to approve. The exhibits' contents and
the lines of the custody record without a leaf are the requester's word, under the requester's signature.
`, m.Case, c.Key.Organisation, m.Requester, m.Basis, m.Opened.Format(time.RFC3339), m.Expires.Format(time.RFC3339), e.Quorum, len(e.Officers), Name(m))
	return []byte(b.String())
}
