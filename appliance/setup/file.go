package setup

import (
	"fmt"
	"strconv"
	"strings"

	"dimegate/configs"
)

// An Answer is what a new configuration file needs to know; what is empty stays at its default.
type Answer struct {
	DataFolder string
	Name       string
	Domains    []string
	DX         []string
	Inner      string
	Policy     string
}

// File returns the text of a new configuration file: the commented defaults, with the answers in their places.
func File(a Answer) string {
	text := configs.Gateway
	if a.DataFolder != "" {
		text = set(text, "data_folder", strconv.Quote(a.DataFolder))
	}
	text = strings.Replace(text, "\n#[[organization]]\n", "\n[[organization]]\n", 1)
	for _, k := range []struct{ key, value string }{
		{"domains", quoteAll(a.Domains)},
		{"name", quote(a.Name)},
		{"dx", quoteAll(a.DX)},
		{"inner", quote(a.Inner)},
		{"policy", quote(a.Policy)},
	} {
		if k.value != "" {
			text = set(text, "#"+k.key, k.value)
		}
	}
	return text
}

// set gives the first line of a key, which may stand behind a "#", a value.
func set(text, key, value string) string {
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, key+" = ") {
			lines[i] = strings.TrimPrefix(key, "#") + " = " + value + "\n"
			return strings.Join(lines, "")
		}
	}
	panic("setup: gateway.toml has no line " + key) // the file is embedded, and a test sets every key
}

// quote writes a TOML string, and nothing for an empty one. In printable text Go's escapes are TOML's.
func quote(s string) string {
	if s == "" {
		return ""
	}
	return strconv.Quote(s)
}

func quoteAll(list []string) string {
	if len(list) == 0 {
		return ""
	}
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = strconv.Quote(s)
	}
	return fmt.Sprintf("[%s]", strings.Join(quoted, ", "))
}
