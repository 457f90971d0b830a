package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"dimegate/appliance/config"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

func runEscrowInstall(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	dealer := fs.String("dealer", "", "the `FINGERPRINT` that was written down at the ceremony")
	var epochs list
	fs.Var(&epochs, "epoch", "epoch record `FILE` after the first, in order; may be repeated")
	asJSON := fs.Bool("json", false, "print JSON")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		return usagef("escrow install: name a transcript and the statements of all officers (attest-EPOCH-INDEX.deg1)")
	}
	c, v, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	t, err := readTranscript(std, rest[0], *dealer)
	if err != nil {
		return err
	}
	chain, err := readChain(std, t, epochs)
	if err != nil {
		return err
	}
	statements, err := readStatements(std, rest[1:])
	if err != nil {
		return err
	}
	if err := ourKey(c, t.Key); err != nil {
		return err
	}
	a, err := archive.Open(ctx, v.Vault)
	if err != nil {
		return err
	}
	if err := installEscrow(ctx, a, t.Key, chain, statements); err != nil {
		return err
	}
	row := rowOf(t.Key, chain[len(chain)-1])
	if _, err := attestedRow(&row, chain[len(chain)-1], statements); err != nil {
		return err
	}
	used := true
	row.Used = &used
	if *asJSON {
		return printJSON(std.out, row)
	}
	row.print(std.out)
	fmt.Fprintln(std.out, "  in force: from now on it is sealed to this epoch")
	return nil
}

// ourKey refuses the key of another organisation.
func ourKey(c *config.Config, k *escrow.Key) error {
	for _, o := range c.Organizations {
		if slices.Contains(o.Domains, strings.ToLower(k.Organisation)) {
			return nil
		}
	}
	return refusedError{fmt.Errorf("the key is of %s, which is no domain of this configuration", k.Organisation)}
}

// installEscrow says what keeps a key from being installed, and what helps.
func installEscrow(ctx context.Context, a *archive.Archive, k *escrow.Key, chain []*escrow.Epoch, statements []*escrow.Statement) error {
	err := a.Install(ctx, k, chain, statements, time.Now())
	switch {
	case errors.Is(err, escrow.ErrQuorum):
		return refusedError{fmt.Errorf("%w: every officer runs \"gateway officer attest\" and gives you what it wrote", err)}
	case errors.Is(err, vault.ErrExists):
		return refusedError{errors.New("this epoch of the key, or a later one, is in force already")}
	case errors.Is(err, archive.ErrQuorum), errors.Is(err, archive.ErrReplaced):
		return refusedError{err}
	}
	return err
}

func runEscrowList(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("config", defaultConfig, "configuration `FILE`")
	asJSON := fs.Bool("json", false, "print JSON, an object a key")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return usagef("escrow list: takes no operand")
	}
	_, v, err := openSealed(ctx, *path)
	if err != nil {
		return err
	}
	defer v.Close()
	a, err := archive.Open(ctx, v.Vault)
	if err != nil {
		return err
	}
	keys, err := a.Keys(ctx)
	if err != nil {
		return err
	}
	for _, k := range keys {
		row := rowOf(k.Key, k.Epoch())
		if _, err := attestedRow(&row, k.Epoch(), k.Statements); err != nil {
			return err
		}
		s, err := a.Sealer(ctx, k.Key.Purpose)
		if err != nil {
			return err
		}
		used := s.Key().ID() == k.Key.ID()
		row.Used = &used
		if k.Key.Purpose == escrow.Discovery {
			n, err := a.Under(ctx, k.Key.ID())
			if err != nil {
				return err
			}
			row.Wraps = &n
		}
		if *asJSON {
			if err := json.NewEncoder(std.out).Encode(row); err != nil {
				return err
			}
			continue
		}
		row.print(std.out)
		if !used {
			fmt.Fprintln(std.out, "  replaced: what was sealed to it opens by its officers alone")
		}
		if row.Wraps != nil && (!used || *row.Wraps > 0) {
			fmt.Fprintf(std.out, "  wraps         %d\n", *row.Wraps)
		}
	}
	if len(keys) == 0 && !*asJSON {
		fmt.Fprintln(std.out, "no escrow key is in force: \"gateway escrow install\" brings one")
	}
	return nil
}
