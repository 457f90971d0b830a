package tlsrpt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

type memory struct {
	mu  sync.Mutex
	m   map[Day][]byte
	err error
}

func (m *memory) TLSResults(_ context.Context, day, domain string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m[Day{day, domain}], m.err
}

func (m *memory) SetTLSResults(_ context.Context, day, domain string, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.m[Day{day, domain}] = b
	return m.err
}

func (m *memory) DropTLSResults(_ context.Context, day, domain string) error {
	delete(m.m, Day{day, domain})
	return nil
}

func (m *memory) TLSResultDays(context.Context) (days []Day, err error) {
	for d := range m.m {
		days = append(days, d)
	}
	return days, nil
}

var (
	sts  = Policy{Kind: STS, Domain: "bravo.test", Strings: []string{"version: STSv1", "mode: testing"}, Hosts: []string{"*.bravo.test"}}
	none = Policy{Kind: NoPolicy, Domain: "bravo.test"}
	us   = netip.MustParseAddr("192.0.2.1")
	them = netip.MustParseAddr("2001:db8::2")
)

// TestReport holds the report to the example's form in RFC 8460 appendix B, counts and all.
func TestReport(t *testing.T) {
	now := time.Date(2026, 4, 1, 23, 59, 0, 0, time.FixedZone("", -3600))
	s := &memory{m: map[Day][]byte{}}
	r := New(s, func() time.Time { return now })
	for range 3 {
		r.Record(Session{Policy: sts, Host: "mx.bravo.test", Address: them})
	}
	bad := Session{Policy: sts, Result: Expired, Host: "mx.bravo.test", Sending: us, Address: them, Reason: "expired"}
	r.Record(bad)
	r.Record(Session{Policy: none, Result: NoSTARTTLS, Host: "mx.bravo.test", Address: them})
	r.Record(Session{Policy: none, Result: STSFetch, Unproven: true})
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = New(s, func() time.Time { return now }) // after a restart
	r.Record(bad)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := r.Report(t.Context(), "2026-04-02", "bravo.test", Reporter{"Alpha", "tls@alpha.test", "alpha.test"})
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "organization-name": "Alpha",
  "date-range": {
    "start-datetime": "2026-04-02T00:00:00Z",
    "end-datetime": "2026-04-02T23:59:59Z"
  },
  "contact-info": "tls@alpha.test",
  "report-id": "2026-04-02!bravo.test!alpha.test",
  "policies": [
    {
      "policy": {
        "policy-type": "sts",
        "policy-string": [
          "version: STSv1",
          "mode: testing"
        ],
        "policy-domain": "bravo.test",
        "mx-host": [
          "*.bravo.test"
        ]
      },
      "summary": {
        "total-successful-session-count": 3,
        "total-failure-session-count": 2
      },
      "failure-details": [
        {
          "result-type": "certificate-expired",
          "sending-mta-ip": "192.0.2.1",
          "receiving-mx-hostname": "mx.bravo.test",
          "receiving-ip": "2001:db8::2",
          "failed-session-count": 2,
          "failure-reason-code": "expired"
        }
      ]
    },
    {
      "policy": {
        "policy-type": "no-policy-found",
        "policy-domain": "bravo.test"
      },
      "summary": {
        "total-successful-session-count": 0,
        "total-failure-session-count": 1
      },
      "failure-details": [
        {
          "result-type": "starttls-not-supported",
          "receiving-mx-hostname": "mx.bravo.test",
          "receiving-ip": "2001:db8::2",
          "failed-session-count": 1
        },
        {
          "result-type": "sts-policy-fetch-error",
          "failed-session-count": 1
        }
      ]
    }
  ]
}`
	if string(got) != want {
		t.Errorf("%s", got)
	}
	if _, err := r.Report(t.Context(), "2026-04-01", "bravo.test", Reporter{}); !errors.Is(err, ErrNothing) {
		t.Errorf("the day before: %v", err)
	}
	if _, err := r.Report(t.Context(), "today", "bravo.test", Reporter{}); err == nil {
		t.Error("a day that is none")
	}
}

// A store that fails loses nothing, and what is kept is bounded.
func TestFlush(t *testing.T) {
	now := time.Date(2026, 4, 1, 12, 0, 0, 0, time.UTC)
	s := &memory{m: map[Day][]byte{}, err: errors.New("disk full")}
	r := New(s, func() time.Time { return now })
	r.Record(Session{Policy: none})
	if r.Flush(t.Context()) == nil {
		t.Error("no error of a store that fails")
	}
	r.Record(Session{Policy: none})
	s.err, s.m = nil, map[Day][]byte{}
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for n := range 1000 {
				r.Record(Session{Policy: none, Result: Failed, Reason: fmt.Sprint(n), Host: fmt.Sprint(i)})
			}
		})
	}
	wg.Wait()
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var p results
	if err := json.Unmarshal(s.m[Day{"2026-04-01", "bravo.test"}], &p); err != nil {
		t.Fatal(err)
	}
	if got := p.Policies[0]; got.Summary != (summary{2, 2000}) || len(got.Details) != maxDetails {
		t.Errorf("%+v, %d details", got.Summary, len(got.Details))
	}
	for n := range maxPending + 10 {
		r.Record(Session{Policy: Policy{Kind: NoPolicy, Domain: fmt.Sprint(n)}})
	}
	if len(r.pending) != maxPending {
		t.Errorf("%d pending", len(r.pending))
	}
	for n := range maxSets + 10 {
		r.Record(Session{Policy: Policy{Kind: STS, Domain: "0", Strings: []string{fmt.Sprint(n)}}})
	}
	if n := len(r.pending[Day{"2026-04-01", "0"}].Policies); n != maxSets {
		t.Errorf("%d policies of a domain", n)
	}
}

func TestSweep(t *testing.T) {
	now := time.Date(2026, 4, 10, 12, 0, 0, 0, time.UTC)
	s := &memory{m: map[Day][]byte{{"2026-04-01", "a"}: nil, {"2026-04-02", "a"}: nil, {"2026-04-10", "b"}: nil}}
	if err := New(s, func() time.Time { return now }).Sweep(t.Context()); err != nil || len(s.m) != 2 {
		t.Errorf("%v, %d left", err, len(s.m))
	}
}
