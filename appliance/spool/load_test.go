package spool_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dimegate/appliance/spool"
	"dimegate/bridge/queue"
	"dimegate/internal/testvault"
	"dimegate/vault"
	"dimegate/vault/audit"
)

func mail(n int) string {
	return "Subject: " + canary + "\r\n\r\n" + strings.Repeat(canary+"\r\n", n/(len(canary)+2)+1)[:n]
}

func from(i int) queue.Envelope {
	return queue.Envelope{ReversePath: "alice@x.example", Recipients: []queue.Recipient{{Address: fmt.Sprintf("u%d@y%d.example", i, i%17)}}}
}

type deliverFunc func(context.Context, *queue.Item) (queue.Result, error)

func (f deliverFunc) Deliver(ctx context.Context, it *queue.Item) (queue.Result, error) {
	return f(ctx, it)
}
func (deliverFunc) Notify(context.Context, queue.Mail) error { return nil }

// TestThousandAtOnce: a thousand sessions end their message in the same moment. They share commits, nothing is lost, and
// nothing readable rests.
func TestThousandAtOnce(t *testing.T) {
	const n = 1000
	disk := testvault.New(t)
	v := disk.Open(t, vault.Options{})
	q := queue.New(spool.Store{Vault: v}, queue.Options{Workers: 50})
	before, _ := v.Commits()
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		body := mail(3000 + 100*(i%1000))
		wg.Go(func() {
			<-start
			if _, err := q.Accept(t.Context(), from(i), strings.NewReader(body)); err != nil {
				t.Error(err)
			}
		})
	}
	began := time.Now()
	close(start)
	wg.Wait()
	took := time.Since(began)
	after, _ := v.Commits()
	t.Logf("%d messages, %d rows and %d leaves in %d commits, %.0f messages/s", n, n, 2*n, after-before, n/took.Seconds())
	if after-before > n/2 {
		t.Errorf("%d commits for %d messages", after-before, n)
	}
	list, err := q.List(t.Context(), "", "", 2*n)
	if err != nil || len(list) != n {
		t.Errorf("%d rows, %v", len(list), err)
	}
	noCanary(t, disk.Dir)

	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	var delivered atomic.Int64
	deliver := deliverFunc(func(context.Context, *queue.Item) (queue.Result, error) {
		delivered.Add(1)
		return queue.Result{Class: queue.Done, Code: 254}, nil
	})
	began = time.Now()
	go func() {
		defer close(done)
		if err := q.Run(ctx, deliver, deliver); err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		left, err := q.List(t.Context(), "", "", 1)
		if err != nil || len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	t.Logf("delivered at %.0f messages/s", n/time.Since(began).Seconds())
	stop()
	<-done
	if left, err := q.List(t.Context(), "", "", n); err != nil || len(left) != 0 || delivered.Load() != n {
		t.Errorf("%d left, %d delivered, %v", len(left), delivered.Load(), err)
	}
	r, err := audit.Verify(t.Context(), v, "", nil)
	if err != nil || r.Types[vault.LeafIntake] != n || r.Types[vault.LeafDelivered] != n {
		t.Errorf("%+v, %v", r, err)
	}
	if err := v.Scrub(t.Context()); err != nil {
		t.Error(err)
	}
	noCanary(t, disk.Dir)
}

// noCanary searches every file for words of the mail and of its envelope.
func noCanary(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, word := range []string{"merger", "alice@", "Subject"} {
			if strings.Contains(string(b), word) {
				t.Errorf("%s holds %q", filepath.Base(path), word)
			}
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
}

// BenchmarkAccept is acceptance alone, by sessions at one time: sealed, committed, logged.
func BenchmarkAccept(b *testing.B) {
	for _, size := range []int{2 << 10, 10 << 10, 100 << 10, 1 << 20} {
		for _, sessions := range []int{1, 20} {
			b.Run(fmt.Sprintf("%dKiB/%d", size>>10, sessions), func(b *testing.B) {
				v := testvault.New(b).Open(b, vault.Options{})
				q := queue.New(spool.Store{Vault: v}, queue.Options{})
				body := mail(size)
				before, _ := v.Commits()
				b.SetBytes(int64(size))
				b.SetParallelism(max(sessions/2, 1))
				var n atomic.Int64
				accept := func() {
					if _, err := q.Accept(b.Context(), from(int(n.Add(1))), strings.NewReader(body)); err != nil {
						b.Error(err)
					}
				}
				b.ResetTimer()
				if sessions == 1 {
					for range b.N {
						accept()
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							accept()
						}
					})
				}
				after, _ := v.Commits()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
				b.ReportMetric(float64(b.N)/float64(after-before), "messages/commit")
			})
		}
	}
}
