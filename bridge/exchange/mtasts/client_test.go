package mtasts

import (
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crypto/tls"

	"dimegate/internal/testcert"
)

// A site is a domain with a policy, as its DNS and its web server show it.
type site struct {
	mu      sync.Mutex
	texts   []string
	dnsErr  error
	policy  string
	kind    string
	status  int
	fetched int
	asked   string // the last request: method, host, path, agent
	down    bool
	now     time.Time
	store   memory
	server  *httptest.Server
	cert    tls.Certificate
	roots   *testcert.Authority
}

const enforce = "version: STSv1\nmode: enforce\nmx: mx.bravo.test\nmax_age: 604800\n"

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{texts: []string{"v=STSv1; id=a1;"}, policy: enforce, kind: "text/plain; charset=utf-8", status: 200, now: time.Now(),
		store: memory{}, roots: testcert.NewAuthority(t, "web CA")}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.cert = s.roots.Issue(t, []string{"mta-sts.bravo.test"})
	s.server.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &s.cert, nil }}
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	return s
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetched++
	s.asked = r.Method + " " + r.Host + " " + r.URL.Path + " " + r.Header.Get("User-Agent")
	if r.URL.Path == "/elsewhere" {
		w.Header().Set("Content-Type", "text/plain")
		w.Write([]byte(enforce))
		return
	}
	w.Header().Set("Content-Type", s.kind)
	w.Header().Set("Location", "/elsewhere")
	w.WriteHeader(s.status)
	w.Write([]byte(s.policy))
}

// client is a new Client on the site's store: as after a restart.
func (s *site) client() *Client {
	return New(Options{Store: s.store, Roots: s.roots.Pool(),
		TXT: func(_ context.Context, name string) ([]string, error) {
			if name != "_mta-sts.bravo.test" {
				return nil, nil
			}
			return s.texts, s.dnsErr
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if s.down || address != "mta-sts.bravo.test:443" {
				return nil, errors.New("connection refused")
			}
			return new(net.Dialer).DialContext(ctx, network, s.server.Listener.Addr().String())
		},
		Now: func() time.Time { return s.now },
	})
}

type memory map[string][]byte

func (m memory) Policy(_ context.Context, d string) ([]byte, error) { return m[d], nil }
func (m memory) SetPolicy(_ context.Context, d string, b []byte) error {
	m[d] = b
	return nil
}
func (m memory) DropPolicy(_ context.Context, d string) error { delete(m, d); return nil }
func (m memory) Policies(context.Context) ([]string, error)   { return slices.Sorted(maps.Keys(m)), nil }

// find looks the policy up and says in one line what came.
func find(t *testing.T, c *Client) string {
	t.Helper()
	f, err := c.Find(t.Context(), "bravo.test")
	if err != nil {
		if errors.Is(err, ErrUnknown) {
			return "unknown"
		}
		return err.Error()
	}
	out := "no policy"
	if f.Policy != nil {
		out = string(f.Policy.Mode)
	}
	if f.Cached {
		out += ", cached"
	}
	switch {
	case errors.Is(f.Err, ErrPolicy):
		out += ", unreadable"
	case BadCertificate(f.Err):
		out += ", bad certificate"
	case f.Err != nil:
		out += ", not fetched"
	}
	return out
}

// A first contact: nothing is cached.
func TestFindFirst(t *testing.T) {
	tests := map[string]struct {
		change func(t *testing.T, s *site)
		want   string
	}{
		"enforce":                    {func(*testing.T, *site) {}, "enforce"},
		"testing":                    {func(_ *testing.T, s *site) { s.policy = strings.Replace(enforce, "enforce", "testing", 1) }, "testing"},
		"none":                       {func(_ *testing.T, s *site) { s.policy = "version: STSv1\nmode: none\nmax_age: 1\n" }, "none"},
		"no record":                  {func(_ *testing.T, s *site) { s.texts = nil }, "no policy"},
		"two records":                {func(_ *testing.T, s *site) { s.texts = append(s.texts, s.texts...) }, "no policy"},
		"DNS fails":                  {func(_ *testing.T, s *site) { s.dnsErr = errors.New("SERVFAIL") }, "unknown"},
		"web server down":            {func(_ *testing.T, s *site) { s.down = true }, "no policy, not fetched"},
		"404":                        {func(_ *testing.T, s *site) { s.status = 404 }, "no policy, not fetched"},
		"redirect is not followed":   {func(_ *testing.T, s *site) { s.status = 302 }, "no policy, not fetched"},
		"permanent redirect neither": {func(_ *testing.T, s *site) { s.status = 308 }, "no policy, not fetched"},
		"206":                        {func(_ *testing.T, s *site) { s.status = 206 }, "no policy, not fetched"},
		"HTML":                       {func(_ *testing.T, s *site) { s.kind = "text/html" }, "no policy, not fetched"},
		"no type":                    {func(_ *testing.T, s *site) { s.kind = "" }, "no policy, not fetched"},
		"64 KiB":                     {func(_ *testing.T, s *site) { s.policy += "x: " + strings.Repeat("y", maxPolicy-len(s.policy)-3) }, "enforce"},
		"one more":                   {func(_ *testing.T, s *site) { s.policy += "x: " + strings.Repeat("y", maxPolicy-len(s.policy)-2) }, "no policy, unreadable"},
		"garbage":                    {func(_ *testing.T, s *site) { s.policy = "hello" }, "no policy, unreadable"},
		"certificate of another host": {func(t *testing.T, s *site) { s.cert = s.roots.Issue(t, []string{"bravo.test"}) },
			"no policy, bad certificate"},
		"certificate expired": {func(t *testing.T, s *site) {
			s.cert = s.roots.Issue(t, []string{"mta-sts.bravo.test"}, testcert.Expired)
		}, "no policy, bad certificate"},
		"certificate of no CA":     {func(t *testing.T, s *site) { s.cert = testcert.ECDSA(t, "mta-sts.bravo.test") }, "no policy, bad certificate"},
		"the store fails":          {func(t *testing.T, s *site) { s.store["bravo.test"] = []byte("{") }, "mtasts: the kept policy of bravo.test: unexpected end of JSON input"},
		"the store's policy fails": {func(t *testing.T, s *site) { s.store["bravo.test"] = []byte("{}") }, "mtasts: the kept policy of bravo.test: " + ErrPolicy.Error()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			tt.change(t, s)
			if got := find(t, s.client()); got != tt.want {
				t.Errorf("%s; want %s", got, tt.want)
			}
			if s.fetched > 1 || s.fetched == 1 && s.asked != "GET mta-sts.bravo.test /.well-known/mta-sts.txt " {
				t.Errorf("%d requests, %q", s.fetched, s.asked)
			}
		})
	}
}

// What an attacker on the way can do to a policy that is known: nothing, until it is over.
func TestFindCached(t *testing.T) {
	const hour = time.Hour
	tests := map[string]struct {
		after   time.Duration
		change  func(s *site)
		want    string
		fetches int
	}{
		"at once": {0, func(*site) {}, "enforce, cached", 0},
		"new id":  {0, func(s *site) { s.texts = []string{"v=STSv1; id=a2"} }, "enforce", 1},
		"new id, other policy": {0, func(s *site) {
			s.texts[0], s.policy = "v=STSv1; id=a2", strings.Replace(enforce, "enforce", "testing", 1)
		}, "testing", 1},
		"other policy, same id":              {hour, func(s *site) { s.policy = "version: STSv1\nmode: none\nmax_age: 1" }, "enforce, cached", 0},
		"fetched again after a day":          {25 * hour, func(*site) {}, "enforce", 1},
		"record hidden":                      {25 * hour, func(s *site) { s.texts = nil }, "enforce, cached", 0},
		"record spoilt":                      {hour, func(s *site) { s.texts = []string{"v=STSv1; id=a1", "v=STSv1; id=a1"} }, "enforce, cached", 0},
		"DNS fails":                          {25 * hour, func(s *site) { s.dnsErr = errors.New("SERVFAIL") }, "enforce, cached", 0},
		"web server down":                    {25 * hour, func(s *site) { s.down = true }, "enforce, cached, not fetched", 0},
		"web server down, new id":            {hour, func(s *site) { s.down, s.texts[0] = true, "v=STSv1; id=a2" }, "enforce, cached, not fetched", 0},
		"policy unreadable":                  {25 * hour, func(s *site) { s.policy = "<html>" }, "enforce, cached, unreadable", 1},
		"over, record hidden":                {169 * hour, func(s *site) { s.texts = nil }, "no policy", 0},
		"over, DNS fails":                    {169 * hour, func(s *site) { s.dnsErr = errors.New("SERVFAIL") }, "unknown", 0},
		"over, web server down":              {169 * hour, func(s *site) { s.down = true }, "no policy, not fetched", 0},
		"over, fetched again":                {169 * hour, func(*site) {}, "enforce", 1},
		"just not over":                      {168*hour - time.Second, func(s *site) { s.down = true }, "enforce, cached, not fetched", 0},
		"the clock goes back a year":         {-365 * 24 * hour, func(s *site) { s.down = true }, "enforce, cached, not fetched", 0},
		"the clock goes back, record hidden": {-365 * 24 * hour, func(s *site) { s.texts = nil }, "enforce, cached", 0},
	}
	for name, tt := range tests {
		for _, restart := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s := newSite(t)
				c := s.client()
				if got := find(t, c); got != "enforce" {
					t.Fatal(got)
				}
				if restart {
					c = s.client()
				}
				s.now = s.now.Add(tt.after)
				tt.change(s)
				if got := find(t, c); got != tt.want {
					t.Errorf("restarted %v: %s; want %s", restart, got, tt.want)
				}
				if s.fetched-1 != tt.fetches {
					t.Errorf("%d more fetches, want %d", s.fetched-1, tt.fetches)
				}
			})
		}
	}
}

// A web server that fails is left alone for a while, and many who ask make one request.
func TestFetchesAreFew(t *testing.T) {
	s := newSite(t)
	c := s.client()
	s.status = 500
	for range 3 {
		find(t, c)
	}
	if s.fetched != 1 {
		t.Errorf("%d fetches of a server that fails", s.fetched)
	}
	s.status, s.now = 200, s.now.Add(pause)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { c.Find(t.Context(), "bravo.test") })
	}
	wg.Wait()
	if s.fetched != 2 || find(t, c) != "enforce, cached" {
		t.Errorf("%d fetches, %s", s.fetched, find(t, c))
	}
}

// Who waits no longer goes away; who asked first does not take the answer from the others.
func TestFindEndsWithContext(t *testing.T) {
	s := newSite(t)
	c := s.client()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Find(ctx, "bravo.test"); !errors.Is(err, context.Canceled) && err != nil {
		t.Error(err)
	}
	if got := find(t, c); got != "enforce" && got != "enforce, cached" {
		t.Error(got)
	}
}

func TestSweep(t *testing.T) {
	s := newSite(t)
	c := s.client()
	find(t, c)
	s.store["broken.test"] = []byte("{")
	if err := c.Sweep(t.Context()); err != nil || len(s.store) != 1 {
		t.Errorf("%v, %d left", err, len(s.store))
	}
	s.now, s.texts = s.now.Add(169*time.Hour), nil
	if err := c.Sweep(t.Context()); err != nil || len(s.store) != 0 || find(t, c) != "no policy" {
		t.Errorf("%v, %d left", err, len(s.store))
	}
}
