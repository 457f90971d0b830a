package escrow

import (
	"bufio"
	"errors"
	"io"

	"dimegate/vault"
)

// An answer file is an officer's statement, DEG1; when he approves, all his messages of sealed partials follow it in order.

// An AnswerReader reads an answer file as a stream.
type AnswerReader struct {
	Statement *Statement
	r         *bufio.Reader
}

// ReadAnswer reads the statement of an answer file. What it says is not checked: see CheckAnswer.
func ReadAnswer(r io.Reader) (*AnswerReader, error) {
	a := &AnswerReader{r: bufio.NewReaderSize(r, 64<<10)}
	s := stream{r: a.r, object: "answer"}
	b := s.take(StatementSize)
	if s.err != nil {
		return nil, s.err
	}
	var err error
	a.Statement, err = ParseStatement(b)
	return a, err
}

// next reads the next message; io.EOF after the last.
func (a *AnswerReader) next() (*sealedBatch, error) {
	if _, err := a.r.Peek(1); errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	s := stream{r: a.r, object: "sealed partials"}
	head := s.take(sealedHeader + 2)
	if s.err != nil {
		return nil, s.err
	}
	n := int(head[sealedHeader])<<8 | int(head[sealedHeader+1])
	if n > maxEnc {
		return nil, refuse(ErrDecode, "sealed partials", "an encapsulated key of %d octets", n)
	}
	head = append(head, s.take(n)...)
	ct := s.uint(4)
	if int(ct) > MaxSealed {
		s.fail("a message is too long")
	}
	head = append(head, be32(uint32(ct))...)
	head = append(head, s.take(int(ct))...)
	if s.err != nil {
		return nil, s.err
	}
	return parseSealed(head)
}

// CheckAnswer checks what the gateway can check before it relays an answer, and the station before it uses one: that the officer
// signed it for this case, and that an approval covers the manifest once, in order. An answer that was changed after he signed it
// is of class ErrSignature, whatever else is wrong with it: that is not his fault. The statement is returned beside an error when
// it is his.
func CheckAnswer(m *Manifest, e *Epoch, file io.Reader) (*Statement, error) {
	if m.Epoch != e.digest {
		return nil, refuse(ErrManifest, "answer", "the case is of another epoch")
	}
	s := stream{r: file, object: "answer"}
	b := s.take(StatementSize)
	if s.err != nil {
		return nil, s.err
	}
	st, err := ParseStatement(b)
	if err != nil {
		return nil, err
	}
	extra := vault.Digest{}
	switch st.Kind {
	case Approval:
		extra = st.Extra
	case Decline:
	default:
		return nil, refuse(ErrSignature, "answer", "neither approves nor declines")
	}
	if err := st.VerifyOfficer(e, st.Kind, m.digest, extra); err != nil {
		return nil, err
	}
	digest := partialsDigest()
	rest := io.TeeReader(file, digest)
	a := &AnswerReader{Statement: st, r: bufio.NewReaderSize(rest, 64<<10)}
	err = a.covers(m)
	if _, cerr := io.Copy(io.Discard, rest); cerr != nil {
		return nil, cerr
	}
	if st.Kind == Approval && vault.Digest(digest.Sum(nil)) != st.Extra {
		return st, refuse(ErrSignature, "answer", "officer %d signed for other partials: they were changed on the way", st.Index)
	}
	return st, err
}

// covers reads all messages and compares the entries that they are about with the manifest's.
func (a *AnswerReader) covers(m *Manifest) error {
	want := len(m.Entries)
	if a.Statement.Kind == Decline {
		want = 0
	}
	for n := 0; ; {
		b, err := a.next()
		switch {
		case errors.Is(err, io.EOF) && n == want:
			return nil
		case errors.Is(err, io.EOF):
			return refuse(ErrDecode, "answer", "%d entries of %d", n, want)
		case err != nil:
			return err
		case b.index != a.Statement.Index || int(b.first) != n || n+int(b.count) > want:
			return refuse(ErrDecode, "answer", "its messages are not the officer's, or not the case's in order")
		}
		n += int(b.count)
	}
}
