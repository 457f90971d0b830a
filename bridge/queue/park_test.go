package queue_test

import (
	"testing"
	"testing/synctest"
	"time"

	"dimegate/bridge/queue"
)

// TestLiftedFloor: what the policy held is decided anew at the next start; what an administrator holds stays.
func TestLiftedFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{})
		w.accept(envelope("bob@y.example"), message(10))
		w.run(always(queue.Result{Class: queue.Park}))
		time.Sleep(time.Second)
		synctest.Wait()
		if l := w.list(); len(l) != 1 || l[0].Held != "policy" {
			t.Fatalf("parked: %+v", l)
		}
		w.halt()
		w.accept(envelope("carol@z.example"), message(10))
		kept := w.list()[1].ID
		if err := w.Hold(t.Context(), kept); err != nil {
			t.Fatal(err)
		}

		w.restart()
		w.run(always(queue.Result{Class: queue.Park}))
		time.Sleep(time.Second)
		synctest.Wait()
		if l := w.list(); len(l) != 2 || l[0].Held != "policy" || len(w.tried()["bob@y.example"]) != 2 {
			t.Errorf("the floor still holds: %+v after %v", l, w.tried())
		}

		w.restart()
		w.run(always(queue.Result{Class: queue.Done}))
		time.Sleep(time.Second)
		synctest.Wait()
		if l := w.list(); len(l) != 1 || l[0].ID != kept || l[0].Held != "administrator" || len(w.tried()["carol@z.example"]) != 0 {
			t.Errorf("after the floor was lifted: %+v, tried %v", l, w.tried())
		}
	})
}

// TestRestFollowsSchedule: a destination that fails again and again is still tried as often as the schedule says.
func TestRestFollowsSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, queue.Options{Schedule: []time.Duration{time.Second}})
		w.accept(envelope("bob@y.example"), message(10))
		w.run(always(queue.Result{Class: queue.Network}))
		time.Sleep(60*time.Second + time.Millisecond)
		synctest.Wait()
		if n := len(w.tried()["bob@y.example"]); n < 55 {
			t.Errorf("%d tries in a minute, want one a second", n)
		}
	})
}
