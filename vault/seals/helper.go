package seals

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"dimegate/vault"
)

// The protocol between the gateway and the helper that has a PKCS#11 token: one question and one answer a connection, on
// a Unix socket. A question is
//
//	length u16 of all that follows ‖ "DTK1" 4 ‖ operation 1 ‖ label length u16 ‖ label ‖ payload
//
// with a root key (wrap) or a blob (unwrap) as payload; an answer is length u16 ‖ status 1 ‖ payload. Integers are
// big-endian.
const (
	helperMagic = "DTK1"
	opWrap      = 1
	opUnwrap    = 2
	maxFrame    = 4096
)

// Statuses of an answer, the one table that both sides read. The first is none of an error's.
var helperStatus = []error{
	nil,
	vault.ErrWrongKey,
	vault.ErrAway,
	ErrTokenRefused,
	errors.New("seals: the helper did not understand: is it of this version?"),
	ErrNoTokenKey,
}

const statusMisunderstood = 4

var (
	// ErrTokenRefused is a wrong PIN: the helper asks the token no more, since a few wrong ones lock it.
	ErrTokenRefused = errors.New("seals: the token refused the PIN: correct the helper's PIN file and restart it")
	// ErrNoTokenKey is a token without the key.
	ErrNoTokenKey = errors.New("seals: the token has no such key")
)

// helperWait bounds one question. A network HSM can take seconds to log in.
const helperWait = 30 * time.Second

// A token is the seal of a PKCS#11 key, by its helper.
type token struct{ socket, id string }

// Token is the seal of the token that the helper at a Unix socket has; id is the name under which it stands in headers.
// Nothing is asked before the first use. The folder of the socket must not let others put another socket in its place:
// what is wrapped is told to whoever listens there.
func Token(socket, id string) vault.Seal { return token{socket, id} }

func (token) Kind() string { return TokenKind }
func (t token) ID() string { return t.id }

func (t token) Wrap(ctx context.Context, key vault.Secret, label []byte) ([]byte, error) {
	raw := key.Octets()
	defer clear(raw)
	return t.ask(ctx, opWrap, label, raw)
}

func (t token) Unwrap(ctx context.Context, blob, label []byte) (vault.Secret, error) {
	raw, err := t.ask(ctx, opUnwrap, label, blob)
	defer clear(raw)
	if err != nil {
		return vault.Secret{}, err
	}
	return vault.SecretOf(raw)
}

func (t token) ask(ctx context.Context, op byte, label, payload []byte) ([]byte, error) {
	if err := checkFolder(t.socket); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, helperWait)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", t.socket)
	if err != nil {
		return nil, fmt.Errorf("%w: no helper answers at %s", vault.ErrAway, t.socket)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	q := append([]byte(helperMagic), op)
	q = append(binary.BigEndian.AppendUint16(q, uint16(len(label))), label...)
	q = append(q, payload...)
	defer clear(q)
	if len(q) > maxFrame {
		return nil, errors.New("seals: too long for the helper")
	}
	if err := writeFrame(c, q); err != nil {
		return nil, fmt.Errorf("%w: the helper at %s went away", vault.ErrAway, t.socket)
	}
	a, err := readFrame(c)
	if err != nil || len(a) == 0 {
		return nil, fmt.Errorf("%w: the helper at %s gave no answer", vault.ErrAway, t.socket)
	}
	if int(a[0]) >= len(helperStatus) {
		return nil, errors.New("seals: an answer that is not the helper's")
	}
	return a[1:], helperStatus[a[0]]
}

// checkFolder refuses a socket that others could have put there.
func checkFolder(socket string) error {
	st, err := os.Stat(filepath.Dir(socket))
	if err != nil {
		return fmt.Errorf("%w: no folder %s", vault.ErrAway, filepath.Dir(socket))
	}
	if st.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("seals: everyone may write in %s: chmod o-w it", filepath.Dir(socket))
	}
	return nil
}

// A TokenKey is a key that stays in a token. The helper asks it one question at a time. Errors: ErrAway, ErrWrongKey,
// ErrTokenRefused, ErrNoTokenKey; others are told to the gateway as ErrAway.
type TokenKey interface {
	Wrap(key, label []byte) ([]byte, error)
	Unwrap(blob, label []byte) ([]byte, error)
}

// ServeToken answers questions at a Unix socket until ctx ends, one after the other. permit says which users may ask; log
// hears each question with its outcome, and no octets of it.
func ServeToken(ctx context.Context, ln *net.UnixListener, k TokenKey, permit func(uid uint32) bool, log func(uid uint32, op string, err error)) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		c, err := ln.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("seals: socket: %w", err)
		}
		serveOne(c, k, permit, log)
	}
}

// questionWait bounds how long a client may take to ask, since others wait behind it.
const questionWait = 5 * time.Second

func serveOne(c *net.UnixConn, k TokenKey, permit func(uint32) bool, log func(uint32, string, error)) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(questionWait))
	uid, err := peerUser(c)
	if err != nil || !permit(uid) {
		log(uid, "connect", errors.New("this user may not ask"))
		return
	}
	q, err := readFrame(c)
	defer clear(q)
	op, label, payload, ok := parseQuestion(q)
	if err != nil || !ok {
		log(uid, "question", errors.New("not understood"))
		writeFrame(c, []byte{statusMisunderstood})
		return
	}
	var out []byte
	name := "wrap"
	if op == opWrap {
		out, err = k.Wrap(payload, label)
	} else {
		name = "unwrap"
		out, err = k.Unwrap(payload, label)
	}
	defer clear(out)
	log(uid, name, err)
	c.SetDeadline(time.Now().Add(questionWait)) // the token may have taken its time
	a := append([]byte{statusOf(err)}, out...)
	defer clear(a)
	writeFrame(c, a)
}

func statusOf(err error) byte {
	for i, e := range helperStatus {
		if errors.Is(err, e) { // nil is nil
			return byte(i)
		}
	}
	return statusOf(vault.ErrAway)
}

func parseQuestion(q []byte) (op byte, label, payload []byte, ok bool) {
	const fixed = len(helperMagic) + 1 + 2
	if len(q) < fixed || string(q[:len(helperMagic)]) != helperMagic {
		return 0, nil, nil, false
	}
	op, q, n := q[len(helperMagic)], q[fixed:], int(binary.BigEndian.Uint16(q[len(helperMagic)+1:]))
	if n > len(q) || op != opWrap && op != opUnwrap || op == opWrap && len(q)-n != vault.SecretSize {
		return 0, nil, nil, false
	}
	return op, q[:n], q[n:], true
}

func writeFrame(w io.Writer, b []byte) error {
	f := append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...)
	defer clear(f)
	_, err := w.Write(f)
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(n[:]))
	if size > maxFrame {
		return nil, errors.New("seals: frame is too long")
	}
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
}
