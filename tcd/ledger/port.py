"""The ledger as a port: one atomic batch holds receipts, controller events and idempotency records.

The controller's change and its receipt are durable together, or neither is. Every receipt is a leaf of the
transparency log at its position in the ledger. Adapters: `memory`, `sqlite`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from tcd.errors import Conflict, Unavailable
from tcd.receipts.chain import ChainState
from tcd.receipts.erasure import runs_of
from tcd.receipts.fast import read_json
from tcd.receipts.issue import Receipt
from tcd.risk_av.events import Event

#: Kept states; an older one is what a damaged newest one falls back to.
KEPT_STATES: Final = 2
#: Bytes of a state at most.
MAX_STATE: Final = 512 << 20


@dataclass(frozen=True, slots=True)
class Idempotent:
    """The stored answer of a request.

    Attributes:
        tenant, key: unique together.
        payload: digest of the request; another payload under the same key is a conflict.
        answer: the bytes that were answered.
        head: head of the receipt in hex, or empty.
        expires_us: when it may be forgotten, in microseconds since 1970.
    """

    tenant: str
    key: str
    payload: str
    answer: bytes
    head: str
    expires_us: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What becomes durable together.

    Attributes:
        receipts: each is the next record of its chain, in order.
        events: `Controller.take_events()`, in order.
        answers: idempotency records.
        erase: positions of receipts, appended before, whose bodies are dropped, with the answers that show them.
    """

    receipts: tuple[Receipt, ...] = ()
    events: tuple[Event, ...] = ()
    answers: tuple[Idempotent, ...] = ()
    erase: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stub:
    """What stays of a receipt whose body was erased: who signed its head, and its place in its chain.

    Attributes: see `Receipt`.
    """

    sig: bytes
    kid: str
    typ: str
    tenant: str
    chain: str
    seq: int
    prev: str
    ts_us: int

    @classmethod
    def of(cls, receipt: Receipt) -> Stub:
        """Of a receipt."""
        r = receipt
        return cls(r.sig, r.kid, r.typ, r.tenant, r.chain, r.seq, r.prev, r.ts_us)


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt of the ledger. `receipt` is None when its body is gone; the index and head stay known.

    Attributes:
        index: position in the ledger, from 0.
        head: in hex.
        receipt: the receipt, or None.
        stub: what is left of one without a body; None where the ledger has forgotten that too.
    """

    index: int
    head: str
    receipt: Receipt | None
    stub: Stub | None = None

    @property
    def kept(self) -> Receipt | Stub | None:
        """The receipt, or what is left of it."""
        return self.receipt or self.stub


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement about the log: the root of its first `size` leaves.

    Attributes:
        size: leaves.
        root: 32 bytes, RFC 9162.
        note: the signed note as bytes.
    """

    size: int
    root: bytes
    note: bytes


@dataclass(frozen=True, slots=True)
class SavedState:
    """A controller's state after the first `events` events: what they come to, so that a start need not fold them.

    It is derived: a ledger may lose it, and whoever reads it checks it and can do without.

    Attributes:
        events: how many events of this ledger it stands for, at least 1.
        data: `Controller.save()` at that point.
    """

    events: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """Result of an append.

    Attributes:
        size: receipts in the ledger, evicted ones included.
        events: events in the ledger, evicted ones included.
        indices: position of each receipt of the batch.
        known: events that the batch begins with and that were in the log before, see `tcd.ledger.shared.InDoubt`;
            whatever follows them was appended and ends at `events`.
    """

    size: int
    events: int
    indices: tuple[int, ...]
    known: int = 0


class Extent(NamedTuple):
    """Receipts that were ever appended, and how many of the oldest nothing is kept of."""

    receipts: int
    heads_evicted: int = 0


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """How much is kept, and how much was honestly forgotten.

    Attributes:
        receipts: ever appended.
        bodies, bodies_evicted, bodies_erased: whole receipts kept; bodies dropped for want of room, or by request.
        heads_evicted: receipts of which nothing is kept.
        events, events_evicted: ever appended; dropped. Any dropped event means `events()` replays no whole state.
        chains, chains_evicted: chains with a known head; closed ones that were forgotten.
        answers, answers_evicted: idempotency records kept; dropped before they expired.
    """

    receipts: int = 0
    bodies: int = 0
    bodies_evicted: int = 0
    bodies_erased: int = 0
    heads_evicted: int = 0
    events: int = 0
    events_evicted: int = 0
    chains: int = 0
    chains_evicted: int = 0
    answers: int = 0
    answers_evicted: int = 0


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events from `first` on; `missing` counts older ones that were asked for but are evicted."""

    first: int
    events: tuple[Event, ...]
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a memory ledger; each at least 1."""

    bodies: int = 10_000
    heads: int = 1_000_000
    events: int = 1_000_000
    chains: int = 100_000
    answers: int = 100_000
    checkpoints: int = 100_000

    def __post_init__(self) -> None:
        """Refuse empty bounds."""
        bounds = (self.bodies, self.heads, self.events, self.chains, self.answers, self.checkpoints)
        if min(bounds) < 1 or self.heads < self.bodies:
            msg = "every limit is at least 1, and as many heads as bodies are kept"
            raise ValueError(msg)


def check_checkpoint(checkpoint: Checkpoint, *, newest: int, size: int) -> None:
    """Refuse a checkpoint that does not continue the log.

    Args:
        checkpoint: to be stored.
        newest: size of the newest stored one, 0 = none.
        size: of the ledger.

    Raises:
        tcd.errors.Conflict: it is not larger than the newest one, or larger than the ledger.
    """
    if not newest < checkpoint.size <= size:
        msg = f"a checkpoint of {checkpoint.size} leaves: the newest has {newest}, the ledger {size}"
        raise Conflict(msg)


def check_erasure(positions: Sequence[int], *, size: int) -> None:
    """Refuse to erase what was not there before the batch.

    Raises:
        tcd.errors.Conflict: a position is not below `size`.
    """
    if positions and not 0 <= min(positions) <= max(positions) < size:
        msg = f"only what is among the first {size} receipts can be erased"
        raise Conflict(msg)


def erased_by(batch: Batch, size: int) -> dict[int, int]:
    """Positions that a batch erases and an `erase` record in it names, to the position of the record.

    Args:
        batch: appended as a whole; several erasures may be in it.
        size: of the ledger before.
    """
    found: dict[int, int] = {}
    wanted = frozenset(batch.erase)
    for position, receipt in enumerate(batch.receipts, size) if wanted else ():
        if receipt.typ == "erase":
            named = (place for first, end in runs_of(read_json(receipt.body)) for place in range(first, end))
            for place in wanted.intersection(named):
                found.setdefault(place, position)
    return found


def check_state(state: SavedState, *, newest: int, events: int) -> None:
    """Refuse a state that does not continue the kept ones.

    Args:
        state: to be kept.
        newest: events of the newest kept one, 0 = none.
        events: in the ledger.

    Raises:
        tcd.errors.Conflict: it is not newer, or of events that the ledger does not have.
        tcd.errors.Unavailable: it is larger than `MAX_STATE`.
    """
    if not newest < state.events <= events:
        msg = f"a state after {state.events} events: the newest is after {newest}, the ledger has {events}"
        raise Conflict(msg)
    if len(state.data) > MAX_STATE:
        msg = f"a state of {len(state.data)} bytes: at most {MAX_STATE} are kept"
        raise Unavailable(msg)


def next_states(receipts: Sequence[Receipt], find: Callable[[str], ChainState | None]) -> dict[str, ChainState]:
    """States of the chains after `receipts`, each the next record of its chain.

    Args:
        receipts: in order.
        find: state of a known chain.

    Raises:
        tcd.errors.Conflict: a receipt does not continue its chain.
    """
    after: dict[str, ChainState] = {}
    for receipt in receipts:
        state = after.get(receipt.chain) or find(receipt.chain) or ChainState(receipt.chain)
        if state.closed or (receipt.seq, receipt.prev) != (state.seq, state.prev):
            msg = f"receipt {receipt.seq} does not continue its chain at {state.seq}"
            raise Conflict(msg)
        after[receipt.chain] = receipt.next()
    return after


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
