package config

import (
	"fmt"
	"reflect"

	"github.com/BurntSushi/toml"
)

// suggest names the known key that an unknown one was probably meant to be.
func suggest(k toml.Key) string {
	want, best, least := k[len(k)-1], "", 3
	for _, known := range keysUnder(reflect.TypeFor[Config](), k[:len(k)-1]) {
		if d := distance(want, known); d < least {
			best, least = known, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", best)
}

// keysUnder lists the keys of the table that a path names, nil when there is no such table.
func keysUnder(t reflect.Type, path []string) []string {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		if t.Kind() == reflect.Map && len(path) > 0 {
			path = path[1:]
		}
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var keys []string
	for f := range t.Fields() {
		tag := f.Tag.Get("toml")
		if len(path) > 0 && tag == path[0] {
			return keysUnder(f.Type, path[1:])
		}
		if tag != "-" {
			keys = append(keys, tag)
		}
	}
	if len(path) > 0 {
		return nil
	}
	return keys
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := min(row[j]+1, row[j+1]+1, diagonal+1)
			if a[i] == b[j] {
				next = diagonal
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
