package resolver

import (
	"context"
	"crypto/tls"
)

// A Host is one DX of a domain.
type Host struct {
	Name string `json:"name"` // the certificate is checked for it
	Dual bool   `json:"dual"` // found by MX: when port 26 fails, STARTTLS on the shared port 25 may be tried
	From string `json:"from"` // "dx", "mx" or "domain"
}

// A Target is where a domain's DX can be reached and how it is told to be the right one.
type Target struct {
	Domain string
	Hosts  []Host // in the order in which to try them
	// Verify decides about the certificate of a host, inside or right after the handshake and before anything is said.
	// An error is a refusal: the next host is tried.
	Verify func(ctx context.Context, host string, state tls.ConnectionState) error
}

// A Fetcher opens look-up sessions: the DMTP client, joined by the appliance.
type Fetcher interface {
	// Connect returns a session with the first host that answers and that Verify accepts.
	Connect(ctx context.Context, t Target) (Session, error)
}

// A Session asks one DX. It judges nothing: octets come back as they were sent. A name or fingerprint that the peer says
// it does not know (576, or 450 SIGNET NOT FOUND) is an error that wraps ErrNoSignet; all others mean that nothing was
// found out.
type Session interface {
	Signet(ctx context.Context, name string) ([]byte, error)
	SignetByFingerprint(ctx context.Context, name string, fp [64]byte) ([]byte, error)
	Verify(ctx context.Context, name string, fp [64]byte) (current bool, update [64]byte, err error)
	// History returns the signets from start to the current one, asking again where the peer answers in parts; next
	// tells the full fingerprint of the last signet of a part.
	History(ctx context.Context, name string, start [64]byte, next func(last []byte) ([64]byte, error)) ([][]byte, error)
	Close() error
}
