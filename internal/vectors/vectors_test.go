package vectors_test

import (
	"testing"

	"dimegate/internal/vectors"
)

func TestExceptions(t *testing.T) {
	x := vectors.Exceptions{"order-*": "libdime takes any order", "dup-2": "libdime takes doubles"}
	for name, want := range map[string]bool{"order-4-5": true, "dup-2": true, "dup-22": false, "reorder-1": false} {
		if x.Has(t, name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
