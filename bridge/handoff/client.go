package handoff

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"

	"dimegate/bridge/smtpwire"
)

// present tells the server who the client of the next message is. After XCLIENT the session is for that client alone: Postfix
// judges who may say it by the address that it was told, so that it could not be taken back.
func (h *Inner) present(ctx context.Context, s *session, who smtpwire.Caller) error {
	if h.Client != ClientAuto {
		return nil
	}
	if _, ok := s.Offers("XCLIENT"); ok {
		s.bound = true
		err := s.XClient(ctx, h.named(ctx, who))
		if e, ok := errors.AsType[*smtpwire.Error](err); ok && e.Code == 501 && who.Addr.Addr().Is6() {
			who.Addr = netip.AddrPort{} // for a server that knows no IPv6 (Postfix: inet_protocols) the client is one that it does not know
			err = s.XClient(ctx, who)
		}
		return err
	}
	return h.mention(ctx, s, who)
}

// mention tells the server for its logs, if it wants to know.
func (h *Inner) mention(ctx context.Context, s *session, who smtpwire.Caller) error {
	if _, ok := s.Offers("XFORWARD"); !ok || h.Client != ClientAuto || who == (smtpwire.Caller{}) {
		return nil
	}
	return s.XForward(ctx, h.named(ctx, who))
}

func (h *Inner) named(ctx context.Context, who smtpwire.Caller) smtpwire.Caller {
	if a := who.Addr.Addr(); h.Names != nil && a.IsValid() && who.Name == "" && !who.Later {
		who.Name, who.Later = h.Names(ctx, a)
	}
	return who
}

// early tells of a refusal that leaves a session of no use: of the client, before the message.
func early(e *smtpwire.Error) bool {
	return e.Stage == smtpwire.StageClient || e.Stage == smtpwire.StageHello
}

// proxyHeader begins a connection.
func proxyHeader(conn net.Conn, who smtpwire.Caller) error {
	header := &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if who.Addr.IsValid() {
		header = proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(who.Addr), conn.RemoteAddr())
	}
	conn.SetWriteDeadline(time.Now().Add(time.Minute))
	_, err := header.WriteTo(conn)
	return err
}
