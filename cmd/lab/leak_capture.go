package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
)

// A capture writes every packet from or to one of the hosts of a test to a pcap file, but those of the legs inside an
// organisation. What is not known to be inside is outside: a packet that nobody thought of is on the wire.
type capture struct {
	fd   int
	done chan error

	mu     sync.Mutex
	hosts  map[netip.Addr]bool
	inside map[netip.AddrPort]bool // port 0: every port of the address
	fences map[netip.AddrPort]chan struct{}
	stop   bool
	octets map[netip.Addr]int // captured, by the address of either end
}

// What the packet socket wants (packet(7), socket(7)); the syscall package has no names for some.
const (
	soRcvBufForce    = 33
	packetStatistics = 6
	captureBuffer    = 64 << 20
	snapLength       = 256 << 10 // loopback's packets are up to 64 KiB
	linkEthernet     = 1
	etherHeader      = 14
)

// startCapture listens on the loopback interface and writes to a new file until close. It wants CAP_NET_RAW.
func startCapture(path string) (*capture, error) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, err
	}
	fd, err := packetSocket(lo.Index)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w (it wants root, or CAP_NET_RAW)", err)
	}
	f, err := os.Create(path)
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	c := newCapture(fd)
	go func() { c.done <- errors.Join(c.write(f), f.Close(), syscall.Close(fd)) }()
	return c, nil
}

func newCapture(fd int) *capture {
	return &capture{fd: fd, done: make(chan error, 1), hosts: map[netip.Addr]bool{}, inside: map[netip.AddrPort]bool{},
		fences: map[netip.AddrPort]chan struct{}{}, octets: map[netip.Addr]int{}}
}

// packetSocket opens a socket that sees what its filter lets pass, and nothing before the filter stands.
func packetSocket(ifindex int) (fd int, err error) {
	fd, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			syscall.Close(fd)
		}
	}()
	if syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soRcvBufForce, captureBuffer) != nil { // wants CAP_NET_ADMIN
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, captureBuffer); err != nil {
			return 0, err // as much as is permitted: see complete
		}
	}
	raw, err := bpf.Assemble(benchFilter)
	if err != nil {
		return 0, err
	}
	program := struct {
		length uint16
		filter *bpf.RawInstruction
	}{uint16(len(raw)), &raw[0]}
	if _, _, e := syscall.Syscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), syscall.SOL_SOCKET, syscall.SO_ATTACH_FILTER,
		uintptr(unsafe.Pointer(&program)), unsafe.Sizeof(program), 0); e != 0 {
		return 0, e
	}
	timeout := syscall.NsecToTimeval(int64(100 * time.Millisecond)) // so that the reader sees the end
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout); err != nil {
		return 0, err
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, syscall.ETH_P_ALL))
	return fd, syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: all, Ifindex: ifindex})
}

// benchFilter passes IPv4 packets from or to 127.64.0.0/10, where the benches' addresses are.
var benchFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: syscall.ETH_P_IP, SkipTrue: 7},
	bpf.LoadAbsolute{Off: etherHeader + 12, Size: 4},
	bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffc00000},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x7f400000, SkipTrue: 3},
	bpf.LoadAbsolute{Off: etherHeader + 16, Size: 4},
	bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffc00000},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x7f400000, SkipTrue: 1},
	bpf.RetConstant{Val: snapLength},
	bpf.RetConstant{Val: 0},
}

// watch takes a host as one of the test's.
func (c *capture) watch(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts[netip.MustParseAddr(host)] = true
}

// within takes a host, or one port of it, as being inside an organisation: what is said there is not on the wire.
func (c *capture) within(host string, port uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside[netip.AddrPortFrom(netip.MustParseAddr(host), port)] = true
}

// write copies packets until close has been called and all that came before is read.
func (c *capture) write(f *os.File) error {
	w := bufio.NewWriterSize(f, 1<<20)
	w.Write(binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)) // an error stays until Flush
	for _, v := range []uint32{2 | 4<<16, 0, 0, snapLength, linkEthernet} {
		w.Write(binary.LittleEndian.AppendUint32(nil, v))
	}
	buf := make([]byte, snapLength)
	for {
		n, from, err := syscall.Recvfrom(c.fd, buf, 0)
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
			c.mu.Lock()
			stop := c.stop
			c.mu.Unlock()
			if stop {
				return errors.Join(w.Flush(), c.complete())
			}
			continue
		case err != nil:
			return errors.Join(err, w.Flush())
		}
		if ll, ok := from.(*syscall.SockaddrLinklayer); ok && ll.Pkttype == syscall.PACKET_OUTGOING {
			continue // loopback shows every packet twice: as it leaves, and as it comes
		}
		if !c.wire(buf[:n]) {
			continue
		}
		now := time.Now()
		for _, v := range []uint32{uint32(now.Unix()), uint32(now.Nanosecond() / 1000), uint32(n), uint32(n)} {
			w.Write(binary.LittleEndian.AppendUint32(nil, v))
		}
		w.Write(buf[:n])
	}
}

// wire says whether a frame is of the wire between organisations.
func (c *capture) wire(frame []byte) bool {
	p, whole := parsePacket(frame)
	if len(frame) < etherHeader+20 { // the filter lets none of these pass
		return true
	}
	src, dst := netip.AddrFrom4([4]byte(frame[etherHeader+12:])), netip.AddrFrom4([4]byte(frame[etherHeader+16:]))
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hosts[src] && !c.hosts[dst] { // another test's
		return false
	}
	for _, end := range []netip.AddrPort{p.src, p.dst} {
		if whole && (c.inside[end] || c.inside[netip.AddrPortFrom(end.Addr(), 0)]) {
			return false
		}
	}
	if fence, is := c.fences[p.dst]; is && p.udp {
		close(fence)
		delete(c.fences, p.dst)
		return false
	}
	c.octets[src] += len(frame)
	if dst != src {
		c.octets[dst] += len(frame)
	}
	return true
}

// complete is an error when the kernel had to drop packets: then nothing is proved.
func (c *capture) complete() error {
	var stat struct{ packets, drops uint32 }
	size := uint32(unsafe.Sizeof(stat))
	if _, _, e := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(c.fd), syscall.SOL_PACKET, packetStatistics,
		uintptr(unsafe.Pointer(&stat)), uintptr(unsafe.Pointer(&size)), 0); e != 0 {
		return e
	}
	if stat.drops > 0 {
		return fmt.Errorf("%d of %d packets were not captured", stat.drops, stat.packets)
	}
	return nil
}

// sync returns when everything that was sent before is captured: it sends a datagram to an address of the bench and waits
// until the capture has seen it.
func (c *capture) sync(ctx context.Context, host string) error {
	conn, err := net.Dial("udp", net.JoinHostPort(host, "9")) // discard
	if err != nil {
		return err
	}
	defer conn.Close()
	seen := make(chan struct{})
	to := netip.AddrPortFrom(netip.MustParseAddr(host), 9)
	c.mu.Lock()
	c.fences[to] = seen
	c.mu.Unlock()
	if _, err := conn.Write([]byte{0}); err != nil {
		return err
	}
	select {
	case <-seen:
		return nil
	case err := <-c.done:
		c.done <- err
		return fmt.Errorf("the capture ended: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("capture: %w", context.Cause(ctx))
	}
}

// seen is how many octets were captured from and to an address.
func (c *capture) seen(host string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.octets[netip.MustParseAddr(host)]
}

// close ends the capture. The error says whether the file is whole and no packet was lost.
func (c *capture) close() error {
	c.mu.Lock()
	c.stop = true
	c.mu.Unlock()
	return <-c.done
}
