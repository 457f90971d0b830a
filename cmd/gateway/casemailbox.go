package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"dimegate/vault/discovery"
	"dimegate/vault/discovery/access"
	"dimegate/vault/discovery/station"
	"dimegate/vault/imapserver"
)

var stationCredentialCommand = command{
	name: "credential", summary: "make a user and a password for one session of one person in the mailbox; shown once",
	usage:   "--person NAME [--valid TIME] [--json] FOLDER",
	example: `gateway case station credential --person "Rita Reader" --valid 8h case-2026-7`,
	run:     runStationCredential,
}

var stationMailboxCommand = command{
	name: "mailbox", summary: "show the case to mail clients: IMAP over TLS, read-only, until it is stopped or the case ends",
	usage:   "[--listen HOST:PORT] [--certificate FILE --key FILE] [--idle TIME] [--passphrase-file FILE] [--json] FOLDER",
	example: "gateway case station mailbox --listen 127.0.0.1:1993 case-2026-7",
	run:     runStationMailbox,
}

func runStationCredential(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	person := fs.String("person", "", "who it is for: a `NAME` that the access record shows")
	valid := fs.Duration("valid", 8*time.Hour, "how long it can be used, and its session lasts; 168h at most")
	asJSON := fs.Bool("json", false, "print JSON")
	folder, err := oneOperand(fs, args)
	if err != nil {
		return err
	}
	if *valid > imapserver.MaxCredentialValid {
		return usagef("case station credential: --valid: %v at most", imapserver.MaxCredentialValid)
	}
	s, err := openStation(folder)
	if err != nil {
		return err
	}
	now := time.Now()
	switch {
	case s.Closed():
		return refusedError{station.ErrClosed}
	case s.Selection() == nil:
		return refusedError{station.ErrNotSigned}
	case !now.Before(s.Selection().Manifest.Expires):
		return refusedError{station.ErrExpired}
	}
	c, err := imapserver.OpenCredentials(s.Credentials())
	if err != nil {
		return err
	}
	m := s.Selection().Manifest
	expires := now.Add(*valid)
	if expires.After(m.Expires) {
		expires = m.Expires
	}
	user, password, err := c.Make(*person, m.Digest(), now, expires)
	if err != nil {
		return usageError{err}
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(struct {
			User     string    `json:"user"`
			Password string    `json:"password"`
			Expires  time.Time `json:"expires"`
		}{user, password, expires.UTC().Truncate(time.Second)})
	}
	_, err = fmt.Fprintf(std.out, "user      %s\npassword  %s\nuntil     %s, for one session; it is shown this once\n", user, password, expires.UTC().Format(time.RFC3339))
	return err
}

// A liveCase shows an opened case to the mailbox as the station's other commands leave it: marks that were given meanwhile withhold, and
// when the case was closed nothing is there.
type liveCase struct {
	*station.Case
	station *station.Station
}

func (c liveCase) Items() []discovery.Item {
	if c.station.Closed() || c.Refresh() != nil {
		return nil
	}
	return c.Case.Items()
}

func (c liveCase) Open(ctx context.Context, number int) (io.ReadCloser, error) {
	if c.station.Closed() {
		return nil, station.ErrClosed
	}
	return c.Case.Open(ctx, number)
}

func runStationMailbox(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	listen := fs.String("listen", "127.0.0.1:1993", "`HOST:PORT` to listen on")
	certificate := fs.String("certificate", "", "certificate `FILE`, PEM; one is made for this run when not given")
	key := fs.String("key", "", "its key `FILE`, PEM, mode 0600")
	idle := fs.Duration("idle", 30*time.Minute, "end a session that says nothing for so `LONG`")
	f := newStationFlags(fs)
	folder, err := oneOperand(fs, args)
	if err != nil {
		return err
	} else if (*certificate == "") != (*key == "") {
		return usagef("case station mailbox: --certificate and --key belong together")
	}
	s, k, err := f.unlocked(std, folder)
	if err != nil {
		return err
	}
	defer k.Destroy()
	c, err := s.Case(k, time.Now())
	if err != nil {
		return stationPolicy(err)
	}
	defer c.Close()
	m := &imapserver.Mailbox{Case: s.Selection().Manifest.Digest(), Expires: c.Expires(), Items: liveCase{c, s}, Idle: *idle,
		Log: slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	if m.Certificate, err = mailboxCertificate(*listen, *certificate, *key, c.Expires()); err != nil {
		return err
	}
	if m.Credentials, err = imapserver.OpenCredentials(s.Credentials()); err != nil {
		return err
	}
	record, err := access.Open(s.AccessRecord(), m.Case)
	if err != nil {
		return err
	}
	defer record.Close()
	m.Record = record
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		return usageError{fmt.Errorf("case station mailbox: --listen: %w", err)}
	}
	if err := f.saidListening(std, ln.Addr().String(), m); err != nil {
		ln.Close()
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go endWhenClosed(ctx, s, cancel)
	if err := m.Serve(ctx, ln); errors.Is(err, imapserver.ErrExpired) {
		return refusedError{station.ErrExpired}
	} else if err != nil {
		return err
	}
	return nil
}

// endWhenClosed ends the mailbox when another command closes the case.
func endWhenClosed(ctx context.Context, s *station.Station, end func()) {
	for !s.Closed() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	end()
}

func mailboxCertificate(listen, certificate, key string, expires time.Time) (tls.Certificate, error) {
	if certificate != "" {
		c, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			err = usageError{fmt.Errorf("case station mailbox: %w", err)}
		}
		return c, err
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return tls.Certificate{}, usagef("case station mailbox: --listen: %w", err)
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if host != "" {
		hosts = append(hosts, host)
	}
	return imapserver.NewCertificate(hosts, time.Now(), expires)
}

func (f stationFlags) saidListening(std stdio, address string, m *imapserver.Mailbox) error {
	items := 0
	for _, i := range m.Items.Items() {
		if !i.Withheld() {
			items++
		}
	}
	print := imapserver.Fingerprint(m.Certificate)
	if *f.json {
		return json.NewEncoder(std.out).Encode(struct {
			Listen      string    `json:"listen"`
			Fingerprint string    `json:"certificate_sha256"`
			Items       int       `json:"items"`
			Expires     time.Time `json:"expires"`
		}{address, strings.ReplaceAll(print, ":", ""), items, m.Expires})
	}
	_, err := fmt.Fprintf(std.out, "IMAP over TLS on %s, %d items, until %s\ncertificate, SHA-256: %s\n", address, items, m.Expires.UTC().Format(time.RFC3339), print)
	return err
}
