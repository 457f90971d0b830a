package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Names in the folder that CopyTo makes, beside vault.db.
const copiedWraps = "wraps"

// A Copied says what CopyTo made.
type Copied struct {
	Wraps   int64 // sealed in the file of wraps
	Waiting int64 // entries of the queue, which were left out
}

// What a copy does not hold: the queue, since most of it will have been delivered when the copy is restored and would be sent
// again; mail that only the queue or a hand-off keeps; and wraps, of which the primary and encryption keys of our domains alone
// stay under the seals, since nobody plans to destroy those.
var copiedRows = map[string]string{
	"queue":    "WHERE 0",
	"built":    "WHERE 0",
	"inbound":  "WHERE state <> 1",
	"records":  "WHERE id IN (" + archived + ")",
	"openings": "WHERE owner NOT IN (SELECT id FROM main.records) OR owner IN (" + archived + ")",
	"wraps":    "WHERE used = 1 AND owner IN (" + lastingKeys + ")",
}

// archived selects the records that the archive keeps.
const archived = `SELECT record FROM main.archive_wraps WHERE outer IS NOT NULL`

const lastingKeys = `SELECT id FROM main.org_keys WHERE kind IN (1, 3) AND retired = 0`

// copiedSecrets selects the wraps for the sealed file: of users' keys that were not retired before a moment, of our domains', of
// whatever else is no record.
const copiedSecrets = `SELECT owner, purpose, wrap FROM main.wraps WHERE used = 1 AND owner NOT IN (` + lastingKeys + `)
	AND owner NOT IN (SELECT id FROM main.records)
	AND owner NOT IN (SELECT id FROM main.user_keys WHERE retired > 0 AND retired < ?1)
	AND owner NOT IN (SELECT id FROM main.user_keys k JOIN main.disabled d ON d.address = k.address WHERE since < ?1)
	AND owner NOT IN (SELECT id FROM main.org_keys WHERE retired > 0 AND kind <> 3)`

// CopyTo writes what the vault holds at one moment into a new folder: a database as of Create, and a file of wraps, sealed under
// key and bound to id. Wraps of users' keys that were retired before a moment are left out: they are about to be destroyed, and
// the copy must not outlive them. It may run beside a gateway; files of bodies are the caller's to copy.
func (v *Vault) CopyTo(ctx context.Context, dir string, key Secret, id ID, retiredBefore time.Time) (c Copied, err error) {
	if err := Create(ctx, dir); err != nil {
		return c, err
	}
	db, err := sql.Open("sqlite", v.dsn("_pragma=temp_store(2)"))
	if err != nil {
		return c, fmt.Errorf("vault: %w", err)
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return c, storageError(err)
	}
	defer conn.Close()
	to := "file:" + (&url.URL{Path: filepath.Join(dir, dbName)}).EscapedPath() + "?mode=rw"
	for _, s := range []string{"ATTACH DATABASE '" + strings.ReplaceAll(to, "'", "''") + "' AS copy",
		"PRAGMA copy.journal_mode = MEMORY", "PRAGMA copy.synchronous = OFF", "BEGIN", "DELETE FROM copy.meta", "DELETE FROM copy.schema_version"} {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return c, fmt.Errorf("vault: copy: %w", storageError(err))
		}
	}
	if err := copyTables(ctx, conn); err != nil {
		return c, fmt.Errorf("vault: copy: %w", storageError(err))
	}
	if err := conn.QueryRowContext(ctx, `SELECT COUNT(*) FROM main.queue`).Scan(&c.Waiting); err != nil {
		return c, storageError(err)
	}
	if c.Wraps, err = copyWraps(ctx, conn, filepath.Join(dir, copiedWraps), key, id, retiredBefore); err != nil {
		return c, err
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return c, storageError(err)
}

// copyTables copies the rows of every table into the database "copy". The first read begins the moment that all are of.
func copyTables(ctx context.Context, conn *sql.Conn) error {
	rows, err := conn.QueryContext(ctx, `SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid`)
	if err != nil {
		return err
	}
	var tables []string
	if err := scanAll(rows, func(s scanner) error {
		var name string
		err := s.Scan(&name)
		tables = append(tables, name)
		return err
	}); err != nil {
		return err
	}
	for _, name := range tables {
		if _, err := conn.ExecContext(ctx, `INSERT INTO copy.`+name+` SELECT * FROM main.`+name+` `+copiedRows[name]); err != nil {
			return fmt.Errorf("table %s: %w", name, err)
		}
	}
	return nil
}

// copyWraps writes the sealed file: owner 16, purpose 1, wrap 93 octets, one after the other.
func copyWraps(ctx context.Context, conn *sql.Conn, path string, key Secret, id ID, retiredBefore time.Time) (n int64, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("vault: copy: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, err := NewStreamWriter(f, key, PartBackup, id[:])
	if err != nil {
		return 0, err
	}
	rows, err := conn.QueryContext(ctx, copiedSecrets, retiredBefore.UnixMilli())
	if err != nil {
		return 0, storageError(err)
	}
	err = scanAll(rows, func(s scanner) error {
		var owner, wrap []byte
		var p Purpose
		if err := s.Scan(&owner, &p, &wrap); err != nil {
			return err
		}
		n++
		_, err := w.Write(append(append(append(make([]byte, 0, copiedWrapSize), owner...), byte(p)), wrap...))
		return err
	})
	if err == nil {
		err = w.Close()
	}
	return n, storageError(err)
}

const copiedWrapSize = len(ID{}) + 1 + WrapSize

// BodyFiles lists the files of the folder's bodies that rows name, such as a copy's in the folder that was copied.
func (v *Vault) BodyFiles(ctx context.Context, folder string) ([]string, error) {
	files, err := os.ReadDir(filepath.Join(folder, bodyDir))
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	var names []string
	for _, f := range files {
		text := strings.TrimSuffix(strings.TrimSuffix(f.Name(), objectSuffix), exhibitSuffix)
		if _, err := ParseID(text); err != nil {
			continue // not ours
		}
		named, err := v.namesFile(ctx, f.Name())
		if err != nil {
			return nil, err
		}
		if named {
			names = append(names, f.Name())
		}
	}
	return names, nil
}

// BodyDigests visits every record whose sealed body is a file, with the name of that and its SHA-512/256.
func (v *Vault) BodyDigests(ctx context.Context, visit func(name string, d Digest) error) error {
	return v.queryRows(ctx, `SELECT id, digest FROM records WHERE file = 1 ORDER BY id`, nil, func(s scanner) error {
		var id, digest []byte
		if err := s.Scan(&id, &digest); err != nil {
			return err
		}
		if len(digest) != len(Digest{}) {
			return fmt.Errorf("record %v: %w: digest", toID(id), ErrCorrupt)
		}
		return visit(toID(id).String(), Digest(digest))
	})
}

// Intact has SQLite read the whole database, its trees and its rules. ErrCorrupt names the first fault.
func (v *Vault) Intact(ctx context.Context) error {
	first := ""
	if err := v.queryRow(ctx, `PRAGMA integrity_check(1)`, nil, &first); err != nil {
		return err
	}
	if first != "ok" {
		return fmt.Errorf("%w: the database: %s", ErrCorrupt, first)
	}
	return nil
}
