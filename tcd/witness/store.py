"""What a witness must not forget: the newest checkpoint of every log. A forgotten one could be signed over."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tcd.errors import ConfigError
from tcd.files import SECRET, sync_directory
from tcd.receipts.witnessing import Seen, Verdict

#: "tcd" and a version of the layout.
APPLICATION_ID: Final = 0x74637701
#: Contradictions kept; one is enough to convict a log.
MAX_EVIDENCE: Final = 1000
_TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE log (origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL CHECK (length(root) = 32),
  note BLOB NOT NULL) STRICT;
CREATE TRIGGER log_no_rollback BEFORE UPDATE ON log WHEN NEW.size < OLD.size OR NEW.origin <> OLD.origin
BEGIN SELECT RAISE(ABORT, 'a log only grows'); END;
CREATE TRIGGER log_no_delete BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'a log is never forgotten'); END;
CREATE TABLE evidence (idx INTEGER PRIMARY KEY, origin TEXT NOT NULL, first BLOB NOT NULL, second BLOB NOT NULL,
  UNIQUE (first, second)) STRICT;
PRAGMA application_id = {APPLICATION_ID};
COMMIT;
"""


class WitnessStore:
    """A file of checkpoints. One lock makes comparing and storing one step."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises:
            ConfigError: it cannot be used, or is none.
        """
        self._lock = threading.Lock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET))
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # a second witness on the same file fails instead of signing beside this one
            for pragma in ("trusted_schema=OFF", "locking_mode=EXCLUSIVE", "journal_mode=DELETE", "synchronous=FULL"):
                self._db.execute(f"PRAGMA {pragma}")
            self._prepare()
            sync_directory(path.parent)
        except (OSError, sqlite3.Error) as error:
            msg = f"the state {path} cannot be used: {error}; remedy: stop the other witness, or name another file"
            raise ConfigError(msg) from None

    def _prepare(self) -> None:
        empty = not self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        application = int(self._db.execute("PRAGMA application_id").fetchone()[0])
        if empty and not application:
            self._db.executescript(_TABLES)
        elif application != APPLICATION_ID:
            msg = "not the state of a witness"
            raise sqlite3.DatabaseError(msg)
        # takes the exclusive lock now
        self._db.execute("BEGIN EXCLUSIVE")
        self._db.execute("COMMIT")

    def seen(self, origin: str) -> Seen | None:
        """The newest checkpoint of a log."""
        row = self._db.execute("SELECT size, root, note FROM log WHERE origin = ?", (origin,)).fetchone()
        return None if row is None else Seen(*row)

    def decide(self, judge: Callable[[Callable[[str], Seen | None]], Verdict]) -> Verdict:
        """Let `judge` look and store what it decided, as one step; durable when this returns."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                verdict = judge(self.seen)
                self._keep(verdict)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        return verdict

    def _keep(self, verdict: Verdict) -> None:
        if verdict.new is not None:
            self._db.execute(
                "INSERT INTO log VALUES (?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE SET size = excluded.size,"
                " root = excluded.root, note = excluded.note",
                (verdict.origin, verdict.new.size, verdict.new.root, verdict.new.note),
            )
        if verdict.evidence:
            kept = self._db.execute("SELECT count(*) FROM evidence").fetchone()[0]
            if kept < MAX_EVIDENCE:
                self._db.execute(
                    "INSERT OR IGNORE INTO evidence (origin, first, second) VALUES (?, ?, ?)",
                    (verdict.origin, *verdict.evidence),
                )

    def evidence(self) -> list[tuple[str, bytes, bytes]]:
        """Origin and the two notes of every contradiction kept."""
        with self._lock:
            return list(self._db.execute("SELECT origin, first, second FROM evidence ORDER BY idx"))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()
