package zone

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Serve answers questions over UDP and TCP until ctx ends. The two must have the same port.
func (t *Tree) Serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	servers := []*dns.Server{{PacketConn: udp, Handler: t}, {Listener: tcp, Handler: t}}
	errs := make([]error, len(servers))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() {
			defer cancel() // one does not serve without the other
			errs[i] = s.ActivateAndServe()
		})
		wg.Go(func() {
			<-ctx.Done()
			select {
			case <-started:
				_ = s.Shutdown() // an error means that it has ended by itself: errs has why
			default: // ActivateAndServe failed, or has not begun: a closed socket ends it
				udp.Close()
				tcp.Close()
			}
		})
	}
	wg.Wait()
	if context.Cause(ctx) != nil && errs[0] == nil && errs[1] == nil {
		return nil
	}
	return errors.Join(errs...)
}

// Listen opens the two sockets that Serve wants, on the same port: host:0 takes a free one.
func Listen(addr string) (net.PacketConn, net.Listener, error) {
	for try := 0; ; try++ {
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, nil, err
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return udp, tcp, nil
		}
		tcp.Close()
		if try == 10 { // the port was free for one of them only
			return nil, nil, err
		}
	}
}

// ServeDNS answers one question. The whole tree is here, so the answer comes from the deepest zone at once; to a
// recursive resolver's client it looks like the resolver's, but for the AD bit, which is for a validator to set.
func (t *Tree) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	size, do := dns.MinMsgSize, false
	if opt := q.IsEdns0(); opt != nil {
		size, do = max(size, int(opt.UDPSize())), opt.Do()
		m.SetEdns0(1232, do)
	}
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery || q.Question[0].Qclass != dns.ClassINET {
		m.Rcode = dns.RcodeNotImplemented
	} else {
		t.mu.RLock()
		t.answer(m, dns.CanonicalName(q.Question[0].Name), q.Question[0].Qtype, do)
		t.mu.RUnlock()
	}
	if _, tcp := w.RemoteAddr().(*net.TCPAddr); !tcp {
		m.Truncate(size)
	}
	_ = w.WriteMsg(m) // the asker has gone, or asks again
}

// find is the deepest zone that answers for name; a DS record is the parent's (RFC 4035 §3.1.4.1).
func (t *Tree) find(name string, qtype uint16) *signed {
	if qtype == dns.TypeDS && name != "." {
		name = parent(name)
	}
	for t.zones[name] == nil {
		name = parent(name)
	}
	return t.zones[name]
}

func (t *Tree) answer(m *dns.Msg, name string, qtype uint16, do bool) {
	z := t.find(name, qtype)
	if d := z.dnameAbove(name); d != nil {
		m.Answer = visible(z.sets[d.Hdr.Name][dns.TypeDNAME], do)
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: strings.TrimSuffix(name, d.Hdr.Name) + d.Target})
		return
	}
	owner := name
	if z.sets[name] == nil && !z.hasBelow(name) {
		owner = "*." + trimRoot(z.encloser(name))
	}
	set := z.sets[owner][qtype]
	if set == nil {
		set = z.sets[owner][dns.TypeCNAME]
	}
	if set != nil {
		m.Answer = visible(set, do)
		if owner != name { // made from a wildcard: nothing closer is there (RFC 4035 §3.1.3.3)
			for _, rr := range m.Answer {
				rr.Header().Name = name
			}
			m.Ns = z.denial(name, false, do)
		}
		return
	}
	m.Ns = visible(z.sets[z.name][dns.TypeSOA], do)
	if z.sets[owner] == nil && owner != name {
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = append(m.Ns, z.denial(name, owner != name, do)...)
}

// denial proves that name, or its types but those shown, is not there; with wildcard, that none stands for it, either
// (RFC 4035 §3.1.3.2).
func (z *signed) denial(name string, wildcard, do bool) []dns.RR {
	if !do || z.key == nil {
		return nil
	}
	if z.NSEC3 != nil {
		return z.hashedDenial(name, wildcard)
	}
	covers := []string{z.covering(name)}
	if wildcard {
		covers = append(covers, z.covering("*."+trimRoot(z.encloser(name))))
	}
	var out []dns.RR
	for _, c := range slices.Compact(covers) {
		out = append(out, visible(z.sets[c][dns.TypeNSEC], do)...)
	}
	return out
}

// encloser is the closest name over name that exists.
func (z *signed) encloser(name string) string {
	for name = parent(name); z.sets[name] == nil && !z.hasBelow(name); name = parent(name) {
	}
	return name
}

func (z *signed) dnameAbove(name string) *dns.DNAME {
	for name != z.name {
		name = parent(name)
		if set := z.sets[name][dns.TypeDNAME]; set != nil {
			return set[0].(*dns.DNAME)
		}
	}
	return nil
}

func trimRoot(name string) string {
	if name == "." {
		return ""
	}
	return name
}

// hasBelow says whether a name exists only because something lies under it.
func (z *signed) hasBelow(name string) bool {
	for _, n := range z.list {
		if n != name && dns.IsSubDomain(name, n) {
			return true
		}
	}
	return false
}

// covering is the last owner name that is not after name: its NSEC matches or covers name.
func (z *signed) covering(name string) string {
	last := z.name
	for _, n := range z.list {
		if compare(n, name) > 0 {
			break
		}
		last = n
	}
	return last
}

// visible copies a record set; signatures are only for those who asked for them.
func visible(set []dns.RR, do bool) []dns.RR {
	var out []dns.RR
	for _, rr := range set {
		if rr.Header().Rrtype != dns.TypeRRSIG || do {
			out = append(out, dns.Copy(rr))
		}
	}
	return out
}
