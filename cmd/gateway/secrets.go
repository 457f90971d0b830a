package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"golang.org/x/term"

	"dimegate/internal/safefile"
	"dimegate/vault/escrow/officer"
)

// minPassphrase is the least length of a passphrase, in octets.
const minPassphrase = 12

// terminal is standard input when a person sits at it.
func terminal(std stdio) (*os.File, bool) {
	f, ok := std.in.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// passphrase reads a passphrase from a file, or from the terminal without showing it; twice when it is a new one. It is never in
// an argument or in the environment.
func passphrase(std stdio, file string, fresh bool) (string, error) {
	if file != "" {
		b, err := safefile.ReadSecret(file, 4096)
		if err != nil {
			return "", usageError{err}
		}
		defer clear(b)
		return checkPassphrase(string(bytes.TrimRight(b, "\r\n")), fresh)
	}
	in, ok := terminal(std)
	if !ok {
		return "", usagef("a passphrase is needed: run this on a terminal, or give --passphrase-file")
	}
	first, err := ask(std, in, "Passphrase: ")
	if err != nil || !fresh {
		return first, err
	}
	if first, err = checkPassphrase(first, true); err != nil {
		return "", err
	}
	again, err := ask(std, in, "The same again: ")
	if err == nil && again != first {
		err = usagef("the two passphrases differ")
	}
	return first, err
}

func ask(std stdio, in *os.File, prompt string) (string, error) {
	fmt.Fprint(std.err, prompt)
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(std.err)
	defer clear(b)
	return string(b), err
}

func checkPassphrase(s string, fresh bool) (string, error) {
	if s == "" {
		return "", usagef("the passphrase is empty")
	}
	if fresh && len(s) < minPassphrase {
		return "", usagef("a passphrase has at least %d characters: five words by chance are easy to keep in mind", minPassphrase)
	}
	return s, nil
}

// newLock is what will protect an officer's keys: a passphrase, or the token of an age identity file.
func newLock(std stdio, passphraseFile, token, recipient string) (officer.Lock, error) {
	if token == "" {
		p, err := passphrase(std, passphraseFile, true)
		if err != nil {
			return officer.Lock{}, err
		}
		to, err := age.NewScryptRecipient(p)
		return officer.Lock{To: to}, err
	}
	b, err := readFile(std, token)
	if err != nil {
		return officer.Lock{}, err
	}
	identity, noted := parseToken(string(b))
	if recipient == "" {
		recipient = noted
	}
	if identity == "" || recipient == "" {
		return officer.Lock{}, usagef("%s: no age plugin identity with its recipient: give --recipient, if it is not in the file", token)
	}
	to, err := plugin.NewRecipient(recipient, pluginUI(std))
	if err != nil {
		return officer.Lock{}, usagef("%s: the recipient is no plugin's", token)
	}
	return officer.Lock{To: to, Token: identity, TokenRecipient: recipient}, nil
}

// parseToken finds the identity in a plugin's identity file, and the recipient in its comments.
func parseToken(text string) (identity, recipient string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "AGE-PLUGIN-") {
			identity = line
		}
		if at := strings.Index(line, "age1"); at >= 0 && strings.HasPrefix(line, "#") {
			recipient = line[at:]
		}
	}
	return identity, recipient
}

func pluginUI(std stdio) *plugin.ClientUI {
	printf := func(format string, v ...any) { fmt.Fprintf(std.err, format+"\n", v...) }
	return plugin.NewTerminalUI(printf, printf)
}

// unlock opens an officer's keys with what protects them.
func unlock(std stdio, d *officer.Desk, passphraseFile string) (*officer.Keys, error) {
	id, err := unlockWith(std, d.Token(), passphraseFile)
	if err != nil {
		return nil, err
	}
	return d.Unlock(id)
}

// unlockWith is what opens a folder's keys: its token, or the passphrase when there is none.
func unlockWith(std stdio, token, passphraseFile string) (age.Identity, error) {
	if token != "" {
		id, err := plugin.NewIdentity(token, pluginUI(std))
		if err != nil {
			return nil, errors.New("the token's identity cannot be read")
		}
		return id, nil
	}
	p, err := passphrase(std, passphraseFile, false)
	if err != nil {
		return nil, err
	}
	return age.NewScryptIdentity(p)
}

// confirm asks the person before anything is signed. What he agrees to has been shown.
func confirm(std stdio, yes bool, question string) error {
	if yes {
		return nil
	}
	if _, ok := terminal(std); !ok {
		return usagef("nothing is signed without a yes: run this on a terminal, or give --yes")
	}
	fmt.Fprintf(std.err, "%s Type yes: ", question)
	line, err := bufio.NewReader(std.in).ReadString('\n')
	if err != nil {
		return err
	}
	if strings.TrimSpace(line) != "yes" {
		return refusedError{errors.New("not confirmed: nothing was signed")}
	}
	return nil
}

// printable shows others' text: what moves the cursor or turns the line is written as its number.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04X", r)
		}
	}
	return b.String()
}
