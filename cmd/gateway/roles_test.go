package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dimegate/appliance/config"
	"dimegate/appliance/roles"
	"dimegate/vault"
)

// documented reads the table of docs/roles.md: of each command, the roles that may use it, in the order of roles.All, and
// whether it leaves a leaf.
func documented(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../../docs/roles.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z -]+)` ((?:\\| [●·] ){6})\\| (yes|) ?\\|").FindAllStringSubmatch(string(b), -1) {
		rows[m[1]] = strings.NewReplacer(" ", "", "|", "").Replace(m[2]) + m[3]
	}
	return rows
}

// operands make each command's line one that could be run.
var operands = map[string][]string{
	"audit prove": {"0"}, "keys primary rollover": {"x.example"}, "keys primary finish": {"x.example"}, "keys show": {"nobody@x.example"}, "keys export-signet": {"nobody@x.example"},
	"escrow install": {"transcript.txt", "attest-1-1.deg1"},
	"escrow rewrap":  {vault.RandomID().String(), "rewrap.drw1"},
	"hold add":       {"--basis", "x", "--everybody"}, "hold release": {"--why", "x", vault.RandomID().String()},
	"case open": {"--request", "absent", "--basis", "x", "--custodian", "a@x.example", "--expires", "2030-01-01"}, "case show": {vault.RandomID().String()},
	"case dsar":   {"--request", "absent", "--reference", "x", "a@x.example"},
	"case search": {vault.RandomID().String()}, "case select": {vault.RandomID().String()}, "case submit": {vault.RandomID().String()},
	"case approve": {vault.RandomID().String(), "absent"}, "case decrypt": {"--to", "absent/x", vault.RandomID().String()},
	"case close":    {"--closing", "absent", vault.RandomID().String()},
	"archive erase": {"--reason", "x", "nobody@x.example"}, "archive rename": {"--why", "x", "nobody@x.example", "b@x.example"},
	"keys vouch": {"--for", "a@x.example", "none.request"}, "keys sign-request": {"--for", "a@x.example", "none.request"},
	"keys take-back": {"--for", "a@x.example", "--keys", "none.key"},
	"queue route":    {"--to", "usual", "nobody"},
	"policy explain": {"--from", "a@x.example", "--to", "b@y.example"}, "policy replay": {"--since", "1h", "--with", "CONFIG"},
	"keys disable": {"--why", "x", "nobody@x.example"}, "keys enable": {"--why", "x", "nobody@x.example"},
	"roles grant": {"privacy-officer", "carol"}, "roles revoke": {"privacy-officer", "carol"},
	"seal add": {"--role", "host"}, "seal remove": {"host", "key-file", "x"}, "seal rewrap": {"host"},
	"trust accept": {"--why", "x", "y.example"}, "trust forget": {"--why", "x", "y.example"},
}

// TestRoleMatrix runs every command that opens a vault as somebody with each role, and with none. What it says must be what
// the documentation says: exit code 3 where the role may not, and anything else where it may.
func TestRoleMatrix(t *testing.T) {
	path, ids := initQueue(t, "a@x.example")
	as := func(uid string) { t.Setenv("SUDO_UID", uid) }
	grant := func(args ...string) {
		t.Helper()
		as("70000")
		if code, _, errs := cli(t, append([]string{"roles", "grant", "--config", path}, args...)...); code != 0 {
			t.Fatal(errs)
		}
	}
	grant("security-administrator", "#70000")
	people := []string{"70009"} // has no role
	for i, r := range roles.All {
		uid := fmt.Sprint(70001 + i)
		grant(string(r), "#"+uid)
		people = append(people, uid)
	}
	rows := documented(t)
	if got, want := slices.Sorted(maps.Keys(rows)), slices.Sorted(maps.Keys(roles.Table)); !slices.Equal(got, want) {
		t.Fatalf("documented: %q\nin code: %q", got, want)
	}
	violations := []string{}
	for _, command := range slices.Sorted(maps.Keys(rows)) {
		for i, uid := range people {
			args := slices.Clone(operands[command])
			for j, a := range args {
				args[j] = strings.ReplaceAll(a, "CONFIG", path)
			}
			if args == nil && strings.HasPrefix(command, "queue ") && command != "queue list" {
				args = ids
			}
			as(uid)
			code, out, errs := cli(t, slices.Concat(strings.Fields(command), []string{"--config", path}, args)...)
			may := i > 0 && []rune(rows[command])[i-1] == '●'
			refused := code == 3 && strings.Contains(errs, "is for: ")
			if may == refused {
				violations = append(violations, fmt.Sprintf("%s as %s: exit %d: %s%s", command, append([]roles.Role{"nobody"}, roles.All...)[i], code, out, errs))
			}
		}
	}
	if len(violations) > 0 {
		t.Errorf("violations:\n%s", strings.Join(violations, "\n"))
	}
}

// TestLooksLeaveLeaves: what shows addresses is in the log before it is shown, with who asked; what does not, is not.
func TestLooksLeaveLeaves(t *testing.T) {
	path, ids := initQueue(t, "a@x.example")
	t.Setenv("SUDO_UID", "70000")
	looks := func() int {
		t.Helper()
		_, out, _ := cli(t, "audit", "verify", "--config", path)
		m := regexp.MustCompile(`(\d+)  look\n`).FindStringSubmatch(out)
		if m == nil {
			return 0
		}
		var n int
		fmt.Sscan(m[1], &n)
		return n
	}
	for _, r := range []string{"security-administrator", "operator"} {
		if code, _, errs := cli(t, "roles", "grant", "--config", path, r, "#70000"); code != 0 {
			t.Fatal(errs)
		}
	}
	for command, rule := range roles.Table {
		if command != "queue show" && command != "queue list" && command != "trust list" {
			continue
		}
		before := looks()
		args := append(strings.Fields(command), "--config", path)
		if command == "queue show" {
			args = append(args, ids[0])
		}
		if code, _, errs := cli(t, args...); code != 0 {
			t.Errorf("%s: %s", command, errs)
		}
		if documented := strings.HasSuffix(documented(t)[command], "yes"); rule.Leaf != documented || documented != (looks() == before+1) {
			t.Errorf("%s: %d leaves after %d", command, looks(), before)
		}
	}
}

// TestRolesChange: what cannot be given or taken, and that a changed table is found.
func TestRolesChange(t *testing.T) {
	path, _ := initQueue(t)
	t.Setenv("SUDO_UID", "70000")
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"list"}, 0, "nobody has been given a role"},
		{[]string{"grant", "operator", "#70000"}, 3, "the first"},
		{[]string{"grant", "janitor", "#70000"}, 2, "there is no role"},
		{[]string{"grant", "operator", "a b"}, 2, "the name of an account"},
		{[]string{"grant", "operator"}, 2, "a role and a person"},
		{[]string{"grant", "security-administrator", "#70000"}, 0, "#70000 is now security-administrator"},
		{[]string{"grant", "security-administrator", "#70000"}, 3, "already"},
		{[]string{"grant", "auditor", "#70000"}, 3, "nobody is both"},
		{[]string{"grant", "escrow-officer", "ben"}, 0, ""},
		{[]string{"grant", "compliance-officer", "ben"}, 3, "nobody is both"},
		{[]string{"grant", "privacy-officer", "ben"}, 0, ""},
		{[]string{"list"}, 0, "ben     escrow-officer, privacy-officer\n"},
		{[]string{"revoke", "escrow-officer", "ben"}, 0, "ben is no longer escrow-officer"},
		{[]string{"revoke", "escrow-officer", "ben"}, 3, "is not"},
		{[]string{"revoke", "security-administrator", "#70000"}, 3, "is the last"},
		{[]string{"list", "--table"}, 0, "queue drop"},
	} {
		code, out, errs := cli(t, append([]string{"roles"}, append(tt.args, "--config", path)...)...)
		if code != tt.code || !strings.Contains(out+errs, tt.says) {
			t.Errorf("%q: exit %d: %s%s", tt.args, code, out, errs)
		}
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	rawChange(t, c, `UPDATE openings SET opening = CAST(replace(opening, '#70000', '#70009') AS BLOB) WHERE idx = (SELECT MAX(idx) FROM openings)`)
	if code, out, errs := cli(t, "queue", "list", "--config", path); code == 0 || !strings.Contains(errs, "not what the log attests") {
		t.Errorf("a changed table: exit %d: %s%s", code, out, errs)
	}
}

// TestEveryVaultIsAsked: in this package a vault is opened, and a configuration loaded, where authorize is asked, or by the
// few that are named here.
func TestEveryVaultIsAsked(t *testing.T) {
	exempt := map[string]string{
		"authorize": "", "loadAll": "", "viewFor": "loadFor asks; the log's witnesses are the file's",
		"openVaultOf": "its caller asked, by loadFor", "openSealed": "asks by loadFor", "attestSeal": "its callers asked", "rewrap": "asked by runSealRewrap", "checkKeys": "asked by runKeysCheck",
		"runConfigCheck": "the file", "runConfigDescribe": "the file", "runConnectorPrint": "the file", "runGateway": "the service",
		"runSignetFetch": "looks at others", "openUnsealed": "the service", "runPolicyReplay": "the second file only",
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					x, _ := s.X.(*ast.Ident)
					if x != nil && (x.Name == "vault" && s.Sel.Name == "Open" || x.Name == "keystore" && s.Sel.Name == "Open" || x.Name == "config" && s.Sel.Name == "Load") {
						if _, ok := exempt[fn.Name.Name]; !ok {
							t.Errorf("%s: %s.%s without asking for a role", set.Position(s.Pos()), x.Name, s.Sel.Name)
						}
					}
				}
				return true
			})
		}
	}
}
