package vault_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// hexOctets are octets that JSON holds as hexadecimal.
type hexOctets []byte

func (h *hexOctets) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var err error
	*h, err = hex.DecodeString(s)
	return err
}

// An escrowRecord is what we use of a record in the escrow vectors.
type escrowRecord struct {
	Name       string    `json:"name"`
	Archive    hexOctets `json:"archive"`
	Record     hexOctets `json:"record"`
	Octets     hexOctets `json:"octets"`
	Envelope   hexOctets `json:"envelope"`
	Salt       hexOctets `json:"salt"`
	BodyDigest hexOctets `json:"body_digest"`
	WrapDigest hexOctets `json:"wrap_digest"`
	LeafTime   int64     `json:"leaf_time"`
	IntakeLeaf hexOctets `json:"intake_leaf"`
}

func escrowRecords(t *testing.T) []escrowRecord {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "vectors", "escrow", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Records []escrowRecord `json:"records"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Records) == 0 {
		t.Fatal("no records in the escrow vectors")
	}
	return v.Records
}
