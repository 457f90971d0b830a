package testpeer

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// An EximConfig says what one Exim is for: a server that offers no TLS and hands its domain's mail on by LMTP.
type EximConfig struct {
	Name     string // of its folder and log
	Listen   string // host:port
	Hostname string
	Domain   string // mail for it is accepted from anyone
	LMTP     string // host:port

	// Further lines of the main section, and of what is read before ours: routers, transports, the ACL for RCPT.
	Main, Routers, Transports, ACL string
	Users                          string // regular expression of the addresses that exist in its domain; empty: all
}

// An Exim is one running instance.
type Exim struct {
	*Process
	Addr string // host:port of its SMTP
}

// Exim starts an instance and waits until it answers.
func (b *Bench) Exim(ctx context.Context, c EximConfig) (*Exim, error) {
	path, err := program("exim4")
	if err != nil {
		return nil, err
	}
	dir, err := b.folder("", c.Name)
	if err != nil {
		return nil, err
	}
	for _, f := range []string{"spool", "log"} {
		if _, err := b.folder("Debian-exim", c.Name, f); err != nil {
			return nil, err
		}
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, err
	}
	lmtp, lmtpPort, err := net.SplitHostPort(c.LMTP)
	if err != nil {
		return nil, err
	}
	users := ""
	if c.Users != "" {
		users = "  condition = ${if match{$local_part@$domain}{" + c.Users + "}}\n"
	}
	conf := fmt.Sprintf(`exim_path = %[1]s
primary_hostname = %[2]s
spool_directory = %[3]s/spool
log_file_path = %[3]s/log/%%slog
pid_file_path = %[3]s/pid
local_interfaces = %[4]s.%[5]s
daemon_smtp_ports = %[5]s
keep_environment =
never_users =
deliver_drop_privilege = true
tls_advertise_hosts =
rfc1413_query_timeout = 0s
host_lookup =
acl_smtp_rcpt = acl_rcpt
acl_smtp_data = acl_data
%[9]s
begin acl
acl_rcpt:
%[10]s
  accept hosts = 127.0.0.0/8
  accept domains = %[6]s
  deny message = relay not permitted
acl_data:
  accept
begin routers
%[11]s
in:
  driver = manualroute
  domains = %[6]s
%[13]s  route_list = * %[7]s byname
  transport = lmtp
  self = send
begin transports
%[12]s
lmtp:
  driver = smtp
  protocol = lmtp
  port = %[8]s
  message_linelength_limit = 1048576
  hosts_try_dane =
  dnssec_request_domains =
begin retry
* * F,1h,1s
`, path, c.Hostname, dir, host, port, c.Domain, lmtp, lmtpPort, c.Main, c.ACL, c.Routers, c.Transports, users)
	file := filepath.Join(dir, "exim.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	b.Log(filepath.Join(dir, "log", "mainlog"))
	b.Log(filepath.Join(dir, "log", "paniclog"))
	p, err := b.Start(c.Name, path, "-C", file, "-bdf", "-q1s")
	if err != nil {
		return nil, err
	}
	return &Exim{p, c.Listen}, p.Up(ctx, c.Listen)
}
