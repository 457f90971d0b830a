package testpeer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// PostfixConfig says what one Postfix is for. It is the stock configuration but for what stands here.
type PostfixConfig struct {
	Name      string   // of its folder and log, such as "postfix-alpha"
	Listen    string   // host:port
	Hostname  string   // mx.alpha.test
	Domain    string   // alpha.test: mail for it is accepted from anyone
	Domains   []string // further such domains
	Relayhost string   // next hop of all mail without a transport, such as [127.0.0.1]:25; empty refuses it by MX look-up
	Transport []string // "domain transport:nexthop"
	Users     string   // regular expression of the addresses that exist in its domains; empty: all
	Main      []string // further lines of main.cf, "key = value"
	Master    []string // further entries of master.cf
}

// A Postfix is one running instance.
type Postfix struct {
	*Process
	Addr string // host:port of its smtpd
	dir  string
}

// master is Debian's master.cf without chroot and without what only other software needs.
const master = `
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp      unix  - - n -     - smtp
relay     unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
lmtp      unix  - - n -     - lmtp
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
`

// Postfix starts an instance and waits until it answers.
func (b *Bench) Postfix(ctx context.Context, c PostfixConfig) (*Postfix, error) {
	p := &Postfix{Addr: c.Listen, dir: filepath.Join(b.Dir, c.Name)}
	if err := b.writePostfix(p.dir, c); err != nil {
		return nil, err
	}
	b.Log(p.LogFile())
	// check makes the queue; then master itself in our foreground, so that it can be stopped and cannot outlive us.
	etc := filepath.Join(p.dir, "etc")
	if err := run(ctx, "postfix", "-c", etc, "check"); err != nil {
		return nil, err
	}
	daemons, err := output(ctx, "postconf", "-c", etc, "-h", "daemon_directory")
	if err != nil {
		return nil, err
	}
	p.Process, err = b.Start(c.Name, filepath.Join(daemons, "master"), "-d", "-c", etc)
	if err != nil {
		return nil, err
	}
	return p, p.Up(ctx, c.Listen)
}

func (b *Bench) writePostfix(dir string, c PostfixConfig) error {
	for _, f := range []struct{ owner, name string }{{"", "etc"}, {"", "queue"}, {"", "log"}, {"postfix", "data"}} {
		if _, err := b.folder(f.owner, c.Name, f.name); err != nil {
			return err
		}
	}
	main := []string{
		"compatibility_level = 3.6",
		"queue_directory = " + dir + "/queue",
		"data_directory = " + dir + "/data",
		"maillog_file = " + dir + "/log/mail",
		"maillog_file_prefixes = " + dir,
		"myhostname = " + c.Hostname,
		"mydomain = " + c.Domain,
		"myorigin = " + c.Domain,
		"mydestination =", "alias_maps =", "alias_database =", "local_recipient_maps =",
		"inet_interfaces = loopback-only", "inet_protocols = ipv4", // it knows no other address of the loopback interface
		"local_header_rewrite_clients =", // our clients share 127.0.0.1 with it and are not local for that
		"mynetworks = 127.0.0.0/8",
		"smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination",
		"relay_domains = " + strings.Join(append([]string{c.Domain}, c.Domains...), ", "),
		"relayhost = " + c.Relayhost,
		"smtp_host_lookup = native, dns",
		"message_size_limit = 115343360", "mailbox_size_limit = 0",
		"minimal_backoff_time = 1s", "maximal_backoff_time = 2s", "queue_run_delay = 1s", // a test does not wait for minutes
	}
	if len(c.Transport) > 0 {
		maps := "transport_maps = inline:{"
		for _, t := range c.Transport {
			domain, hop, _ := strings.Cut(t, " ")
			maps += " { " + domain + " = " + hop + " }"
		}
		main = append(main, maps+" }")
	}
	if c.Users != "" {
		main = append(main, "relay_recipient_maps = regexp:{ { /"+c.Users+"/ OK } }")
	}
	main = append(main, c.Main...)
	if err := writeLines(dir+"/etc/main.cf", main); err != nil {
		return err
	}
	return writeLines(dir+"/etc/master.cf", append([]string{master, c.Listen + " inet n - n - - smtpd"}, c.Master...))
}

// LogFile is where it logs.
func (p *Postfix) LogFile() string { return filepath.Join(p.dir, "log", "mail") }

// Queue is the queue as postqueue -j prints it, a JSON object a line; empty when all has been delivered.
func (p *Postfix) Queue(ctx context.Context) (string, error) {
	return output(ctx, "postqueue", "-c", p.dir+"/etc", "-j")
}

// Flush makes it try its deferred mail now.
func (p *Postfix) Flush(ctx context.Context) error {
	return run(ctx, "postqueue", "-c", p.dir+"/etc", "-f")
}

func writeLines(file string, lines []string) error {
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// lookup finds a user's numbers.
func lookup(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(err1, err2)
}

func run(ctx context.Context, argv ...string) error {
	_, err := output(ctx, argv...)
	return err
}

// output runs a command to its end. What it said on stderr becomes part of the error.
func output(ctx context.Context, argv ...string) (string, error) {
	path, err := program(argv[0])
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, path, argv[1:]...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
