"""fsck of a store: every row against what it must be, and against what was signed.

A finding names what is wrong and where. Nothing is repaired: an auditor reads, an operator restores.
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tcd.errors import ConfigError, VerificationError
from tcd.ledger.sqlite_reader import chain_key
from tcd.ledger.sqlite_schema import APPLICATION_ID
from tcd.receipts.body import NO_PREV, head_of
from tcd.receipts.checks import check_key, check_signature, resolve_key
from tcd.receipts.logcheck import OpenedLog, open_log
from tcd.receipts.merkle import CompactRange, leaf_hash
from tcd.receipts.report import Checks, VerifyPolicy
from tcd.receipts.verify import read_body
from tcd.receipts.witnessing import Seen

#: Findings kept; the rest is counted.
MAX_FINDINGS: Final = 1000
_GUARDS: Final = ("receipt", "event", "checkpoint")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong.

    Attributes:
        code: stable; of `tcd.receipts.errors` where it is the failure of a check.
        where: row or file.
        detail: for people.
    """

    code: str
    where: str
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """JSON form."""
        return {"code": self.code, "where": self.where, "detail": self.detail}


@dataclass(slots=True)
class Audit:
    """What was looked at and what was found.

    Attributes:
        findings: the first `MAX_FINDINGS`.
        counts: number of findings by code, and of rows looked at.
        newest: newest checkpoint that verified and fits, with its origin.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    newest: tuple[str, Seen] | None = None

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.findings

    def note(self, code: str, where: str, detail: str = "") -> None:
        """Record a finding."""
        self.counts[f"finding {code}"] += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(code, where, detail))

    def attempt(self, where: str, check: Callable[[], None]) -> bool:
        """Run a check; its failure is a finding."""
        try:
            check()
        except VerificationError as error:
            self.note(error.code, where, error.detail)
            return False
        return True

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "ok": self.ok,
            "counts": dict(sorted(self.counts.items())),
            "findings": [finding.to_json() for finding in self.findings],
        }


@dataclass(slots=True)
class _Tip:
    seq: int
    head: bytes
    ts_us: int
    closed: bool


def audit_store(path: Path, *, policy: VerifyPolicy, seen: Seen | None = None, origin: str = "") -> Audit:
    """Check a SQLite ledger that no process uses, reading only.

    Args:
        path: the file.
        policy: pinned keys; receipts must be signed by them, checkpoints too.
        seen: a newer or equal checkpoint that the auditor has from elsewhere; shows that a tail was cut off.
        origin: of the log; empty = the one of the first receipt.

    Raises:
        tcd.errors.ConfigError: it cannot be read or is no ledger.
    """
    try:
        with unused(path), contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            return _Store(db, policy, origin).run(seen)
    except (sqlite3.Error, OSError) as error:
        msg = f"the ledger {path} cannot be read: {error}"
        raise ConfigError(msg) from None


@contextlib.contextmanager
def unused(path: Path) -> Iterator[None]:
    """Hold the lock of the ledger, so that no server writes meanwhile. A copy without a lock file needs none."""
    lock = path.with_suffix(".lock")
    if not lock.exists():
        yield
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            msg = f"a server uses the ledger in {path.parent}; remedy: stop it, or audit a backup"
            raise ConfigError(msg) from None
        yield


class _Store:
    """The audit of one file: one pass over the receipts in order, memory O(chains)."""

    def __init__(self, connection: sqlite3.Connection, policy: VerifyPolicy, origin: str) -> None:
        self.db, self.policy, self.origin = connection, policy, origin
        self.audit = Audit()
        self.tips: dict[bytes, _Tip] = {}
        self.tree = CompactRange()
        self.roots: dict[int, bytes] = {0: self.tree.root()}

    def run(self, seen: Seen | None) -> Audit:
        if self.db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            msg = "the file is no ledger of tcd"
            raise ConfigError(msg)
        self._file()
        sizes = {row[0] for row in self.db.execute("SELECT size FROM checkpoint")}
        if seen is not None:
            sizes.add(seen.size)
        expected = 0
        query = (
            "SELECT idx, head, sig, kid, typ, tenant, chain, seq, prev, ts_us, body"
            " FROM receipt LEFT JOIN body USING (idx) ORDER BY idx"
        )
        for row in self.db.execute(query):
            if row[0] != expected:
                self.audit.note("index_gap", f"receipt {expected}", f"rows {expected}..{row[0] - 1} are missing")
                expected = row[0]
            self._receipt(row)
            expected += 1
            self.tree.append(leaf_hash(row[1]))
            if self.tree.size in sizes:
                self.roots[self.tree.size] = self.tree.root()
        self._bodies()
        self._chains()
        self._checkpoints()
        self._seen(seen)
        self.audit.counts["receipts"] = self.tree.size
        return self.audit

    def _file(self) -> None:
        for (text,) in self.db.execute("PRAGMA integrity_check(20)"):
            if text != "ok":
                self.audit.note("storage", "file", str(text))
        there = {name for (name,) in self.db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")}
        for table in _GUARDS:
            for verb in ("UPDATE", "DELETE"):
                if f"{table}_no_{verb}" not in there:
                    self.audit.note("guard_missing", f"trigger {table}_no_{verb}", "rows could be changed")

    def _receipt(self, row: tuple[Any, ...]) -> None:
        index, head, sig, kid, typ, tenant, chain, seq, prev, ts_us, body = row
        where = f"receipt {index}"
        self._link(where, chain, _Tip(seq, head, ts_us, typ == "close"), prev)
        if body is None:
            self.audit.counts["bodies erased"] += 1
            return
        if head_of(body) != head:
            self.audit.note("head_mismatch", where, "the head is not that of the body")
        reading = Checks(set())
        _, value = read_body(reading, body)
        if value is None:
            bad = reading.results[-1]
            self.audit.note(bad.code, where, bad.detail)
            return
        self.origin = self.origin or value["origin"]
        columns = (kid, typ, tenant, chain, seq, prev.hex(), ts_us)
        link = value["chain"]
        told = (
            *(value[name] for name in ("kid", "typ", "tenant")),
            *(chain_key(link["id"]), link["seq"], link["prev"], value["ts_us"]),
        )
        if columns != told:
            self.audit.note("row_mismatch", where, "a column differs from the body")
        head_hex, sig_hex = head.hex(), sig.hex()

        def signed() -> None:
            key = resolve_key(value, self.policy, None)
            # the row itself is the place in the log; the checkpoints show whether it is
            check_key(key, value, self.policy, index=index)
            check_signature(key, value, head_hex, sig_hex, self.policy)

        self.audit.attempt(where, signed)

    def _link(self, where: str, chain: bytes, tip: _Tip, prev: bytes) -> None:
        before = self.tips.get(chain)
        if before is None:
            if tip.seq or prev.hex() != NO_PREV:
                self.audit.note("seq_gap", where, f"its chain begins with record {tip.seq}")
        elif before.closed or tip.seq != before.seq + 1:
            self.audit.note("seq_gap", where, f"record {tip.seq} after {before.seq}")
        elif prev != before.head:
            self.audit.note("prev_mismatch", where, "prev is not the head before")
        elif tip.ts_us < before.ts_us:
            self.audit.note("time_order", where, "time goes backwards")
        self.tips[chain] = tip

    def _bodies(self) -> None:
        orphans = self.db.execute("SELECT idx FROM body WHERE idx NOT IN (SELECT idx FROM receipt) LIMIT 20")
        for (index,) in orphans:
            self.audit.note("orphan_body", f"body {index}", "no receipt has it")

    def _chains(self) -> None:
        stored: set[bytes] = set()
        for key, seq, prev, closed, _ in self.db.execute("SELECT id, seq, prev, closed, ts_us FROM chain"):
            stored.add(key)
            tip = self.tips.get(key)
            told = None if tip is None else (tip.seq + 1, tip.head, int(tip.closed))
            if told != (seq, prev, closed):
                self.audit.note("chain_state", f"chain {key.hex()[:16]}", "the state is not that after its last record")
        for key in self.tips.keys() - stored:
            self.audit.note("chain_state", f"chain {key.hex()[:16]}", "no state")
        self.audit.counts["chains"] = len(self.tips)

    def _checkpoints(self) -> None:
        newest: tuple[str, Seen] | None = None
        for size, root, note in self.db.execute("SELECT size, root, note FROM checkpoint ORDER BY size"):
            where = f"checkpoint {size}"
            self.audit.counts["checkpoints"] += 1
            found = self.roots.get(size)
            if found is None:
                self.audit.note("rollback", where, f"the ledger has {self.tree.size} receipts")
            elif found != root:
                self.audit.note("inconsistent_log", where, "the root is not that of the receipts")
            opened = open_noted(self.audit, where, note, self.origin, self.policy)
            if opened is None:
                continue
            if (opened.head.size, opened.head.root) != (size, root):
                self.audit.note("row_mismatch", where, "the note says another size or root")
            elif found == root:
                newest = (self.origin, Seen(size, root, note))
        self.audit.newest = newest

    def _seen(self, seen: Seen | None) -> None:
        if seen is None:
            return
        root = self.roots.get(seen.size)
        if root is None:
            self.audit.note("rollback", "ledger", f"{self.tree.size} receipts, {seen.size} were seen before")
        elif root != seen.root:
            self.audit.note("equivocation", "ledger", f"another history of the first {seen.size} receipts was seen")


def open_noted(audit: Audit, where: str, note: bytes, origin: str, policy: VerifyPolicy) -> OpenedLog | None:
    """A checkpoint whose signatures verify; else a finding and None."""
    try:
        return open_log(note, origin=origin, policy=policy)
    except VerificationError as error:
        audit.note(error.code, where, error.detail)
        return None
