"""A ledger that several shims share: the port that `postgres` fulfils beside `Ledger`.

Each shim is a member with an epoch that only grows, its fencing token. Every append checks it in its own
transaction: a member that was retired (declared lost) writes nothing more, so what it leased is lost and never
spent twice. What changes a budget itself (leases, epochs, parameters) is made in `transact`, under the lock of
the log and from all of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tcd.errors import Unavailable
from tcd.ledger.port import Ledger
from tcd.ledger.values import Appended, Batch, EventPage, StoredReceipt
from tcd.receipts.chain import ChainState


class Fenced(Unavailable):
    """This member was declared lost while it was away: nothing that it still has to say counts any more."""

    code = "fenced"


class InDoubt(Unavailable):
    """The connection was lost while a batch was committed: whether it is there is known at the next append.

    Until an `append` succeeds, each one begins with the same events as the one in doubt. What `transact` makes does
    not: its work reads from the log whether an earlier one is there.
    """

    code = "in_doubt"


@dataclass(frozen=True, slots=True)
class Member:
    """A shim that may write.

    Attributes:
        epoch: fencing token.
        replica: name that an operator gave it, or empty.
        seen: last sign of life; to be compared for change only, no clock of a shim is involved.
    """

    epoch: int
    replica: str
    seen: str


class Root(Protocol):
    """What `transact` hands to its work: the log as of now, with everybody else waiting.

    Attributes:
        events: events in the log.
        unowned: ids of chains that go on whoever wrote to them last; the work adds to it.
    """

    events: int
    unowned: set[str]

    async def page(self, first: int) -> EventPage:
        """Events from position `first` on."""
        ...

    async def chain(self, chain: str) -> ChainState | None:
        """State of a chain."""
        ...

    async def members(self) -> Sequence[Member]:
        """Members that may write."""
        ...

    async def orphans(self, limit: int = 512) -> Sequence[ChainState]:
        """Open chains whose last record was written by a member that writes no more."""
        ...

    async def first_records(self, chains: Sequence[str]) -> Mapping[str, StoredReceipt]:
        """See `Ledger.first_records`."""
        ...

    async def retire(self, epoch: int) -> bool:
        """Fence a member; whether it could write until now. Counts with the batch that the work returns."""
        ...


Work = Callable[[Root], Awaitable[Batch]]


@runtime_checkable
class SharedLedger(Ledger, Protocol):
    """A ledger with several writers.

    Attributes:
        epoch: of this member.
        identity: of the ledger, 16 bytes, made with it.
    """

    epoch: int
    identity: bytes

    async def join(self) -> int:
        """Become a member anew, after `Fenced`; the new epoch."""
        ...

    async def leave(self) -> None:
        """Be no member any more. Whatever is still leased is ended by others."""
        ...

    async def transact(self, work: Work, *, now_us: int) -> Appended:
        """Append what `work` makes of the newest state; see `Ledger.append` for what it promises.

        Raises:
            Fenced: this member was retired.
            tcd.errors.Unavailable: it cannot be written.
        """
        ...

    async def members(self) -> Sequence[Member]:
        """Members that may write."""
        ...

    async def beat(self) -> None:
        """Give a sign of life.

        Raises:
            Fenced: this member was retired.
        """
        ...

    async def claim(self, tenant: str, key: str) -> bool:
        """Claim an idempotency key among all members, until `unclaim` or the connection ends; whether it was free."""
        ...

    async def unclaim(self, tenant: str, key: str) -> None:
        """Give a claim back."""
        ...
