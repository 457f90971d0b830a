package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"dimegate/appliance/keystore"
	"dimegate/internal/testescrow"
	"dimegate/vault"
	"dimegate/vault/archive"
	"dimegate/vault/escrow"
)

// attack is all that a thief can do with the copies, short of breaking ciphers; then the control, and with the keys that it gives a
// search for them in everything that was stolen: where a record's key lies, in whatever form, he would have found it.
func (l *stealLab) attack(ctx context.Context) error {
	c, err := l.theirs()
	if err != nil {
		return err
	}
	raw, err := l.octets(c.Folder) // before the copy is opened, which changes it
	if err != nil {
		return err
	}
	v, err := keystore.Open(ctx, c, true)
	if err != nil {
		return err
	}
	defer v.Close()
	a, err := archive.Open(ctx, v.Vault)
	if err != nil {
		return err
	}
	opened := map[vault.ID]bool{}
	if err := l.living(ctx, v.Vault, opened); err != nil {
		return err
	}
	hits, err := l.metadata(ctx, a, filepath.Join(c.Folder, "vault.db"))
	if err != nil {
		return err
	}
	root, err := keystore.OpenRole(ctx, c, vault.HostRole)
	if err != nil {
		return err
	}
	defer root.Destroy()
	for _, b := range raw {
		if err := l.unwrap(ctx, v.Vault, root, b, opened); err != nil {
			return err
		}
	}
	keys, err := l.control(ctx, v.Vault, a, hits)
	if err != nil {
		return err
	}
	log, err := v.NamedKey(ctx, "log") // the gateway signs its log with it: it must be in its memory
	if err != nil {
		return err
	}
	l.find(raw, keys, log, opened)
	l.report.OpenedArchived = len(opened)
	return nil
}

// octets are all that was stolen: each file, and the memory.
func (l *stealLab) octets(string) (all [][]byte, err error) {
	err = filepath.WalkDir(l.stolen, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, b)
		return err
	})
	if err == nil && l.dump != "" {
		var b []byte
		b, err = os.ReadFile(l.dump)
		all = append(all, b)
	}
	return all, err
}

// living opens what the host's own keys open, by the gateway's own code.
func (l *stealLab) living(ctx context.Context, v *vault.Vault, opened map[vault.ID]bool) error {
	for id := range l.subjects {
		if r, err := v.Record(ctx, id); err == nil {
			opened[id] = true
			r.Close()
		}
	}
	rows, err := v.QueueRows(ctx, "", vault.ID{}, l.report.Waiting+l.report.Archived)
	if err != nil {
		return err
	}
	for _, row := range rows {
		r, err := v.Record(ctx, row.Record)
		if err != nil {
			return err
		}
		body, err := r.Body(ctx)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(body)
		if err := errors.Join(err, body.Close()); err != nil {
			return err
		}
		r.Close()
		if bytes.Contains(b, []byte("Subject: passing ")) {
			l.report.Living.Waiting++
		}
	}
	for _, address := range []string{stealAlice, stealBob} {
		if k, err := v.UserEncryption(ctx, address, 1); err == nil {
			l.report.Living.UserKeys++
			k.Destroy()
		}
	}
	if keys, err := v.OrgEncryption(ctx, stealDomain); err == nil {
		l.report.Living.Domains = len(keys)
	}
	return nil
}

// metadata counts what is seen of the archive.
func (l *stealLab) metadata(ctx context.Context, a *archive.Archive, database string) (hits []archive.Hit, err error) {
	m := &l.report.Metadata
	db, err := sql.Open("sqlite", "file:"+database)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := db.QueryRowContext(ctx, `SELECT COUNT(*) FROM records JOIN archive ON record = id`).Scan(&m.Records); err != nil {
		return nil, err
	}
	names, err := a.CustodianNames(ctx, stealAlice)
	if err != nil {
		return nil, err
	}
	m.Custodians = len(names)
	err = a.Search(ctx, archive.Query{Parties: []string{stealPartner}}, func(h archive.Hit) error { hits = append(hits, h); return nil })
	m.Guessed = len(hits)
	return hits, err
}

// unwrap tries every wrap that lies anywhere in b on every archived record.
func (l *stealLab) unwrap(ctx context.Context, v *vault.Vault, root *vault.Root, b []byte, opened map[vault.ID]bool) error {
	seen := map[string]bool{}
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], []byte("DWB1"))
		if i < 0 || at+i+vault.WrapSize > len(b) {
			return nil
		}
		at += i
		wrap := b[at : at+vault.WrapSize]
		if seen[string(wrap)] {
			continue
		}
		seen[string(wrap)] = true
		for id := range l.subjects {
			k, err := root.Unwrap(wrap, vault.Label("key", string(id[:])))
			if err != nil {
				continue
			}
			if _, err := l.body(ctx, v, id, k); err == nil {
				opened[id] = true
			}
			k.Destroy()
		}
	}
}

// body opens a record's body with a key.
func (l *stealLab) body(ctx context.Context, v *vault.Vault, id vault.ID, k vault.Secret) (string, error) {
	sealed, _, err := v.SealedBody(ctx, id)
	if err != nil {
		return "", err
	}
	defer sealed.Close()
	s, err := vault.NewStreamReader(sealed, k, vault.PartBody, nil)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(s)
	return string(b), err
}

// control gives the thief a quorum: every archived message opens, on his copy, and its key is known from then on.
func (l *stealLab) control(ctx context.Context, v *vault.Vault, a *archive.Archive, hits []archive.Hit) (map[vault.ID][]byte, error) {
	names, err := a.CustodianNames(ctx, stealAlice)
	if err != nil {
		return nil, err
	}
	c := testescrow.VaultCase{Vault: v, Custodians: names, Classes: []uint16{stealClass}, First: escrow.MonthOf(l.now), Last: escrow.MonthOf(l.now), Now: l.now}
	owner := map[vault.Digest]vault.ID{}
	for _, h := range hits {
		for _, x := range h.Wraps {
			c.Entries = append(c.Entries, escrow.Entry{Leaf: uint64(h.Leaf), Wrap: x.Digest})
			owner[x.Digest] = h.Record
		}
	}
	c.Wrap = func(n int) ([]vault.Digest, []byte, error) {
		d := c.Entries[n].Wrap
		det1, all, err := a.Wrap(ctx, owner[d], d)
		return all, det1, err
	}
	keys := map[vault.ID][]byte{}
	_, err = l.officers.Open(ctx, c, func(x escrow.Opened) error {
		text, err := l.body(ctx, v, x.Label.Record, x.Key)
		if err == nil && text == stealMail(l.subjects[x.Label.Record]) {
			l.report.ControlOpened++
			keys[x.Label.Record] = x.Key.Octets()
		}
		return err
	}, 1, 3)
	l.report.ControlKeys = len(keys)
	return keys, err
}

// find looks for the keys of archived records and for their subjects, and for a key that must be there.
func (l *stealLab) find(raw [][]byte, keys map[vault.ID][]byte, log vault.Secret, opened map[vault.ID]bool) {
	subjects := map[vault.ID]bool{}
	n := needleSet{}
	for id, k := range keys {
		back := slices.Clone(k)
		slices.Reverse(back)
		for _, form := range [][]byte{k, back, []byte(hex.EncodeToString(k)), []byte(base64.RawStdEncoding.EncodeToString(k))} {
			n.add(form, func() { opened[id] = true })
		}
		n.add([]byte(l.subjects[id]), func() { subjects[id] = true })
		// The thief may know how such subjects begin: what tells them apart is looked for, too.
		n.add([]byte(l.subjects[id][len(l.subjects[id])-26:]), func() { subjects[id] = true })
	}
	secret := log.Octets()
	defer clear(secret)
	n.add(secret, func() { l.report.ControlMemory++ })
	for _, b := range raw {
		n.search(b)
	}
	l.report.SubjectsReadable = len(subjects)
}

// A needleSet is octets to be looked for at once, by their first eight.
type needleSet map[[8]byte][]needle

type needle struct {
	octets []byte
	found  func()
}

func (n needleSet) add(octets []byte, found func()) {
	n[[8]byte(octets)] = append(n[[8]byte(octets)], needle{octets, found})
}

func (n needleSet) search(b []byte) {
	var first [1 << 16]bool // most places end here
	for k := range n {
		first[int(k[0])<<8|int(k[1])] = true
	}
	for i := 0; i+8 <= len(b); i++ {
		if !first[int(b[i])<<8|int(b[i+1])] {
			continue
		}
		for _, x := range n[[8]byte(b[i:])] {
			if bytes.HasPrefix(b[i:], x.octets) {
				x.found()
			}
		}
	}
}
