package mailauth

import (
	"testing"

	"go.uber.org/goleak"
)

// Whoever starts a goroutine waits for it; go-msgauth does, too.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
