package main

import (
	"testing"

	"dimegate/vault"
)

// TestSteal is row 1 of the archive's table in small.
func TestSteal(t *testing.T) {
	binary, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	r := &stealReport{Archived: 60, Waiting: 5}
	l := &stealLab{dir: t.TempDir(), memory: true, report: r, subjects: map[vault.ID]string{}}
	if err := l.run(t.Context(), binary); err != nil {
		t.Fatal(err)
	}
	if !r.OK || r.ControlOpened != 60 || r.OpenedArchived != 0 || r.SubjectsReadable != 0 || r.Memory < 1<<20 {
		t.Errorf("%+v", r)
	}
}
