"""Bodies that are gone from a log that is exported, and the `erase` records that say by whom.

Every record is verified before the first line is written: signed by a pinned key, a leaf of the log, naming only leaves
before it, by their heads. What is kept of it meanwhile are its runs: memory grows with erasures, not with the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Any, Final, Protocol

from tcd.errors import VerificationError
from tcd.ledger.export_sources import Source
from tcd.ledger.values import StoredReceipt
from tcd.receipts import Receipt, VerifyPolicy, verify_single
from tcd.receipts.erasure import heads_digest, runs_of
from tcd.receipts.errors import InconsistentLog

_PAGE: Final = 1_024
_HEADS: Final = 8_192


class Bodies(Source, Protocol):
    """A log beside which bodies are kept."""

    def erase_records(self, first: int, limit: int) -> Sequence[StoredReceipt]:
        """`erase` records from position `first` on, at most `limit`."""
        ...

    def gone(self, first: int, end: int) -> Sequence[int]:
        """Positions from `first` to `end` (excluded) whose bodies are not there."""
        ...


class Erasures:
    """What an export of the leaves from `first` to `size` (excluded) says of erased bodies."""

    def __init__(self, source: Bodies, policy: VerifyPolicy, *, first: int, size: int) -> None:
        """Verify the records.

        Args:
            source: the log.
            policy: pinned keys, also those that sign receipts.
            first: leaf that is written.
            size: of the newest checkpoint.

        Raises:
            VerificationError: of a record; its code is that of its first failed check.
        """
        self._source = source
        self._first, self._size = first, size
        #: First place, end and record of each run that is still to come; record and end of those that have begun.
        self._runs = sorted(
            (start, end, index)
            for receipt, index in self._found()
            for start, end in _verified(source, receipt, index, policy)
        )[::-1]
        self._begun: list[tuple[int, int]] = []
        self._gone: Iterator[int] = self._pages()
        self._next = next(self._gone, None)
        self._waiting = self._found()
        self._record = next(self._waiting, None)
        #: Leaves whose bodies are gone, and no record of the export names them.
        self.unnamed = 0

    def lines(self, index: int) -> Iterator[dict[str, Any]]:
        """What is said after the head of a leaf; leaves in order."""
        if self._record is not None and self._record[1] == index:
            receipt, _ = self._record
            yield {"t": "erase", "index": index, "body": receipt.body_text, "sig": receipt.sig_hex}
            self._record = next(self._waiting, None)
        if self._next == index:
            by = self._by(index)
            self.unnamed += by is None
            yield {"t": "erased", "index": index, "by": by}
            self._next = next(self._gone, None)

    def _by(self, index: int) -> int | None:
        """The first record that names a leaf; leaves in order."""
        while self._runs and self._runs[-1][0] <= index:
            _, end, record = self._runs.pop()
            heappush(self._begun, (record, end))
        while self._begun and self._begun[0][1] <= index:
            heappop(self._begun)
        return self._begun[0][0] if self._begun else None

    def _found(self) -> Iterator[tuple[Receipt, int]]:
        first = self._first
        while page := self._source.erase_records(first, _PAGE):
            for stored in page:
                if stored.index >= self._size:
                    return
                if stored.receipt is not None:
                    yield stored.receipt, stored.index
            first = page[-1].index + 1

    def _pages(self) -> Iterator[int]:
        for first in range(self._first, self._size, _HEADS):
            yield from self._source.gone(first, min(first + _HEADS, self._size))


def _verified(source: Bodies, receipt: Receipt, index: int, policy: VerifyPolicy) -> list[tuple[int, int]]:
    """The runs of a record that is in order."""
    try:
        report = verify_single(receipt.body_text, head=receipt.head_hex, sig=receipt.sig_hex, policy=policy)
        body = report.verified()
    except VerificationError as error:
        msg = f"erase record {index}: {error.detail}"
        raise type(error)(msg) from error
    runs = runs_of(body) if body["typ"] == "erase" else []
    good = bool(runs) and runs[-1][1] <= index
    if not good or heads_digest(_heads(source, runs)) != body["erase"]["heads"]:
        msg = f"erase record {index} does not name leaves before it by their heads"
        raise InconsistentLog(msg)
    if list(source.heads(index, 1)) != [receipt.head]:
        msg = f"erase record {index} is not the leaf at its place"
        raise InconsistentLog(msg)
    return runs


def _heads(source: Source, runs: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    for first, end in runs:
        at = first
        while at < end and (page := source.heads(at, min(_HEADS, end - at))):
            yield from page
            at += len(page)
