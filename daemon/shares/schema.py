"""The tables, and the numbered steps that lead from any older store to them.

The number is SQLite's `user_version`. A step, once released, never changes; a new table or column is a new step. A
store with a higher number than the program knows is refused: an older program must not write what it does not
understand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.errors import Refused

if TYPE_CHECKING:
    import sqlite3

APPLICATION_ID: Final = 0x74737364
"""`tssd`, so that `file` and we can tell the store from any other database."""

_FIRST: Final = """
CREATE TABLE party_shares (
  id TEXT PRIMARY KEY,
  party_id TEXT NOT NULL,
  session_id TEXT NOT NULL,
  share_type TEXT NOT NULL CHECK (share_type IN ('wallet', 'admin', 'recovery')),
  share_data TEXT NOT NULL CHECK (json_valid(share_data)),
  public_key TEXT NOT NULL CHECK (length(public_key) = 66),
  threshold_n INTEGER NOT NULL,
  threshold_t INTEGER NOT NULL CHECK (threshold_t >= 2),
  status TEXT NOT NULL DEFAULT 'active'
    CHECK (status IN ('pending', 'active', 'rotated', 'revoked', 'quarantined')),
  committee TEXT NOT NULL CHECK (json_valid(committee)),
  seat INTEGER NOT NULL CHECK (seat BETWEEN 1 AND 65535),
  protocol TEXT NOT NULL,
  channel TEXT NOT NULL CHECK (channel IN ('sealed', 'plain')),
  generation INTEGER NOT NULL CHECK (generation >= 0),
  transcript TEXT NOT NULL,
  identities TEXT NOT NULL CHECK (json_valid(identities)),
  result_digest TEXT NOT NULL,
  confirmation TEXT NOT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  last_used_at TEXT,
  UNIQUE (party_id, session_id),
  CHECK (threshold_t <= threshold_n)
) STRICT;
CREATE INDEX party_shares_party_id ON party_shares (party_id);
CREATE INDEX party_shares_session_id ON party_shares (session_id);
CREATE INDEX party_shares_public_key ON party_shares (public_key);
CREATE INDEX party_shares_status ON party_shares (status);
-- Two active shares of one key and party would make "the active share" a matter of luck.
CREATE UNIQUE INDEX party_shares_one_active ON party_shares (party_id, public_key) WHERE status = 'active';

CREATE TABLE session_states (
  id TEXT PRIMARY KEY,
  session_id TEXT NOT NULL,
  party_id TEXT NOT NULL,
  session_type TEXT NOT NULL CHECK (session_type IN ('keygen', 'sign', 'rotate')),
  status TEXT NOT NULL CHECK (status IN ('in_progress', 'completed', 'failed', 'timeout')),
  step TEXT NOT NULL,
  current_round INTEGER NOT NULL DEFAULT 0 CHECK (current_round >= 0),
  rounds INTEGER NOT NULL DEFAULT 0 CHECK (rounds >= 0),
  request_digest TEXT NOT NULL,
  share_type TEXT CHECK (share_type IN ('wallet', 'admin', 'recovery')),
  public_key TEXT,
  message_hash TEXT,
  share_id TEXT,
  seat INTEGER,
  channel TEXT CHECK (channel IN ('sealed', 'plain')),
  signature TEXT,
  recovery_id INTEGER,
  reason TEXT NOT NULL DEFAULT '',
  error_message TEXT NOT NULL DEFAULT '',
  culprits TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(culprits)),
  hearsay TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(hearsay)),
  started_at TEXT NOT NULL,
  completed_at TEXT,
  UNIQUE (session_id, party_id),
  CHECK ((status = 'in_progress') = (completed_at IS NULL))
) STRICT;
CREATE INDEX session_states_session_id ON session_states (session_id);
CREATE INDEX session_states_party_id ON session_states (party_id);
CREATE INDEX session_states_status ON session_states (status);
CREATE INDEX session_states_started_at ON session_states (started_at);

CREATE TABLE share_backups (
  id TEXT PRIMARY KEY,
  share_id TEXT NOT NULL REFERENCES party_shares (id) ON DELETE RESTRICT,
  backup_data TEXT NOT NULL,
  backup_type TEXT NOT NULL CHECK (backup_type IN ('manual', 'auto', 'recovery')),
  created_at TEXT NOT NULL,
  created_by TEXT NOT NULL
) STRICT;
CREATE INDEX share_backups_share_id ON share_backups (share_id);

CREATE TABLE journal (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id TEXT NOT NULL,
  party_id TEXT NOT NULL,
  step TEXT NOT NULL,
  round INTEGER NOT NULL CHECK (round >= 0),
  detail TEXT NOT NULL CHECK (json_valid(detail)),
  at TEXT NOT NULL,
  FOREIGN KEY (session_id, party_id) REFERENCES session_states (session_id, party_id)
) STRICT;
CREATE INDEX journal_session ON journal (session_id, party_id, number);
CREATE TRIGGER journal_is_append_only_1 BEFORE UPDATE ON journal
  BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_is_append_only_2 BEFORE DELETE ON journal
  BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

-- What peers have confirmed of a key made here. from_party: who states it; the custodian has checked that.
CREATE TABLE confirmations (
  share_id TEXT NOT NULL REFERENCES party_shares (id) ON DELETE RESTRICT,
  from_party TEXT NOT NULL,
  statement BLOB NOT NULL,
  PRIMARY KEY (share_id, from_party)
) STRICT, WITHOUT ROWID;

-- Values that must never serve two keys. A second share with one of them is refused by the primary key.
CREATE TABLE fingerprints (
  fingerprint BLOB PRIMARY KEY CHECK (length(fingerprint) = 32),
  share_id TEXT NOT NULL REFERENCES party_shares (id) ON DELETE RESTRICT
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL CHECK (kind IN ('report', 'event')),
  session_id TEXT NOT NULL,
  party_id TEXT NOT NULL,
  payload TEXT NOT NULL CHECK (json_valid(payload)),
  created_at TEXT NOT NULL,
  delivered_at TEXT,
  attempts INTEGER NOT NULL DEFAULT 0,
  refused TEXT
) STRICT;
CREATE INDEX outbox_waiting ON outbox (kind, number) WHERE delivered_at IS NULL;

CREATE TABLE audit (
  number INTEGER PRIMARY KEY,
  at TEXT NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL CHECK (json_valid(subject)),
  previous BLOB NOT NULL CHECK (length(previous) = 32),
  digest BLOB NOT NULL CHECK (length(digest) = 32)
) STRICT;
CREATE TRIGGER audit_is_append_only_1 BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_append_only_2 BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TABLE audit_checkpoints (
  audit_count INTEGER PRIMARY KEY,
  audit_head BLOB NOT NULL,
  chain_count INTEGER NOT NULL,
  chain_head BLOB NOT NULL,
  identity BLOB NOT NULL,
  signature BLOB NOT NULL,
  at TEXT NOT NULL
) STRICT;

-- Pin lists as the custodian signed them; the highest number counts.
CREATE TABLE peers (
  number INTEGER PRIMARY KEY,
  body BLOB NOT NULL,
  signature BLOB NOT NULL,
  at TEXT NOT NULL
) STRICT;

CREATE TABLE pre_params (
  prepared_id TEXT PRIMARY KEY,
  protocol TEXT NOT NULL,
  fingerprints TEXT NOT NULL CHECK (json_valid(fingerprints)),
  sealed TEXT NOT NULL CHECK (json_valid(sealed)),
  status TEXT NOT NULL CHECK (status IN ('ready', 'spent')),
  made_at TEXT NOT NULL,
  spent_at TEXT
) STRICT;
"""

STEPS: Final[tuple[str, ...]] = (_FIRST,)
"""Step k (from 1) brings a store from version k-1 to k."""


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Carry out the missing steps, all in one transaction.

    Raises:
        Refused: The file is another program's database, or a newer tssd's.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and tables:
        raise Refused("the share store's file is a database of another program", "look at service.state_directory")
    if version > len(STEPS):
        raise Refused(
            f"the share store has format {version}, this tssd knows formats up to {len(STEPS)}",
            "install the newer tssd again; a store is never taken back",
        )
    if version == len(STEPS):
        return
    steps = "".join(STEPS[version:])
    settled = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {len(STEPS)};"
    connection.executescript(f"BEGIN EXCLUSIVE; {steps} {settled} COMMIT;")
