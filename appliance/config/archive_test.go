package config_test

import (
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
)

func archiveOf(t *testing.T, text string) (*config.Config, error) {
	t.Helper()
	c, _, err := config.Decode("a.toml", []byte("[[organization]]\ndomains = [\"example.org\"]\n[audit]\nwitnesses = [\"https://w.example w+1+x\"]\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	c.Resolve(t.TempDir())
	return c, c.Check()
}

func TestArchiveClass(t *testing.T) {
	c, err := archiveOf(t, `[archive]
keep = true
[[archive.class]]
number = 1
name = "mail"
retention = "87600h"
[[archive.class]]
number = 7
name = "board"
retention = "876000h"
[[archive.rule]]
direction = "out"
from = "News@example.org"
class = "none"
[[archive.rule]]
from = "board@example.org"
class = "board"
[[archive.rule]]
to = "board@example.org"
class = "board"
[[archive.rule]]
to = "private.example"
class = "none"
`)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		direction, from, to string
		want                int // 0: not kept
	}{
		"default":                    {"out", "a@example.org", "b@else.example", 1},
		"by author":                  {"out", "board@example.org", "b@else.example", 7},
		"first rule":                 {"out", "news@example.org", "b@else.example", 0},
		"one more name in From":      {"out", "a@example.org news@example.org", "b@else.example", 1},
		"another direction":          {"in", "news@example.org", "b@else.example", 1},
		"by one of the recipients":   {"in", "x@else.example", "a@example.org BOARD@example.org", 7},
		"a domain of all recipients": {"out", "a@example.org", "x@private.example y@private.example", 0},
		"a domain of some":           {"out", "a@example.org", "x@private.example y@else.example", 1},
	} {
		got, kept := c.Archive.ClassOf(tt.direction, strings.Fields(tt.from), strings.Fields(tt.to))
		if kept != (tt.want != 0) || got.Number != tt.want {
			t.Errorf("%s: %v, kept %v", name, got, kept)
		}
	}
	plain, err := archiveOf(t, "[archive]\nkeep = true\n")
	if got, kept := plain.Archive.ClassOf("in", nil, nil); err != nil || !kept || got != (config.Class{Number: 1, Name: "mail", Retention: 87600 * time.Hour}) {
		t.Errorf("without a class: %v, %v", got, err)
	}
	if plain.Archive.LongestRetention() != 87600*time.Hour || c.Archive.LongestRetention() != c.Archive.Classes[1].Retention || !plain.Archive.Continuity {
		t.Errorf("the longest: %v, %v", plain.Archive.LongestRetention(), c.Archive.LongestRetention())
	}
	off, err := archiveOf(t, "")
	if _, kept := off.Archive.ClassOf("in", nil, nil); err != nil || kept {
		t.Errorf("switched off, and kept: %v", err)
	}
}

// TestUntilErased: a class may have no retention time, if it says so.
func TestUntilErased(t *testing.T) {
	c, err := archiveOf(t, "[[archive.class]]\nnumber = 2\nname = \"mail\"\nuntil_erased = true\n[archive]\nkeep = true\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, kept := c.Archive.ClassOf("in", nil, nil); !kept || got.Retention != 0 || got.Number != 2 || c.Archive.LongestRetention() != 0 {
		t.Errorf("%+v, kept %v", got, kept)
	}
}

func TestArchiveFaults(t *testing.T) {
	class := "[[archive.class]]\nnumber = 1\nname = \"mail\"\nretention = \"24h\"\n"
	for want, text := range map[string]string{
		"archive.default":               class + "[archive]\ndefault = \"male\"\n",
		"archive.class[1].number":       "[[archive.class]]\nname = \"mail\"\nretention = \"24h\"\n",
		"archive.class[2].number":       class + strings.Replace(class, "mail", "more", 1),
		"archive.class[2].name":         class + strings.Replace(class, "= 1", "= 2", 1),
		"archive.class[1].until_erased": class + "until_erased = true\n",
		"archive.class[1].retention":    strings.Replace(class, "24h", "23h", 1),
		"archive.rule[1].class":         class + "[[archive.rule]]\nclass = \"x\"\n",
		"archive.rule[1].direction":     class + "[[archive.rule]]\nclass = \"none\"\ndirection = \"up\"\n",
		"archive.rule[1].from":          class + "[[archive.rule]]\nclass = \"none\"\nfrom = \"@\"\n",
	} {
		if _, err := archiveOf(t, text); err == nil || !strings.Contains(err.Error(), want+": ") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestJournalAddress(t *testing.T) {
	for want, text := range map[string]string{
		"":                "[archive]\nkeep = true\njournal_address = \"J@a.example\"\n",
		"nothing is kept": "[archive]\njournal_address = \"j@a.example\"\n",
		"is no address":   "[archive]\nkeep = true\njournal_address = \"a.example\"\n",
		"policy.journal":  "[archive]\nkeep = true\njournal_address = \"J@a.example\"\n[policy]\njournal = [\"j@A.example\"]\n",
	} {
		c, err := archiveOf(t, text)
		if want == "" && (err != nil || c.Archive.JournalAddress != "j@a.example") || want != "" && (err == nil || !strings.HasPrefix(err.Error(), "archive.journal_address: ") || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestArchiveWitness: no archive without a witness, of each of several vaults.
func TestArchiveWitness(t *testing.T) {
	for text, want := range map[string]string{
		"[archive]\nkeep = true\n":  "audit.witnesses: the archive needs a witness",
		"[archive]\nkeep = false\n": "",
		"[archive]\nkeep = true\n[audit]\nwitnesses = [\"https://w.example w+1+x\"]\n[[organization]]\ndomains = [\"b.example\"]\nvault = \"b\"\n[vault.own.b]\n": "vault.own.b.witnesses: the archive needs a witness",
	} {
		c, _, err := config.Decode("a.toml", []byte("[[organization]]\ndomains = [\"example.org\"]\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		c.Resolve(t.TempDir())
		if err := c.Check(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
