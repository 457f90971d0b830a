package discovery

import (
	"bytes"
	"testing"
)

func FuzzCaseRequest(f *testing.F) {
	f.Add([]byte(CaseRequest{Requester: "rita@example.org", CaseKey: make([]byte, caseKeySize)}.Line()))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseCaseRequest(b)
		if err == nil && r.Line() != string(bytes.TrimSuffix(b, []byte("\n")))+"\n" {
			t.Errorf("%q is written %q", b, r.Line())
		}
	})
}

func FuzzSelection(f *testing.F) {
	f.Add([]byte(`{"format":"dimegate-selection-v1","manifest":"REVNMQ==","custodians":[{"salt":"","address":"a@b"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSelection(b)
		if err != nil {
			return
		}
		again, err := s.Octets()
		if err != nil {
			t.Fatal(err)
		}
		if two, err := ParseSelection(again); err != nil || two.Manifest.Digest() != s.Manifest.Digest() {
			t.Errorf("read again: %v", err)
		}
	})
}
