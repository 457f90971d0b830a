package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"time"

	"dimegate/bridge/translate"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/internal/safefile"
)

var sealCommand = command{
	name: "seal", summary: "make a message of a mail, as its author, and sign it as the origin",
	usage: "[--json] --keys FILE --author-signet F --origin-signet F --destination-signet F --recipient-signet F [--origin-keys FILE] " +
		"[--return PATH] --out FILE MAIL",
	example: "gateway message seal --keys alice.key --author-signet alice.signet --origin-signet alpha.signet --destination-signet bravo.signet " +
		"--recipient-signet bob.signet --origin-keys alpha.key --out message.dmsg mail.eml",
	run: runMessageSeal,
}

// A sealView is what seal prints.
type sealView struct {
	File   string        `json:"file"`
	Octets int           `json:"octets"`
	ID     string        `json:"id,omitempty"`
	Signed bool          `json:"signed"` // by the origin
	Chunks []sealedChunk `json:"chunks"`
	Error  *messageFault `json:"error"`
}

type sealedChunk struct {
	Type   message.Type `json:"type"`
	Name   string       `json:"name"`
	Octets int          `json:"octets"`
}

func runMessageSeal(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var flags partyFlags
	asJSON := fs.Bool("json", false, "print JSON")
	keys := fs.String("keys", "", "the author's private key `FILE`")
	originKeys := fs.String("origin-keys", "", "the origin's private key `FILE`: sign as the origin, too")
	path := fs.String("return", "", "reverse-path to carry along: <> or an `ADDRESS`; none when it is the author")
	out := fs.String("out", "", "the message's `FILE`, - for standard output")
	flags.add(fs)
	file, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	if *out == "" || *out == "-" && *asJSON {
		return usagef("--out: give the file to write the message to")
	}
	s := sealer{returnPath: *path}
	if err := s.read(std, &flags, *keys, *originKeys); err != nil {
		return err
	}
	defer s.destroy()
	mail, err := readUpTo(std, file, maxMessage)
	if err != nil {
		return err
	}
	v := sealView{File: *out, Signed: *originKeys != "", Chunks: []sealedChunk{}}
	m, err := s.seal(std, wireForm(mail))
	switch {
	case err != nil:
		return sealFailed(std, *asJSON, file, v, err)
	case *out == "-":
		_, err := std.out.Write(m.Bytes())
		return err
	}
	if err := safefile.Write(*out, m.Bytes()); err != nil {
		return err
	}
	return v.print(std, *asJSON, m)
}

func (v *sealView) print(std stdio, asJSON bool, m *message.Message) error {
	id := m.ID()
	v.Octets, v.ID = len(m.Bytes()), hex.EncodeToString(id[:])
	for _, c := range m.Chunks() {
		v.Chunks = append(v.Chunks, sealedChunk{c.Type, c.Type.String(), len(c.Octets)})
	}
	if asJSON {
		return printJSON(std.out, v)
	}
	state := "a draft: the origin has not signed"
	if v.Signed {
		state = "signed by the origin"
	}
	_, err := fmt.Fprintf(std.out, "%s: %d octets, %d chunks, id %s…, %s\n", v.File, v.Octets, len(v.Chunks), v.ID[:16], state)
	return err
}

func sealFailed(std stdio, asJSON bool, file string, v sealView, err error) error {
	if _, wrongUse := errors.AsType[usageError](err); wrongUse || !asJSON {
		return fmt.Errorf("%s: %w", file, err)
	}
	open := openView{}
	open.fail(err)
	v.Error, v.Signed = open.Error, false
	return errors.Join(errReported, printJSON(std.out, v))
}

// A sealer has what it takes to seal by hand.
type sealer struct {
	parties    message.Parties
	author     key.Pair
	origin     key.Pair
	returnPath string
}

func (s *sealer) read(std stdio, flags *partyFlags, keys, originKeys string) (err error) {
	if s.parties, err = flags.read(std); err != nil {
		return err
	}
	for a := message.Author; a <= message.Recipient; a++ {
		if partyOf(&s.parties, a).Signet == nil {
			return usagef("a message needs all four signets: give --%v-signet FILE", a)
		}
	}
	if s.author, err = readPair(std, "keys", keys); err != nil {
		return err
	}
	if originKeys != "" {
		if s.origin, err = readPair(std, "origin-keys", originKeys); err != nil {
			s.author.Destroy()
		}
	}
	return err
}

func (s *sealer) destroy() {
	s.author.Destroy()
	s.origin.Destroy()
}

// seal makes the message. As in the gateway, Bcc and what asks the gateway for something do not leave; nothing is added.
func (s *sealer) seal(std stdio, mail []byte) (*message.Message, error) {
	if err := verifySignets(&s.parties); err != nil {
		return nil, err
	}
	prepared, report := translate.Prepare(translate.Preparation{}, translate.Split(mail))
	for _, c := range report.Removed {
		fmt.Fprintf(std.err, "gateway: %s is left out\n", c.Name)
	}
	name := s.parties.Author.Signet.Name()
	if name == "" {
		return nil, usagef("--author-signet: it does not name its owner: give one in the id form")
	}
	content, err := translate.ImportMessage(translate.Envelope{Author: name, Now: time.Now(), Return: s.returnPath, MultiOK: s.parties.Multi()}, prepared)
	if err != nil {
		return nil, err
	}
	draft, err := message.ComposeLayered(rand.Reader, s.parties, content, s.author.Signing, message.Layer{})
	if err != nil || s.origin.Signing.IsZero() {
		return draft, err
	}
	o, err := draft.Open(message.Origin, s.origin.Encryption)
	if err != nil {
		return nil, err
	}
	p := s.parties
	p.Recipient = message.Party{} // the origin does not know
	if err := o.Verify(p); err != nil {
		return nil, err
	}
	return o.SignOrigin(s.origin.Signing)
}
