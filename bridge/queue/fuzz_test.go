package queue_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"dimegate/bridge/queue"
)

// FuzzParseEnvelope: what is read encodes back to the same octets, and nothing else is read.
func FuzzParseEnvelope(f *testing.F) {
	e := envelope("bob@y.example", "carol@z.example")
	e.Received = time.UnixMilli(1_800_000_000_000)
	f.Add(queue.EncodeEnvelope(e))
	e.SMTPUTF8, e.ReversePath = true, ""
	e.Recipients[0].Notify, e.Recipients[0].Original = queue.NotifyNever, "rfc822;x@y"
	f.Add(queue.EncodeEnvelope(e))
	f.Add([]byte("DEV1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := queue.ParseEnvelope(b)
		if err != nil {
			if !errors.Is(err, queue.ErrDamaged) {
				t.Error(err)
			}
			return
		}
		if got := queue.EncodeEnvelope(e); !bytes.Equal(got, b) {
			t.Errorf("encodes differently:\n in %x\nout %x", b, got)
		}
	})
}
