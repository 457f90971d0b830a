package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"dimegate/bridge/translate"
	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
	"dimegate/dmtp/signet"
	"dimegate/internal/safefile"
)

// maxMessage bounds the messages that these commands read: what the gateway takes by default, and as much again.
const maxMessage = 128 << 20

var messageCommand = command{
	name:    "message",
	summary: "open and seal D/MIME messages by hand",
	sub: []command{
		{
			name: "open", summary: "open a message as one of the four, and verify all that he must",
			usage: "[--json] --as author|origin|destination|recipient --keys FILE [--author-signet F] [--origin-signet F] [--destination-signet F] " +
				"[--recipient-signet F] [--eml FILE] MESSAGE",
			example: "gateway message open --as recipient --keys bob.key --author-signet alice.signet --origin-signet alpha.example.signet " +
				"--recipient-signet bob.signet message.dmsg",
			run: runMessageOpen,
		},
		sealCommand,
	},
}

// partyFlags are the four signets that a message command may be given.
type partyFlags struct {
	files [4]string // by message.Actor
}

func (f *partyFlags) add(fs *flag.FlagSet) {
	for a := range f.files {
		role := message.Actor(a).String()
		fs.StringVar(&f.files[a], role+"-signet", "", "`FILE` of the "+role+"'s signet")
	}
}

// read loads what was given.
func (f *partyFlags) read(std stdio) (p message.Parties, err error) {
	for a, file := range f.files {
		if file == "" {
			continue
		}
		kind := signet.User
		if message.Actor(a) == message.Origin || message.Actor(a) == message.Destination {
			kind = signet.Org
		}
		s, err := helperSignet(std, message.Actor(a).String()+"-signet", file, kind)
		if err != nil {
			return p, err
		}
		partyOf(&p, message.Actor(a)).Signet = s
	}
	return p, nil
}

func partyOf(p *message.Parties, a message.Actor) *message.Party {
	return [...]*message.Party{&p.Author, &p.Origin, &p.Destination, &p.Recipient}[a]
}

// verifySignets does here what the resolver does in the gateway, as far as files can tell: every signature of an organisation's
// signet by its own primary key, and of a user's under it. That the primary keys are those of the domains, the records say.
func verifySignets(p *message.Parties) error {
	for _, a := range []message.Actor{message.Origin, message.Destination} {
		if s := partyOf(p, a).Signet; s != nil {
			if err := verifyOrg(s, nil); err != nil {
				return &message.Error{Class: message.SignetInvalid, Reason: "the " + a.String() + "'s signet", Err: err}
			}
		}
	}
	for user, org := range map[message.Actor]message.Actor{message.Author: message.Origin, message.Recipient: message.Destination} {
		u, o := partyOf(p, user).Signet, partyOf(p, org).Signet
		if u == nil || o == nil {
			continue
		}
		if err := u.VerifyUser(o); err != nil {
			return &message.Error{Class: message.SignetInvalid, Reason: fmt.Sprintf("the %v's signet under the %v's", user, org), Err: err}
		}
	}
	return nil
}

// A chunkView is one opened chunk.
type chunkView struct {
	Type      message.Type `json:"type"`
	Name      string       `json:"name"`
	Flags     byte         `json:"flags"`
	Signature any          `json:"signature,omitempty"` // the author's, inside: true, false, or not there when it was not looked at
	Data      []byte       `json:"data"`                // standard base64; of a signature chunk, the signature
}

// A messageFault is a message's error in JSON.
type messageFault struct {
	Class   string `json:"class,omitempty"`
	Outcome string `json:"outcome,omitempty"`
	Reason  string `json:"reason"`
}

// An openView is what open prints.
type openView struct {
	File       string         `json:"file"`
	As         string         `json:"as"`
	ID         string         `json:"id,omitempty"`
	Chunks     []chunkView    `json:"chunks"`
	Signatures map[string]any `json:"signatures"`
	Error      *messageFault  `json:"error"`

	mail   *translate.Exported // of author and recipient, when all holds
	octets int
}

func (v *openView) fail(err error) {
	v.Error = &messageFault{Reason: err.Error()}
	if e, ok := errors.AsType[*message.Error](err); ok {
		v.Error.Class, v.Error.Outcome = e.Class.String(), e.Class.Outcome().String()
	}
}

func runMessageOpen(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	var flags partyFlags
	asJSON := fs.Bool("json", false, "print JSON")
	as := fs.String("as", "", "open as this `ACTOR`: author, origin, destination or recipient")
	keys := fs.String("keys", "", "the actor's private key `FILE`")
	eml := fs.String("eml", "", "as author or recipient: write the mail to this `FILE`, - for standard output")
	flags.add(fs)
	file, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	actor, err := actorByName(*as)
	switch {
	case err != nil:
		return err
	case *eml != "" && (actor == message.Origin || actor == message.Destination):
		return usagef("--eml: the %v cannot read the mail", actor)
	case *eml == "-" && *asJSON:
		return usagef("--eml -: standard output has place for the mail or for JSON")
	}
	parties, err := flags.read(std)
	if err != nil {
		return err
	}
	b, err := readUpTo(std, file, maxMessage)
	if err != nil {
		return err
	}
	if message.IsNaked(b) {
		return openStored(std, file, b, actor, *keys, parties.Destination.Signet, *eml, *asJSON)
	}
	if err := enough(actor, &parties); err != nil {
		return errors.Join(err, tellAuthor(std, b, actor, *keys, parties))
	}
	v, err := openFile(std, file, b, actor, *keys, parties)
	if err != nil {
		return err
	}
	if v.Error == nil && *eml != "" {
		if err := v.export(std, *eml); err != nil {
			return err
		}
	}
	return v.end(std, *asJSON, *eml == "-")
}

// openStored opens what magma stored of SMTP mail, which has neither author nor origin.
func openStored(std stdio, file string, b []byte, a message.Actor, keys string, org *signet.Signet, eml string, asJSON bool) error {
	switch {
	case a != message.Recipient:
		return usagef("%s: a message that magma stored (PRIME, number 1908) opens for its recipient alone: --as recipient", file)
	case org == nil:
		return usagef("%s: a message that magma stored (PRIME, number 1908): give the signet of the organisation that stored it: --destination-signet FILE", file)
	}
	pair, err := readPair(std, "keys", keys)
	if err != nil {
		return err
	}
	defer pair.Destroy()
	return importPrime(std, file, b, pair, org, eml, asJSON)
}

// openFile opens a message. Its error is wrong use; what is wrong with the message stands in the view.
func openFile(std stdio, file string, b []byte, a message.Actor, keys string, p message.Parties) (*openView, error) {
	pair, err := readPair(std, "keys", keys)
	if err != nil {
		return nil, err
	}
	defer pair.Destroy()
	v := &openView{File: file, As: a.String(), Chunks: []chunkView{}, Signatures: map[string]any{}, octets: len(b)}
	if err := v.open(b, a, pair.Encryption, p); err != nil {
		v.fail(err)
	}
	return v, nil
}

// end prints the report, unless the mail took its place, and says how it went.
func (v *openView) end(std stdio, asJSON, quiet bool) error {
	if asJSON {
		if err := printJSON(std.out, v); err != nil || v.Error == nil {
			return err
		}
		return errReported
	}
	if !quiet {
		if err := v.print(std.out); err != nil {
			return err
		}
	}
	if v.Error != nil {
		return fmt.Errorf("%s: %s", v.File, v.Error.Reason)
	}
	return nil
}

// actorByName reads --as.
func actorByName(name string) (message.Actor, error) {
	for a := message.Author; a <= message.Recipient; a++ {
		if a.String() == name {
			return a, nil
		}
	}
	return 0, usagef("--as: say who opens the message: author, origin, destination or recipient")
}

// readPair reads a private key file.
func readPair(std stdio, flag, name string) (key.Pair, error) {
	if name == "" {
		return key.Pair{}, usagef("--%s: give the private key file", flag)
	}
	b, err := readFile(std, name)
	if err != nil {
		return key.Pair{}, err
	}
	defer clear(b)
	f, err := key.ParseFile(b)
	if err != nil {
		return key.Pair{}, usageError{fmt.Errorf("--%s %s: no private key file: %w%s", flag, name, err, advice(err))}
	}
	return f.Pair, nil
}

// enough says which signet is missing for an actor to verify what he must: see message.Opened.Verify.
func enough(a message.Actor, p *message.Parties) error {
	needs := [...][]message.Actor{
		message.Author:      {message.Author},
		message.Origin:      {message.Author, message.Origin},
		message.Destination: {message.Origin, message.Destination},
		message.Recipient:   {message.Author, message.Origin, message.Recipient},
	}
	for _, role := range needs[a] {
		if partyOf(p, role).Signet == nil {
			return usagef("--as %v: nothing can be verified without the %v's signet: give --%v-signet FILE", a, role, role)
		}
	}
	return nil
}

// tellAuthor is, for a recipient without the author's signet, who the message says that is.
func tellAuthor(std stdio, b []byte, a message.Actor, keys string, p message.Parties) error {
	if a != message.Recipient || p.Author.Signet != nil {
		return nil
	}
	m, err := message.Parse(b, message.Limits{Total: maxMessage})
	if err != nil {
		return nil // that something is missing was said
	}
	pair, err := readPair(std, "keys", keys)
	if err != nil {
		return nil
	}
	defer pair.Destroy()
	o, err := m.Open(a, pair.Encryption)
	if err != nil {
		return nil
	}
	chunk, err := o.Origin()
	if err != nil {
		return nil
	}
	return usagef("the message says that its author is %q: get his signet with \"gateway signet fetch --out author.signet ADDRESS\"", chunk.Author)
}

// open fills v with what the actor can open. An error is what does not hold; v never has unverified content.
func (v *openView) open(b []byte, a message.Actor, k key.Encryption, p message.Parties) error {
	m, err := message.Parse(b, message.Limits{Total: maxMessage})
	if err != nil {
		return err
	}
	id := m.ID()
	v.ID = hex.EncodeToString(id[:])
	o, err := m.Open(a, k)
	if err != nil {
		return err
	}
	switch a { // whom an actor cannot know, he cannot hold against anything
	case message.Origin:
		p.Recipient = message.Party{}
	case message.Destination:
		p.Author = message.Party{}
	}
	nameless(&p, o)
	err = verifySignets(&p)
	if verr := o.Verify(p); err == nil { // also for the report
		err = verr
	}
	if err == nil && (a == message.Author || a == message.Recipient) {
		err = v.mailOf(o, id)
	}
	chunks, cerr := o.Chunks()
	for _, c := range chunks {
		if err != nil && c.Type >= message.TypeCommon && c.Type <= message.TypeAttachment {
			continue // none of it counts
		}
		view := chunkView{Type: c.Type, Name: c.Type.String(), Flags: c.Flags, Data: c.Data}
		if c.Sig != message.Unchecked {
			view.Signature = c.Sig == message.Valid
		}
		v.Chunks = append(v.Chunks, view)
	}
	v.report(o.Report())
	if err == nil {
		err = cerr
	}
	return err
}

// mailOf makes the mail: also a check, for chunk 33 must be what the header block in 34 says.
func (v *openView) mailOf(o *message.Opened, id [64]byte) error {
	content, err := o.Content()
	if err != nil {
		return err
	}
	v.mail, err = translate.Export(content, id)
	return err
}

// nameless lets a signet that does not name its owner stand for the one that the message names: whoever gave the file says so.
func nameless(p *message.Parties, o *message.Opened) {
	name := func(party *message.Party, name string) {
		if party.Signet != nil && party.Signet.Name() == "" {
			party.Name = name
		}
	}
	if c, err := o.Origin(); err == nil {
		name(&p.Author, c.Author)
		name(&p.Destination, c.Destination)
	}
	if c, err := o.Destination(); err == nil {
		name(&p.Recipient, c.Recipient)
		name(&p.Origin, c.Origin)
	}
}

// report lists the signatures that were looked at.
func (v *openView) report(r message.Report) {
	for name, verdict := range map[string]message.Verdict{"author_tree": r.AuthorTree, "author_full": r.AuthorFull,
		"origin_meta_bounce": r.MetadataBounce, "origin_display_bounce": r.DisplayBounce, "origin_full": r.OriginFull} {
		switch verdict {
		case message.Valid, message.Invalid:
			v.Signatures[name] = verdict == message.Valid
		case message.Absent:
			v.Signatures[name] = "absent"
		case message.Unsigned:
			v.Signatures[name] = "zeros (not signed yet)"
		}
	}
}

// export writes the mail.
func (v *openView) export(std stdio, file string) error {
	if file == "-" {
		_, err := v.mail.WriteTo(std.out)
		return err
	}
	return safefile.Write(file, v.mail.Bytes())
}

// print is the report for people.
func (v *openView) print(w io.Writer) error {
	if v.ID != "" {
		fmt.Fprintf(w, "%s: %d octets, id %s…\n", v.File, v.octets, v.ID[:16])
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range v.Chunks {
		switch c.Type {
		case message.TypeOrigin, message.TypeDestination:
			for line := range strings.SplitSeq(strings.TrimSuffix(string(c.Data), "\r\n"), "\r\n") {
				label, value, _ := strings.Cut(line, ": ")
				fmt.Fprintf(tw, "%s\t%s\n", label, strings.Trim(value, "<>[]"))
			}
		case message.TypeCommon:
			for line := range strings.SplitSeq(strings.TrimSuffix(string(c.Data), "\r\n"), "\r\n") {
				label, value, _ := strings.Cut(line, ": ")
				fmt.Fprintf(tw, "%s\t%q\n", label, value)
			}
		case message.TypeOther, message.TypeDisplay, message.TypeAttachment:
			fmt.Fprintf(tw, "%s\t%d octets\n", c.Name, len(c.Data))
		}
	}
	for _, name := range []string{"author_tree", "author_full", "origin_meta_bounce", "origin_display_bounce", "origin_full"} {
		switch r := v.Signatures[name].(type) {
		case bool:
			fmt.Fprintf(tw, "%s\t%s\n", name, map[bool]string{true: "holds", false: "does not hold"}[r])
		case string:
			fmt.Fprintf(tw, "%s\t%s\n", name, r)
		}
	}
	return tw.Flush()
}
