package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

// TestArchive is row 4 of the archive's table in small: the search, the whole case and the export of the long run, over 20,000 records.
func TestArchive(t *testing.T) {
	if testing.Short() {
		t.Skip("seconds of TDH2 and SQLite: left out by -short")
	}
	var out bytes.Buffer
	if err := runArchive(t.Context(), []string{"--records", "20000", "--find", "200", "--searches", "5", "--json"}, &out); err != nil {
		t.Error(err)
	}
	var r archiveReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if !r.OK || r.Found != 200 || r.Items != 180 || r.Exported != 180 || r.Matched != 1 || r.StationRate <= 0 || r.TDH2Rate <= 0 {
		t.Errorf("report: %s", out.Bytes())
	}
}
