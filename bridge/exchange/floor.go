package exchange

// A Floor is the weakest protection under which mail may leave for a destination. Below it nothing leaves.
type Floor uint8

// The floors, rising. The zero Floor is Hold: who forgets to set one sends nothing.
const (
	Hold          Floor = iota // nothing leaves until an administrator says so
	Opportunistic              // STARTTLS where it is offered, in the clear where it is not
	TLS                        // TLS with a certificate that a CA vouches for, for the next host's name
	MTASTS                     // an MTA-STS policy in mode enforce holds (RFC 8461), or better
	DANE                       // TLSA records prove the host, and DNSSEC proves that it is the domain's (RFC 7672)
	DIME                       // DMTP or nothing
)

var floors = [...]string{Hold: "hold", Opportunistic: "opportunistic", TLS: "tls", MTASTS: "mta-sts", DANE: "dane", DIME: "dime"}

func (f Floor) String() string {
	if int(f) < len(floors) {
		return floors[f]
	}
	return "?"
}

// ParseFloor is the inverse of String.
func ParseFloor(s string) (Floor, bool) {
	for f, name := range floors {
		if name == s {
			return Floor(f), true
		}
	}
	return Hold, false
}

// smtp tells whether a floor allows plain SMTP at all.
func (f Floor) smtp() bool { return f >= Opportunistic && f <= DANE }

// A Rung is how a session is protected.
type Rung uint8

const (
	Clear     Rung = iota
	Encrypted      // with whom, nobody knows
	Authentic      // the certificate holds for the host that was asked for
	Strict         // and an MTA-STS policy in mode enforce names the host
	Proven         // DNSSEC proves the host to be the domain's, and TLSA records the server to be the host
)

var rungs = [...]string{Clear: "clear", Encrypted: "encrypted", Authentic: "tls", Strict: "mta-sts", Proven: "dane"}

func (r Rung) String() string {
	if int(r) < len(rungs) {
		return rungs[r]
	}
	return "?"
}

// least is the lowest rung that a floor allows; what a floor without SMTP allows does not exist.
var least = map[Floor]Rung{Opportunistic: Clear, TLS: Authentic, MTASTS: Strict, DANE: Proven}

// Meets tells whether a rung is high enough for a floor.
func (r Rung) Meets(f Floor) bool {
	low, ok := least[f]
	return ok && r >= low
}
