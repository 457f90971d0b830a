package message

import (
	"errors"
	"path"
	"testing"

	"dimegate/internal/vectors"
)

type negativeVector struct {
	Name, File, Mutation string
	Size                 int
	Libdime              map[string]struct {
		Answer, Asan string
		Errors       []string
	}
}

// refusals says what each negative message must be answered, an error (class or outcome) an actor or nil for accept. The first
// pattern that matches counts. Where the octets of a set decide between classes, the outcome stands.
var refusals = []struct {
	pattern                                string
	author, origin, destination, recipient error
}{
	all("trunc-*", Truncated),
	all("header-only", ChunkMissing),
	all("bad-magic", BadMagic),
	all("magic-swapped", BadMagic),
	all("magic-tracing", Malformed),
	all("trailing-1", BadLength),
	all("trailing-1-lenfixed", Truncated),
	all("trailing-4-lenfixed", ChunkOrder),
	all("trailing-display-lenfixed", ChunkOrder),
	all("len-minus-1", BadLength),
	all("len-plus-1", Truncated),
	all("chunklen-overrun", Truncated),
	all("chunklen-plus16", Malformed),
	all("chunklen-minus1", BadPayloadSize),
	all("chunklen-zero", BadPayloadSize),
	all("eph-short", BadPayloadSize),
	all("eph-long", BadPayloadSize),
	all("eph-empty", BadPayloadSize),
	all("eph-infinity", BadEphemeral),
	all("eph-offcurve", BadEphemeral),
	author("eph-negated", SigTree),
	all("sig-len-*", BadPayloadSize),
	all("unknown-type-alternate", ReservedChunkType),
	all("unknown-type-66", ReservedChunkType),
	all("unknown-type-130", ReservedChunkType),
	all("unknown-type-*", BadChunkType),
	all("order-*", ChunkOrder),
	author("dup-67", SigTree), // another message, structurally sound
	author("dup-131", SigTree),
	all("dup-*", ChunkRepeated),
	author("missing-34", SigTree),
	author("missing-67", SigTree),
	{"missing-24[89]", nil, nil, SigOrigin, SigOrigin},
	all("missing-*", ChunkMissing),
	all("flip-payload-2", nil), // on the curve or not: see below
	author("flip-payload-4", SigChunk),
	{"flip-payload-5", SigChunk, SigAuthor, SigOrigin, SigChunk},
	author("flip-payload-226", SigAuthor),
	{"flip-payload-24[89]", nil, nil, SigOrigin, SigOrigin},
	{"flip-payload-255", nil, nil, SigOrigin, SigOrigin},
	author("flip-payload-*", SigTree),
	{"flip-slot-4-author", NotAuthentic, SigTree, SigOrigin, SigTree},
	{"flip-slot-4-origin", SigTree, NotAuthentic, SigOrigin, SigTree},
	{"flip-slot-4-recipient", SigTree, SigTree, SigOrigin, NotAuthentic},
	author("flip-slot-67-*", SigTree),
	{"flip-slot-255-destination", nil, nil, SigOrigin, nil},
	{"flip-slot-255-recipient", nil, nil, nil, SigOrigin},
	all("flip-slot-255-*", nil),
	author("flip-padding-67", SigTree),
	all("foreign-good", nil),
	all("foreign-tree-correct", nil),
	{"foreign-tree-zero", SigTree, SigTree, nil, SigTree},
	{"foreign-full-zero", SigAuthor, SigAuthor, nil, SigAuthor},
	{"foreign-wrong-author-key", SigChunk, SigChunk, nil, SigChunk},
	{"foreign-wrong-origin-key", nil, nil, SigOrigin, SigOrigin},
	{"foreign-origin-unsigned", nil, nil, SigOrigin, SigOrigin},
	content("foreign-bad-chunk-sig-*", SigChunk),
	all("foreign-no-*", nil),
	content("foreign-empty-display", BadDataLength),
	content("foreign-padding-wrong-*", BadPadding),
	content("foreign-padding-none", BadPadding),
	content("foreign-padding-512", BadPadding),
	all("foreign-padding-*", nil),
	all("foreign-altpad-*", nil),
	content("foreign-datasize-overrun", BadDataLength),
	content("foreign-datasize-short", BadPadding),
	all("foreign-header-order", nil),
	content("foreign-header-missing-subject", HeaderMissing),
	content("foreign-header-empty", BadDataLength),
	content("foreign-header-*", BadHeaders),
	{"foreign-envelope-wrong-fp", FingerprintMismatch, FingerprintMismatch, nil, FingerprintMismatch},
	{"foreign-envelope-wrong-author", EnvelopeMismatch, EnvelopeMismatch, nil, EnvelopeMismatch},
	{"foreign-envelope-*", BadEnvelope, BadEnvelope, nil, BadEnvelope},
	all("foreign-chunks-swapped-content", BadEnvelope),
	all("foreign-uncompressed-ephemeral", BadPayloadSize),
}

type refusal = struct {
	pattern                                string
	author, origin, destination, recipient error
}

// all: seen by everybody. author: something that the author signed, and the origin after him. content: seen in chunks that
// author and recipient alone open.
func all(p string, e error) refusal     { return refusal{p, e, e, e, e} }
func author(p string, e error) refusal  { return refusal{p, e, e, SigOrigin, e} }
func content(p string, e error) refusal { return refusal{p, e, nil, nil, e} }

// Where our answer is another than libdime's, an exception an actor, with its reason (vectors README).
var (
	negativeStricter = [4]vectors.Exceptions{Author: stricter(true, true, true), Origin: stricter(true, false, true),
		Destination: stricter(false, false, false), Recipient: stricter(false, true, true)}
	negativeLenient = [4]vectors.Exceptions{Author: lenient(true), Origin: lenient(false), Recipient: lenient(true)}
)

func stricter(lengths, contents, envelopes bool) vectors.Exceptions {
	x := vectors.Exceptions{
		"trailing-display-lenfixed": "a chunk out of order",
		"order-*":                   "one message has one form: libdime takes any order",
		"dup-2":                     "one message has one form: libdime lets a repeat replace the first",
		"dup-4":                     "likewise",
		"dup-33":                    "likewise",
		"dup-225":                   "likewise",
		"dup-255":                   "likewise",
	}
	if lengths {
		x["sig-len-0"] = "a signature is 64 octets, whoever looks at it"
	}
	if contents {
		x["foreign-padding-none"] = "there is always padding: libdime counts it in one octet"
		x["foreign-padding-512"] = "there are at most 256 octets: libdime counts it in one octet"
		x["foreign-header-lf"] = "a line ends with CRLF: libdime loses the last character"
		x["foreign-header-missing-subject"] = "a required label: libdime does not look"
	}
	if envelopes {
		x["foreign-envelope-trailing"] = "exactly four lines"
		x["foreign-envelope-empty-address"] = "an address has characters"
		x["foreign-envelope-wrong-fp"] = "the signet is not the one that the author meant: libdime does not compare"
		x["foreign-envelope-wrong-author"] = "the signet is somebody else's: libdime does not compare"
	}
	return x
}

func lenient(contents bool) vectors.Exceptions {
	x := vectors.Exceptions{"foreign-tree-correct": "the tree signature without libdime's slip proves more"}
	if contents {
		x["foreign-no-other-headers"] = "nothing needs other headers"
		x["foreign-altpad-1"] = "padded as the format says: libdime's reader has it wrong"
		x["foreign-altpad-3"] = "likewise"
	}
	return x
}

func TestVectorsNegativeMessages(t *testing.T) {
	w := openWorld(t)
	c := w.cast(t, w.message(t, "simple").Actors)
	list := vectors.Part[[]negativeVector](t, w.set, "negative_messages")
	var names []string
	vectors.Each(t, list, func(v negativeVector) string { return v.Name }, func(t *testing.T, v negativeVector) {
		names = append(names, v.Name)
		b := w.set.File(t, v.File)
		if len(b) != v.Size {
			t.Errorf("%d octets, want %d", len(b), v.Size)
		}
		var want *refusal
		for i, r := range refusals {
			if ok, _ := path.Match(r.pattern, v.Name); ok {
				want = &refusals[i]
				break
			}
		}
		if want == nil {
			t.Fatal("a case that the test does not know")
		}
		for a, class := range []error{want.author, want.origin, want.destination, want.recipient} {
			_, content, err := read(b, Actor(a), c.pairs[a].Encryption, c.Parties)
			switch {
			case v.Name == "flip-payload-2":
				if err == nil {
					t.Errorf("%v: accepted", Actor(a))
				}
			case class == nil && err != nil, class != nil && !errors.Is(err, class):
				t.Errorf("%v: %v, want %v", Actor(a), err, class)
			}
			if err != nil && content != nil {
				t.Errorf("%v: content beside an error", Actor(a))
			}
			libdime := v.Libdime[actorNames[a]].Answer
			stricter := libdime == "accept" && err != nil
			lenient := libdime != "accept" && err == nil
			if stricter != negativeStricter[a].Has(t, v.Name) || lenient != negativeLenient[a].Has(t, v.Name) {
				t.Errorf("%v: %v, libdime: %s", Actor(a), err, libdime)
			}
		}
	})
	for a := range actorNames {
		negativeStricter[a].Stale(t, w.set, names)
		negativeLenient[a].Stale(t, w.set, names)
	}
}
