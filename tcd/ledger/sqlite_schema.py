"""Tables of the SQLite ledger and how older files become newer ones.

What was appended is never changed or deleted: triggers refuse it, whoever holds the connection. Bodies are apart,
because they may have to be erased while heads and signatures stay.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from tcd.errors import ConfigError

#: "tcd" and a version of the layout family, in the header of the file.
APPLICATION_ID: Final = 0x74636401
_APPEND_ONLY: Final = ("receipt", "event", "checkpoint")

_TABLES: Final = """
CREATE TABLE receipt (
  idx INTEGER PRIMARY KEY,
  head BLOB NOT NULL UNIQUE CHECK (length(head) = 32),
  sig BLOB NOT NULL,
  kid TEXT NOT NULL,
  typ TEXT NOT NULL,
  tenant TEXT NOT NULL,
  chain BLOB NOT NULL CHECK (length(chain) = 32),
  seq INTEGER NOT NULL,
  prev BLOB NOT NULL,
  ts_us INTEGER NOT NULL,
  UNIQUE (chain, seq)
) STRICT;
CREATE TABLE body (idx INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE chain (
  id BLOB PRIMARY KEY,
  seq INTEGER NOT NULL,
  prev BLOB NOT NULL,
  closed INTEGER NOT NULL,
  ts_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX chain_open ON chain (id) WHERE NOT closed;
CREATE TABLE event (idx INTEGER PRIMARY KEY, event TEXT NOT NULL) STRICT;
CREATE TABLE answer (
  tenant TEXT NOT NULL,
  key TEXT NOT NULL,
  payload TEXT NOT NULL,
  answer BLOB NOT NULL,
  head TEXT NOT NULL,
  expires_us INTEGER NOT NULL,
  PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answer_expires ON answer (expires_us);
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, root BLOB NOT NULL, note BLOB NOT NULL) STRICT;
"""

#: Answers of several kilobytes are dear in a table without rowids: a decision cost twice as much.
_ANSWERS: Final = """
ALTER TABLE answer RENAME TO answer_before;
DROP INDEX answer_expires;
CREATE TABLE answer (
  tenant TEXT NOT NULL,
  key TEXT NOT NULL,
  payload TEXT NOT NULL,
  answer BLOB NOT NULL,
  head TEXT NOT NULL,
  expires_us INTEGER NOT NULL,
  UNIQUE (tenant, key)
) STRICT;
CREATE INDEX answer_expires ON answer (expires_us);
INSERT INTO answer SELECT * FROM answer_before;
DROP TABLE answer_before;
"""

#: Which record erased a body: derived from the `erase` records, so that nobody has to read all of them.
_ERASURES: Final = """
CREATE TABLE erasure (idx INTEGER PRIMARY KEY, record INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO erasure
WITH RECURSIVE
  named(record, leaves) AS (
    SELECT idx, json_extract(CAST(body AS TEXT), '$.erase.leaves') FROM receipt JOIN body USING (idx)
    WHERE typ = 'erase' ORDER BY idx
  ),
  run(idx, last, record) AS (
    SELECT f.value, f.value + n.value - 1, record
    FROM named, json_each(leaves) AS f, json_each(leaves) AS n WHERE f.key % 2 = 0 AND n.key = f.key + 1
    UNION ALL SELECT idx + 1, last, record FROM run WHERE idx < last
  )
SELECT idx, record FROM run ORDER BY record;
"""

#: How many bodies are gone. Each receipt comes with its body, which is a page or more of the file: to count what is
#: there reads it all. What goes is counted as it goes, whoever deletes it; an append has nothing to do with it. What
#: an older file had before position `first` is not counted yet: `Store.count_back` does it once.
_TALLY: Final = """
CREATE TABLE tally (id INTEGER PRIMARY KEY CHECK (id = 1), first INTEGER NOT NULL, gone INTEGER NOT NULL) STRICT;
INSERT INTO tally SELECT 1, ifnull(max(idx) + 1, 0), 0 FROM receipt;
CREATE TRIGGER body_gone AFTER DELETE ON body BEGIN UPDATE tally SET gone = gone + 1 WHERE first <= OLD.idx; END;
"""

_GUARD: Final = """
CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
"""

#: Script that makes version i+1 of version i.
MIGRATIONS: Final = (
    _TABLES + "".join(_GUARD.format(table=t, verb=v) for t in _APPEND_ONLY for v in ("UPDATE", "DELETE")),
    # derived from `event`, so rows come and go
    "CREATE TABLE state (events INTEGER PRIMARY KEY, digest BLOB NOT NULL, data BLOB NOT NULL) STRICT;",
    _ANSWERS,
    _ERASURES,
    _TALLY,
)


def _header(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def prepare(connection: sqlite3.Connection) -> None:
    """Make or upgrade the tables, each version in one transaction.

    Raises:
        ConfigError: the file is no ledger, or one of a newer version.
    """
    application, version = _header(connection, "application_id"), _header(connection, "user_version")
    empty = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and not (empty and application == 0):
        msg = "the file is an SQLite database, but not a ledger of tcd; remedy: choose another data directory"
        raise ConfigError(msg)
    if version > len(MIGRATIONS):
        msg = f"the ledger has version {version}, this tcd knows {len(MIGRATIONS)}; remedy: use the newer tcd"
        raise ConfigError(msg)
    for number in range(version, len(MIGRATIONS)):
        connection.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[number]}"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number + 1}; COMMIT;"
        )
