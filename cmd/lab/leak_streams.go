package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
)

// A packet is what we read of an IPv4 frame. payload is empty when it is neither TCP nor UDP.
type packet struct {
	src, dst netip.AddrPort
	udp      bool
	syn      bool
	seq      uint32
	payload  []byte
}

// parsePacket reads an Ethernet frame. Without ok the frame is of another kind or cut short.
func parsePacket(frame []byte) (p packet, ok bool) {
	if len(frame) < etherHeader+20 {
		return p, false
	}
	ip := frame[etherHeader:]
	header, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || header < 20 || total < header || total > len(ip) || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return p, false // no IPv4, or a fragment
	}
	body := ip[header:total]
	src, dst := netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	if len(body) < 8 {
		return p, false
	}
	p.src, p.dst = netip.AddrPortFrom(src, binary.BigEndian.Uint16(body)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(body[2:]))
	switch ip[9] {
	case 17:
		p.udp, p.payload = true, body[8:]
		return p, true
	case 6:
		if len(body) < 20 || int(body[12]>>4)*4 > len(body) {
			return p, false
		}
		p.seq, p.syn, p.payload = binary.BigEndian.Uint32(body[4:]), body[13]&2 != 0, body[int(body[12]>>4)*4:]
		return p, true
	}
	return p, false
}

// A wire is all that a capture holds: each direction of each TCP connection in its order, and each datagram. What is
// neither is kept as it is.
type wire struct {
	streams [][]byte
	others  [][]byte // datagrams, and frames of another kind
	gaps    int      // pieces of streams that are missing
}

// readWire reads a pcap file as startCapture writes it.
func readWire(path string) (*wire, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(file) < 24 || binary.LittleEndian.Uint32(file) != 0xa1b2c3d4 || binary.LittleEndian.Uint32(file[20:]) != linkEthernet {
		return nil, errors.New("not a capture of ours")
	}
	var w wire
	flows := flows{open: map[[2]netip.AddrPort]*flow{}}
	for rest := file[24:]; len(rest) > 0; {
		if len(rest) < 16 {
			return nil, io.ErrUnexpectedEOF
		}
		n := int(binary.LittleEndian.Uint32(rest[8:]))
		if n != int(binary.LittleEndian.Uint32(rest[12:])) || n > len(rest)-16 {
			return nil, fmt.Errorf("a packet of %d octets was cut", n)
		}
		frame := rest[16 : 16+n]
		rest = rest[16+n:]
		p, ok := parsePacket(frame)
		switch {
		case !ok:
			w.others = append(w.others, frame)
		case p.udp:
			w.others = append(w.others, p.payload)
		default:
			flows.add(p)
		}
	}
	for _, f := range flows.all {
		stream, gaps := f.join()
		w.streams = append(w.streams, stream)
		w.gaps += gaps
	}
	return &w, nil
}

// flows are the directions of TCP connections. A new SYN on the same two ports begins another one.
type flows struct {
	open map[[2]netip.AddrPort]*flow
	all  []*flow
}

type flow struct {
	start  uint32 // the sequence number of the first octet
	pieces map[uint32][]byte
}

func (fs *flows) add(p packet) {
	id := [2]netip.AddrPort{p.src, p.dst}
	f := fs.open[id]
	if f == nil || p.syn && f.start != p.seq+1 {
		f = &flow{start: p.seq, pieces: map[uint32][]byte{}}
		if p.syn {
			f.start++
		}
		fs.open[id] = f
		fs.all = append(fs.all, f)
	}
	at := p.seq - f.start
	if p.syn {
		at++
	}
	if len(p.payload) > len(f.pieces[at]) {
		f.pieces[at] = p.payload
	}
}

// join puts the pieces into their order. Octets that came twice are taken once, and where some are missing the rest follows
// at once: a canary that is whole in what there is will be found.
func (f *flow) join() (stream []byte, gaps int) {
	next := uint32(0)
	for _, at := range slices.Sorted(maps.Keys(f.pieces)) {
		piece := f.pieces[at]
		switch end := at + uint32(len(piece)); {
		case at > next:
			gaps++
			fallthrough
		case at == next:
			stream, next = append(stream, piece...), end
		case end > next:
			stream, next = append(stream, piece[next-at:]...), end
		}
	}
	return stream, gaps
}

// find counts the octets in which a canary shows, in clear or in an encoding that anyone can undo.
func (w *wire) find(canary string) (octets int) {
	forms := disguises(canary)
	for _, list := range [][][]byte{w.streams, w.others} {
		for _, b := range list {
			octets += findForms(b, forms)
		}
	}
	return octets
}

func findForms(b []byte, forms [][]byte) (octets int) {
	for _, f := range forms {
		octets += bytes.Count(b, f) * len(f)
	}
	return octets
}

// disguises are the forms in which a canary of letters and digits can travel in mail: as it is (quoted-printable does not
// change it), in hexadecimal, in UTF-16, and in base64 at any of the three places where its octets can fall. Of base64 only
// what does not depend on the neighbours counts.
func disguises(canary string) [][]byte {
	utf16 := bytes.Join(bytes.Split([]byte(canary), nil), []byte{0})
	forms := [][]byte{[]byte(canary), []byte(hex.EncodeToString([]byte(canary))), bytes.ToUpper([]byte(hex.EncodeToString([]byte(canary)))), utf16}
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), canary...))
		from := (shift*8 + 5) / 6
		forms = append(forms, []byte(text[from:(shift+len(canary))*8/6]))
	}
	return forms
}
