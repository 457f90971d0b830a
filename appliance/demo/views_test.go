package demo

import (
	"encoding/base64"
	"testing"
)

// TestCount: the search must find what it is there to find, or "0 times" means nothing.
func TestCount(t *testing.T) {
	const text = "the merger closes on Friday"
	for pad := range 3 {
		plain := append([]byte("xy")[:pad:pad], "..."+text+"!"...)
		if count(plain, text) == 0 {
			t.Errorf("plain, pad %d: not found", pad)
		}
		if b := base64.StdEncoding.EncodeToString(plain); count([]byte(b), text) == 0 {
			t.Errorf("base64, pad %d: not found in %s", pad, b)
		}
	}
	if count([]byte("the merger closes on Thursday"), text) != 0 {
		t.Error("found what is not there")
	}
}
