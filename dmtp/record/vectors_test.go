package record_test

import (
	"bytes"
	"crypto/sha512"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/internal/vectors"
)

type parsed struct {
	OK       bool
	Ver      int
	POK      []vectors.Hex
	TLS      []vectors.Hex
	DX       []string
	Pol, Sub string
	Syn      *string
	Exp      int
	Errors   []string
}

// stricter is what libdime reads and we refuse.
var stricter = vectors.Exceptions{
	"tls-dx":           "a mail exchange is a host name, not an IP address",
	"two-keys":         "the generator forgets the blank between two keys; libdime then keeps the second alone",
	"two-tls":          "the same signature twice: a slip, as the second is never looked at",
	"duplicate-policy": "two policies: nobody knows which was meant",
	"ver-01":           "the version is 1, not what begins like it",
	"ver-1x":           "the version is 1, not what begins like it",
	"equals-in-dx":     "two equals signs in one token; libdime takes what is behind the last",
}

// compare holds our reading of a text against libdime's.
func compare(t *testing.T, name, text string, want parsed) {
	t.Helper()
	r, err := record.Parse(text)
	if stricter.Has(t, name) {
		if !want.OK {
			t.Error("listed as refused by ours alone, yet libdime refuses it too")
		}
		want.OK = false
	}
	if (err == nil) != want.OK {
		t.Fatalf("accepted %v, want %v: %v", err == nil, want.OK, err)
	}
	if err != nil {
		if _, ok := errors.AsType[record.Class](err); !ok {
			t.Errorf("an error of no class: %v", err)
		}
		return
	}
	same := want.Ver == 1 && len(r.POKs) == len(want.POK) && len(r.TLS) == len(want.TLS) && slices.Equal(r.DX, want.DX) &&
		r.Policy.String() == want.Pol && r.Subdomain.String() == want.Sub
	for i := range r.POKs {
		same = same && bytes.Equal(r.POKs[i][:], want.POK[i])
	}
	for i := range r.TLS {
		same = same && bytes.Equal(r.TLS[i][:], want.TLS[i])
	}
	if !same {
		t.Errorf("read as %q, want %+v", r.Text(), want)
	}
	if want.Syn != nil || want.Exp != 0 {
		t.Error("libdime keeps syn and exp now: compare them") // it recognises and drops both
	}
	again, err := record.Parse(r.Text())
	if err != nil || again.Text() != r.Text() {
		t.Errorf("written and read again: %v", err)
	}
}

type generated struct {
	Name   string
	Args   []string
	RC     int
	POKHex vectors.Hex `json:"pok_hex"`
	Stdout string
	File   string
	Parse  parsed   `json:"libdime_parse_of_stdout"`
	Cut    []string `json:"character_strings"`
	Joined string
	Whole  *parsed `json:"libdime_parse_of_joined"`
}

type parseVector struct {
	Name, Text string
	Libdime    parsed
}

func TestVectorsRecordsParsed(t *testing.T) {
	set := vectors.Open(t)
	all := vectors.Part[[]parseVector](t, set, "management_records.parser")
	made := vectors.Part[[]generated](t, set, "management_records.genrec")
	var names []string
	vectors.Each(t, all, func(v parseVector) string { return v.Name }, func(t *testing.T, v parseVector) {
		names = append(names, v.Name)
		compare(t, v.Name, v.Text, v.Libdime)
	})
	vectors.Each(t, made, func(v generated) string { return v.Name }, func(t *testing.T, v generated) {
		names = append(names, v.Name)
		compare(t, v.Name, strings.TrimSuffix(v.Stdout, "\n"), v.Parse)
		if v.Whole != nil {
			if strings.Join(v.Cut, "") != v.Joined {
				t.Error("the strings are not those of the whole")
			}
			compare(t, v.Name, v.Joined, *v.Whole)
		}
	})
	stricter.Stale(t, set, names)
}

// notMade is what the generator writes and we do not.
var notMade = vectors.Exceptions{
	"tls-dx":     "a mail exchange is a host name, not an IP address",
	"syndicates": "the generator forgets the blank before syn: not even libdime reads it",
	"two-keys":   "the generator forgets the blank between two keys",
	"version2":   "there is no version 2",
}

// TestVectorsRecordsMade makes each record from the arguments that the generator was given.
func TestVectorsRecordsMade(t *testing.T) {
	set := vectors.Open(t)
	all := vectors.Part[[]generated](t, set, "management_records.genrec")
	var names []string
	vectors.Each(t, all, func(v generated) string { return v.Name }, func(t *testing.T, v generated) {
		names = append(names, v.Name)
		want := strings.TrimSuffix(v.Stdout, "\n")
		if v.Joined != "" {
			want = v.Joined
		}
		if v.RC != 0 || !bytes.Equal(bytes.TrimSpace(set.File(t, v.File)), bytes.TrimSpace([]byte(v.Stdout))) {
			t.Errorf("the generator answers %d, and its file is another", v.RC)
		}
		r, err := fromArguments(t, set, v.Args)
		text := ""
		if err == nil {
			if !slices.ContainsFunc(r.POKs, func(p key.SigningPublic) bool { return bytes.Equal(p[:], v.POKHex) }) {
				t.Error("another key")
			}
			text, err = r.Make()
		}
		if notMade.Has(t, v.Name) {
			if err == nil && text == want {
				t.Error("listed as not made, and made")
			}
			return
		}
		if err != nil || text != want {
			t.Errorf("made %q: %v, want %q", text, err, want)
		}
		if cut := record.Strings(text); strings.Join(cut, "") != text || slices.ContainsFunc(cut, func(s string) bool { return len(s) > 255 }) {
			t.Errorf("cut wrongly: %q", cut)
		}
	})
	notMade.Stale(t, set, names)
}

// fromArguments fills a record as the generator's flags say.
func fromArguments(t *testing.T, set *vectors.Set, args []string) (r *record.Record, err error) {
	t.Helper()
	if len(args)%2 != 0 {
		t.Fatalf("arguments %q", args)
	}
	r = &record.Record{}
	var signer key.Signing
	var certificate []byte
	for pair := range slices.Chunk(args, 2) {
		value := pair[1]
		switch pair[0] {
		case "-k":
			if signer, err = key.ParseSigning(set.File(t, value)); err == nil {
				r.POKs = append(r.POKs, signer.Public())
			}
		case "-c":
			certificate = der(t, set, value)
		case "-d":
			r.DX = append(r.DX, value)
		case "-p":
			r.Policy, err = record.ParsePolicy(value)
		case "-s":
			r.Subdomain, err = record.ParseSubdomain(value)
		case "-e":
			r.Expiry, err = strconv.Atoi(value)
		case "-y":
			r.Syndicates = value
		case "-v":
			if value != "1" {
				err = record.ErrVersion
			}
		default:
			t.Fatalf("argument %q", pair[0])
		}
		if err != nil {
			return nil, err
		}
	}
	if certificate != nil {
		r.TLS = append(r.TLS, record.SignCertificate(signer, certificate))
	}
	return r, nil
}

func der(t *testing.T, set *vectors.Set, file string) []byte {
	t.Helper()
	block, _ := pem.Decode(set.File(t, file))
	if block == nil {
		t.Fatalf("%s: no PEM", file)
	}
	return block.Bytes
}

func TestVectorsRecordPlace(t *testing.T) {
	set := vectors.Open(t)
	if p := vectors.Part[string](t, set, "management_records.dns_name_prefix"); p != record.Label {
		t.Errorf("the record stands at %s, not %s", p, record.Label)
	}
	if p := vectors.Part[string](t, set, "management_records.dns_type"); p != "TXT" {
		t.Errorf("the record is a %s", p)
	}
	type publics struct {
		File     string
		Magic    int
		PEMTag   string      `json:"pem_tag"`
		SignPriv vectors.Hex `json:"sign_priv"`
		SignPub  vectors.Hex `json:"sign_pub"`
		EncPriv  vectors.Hex `json:"enc_priv"`
		EncPub   vectors.Hex `json:"enc_pub"`
	}
	keys := vectors.Part[map[string]publics](t, set, "keys")
	for name, file := range vectors.Part[map[string]string](t, set, "management_records.signing_keys") {
		k, err := key.ParseSigning(set.File(t, file))
		if err != nil || !bytes.Equal(k.Seed(), keys[name].SignPriv) {
			t.Errorf("%s: another key than %s: %v", file, name, err)
		}
		if got := k.Armored(); !bytes.Equal(got, set.File(t, file)) {
			t.Errorf("%s: written otherwise", file)
		}
	}
}

func TestVectorsTLS(t *testing.T) {
	set := vectors.Open(t)
	v := vectors.Part[struct {
		Cert, Key, Note string
		SHA512          vectors.Hex `json:"cert_der_sha512"`
		Signature       vectors.Hex `json:"tls_signature_hex"`
	}](t, set, "tls")
	if _, err := tls.X509KeyPair(set.File(t, v.Cert), set.File(t, v.Key)); err != nil {
		t.Errorf("certificate and key: %v", err)
	}
	certificate := der(t, set, v.Cert)
	if sum := sha512.Sum512(certificate); !bytes.Equal(sum[:], v.SHA512) {
		t.Errorf("SHA-512 %x", sum)
	}
	var signed int
	for _, file := range vectors.Part[map[string]string](t, set, "management_records.signing_keys") {
		k, err := key.ParseSigning(set.File(t, file))
		if err != nil {
			t.Fatal(err)
		}
		sig := record.SignCertificate(k, certificate)
		r := record.Record{POKs: []key.SigningPublic{k.Public()}, TLS: [][64]byte{[64]byte(v.Signature)}}
		if bytes.Equal(sig[:], v.Signature) != r.MatchesCertificate(certificate) {
			t.Errorf("%s: the signature is made and checked differently", file)
		}
		if r.MatchesCertificate(certificate) {
			signed++
		}
		if r.MatchesCertificate(certificate[1:]) {
			t.Errorf("%s: another certificate matches", file)
		}
	}
	if signed != 1 {
		t.Errorf("%d of the keys made the signature", signed)
	}
}
