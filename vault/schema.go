package vault

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations make the tables. The schema's version is the number of those that ran; one that was released is never edited.
// The SQL keeps to what PostgreSQL has too, types apart. Times are Unix milliseconds, ids and digests octets.
var migrations = []string{
	`
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);

-- The log: leaves as hashed, and the tree's hashes at their x/mod tlog index.
CREATE TABLE leaves (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL);
CREATE TABLE hashes (idx INTEGER PRIMARY KEY, hash BLOB NOT NULL);
-- Signed notes of the tree, as they were given out.
CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note BLOB NOT NULL, made INTEGER NOT NULL);
-- What opens a leaf's commitment: salt and payload, for keys in the clear, for records sealed under the record key.
CREATE TABLE openings (idx INTEGER PRIMARY KEY, owner BLOB NOT NULL, opening BLOB NOT NULL);
CREATE INDEX openings_owner ON openings (owner);

-- Keys that are sealed apart from what they open: a record's key or a user key's key, a wrap a purpose.
CREATE TABLE wraps (
	owner BLOB NOT NULL, purpose INTEGER NOT NULL, n INTEGER NOT NULL, wrap BLOB NOT NULL,
	PRIMARY KEY (owner, purpose, n));

-- Keys that the vault makes for itself, under the host seal.
CREATE TABLE named_keys (name TEXT PRIMARY KEY, wrap BLOB NOT NULL);

CREATE TABLE org_keys (
	id BLOB PRIMARY KEY, domain TEXT NOT NULL, kind INTEGER NOT NULL, public BLOB NOT NULL, wrap BLOB,
	made INTEGER NOT NULL, retired INTEGER NOT NULL DEFAULT 0, destroyed INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX org_keys_current ON org_keys (domain, kind) WHERE retired = 0;
CREATE INDEX org_keys_domain ON org_keys (domain, kind, made);
CREATE TABLE org_signets (
	domain TEXT NOT NULL, number INTEGER NOT NULL, signet BLOB NOT NULL, published INTEGER NOT NULL,
	PRIMARY KEY (domain, number));

-- Users' keys, each address's generations from 1. A signing key is wrapped; an encryption key is sealed under a key of
-- its own, whose wraps stand in wraps, so that escrow can add one.
CREATE TABLE user_keys (
	address TEXT NOT NULL, number INTEGER NOT NULL, id BLOB NOT NULL UNIQUE, signet BLOB NOT NULL,
	signing BLOB, encryption BLOB,
	made INTEGER NOT NULL, retired INTEGER NOT NULL DEFAULT 0, destroyed INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (address, number));
CREATE UNIQUE INDEX user_keys_current ON user_keys (address) WHERE retired = 0;
CREATE INDEX user_keys_retired ON user_keys (retired) WHERE retired > 0 AND destroyed = 0;

-- What we know of others' users. Addresses are keyed tokens and the rest is sealed: who writes to whom is not to be read
-- from a stolen disk.
CREATE TABLE pins (
	token BLOB NOT NULL, number INTEGER NOT NULL, pin BLOB NOT NULL, checked INTEGER NOT NULL,
	PRIMARY KEY (token, number));
CREATE TABLE doubts (token BLOB PRIMARY KEY, subject BLOB NOT NULL, since INTEGER NOT NULL);

-- Sealed mail. The body is in the row or, when file is 1, in bodies/<id>. digest is the SHA-512/256 of the sealed body.
CREATE TABLE records (
	id BLOB PRIMARY KEY, kind INTEGER NOT NULL, made INTEGER NOT NULL, octets INTEGER NOT NULL, class INTEGER NOT NULL DEFAULT 0,
	digest BLOB NOT NULL, envelope BLOB NOT NULL, body BLOB, file INTEGER NOT NULL, leaf INTEGER NOT NULL);

-- The outbound queue, one row a recipient. lane is what the row is scheduled with, its domain or another. due moves to the
-- lease's end with a lease and is far off for what waits for an administrator; owner is who took the lease, lost how many
-- leases in a row nobody ended. detail is the queue's own. version grows with each change.
CREATE TABLE queue (
	id BLOB PRIMARY KEY, record BLOB NOT NULL REFERENCES records (id), domain TEXT NOT NULL, lane TEXT NOT NULL,
	state INTEGER NOT NULL, due INTEGER NOT NULL, made INTEGER NOT NULL, octets INTEGER NOT NULL,
	owner BLOB, lost INTEGER NOT NULL DEFAULT 0, version INTEGER NOT NULL DEFAULT 1,
	detail BLOB NOT NULL, recipient BLOB NOT NULL, trouble BLOB);
CREATE INDEX queue_due ON queue (lane, due);
CREATE INDEX queue_record ON queue (record);
CREATE INDEX queue_owner ON queue (owner) WHERE owner IS NOT NULL;
-- The message as built for a row: what was sent once is sent again octet for octet.
CREATE TABLE built (id BLOB PRIMARY KEY REFERENCES queue (id), object BLOB, file INTEGER NOT NULL);

-- Inbound mail: one row a message id and origin, in flight (1), accepted (2) or refused (3).
CREATE TABLE inbound (
	origin TEXT NOT NULL, message BLOB NOT NULL, state INTEGER NOT NULL, record BLOB, tries INTEGER NOT NULL,
	owner BLOB, began INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0,
	code INTEGER NOT NULL DEFAULT 0, status TEXT NOT NULL DEFAULT '',
	PRIMARY KEY (origin, message));
CREATE INDEX inbound_began ON inbound (state, began);
`,
	`
-- Octets of other rooms, sealed under the key "notes".
CREATE TABLE notes (kind TEXT NOT NULL, name TEXT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (kind, name));
-- The SHA-512 of the octets that came, by which equal octets are known again before they are sent (dmtp.md OC-23).
ALTER TABLE inbound ADD COLUMN octets BLOB;
CREATE INDEX inbound_octets ON inbound (origin, octets);
`,
	`
-- What opens the alternate layer of a user's mail, sealed as encryption is; NULL for keys without one.
ALTER TABLE user_keys ADD COLUMN layer BLOB;
`,
	`
-- Of an organisation's keys two of a kind may be alive: the one in use, and one that is published before its time.
DROP INDEX org_keys_current;
`,
	`
-- Cases, and the files of each in pieces; legal holds. What they are about is sealed under the key "cases".
CREATE TABLE cases (id BLOB PRIMARY KEY, state INTEGER NOT NULL, opened INTEGER NOT NULL, expires INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE TABLE case_files (owner BLOB NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL, piece BLOB NOT NULL, PRIMARY KEY (owner, name, n));
CREATE TABLE holds (id BLOB PRIMARY KEY, made INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0, sealed BLOB NOT NULL);
`,
	`
-- Every wrap in a row that never moves, see wraps.go: hence the lengths. used is 0 where a wrap was overwritten.
ALTER TABLE wraps RENAME TO old_wraps;
CREATE TABLE wraps (slot INTEGER PRIMARY KEY,
	owner BLOB NOT NULL CHECK (length(owner) = 16), purpose INTEGER NOT NULL CHECK (purpose BETWEEN 2 AND 127),
	wrap BLOB NOT NULL CHECK (length(wrap) = 93), used INTEGER NOT NULL CHECK (used IN (0, 1)));
CREATE UNIQUE INDEX wraps_owner ON wraps (owner, purpose) WHERE used = 1;
CREATE INDEX wraps_free ON wraps (used) WHERE used = 0;
INSERT INTO wraps (owner, purpose, wrap, used) SELECT owner, 2, wrap, 1 FROM old_wraps WHERE purpose = 1;
INSERT INTO wraps (owner, purpose, wrap, used) SELECT id, 3, signing, 1 FROM user_keys WHERE signing IS NOT NULL;
INSERT INTO wraps (owner, purpose, wrap, used) SELECT id, CASE kind WHEN 3 THEN 2 ELSE 3 END, wrap, 1 FROM org_keys WHERE wrap IS NOT NULL;
DROP TABLE old_wraps;
ALTER TABLE user_keys DROP COLUMN signing;
ALTER TABLE org_keys DROP COLUMN wrap;
`,
	`
-- Keys that were destroyed before their time: what a restore must not bring back.
CREATE TABLE erasures (id BLOB PRIMARY KEY, at INTEGER NOT NULL);
`,
	`
-- Escrow keys and their epochs, as every officer attested them. In force is the newest key of a purpose, with its newest epoch.
CREATE TABLE escrow_keys (id BLOB PRIMARY KEY, purpose INTEGER NOT NULL, record BLOB NOT NULL, made INTEGER NOT NULL);
CREATE TABLE escrow_epochs (key BLOB NOT NULL, number INTEGER NOT NULL, epoch BLOB NOT NULL, statements BLOB NOT NULL, leaf INTEGER NOT NULL,
	PRIMARY KEY (key, number));
-- Custodians and their shred keys. Who and what they are for is sealed under the key "archive"; tokens find them, keyed too.
CREATE TABLE custodians (id BLOB PRIMARY KEY, token BLOB NOT NULL UNIQUE, sealed BLOB NOT NULL, made INTEGER NOT NULL);
CREATE TABLE shred_keys (id BLOB PRIMARY KEY, token BLOB NOT NULL UNIQUE, custodian BLOB NOT NULL, month INTEGER NOT NULL,
	sealed BLOB NOT NULL, made INTEGER NOT NULL);
CREATE INDEX shred_keys_custodian ON shred_keys (custodian, month);
-- What is kept of records: when that ends, as it was said at intake, and by what equal octets are known again. The class stands in records.
CREATE TABLE archive (record BLOB PRIMARY KEY, expires INTEGER NOT NULL, content BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX archive_expires ON archive (expires);
CREATE INDEX archive_content ON archive (content);
-- A custodian's way to a record's key, inside his shred key. The digest of what is inside stays for the log's proofs when outer is gone.
CREATE TABLE archive_wraps (record BLOB NOT NULL, n INTEGER NOT NULL, shred BLOB NOT NULL, digest BLOB NOT NULL, outer BLOB,
	PRIMARY KEY (record, n));
CREATE INDEX archive_wraps_shred ON archive_wraps (shred, record);
-- Who a record is from (role 1) and to (2), as keyed tokens. Ids of records sort by time.
CREATE TABLE archive_index (token BLOB NOT NULL, record BLOB NOT NULL, role INTEGER NOT NULL, PRIMARY KEY (token, record, role)) WITHOUT ROWID;
CREATE INDEX archive_index_record ON archive_index (record);
`,
	`
-- Under the key "archive": who has not the host seal cannot put a key of his own in place of the officers'.
ALTER TABLE escrow_epochs ADD COLUMN mac BLOB NOT NULL DEFAULT x'';
`,
	`
-- Erasures that were asked for. Of whom, by whom and why is sealed under the key "archive".
CREATE TABLE erasure_requests (id BLOB PRIMARY KEY, asked INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0, sealed BLOB NOT NULL);
`,
	`
-- Addresses that shall have no keys, and since when.
CREATE TABLE disabled (address TEXT PRIMARY KEY, since INTEGER NOT NULL);
`,
	`
-- 1 where the private keys are their user's own and were never here.
ALTER TABLE user_keys ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
`,
	`
-- What belongs to an archived record beside octets and envelope, sealed under its key; file names one that is too large for a row.
CREATE TABLE exhibits (
	record BLOB NOT NULL, n INTEGER NOT NULL, kind INTEGER NOT NULL, made INTEGER NOT NULL, digest BLOB NOT NULL,
	sealed BLOB, file BLOB, leaf INTEGER NOT NULL, PRIMARY KEY (record, n));
CREATE INDEX exhibits_file ON exhibits (file) WHERE file IS NOT NULL;
`,
	`
-- A user's key, by its id, for the officers of the continuity key: a wrap inside the shred key of its own that stands in wraps. outer is
-- NULL when it was destroyed; retention is how long it stays behind the key's own destruction, 0 for until it is erased.
CREATE TABLE user_escrow (id BLOB PRIMARY KEY, shred BLOB NOT NULL UNIQUE, digest BLOB NOT NULL, outer BLOB, retention INTEGER NOT NULL, leaf INTEGER NOT NULL);
`,
	`
-- Leaves 2 of records whose wraps were sealed anew to another escrow key, with what opens their commitments; and which leaf a wrap is
-- of, where that is not the intake's. No column of archive_wraps: its rows must keep their length, so that SQLite moves none of them.
CREATE TABLE rewraps (leaf INTEGER PRIMARY KEY, record BLOB NOT NULL, opening BLOB NOT NULL);
CREATE INDEX rewraps_record ON rewraps (record, leaf);
CREATE TABLE rewrapped (record BLOB NOT NULL, n INTEGER NOT NULL, leaf INTEGER NOT NULL, PRIMARY KEY (record, n)) WITHOUT ROWID;
`,
}

// migrate brings the schema up to date, each step in a transaction of its own, when it may; a command beside a gateway may
// not. ErrChanged: a newer gateway was here, or an older one is.
func migrate(ctx context.Context, conn *sql.Conn, may bool) error {
	if !may {
		var version int
		if err := conn.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&version); err != nil {
			return fmt.Errorf("vault: schema: %w", storageError(err))
		}
		if version < len(migrations) {
			return fmt.Errorf("vault: schema version %d: %w: made by an older gateway: start this one first", version, ErrChanged)
		}
	}
	if _, err := conn.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)`); err != nil {
		return fmt.Errorf("vault: schema: %w", storageError(err))
	}
	var first int
	if err := conn.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&first); err != nil {
		return fmt.Errorf("vault: schema: %w", storageError(err))
	}
	for {
		version, err := migrateStep(ctx, conn)
		if err != nil {
			return fmt.Errorf("vault: schema version %d: %w", version, storageError(err))
		}
		if version == len(migrations) {
			break
		}
	}
	if first == 0 || first >= wrapsFixed {
		return nil
	}
	// What SQLite left of wraps that it moved goes with the file's old pages.
	if _, err := conn.ExecContext(ctx, "VACUUM"); err != nil {
		return fmt.Errorf("vault: the database is written anew, for which its size must be free once more: %w", storageError(err))
	}
	return nil
}

// wrapsFixed is the version from which on wraps stay where they are.
const wrapsFixed = 6

// migrateStep runs the next migration, if there is one, and returns the version that then holds.
func migrateStep(ctx context.Context, conn *sql.Conn) (version int, err error) {
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return 0, err
	}
	defer conn.ExecContext(context.Background(), "ROLLBACK") // fails after COMMIT, as it should
	if err := conn.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&version); err != nil {
		return 0, err
	}
	if version > len(migrations) {
		return version, fmt.Errorf("%w: made by a newer gateway: this one knows version %d", ErrChanged, len(migrations))
	}
	if version == len(migrations) {
		return version, nil
	}
	if _, err := conn.ExecContext(ctx, migrations[version]); err != nil {
		return version, err
	}
	if version == 0 {
		archive := RandomID()
		if _, err := conn.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ('archive', ?)`, archive[:]); err != nil {
			return version, err
		}
	}
	if _, err := conn.ExecContext(ctx, `INSERT INTO schema_version (version) VALUES (?)`, version+1); err != nil {
		return version, err
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return version + 1, err
}
