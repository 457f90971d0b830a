package arrows

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// cryptography are the packages that docs/crypto.md must name; rand and subtle stand in its text.
var cryptography = regexp.MustCompile(`^(crypto/(aes|cipher|des|dsa|ecdh|ecdsa|ed25519|elliptic|hkdf|hmac|hpke|md5|mldsa|mlkem|pbkdf2|rc4|rsa|sha1|sha256|sha3|sha512|tls|x509)` +
	`|golang\.org/x/crypto/.*|golang\.org/x/mod/sumdb/.*|filippo\.io/.*|github\.com/cloudflare/circl/.*|github\.com/decred/.*|github\.com/miekg/pkcs11|github\.com/emersion/go-msgauth/.*|blitiri\.com\.ar/.*)$`)

// TestCryptoInventory: whatever part of the shipped programs imports cryptography stands in docs/crypto.md, in the row of what it
// imports; and no row names a part that does not.
func TestCryptoInventory(t *testing.T) {
	page, err := os.ReadFile("../../docs/crypto.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	code := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) != 7 {
			continue
		}
		for _, from := range code.FindAllStringSubmatch(cells[2], -1) {
			for _, in := range code.FindAllStringSubmatch(cells[3], -1) {
				documented[from[1]+" in "+in[1]] = true
			}
		}
	}
	out, err := exec.Command("go", "list", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{.}} {{$p}}{{"\n"}}{{end}}`, "../../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	used, named := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(out)) {
		from, in, _ := strings.Cut(strings.TrimSpace(line), " ")
		in = strings.TrimPrefix(in, "dimegate/")
		if !cryptography.MatchString(from) || strings.HasPrefix(in, "internal/") || in == "cmd/lab" {
			continue
		}
		used[from+" in "+in], named[from] = true, true
		if !documented[from+" in "+in] {
			t.Errorf("%s uses %s, and docs/crypto.md does not say so", in, from)
		}
	}
	if len(used) < 50 {
		t.Fatalf("%d uses found", len(used))
	}
	rows := map[string][]string{}
	for pair := range documented {
		from, in, _ := strings.Cut(pair, " in ")
		rows[in] = append(rows[in], from)
	}
	for in, list := range rows { // a row may name several libraries, of which each part uses one at least
		any := false
		for _, from := range list {
			any = any || used[from+" in "+in] || !cryptography.MatchString(from)
		}
		if !any {
			t.Errorf("docs/crypto.md names %s, which uses none of %q", in, list)
		}
	}
}
