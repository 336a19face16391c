"""Rows checked in processes beside the one that audits: bodies, heads, columns and signatures need nothing but the row.

What chains, budgets and decisions come to is left to the audit's own process, which gets for every row what
`rows.Rows` found, in order: the report is the same, whatever the number of processes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, NamedTuple

from tcd.errors import ConfigError
from tcd.ledger.auditing.rows import Rows
from tcd.ledger.auditing.sources import Row
from tcd.ledger.findings import Audit
from tcd.receipts.fast import read_json
from tcd.receipts.keyset import KeySet
from tcd.receipts.report import VerifyPolicy

#: Rows of one task: about a megabyte and a half.
_TASK: Final = 512
#: Tasks that each process is ahead.
_AHEAD: Final = 2


class Told(NamedTuple):
    """What was found of one row.

    Attributes:
        good: whether its body may be believed.
        notes: findings: code, where, detail.
    """

    good: bool
    notes: tuple[tuple[str, str, str], ...]


_GOOD: Final = Told(True, ())
_rows: list[Rows] = []


def _begin(keys: dict[str, Any], origins: frozenset[str] | None, algorithms: frozenset[str], origin: str) -> None:
    policy = VerifyPolicy(KeySet.from_json(keys), origins=origins, algorithms=algorithms)
    _rows[:] = [Rows(Audit(), policy, origin)]


def _check(task: list[tuple[Any, ...] | None]) -> list[Told | None]:
    """Of each row; None = good, or nobody asked."""
    (rows,) = _rows
    told: list[Told | None] = []
    for values in task:
        if values is None:
            told.append(None)
            continue
        audit = rows.audit = Audit()
        good = rows.read(Row._make(values)) is not None
        notes = tuple((finding.code, finding.where, finding.detail) for finding in audit.findings)
        told.append(None if good and not notes else Told(good, notes))
    return told


class Workers:
    """Processes that check rows of one origin."""

    def __init__(self, count: int, policy: VerifyPolicy, origin: str) -> None:
        """Start `count` processes."""
        self._count = count
        self._pool = ProcessPoolExecutor(
            count,
            # a fork would have the threads' locks of whoever audits
            multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(policy.keys.to_json(), policy.origins, policy.algorithms, origin),
        )

    def checked(self, pages: Iterator[Sequence[Row]], wanted: Callable[[Row], bool]) -> Iterator[tuple[Row, Told]]:
        """Every row of these pages, in order, and what was found of it, where it is wanted.

        Raises:
            ConfigError: a process ended.
        """
        waiting: deque[tuple[Sequence[Row], Future[list[Told | None]]]] = deque()
        try:
            for page in pages:
                for first in range(0, len(page), _TASK):
                    part = page[first : first + _TASK]
                    task = [tuple(row) if wanted(row) else None for row in part]
                    waiting.append((part, self._pool.submit(_check, task)))
                    if len(waiting) > _AHEAD * self._count:
                        yield from _of(*waiting.popleft())
            while waiting:
                yield from _of(*waiting.popleft())
        except BrokenProcessPool:
            msg = "a process that checks rows ended; remedy: give the audit more memory, or fewer workers"
            raise ConfigError(msg) from None

    def close(self) -> None:
        """End them."""
        self._pool.shutdown(cancel_futures=True)


def _of(rows: Sequence[Row], future: Future[list[Told | None]]) -> Iterator[tuple[Row, Told]]:
    for row, told in zip(rows, future.result(), strict=True):
        yield row, told or _GOOD


def believed(audit: Audit, row: Row, told: Told) -> dict[str, Any] | None:
    """Note what was found of a row; its body where it may be believed: what `Rows.read` does."""
    if row.body is None:
        audit.counts["bodies erased"] += 1
    for note in told.notes:
        audit.note(*note)
    value: dict[str, Any] | None = read_json(row.body) if told.good and row.body is not None else None
    return value


@contextlib.contextmanager
def workers(count: int, policy: VerifyPolicy, origin: str) -> Iterator[Workers]:
    """Processes while they are needed."""
    made = Workers(count, policy, origin)
    try:
        yield made
    finally:
        made.close()
