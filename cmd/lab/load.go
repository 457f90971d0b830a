package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dimegate/internal/testpeer"
)

// sessions is how many the generator holds open, and how many lead from hop to hop on both sides of a comparison.
const sessions = 20

// idField numbers the generator's messages, and endLine is the last of each: one that was cut short has none.
const (
	idField = "X-Lab-Message: "
	endLine = "-- end of message --\r\n"
)

// A generator sends mail from alpha's users to bravo's: session i from m<i> to m<i>.
type generator struct {
	text string // the body, without endLine
	next atomic.Int64
}

// newGenerator makes messages of about so many octets, of text that does not repeat.
func newGenerator(octets int) *generator {
	const header = 300
	random := make([]byte, max(octets-header, 1)*3/4*76/78)
	_, _ = rand.Read(random) // does not fail
	var text strings.Builder
	for line := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(random)), 76) {
		text.Write(line)
		text.WriteString("\r\n")
	}
	return &generator{text: text.String()}
}

func labUser(session int, domain string) string { return fmt.Sprintf("m%d@%s", session, domain) }

// message makes the next message of a session and returns its number.
func (g *generator) message(session int) (int64, []byte) {
	return g.mail(labUser(session, "alpha.test"), labUser(session, "bravo.test"))
}

// mail makes the next message, between anybody.
func (g *generator) mail(from, to string) (int64, []byte) {
	id := g.next.Add(1)
	return id, fmt.Appendf(nil, "From: <%s>\r\nTo: <%s>\r\nSubject: Message %d of the load\r\nDate: %s\r\nMessage-ID: <%d.load@alpha.test>\r\n"+
		idField+"%d\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n%s"+endLine,
		from, to, id, time.Now().Format(time.RFC1123Z), id, id, g.text)
}

// numberOf finds the number of a whole message of a generator; 0 for what is none or was cut short.
func numberOf(message string) int64 {
	message = strings.ReplaceAll(message, "\r\n", "\n")
	_, rest, found := strings.Cut(message, "\n"+idField)
	if !found || !strings.HasSuffix(strings.TrimRight(message, "\n"), strings.TrimSpace(endLine)) {
		return 0
	}
	number, _, _ := strings.Cut(rest, "\n")
	id, _ := strconv.ParseInt(number, 10, 64) // 0 for what is no number
	return id
}

// send sends n messages to a server over all sessions and returns how long each waited from its end to its 250.
func (g *generator) send(ctx context.Context, addr string, n int) ([]time.Duration, error) {
	waits, errs := make([][]time.Duration, sessions), make([]error, sessions)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			c, err := testpeer.DialSMTP(ctx, addr)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.Close()
			for taken.Add(1) <= int64(n) {
				_, m := g.message(i)
				if errs[i] = c.Send(labUser(i, "alpha.test"), []string{labUser(i, "bravo.test")}, m); errs[i] != nil {
					return
				}
				waits[i] = append(waits[i], c.Waited)
			}
		})
	}
	wg.Wait()
	return slices.Concat(waits...), errors.Join(errs...)
}

// percentile is the smallest value that so many percent of all are not above; 0 of nothing. It sorts values.
func percentile[T ~int64 | ~float64](values []T, percent int) T {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min((len(values)*percent+99)/100, len(values))-1]
}

// median is the middle one, or the mean of the two; 0 of nothing. It sorts values.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	slices.Sort(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
