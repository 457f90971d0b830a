package demo

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"dimegate/dmtp/key"
	"dimegate/dmtp/message"
)

// The rows of the table: what there is to know about a message.
const (
	rowAuthor = iota
	rowOrigin
	rowDestination
	rowRecipient
	rowContent
	rowCount
)

var rowNames = [rowCount]string{"author", "origin", "destination", "recipient", "headers, body"}

// A view is what one party could read, row by row.
type view [rowCount]bool

// promised is what DIME promises, a column an actor: each knows only its neighbours.
var promised = map[message.Actor]view{
	message.Author:      {true, true, true, true, true},
	message.Origin:      {true, true, true, false, false},
	message.Destination: {false, true, true, true, false},
	message.Recipient:   {true, true, true, true, true},
}

// facts are the texts that give a row away when they are read.
type facts [rowCount]string

// read opens every chunk that the actor can open with his own keys, checks everything that he must check, and looks
// for the facts in it. What he is himself he knows. Layer is the suite under which he found the content, if he did.
func read(sealed []byte, a message.Actor, k key.Encryption, inner []message.LayerKey, p message.Parties, f facts) (v view, layer message.SuiteID, err error) {
	m, err := message.Parse(sealed, message.Limits{})
	if err != nil {
		return v, 0, err
	}
	opened, err := m.Open(a, k)
	if err != nil {
		return v, 0, err
	}
	if err := opened.Verify(p); err != nil {
		return v, 0, err
	}
	opened.UseLayer(inner...)
	chunks, err := opened.Chunks()
	if err != nil {
		return v, 0, err
	}
	for _, c := range chunks {
		for row, text := range f {
			v[row] = v[row] || bytes.Contains(c.Data, []byte(text))
		}
	}
	v[int(a)] = true
	return v, opened.Layer(), nil
}

// seen looks for the facts in what passed an eavesdropper.
func seen(octets []byte, f facts) view {
	var v view
	for row, text := range f {
		v[row] = count(octets, text) > 0
	}
	return v
}

// count counts a text as it stands and as it would stand inside base64, at each of its three offsets.
func count(octets []byte, text string) int {
	n := bytes.Count(octets, []byte(text))
	for pad := range 3 {
		b := base64.StdEncoding.EncodeToString(append(make([]byte, pad), text...))
		from, to := (pad*8+5)/6, (pad+len(text))*8/6
		n += bytes.Count(octets, []byte(b[from:to]))
	}
	return n
}

// rest counts a text in every file under the folders, and the files.
func rest(text string, folders ...string) (hits, files int, err error) {
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			hits += count(b, text)
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	return hits, files, nil
}

// columns is the order of the table.
var columns = []message.Actor{message.Author, message.Origin, message.Destination, message.Recipient}

// printTable writes who could read what, the wire last.
func printTable(w io.Writer, views map[message.Actor]view, wire view) {
	fmt.Fprintf(w, "%15s", "")
	for _, a := range columns {
		fmt.Fprintf(w, "%13s", a)
	}
	fmt.Fprintf(w, "%13s\n", "on the wire")
	for row, name := range rowNames {
		fmt.Fprintf(w, "%-15s", name)
		for _, a := range columns {
			fmt.Fprintf(w, "%s%s", strings.Repeat(" ", 12), mark(views[a][row]))
		}
		fmt.Fprintf(w, "%s%s\n", strings.Repeat(" ", 12), mark(wire[row]))
	}
}

func mark(yes bool) string {
	if yes {
		return "●"
	}
	return "·"
}
