package testpeer

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// A Dovecot is one running mail store: LMTP in, IMAP out. Any user exists and has the password "pw", unless it was
// given a list of users.
type Dovecot struct {
	*Process
	LMTP string // host:port
	IMAP string // host:port
	dir  string
}

// Dovecot starts a mail store on a host's ports 24 and 143 and waits until both answer. Its name stands in its trace
// fields. With users, only these exist.
func (b *Bench) Dovecot(ctx context.Context, name, host string, users ...string) (*Dovecot, error) {
	d := &Dovecot{LMTP: net.JoinHostPort(host, "24"), IMAP: net.JoinHostPort(host, "143"), dir: filepath.Join(b.Dir, name)}
	if _, err := b.folder("nobody", name, "mail"); err != nil {
		return nil, err
	}
	passdb, userdb := "driver = static\n  args = password=pw", "driver = static\n  args = uid=nobody gid=nogroup home=%[1]s/mail/%%u allow_all_users=yes"
	if len(users) > 0 {
		var lines []string
		for _, u := range users {
			lines = append(lines, u+":{PLAIN}pw::::::")
		}
		if err := writeLines(d.dir+"/users", lines); err != nil {
			return nil, err
		}
		passdb = "driver = passwd-file\n  args = %[1]s/users"
		userdb = "driver = passwd-file\n  args = %[1]s/users\n  override_fields = uid=nobody gid=nogroup home=%[1]s/mail/%%u"
	}
	text := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = imap lmtp
hostname = %[3]s
listen = %[2]s
login_trusted_networks = 127.0.0.0/8
ssl = no
disable_plaintext_auth = no
mail_location = maildir:%[1]s/mail/%%u
first_valid_uid = 1
mail_max_userip_connections = 100
passdb {
  `+passdb+`
}
userdb {
  `+userdb+`
}
service imap-login {
  inet_listener imap {
    port = 143
  }
  inet_listener imaps {
    port = 0
  }
}
service lmtp {
  inet_listener lmtp {
    address = %[2]s
    port = 24
  }
}
`, d.dir, host, name)
	conf := d.dir + "/dovecot.conf"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	b.Log(d.dir + "/log")
	var err error
	if d.Process, err = b.Start(name, "dovecot", "-F", "-c", conf); err != nil {
		return nil, err
	}
	return d, d.Up(ctx, d.LMTP, d.IMAP)
}

// Count says how many messages lie in a user's inbox, from the files: cheap enough to wait on.
func (d *Dovecot) Count(user string) int {
	n := 0
	for _, sub := range []string{"new", "cur"} {
		list, _ := os.ReadDir(filepath.Join(d.dir, "mail", strings.ToLower(user), sub)) // not there: no mail yet
		n += len(list)
	}
	return n
}

// Wait waits until a user's inbox holds at least n messages.
func (d *Dovecot) Wait(ctx context.Context, user string, n int) error {
	if err := Until(ctx, func() bool { return d.Count(user) >= n }); err != nil {
		return fmt.Errorf("%s has %d of %d messages: %w", user, d.Count(user), n, err)
	}
	return nil
}

// Inbox fetches every message of a user's inbox by IMAP, the oldest first, with the octets that IMAP gives.
func (d *Dovecot) Inbox(ctx context.Context, user string) ([][]byte, error) {
	return FetchInbox(ctx, d.IMAP, user, "pw")
}
