"""The log that the receipts are: its roots against every signed checkpoint, and against what was seen elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tcd.errors import VerificationError
from tcd.ledger.auditing.sources import Row, Store
from tcd.ledger.auditing.statistics import Histogram
from tcd.ledger.findings import Audit, open_noted
from tcd.receipts.logcheck import OpenedLog, open_log
from tcd.receipts.merkle import CompactRange, leaf_hash
from tcd.receipts.report import VerifyPolicy
from tcd.receipts.witnessing import Seen

_SECOND = 1_000_000


class Log:
    """Grows with the pass over the receipts; checkpoints are met in order, so nothing is kept of them."""

    def __init__(self, audit: Audit, policy: VerifyPolicy, store: Store, seen: Sequence[Seen]) -> None:
        """Compare with the checkpoints of `store` and with `seen`."""
        self._audit, self._policy = audit, policy
        self._tree = CompactRange()
        self._stored = _checkpoints(store)
        self._next = next(self._stored, None)
        self._seen = sorted(seen, key=lambda one: one.size)
        self._since: tuple[int, int] | None = None
        self.fitting = 0
        self.witnessed = 0
        self.delays = Histogram()
        self._meet("")

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self._tree.size

    def root(self) -> bytes:
        """Root of the leaves so far."""
        return self._tree.root()

    def append(self, row: Row, origin: str) -> None:
        """The next leaf."""
        self._tree.append(leaf_hash(row.head))
        if self._since is None:
            self._since = (row.ts_us, row.ts_us)
        self._since = (self._since[0], row.ts_us)
        size = self._tree.size
        if (self._next is not None and self._next[0] <= size) or (self._seen and self._seen[0].size <= size):
            self._meet(origin)

    def finish(self, origin: str, *, bound: int) -> None:
        """What is left says more receipts than there are; checkpoints above `bound` are of what came meanwhile."""
        size = self._tree.size
        while self._next is not None and self._next[0] <= bound:
            self._stored_one(*self._next, None, origin)
            self._next = next(self._stored, None)
        for seen in self._seen:
            self._audit.note("rollback", "ledger", f"{size} receipts, {seen.size} were seen before")

    def _meet(self, origin: str) -> None:
        size, root = self._tree.size, self._tree.root()
        while self._next is not None and self._next[0] <= size:
            self._stored_one(*self._next, root if self._next[0] == size else None, origin)
            self._next = next(self._stored, None)
        while self._seen and self._seen[0].size <= size:
            seen = self._seen.pop(0)
            if seen.root != root:
                detail = f"another history of the first {seen.size} receipts was seen"
                self._audit.note("equivocation", "ledger", detail)

    def _stored_one(self, size: int, root: bytes, note: bytes, found: bytes | None, origin: str) -> None:
        where = f"checkpoint {size}"
        self._audit.counts["checkpoints"] += 1
        if type(root) is not bytes or type(note) is not bytes:
            self._audit.note("row_malformed", where, "values of other types")
            return
        if found is None:
            self._audit.note("rollback", where, f"the ledger has {self._tree.size} receipts")
        elif found != root:
            span = f"receipts {self.fitting}..{size - 1}" if size - self.fitting > 1 else f"receipt {size - 1}"
            detail = f"the root is not that of the receipts: {span} differ; checkpoint {self.fitting} fits"
            self._audit.note("inconsistent_log", where, detail)
        opened = open_noted(self._audit, where, note, origin, self._policy)
        if opened is None:
            return
        if (opened.head.size, opened.head.root) != (size, root):
            self._audit.note("row_mismatch", where, "the note says another size or root")
        elif found == root:
            self.fitting = size
            self._audit.newest = (origin, Seen(size, root, note))
            self._witnesses(opened)
        self._since = None

    def _witnesses(self, opened: OpenedLog) -> None:
        policy = self._policy.witnesses
        if policy is not None and policy.satisfied(opened.witnesses):
            self.witnessed = opened.head.size
        if opened.witnesses and self._since is not None:
            last = max(opened.witnesses.values()) * _SECOND
            self.delays.add(max(0, last - self._since[0]))


def _checkpoints(store: Store) -> Iterator[tuple[int, bytes, bytes]]:
    at = -1
    while page := store.checkpoints(at):
        yield from page
        at = page[-1][0]


def seen_in(notes: Sequence[bytes], *, origin: str, policy: VerifyPolicy, audit: Audit) -> list[Seen]:
    """Checkpoints that somebody else kept (a witness, an auditor's file), of which the signatures verify."""
    found = []
    for number, note in enumerate(notes):
        try:
            opened = open_log(note, origin=origin, policy=policy)
        except VerificationError as error:
            audit.note(error.code, f"given checkpoint {number + 1}", error.detail)
            continue
        found.append(Seen(opened.head.size, opened.head.root, note))
    return found
