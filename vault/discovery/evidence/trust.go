package evidence

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"dimegate/vault/audit"
	"dimegate/vault/escrow"
)

// A Trust is whom a reader believes before he reads: lines of a word and what it names. What has no line is taken from the package.
//
//	log VERIFIER             the log's key
//	witness VERIFIER         a witness's; any number, one of them must have cosigned
//	escrow-key DIGITS        the escrow key's id, 64 hexadecimal digits
//	dealer DIGITS            fingerprint of the ceremony's dealer, 16 digits
//	officer PERSON DIGITS    fingerprint of an officer, 16 digits; when there is one, all who approved must have one
//	requester PERSON KEY     base64
type Trust struct {
	Log       string
	Witnesses []string
	EscrowKey string
	Dealer    string
	Officers  map[string]string
	Requester string // person and key
}

// MaxTrust bounds a trust file, in octets.
const MaxTrust = 64 << 10

// ParseTrust reads a trust file. Empty lines and those that begin with '#' are passed over.
func ParseTrust(b []byte) (*Trust, error) {
	t := &Trust{Officers: map[string]string{}}
	if len(b) > MaxTrust {
		return nil, fmt.Errorf("longer than %d octets", MaxTrust)
	}
	n := 0
	for text := range strings.Lines(string(b)) {
		n++
		f := strings.Fields(text)
		if len(f) == 0 || f[0][0] == '#' {
			continue
		}
		if err := t.add(f[0], f[1:]); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return t, nil
}

func (t *Trust) add(word string, args []string) error {
	want := map[string]int{"log": 1, "witness": 1, "escrow-key": 1, "dealer": 1, "officer": 2, "requester": 2}[word]
	if want == 0 {
		return fmt.Errorf("%q is none of log, witness, escrow-key, dealer, officer, requester", word)
	}
	if len(args) != want {
		return fmt.Errorf("%s takes %d words", word, want)
	}
	single := map[string]*string{"log": &t.Log, "escrow-key": &t.EscrowKey, "dealer": &t.Dealer, "requester": &t.Requester}
	if p := single[word]; p != nil {
		if *p != "" {
			return fmt.Errorf("%s stands twice", word)
		}
		*p = strings.Join(args, " ")
	}
	switch word {
	case "log":
		return escrow.Trust{Log: args[0]}.CheckLog()
	case "witness":
		t.Witnesses = append(t.Witnesses, args[0])
		_, err := audit.ParseWitness(args[0])
		return err
	case "escrow-key":
		return digits(args[0], 64)
	case "dealer":
		return digits(args[0], 16)
	case "officer":
		if t.Officers[args[0]] != "" {
			return fmt.Errorf("officer %s stands twice", args[0])
		}
		t.Officers[args[0]] = args[1]
		return digits(args[1], 16)
	}
	if b, err := base64.StdEncoding.DecodeString(args[1]); err != nil || len(b) != len(escrow.PublicKey{}) {
		return fmt.Errorf("%q is no key of 32 octets in base64", args[1])
	}
	return nil
}

func digits(s string, n int) error {
	if b, err := hex.DecodeString(s); err != nil || len(b)*2 != n || s != strings.ToLower(s) {
		return fmt.Errorf("%q has not %d hexadecimal digits in lower case", s, n)
	}
	return nil
}

// lines are a trust file of what the package says of itself: its start, as far as the reader has no other.
func (v *verification) trustLines() []string {
	list := []string{"log " + v.logKey}
	for _, w := range v.witnesses {
		list = append(list, "witness "+w)
	}
	id := v.key.ID()
	list = append(list, "escrow-key "+hex.EncodeToString(id[:]))
	if v.transcript != nil {
		list = append(list, "dealer "+v.transcript.DealerFingerprint())
	}
	for _, o := range v.epoch().Officers {
		list = append(list, "officer "+o.Person+" "+o.Fingerprint())
	}
	return append(list, "requester "+v.m.Requester+" "+v.m.RequesterKey.String())
}

// check compares a reader's trust with the package's keys. The log's and the witnesses' are compared by their signatures.
func (t *Trust) check(v *verification) error {
	id := v.key.ID()
	switch {
	case t.Log != "" && t.Log != v.logKey:
		return fault(fileKeys, "names another log's key than the one that you trust")
	case t.EscrowKey != "" && t.EscrowKey != hex.EncodeToString(id[:]):
		return fault(fileKey, "is another escrow key than the one that you trust")
	case t.Dealer != "" && (v.transcript == nil || t.Dealer != v.transcript.DealerFingerprint()):
		return fault(fileTranscript, "is not of the ceremony whose dealer you trust, or is not there")
	case t.Requester != "" && t.Requester != v.m.Requester+" "+v.m.RequesterKey.String():
		return fault(fileCase, "names another requester than the one that you trust")
	}
	return nil
}

// officers compares who approved with whom the reader trusts.
func (t *Trust) officers(v *verification) error {
	for _, a := range v.answers {
		if o, _ := v.epoch().Officer(a.Index); len(t.Officers) > 0 && a.Kind == escrow.Approval && t.Officers[o.Person] != o.Fingerprint() {
			return fault(answerFile(a.Index), "is of %s, whose key is not one that you trust", o.Person)
		}
	}
	return nil
}

// signers are whose signatures a checkpoint needs.
func (t *Trust) signers(v *verification) escrow.Trust {
	s := escrow.Trust{Log: v.logKey, Witnesses: slices.Clone(v.witnesses)}
	if t != nil && len(t.Witnesses) > 0 {
		s.Witnesses = t.Witnesses
	}
	return s
}

// cosigned are the witnesses who signed a checkpoint, with their times.
func cosigned(signed []byte, witnesses []string) ([]Cosigned, error) {
	var verifiers []note.Verifier
	for _, w := range witnesses {
		k, err := audit.ParseWitness(w)
		if err != nil {
			return nil, err
		}
		verifiers = append(verifiers, k)
	}
	n, err := note.Open(signed, note.VerifierList(verifiers...))
	if err != nil {
		return nil, err
	}
	list := []Cosigned{}
	for _, s := range n.Sigs { // each is key id 4 ‖ seconds 8 ‖ signature
		b, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil || len(b) < 12 {
			return nil, errForm
		}
		list = append(list, Cosigned{s.Name, time.Unix(int64(binary.BigEndian.Uint64(b[4:])), 0).UTC()})
	}
	return list, nil
}
