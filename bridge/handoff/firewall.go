package handoff

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"dimegate/bridge/translate"
)

// ErrHiddenHeader means that a header block has a CR or LF that is no line end, or a NUL. The next program may see fields
// there that we do not, so nothing of it is handed over.
var ErrHiddenHeader = errors.New("handoff: CR, LF or NUL within a header line")

// A Firewall takes fields out of mail from outside that the inner server or its users would believe to be ours or their own.
type Firewall struct {
	// AuthServIDs are the authentication service identifiers of the gateway and the inner servers: Authentication-Results
	// that claim one of them are forged (RFC 8601 §5). Lower case.
	AuthServIDs []string
	// KeepExchange leaves the fields that only Exchange believes: for inner servers that are none.
	KeepExchange bool
}

// outside are the prefixes of fields that mean something only when they were added inside, exchange those of them that mean
// something to Exchange: to an organization, a forest, or the two halves of a hybrid. The fields by which Exchange finds
// loops (X-MS-Exchange-ForwardingLoop, X-MS-Exchange-Inbox-Rules-Loop, X-EOPAttributedMessage) do not begin so, and stay.
var (
	outside  = []string{"X-DIME"}
	exchange = []string{"X-MS-Exchange-Organization-", "X-MS-Exchange-CrossPremises-", "X-MS-Exchange-Forest-"}
)

// Filter removes such fields from a message that came from outside, and tells which.
func (fw Firewall) Filter(m translate.Message) (translate.Message, []translate.Change, error) {
	if translate.LoneEnds(m.Header) || bytes.IndexByte(m.Header, 0) >= 0 {
		return translate.Message{}, nil, ErrHiddenHeader
	}
	m, gone := translate.Without(m, func(f translate.Field) bool {
		return slices.ContainsFunc(outside, f.HasPrefix) || !fw.KeepExchange && slices.ContainsFunc(exchange, f.HasPrefix) ||
			f.Is("Authentication-Results") && fw.ours(f.Value())
	})
	return m, gone, nil
}

// ours tells whether an Authentication-Results field claims to be ours: its first word, behind comments.
func (fw Firewall) ours(value string) bool {
	for {
		value = strings.TrimLeft(value, " \t")
		if !strings.HasPrefix(value, "(") {
			break
		}
		depth, i := 0, 0
		for ; i < len(value); i++ {
			switch value[i] {
			case '\\':
				i++
			case '(':
				depth++
			case ')':
				depth--
			}
			if depth == 0 {
				i++
				break
			}
		}
		value = value[min(i, len(value)):]
	}
	if i := strings.IndexAny(value, " \t;("); i >= 0 {
		value = value[:i]
	}
	value = strings.ToLower(strings.Trim(strings.TrimSuffix(value, "."), `"`))
	for _, id := range fw.AuthServIDs {
		if value == id {
			return true
		}
	}
	return false
}
