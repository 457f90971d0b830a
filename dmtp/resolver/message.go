package resolver

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// Bounds of one DNS answer. What exceeds them is not looked at: the look-up is indeterminate.
const (
	maxRecords    = 1024 // in the answer and authority sections together
	maxSetRecords = 256  // in one RRset
)

// An rrset is one RRset with the signatures that came with it. Owner names are canonical.
type rrset struct {
	name string
	typ  uint16
	rrs  []dns.RR
	sigs []*dns.RRSIG
}

// ttl is the least TTL of the records; a set that holds none has none.
func (s *rrset) ttl() time.Duration {
	least := ^uint32(0)
	for _, rr := range s.rrs {
		least = min(least, rr.Header().Ttl)
	}
	if least > 1<<31-1 { // RFC 2181 §8
		return 0
	}
	return time.Duration(least) * time.Second
}

// strings returns the set in presentation form, with sig when it has one.
func (s *rrset) strings(sig *dns.RRSIG) []string {
	var out []string
	for _, rr := range s.rrs {
		out = append(out, rr.String())
	}
	if sig != nil {
		out = append(out, sig.String())
	}
	return out
}

// A reply is one answer of a recursive resolver whose header and question were compared with what we asked.
type reply struct {
	name      string // canonical, as asked
	typ       uint16
	rcode     int
	ad        bool // the resolver says that it validated: looked at only when it is trusted to
	answer    []*rrset
	authority []*rrset
	server    string
	at        time.Time
}

// find returns the set of that name and type in the answer section, or nil.
func (r *reply) find(name string, typ uint16) *rrset {
	for _, s := range r.answer {
		if s.name == name && s.typ == typ && len(s.rrs) > 0 {
			return s
		}
	}
	return nil
}

var errGarbled = errors.New("answer does not fit the question")

// newReply checks that m answers the question and sorts its records into sets. It takes m over: names of owners become
// canonical in place, as signatures cover them so.
func newReply(m *dns.Msg, name string, typ uint16) (*reply, error) {
	switch {
	case !m.Response || m.Opcode != dns.OpcodeQuery || m.Truncated || len(m.Question) != 1:
		return nil, errGarbled
	case m.Question[0].Qtype != typ || m.Question[0].Qclass != dns.ClassINET || dns.CanonicalName(m.Question[0].Name) != name:
		return nil, errGarbled
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("resolver answers %s%s", rcodeName(m.Rcode), extended(m))
	case !m.RecursionAvailable: // its "nothing here" may be a referral
		return nil, errors.New("server does not recurse")
	case len(m.Answer)+len(m.Ns) > maxRecords:
		return nil, errLimit
	}
	r := &reply{name: name, typ: typ, rcode: m.Rcode, ad: m.AuthenticatedData}
	var err error
	if r.answer, err = sets(m.Answer); err != nil {
		return nil, err
	}
	r.authority, err = sets(m.Ns)
	return r, err
}

func rcodeName(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return "an unknown code"
}

// extended returns the code of an extended error (RFC 8914), without its text.
func extended(m *dns.Msg) string {
	opt := m.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok {
			return fmt.Sprintf(" (EDE %d)", e.InfoCode)
		}
	}
	return ""
}

// sets groups records by owner and type, in order of appearance. Other classes than IN are left out.
func sets(rrs []dns.RR) ([]*rrset, error) {
	type key struct {
		name string
		typ  uint16
	}
	var list []*rrset
	index := map[key]*rrset{}
	at := func(name string, typ uint16) *rrset {
		k := key{name, typ}
		if index[k] == nil {
			index[k] = &rrset{name: name, typ: typ}
			list = append(list, index[k])
		}
		return index[k]
	}
	for _, rr := range rrs {
		if rr == nil || rr.Header().Class != dns.ClassINET {
			continue
		}
		h := rr.Header()
		h.Name = dns.CanonicalName(h.Name)
		if sig, ok := rr.(*dns.RRSIG); ok {
			sig.SignerName = dns.CanonicalName(sig.SignerName)
			s := at(h.Name, sig.TypeCovered)
			s.sigs = append(s.sigs, sig)
			continue
		}
		s := at(h.Name, h.Rrtype)
		if len(s.rrs) >= maxSetRecords {
			return nil, errLimit
		}
		s.rrs = append(s.rrs, rr)
	}
	return slices.DeleteFunc(list, func(s *rrset) bool { return len(s.rrs) == 0 }), nil
}
