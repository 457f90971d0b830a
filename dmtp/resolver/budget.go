package resolver

import "time"

// Limits on the work of one look-up, with all the chain it walks and the aliases it follows. An honest chain of four
// zones takes a dozen of each; the limits are what an attacker can make us do (KeyTrap).
const (
	maxQueries     = 64
	maxSignatures  = 96  // signature verifications
	maxHashes      = 192 // NSEC3 hashes, of up to maxIterations rounds each
	maxAliases     = 8   // CNAME and DNAME steps
	maxSigsPerSet  = 8   // RRSIGs tried for one RRset
	maxKeysPerTag  = 4   // keys of one tag and algorithm tried for one RRSIG
	maxKeysPerZone = 32
	maxDSPerZone   = 16
	maxDenialSets  = 12  // NSEC or NSEC3 records of one answer
	maxIterations  = 150 // NSEC3: above, the zone is insecure (RFC 9276 §3.2)
	maxZoneDepth   = 32  // labels walked from the anchor down
)

// A budget counts down the work of one look-up. It belongs to one goroutine.
type budget struct {
	now                         time.Time
	shift                       uint32 // which resolver comes first: moved on to get a second opinion
	queries, signatures, hashes int
}

func newBudget(now time.Time, shift uint32) *budget {
	return &budget{now: now, shift: shift, queries: maxQueries, signatures: maxSignatures, hashes: maxHashes}
}

func spend(left *int) error {
	if *left <= 0 {
		return errLimit
	}
	*left--
	return nil
}

func (b *budget) query() error     { return spend(&b.queries) }
func (b *budget) signature() error { return spend(&b.signatures) }
func (b *budget) hash() error      { return spend(&b.hashes) }
