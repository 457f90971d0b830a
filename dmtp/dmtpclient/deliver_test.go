package dmtpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dimegate/dmtp"
)

const ehlo = "250-dx.example\r\n250-SIZE 1000\r\n250 OK\r\n"

var envelope = Envelope{Origin: "a.example", Destination: "b.example", OriginSignet: [64]byte{1}, DestinationSignet: [64]byte{2}}

// server is a DMTP server with the given answers. Of a message of n octets it wants n octets and CRLF, and gives final. An
// answer that ends without CRLF is followed by the end of the connection.
func server(n int, final string, change map[string]string) func(l *link) {
	answers := map[string]string{"EHLO": ehlo, "MAIL": "250 OK\r\n", "RCPT": "250 OK\r\n", "DATA": "354 CONTINUE [x]\r\n", "QUIT": "221 BYE\r\n"}
	for k, v := range change {
		answers[k] = v
	}
	return func(l *link) {
		if !l.tls() {
			return
		}
		l.say(banner)
		for {
			verb, _, _ := strings.Cut(strings.TrimSpace(l.hear()), " ")
			answer := answers[verb]
			if verb == "" || answer == "" {
				return
			}
			if l.say(answer); !strings.HasSuffix(answer, "\r\n") {
				return
			}
			if verb == "DATA" && strings.HasPrefix(answer, "3") {
				body := make([]byte, n+2)
				if _, err := io.ReadFull(l.r, body); err != nil {
					return
				}
				l.got.add(string(body))
				if l.say(final); !strings.HasSuffix(final, "\r\n") {
					return
				}
			}
		}
	}
}

func TestDeliver(t *testing.T) {
	message := []byte("eleven octs")
	commit := string(dmtp.Commit(message))
	tests := map[string]struct {
		change  map[string]string
		final   string
		class   Class // of the error, when code is not 2xx
		code    int
		sent    bool
		usable  bool
		message []byte
	}{
		"accepted":                      {nil, "254 OK [" + commit + "]\r\n", 0, 254, false, true, message},
		"accepted by libdime's server":  {nil, "250 OK [randid]\r\n", 0, 250, false, true, message},
		"accepted without a bracket":    {nil, "250 OK\r\n", 0, 250, false, true, message},
		"354 in other words":            {map[string]string{"DATA": "354 go ahead\r\n"}, "250 OK\r\n", 0, 250, false, true, message},
		"pipelined":                     {map[string]string{"EHLO": "250-PIPELINING\r\n250 OK\r\n"}, "254 OK [x]\r\n", 0, 254, false, true, message},
		"known after transfer":          {nil, "255 OK [" + commit + "]\r\n", 0, 255, false, true, message},
		"known at DATA":                 {map[string]string{"DATA": "255 OK [" + commit + "]\r\n"}, "", 0, 255, false, true, message},
		"another known at DATA":         {map[string]string{"DATA": "255 OK [" + commit[1:] + "A]\r\n"}, "", Protocol, 255, false, false, message},
		"success at DATA unsent":        {map[string]string{"DATA": "250 OK\r\n"}, "", Protocol, 250, false, false, message},
		"larger than announced":         {nil, "", Permanent, 552, false, true, make([]byte, 1001)},
		"EHLO refused":                  {map[string]string{"EHLO": "554 NO\r\n"}, "", Network, 554, false, true, message},
		"EHLO not understood":           {map[string]string{"EHLO": "500 WHAT\r\n"}, "", Protocol, 500, false, false, message},
		"MAIL 421":                      {map[string]string{"MAIL": "421 ENOUGH\r\n"}, "", Network, 421, false, false, message},
		"MAIL 421, pipelined, and gone": {map[string]string{"EHLO": "250-PIPELINING\r\n250 OK\r\n", "MAIL": "421 ENOUGH\r\n", "RCPT": ""}, "", Network, 421, false, false, message},
		"MAIL 552":                      {map[string]string{"MAIL": "552 TOO LARGE\r\n"}, "", Permanent, 552, false, true, message},
		"MAIL refused, pipelined":       {map[string]string{"EHLO": "250-PIPELINING\r\n250 OK\r\n", "MAIL": "550 NO\r\n", "RCPT": "503 NO MAIL\r\n"}, "", Permanent, 550, false, true, message},
		"RCPT 551":                      {map[string]string{"RCPT": "551 RELAY ACCESS DENIED\r\n"}, "", Permanent, 551, false, true, message},
		"RCPT 576":                      {map[string]string{"RCPT": "576 INVALID DESTINATION SIGNET\r\n"}, "", Refresh, 576, false, true, message},
		"RCPT 431":                      {map[string]string{"RCPT": "431 LIMITS\r\n"}, "", Remote, 431, false, true, message},
		"DATA 503":                      {map[string]string{"DATA": "503 RCPT FIRST\r\n"}, "", Protocol, 503, false, false, message},
		"final 451":                     {nil, "451 LATER\r\n", Remote, 451, true, true, message},
		"final 470":                     {nil, "470 LATER\r\n", Remote, 470, true, true, message},
		"final 510":                     {nil, "510 INVALID RECIPIENT\r\n", Permanent, 510, true, true, message},
		"final 554":                     {nil, "554 INVALID MESSAGE DATA\r\n", Permanent, 554, true, true, message},
		"final 570":                     {nil, "570 NO\r\n", Permanent, 570, true, true, message},
		"final 575":                     {nil, "575 NO\r\n", Refresh, 575, true, true, message},
		"final 576":                     {nil, "576 NO\r\n", Refresh, 576, true, true, message},
		"final 578":                     {nil, "578 NO\r\n", Permanent, 578, true, true, message},
		"final 586":                     {nil, "586 NO\r\n", Refresh, 586, true, true, message},
		"final 354":                     {nil, "354 MORE\r\n", Protocol, 354, true, false, message},
		"final garbled":                 {nil, "what\r\n", Protocol, 0, true, false, message},
		"gone before the final reply":   {nil, " ", Network, 0, true, false, message},
		"the prototype's second answer": {nil, "250 OK [randid]\r\n451 PLANNED FAILURE\r\n", 0, 250, false, false, message},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := start(t, server(len(message), tt.final, tt.change))
			conn := p.connect(t, nil)
			receipt, err := conn.Deliver(t.Context(), envelope, tt.message)
			if e, ok := errors.AsType[*Error](err); ok {
				if tt.code/100 == 2 && tt.class == 0 || e.Class != tt.class || e.Code != tt.code || e.Sent != tt.sent {
					t.Errorf("%v, %d, sent %v: %v", e.Class, e.Code, e.Sent, err)
				}
				if slow := tt.code == 431; (e.MinDelay() > 0) != slow {
					t.Errorf("delay %v", e.MinDelay())
				}
			} else if receipt.Code != tt.code || receipt.Commit != dmtp.Token(commit) || receipt.Duplicate() != (tt.code == 255) {
				t.Errorf("%+v", receipt)
			}
			if conn.Usable() != tt.usable {
				t.Errorf("usable: %v", conn.Usable())
			}
		})
	}
}

func TestDeliverWords(t *testing.T) {
	message := []byte("eleven octs")
	p := start(t, server(len(message), "254 OK [x]\r\n", nil))
	conn := p.connect(t, nil)
	for range 2 {
		if _, err := conn.Deliver(t.Context(), envelope, message); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	one := []string{
		fmt.Sprintf("MAIL FROM: <a.example> [%s] SIZE=11\r\n", dmtp.TokenOf([64]byte{1})), fmt.Sprintf("RCPT TO: <b.example> [%s]\r\n", dmtp.TokenOf([64]byte{2})),
		fmt.Sprintf("DATA [%s]\r\n", dmtp.Commit(message)), "eleven octs\r\n",
	}
	want := slices.Concat([]string{"EHLO <a.example>\r\n"}, one, one, []string{"QUIT\r\n"})
	if got := p.got.all(); !slices.Equal(got, want) {
		t.Errorf("said\n %q\nwant\n %q", got, want)
	}
}

// TestLargeMessage crosses the borders of blocks and reads it back.
func TestLargeMessage(t *testing.T) {
	for _, n := range []int{block - 1, block, block + 1, 3 * block} {
		message := []byte(strings.Repeat("0123456789abcdef", n/16+1)[:n])
		p := start(t, server(n, "254 OK [x]\r\n", map[string]string{"EHLO": "250 OK\r\n"}))
		if _, err := p.connect(t, nil).Deliver(t.Context(), envelope, message); err != nil {
			t.Fatal(err)
		}
		if got := p.got.all(); !slices.Contains(got, string(message)+"\r\n") {
			t.Errorf("%d octets did not arrive as they are", n)
		}
	}
}

// TestEarlyVerdict lets the server refuse and close while the message is still on its way.
func TestEarlyVerdict(t *testing.T) {
	p := start(t, func(l *link) {
		server(0, "", map[string]string{"EHLO": "250 OK\r\n", "DATA": "354 CONTINUE [x]\r\n554 INVALID MESSAGE DATA\r\n"})(l)
	})
	_, err := p.connect(t, nil).Deliver(t.Context(), envelope, make([]byte, 64))
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != 554 || !e.Sent {
		t.Errorf("got %v", err)
	}
}

func TestPool(t *testing.T) {
	message := []byte("eleven octs")
	var conns atomic.Int64
	p := start(t, func(l *link) {
		conns.Add(1)
		server(len(message), "254 OK [x]\r\n", nil)(l)
	})
	t.Run("one connection for many", func(t *testing.T) {
		conns.Store(0)
		c := client(t, func(o *Options) { o.Port, o.MaxTransactions = p.port, 10 })
		for range 25 {
			if _, err := c.Deliver(t.Context(), p.target(false), envelope, message); err != nil {
				t.Fatal(err)
			}
		}
		if n := conns.Load(); n != 3 {
			t.Errorf("%d connections for 25 messages of at most 10 each", n)
		}
	})
	t.Run("no more than allowed at a time", func(t *testing.T) {
		conns.Store(0)
		c := client(t, func(o *Options) { o.Port, o.PerDestination = p.port, 2 })
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := c.Deliver(t.Context(), p.target(false), envelope, message); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := conns.Load(); n > 2 {
			t.Errorf("%d connections", n)
		}
		c.Close()
		if _, err := c.Deliver(t.Context(), p.target(false), envelope, message); err == nil {
			t.Error("delivered after Close")
		}
		if len(c.pool) != 0 {
			t.Errorf("%d destinations remembered", len(c.pool))
		}
	})
	t.Run("an idle connection ends by itself", func(t *testing.T) {
		c := client(t, func(o *Options) { o.Port, o.IdleTimeout = p.port, 20*time.Millisecond })
		if _, err := c.Deliver(t.Context(), p.target(false), envelope, message); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			c.mu.Lock()
			n := len(c.pool)
			c.mu.Unlock()
			if n == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("still there")
			}
		}
	})
	t.Run("domains with one DX share it, if each accepts it", func(t *testing.T) {
		conns.Store(0)
		c := client(t, func(o *Options) { o.Port = p.port })
		judged := map[string]int{}
		for range 2 {
			for _, domain := range []string{"b.example", "c.example", "d.example"} {
				target := p.target(false)
				target.Domain = domain
				target.Verify = func(context.Context, string, tls.ConnectionState) error {
					judged[domain]++
					if domain == "d.example" {
						return errJudge
					}
					return nil
				}
				_, err := c.Deliver(t.Context(), target, envelope, message)
				if refused := domain == "d.example"; refused != (err != nil) || refused && ClassOf(err) != Trust {
					t.Errorf("%s: %v", domain, err)
				}
			}
		}
		if judged["b.example"] != 1 || judged["c.example"] != 1 || judged["d.example"] != 4 {
			t.Errorf("judged %v", judged)
		}
		if n := conns.Load(); n != 3 { // one for two domains, and one in each refusal
			t.Errorf("%d connections", n)
		}
	})
	t.Run("a kept connection that died is no failure", func(t *testing.T) {
		c := client(t, func(o *Options) { o.Port = p.port })
		for range 3 {
			if _, err := c.Deliver(t.Context(), p.target(false), envelope, message); err != nil {
				t.Fatal(err)
			}
			c.mu.Lock()
			for _, d := range c.pool {
				for _, k := range d.idle {
					k.conn.net.Close()
				}
			}
			c.mu.Unlock()
		}
	})
}

// TestNextHost lets the first host fail without a verdict after the message was sent: the second gets the same octets.
func TestNextHost(t *testing.T) {
	message := []byte("eleven octs")
	var n atomic.Int64
	p := start(t, func(l *link) {
		final := "254 OK [x]\r\n"
		if n.Add(1) == 1 {
			final = " "
		}
		server(len(message), final, nil)(l)
	})
	c := client(t, func(o *Options) { o.Port = p.port })
	target := p.target(false)
	target.Hosts = append(target.Hosts, Host{Name: "dx2.example"})
	receipt, err := c.Deliver(t.Context(), target, envelope, message)
	if err != nil || receipt.Host != "dx2.example" {
		t.Fatalf("%v, %+v", err, receipt)
	}
	sent := 0
	for _, l := range p.got.all() {
		if l == string(message)+"\r\n" {
			sent++
		}
	}
	if sent != 2 {
		t.Errorf("sent %d times", sent)
	}
	n.Store(0)
	c.Close()
	c = client(t, func(o *Options) { o.Port = p.port })
	_, err = c.Deliver(t.Context(), p.target(false), envelope, message)
	if e, ok := errors.AsType[*Error](err); !ok || e.Class != Network || !e.Sent {
		t.Errorf("without a second host: %v", err)
	}
}
