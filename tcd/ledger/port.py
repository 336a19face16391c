"""The ledger as a port: one atomic batch holds receipts, controller events and idempotency records.

The controller's change and its receipt are durable together, or neither is. Every receipt is a leaf of the
transparency log at its position in the ledger. Adapters: `memory`, `sqlite`, `postgres`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tcd.ledger.values import (
    Appended,
    Batch,
    Checkpoint,
    EventPage,
    Extent,
    Idempotent,
    LedgerStats,
    SavedState,
    StoredReceipt,
)
from tcd.receipts.chain import ChainState


class Ledger(Protocol):
    """Where decisions become durable.

    Attributes:
        durable: whether what was appended survives the process.
    """

    durable: bool

    async def append(self, batch: Batch, *, now_us: int, expected_size: int | None = None) -> Appended:
        """Append a batch atomically: all of it is durable when this returns, nothing of it when it raises.

        Args:
            batch: receipts that continue their chains, events, answers.
            now_us: time in microseconds since 1970; answers that expired are forgotten.
            expected_size: refuse when the ledger has another number of receipts (compare and swap).

        Raises:
            tcd.errors.Conflict: a receipt does not continue its chain, a head or an unexpired idempotency key is
                there already, the size is another one, or what is to be erased was not there before.
            tcd.errors.Unavailable: no room that may be freed.
        """
        ...

    async def scrub(self) -> None:
        """Overwrite what was erased where the store's own files still have it, as far as it can.

        Raises:
            tcd.errors.Unavailable: it cannot be written; erased bodies may still be found by whoever has the files.
        """
        ...

    async def get(self, head: str) -> StoredReceipt | None:
        """The receipt of a head (hex), None when it was never there or nothing of it is kept."""
        ...

    async def erasure(self, index: int) -> StoredReceipt | None:
        """The `erase` record that came with the erasure of the body at position `index`; the first of several.

        None where the body is there, went without a record, or the record is no longer kept. It is derived: whoever
        tells others looks into the record, which names the position.
        """
        ...

    async def answer(self, tenant: str, key: str, *, now_us: int) -> Idempotent | None:
        """The stored answer of an idempotency key that has not expired."""
        ...

    async def chain(self, chain: str) -> ChainState | None:
        """State of a chain after its last record; None for an unknown (or evicted, closed) one."""
        ...

    async def chain_records(self, chain: str, *, first: int = 0, limit: int = 1024) -> Sequence[StoredReceipt]:
        """Records of a chain from number `first` on, oldest first, as far as something is kept of them."""
        ...

    async def heads(self, *, first: int = 0, limit: int = 65_536) -> Sequence[bytes]:
        """Heads (32 bytes each) in the order of the ledger, from position `first` on.

        Raises:
            tcd.errors.Unavailable: some of them are no longer kept.
        """
        ...

    async def records(self, *, first: int = 0, limit: int = 1024) -> Sequence[StoredReceipt]:
        """Receipts in the order of the ledger, from position `first` on: to read long stretches.

        Raises:
            tcd.errors.Unavailable: some of them are no longer kept at all.
        """
        ...

    async def open_chains(self, *, after: str = "", limit: int = 1024) -> Sequence[ChainState]:
        """Chains without a `close`, ordered by id, from the first id above `after` on."""
        ...

    async def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint.

        Raises:
            tcd.errors.Conflict: it is not larger than the newest one, or larger than the ledger.
        """
        ...

    async def checkpoint(self, *, covering: int | None = None) -> Checkpoint | None:
        """The newest checkpoint; with `covering`, the smallest one that has the leaf at that position."""
        ...

    async def events(self, *, first: int = 0, limit: int = 10_000) -> EventPage:
        """Controller events from position `first` on.

        Raises:
            tcd.risk_av.ReplayError: what is there is no event.
        """
        ...

    async def put_state(self, state: SavedState) -> None:
        """Keep a controller's state beside the log. Only the newest few are kept.

        Raises:
            tcd.errors.Conflict: it is not newer than the newest one, or of events that are not in the ledger.
            tcd.errors.Unavailable: it cannot be written, or is too large.
        """
        ...

    async def states(self) -> Sequence[int]:
        """The numbers of events that a kept state stands for, newest first; none above what the ledger has."""
        ...

    async def state(self, events: int) -> SavedState:
        """A kept state.

        Raises:
            tcd.errors.Unavailable: it is damaged, or gone.
        """
        ...

    async def first_records(self, chains: Sequence[str]) -> Mapping[str, StoredReceipt]:
        """The first record of each of these chains (up to 1024), by the chain's id, in one query.

        Chains of whose first record nothing is kept are left out.
        """
        ...

    async def extent(self) -> Extent:
        """How far the ledger reaches; costs nothing that grows with it."""
        ...

    async def stats(self) -> LedgerStats:
        """Sizes and evictions; counts of chains and answers may take long where there are many."""
        ...

    async def close(self) -> None:
        """Let go of resources; further calls raise `tcd.errors.Unavailable`."""
        ...
