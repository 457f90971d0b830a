package mtasts

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParsePolicy(t *testing.T) {
	const day = 24 * time.Hour
	ok := func(m Mode, age time.Duration, hosts ...string) *Policy {
		return &Policy{Mode: m, MaxAge: age, Hosts: hosts}
	}
	tests := map[string]struct {
		text string
		want *Policy // nil: refused
	}{
		"enforce":                   {"version: STSv1\r\nmode: enforce\r\nmx: mx.a.test\r\nmx: *.b.test\r\nmax_age: 86400\r\n", ok(Enforce, day, "mx.a.test", "*.b.test")},
		"testing, LF":               {"version: STSv1\nmode: testing\nmx: mx.a.test\nmax_age: 86400\n", ok(Testing, day, "mx.a.test")},
		"none without mx":           {"version: STSv1\nmode: none\nmax_age: 86400", ok(None, day)},
		"no blank, more blanks":     {"version:STSv1\nmode: \tenforce  \nmx:mx.a.test\t\nmax_age:  86400", ok(Enforce, day, "mx.a.test")},
		"blank lines":               {"\nversion: STSv1\n\nmode: none\nmax_age: 1\n\n", ok(None, time.Second)},
		"upper case host":           {"version: STSv1\nmode: enforce\nmx: MX.A.Test\nmax_age: 1", ok(Enforce, time.Second, "mx.a.test")},
		"unknown fields":            {"version: STSv1\nfuture_x.y-z: what ever: ü\nmode: none\nmax_age: 1", ok(None, time.Second)},
		"the first of two":          {"version: STSv1\nversion: STSv2\nmode: none\nmode: enforce\nmax_age: 1\nmax_age: 2", ok(None, time.Second)},
		"over a year":               {"version: STSv1\nmode: none\nmax_age: 9999999999", ok(None, maxAge)},
		"no age at all":             {"version: STSv1\nmode: none\nmax_age: 0", ok(None, 0)},
		"no version":                {"mode: none\nmax_age: 1", nil},
		"version 2":                 {"version: STSv2\nmode: none\nmax_age: 1", nil},
		"version in capitals":       {"version: STSV1\nmode: none\nmax_age: 1", nil},
		"key in capitals":           {"Version: STSv1\nmode: none\nmax_age: 1", nil},
		"no mode":                   {"version: STSv1\nmx: a.test\nmax_age: 1", nil},
		"mode of no kind":           {"version: STSv1\nmode: report\nmx: a.test\nmax_age: 1", nil},
		"enforce without mx":        {"version: STSv1\nmode: enforce\nmax_age: 1", nil},
		"no max_age":                {"version: STSv1\nmode: enforce\nmx: a.test", nil},
		"max_age no number":         {"version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1d", nil},
		"max_age negative":          {"version: STSv1\nmode: enforce\nmx: a.test\nmax_age: -1", nil},
		"max_age of eleven digits":  {"version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 00000000001", nil},
		"mx of no name":             {"version: STSv1\nmode: enforce\nmx: a_b.test\nmax_age: 1", nil},
		"mx with an inner wildcard": {"version: STSv1\nmode: enforce\nmx: mx.*.test\nmax_age: 1", nil},
		"mx half a wildcard":        {"version: STSv1\nmode: enforce\nmx: mx*.a.test\nmax_age: 1", nil},
		"mx everything":             {"version: STSv1\nmode: enforce\nmx: *\nmax_age: 1", nil},
		"a line without a colon":    {"version: STSv1\nmode: none\nmax_age: 1\nhello", nil},
		"an empty value":            {"version: STSv1\nmode: none\nmax_age: 1\nx:", nil},
		"a control character":       {"version: STSv1\nmode: none\nmax_age: 1\nx: a\x00b", nil},
		"CR alone":                  {"version: STSv1\rmode: none\rmax_age: 1", nil},
		"HTML":                      {"<!DOCTYPE html>\n<html>", nil},
		"empty":                     {"", nil},
		"not UTF-8":                 {"version: STSv1\nmode: none\nmax_age: 1\nx: \xff", nil},
		"too large":                 {"version: STSv1\nmode: none\nmax_age: 1\nx: " + strings.Repeat("a", maxPolicy), nil},
		"too many hosts":            {"version: STSv1\nmode: enforce\nmax_age: 1\n" + strings.Repeat("mx: a.b\n", maxHosts+1), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePolicy(tt.text)
			if (err == nil) != (tt.want != nil) {
				t.Fatalf("%v", err)
			}
			if err != nil {
				return
			}
			got.Lines = nil
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	p := &Policy{Hosts: []string{"mx.a.test", "*.b.test"}}
	for host, want := range map[string]bool{
		"mx.a.test": true, "MX.A.TEST": true, "mx.a.test.": true, "x.b.test": true, "X.B.test": true,
		"a.test": false, "y.mx.a.test": false, "b.test": false, "y.x.b.test": false, "xb.test": false, "*.a.test": false, "": false, "test": false,
	} {
		if p.Names(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

func TestParseRecord(t *testing.T) {
	tests := map[string]struct {
		texts []string
		id    string // "": none
	}{
		"plain":                      {[]string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z"},
		"no last semicolon":          {[]string{"v=STSv1;id=a1"}, "a1"},
		"blanks":                     {[]string{"v=STSv1 \t; id=a1 ; "}, "a1"},
		"more fields":                {[]string{"v=STSv1; x.y-z_1=some/thing; id=a1"}, "a1"},
		"the first id":               {[]string{"v=STSv1; id=a1; id=b2"}, "a1"},
		"beside others":              {[]string{"v=spf1 -all", "v=STSv1; id=a1;", "v=STSv12; id=b2;"}, "a1"},
		"none":                       {nil, ""},
		"only others":                {[]string{"v=spf1 -all", "v=STSv12; id=b2"}, ""},
		"two":                        {[]string{"v=STSv1; id=a1", "v=STSv1; id=a2"}, ""},
		"one and one that is broken": {[]string{"v=STSv1; id=a1", "v=STSv1;"}, ""},
		"no id":                      {[]string{"v=STSv1; x=y"}, ""},
		"version alone":              {[]string{"v=STSv1"}, ""},
		"id of 33":                   {[]string{"v=STSv1; id=" + strings.Repeat("a", 33)}, ""},
		"id of 32":                   {[]string{"v=STSv1; id=" + strings.Repeat("a", 32)}, strings.Repeat("a", 32)},
		"id with a hyphen":           {[]string{"v=STSv1; id=a-1"}, ""},
		"version in lower case":      {[]string{"v=stsv1; id=a1"}, ""},
		"a blank before":             {[]string{" v=STSv1; id=a1"}, ""},
		"an empty field":             {[]string{"v=STSv1;; id=a1"}, ""},
		"a field without a value":    {[]string{"v=STSv1; x=; id=a1"}, ""},
		"a value with an =":          {[]string{"v=STSv1; x=a=b; id=a1"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			id, ok := parseRecord(tt.texts)
			if ok != (tt.id != "") || ok && id != tt.id {
				t.Errorf("%q %v, want %q", id, ok, tt.id)
			}
		})
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add("version: STSv1\r\nmode: enforce\r\nmx: mx.a.test\r\nmx: *.b.test\r\nmax_age: 86400\r\n")
	f.Add("version: STSv1\nmode: none\nmax_age: 1\nx: y")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy(text)
		if err != nil {
			return
		}
		again, err := ParsePolicy(strings.Join(p.Lines, "\n"))
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%+v\n%+v %v", p, again, err)
		}
		if p.MaxAge < 0 || p.MaxAge > maxAge || p.Mode != None && len(p.Hosts) == 0 {
			t.Errorf("%+v", p)
		}
		for _, h := range p.Hosts {
			if n, wild := strings.CutPrefix(h, "*."); !p.Names(n) && !wild || wild && !p.Names("x."+n) || wild && p.Names("y.x."+n) && !slices.Contains(p.Hosts, "y.x."+n) && !slices.Contains(p.Hosts, "*.x."+n) {
				t.Errorf("%s", h)
			}
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=STSv1; id=20160831085700Z;")
	f.Add("v=STSv1; x.y-z_1=some/thing; id=a1")
	f.Fuzz(func(t *testing.T, text string) {
		if id, ok := parseRecord([]string{text}); ok {
			if again, ok := parseRecord([]string{fmt.Sprintf("v=STSv1; id=%s;", id)}); !ok || again != id {
				t.Errorf("%q", id)
			}
		}
	})
}
