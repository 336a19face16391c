"""A tenant's budget, shared out to its subjects' streams: budgets add, so the sum of the shares bounds the tenant.

A pool has epochs of its own: in each one it gives `shares` equal parts, one per epoch of a subject's stream. A new
subject cannot make a budget; it takes a share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tcd.risk_av.errors import ReplayError
from tcd.risk_av.events import PoolShared
from tcd.risk_av.params import ControllerParams


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool that a stream's epochs are paid from.

    Attributes:
        name: of the pool.
        length: reservations per epoch of the pool, over all streams.
        shares: parts per epoch of the pool, at most `length`.
    """

    name: str
    length: int
    shares: int

    def params(self, base: ControllerParams) -> ControllerParams:
        """Parameters of a stream's epoch that is paid by one share."""
        shares = max(1, min(self.shares, self.length))
        return replace(
            base, alpha=base.alpha / shares, schedule=("uniform", max(1, self.length // shares)), shares=shares
        )


@dataclass(slots=True)
class PoolState:
    """Where a pool stands: its epoch, the shares given in it, and what they sum to."""

    epoch: int = 1
    given: int = 0
    spent: float = 0.0

    def next(self, name: str, stream: str, params: ControllerParams) -> PoolShared:
        """The event of the next share."""
        full = self.given >= params.shares
        return PoolShared(name, self.epoch + full, 1 if full else self.given + 1, stream, params.alpha)

    def apply(self, event: PoolShared) -> None:
        """Give a share.

        Raises:
            ReplayError: it does not follow from the log.
        """
        if (event.epoch, event.share) == (self.epoch + 1, 1):
            self.epoch, self.given, self.spent = event.epoch, 0, 0.0
        elif (event.epoch, event.share) != (self.epoch, self.given + 1):
            msg = f"share {event.share} of epoch {event.epoch} of pool {event.pool} does not follow from the log"
            raise ReplayError(msg)
        self.given = event.share
        self.spent += event.alpha
