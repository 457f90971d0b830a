package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"dimegate/dmtp/key"
	"dimegate/dmtp/record"
	"dimegate/dmtp/signet"
)

// maxFile bounds what a command reads of one file: a signet of the largest size that is read, in armor.
const maxFile = 2 * signet.MaxSize

// readFile reads a whole file, "-" for standard input. Its error names the file: wrong use.
func readFile(std stdio, name string) ([]byte, error) { return readUpTo(std, name, maxFile) }

// readUpTo is readFile for files of another bound.
func readUpTo(std stdio, name string, most int64) ([]byte, error) {
	in := std.in
	if name != "-" {
		f, err := os.Open(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, usagef("%s: no such file: give the path of one", name)
		case err != nil:
			return nil, usagef("%w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, most+1))
	switch {
	case err != nil:
		return nil, usagef("%s: %w", name, err)
	case int64(len(b)) > most:
		return nil, usagef("%s: more than %d octets: no file for this command", name, most)
	}
	return b, nil
}

// readSignet reads a signet file in any form. The error of one that is wrong names it and says what to do.
func readSignet(std stdio, name string) (*signet.Signet, error) {
	b, err := readFile(std, name)
	if err != nil {
		return nil, err
	}
	s, err := signet.Decode(b)
	if err != nil {
		if f, kerr := key.ParseFile(b); kerr == nil {
			f.Pair.Destroy()
			return nil, fmt.Errorf("%s: no signet but private keys: give the signet that was made of them", name)
		}
		return nil, fmt.Errorf("%s: no signet: %w%s", name, err, advice(err))
	}
	return s, nil
}

// helperSignet is readSignet for a signet that is needed to look at another: a wrong one is wrong use.
func helperSignet(std stdio, flag, name string, want signet.Kind) (*signet.Signet, error) {
	s, err := readSignet(std, name)
	switch {
	case err != nil:
		return nil, usageError{fmt.Errorf("--%s %w", flag, err)}
	case s.Kind() != want:
		return nil, usagef("--%s %s: this is a %s: give the %s", flag, name, s.Kind(), want)
	}
	return s, nil
}

// advice says what to do about a file that is wrong in this way.
func advice(err error) string {
	class, _ := errors.AsType[key.Class](err)
	switch class {
	case key.ErrShort, key.ErrLength, key.ErrTruncated, key.ErrCRC:
		return ": the file is cut or changed: get it again from where it came"
	case key.ErrArmor:
		return ": give a whole file, from BEGIN to END, or the binary form"
	case key.ErrType:
		return ": see what it is, with gateway signet show or gateway message open"
	case key.ErrIncomplete:
		return ": it was never signed to the end, or fields were taken out"
	case key.ErrKeyFormat, key.ErrKeyValue:
		return ": its keys cannot be used: have it made again"
	case key.ErrTrailing, key.ErrOrder, key.ErrDuplicate, key.ErrUnknown:
		return ": it was put together by hand or damaged: get it again from its owner"
	}
	return ""
}

// readSigning reads a signing key: of a key file, or alone in the armor of the reference's record generator.
func readSigning(std stdio, name string) (key.Signing, error) {
	b, err := readFile(std, name)
	if err != nil {
		return key.Signing{}, err
	}
	defer clear(b)
	if k, err := key.ParseSigning(b); err == nil {
		return k, nil
	}
	f, err := key.ParseFile(b)
	if err != nil {
		return key.Signing{}, usageError{fmt.Errorf("%s: no signing key: %w: give an ORGANIZATIONAL KEY or ED25519 PRIVATE KEY file", name, err)}
	}
	f.Pair.Encryption.Destroy()
	return f.Pair.Signing, nil
}

// readPOKs takes primary keys from what an operator has at hand: the key itself in base64 or hexadecimal, a management record,
// or a private key file.
func readPOKs(std stdio, what string) ([]key.SigningPublic, error) {
	if b, err := base64.RawStdEncoding.Strict().DecodeString(what); err == nil && len(b) == key.SigningSize {
		return parsePOK(b)
	}
	if b, err := hex.DecodeString(what); err == nil && len(b) == key.SigningSize {
		return parsePOK(b)
	}
	b, err := readFile(std, what)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	if k, err := key.ParseSigning(b); err == nil {
		defer k.Destroy()
		return []key.SigningPublic{k.Public()}, nil
	}
	if f, err := key.ParseFile(b); err == nil {
		defer f.Pair.Destroy()
		return []key.SigningPublic{f.Pair.Signing.Public()}, nil
	}
	r, err := record.Parse(unquote(string(b)))
	if err != nil {
		return nil, usagef("%s: neither a key file nor a management record: give one of them, or the key in base64", what)
	}
	return r.POKs, nil
}

func parsePOK(b []byte) ([]key.SigningPublic, error) {
	p, err := key.ParseSigningPublic(b)
	if err != nil {
		return nil, usagef("--pok: %w", err)
	}
	return []key.SigningPublic{p}, nil
}
