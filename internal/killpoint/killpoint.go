// Package killpoint names the moments around everything that is durable, and lets a test bed end the process there as a
// power cut would. In the program as it is shipped there is nothing of it: only under the build tag killpoints does Here do
// anything, and only there is the environment looked at.
package killpoint

// A Point is one moment, by name.
type Point string

// What the environment says to a program with the tag: the file to which every passing is appended, and "POINT N", at whose N-th passing the process
// ends; "" for neither.
const (
	TraceVariable = "DIMEGATE_KILLPOINT_TRACE"
	ArmVariable   = "DIMEGATE_KILLPOINT"
)

// The origin's points.
const (
	AcceptBefore Point = "accept-before" // a message is read and sealed, its commit is still to come
	AcceptAfter  Point = "accept-after"  // it is durable, and the mail server has no 250 yet
	ClaimAfter   Point = "claim-after"   // an entry is leased for a delivery
	BuiltBefore  Point = "built-before"  // the sealed message is made, and not kept
	BuiltAfter   Point = "built-after"   // it is kept, and no octet of it was sent
	ReplyAfter   Point = "reply-after"   // the destination has taken it, and nobody wrote that down
	OutcomeAfter Point = "outcome-after" // what became of an entry is durable
	NoticeAfter  Point = "notice-after"  // the mail server has the notice, and the entry still owes it
)

// The destination's points.
const (
	IntentBefore Point = "intent-before" // a message is proved and opened, its intent is still to come
	IntentAfter  Point = "intent-after"  // the intent is durable, and the mail server knows of nothing
	VerdictAfter Point = "verdict-after" // the mail server has answered, and nobody wrote that down
	SettledAfter Point = "settled-after" // the outcome is durable, and the origin has no answer
)

// The vault's points, in whichever gateway.
const (
	FileAfter    Point = "file-after"    // a body's file is on disk, and no row names it
	CommitBefore Point = "commit-before" // a batch of transactions has run, and is not durable
	CommitAfter  Point = "commit-after"  // it is durable; nobody was told, and the files of what went are still there
)

// All of them, by the gateways in which they are passed.
var (
	Origin      = []Point{AcceptBefore, AcceptAfter, ClaimAfter, BuiltBefore, BuiltAfter, ReplyAfter, OutcomeAfter, NoticeAfter, FileAfter, CommitBefore, CommitAfter}
	Destination = []Point{IntentBefore, IntentAfter, VerdictAfter, SettledAfter, FileAfter, CommitBefore, CommitAfter}
)
