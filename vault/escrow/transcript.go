package escrow

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"dimegate/vault"
)

// A Transcript is what a ceremony leaves to everyone: the public records, signed by a key that was made for this ceremony.
// Whoever was there has written down that key's fingerprint.
type Transcript struct {
	Software string
	Time     time.Time
	Key      *Key
	Epoch    *Epoch
	Dealer   PublicKey

	text string
}

const transcriptWord = "dimegate-ceremony-v1"

// MaxTranscript bounds a transcript: two records in hexadecimal with 64 officers.
const MaxTranscript = 1 << 20

// NewTranscript writes and signs the transcript of a ceremony. Software is a name and a version.
func NewTranscript(software string, now time.Time, k *Key, e *Epoch, dealer SigningKey) (*Transcript, error) {
	t := &Transcript{Software: software, Time: now.UTC().Truncate(time.Second), Key: k, Epoch: e, Dealer: dealer.Public()}
	body := t.body()
	d := vault.NewDigest("transcript", []byte(body))
	return ParseTranscript([]byte(body + "signature: " + base64.StdEncoding.EncodeToString(dealer.sign(d[:])) + "\n"))
}

// body is all before the signature.
func (t *Transcript) body() string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%s: %s\n", name, value) }
	b.WriteString(transcriptWord + "\n")
	line("software", t.Software)
	line("time", t.Time.Format(time.RFC3339))
	line("key-record", hex.EncodeToString(t.Key.octets))
	line("epoch-record", hex.EncodeToString(t.Epoch.octets))
	line("key-id", hex.EncodeToString(t.Key.id[:]))
	line("epoch-digest", hex.EncodeToString(t.Epoch.digest[:]))
	for _, o := range t.Epoch.Officers {
		line("officer", fmt.Sprintf("%d %s %s", o.Index, o.Person, o.Fingerprint()))
	}
	line("dealer-key", t.Dealer.String())
	return b.String()
}

// Text is the transcript.
func (t *Transcript) Text() string { return t.text }

// DealerFingerprint is the first 16 hexadecimal digits of D("dealer", key), which the officers wrote down.
func (t *Transcript) DealerFingerprint() string {
	d := vault.NewDigest("dealer", t.Dealer[:])
	return hex.EncodeToString(d[:8])
}

// ParseTranscript reads a transcript, checks its signature and that its key and its first epoch belong together.
func ParseTranscript(b []byte) (*Transcript, error) {
	if len(b) > MaxTranscript {
		return nil, refuse(ErrDecode, "transcript", "is too long")
	}
	l := lines{rest: string(b)}
	if word, _, _ := strings.Cut(l.rest, "\n"); word != transcriptWord {
		return nil, refuse(ErrDecode, "transcript", "does not begin with %s", transcriptWord)
	}
	l.rest = strings.TrimPrefix(l.rest, transcriptWord+"\n")
	t := &Transcript{Software: l.value("software"), text: string(b)}
	moment := l.value("time")
	keyRecord, epochRecord := l.hex("key-record"), l.hex("epoch-record")
	if l.err != nil {
		return nil, l.err
	}
	var err error
	if t.Time, err = time.Parse(time.RFC3339, moment); err != nil {
		return nil, refuse(ErrDecode, "transcript", "the time is none")
	}
	t.Time = t.Time.UTC()
	if t.Key, err = ParseKey(keyRecord); err != nil {
		return nil, err
	}
	if t.Epoch, err = ParseEpoch(epochRecord); err != nil {
		return nil, err
	}
	if err := t.parseEnd(string(b)); err != nil {
		return nil, err
	}
	return t, t.Epoch.Check(t.Key, nil)
}

// parseEnd reads the last two lines. All before them must be what the records give.
func (t *Transcript) parseEnd(text string) error {
	_, end, ok := strings.Cut(text, "\ndealer-key: ")
	l := lines{rest: "dealer-key: " + end}
	key, sig := l.base64("dealer-key"), l.base64("signature")
	if l.err != nil {
		return l.err
	}
	if !ok || len(key) != len(t.Dealer) || l.rest != "" {
		return refuse(ErrDecode, "transcript", "does not end with a key and its signature")
	}
	t.Dealer = PublicKey(key)
	body := t.body()
	if !clean(t.Software) || text != body+"signature: "+base64.StdEncoding.EncodeToString(sig)+"\n" {
		return refuse(ErrDecode, "transcript", "its lines are not those of its records")
	}
	d := vault.NewDigest("transcript", []byte(body))
	if !t.Dealer.Verify(d[:], sig) {
		return refuse(ErrSignature, "transcript", "is not signed by its dealer's key")
	}
	return nil
}

// lines reads "name: value" lines in a given order and keeps its first failure.
type lines struct {
	rest string
	err  error
}

func (l *lines) value(name string) string {
	line, rest, ok := strings.Cut(l.rest, "\n")
	v, named := strings.CutPrefix(line, name+": ")
	if l.err == nil && (!ok || !named) {
		l.err = refuse(ErrDecode, "transcript", "no line %q where it belongs", name)
	}
	l.rest = rest
	return v
}

func (l *lines) hex(name string) []byte {
	b, err := hex.DecodeString(l.value(name))
	if l.err == nil && err != nil {
		l.err = refuse(ErrDecode, "transcript", "%s is not hexadecimal", name)
	}
	return b
}

func (l *lines) base64(name string) []byte {
	b, err := base64.StdEncoding.Strict().DecodeString(l.value(name))
	if l.err == nil && err != nil {
		l.err = refuse(ErrDecode, "transcript", "%s is not base64", name)
	}
	return b
}
