package testpeer

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"
)

// A Notice is a delivery status notification about one recipient, as Python's email package reads it. Names of fields are
// in lower case.
type Notice struct {
	Defects       []string             `json:"defects"` // what the reader does not like: nothing, in a good one
	ReturnPath    string               `json:"return_path"`
	From          string               `json:"from"`
	To            string               `json:"to"`
	Date          time.Time            `json:"date"`
	MessageID     string               `json:"message_id"`
	AutoSubmitted string               `json:"auto_submitted"`
	ReportType    string               `json:"report_type"`
	Types         []string             `json:"types"`     // of the three parts
	Encodings     []string             `json:"encodings"` // likewise
	Encoding      string               `json:"encoding"`  // of the whole
	ASCII         bool                 `json:"ascii"`     // no octet over 127
	Text          string               `json:"text"`
	Message       map[string]string    `json:"message"`   // fields of the message
	Recipient     map[string]string    `json:"recipient"` // fields of the recipient
	Dates         map[string]time.Time `json:"dates"`     // those of both that are dates
	Returned      []byte               `json:"returned"`  // the third part, decoded; line ends are LF
}

//go:embed notice.py
var noticeReader string

// ReadNotice reads a notice with python3. An error says what it is not.
func ReadNotice(ctx context.Context, octets []byte) (*Notice, error) {
	path, err := program("python3")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, "-I", "-c", noticeReader)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(octets), &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("the notice's reader: %w: %s", err, said.String())
	}
	n := new(Notice)
	return n, json.Unmarshal(out, n)
}
