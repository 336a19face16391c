"""Writes a synthetic log to a SQLite ledger, fast: nothing is synced, and its parts are signed in processes."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tcd.bench.audit.synthetic import Writer, signer
from tcd.ledger import Batch, Checkpoint
from tcd.ledger.sqlite import FILE
from tcd.ledger.sqlite_store import Store
from tcd.receipts import Receipt
from tcd.receipts.merkle import CompactRange, leaf_hash
from tcd.risk_av import Event

_BATCH: Final = 4_000
_CHECKPOINT: Final = 20_000
#: Receipts of one transaction, and KiB that SQLite keeps: heads are random, so the index of them is written everywhere.
_TRANSACTION: Final = 400_000
_CACHE: Final = 2_000_000
#: Batches that a process is ahead.
_AHEAD: Final = 2
#: Fields of receipts, events, time: what a process sends.
_Part = tuple[list[tuple[object, ...]], tuple[Event, ...], int]


class _Bulk(Store):
    """A ledger whose file is worth nothing until it was closed: no journal, no syncs, few transactions."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE}"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._since = 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
            self._since = self._size
        yield self._connection
        if self._size - self._since >= _TRANSACTION:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Commit, and leave the file as a shim's."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")
        for pragma in ("synchronous=FULL", "journal_mode=WAL"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        super().close()


def _fields(receipt: Receipt) -> tuple[object, ...]:
    r = receipt
    return (r.head, r.body, r.sig, r.kid, r.typ, r.tenant, r.chain, r.seq, r.prev, r.ts_us)


def _batches(seed: int, part: int, parts: int, size: int) -> Iterator[tuple[list[Receipt], tuple[Event, ...], int]]:
    """The log of sessions `part`, `part + parts`, ..., without end, `size` receipts at a time or a session more."""
    writer, number, pending = Writer(seed, part), part, list[Receipt]()
    while True:
        pending += writer.session(number)
        number += parts
        if len(pending) >= size:
            yield pending, writer.take_events(), writer.now_us
            pending = []


def _send(queue: multiprocessing.Queue[_Part], seed: int, part: int, parts: int, size: int) -> None:
    for receipts, events, now_us in _batches(seed, part, parts, size):
        queue.put(([_fields(receipt) for receipt in receipts], events, now_us))


def _received(
    queues: Sequence[multiprocessing.Queue[_Part]],
) -> Iterator[tuple[list[Receipt], tuple[Event, ...], int]]:
    """The batches of all processes in turn, so that the log follows from the seed."""
    while True:
        for queue in queues:
            rows, events, now_us = queue.get()
            yield [Receipt(*row) for row in rows], events, now_us  # type: ignore[arg-type]


@contextlib.contextmanager
def _source(seed: int, parts: int, size: int) -> Iterator[Iterator[tuple[list[Receipt], tuple[Event, ...], int]]]:
    if parts == 1:
        yield _batches(seed, 0, 1, size)
        return
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(_AHEAD) for _ in range(parts)]
    children = [
        context.Process(target=_send, args=(queue, seed, part, parts, size), daemon=True)
        for part, queue in enumerate(queues)
    ]
    for child in children:
        child.start()
    try:
        yield _received(queues)
    finally:
        for child in children:
            child.terminate()
            child.join()


def write(
    folder: Path, receipts: int, *, seed: int = 0, parts: int = 1, say: Callable[[int], None] = lambda _: None
) -> int:
    """Write a log of at least `receipts` records, and end it with a checkpoint; how many it has.

    Args:
        folder: of the ledger, which is made there.
        receipts: at least.
        seed: of all that is random.
        parts: processes that sign, each the sessions of its own tenants: 1 (none beside this one), 2, 4 or 8.
        say: called with the number so far.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tree, log = CompactRange(), signer()
    size, published, clock = 0, 0, 0
    store = _Bulk(folder / FILE)
    # equal batches, so that there are not many more receipts than were asked for
    each = math.ceil(receipts / math.ceil(receipts / _BATCH))
    try:
        with _source(seed, parts, each) as source:
            while size < receipts:
                batch, events, now_us = next(source)
                clock = max(clock, now_us)
                store.append(Batch(tuple(batch), events), clock, None)
                for receipt in batch:
                    tree.append(leaf_hash(receipt.head))
                size += len(batch)
                say(size)
                if size - published >= _CHECKPOINT or size >= receipts:
                    note = log.checkpoint(size, tree.root(), time=clock // 1_000_000)
                    store.put_checkpoint(Checkpoint(size, tree.root(), note))
                    published = size
    finally:
        store.close()
    return size
