package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"dimegate/appliance/config"
	"dimegate/appliance/keystore"
	"dimegate/internal/testescrow"
	"dimegate/trustful"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

// A stealReport is what a thief makes of a running host: its disk, its seals, its memory.
type stealReport struct {
	Archived int   `json:"archived"` // messages in the archive, delivered long ago
	Waiting  int   `json:"waiting"`  // messages that wait in the queue
	Disk     int64 `json:"disk_octets"`
	Memory   int64 `json:"memory_octets"` // 0 without --memory

	OpenedArchived   int         `json:"opened_archived"`   // by whatever wrap or key is in disk or memory
	SubjectsReadable int         `json:"subjects_readable"` // of archived messages, anywhere
	Metadata         metadataHad `json:"metadata_readable"`
	Living           livingHad   `json:"living_keys_open"`

	ControlOpened int `json:"control_opened"` // by the same thief, once a quorum of officers is with him
	ControlKeys   int `json:"control_keys"`   // of that, whose keys the search then looked for
	ControlMemory int `json:"control_memory"` // places of memory with a key that must be there: the search works

	OK  bool     `json:"ok"`
	Why []string `json:"why,omitempty"`
}

// metadataHad is what the thief reads of the archive without a record's key.
type metadataHad struct {
	Records    int `json:"records"`    // ids, times, sizes, classes
	Custodians int `json:"custodians"` // whose addresses the host seal opens
	Guessed    int `json:"guessed"`    // messages found by an address that he guesses right
}

// livingHad is what the host's own keys open, and must for it to work.
type livingHad struct {
	Waiting  int `json:"waiting_messages"`
	UserKeys int `json:"user_encryption_keys"` // with which mail opens that is yet to come, or was recorded on the wire in their time
	Domains  int `json:"domain_keys"`
}

var stealCommand = command{
	"steal", "--disk [--memory] [--records N] [--waiting N] [--json]",
	"fill an archive, run a gateway on it with mail that waits, copy its disk, its seals and its memory (as root), and see what a thief\n" +
		"opens with all of it; then give him a quorum",
	runSteal,
}

func runSteal(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("lab steal", flag.ContinueOnError)
	r := &stealReport{}
	fs.IntVar(&r.Archived, "records", 500, "archived messages")
	fs.IntVar(&r.Waiting, "waiting", 20, "messages that wait")
	disk := fs.Bool("disk", false, "copy the disk and the seals")
	memory := fs.Bool("memory", false, "and the memory of the process")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 || !*disk || r.Archived < 1 || r.Waiting < 1 {
		return errUsage
	}
	dir, err := os.MkdirTemp("", "lab-steal-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l := &stealLab{dir: dir, memory: *memory, report: r, subjects: map[vault.ID]string{}}
	binary, err := Build(ctx, dir)
	if err != nil {
		return err
	}
	if err := l.run(ctx, binary); err != nil {
		return err
	}
	return tell(out, *asJSON, "steal", r, r.OK, r.Why)
}

func (r *stealReport) print(w io.Writer) {
	fmt.Fprintf(w, "%d archived messages, %d that wait; stolen: %d octets of disk, %d of memory\n", r.Archived, r.Waiting, r.Disk, r.Memory)
	fmt.Fprintf(w, "opened of the archive %d, subjects of it readable %d\n", r.OpenedArchived, r.SubjectsReadable)
	fmt.Fprintf(w, "readable: %d records' ids, times and sizes, %d custodians' addresses, %d messages by a guessed address\n", r.Metadata.Records, r.Metadata.Custodians, r.Metadata.Guessed)
	fmt.Fprintf(w, "living keys: %d waiting messages, %d users' and %d domains' keys\n", r.Living.Waiting, r.Living.UserKeys, r.Living.Domains)
	fmt.Fprintf(w, "control: with a quorum %d opened; a key that must be in memory found %d times\n", r.ControlOpened, r.ControlMemory)
}

func (l *stealLab) judge() {
	r := l.report
	for _, c := range []struct {
		ok  bool
		why string
	}{
		{r.OpenedArchived == 0, "an archived message was opened"},
		{r.SubjectsReadable == 0, "a subject of an archived message was read"},
		{r.ControlOpened == r.Archived && r.ControlKeys == r.Archived, "with a quorum not all opens: the attack proves nothing"},
		{r.Living.Waiting == r.Waiting && r.Living.UserKeys == 2 && r.Living.Domains == 1, "the thief cannot open what the host's keys open: the attack proves nothing"},
		{r.Metadata.Records == r.Archived && r.Metadata.Guessed == r.Archived, "the thief does not see what there is to see"},
		{!l.memory || r.ControlMemory > 0, "the search of the memory does not find what is there"},
	} {
		if !c.ok {
			r.Why = append(r.Why, c.why)
		}
	}
	r.OK = len(r.Why) == 0
}

// A stealLab is one run.
type stealLab struct {
	dir      string
	memory   bool
	report   *stealReport
	config   *config.Config
	officers *testescrow.Officers
	now      time.Time
	subjects map[vault.ID]string // of archived records
	stolen   string              // folder of the disk's copy
	dump     string              // file of the memory's
}

const (
	stealDomain  = "corp.test"
	stealAlice   = "alice@corp.test"
	stealBob     = "bob@corp.test"
	stealPartner = "eve@partner.test"
	stealClass   = 3
)

func (l *stealLab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *stealLab) run(ctx context.Context, binary string) error {
	for _, step := range []func(context.Context, string) error{l.install, l.fill, l.rob} {
		if err := step(ctx, binary); err != nil {
			return err
		}
	}
	if err := l.attack(ctx); err != nil {
		return err
	}
	l.judge()
	return nil
}

// install makes an installation, with a configuration that reaches nobody.
func (l *stealLab) install(ctx context.Context, binary string) error {
	var free [3]string
	for i := range free {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		free[i] = ln.Addr().String()
		defer ln.Close()
	}
	text := fmt.Sprintf(`data_folder = "data"
[[organization]]
domains = [%q]
[submission]
listen = [%q]
[dmtp]
listen = [%q]
[handoff]
address = "127.0.0.1:1"
call_ahead = false
[dns]
resolvers = ["127.0.0.1:1"]
[queue]
min_free_octets = 1048576
[health]
listen = %q
`, stealDomain, free[0], free[1], free[2])
	path := l.path("gateway.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, binary, "init", "--config", path).CombinedOutput(); err != nil {
		return fmt.Errorf("gateway init: %w\n%s", err, out)
	}
	var err error
	l.config, err = config.Load(path)
	return err
}

// fill archives messages as a gateway of earlier days did, in this process, which is not robbed.
func (l *stealLab) fill(ctx context.Context, _ string) error {
	v, err := keystore.Open(ctx, l.config.Vault, true)
	if err != nil {
		return err
	}
	defer v.Close()
	l.now = time.Now().UTC().Truncate(time.Second)
	if l.officers, err = testescrow.NewOfficers(escrow.Discovery, stealDomain, 2, 3, l.now); err != nil {
		return err
	}
	a, err := archive.Open(ctx, v.Vault)
	if err != nil {
		return err
	}
	if err := a.Install(ctx, l.officers.Key, []*escrow.Epoch{l.officers.Epoch}, l.officers.Attestations, l.now); err != nil {
		return err
	}
	k, err := trustful.NewKeeper(trustful.Options{Store: keystore.Keys{Vault: v.Vault}, Organization: keystore.Organization{Vault: v.Vault}, Grace: trustful.MinGrace})
	if err != nil {
		return err
	}
	for _, address := range []string{stealAlice, stealBob} {
		if _, err := k.Enrol(ctx, address); err != nil {
			return err
		}
	}
	for i := range l.report.Archived {
		if err := l.archiveOne(ctx, v.Vault, a, fmt.Sprintf("dossier %d of project %v", i, vault.RandomID())); err != nil {
			return err
		}
	}
	return v.Scrub(ctx)
}

// archiveOne takes a message in, and delivers it.
func (l *stealLab) archiveOne(ctx context.Context, v *vault.Vault, a *archive.Archive, subject string) error {
	keep, err := a.Keeping(ctx, archive.Message{Author: stealAlice, Recipients: []string{stealPartner}, Custodians: []string{stealAlice}, Class: stealClass, Retention: 3650 * 24 * time.Hour})
	if err != nil {
		return err
	}
	d, err := v.NewDraft()
	if err != nil {
		return err
	}
	d.Keep(keep)
	if _, err := io.WriteString(d, stealMail(subject)); err != nil {
		return err
	}
	rows, err := v.Accept(ctx, d, []byte("envelope"), []vault.NewRow{{Domain: "partner.test", Lane: "partner.test", Due: l.now, Detail: []byte("{}"), Recipient: []byte(stealPartner), State: 1}}, l.now)
	if err != nil {
		return err
	}
	row, err := v.QueueRow(ctx, rows[0])
	if err != nil {
		return err
	}
	l.subjects[d.ID()] = subject
	return v.ChangeRow(ctx, nil, row, vault.RowChange{Remove: true, Leaves: []vault.RowLeaf{{Type: vault.LeafDelivered}}}, l.now)
}

func stealMail(subject string) string {
	return "From: " + stealAlice + "\r\nTo: " + stealPartner + "\r\nSubject: " + subject + "\r\n\r\nSee the subject.\r\n"
}

// rob runs the gateway, gives it mail that cannot leave, and copies disk and memory of one moment.
func (l *stealLab) rob(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, binary, "run", "--config", l.path("gateway.toml"))
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}()
	if err := l.ready(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
	}
	for i := range l.report.Waiting {
		if err := l.submit(stealMail(fmt.Sprintf("passing %d", i))); err != nil {
			return fmt.Errorf("submission: %w", err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	l.stolen = l.path("stolen")
	if err := os.CopyFS(l.stolen, os.DirFS(l.config.DataFolder)); err != nil {
		return err
	}
	if !l.memory {
		return nil
	}
	l.dump = l.path("memory")
	f, err := os.OpenFile(l.dump, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var werr error
	if l.report.Memory, err = eachRegion(cmd.Process.Pid, func(b []byte) {
		if _, err := f.Write(b); err != nil {
			werr = err
		}
	}); err != nil {
		err = fmt.Errorf("memory of the gateway: %w (as root: it reads another process's memory)", err)
	}
	return errors.Join(err, werr, f.Close())
}

// submit hands one message to the gateway.
func (l *stealLab) submit(mail string) error {
	c, err := smtp.Dial(l.config.Submission.Listen[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if err := errors.Join(c.Mail(stealAlice), c.Rcpt(stealPartner)); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, mail)
	return errors.Join(err, w.Close(), c.Quit())
}

// ready waits until the gateway takes mail.
func (l *stealLab) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		r, err := http.Get("http://" + l.config.Health.Listen + "/readyz")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.New("the gateway is not ready after a minute")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// theirs is what the thief's configuration says of the stolen vault and its seals.
func (l *stealLab) theirs() (config.Vault, error) {
	c := l.config.Vault
	at := func(p *string) {
		if rel, err := filepath.Rel(l.config.DataFolder, *p); err == nil && *p != "" && !strings.HasPrefix(rel, "..") {
			*p = filepath.Join(l.stolen, rel)
		}
	}
	at(&c.Folder)
	at(&c.HostSeal.KeyFile)
	at(&c.SigningSeal.KeyFile)
	return c, filepath.WalkDir(l.stolen, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		st, err := d.Info()
		l.report.Disk += st.Size()
		return errors.Join(err, os.Chmod(path, 0o600))
	})
}
