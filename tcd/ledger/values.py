"""What goes into a ledger and what comes out of it, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tcd.receipts.issue import Receipt
from tcd.risk_av.events import Event


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
