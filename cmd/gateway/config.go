package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/configs"
)

// defaultConfig is where every command looks for the configuration.
const defaultConfig = "/etc/dimegate/gateway.toml"

var configCommand = command{
	name:    "config",
	summary: "check and explain the configuration",
	sub: []command{
		{
			name: "check", summary: "say everything that is wrong with the configuration",
			usage:   "[--config FILE] [--no-files] [--json]",
			example: "gateway config check --config /etc/dimegate/gateway.toml",
			run:     runConfigCheck,
		},
		{
			name: "describe", summary: "print every key: its value, where that comes from, what it means",
			usage:   "[--config FILE] [--json] [KEY PREFIX]",
			example: "gateway config describe submission",
			run:     runConfigDescribe,
		},
	},
}

// runConfigCheck ends with 0 or 2: a wrong configuration is exit code 2 everywhere.
func runConfigCheck(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	noFiles := fs.Bool("no-files", false, "do not look at the files that it names")
	asJSON := fs.Bool("json", false, "print JSON")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("config check: takes no operand: see %q", "gateway config check --help")
	}
	c, err := config.Load(*path)
	if err == nil {
		for _, view := range c.Tenants() {
			_, werr := witnessKeys(view)
			err = errors.Join(err, werr)
		}
	}
	if err == nil {
		_, err = keystore.Layer(c.Alt)
	}
	if err == nil && !*noFiles {
		if ferr := c.CheckFiles(); ferr != nil {
			err = fmt.Errorf("%s: %w", *path, ferr)
		}
	}
	if *asJSON {
		out := struct {
			File   string        `json:"file"`
			Fine   bool          `json:"fine"`
			Faults config.Faults `json:"faults"`
		}{*path, err == nil, config.Faults{}}
		if faults, ok := errors.AsType[config.Faults](err); ok {
			out.Faults = faults
		} else if err != nil {
			out.Faults = config.Faults{{Key: "", Reason: err.Error()}}
		}
		if jerr := json.NewEncoder(std.out).Encode(out); jerr != nil {
			return jerr
		}
	}
	if err != nil {
		return usageError{err}
	}
	if !*asJSON {
		fmt.Fprintf(std.out, "%s: fine\n", *path)
	}
	return nil
}

// A described is one key of the configuration.
type described struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Source string `json:"source"` // default or file
	About  string `json:"about"`
}

func runConfigDescribe(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", "", "configuration `FILE`; without it, the defaults")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 1 {
		return usagef("config describe: takes one prefix of keys at most")
	}
	c, set := config.Default(), []string(nil)
	if *path != "" {
		var text []byte
		if text, err = config.Read(*path); err != nil {
			return usageError{err}
		}
		if c, set, err = config.Decode(*path, text); err != nil {
			return usageError{err}
		}
		c.Resolve(filepath.Dir(*path))
	}
	about := comments()
	all := []described{}
	walk(reflect.ValueOf(*c), "", "", func(key, pattern string, v any) {
		if len(rest) == 1 && key != rest[0] && !strings.HasPrefix(key, rest[0]+".") && !strings.HasPrefix(key, rest[0]+"[") {
			return
		}
		source := "default"
		if slices.Contains(set, pattern) || slices.Contains(set, key) {
			source = "file"
		}
		all = append(all, described{key, v, source, about[pattern]})
	})
	if len(all) == 0 {
		return usagef("config describe: no key begins with %q", rest[0])
	}
	if *asJSON {
		e := json.NewEncoder(std.out)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	for _, d := range all {
		for line := range strings.Lines(d.About) {
			fmt.Fprintf(std.out, "# %s\n", strings.TrimSuffix(line, "\n"))
		}
		value, _ := json.Marshal(d.Value)
		fmt.Fprintf(std.out, "%s = %s  # %s\n", d.Key, value, d.Source)
	}
	return nil
}

// walk visits every key below v: key names the value ("organization[1].dx"), pattern the key of the file's grammar
// ("organization.dx").
func walk(v reflect.Value, key, pattern string, visit func(key, pattern string, v any)) {
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("toml")
			if name == "-" {
				continue
			}
			walk(v.Field(i), strings.TrimPrefix(key+"."+name, "."), strings.TrimPrefix(pattern+"."+name, "."), visit)
		}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		for i := range v.Len() {
			walk(v.Index(i), fmt.Sprintf("%s[%d]", key, i+1), pattern, visit)
		}
	case v.Kind() == reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			walk(v.MapIndex(k), key+"."+toml.Key{k.String()}.String(), pattern+".*", visit)
		}
	default:
		visit(key, pattern, plain(v.Interface()))
	}
}

// plain writes durations as the file does.
func plain(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return config.FormatDuration(v)
	case []time.Duration:
		list := make([]string, len(v))
		for i, d := range v {
			list[i] = config.FormatDuration(d)
		}
		return list
	}
	return v
}

// quotedName is the name of one of many tables.
var quotedName = regexp.MustCompile(`"[^"]*"`)

// comments reads what gateway.toml says above each key, or each table for a table's first key.
func comments() map[string]string {
	about := map[string]string{}
	var table string
	var above []string
	for line := range strings.Lines(configs.Gateway) {
		line = strings.TrimSpace(line)
		bare := strings.TrimPrefix(line, "#")
		switch {
		case strings.HasPrefix(line, "# "):
			above = append(above, line[2:])
			continue
		case strings.HasPrefix(bare, "["):
			table = strings.Trim(bare, "[]") + "."
			table = quotedName.ReplaceAllString(table, "*")
		case strings.Contains(bare, " = "):
			key, _, _ := strings.Cut(bare, " = ")
			about[table+key] = strings.Join(above, "\n")
		}
		above = nil
	}
	return about
}
