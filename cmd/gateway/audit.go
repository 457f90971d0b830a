package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"dimegate/appliance/config"
	"dimegate/vault"
	"dimegate/vault/audit"
)

var auditCommand = command{
	name:    "audit",
	summary: "check and sign the log of what the gateway did",
	sub: []command{
		{
			name: "verify", summary: "recompute the whole log and compare it with every checkpoint",
			usage:   "[--config FILE] [--checkpoint FILE] [--key TEXT] [--witness KEY ...] [--json]",
			example: "gateway audit verify --checkpoint /media/usb/checkpoint-2026-11-01",
			run:     runAuditVerify,
		},
		{
			name: "checkpoint", summary: "sign the log as it stands and print the note: keep it elsewhere",
			usage:   "[--config FILE] [--json]",
			example: "gateway audit checkpoint > /media/usb/checkpoint-2026-11-01",
			run:     runAuditCheckpoint,
		},
		{
			name: "reconcile", summary: "count every recipient who was ever accepted: delivered, bounced, dropped, held or queued, and none missing",
			usage:   "[--config FILE] [--json]",
			example: "gateway audit reconcile",
			run:     runAuditReconcile,
		},
		auditProveCommand,
	},
}

// An auditReport is what audit verify says.
type auditReport struct {
	OK          bool             `json:"ok"`
	Size        int64            `json:"size"`
	Root        string           `json:"root,omitempty"`
	Checkpoints int              `json:"checkpoints"`
	Signed      int64            `json:"signed"`      // leaves under the last checkpoint that agrees
	Cosigned    int64            `json:"cosigned"`    // leaves under the last one that a witness cosigned
	Unprotected int64            `json:"unprotected"` // leaves behind it: this host alone vouches for them
	Leaves      map[string]int64 `json:"leaves,omitempty"`
	Leaf        *int64           `json:"leaf,omitempty"` // the first bad one, where one can be named
	Reason      string           `json:"reason,omitempty"`
}

func runAuditVerify(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	kept := fs.String("checkpoint", "", "a checkpoint that was kept elsewhere: `FILE`")
	key := fs.String("key", "", "the log's public key, `TEXT`; default: by the host seal")
	asJSON := fs.Bool("json", false, "print JSON")
	var witnesses []note.Verifier
	fs.Func("witness", "a witness's public `KEY`; may be repeated; default: those of the configuration", func(s string) error {
		v, err := audit.ParseWitness(s)
		witnesses = append(witnesses, v)
		return err
	})
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("audit verify: takes no operand")
	}
	if len(witnesses) == 0 {
		var err error
		if witnesses, err = configuredWitnesses(ctx, *path); err != nil {
			return err
		}
	}
	v, verifier, err := openLog(ctx, *path, *key)
	if err != nil {
		return err
	}
	defer v.Close()
	var trees []audit.Tree
	if *kept != "" {
		b, err := readFile(std, *kept)
		if err != nil {
			return err
		}
		tree, err := audit.ParseCheckpoint(b, verifier)
		if err != nil {
			return usagef("%s: %w", *kept, err)
		}
		trees = append(trees, tree)
	}
	r, err := audit.Verify(ctx, v, verifier, witnesses, trees...)
	return reportAudit(std.out, r, err, *asJSON)
}

// configuredWitnesses are the keys of audit.witnesses of a configuration file.
func configuredWitnesses(ctx context.Context, path string) ([]note.Verifier, error) {
	c, err := viewFor(ctx, path)
	if err != nil {
		return nil, err
	}
	return witnessKeys(c)
}

// witnessKeys are the keys of audit.witnesses.
func witnessKeys(c *config.Config) (list []note.Verifier, err error) {
	for i, text := range c.Audit.Witnesses {
		_, key, _ := strings.Cut(text, " ")
		v, err := audit.ParseWitness(key)
		if err != nil {
			return nil, usagef("%s: %w", c.Vault.WitnessKey(i), err)
		}
		list = append(list, v)
	}
	return list, nil
}

// openLog opens the vault beside the gateway, with the key by which checkpoints are checked: without a key given it is
// taken from under the host seal.
func openLog(ctx context.Context, path, key string) (*vault.Vault, string, error) {
	if key != "" {
		v, err := openVault(ctx, path)
		return v, key, err
	}
	_, o, err := openSealed(ctx, path)
	if err != nil {
		return nil, "", err
	}
	k, err := audit.VaultKey(ctx, o.Vault)
	if err != nil {
		o.Close()
		return nil, "", err
	}
	return o.Vault, k.Verifier(), nil
}

func reportAudit(w io.Writer, r audit.Report, err error, asJSON bool) error {
	out := auditReport{OK: err == nil, Size: r.Size, Checkpoints: r.Checkpoints, Signed: r.Signed, Cosigned: r.Cosigned, Unprotected: r.Size - r.Cosigned, Leaves: map[string]int64{}}
	if f, ok := errors.AsType[*audit.Fault](err); ok {
		out.Reason = f.Reason
		if f.Leaf >= 0 {
			out.Leaf = &f.Leaf
		}
	} else if errors.Is(err, vault.ErrCorrupt) {
		out.Reason = err.Error()
	} else if err != nil {
		return err
	}
	for t, n := range r.Types {
		out.Leaves[t.String()] = n
	}
	if err == nil {
		out.Root = r.Root.String()
	}
	switch {
	case asJSON:
		if jerr := json.NewEncoder(w).Encode(out); jerr != nil {
			return jerr
		}
	case err == nil:
		fmt.Fprintf(w, "%s, chain ok, %d under %s\n", count(out.Size, "entry", "entries"), out.Signed, count(int64(out.Checkpoints), "checkpoint", "checkpoints"))
		fmt.Fprintf(w, "%s by a witness; %s protected by nobody but this host\n", count(out.Cosigned, "entry is cosigned", "entries are cosigned"), count(out.Unprotected, "entry is", "entries are"))
		for _, name := range slices.Sorted(maps.Keys(out.Leaves)) {
			fmt.Fprintf(w, "%8d  %s\n", out.Leaves[name], name)
		}
	default:
		fmt.Fprintf(w, "NOT FINE: %v\n", err)
	}
	if err != nil {
		return errReported
	}
	return nil
}

func count(n int64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func runAuditCheckpoint(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON, with the log's public key")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("audit checkpoint: takes no operand")
	}
	_, o, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer o.Close()
	key, err := audit.VaultKey(ctx, o.Vault)
	if err != nil {
		return err
	}
	note, err := audit.New(o.Vault, key).Checkpoint(ctx, time.Now())
	if err != nil {
		return err
	}
	if !*asJSON {
		_, err = std.out.Write(note)
		return err
	}
	tree, err := audit.ParseCheckpoint(note, key.Verifier())
	if err != nil {
		return err
	}
	return json.NewEncoder(std.out).Encode(struct {
		Origin string `json:"origin"`
		Size   int64  `json:"size"`
		Root   string `json:"root"`
		Note   string `json:"note"`
		Key    string `json:"key"`
	}{tree.Origin, tree.Size, tree.Root.String(), string(note), key.Verifier()})
}
