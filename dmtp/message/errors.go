package message

import "fmt"

// A Class says which rule of the format a message broke (dmime.md §15.1). It is an error itself, so that a caller can ask
// errors.Is(err, message.SigTree). Classes are for logs and tests: a network peer learns the Outcome only.
type Class uint8

// The classes, in the order in which a reader meets them.
const (
	Truncated           Class = iota + 1 // a length runs past the input
	BadLength                            // the message header's length is not that of the rest
	BadMagic                             // not number 1847, after at most one tracing block
	UnsupportedVariant                   // PRIME's numbering, or its naked messages (1908)
	BadTracing                           // empty, doubled, or over the limit
	TooLarge                             // over a limit, of ours or of the peer
	BadChunkType                         // no such chunk
	ReservedChunkType                    // 3, 65, 66, 129, 130
	ChunkOrder                           // a lower type after a higher one
	ChunkRepeated                        // a second chunk of a type that comes once
	ChunkMissing                         // 2, 4, 5, 33, 225, 226 or 255 is not there
	BadPayloadSize                       // not 33 (ephemeral), 64 (signature), or a multiple of 16 from 80 on (standard)
	BadEphemeral                         // no point of the curve
	NoSlot                               // the actor has no slot in that chunk: a fault of the caller
	BadDataLength                        // the data overruns its payload, or is empty
	BadPadding                           // wrong length, octet or fill
	BadFlags                             // a reserved flag, or one that has no meaning on its chunk
	BadEnvelope                          // chunk 4 or 5 is not exactly its four lines
	FingerprintMismatch                  // a signet is not the one whose fingerprint the author wrote
	SignetInvalid                        // a signet that is needed is missing or cannot serve
	EnvelopeMismatch                     // names do not belong together (dmime.md §15.4)
	SigChunk                             // the author's signature inside a chunk
	SigTree                              // the author's tree signature (225)
	SigAuthor                            // the author's full signature (226)
	SigBounce                            // the origin's 248 or 249 is wrong, or still zeros
	SigOrigin                            // the origin's 255 is wrong, or still zeros
	BadHeaders                           // chunk 33 breaks its grammar
	HeaderMissing                        // chunk 33 lacks Date, To, From or Subject
	BadLayout                            // the layout block of chunk 34 (package translate)
	HeaderMismatch                       // chunk 33 is not what chunk 34 says (package translate)
	BadSpan                              // flag 128 on a last piece, or before another type
	Replay                               // the message id was delivered before (package dmtpserver)
	BadCompression                       // gzip error, octets behind it, or over the cap
	AltUnknown                           // the alternate layer (dmime.md §17), of a version or suite unknown to us
	AltNoKey                             // … without a box for our key
	AltAuth                              // … that does not authenticate
	AltPolicy                            // … demanded and not to be had
)

// An Outcome is all that a peer may learn of a Class, and an error in the same way: errors.Is(err, message.NotAuthentic).
type Outcome uint8

const (
	Malformed    Outcome = iota + 1 // seen without any key, or in what is authentic
	NotAuthentic                    // everything from the first decryption to the last signature and binding
	Policy                          // well-formed and authentic as far as was looked, but not wanted
)

// classes is the one place that knows a class's name and outcome.
var classes = [...]struct {
	name    string
	outcome Outcome
}{
	0:                   {"unclassified", Malformed},
	Truncated:           {"Truncated", Malformed},
	BadLength:           {"BadLength", Malformed},
	BadMagic:            {"BadMagic", Malformed},
	UnsupportedVariant:  {"UnsupportedVariant", Malformed},
	BadTracing:          {"BadTracing", Malformed},
	TooLarge:            {"TooLarge", Policy},
	BadChunkType:        {"BadChunkType", Malformed},
	ReservedChunkType:   {"ReservedChunkType", Malformed},
	ChunkOrder:          {"ChunkOrder", Malformed},
	ChunkRepeated:       {"ChunkRepeated", Malformed},
	ChunkMissing:        {"ChunkMissing", Malformed},
	BadPayloadSize:      {"BadPayloadSize", Malformed},
	BadEphemeral:        {"BadEphemeral", Malformed},
	NoSlot:              {"NoSlot", Policy},
	BadDataLength:       {"BadDataLength", NotAuthentic},
	BadPadding:          {"BadPadding", NotAuthentic},
	BadFlags:            {"BadFlags", NotAuthentic},
	BadEnvelope:         {"BadEnvelope", NotAuthentic},
	FingerprintMismatch: {"FingerprintMismatch", NotAuthentic},
	SignetInvalid:       {"SignetInvalid", NotAuthentic},
	EnvelopeMismatch:    {"EnvelopeMismatch", NotAuthentic},
	SigChunk:            {"SigChunk", NotAuthentic},
	SigTree:             {"SigTree", NotAuthentic},
	SigAuthor:           {"SigAuthor", NotAuthentic},
	SigBounce:           {"SigBounce", NotAuthentic},
	SigOrigin:           {"SigOrigin", NotAuthentic},
	BadHeaders:          {"BadHeaders", Malformed},
	HeaderMissing:       {"HeaderMissing", Malformed},
	BadLayout:           {"BadLayout", Malformed},
	HeaderMismatch:      {"HeaderMismatch", Malformed},
	BadSpan:             {"BadSpan", Malformed},
	Replay:              {"Replay", Policy},
	BadCompression:      {"BadCompression", Malformed},
	AltUnknown:          {"AltUnknown", Policy},
	AltNoKey:            {"AltNoKey", Policy},
	AltAuth:             {"AltAuth", NotAuthentic},
	AltPolicy:           {"AltPolicy", Policy},
}

// String is the class's name in dmime.md §15.1.
func (c Class) String() string {
	if int(c) >= len(classes) {
		c = 0
	}
	return classes[c].name
}

// Outcome is what a peer may learn.
func (c Class) Outcome() Outcome {
	if int(c) >= len(classes) {
		c = 0
	}
	return classes[c].outcome
}

func (c Class) Error() string { return "message: " + c.String() }

func (o Outcome) String() string {
	switch o {
	case NotAuthentic:
		return "not authentic"
	case Policy:
		return "policy"
	}
	return "malformed"
}

func (o Outcome) Error() string { return "message: " + o.String() }

// An Error says where a message breaks which rule. It quotes nothing of the message. Errors.Is finds its Class and its Outcome.
type Error struct {
	Class  Class
	Chunk  Type // the chunk's type; 0 when it is no matter of one chunk
	Offset int  // of the chunk or the octet, from the start of the message, where that helps; else 0
	Reason string
	Err    error // what made it, if another package did
}

func (e *Error) Error() string {
	text := "message: "
	if e.Chunk != 0 {
		text += fmt.Sprintf("chunk %d (%v): ", uint8(e.Chunk), e.Chunk)
	}
	text += e.Class.String() + ": " + e.Reason
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Is reports whether target is e's class or its outcome.
func (e *Error) Is(target error) bool { return target == e.Class || target == e.Class.Outcome() }

func (e *Error) Unwrap() error { return e.Err }

func fail(c Class, t Type, format string, a ...any) *Error {
	return &Error{Class: c, Chunk: t, Reason: fmt.Sprintf(format, a...)}
}
