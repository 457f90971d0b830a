package message

import (
	"fmt"
	"math/bits"
)

// An Actor is one of the four: a message has exactly one of each.
type Actor uint8

const (
	Author Actor = iota
	Origin
	Destination
	Recipient
)

var actorNames = [...]string{"author", "origin", "destination", "recipient"}

func (a Actor) String() string {
	if int(a) < len(actorNames) {
		return actorNames[a]
	}
	return fmt.Sprintf("actor %d", uint8(a))
}

// A Type is the first octet of a chunk.
type Type uint8

const (
	TypeEphemeral       Type = 2
	TypeOrigin          Type = 4
	TypeDestination     Type = 5
	TypeCommon          Type = 33
	TypeOther           Type = 34
	TypeDisplay         Type = 67
	TypeAttachment      Type = 131
	TypeAuthorTree      Type = 225
	TypeAuthorFull      Type = 226
	TypeMetadataBounce  Type = 248
	TypeDisplayBounce   Type = 249
	TypeOriginSignature Type = 255
)

// slots is a set of actors: those that have a keyslot in a chunk, which stand in the order A, O, D, R.
type slots uint8

const (
	slotsAR   = 1<<Author | 1<<Recipient
	slotsAOR  = slotsAR | 1<<Origin
	slotsADR  = slotsAR | 1<<Destination
	slotsAODR = slotsAOR | 1<<Destination
)

func (s slots) has(a Actor) bool { return s&(1<<a) != 0 }
func (s slots) count() int       { return bits.OnesCount8(uint8(s)) }

// index is the place of a's slot among the chunk's.
func (s slots) index(a Actor) int { return bits.OnesCount8(uint8(s & (1<<a - 1))) }

// A form is how a payload is built (dmime.md §3).
type form uint8

const (
	reserved  form = iota + 1 // named somewhere, defined nowhere: refused
	ephemeral                 // a point, in the clear
	standard                  // signature, size, flags, pad octet, data, padding
	signature                 // 64 octets
)

// kinds is the grammar of number 1847, a row a chunk type; what has no form does not exist. The order of types is the order
// of chunks. Source: libdime dmessage/dmsg.c dmime_chunk_keys (whose columns "required", "unique" and "sequential" nothing
// reads and are partly inverted); the reserved ones are named in its comments only.
var kinds = [256]struct {
	name     string
	form     form
	slots    slots
	required bool
	many     bool
	flags    byte // the flags that have a meaning here, padding included
}{
	TypeEphemeral:       {name: "ephemeral", form: ephemeral, required: true},
	3:                   {name: "alternate", form: reserved},
	TypeOrigin:          {name: "origin", form: standard, slots: slotsAOR, required: true, flags: flagAltPadding},
	TypeDestination:     {name: "destination", form: standard, slots: slotsADR, required: true, flags: flagAltPadding},
	TypeCommon:          {name: "common-headers", form: standard, slots: slotsAR, required: true, flags: flagAltPadding | flagAltLayer | flagGzip},
	TypeOther:           {name: "other-headers", form: standard, slots: slotsAR, flags: flagAltPadding | flagAltLayer | flagGzip},
	65:                  {name: "display-multi", form: reserved},
	66:                  {name: "display-alt", form: reserved},
	TypeDisplay:         {name: "display", form: standard, slots: slotsAR, many: true, flags: flagAltPadding | flagAltLayer | flagGzip | FlagContinues},
	129:                 {name: "attach-multi", form: reserved},
	130:                 {name: "attach-alt", form: reserved},
	TypeAttachment:      {name: "attachment", form: standard, slots: slotsAR, many: true, flags: flagAltPadding | flagAltLayer | flagGzip | FlagContinues},
	TypeAuthorTree:      {name: "author-tree-sig", form: signature, slots: slotsAOR, required: true},
	TypeAuthorFull:      {name: "author-full-sig", form: signature, slots: slotsAOR, required: true},
	TypeMetadataBounce:  {name: "origin-meta-bounce-sig", form: signature, slots: slotsAODR},
	TypeDisplayBounce:   {name: "origin-display-bounce-sig", form: signature, slots: slotsAODR},
	TypeOriginSignature: {name: "origin-full-sig", form: signature, slots: slotsAODR, required: true},
}

// The flags of a standard chunk (dmime.md §5). Bits 3 to 6 are reserved.
const (
	flagAltPadding byte = 1   // padded by the alternate algorithm: read, never written
	flagAltLayer   byte = 2   // data under the alternate layer
	flagGzip       byte = 4   // data is one gzip member
	FlagContinues  byte = 128 // the object goes on in the next chunk of the same type
)

func (t Type) String() string {
	if n := kinds[t].name; n != "" {
		return n
	}
	return "unknown"
}

const (
	tracingNumber  = 1837
	messageNumber  = 1847
	nakedNumber    = 1908 // PRIME's messages without author and origin
	messageHeader  = 6
	tracingHeader  = 4
	chunkHeader    = 4
	slotSize       = 64
	signatureSize  = 64
	ephemeralSize  = 33
	blockSize      = 16
	standardHeader = signatureSize + 3 + 1 + 1 // what stands before the data: signature, u24 size, flags, pad octet
)

// A chunk is where one lies. The octets stay in the message's.
type chunk struct {
	typ     Type
	start   int // of its header
	payload int // octets of payload
}

func (c chunk) end() int {
	return c.start + chunkHeader + c.payload + slotSize*kinds[c.typ].slots.count()
}
