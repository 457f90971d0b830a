package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"dimegate/vault"
	"dimegate/vault/discovery"
	"dimegate/vault/escrow"
)

// Verify checks a package, with nothing but its octets and, unless it is nil, whom the reader trusts. What is wrong is a *Fault,
// the first that was found; other errors are the reader's own. Memory: the case's manifest, 32 octets a message and a file of the
// package's directory, and what it reports.
func Verify(ctx context.Context, r io.ReaderAt, size int64, trust *Trust) (*Report, error) {
	c, err := openContainer(r, size)
	if err != nil {
		return nil, err
	}
	if trust == nil {
		trust = new(Trust)
	}
	v := &verification{ctx: ctx, c: c, trust: trust, octets: map[string]vault.Digest{}, hashes: map[string]string{}, told: map[uint64]string{}, known: map[string]bool{}}
	for _, step := range []func() error{
		v.payload, v.escrow, v.head, v.answered, v.logged, v.custody, v.messages, v.withheld, v.complete, v.strangers, v.signed,
	} {
		if err := step(); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	v.report.Trust = v.trustLines()
	return &v.report, nil
}

// A verification is a package that is being checked. Its steps stand on those before them.
type verification struct {
	ctx   context.Context
	c     *container
	trust *Trust

	octets map[string]vault.Digest // D("octets", …) of each message
	hashes map[string]string       // SHA-256 of each message
	known  map[string]bool         // files that belong to something

	key                         *escrow.Key
	epochs                      []*escrow.Epoch
	transcript                  *escrow.Transcript
	logKey                      string
	witnesses                   []string
	m                           *escrow.Manifest
	headOf                      escrow.Bundle
	names                       map[escrow.Custodian]string
	reviewer                    escrow.Reviewer
	checkpoint                  escrow.Checkpoint
	answers                     []*escrow.Statement
	leaves                      []discovery.ProvedLeaf
	told                        map[uint64]string // leaves that are told of, by which file
	wraps                       []*escrow.Wrap    // whose proofs are to be checked
	wrapFiles                   []string
	report                      Report
	tagDigest                   vault.Digest
	payloadFiles, payloadOctets int64
}

func (v *verification) epoch() *escrow.Epoch { return v.epochs[len(v.epochs)-1] }

// take is a whole file that belongs to the package.
func (v *verification) take(name string, limit int) ([]byte, error) {
	v.known[name] = true
	return v.c.read(name, limit)
}

// bad makes a fault of an error of a check.
func bad(name, reason string, err error) error { return &Fault{name, reason, err} }

// payload reads every file of the payload once and compares it with both manifests.
func (v *verification) payload() error {
	var lists []*listing
	for _, a := range algorithms {
		name := fileManifest + a + ".txt"
		v.known[name] = true
		l, err := v.c.listing(name)
		if err != nil {
			return err
		}
		defer l.file.Close()
		lists = append(lists, l)
	}
	for _, name := range v.c.under("data/") {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		s, err := v.hash(name)
		if err != nil {
			return err
		}
		for i, l := range lists {
			if err := l.expect(s.hex(i), name); err != nil {
				return err
			}
		}
	}
	return errors.Join(lists[0].end(), lists[1].end())
}

func (v *verification) hash(name string) (sums, error) {
	s := newSums()
	r, err := v.c.open(name)
	if err != nil {
		return s, err
	}
	defer r.Close()
	w, d := io.Writer(s), vault.NewDigester("octets")
	isMessage := strings.HasPrefix(name, folderMessages) && strings.HasSuffix(name, "/"+nameMessage)
	if isMessage {
		w = io.MultiWriter(s, d)
	}
	n, err := io.Copy(w, r)
	if err != nil {
		return s, readFault(name, err)
	}
	if isMessage {
		v.octets[name], v.hashes[name] = vault.Digest(d.Sum(nil)), s.hex(0)
	}
	v.payloadFiles, v.payloadOctets = v.payloadFiles+1, v.payloadOctets+n
	return s, nil
}

// escrow reads the escrow key with its epochs, who attested the last of them, and the ceremony's transcript.
func (v *verification) escrow() error {
	b, err := v.take(fileKey, maxSmall)
	if err != nil {
		return err
	}
	if v.key, err = escrow.ParseKey(b); err != nil {
		return bad(fileKey, "is no key record", err)
	}
	var previous *escrow.Epoch
	for _, name := range v.c.under(folderEpoch) {
		if b, err = v.take(name, maxSmall); err != nil {
			return err
		}
		e, err := escrow.ParseEpoch(b)
		if err == nil {
			err = e.Check(v.key, previous)
		}
		if err == nil && name != epochFile(int(e.Number)) {
			err = escrow.ErrEpoch
		}
		if err != nil {
			return bad(name, "is no epoch of the key in "+fileKey+", or not the next one", err)
		}
		v.epochs, previous = append(v.epochs, e), e
	}
	if previous == nil {
		return fault(folderEpoch, "is not there")
	}
	if err := v.attested(); err != nil {
		return err
	}
	if v.c.files[fileTranscript] == nil {
		return nil
	}
	if b, err = v.take(fileTranscript, escrow.MaxTranscript); err != nil {
		return err
	}
	if v.transcript, err = escrow.ParseTranscript(b); err != nil {
		return bad(fileTranscript, "is no transcript of a ceremony", err)
	}
	if v.transcript.Key.ID() != v.key.ID() || v.transcript.Epoch.Digest() != v.epochs[0].Digest() {
		return fault(fileTranscript, "is of another key")
	}
	return nil
}

func (v *verification) attested() error {
	var list []*escrow.Statement
	for _, name := range v.c.under(folderAttest) {
		st, err := v.statement(name)
		if err != nil {
			return err
		}
		if err := st.VerifyOfficer(v.epoch(), escrow.AttestShare, v.epoch().Digest(), vault.Digest{}); err != nil {
			return bad(name, "is not what an officer attested of the epoch in "+epochFile(int(v.epoch().Number)), err)
		}
		if name != fmt.Sprintf("%s%05d.deg1", folderAttest, st.Index) {
			return fault(name, "is of officer %d", st.Index)
		}
		list = append(list, st)
	}
	if err := escrow.Attested(v.epoch(), list); err != nil {
		return bad(folderAttest, "are not all of the epoch's officers", err)
	}
	return nil
}

func (v *verification) statement(name string) (*escrow.Statement, error) {
	b, err := v.take(name, maxSmall)
	if err != nil {
		return nil, err
	}
	st, err := escrow.ParseStatement(b)
	if err != nil {
		return nil, bad(name, "is no statement", err)
	}
	return st, nil
}

// head reads the case and checks what an officer's tool checks of it.
func (v *verification) head() error {
	b, err := v.take(fileCase, escrow.MaxManifest)
	if err != nil {
		return err
	}
	if v.m, err = escrow.ParseManifest(b); err != nil {
		return bad(fileCase, "is no case's manifest", err)
	}
	if err := v.m.Check(v.key, v.epoch(), v.m.Opened); err != nil {
		return bad(fileCase, "breaks a rule of cases", err)
	}
	h := &v.headOf
	h.Manifest = v.m
	if h.Request, err = v.statement(fileRequest); err != nil {
		return err
	}
	if err := escrow.CheckRequest(v.m, h.Request); err != nil {
		return bad(fileRequest, "is not the requester's for the case in "+fileCase, err)
	}
	if err := v.readHead(); err != nil {
		return err
	}
	if err := v.keys(); err != nil {
		return err
	}
	if err := v.trust.check(v); err != nil {
		return err
	}
	v.reviewer = escrow.Reviewer{Key: v.key, Epoch: v.epoch(), Trust: v.trust.signers(v), Now: func() time.Time { return v.m.Opened }}
	if _, err := v.reviewer.Trust.Open(h.Note); err != nil {
		return bad(fileCheckpoint, "is not signed by the log and by a witness", err)
	}
	if v.checkpoint, v.names, err = v.reviewer.CheckHead(h); errors.Is(err, escrow.ErrScope) {
		return bad(fileCustodians, "does not name the case's custodians", err)
	} else if err != nil {
		return bad(fileProofs, "does not prove the case under "+fileCheckpoint, err)
	}
	return v.reportHead()
}

// readHead reads what else a bundle's head has.
func (v *verification) readHead() error {
	h := &v.headOf
	var names []custodian
	if err := v.document(fileCustodians, &names); err != nil {
		return err
	}
	if len(names) != len(v.m.Custodians) {
		return fault(fileCustodians, "has %d custodians, the case %d", len(names), len(v.m.Custodians))
	}
	for i, n := range names {
		if n.ID != hex.EncodeToString(v.m.Custodians[i][:]) {
			return fault(fileCustodians, "does not name the case's custodians in their order")
		}
		h.Custodians = append(h.Custodians, escrow.CustodianName{Salt: n.Salt, Address: n.Address})
	}
	var proofs caseProofs
	if err := v.document(fileProofs, &proofs); err != nil {
		return err
	}
	opened, err := v.proved(fileProofs, proofs.Opened)
	if err != nil {
		return err
	}
	h.CaseIndex, h.CaseLeaf, h.CaseProof = opened.Index, opened.Octets, opened.Proof
	for _, c := range proofs.Consistency {
		list, ok := parseHashes(c.Proof)
		if !ok || c.Size == 0 || c.Size > 1<<56 {
			return fault(fileProofs, "has a proof that is none")
		}
		h.Consistency = append(h.Consistency, escrow.Consistency{Size: c.Size, Proof: list})
	}
	h.Note, err = v.take(fileCheckpoint, maxSmall)
	return err
}

// keys reads the keys of log and witnesses.
func (v *verification) keys() error {
	b, err := v.take(fileKeys, maxSmall)
	if err != nil {
		return err
	}
	t, err := ParseTrust(b)
	if err != nil || t.Log == "" || len(t.Witnesses) == 0 {
		return bad(fileKeys, "has not a log's key and a witness's", err)
	}
	v.logKey, v.witnesses = t.Log, t.Witnesses
	var again strings.Builder
	fmt.Fprintf(&again, "log %s\n", t.Log)
	for _, w := range t.Witnesses {
		fmt.Fprintf(&again, "witness %s\n", w)
	}
	if again.String() != string(b) {
		return fault(fileKeys, "is not in the form that the package writes")
	}
	return nil
}

func (v *verification) document(name string, into any) error {
	b, err := v.take(name, maxDocument)
	if err != nil {
		return err
	}
	if err := decode(b, into, encode); err != nil {
		return bad(name, "cannot be read", err)
	}
	return nil
}

// proved reads a leaf; whether it is in the log is another question, see inLog.
func (v *verification) proved(name string, l leafProof) (discovery.ProvedLeaf, error) {
	list, ok := parseHashes(l.Proof)
	if _, err := vault.ParseLeaf(l.Leaf); err != nil || !ok || l.Index > 1<<56 {
		return discovery.ProvedLeaf{}, fault(name, "has a leaf or a proof that is none")
	}
	return discovery.ProvedLeaf{Index: l.Index, Octets: l.Leaf, Proof: list}, nil
}

// inLog checks that a leaf of this archive is in the checkpoint's tree.
func (v *verification) inLog(name string, p discovery.ProvedLeaf) (vault.Leaf, error) {
	l, err := vault.ParseLeaf(p.Octets)
	if err != nil || l.Archive != v.m.Archive {
		return l, fault(name, "has a leaf of another archive (leaf %d)", p.Index)
	}
	if !v.checkpoint.Has(p.Index, p.Octets, p.Proof) {
		return l, fault(name, "does not prove leaf %d to be in the log under %s", p.Index, fileCheckpoint)
	}
	return l, nil
}

func answerFile(i uint16) string { return fmt.Sprintf("%s%05d.deg1", folderAnswers, i) }

// answered reads the officers' answers: a quorum of them must approve this case.
func (v *verification) answered() error {
	approved := 0
	for _, name := range v.c.under(folderAnswers) {
		st, err := v.statement(name)
		if err != nil {
			return err
		}
		if name != answerFile(st.Index) {
			return fault(name, "is of officer %d", st.Index)
		}
		extra := vault.Digest{}
		switch st.Kind {
		case escrow.Approval:
			extra = st.Extra
			approved++
		case escrow.Decline:
		default:
			return fault(name, "neither approves nor declines")
		}
		if err := st.VerifyOfficer(v.epoch(), st.Kind, v.m.Digest(), extra); err != nil {
			return bad(name, "is not an officer's answer in this case", err)
		}
		if st.Time.Before(v.m.Opened) || !st.Time.Before(v.m.Expires) {
			return fault(name, "was signed when the case was not open")
		}
		if err := v.saw(st); err != nil {
			return bad(name, "was signed over another state of the log", err)
		}
		v.answers = append(v.answers, st)
	}
	if q := v.epoch().Quorum; approved < q {
		return fault(folderAnswers, "has %d approvals, the quorum is %d", approved, q)
	}
	v.reportOfficers()
	return v.trust.officers(v)
}

// saw checks that the log grew from what the officer saw, where the package has the proof.
func (v *verification) saw(st *escrow.Statement) error {
	old := escrow.Checkpoint{Origin: v.checkpoint.Origin, Size: int64(st.Size), Root: st.Root}
	if st.Size > uint64(v.checkpoint.Size) {
		return fmt.Errorf("it had %d leaves, the checkpoint has %d", st.Size, v.checkpoint.Size)
	}
	if st.Size != uint64(v.checkpoint.Size) && !slices.ContainsFunc(v.headOf.Consistency, func(c escrow.Consistency) bool { return c.Size == st.Size }) {
		return nil
	}
	return v.headOf.Consistent(v.checkpoint, old)
}

// logged reads the case's other leaves. Each approval must have been logged, and that its partials were relayed.
func (v *verification) logged() error {
	var list []leafProof
	if err := v.document(fileLeaves, &list); err != nil {
		return err
	}
	said, relayed := map[vault.Digest]bool{}, map[vault.Digest]bool{}
	for i, l := range list {
		p, err := v.proved(fileLeaves, l)
		if err != nil {
			return err
		}
		if i > 0 && p.Index <= list[i-1].Index || p.Index == v.headOf.CaseIndex {
			return fault(fileLeaves, "has a leaf twice or not in order (leaf %d)", p.Index)
		}
		leaf, err := v.inLog(fileLeaves, p)
		if err != nil {
			return err
		}
		if err := v.ofCase(leaf, p.Index); err != nil {
			return err
		}
		switch leaf.Type {
		case vault.LeafAnswer:
			if !slices.ContainsFunc(v.answers, func(a *escrow.Statement) bool { return a.LeafDigest() == leaf.Public }) {
				return fault(fileLeaves, "has the leaf of an answer that is not in the package (leaf %d)", p.Index)
			}
			said[leaf.Public] = true
		case vault.LeafPartials:
			relayed[leaf.Public] = true
		}
		v.leaves = append(v.leaves, p)
	}
	for _, a := range v.answers {
		switch {
		case !said[a.LeafDigest()]:
			return fault(answerFile(a.Index), "was not entered in the log, as far as %s shows", fileLeaves)
		case a.Kind == escrow.Approval && !relayed[a.Extra]:
			return fault(answerFile(a.Index), "has other partials than the log says were relayed")
		}
	}
	return nil
}

// ofCase refuses leaves of another case or key.
func (v *verification) ofCase(l vault.Leaf, index uint64) error {
	id := v.key.ID()
	switch l.Type {
	case vault.LeafCaseOpened, vault.LeafAnswer, vault.LeafPartials, vault.LeafOpening, vault.LeafCaseClosed:
		if l.Subject != v.m.Case {
			return fault(fileLeaves, "has a leaf of another case (leaf %d)", index)
		}
	case vault.LeafEpoch:
		if l.Subject != vault.ID(id[:16]) || !slices.ContainsFunc(v.epochs, func(e *escrow.Epoch) bool { return e.Digest() == l.Public }) {
			return fault(fileLeaves, "has a leaf of another key's epoch (leaf %d)", index)
		}
	}
	return nil
}

// custody reads the custody record: a chain in which what the documents attest stands in its order.
func (v *verification) custody() error {
	want, err := documented(&v.headOf, v.epoch(), v.answers, v.leaves)
	if err != nil {
		return err
	}
	b, err := v.take(fileCustody, maxDocument)
	if err != nil {
		return err
	}
	var previous hexDigest
	n := 0
	for text := range bytes.Lines(b) {
		n++
		var e Event
		if err := decode(text, &e, line); err != nil {
			return bad(fileCustody, fmt.Sprintf("has no event in line %d", n), err)
		}
		if e.N != n || e.Previous != previous {
			return fault(fileCustody, "is not the chain that was written: line %d does not follow the one before", n)
		}
		previous = sha256.Sum256(text)
		switch {
		case len(want) > 0 && e.same(want[0]):
			want = want[1:]
		case e.Leaf != nil:
			return fault(fileCustody, "is out of order, or tells of a leaf twice: line %d (leaf %d)", n, *e.Leaf)
		}
	}
	if len(want) > 0 {
		return fault(fileCustody, "does not have, or has out of order, what the documents attest: %s, %s", want[0].Who, want[0].What)
	}
	v.report.Events = n
	return nil
}

// strangers finds files that belong to nothing.
func (v *verification) strangers() error {
	for _, name := range []string{fileReadme, fileBagit, fileInfo, fileSignature, fileTags + algorithms[0] + ".txt", fileTags + algorithms[1] + ".txt"} {
		v.known[name] = true
	}
	for _, name := range v.c.names {
		if !v.known[name] {
			return fault(name, "belongs to nothing in the package: it was added")
		}
	}
	return nil
}

// signed checks the tag files and the requester's signature over all of it. It comes last, since it cannot say what was changed.
func (v *verification) signed() error {
	b, err := v.c.read(fileBagit, maxSmall)
	if err != nil {
		return err
	}
	if string(b) != bagit {
		return fault(fileBagit, "does not declare BagIt 1.0 in UTF-8")
	}
	if b, err = v.c.read(fileInfo, maxSmall); err != nil {
		return err
	}
	if oxum := fmt.Sprintf("\nPayload-Oxum: %d.%d\n", v.payloadOctets, v.payloadFiles); !strings.Contains(string(b), oxum) {
		return fault(fileInfo, "tells of another payload than there is")
	}
	for i := range algorithms {
		if err := v.tags(i); err != nil {
			return err
		}
	}
	st, err := v.statement(fileSignature)
	if err != nil {
		return err
	}
	if st.Kind != escrow.Export || st.Subject != v.m.Digest() || st.Size != uint64(v.checkpoint.Size) || st.Root != v.checkpoint.Root {
		return fault(fileSignature, "is not the requester's for a package of this case under this checkpoint")
	}
	if err := st.Verify(v.m.RequesterKey); err != nil {
		return bad(fileSignature, "is not signed by the requester", err)
	}
	if st.Extra != v.tagDigest {
		return fault(fileSignature, "is of another package: a file was changed after the requester signed, and the lists of hashes made anew")
	}
	v.report.Exported = st.Time
	return nil
}

// tags compares a tag manifest with the tag files.
func (v *verification) tags(i int) error {
	name := fileTags + algorithms[i] + ".txt"
	b, err := v.c.read(name, maxSmall)
	if err != nil {
		return err
	}
	var want bytes.Buffer
	for _, file := range []string{fileInfo, fileBagit, fileManifest + algorithms[0] + ".txt", fileManifest + algorithms[1] + ".txt"} {
		s := newSums()
		r, err := v.c.open(file)
		if err != nil {
			return err
		}
		_, err = io.Copy(s, r)
		r.Close()
		if err != nil {
			return readFault(file, err)
		}
		entry := manifestLine(s.hex(i), file)
		if !bytes.HasPrefix(b[min(want.Len(), len(b)):], []byte(entry)) {
			return fault(file, "was changed, or %s: they do not belong together", name)
		}
		want.WriteString(entry)
	}
	if want.Len() != len(b) {
		return fault(name, "lists what is not there")
	}
	v.tagDigest = vault.NewDigest("export", b) // of the last, SHA-512
	return nil
}
