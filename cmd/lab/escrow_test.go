package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestEscrow runs the escrow test as a person does, on a small archive, and believes its numbers, not only its exit code.
func TestEscrow(t *testing.T) {
	if testing.Short() {
		t.Skip("starts officers' processes: left out by -short")
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("reading other processes' memory wants root")
		}
		t.Skip("reading other processes' memory wants root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	lab := filepath.Join(t.TempDir(), "lab")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", lab, "dimegate/cmd/lab").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	const officers, quorum, inCase = 5, 3, 60
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, lab, "escrow", "--records", "500", "--case", "60", "--json")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, stderr.Bytes())
	}
	var r escrowReport
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, stdout.Bytes())
	}
	var named map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &named); err != nil || named["opened_with_2"] != 0.0 {
		t.Errorf("opened_with_2 is %v, %v", named["opened_with_2"], err)
	}
	if r.Officers != officers || r.Quorum != quorum || r.Opened != inCase || r.OpenedOutside != 0 || r.AfterForged != inCase {
		t.Errorf("opened %d, outside %d, beside a forger %d", r.Opened, r.OpenedOutside, r.AfterForged)
	}
	if !r.Slipped || !r.Forged || r.ForgedBy != 2 {
		t.Errorf("slipped wrap refused %t, forged partial %t by %d", r.Slipped, r.Forged, r.ForgedBy)
	}
	if r.Search.Scalar != 0 || r.Search.Control < quorum || r.Search.Images < 9 || r.Search.Files < 50 || r.Search.Cores != 0 {
		t.Errorf("search: %+v", r.Search)
	}
	if !r.Reshared || r.OpenedByNew != r.WantedByNew || r.WantedByNew <= inCase || r.MixedSets < 50 || r.OpenedByMixed != 0 {
		t.Errorf("after the change of officers: opened %d of %d, %d mixed sets, %d open", r.OpenedByNew, r.WantedByNew, r.MixedSets, r.OpenedByMixed)
	}
	if r.SealMS <= 0 || r.OfficerRate <= 0 || r.StationRate <= 0 || !r.OK {
		t.Errorf("%+v", r)
	}
}
