package testpeer

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// An OpenSMTPDConfig says what the OpenSMTPD is for: a server that hands its domain's mail on by LMTP.
type OpenSMTPDConfig struct {
	Name     string // of its folder and log
	Listen   string // host:port
	Hostname string
	LMTP     string   // host:port
	Users    []string // addresses that exist
	Before   string   // lines before ours
	After    string   // lines behind the rule that delivers
}

// An OpenSMTPD is the running instance. Its folder is built in (/var/spool/smtpd), so there is one at a time on a machine.
type OpenSMTPD struct {
	*Process
	Addr string // host:port of its SMTP
}

// openSpool is OpenSMTPD's queue. Nothing of what it holds is ours to keep: the program was unpacked for tests.
const openSpool = "/var/spool/smtpd"

// OpenSMTPD starts it and waits until it answers. It waits for another bench that has it.
func (b *Bench) OpenSMTPD(ctx context.Context, c OpenSMTPDConfig) (*OpenSMTPD, error) {
	path, err := program("opensmtpd")
	if err != nil {
		return nil, err
	}
	if err := b.takeSpool(ctx); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, err
	}
	dir, err := b.folder("", c.Name)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "smtpd.conf")
	text := fmt.Sprintf(`listen on %s port %s hostname %s no-dsn
%s
action "in" relay host "lmtp://%s"
match from any for rcpt-to { "%s" } action "in"
%s
`, host, port, c.Hostname, c.Before, c.LMTP, strings.Join(c.Users, `", "`), c.After)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	p, err := b.Start(c.Name, path, "-d", "-f", conf)
	if err != nil {
		return nil, err
	}
	return &OpenSMTPD{p, c.Listen}, p.Up(ctx, c.Listen)
}

// takeSpool makes the queue this bench's until it closes, empty.
func (b *Bench) takeSpool(ctx context.Context) error {
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "dimegate-opensmtpd.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	b.onClose(lock.Close)
	if err := Until(ctx, func() bool { return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil }); err != nil {
		return fmt.Errorf("another OpenSMTPD runs: %w", err)
	}
	if err := os.RemoveAll(openSpool); err != nil {
		return err
	}
	return os.Mkdir(openSpool, 0o711)
}
