package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"dimegate/appliance/config"
)

// cli runs one command line in this process.
func cli(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = dispatch(t.Context(), stdio{strings.NewReader(""), &o, &e}, args)
	return code, o.String(), e.String()
}

func TestConfigCheck(t *testing.T) {
	folder := t.TempDir()
	good, bad, witness := filepath.Join(folder, "good.toml"), filepath.Join(folder, "bad.toml"), filepath.Join(folder, "witness.toml")
	for path, text := range map[string]string{
		good:    "[[organization]]\ndomains = [\"example.org\"]\n",
		bad:     "[submission]\ntimeout = \"6s\"\n",
		witness: "[[organization]]\ndomains = [\"example.org\"]\n[audit]\nwitnesses = [\"https://w.example x+y+z\"]\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		args []string
		code int
		out  string
		errs string
	}{
		"fine":          {[]string{"--config", good, "--no-files"}, 0, "good.toml: fine", ""},
		"no data":       {[]string{"--config", good}, 2, "", "gateway init"},
		"faults":        {[]string{"--config", bad}, 2, "", "submission.timeout: 6s is under 5m"},
		"faults, JSON":  {[]string{"--config", bad, "--json"}, 2, `"key":"submission.timeout"`, "6s is under 5m"},
		"no file":       {[]string{"--config", filepath.Join(folder, "none")}, 2, "", "no such file"},
		"no witness":    {[]string{"--config", witness, "--no-files"}, 2, "", "audit.witnesses[1]: "},
		"operand":       {[]string{"x"}, 2, "", "takes no operand"},
		"fine, as JSON": {[]string{"--config", good, "--no-files", "--json"}, 0, `"fine":true,"faults":[]`, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, out, errs := cli(t, append([]string{"config", "check"}, tt.args...)...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errs, tt.errs) {
				t.Errorf("exit %d, want %d\nout: %s\nerr: %s", code, tt.code, out, errs)
			}
		})
	}
}

// TestConfigDescribe wants a comment and the default of every key there is.
func TestConfigDescribe(t *testing.T) {
	code, out, errs := cli(t, "config", "describe", "--json")
	if code != 0 {
		t.Fatal(errs)
	}
	var all []described
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	n := 0
	walk(reflect.ValueOf(*config.Default()), "", "", func(string, string, any) { n++ })
	if len(all) != n || n < 30 {
		t.Errorf("%d keys of %d", len(all), n)
	}
	for _, d := range all {
		if d.Source != "default" {
			t.Errorf("%s: %s", d.Key, d.Source)
		}
	}
	path := filepath.Join(t.TempDir(), "g.toml")
	if err := os.WriteFile(path, []byte("[[organization]]\ndomains = [\"a.example\"]\n[policy.domain.\"b.example\"]\nfloor = \"hold\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out, errs = cli(t, "config", "describe", "--config", path)
	for _, want := range []string{`organization[1].domains = ["a.example"]  # file`, `policy.domain."b.example".floor = "hold"  # file`,
		`organization[1].policy = "experimental"  # default`, "# Between tries; the last one repeats."} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s%s", want, out, errs)
		}
	}
	if code, _, errs := cli(t, "config", "describe", "nothing"); code != 2 || !strings.Contains(errs, `no key begins with "nothing"`) {
		t.Errorf("exit %d: %s", code, errs)
	}
}
