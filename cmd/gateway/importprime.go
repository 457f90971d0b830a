package main

import (
	"context"
	"flag"
	"fmt"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/internal/safefile"
)

var importCommand = command{
	name:    "import",
	summary: "read what other DIME software stored",
	sub: []command{{
		name: "prime", summary: "open a message that magma stored (PRIME, number 1908), and write its mail",
		usage:   "[--json] --keys FILE [--realm-key FILE] --org-signet FILE [--eml FILE] MESSAGE",
		example: "gateway import prime --keys bob.key --org-signet example.org.signet --eml message.eml message.prime",
		run:     runImportPrime,
	}},
}

// An importView is what import prime prints.
type importView struct {
	File    string        `json:"file"`
	Header  int           `json:"header_octets"`
	Body    int           `json:"body_octets"`
	Warning string        `json:"warning"`
	Error   *messageFault `json:"error"`
}

func runImportPrime(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "print JSON")
	keys := fs.String("keys", "", "the recipient's private key `FILE`")
	realm := fs.String("realm-key", "", "`FILE` of 64 octets, where PRIME encrypted the key file")
	org := fs.String("org-signet", "", "`FILE` of the signet of the organisation that stored the message")
	eml := fs.String("eml", "", "write the mail to this `FILE`, - for standard output")
	file, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	if *org == "" {
		return usagef("--org-signet: nothing can be verified without it")
	}
	if *eml == "-" && *asJSON {
		return usagef("--eml -: standard output has place for the mail or for JSON")
	}
	s, err := helperSignet(std, "org-signet", *org, signet.Org)
	if err != nil {
		return err
	}
	pair, err := readPrimePair(std, *keys, *realm)
	if err != nil {
		return err
	}
	defer pair.Destroy()
	b, err := readUpTo(std, file, maxMessage)
	if err != nil {
		return err
	}
	return importPrime(std, file, b, pair, s, *eml, *asJSON)
}

// importPrime opens a stored message, writes its mail, and tells of the weakness.
func importPrime(std stdio, file string, b []byte, pair key.Pair, org *signet.Signet, eml string, asJSON bool) error {
	v := &importView{File: file, Warning: message.NakedWeakness}
	n, err := message.OpenNaked(b, message.Limits{Total: maxMessage}, pair.Encryption, org.SigningKey())
	if err != nil {
		fault := openView{}
		fault.fail(err)
		v.Error = fault.Error
		return v.end(std, asJSON, false)
	}
	v.Header, v.Body = len(n.Header), len(n.Body)
	mail := append(append(make([]byte, 0, v.Header+v.Body), n.Header...), n.Body...)
	switch eml {
	case "":
	case "-":
		if _, err := std.out.Write(mail); err != nil {
			return err
		}
	default:
		if err := safefile.Write(eml, mail); err != nil {
			return err
		}
	}
	return v.end(std, asJSON, eml == "-")
}

// readPrimePair reads a private key file, which a realm key may have encrypted.
func readPrimePair(std stdio, name, realm string) (key.Pair, error) {
	if realm == "" || name == "" {
		return readPair(std, "keys", name)
	}
	b, err := readFile(std, name)
	if err != nil {
		return key.Pair{}, err
	}
	k, err := readFile(std, realm)
	if err != nil {
		return key.Pair{}, err
	}
	defer clear(k)
	f, err := key.OpenFile(b, k)
	if err != nil {
		return key.Pair{}, usageError{fmt.Errorf("--keys %s: does not open with this realm key: %w%s", name, err, advice(err))}
	}
	return f.Pair, nil
}

func (v *importView) end(std stdio, asJSON, quiet bool) error {
	switch {
	case asJSON:
		if err := printJSON(std.out, v); err != nil || v.Error == nil {
			return err
		}
		return errReported
	case v.Error != nil:
		return fmt.Errorf("%s: %s", v.File, v.Error.Reason)
	case quiet:
		return nil
	}
	_, err := fmt.Fprintf(std.out, "%s: header %d octets, body %d octets; every signature holds\nwarning: %s\n", v.File, v.Header, v.Body, v.Warning)
	return err
}
