package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestLeak runs the leak test as a person does, and believes its numbers, not only its exit code.
func TestLeak(t *testing.T) {
	if testing.Short() {
		t.Skip("starts gateways: left out by -short")
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("capturing packets wants root")
		}
		t.Skip("capturing packets wants root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	lab, pcap := filepath.Join(dir, "lab"), filepath.Join(dir, "leak.pcap")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", lab, "dimegate/cmd/lab").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, lab, "leak", "--cases", "all", "--json", "--pcap", pcap)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, 20*time.Second
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, stderr.Bytes())
	}
	var r leakReport
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, stdout.Bytes())
	}
	if r.PlaintextBytes != 0 || r.Undecided != 0 || !r.ControlDelivered || !r.ControlCanarySeen || !r.OK || len(r.Cases) != len(leakCases) || r.Streams == 0 {
		t.Errorf("%d octets in clear, %d undecided, controls %t and %t, %d cases, %d streams", r.PlaintextBytes, r.Undecided, r.ControlDelivered, r.ControlCanarySeen, len(r.Cases), r.Streams)
	}
	for _, c := range r.Cases {
		if !c.FaultStruck || !c.OK || c.Outcome != c.Expected || c.End != c.ExpectedEnd {
			t.Errorf("%s: struck %t, %s %s, expected %s %s: %s %s", c.Name, c.FaultStruck, c.Outcome, c.End, c.Expected, c.ExpectedEnd, c.Reason, c.Error)
		}
	}
	// The file itself, without our reader: only the one canary that shall be there is.
	file, err := os.ReadFile(pcap)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range slices.Concat(r.Cases, r.Controls) {
		if got, want := bytes.Contains(file, []byte(c.Canary)), c.Name == controlCanarySeen; c.Canary == "" || got != want {
			t.Errorf("%s: the canary %q stands in the capture: %t", c.Name, c.Canary, got)
		}
	}
	t.Logf("canary sent by %s; floor %s; %d streams, %d octets captured", r.CanarySentBy, r.Floor, r.Streams, len(file))
}

// frame is a TCP segment as loopback shows it.
func frame(seq uint32, syn bool, payload string) []byte {
	b := make([]byte, etherHeader+40+len(payload))
	ip := b[etherHeader:]
	ip[0], ip[9] = 0x45, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(40+len(payload)))
	copy(ip[12:], []byte{127, 0, 0, 1})
	copy(ip[16:], []byte{127, 64, 0, 1})
	tcp := ip[20:]
	binary.BigEndian.PutUint16(tcp, 40000)
	binary.BigEndian.PutUint16(tcp[2:], 25)
	binary.BigEndian.PutUint32(tcp[4:], seq)
	tcp[12] = 5 << 4
	if syn {
		tcp[13] = 2
	}
	copy(tcp[20:], payload)
	return b
}

// TestReadWire: what a canary can hide in, it is found in.
func TestReadWire(t *testing.T) {
	const canary = canaryMark + "0123456789"
	udp := frame(0, false, "")
	udp[etherHeader+9] = 17
	udp = append(udp[:etherHeader+28], "x "+canary...)
	binary.BigEndian.PutUint16(udp[etherHeader+2:], uint16(len(udp)-etherHeader))
	fragment := frame(1, false, "MAIL "+canary)
	fragment[etherHeader+6] = 0x20 // more fragments
	tests := map[string]struct {
		frames [][]byte
		octets int
		gaps   int
	}{
		"nothing":          {[][]byte{frame(1, true, ""), frame(2, false, "MAIL FROM:<>\r\n")}, 0, 0},
		"whole":            {[][]byte{frame(1, true, ""), frame(2, false, "MAIL "+canary)}, len(canary), 0},
		"twice":            {[][]byte{frame(1, true, ""), frame(2, false, canary+canary)}, 2 * len(canary), 0},
		"over two":         {[][]byte{frame(1, true, ""), frame(2, false, canary[:5]), frame(7, false, canary[5:])}, len(canary), 0},
		"out of order":     {[][]byte{frame(1, true, ""), frame(7, false, canary[5:]), frame(2, false, canary[:5])}, len(canary), 0},
		"sent again":       {[][]byte{frame(1, true, ""), frame(2, false, canary[:9]), frame(2, false, canary[:5]), frame(7, false, canary[5:])}, len(canary), 0},
		"over the wrap":    {[][]byte{frame(0xfffffffd, true, ""), frame(0xfffffffe, false, canary[:5]), frame(3, false, canary[5:])}, len(canary), 0},
		"before we looked": {[][]byte{frame(1, false, canary)}, len(canary), 0},
		"behind a gap":     {[][]byte{frame(1, true, ""), frame(2, false, "x"), frame(9, false, canary)}, len(canary), 1},
		"next connection":  {[][]byte{frame(1, true, ""), frame(2, false, "QUIT"), frame(9, true, ""), frame(10, false, canary)}, len(canary), 0},
		"SYN sent again":   {[][]byte{frame(1, true, ""), frame(1, true, ""), frame(2, false, canary)}, len(canary), 0},
		"datagram":         {[][]byte{udp}, len(canary), 0},
		"fragment":         {[][]byte{fragment}, len(canary), 0},
		"hexadecimal":      {[][]byte{frame(1, true, ""), frame(2, false, hex.EncodeToString([]byte("x"+canary)))}, 2 * len(canary), 0},
		"UTF-16":           {[][]byte{frame(1, true, ""), frame(2, false, utf16(canary))}, 2*len(canary) - 1, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w, err := readWire(pcapFile(t, tt.frames))
			if err != nil {
				t.Fatal(err)
			}
			if got := w.find(canary); got != tt.octets || w.gaps != tt.gaps {
				t.Errorf("%d octets and %d gaps, want %d and %d", got, w.gaps, tt.octets, tt.gaps)
			}
		})
	}
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte("xyz"[:shift] + canary + " behind"))
		w, err := readWire(pcapFile(t, [][]byte{frame(1, true, ""), frame(2, false, text)}))
		if err != nil || w.find(canary) < len(canary) {
			t.Errorf("base64 behind %d octets: %d, %v", shift, w.find(canary), err)
		}
	}
	whole, err := os.ReadFile(pcapFile(t, [][]byte{frame(1, true, "x")}))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		path := filepath.Join(t.TempDir(), "cut")
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if w, err := readWire(path); err == nil && n != 24 {
			t.Errorf("cut after %d of %d octets: read as %+v", n, len(whole), w)
		}
	}
}

func utf16(s string) string {
	var b bytes.Buffer
	for _, c := range []byte(s) {
		b.Write([]byte{c, 0})
	}
	return b.String()
}

func pcapFile(t *testing.T, frames [][]byte) string {
	t.Helper()
	var b []byte
	for _, v := range []uint32{0xa1b2c3d4, 2 | 4<<16, 0, 0, snapLength, linkEthernet} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, f := range frames {
		for _, v := range []uint32{0, 0, uint32(len(f)), uint32(len(f))} {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		b = append(b, f...)
	}
	path := filepath.Join(t.TempDir(), "wire.pcap")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWire: the capture takes what is not known to be inside.
func TestWire(t *testing.T) {
	host := netip.MustParseAddr("127.64.0.1")
	tests := map[string]struct {
		hosts  []netip.Addr
		inside []netip.AddrPort
		want   bool
	}{
		"another test's": {nil, nil, false},
		"ours":           {[]netip.Addr{host}, nil, true},
		"another port":   {[]netip.Addr{host}, []netip.AddrPort{netip.AddrPortFrom(host, 2525)}, true},
		"inside":         {[]netip.Addr{host}, []netip.AddrPort{netip.AddrPortFrom(host, 25)}, false},
		"host inside":    {[]netip.Addr{host}, []netip.AddrPort{netip.AddrPortFrom(host, 0)}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := newCapture(-1)
			for _, h := range tt.hosts {
				c.watch(h.String())
			}
			for _, e := range tt.inside {
				c.within(e.Addr().String(), e.Port())
			}
			if got := c.wire(frame(1, false, "x")); got != tt.want {
				t.Errorf("on the wire: %t", got)
			}
		})
	}
}
