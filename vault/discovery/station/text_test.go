package station

import (
	"strings"
	"testing"
)

// TestHTMLBeyondTheBound: a document that is longer than what is looked at was not searched whole.
func TestHTMLBeyondTheBound(t *testing.T) {
	for text, want := range map[string]bool{"<p>ab": true, "<p>abc": false, "<!-- -->secret": false} {
		x := &texts{look: func(string, string) {}, whole: true, left: 5}
		if x.html(strings.NewReader(text)); x.whole != want {
			t.Errorf("%q: whole %v", text, x.whole)
		}
	}
}
