package config_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dimegate/appliance/config"
	"dimegate/configs"
)

const file = "../../configs/gateway.toml"

// TestFileIsDefault holds the commented file and the defaults in code together.
func TestFileIsDefault(t *testing.T) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != configs.Gateway {
		t.Error("the embedded file is another one")
	}
	c, set, err := config.Decode("gateway.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	if want := config.Default(); !reflect.DeepEqual(c, want) {
		t.Errorf("the file says\n%+v\nthe code says\n%+v", c, want)
	}
	if len(set) < 30 {
		t.Errorf("the file sets %d keys only", len(set))
	}
}

// TestFileHasEveryKey takes the "#" from the keys that have no default, and wants every key of the structure.
func TestFileHasEveryKey(t *testing.T) {
	c, set, err := config.Decode("gateway.toml", []byte(uncommented()))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	keys(reflect.TypeFor[config.Config](), "", want)
	got := map[string]bool{}
	for _, k := range set {
		got[regexp.MustCompile(`"[^"]*"|\bexample\b`).ReplaceAllString(k, "*")] = true
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if !got[k] {
			t.Errorf("%s is not in gateway.toml", k)
		}
	}
	c.Resolve(t.TempDir())
	if err := c.Check(); err != nil {
		t.Errorf("the file's own examples are refused: %v", err)
	}
}

func uncommented() string {
	var b strings.Builder
	for line := range strings.Lines(configs.Gateway) {
		if len(line) > 2 && line[0] == '#' && line[1] != ' ' {
			line = line[1:]
		}
		b.WriteString(line)
	}
	return b.String()
}

func keys(t reflect.Type, prefix string, into map[string]bool) {
	switch {
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		t = t.Elem()
	case t.Kind() == reflect.Map:
		prefix, t = prefix+".*", t.Elem()
	}
	if t.Kind() != reflect.Struct {
		into[prefix] = true
		return
	}
	for f := range t.Fields() {
		if f.Tag.Get("toml") == "-" {
			continue
		}
		keys(f.Type, strings.TrimPrefix(prefix+"."+f.Tag.Get("toml"), "."), into)
	}
}

const org = "[[organization]]\ndomains = [\"example.org\"]\n"

func TestLoad(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string // each in the error; nil: it loads
	}{
		"least":           {org, nil},
		"no organization": {"", []string{"organization: there is none"}},
		"unknown key":     {org + "[submission]\nlisten_on = [\"x\"]\n", []string{"submission.listen_on: unknown key"}},
		"near miss":       {org + "[submission]\nlisen = [\"x\"]\n", []string{"submission.lisen: unknown key: did you mean listen?"}},
		"unknown table":   {org + "[smpt]\nx = 1\n", []string{"smpt"}},
		"wrong type":      {org + "[submission]\nmax_octets = \"many\"\n", []string{"gateway.toml: ", "submission.max_octets", "line 4"}},
		"syntax":          {org + "[submission\n", []string{"gateway.toml: line 4"}},
		"every fault at once": {org + "[submission]\nlisen = 1\ntimeout = \"6s\"\nnetworks = [\"0.0.0.0/0\", \"lan\"]\n[log]\nlevel = \"loud\"\n", []string{
			"gateway.toml: 5 faults:\n  submission.lisen: unknown key", "  submission.timeout: 6s is under 5m", "submission.networks: 0.0.0.0/0 is the whole world",
			"submission.networks: \"lan\" is neither", "log.level: \"loud\" is not one of: debug, info, warn, error"}},
		"queue limits":           {org + "[queue]\nper_domain = 0\nin_flight = 5\n", []string{"queue.per_domain: 0 is not from 1 to 10000", "queue.in_flight: "}},
		"number for a duration":  {org + "[queue]\nlife = 5\n", []string{"queue.life: 5ns is under 1h"}},
		"everyone a proxy":       {org + "[submission]\nproxy_from = [\"0.0.0.0/0\"]\n[dmtp]\nproxy_from = [\"::/0\", \"lb\"]\n", []string{"submission.proxy_from: 0.0.0.0/0 is the whole world", "dmtp.proxy_from: ::/0 is", "dmtp.proxy_from: \"lb\" is neither"}},
		"everyone for others":    {org + "[submission]\nxclient_from = [\"::/0\"]\n[inbound]\nxclient_from = [\"0.0.0.0/0\"]\n[handoff]\nclient_address = \"xclient\"\n", []string{"submission.xclient_from: ::/0 is the whole world", "inbound.xclient_from: 0.0.0.0/0 is", "handoff.client_address: \"xclient\" is not one of: auto, off, proxy"}},
		"submission limits":      {org + "[submission]\nmax_sessions = 5\nmax_per_client = 6\nmessages_hourly = -1\nmend = [\"::/0\"]\n[inbound]\nmax_recipients = 10\ntimeout = \"5s\"\n", []string{"submission.max_per_client: 6 is not from 0 to 5", "submission.messages_hourly: -1", "submission.mend: ::/0 is the whole world", "inbound.max_recipients: 10 is not from 100", "inbound.timeout: 5s is under 5m"}},
		"certificates":           {org + "[submission]\nnetworks = []\ncertificate_names = [\"mail.example.org\"]\n[[submission.tenant]]\ncertificate_name = \"mail.protection.outlook.com\"\nfield = \"X-OriginatorOrg\"\nvalue = \"example.org\"\n", nil},
		"a shared certificate":   {org + "[submission]\ncertificate_names = [\"mail.protection.outlook.com\", \"*.example.org\"]\n", []string{"submission.certificate_names: mail.protection.outlook.com is shown for every customer", "use [[submission.tenant]]", "\"*.example.org\" is not a host name"}},
		"half a tenant":          {org + "[[submission.tenant]]\nfield = \"X-A:\"\n", []string{"submission.tenant[1].certificate_name: \"\" is not", "submission.tenant[1].field: \"X-A:\" is not", "submission.tenant[1].value: is what"}},
		"password for anyone":    {org + "[handoff]\nauth_file = \"p\"\n", []string{"handoff.auth_file: needs starttls = \"required\""}},
		"bare address":           {org + "[submission]\nnetworks = [\"192.0.2.7\"]\n", nil},
		"no way in":              {org + "[submission]\nlisten = []\n[dmtp]\nlisten = []\n", []string{"submission.listen: is empty", "dmtp.listen: is empty"}},
		"upper case domain":      {"[[organization]]\ndomains = [\"Example.ORG\"]\n", nil},
		"domain twice":           {org + org, []string{"organization[2].domains: example.org stands twice"}},
		"domain not ASCII":       {"[[organization]]\ndomains = [\"exämple.org\"]\n", []string{"organization[1].domains", "xn--"}},
		"address as dx":          {org + "dx = [\"192.0.2.1\"]\n", []string{"organization[1].dx: \"192.0.2.1\" is not a host name"}},
		"name that is too long":  {org + "name = \"" + strings.Repeat("n", 256) + "\"\n", []string{"organization[1].name: must be text of 255 octets"}},
		"name of two lines":      {org + "name = \"a\\nb\"\n", []string{"organization[1].name: must be text"}},
		"floors":                 {org + "[policy]\nfloor = \"opportunistic\"\n[policy.domain.\"a.example\"]\nfloor = \"dane\"\n[policy.sender.\"Alice@Example.org\"]\nfloor = \"mta-sts\"\n[policy.sender.\"example.org\"]\nfloor = \"hold\"\n", nil},
		"floor of no kind":       {org + "[policy]\nfloor = \"none\"\n", []string{"policy.floor: \"none\" is not one of: opportunistic, tls, mta-sts, dane, dime, hold"}},
		"domain's of no kind":    {org + "[policy.domain.\"a.example\"]\nfloor = \"none\"\n", []string{"policy.domain.\"a.example\".floor: \"none\" is not one of"}},
		"sender's of no kind":    {org + "[policy.sender.\"a@example.org\"]\n", []string{"policy.sender.\"a@example.org\".floor: \"\" is not one of"}},
		"sender of no kind":      {org + "[policy.sender.\"@x\"]\nfloor = \"tls\"\n", []string{"\"@x\" is neither an address nor a domain"}},
		"smart hosts":            {org + "[policy]\nsmart_host = \"relay.example:587\"\n[policy.domain.\"a.example\"]\nsmart_host = \"mx\"\nfloor = \"dane\"\n[policy.domain.\"b.example\"]\nsmart_host = \"192.0.2.1:25\"\n", nil},
		"smart host, no port":    {org + "[policy]\nsmart_host = \"relay.example\"\n", []string{"policy.smart_host: \"relay.example\" is not host:port"}},
		"smart host, no host":    {org + "[policy]\nsmart_host = \":25\"\n", []string{"policy.smart_host: \":25\" names no host"}},
		"smart host, port 0":     {org + "[policy.domain.\"a.example\"]\nsmart_host = \"a.example:0\"\n", []string{"policy.domain.\"a.example\".smart_host: \"a.example:0\" names no host and port"}},
		"smart host in circles":  {org + "[policy]\nsmart_host = \"127.0.0.1:2525\"\n", []string{"policy.smart_host: 127.0.0.1:2525 is our own submission.listen"}},
		"password for nobody":    {org + "[policy]\nsmart_host_auth_file = \"p\"\n", []string{"policy.smart_host_auth_file: is set, and there is no smart_host"}},
		"journal":                {org + "[policy]\nfloor = \"dime\"\njournal = [\"J@Archive.example\"]\n[policy.domain.\"archive.example\"]\nfloor = \"tls\"\n", nil},
		"journal of no address":  {org + "[policy]\njournal = [\"archive.example\"]\n", []string{"policy.journal: \"archive.example\" is not an address"}},
		"journal that is held":   {org + "[policy]\nfloor = \"dime\"\njournal = [\"j@archive.example\"]\n", []string{"policy.journal: j@archive.example: floor \"dime\" lets no journal report out: give [policy.domain.\"archive.example\"]"}},
		"dane by smart host":     {org + "[policy]\nfloor = \"dane\"\nsmart_host = \"relay.example:25\"\n", []string{"policy.floor: \"dane\" cannot be kept through smart_host relay.example:25"}},
		"domain's by smart host": {org + "[policy]\nsmart_host = \"relay.example:25\"\n[policy.domain.\"a.example\"]\nfloor = \"mta-sts\"\n", []string{"policy.domain.\"a.example\".floor: \"mta-sts\" cannot be kept through smart_host"}},
		"sender's by smart host": {org + "[policy]\nsmart_host = \"relay.example:25\"\n[policy.sender.\"example.org\"]\nfloor = \"dane\"\n", []string{"policy.sender.\"example.org\".floor: \"dane\" cannot be kept"}},
		"layer":                  {org + "[policy.domain.\"a.example\"]\nfloor = \"dime\"\n[alt]\nmode = \"off\"\nsuites = [\"f001\"]\nbucket_octets = 0\n[alt.domain.\"A.example\"]\nmode = \"required\"\n", nil},
		"layer of no kind":       {org + "[alt]\nmode = \"on\"\nsuites = [\"201\", \"0101\", \"0101\", \"0X01\"]\nbucket_octets = -1\n", []string{"alt.mode: \"on\" is not one of: off, opportunistic, required", "alt.suites: \"201\" is not four hexadecimal digits", "alt.suites: \"0101\" stands twice", "alt.suites: \"0X01\" is not four", "alt.bucket_octets: -1 is not from 0 to 65536"}},
		"layer without suites":   {org + "[alt]\nsuites = []\n", []string{"alt.suites: is empty"}},
		"no layer, no suites":    {org + "[alt]\nmode = \"off\"\nsuites = []\n", nil},
		"layer or plain SMTP":    {org + "[alt.domain.\"a.example\"]\nmode = \"required\"\n", []string{"alt.domain.\"a.example\".mode: is \"required\", and mail for the domain could leave by plain SMTP: set floor = \"dime\" in [policy.domain.\"a.example\"]"}},
		"layer for no domain":    {org + "[alt.domain.\"a b\"]\n", []string{"alt.domain.\"a b\".mode: \"a b\" is not a domain", "alt.domain.\"a b\".mode: \"\" is not one of"}},
		"one port for two":       {org + "[dmtp]\nlisten = [\"127.0.0.1:2525\"]\n", []string{"dmtp.listen: 127.0.0.1:2525 is taken by submission.listen"}},
		"mail in circles":        {org + "[handoff]\naddress = \"127.0.0.1:2525\"\n", []string{"handoff.address: 127.0.0.1:2525 is our own submission.listen"}},
		"inner in circles":       {org + "inner = \"127.0.0.1:2525\"\n", []string{"organization[1].inner: 127.0.0.1:2525 is our own submission.listen"}},
		"health for all":         {org + "[health]\nlisten = \"0.0.0.0:8026\"\n", []string{"health.listen: 0.0.0.0:8026 is not on loopback"}},
		"AD from afar":           {org + "[dns]\ntrust_ad = true\nresolvers = [\"192.0.2.53:53\"]\n", []string{"dns.trust_ad: 192.0.2.53:53 is not on loopback"}},
		"no such vault":          {org + "vault = \"own\"\n", []string{"organization[1].vault: there is no [vault.own.\"own\"]"}},
		"vault of nobody":        {org + "[vault.own.a]\n", []string{"vault.own.a.folder: no organization has vault = \"a\""}},
		"vault's name":           {org + "vault = \"a/b\"\n[vault.own.\"a/b\"]\n", []string{"the vault's name \"a/b\" is not made of"}},
		"vault in a vault":       {two + "[vault.own.a]\nfolder = \"/v/a\"\n[vault]\nfolder = \"/v\"\n", []string{"vault.own.a.folder: /v/a is not apart from /v, which is vault.folder"}},
		"one seal for two":       {two + "[vault.host_seal]\nkey_file = \"/k\"\n[vault.own.a.signing_seal]\nkey_file = \"/k\"\n", []string{"vault.own.a.signing_seal.key_file: is vault.host_seal.key_file, too"}},
		"witness of a vault":     {two + "[vault.own.a]\nwitnesses = [\"x\"]\n", []string{"vault.own.a.witnesses[1]: is not \"URL KEY\""}},
		"users without a file":   {org + "users = [\"ann\"]\n", []string{"organization[1].users: submission.auth_file is not set"}},
		"networks of nobody":     {org + "networks = [\"192.0.2.1\"]\n", []string{"organization[1].networks: 192.0.2.1/32 may not send at all: list it in submission.networks"}},
		"networks of one":        {org + "networks = [\"here\"]\n", []string{"organization[1].networks: \"here\" is neither"}},
		"one seal for both":      {org + "[vault.host_seal]\nkey_file = \"k\"\n[vault.signing_seal]\nkey_file = \"k\"\n", []string{"vault.signing_seal.key_file: is vault.host_seal.key_file, too"}},
		"a credential's path":    {org + "[vault.host_seal]\ncredential = \"a/b\"\n", []string{"vault.host_seal.credential: is a name"}},
		"ACME":                   {org + "[dmtp.acme]\ndirectory = \"https://ca.example/dir\"\nagree_to_terms = true\n", nil},
		"ACME in the clear":      {org + "[dmtp.acme]\ndirectory = \"http://ca.example/dir\"\nlisten = \"\"\n", []string{"dmtp.acme.directory: \"http://ca.example/dir\" is not an https URL", "dmtp.acme.agree_to_terms: is not true", "dmtp.acme.listen: \"\" is not host:port"}},
		"ACME beside files":      {org + "[dmtp.acme]\ndirectory = \"https://ca.example/dir\"\nagree_to_terms = true\n[[dmtp.certificate]]\ncertificate_file = \"c\"\nkey_file = \"k\"\n", []string{"dmtp.acme.directory: [[dmtp.certificate]] names files: leave them out"}},
		"secondary too often":    {org + "[keys]\nrotate_secondary_after = \"24h\"\nremind_primary_after = \"24h\"\n", []string{"keys.rotate_secondary_after: ", "keys.remind_primary_after: "}},
		"transit in the clear":   {org + "[vault.host_seal]\ntransit_address = \"http://bao.example\"\ntransit_key = \"k\"\ntransit_token_file = \"t\"\n", []string{"vault.host_seal.transit_address: is not https"}},
		"half a transit seal":    {org + "[vault.host_seal]\ntransit_key = \"k\"\n", []string{"vault.host_seal.transit_address: is not set"}},
		"half a certificate":     {org + "[submission]\nkey_file = \"k\"\n", []string{"submission.key_file: certificate_file and key_file go together"}},
		"port of words":          {org + "[handoff]\naddress = \"mail:smtp\"\n", []string{"handoff.address: \"mail:smtp\": the port is not a number"}},
		"scanners":               {org + "[scanner]\noutbound = [\"milter://127.0.0.1:8891\", \"milter:///run/m.sock\"]\ninbound = [\"smtp://[::1]:10025\"]\nheader_changes = \"ignore\"\n", nil},
		"scanner of no kind":     {org + "[scanner]\noutbound = [\"127.0.0.1:8891\"]\n", []string{"scanner.outbound: \"127.0.0.1:8891\" is neither milter"}},
		"scanner elsewhere":      {org + "[scanner]\ninbound = [\"smtp://192.0.2.1:25\"]\n", []string{"scanner.inbound: \"smtp://192.0.2.1:25\": mail would cross the network"}},
		"scanner without a port": {org + "[scanner]\ninbound = [\"milter://localhost\"]\ntimeout = \"5m\"\nheader_changes = \"make\"\n", []string{"scanner.inbound: \"milter://localhost\": behind", "scanner.timeout: 5m is over 4m", "scanner.header_changes: \"make\" is not one of"}},
		"no port":                {org + "[handoff]\naddress = \"mail\"\n", []string{"handoff.address: \"mail\" is not host:port"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := write(t, "gateway.toml", tt.text, 0o644)
			c, err := config.Load(path)
			if tt.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error does not say %q:\n%v", w, err)
				}
			}
		})
	}
}

// two organisations, of which the second has a vault of its own.
const two = org + "[[organization]]\ndomains = [\"other.example\"]\nvault = \"a\"\n"

// Each vault in use has a view, with its organisations alone, and defaults of its own.
func TestTenants(t *testing.T) {
	path := write(t, "gateway.toml", two+`
[[organization]]
domains = ["third.example"]
vault = "a"
[vault.own.a]
witnesses = ["https://w.example w+1+x"]
[vault.own.a.signing_seal]
pkcs11_socket = "token.sock"
[audit]
witnesses = ["https://v.example v+1+x"]
`, 0o644)
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	all := c.Tenants()
	if len(all) != 2 || len(all[0].Organizations) != 1 || len(all[1].Organizations) != 2 {
		t.Fatalf("%d views", len(all))
	}
	first, own := all[0].Vault, all[1].Vault
	for _, tt := range []struct{ what, got, want string }{
		{"folder", own.Folder, filepath.Join(c.DataFolder, "vaults/a")},
		{"host seal", own.HostSeal.KeyFile, filepath.Join(c.DataFolder, "seals/a/host.key")},
		{"signing seal", own.SigningSeal.KeyFile, ""},
		{"token", own.SigningSeal.PKCS11Socket, filepath.Join(filepath.Dir(path), "token.sock")},
		{"token's name", own.SigningSeal.PKCS11Name, "token"},
		{"key", own.Key("folder"), "vault.own.a.folder"},
		{"witness", all[1].Audit.Witnesses[0], "https://w.example w+1+x"},
		{"common folder", first.Folder, filepath.Join(c.DataFolder, "vault")},
		{"common key", first.Key("folder"), "vault.folder"},
		{"common witness", all[0].Audit.Witnesses[0], "https://v.example v+1+x"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, tt.got, tt.want)
		}
	}
	if all[1].Whole() != c || c.Whole() != c {
		t.Error("a view is not of the whole")
	}
	if !all[1].Serves("Third.example") || all[1].Serves("example.org") || own.CheckSeals != first.CheckSeals {
		t.Error("the view is of another")
	}
}

func TestLoadNoFile(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "none.toml"))
	if err == nil || !strings.Contains(err.Error(), "no such file") || !strings.Contains(err.Error(), "gateway init") {
		t.Errorf("no remedy: %v", err)
	}
}

func TestResolve(t *testing.T) {
	path := write(t, "gateway.toml", `
data_folder = "data"
[[organization]]
domains = ["Example.org", "example.net"]
dx = ["DX.example.org"]
[[organization]]
domains = ["other.example"]
inner = "mail.other.example:24"
policy = "strict"
[vault.signing_seal]
passphrase_file = "pass"
[policy.domain."Bank.example"]
`, 0o644)
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(filepath.Dir(path), name) }
	first, _ := c.Organization("example.net")
	second, _ := c.Organization("other.example")
	for _, tt := range []struct{ what, got, want string }{
		{"data_folder", c.DataFolder, in("data")},
		{"hostname", c.Hostname, "dx.example.org"},
		{"name", first.Name, "example.org"},
		{"inner", first.Inner, "127.0.0.1:25"},
		{"policy", first.Policy, "experimental"},
		{"second inner", second.Inner, "mail.other.example:24"},
		{"submission certificate", c.Submission.CertificateFile, in("data/tls/ecdsa.crt")},
		{"dmtp certificate", c.DMTP.Certificates[1].KeyFile, in("data/tls/rsa.key")},
		{"vault", c.Vault.Folder, in("data/vault")},
		{"host seal", c.Vault.HostSeal.KeyFile, in("data/seals/host.key")},
		{"signing seal", c.Vault.SigningSeal.KeyFile, ""},
		{"signing passphrase", c.Vault.SigningSeal.PassphraseFile, in("pass")},
		{"floor of a domain", c.Policy.Domains["bank.example"].Floor, ""},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, tt.got, tt.want)
		}
	}
	if _, ok := c.Organization("Example.org"); ok {
		t.Error("a domain in upper case is found")
	}
}

func TestDefaultsDoNotLeak(t *testing.T) {
	a := config.Default()
	a.Submission.Listen[0] = "changed"
	if config.Default().Submission.Listen[0] == "changed" {
		t.Error("two defaults share a list")
	}
}

func TestCheckFiles(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "gateway.toml")
	if err := os.WriteFile(path, []byte("data_folder = \"data\"\n"+org+"[vault.host_seal]\nkey_file = \"open.key\"\n[tls]\nca_file = \".\"\ncrl_files = [\"gone.crl\"]\n[submission]\nauth_file = \"gone\"\ncertificate_file = \"not.pem\"\nkey_file = \"not.key\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"open.key": 0o640, "not.pem": 0o644, "not.key": 0o600} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	faults, ok := errors.AsType[config.Faults](c.CheckFiles())
	if !ok || len(faults) != 1 || faults[0].Key != "data_folder" || !strings.Contains(faults[0].Reason, "gateway init") {
		t.Errorf("without the data folder: %v", faults)
	}
	if err := os.Mkdir(filepath.Join(folder, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if faults, ok = errors.AsType[config.Faults](c.CheckFiles()); !ok {
		t.Fatal("nothing is wrong, or not said as faults")
	}
	said := map[string]string{}
	for _, f := range faults {
		said[f.Key] = f.Reason
	}
	for key, part := range map[string]string{
		"vault.host_seal.key_file":     "chmod 600",
		"vault.signing_seal.key_file":  "no such file",
		"tls.ca_file":                  "is not a file",
		"tls.crl_files[1]":             "no such file",
		"submission.auth_file":         "no such file",
		"submission.certificate_file":  "not a PEM certificate",
		"dmtp.certificate[1].key_file": "no such file",
		"dmtp.certificate[2].key_file": "no such file",
	} {
		if !strings.Contains(said[key], part) {
			t.Errorf("%s says %q, want %q in it", key, said[key], part)
		}
	}
	if strings.Contains(faults.Error(), "%!") {
		t.Errorf("a broken format: %v", faults)
	}
}

func TestDurations(t *testing.T) {
	c, err := config.Load(write(t, "gateway.toml", org+"[queue]\nschedule = [\"90s\", \"1h\"]\n", 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if want := []time.Duration{90 * time.Second, time.Hour}; !slices.Equal(c.Queue.Schedule, want) {
		t.Errorf("schedule %v, want %v", c.Queue.Schedule, want)
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}
