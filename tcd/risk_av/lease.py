"""Leases: a replica reserves for itself from a part of an epoch that was debited before it got it.

Budgets add, so nothing that a holder does can spend twice. Sequence numbers are assigned with the lease; a lost
lease is lost: what was drawn from it counts as e = kappa where it never settled, what was never drawn is skipped.
Only RAI's uniform schedule can be leased: its costs do not depend on evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

from tcd.errors import Conflict, NotFound, Unavailable
from tcd.risk_av.errors import LevelMismatch
from tcd.risk_av.events import Closed, Drawn, Failed, Settled
from tcd.risk_av.params import Terms
from tcd.risk_av.views import CLOSE_REASONS, CloseReason

LeaseEvent = Drawn | Settled | Failed | Closed


def lease_limit(length: int, replicas: int) -> int:
    """Reservations in one lease at most: max(1, floor(L / (4 replicas)))."""
    return max(1, length // (4 * max(1, replicas)))


@dataclass(frozen=True, slots=True)
class Lease:
    """A part of an epoch.

    Attributes:
        stream, epoch: of which.
        number: of the lease in its stream, from 1; a later one fences earlier ones of the same holder.
        holder: who may draw.
        index, seq: of its first reservation.
        count: reservations in it.
        cost: c, the debit of each.
        known: credited rejections of the epoch known when it was granted.
        credit_cap: rejections per user that the holder credits to itself; None = no cap.
        terms: of the epoch at the grant.
    """

    stream: str
    epoch: int
    number: int
    holder: str
    index: int
    seq: int
    count: int
    cost: float
    known: int
    credit_cap: int | None
    terms: Terms


@dataclass(slots=True)
class Held:
    """A hypothesis as its holder knows it; `p` is above 1 while nothing was settled.

    Attributes:
        user: whose rejections the cap counts.
        offset: number of its reservation in the lease, from 0.
        known: rejections known at its reservation.
        alpha: its level.
        p: smallest p-value so far.
        rejected, credited: whether it was rejected, and whether that raised later levels here.
    """

    user: str
    offset: int
    known: int
    alpha: float
    p: float = 2.0
    rejected: bool = False
    credited: bool = False


class LeaseHolder:
    """A replica's end of a lease. Its events go to the controller in their order, and are durable before an answer.

    Levels follow from what this replica knows: rejections known at the grant and its own.
    """

    __slots__ = ("_closed", "_credits", "_drawn", "_events", "_known", "_open", "lease")

    def __init__(self, lease: Lease) -> None:
        """Draw from `lease`."""
        self.lease = lease
        self._drawn = 0
        self._known = lease.known
        self._open: dict[str, Held] = {}
        self._closed: set[str] = set()
        self._credits: dict[str, int] = {}
        self._events: list[LeaseEvent] = []

    @property
    def drawn(self) -> int:
        """Reservations drawn so far."""
        return self._drawn

    @property
    def left(self) -> int:
        """Reservations left."""
        return self.lease.count - self._drawn

    def learn(self, known: int) -> None:
        """Rejections that the log has by now: what this replica knows never falls behind them."""
        self._known = max(self._known, known)

    def find(self, hypothesis: str) -> Held | None:
        """An open hypothesis; None when it is not open here."""
        return self._open.get(hypothesis)

    @property
    def opened(self) -> int:
        """Hypotheses that are open here."""
        return len(self._open)

    @property
    def idle(self) -> bool:
        """Whether everything was drawn and nothing is open."""
        return not self._open and not self.left

    def reserve(self, hypothesis: str, user: str = "") -> float:
        """The level of a hypothesis; the first call draws, later ones return the same level.

        Raises:
            Unavailable: the lease is used up.
            Conflict: the hypothesis is closed.
        """
        held = self._open.get(hypothesis)
        if held is not None:
            return held.alpha
        lease = self.lease
        if self._drawn >= lease.count:
            msg = "the lease is used up"
            raise Unavailable(msg, retry_after=0.0)
        if hypothesis in self._closed:
            msg = f"hypothesis {hypothesis} is closed"
            raise Conflict(msg)
        alpha = min(1.0, lease.cost * (self._known + 1))
        self._events.append(Drawn(lease.stream, lease.number, self._drawn, hypothesis, user, self._known, alpha))
        self._open[hypothesis] = Held(user, self._drawn, self._known, alpha)
        self._drawn += 1
        return alpha

    def settle(self, hypothesis: str, p: float, *, trigger: bool) -> bool:
        """Record the newest p-value; whether the hypothesis is rejected (latched).

        Raises:
            NotFound: it is not open here.
            LevelMismatch: `trigger` is not `p <= alpha`, bit for bit.
            ValueError: `p` is no p-value.
        """
        held = self._known_here(hypothesis)
        if not 0.0 <= p <= 1.0:
            msg = f"p-value {p!r} is outside [0, 1]"
            raise ValueError(msg)
        rejects = p <= held.alpha
        if trigger is not rejects:
            msg = f"trigger={trigger} but p={p.hex()} and alpha={held.alpha.hex()}"
            raise LevelMismatch(msg)
        if p < held.p:
            held.p = p
            first = rejects and not held.rejected
            self._events.append(Settled(self.lease.stream, hypothesis, p, first))
            if first:
                held.rejected = True
                held.credited = self._credit(held.user)
        return held.rejected

    def _credit(self, user: str) -> bool:
        cap = self.lease.credit_cap
        if cap is not None and user:
            used = self._credits.get(user, 0)
            if used >= cap:
                return False
            self._credits[user] = used + 1
        self._known += 1
        return True

    def fail(self, hypothesis: str) -> None:
        """A step gave no evidence; the cost is kept."""
        self._known_here(hypothesis)
        self._events.append(Failed(self.lease.stream, hypothesis))

    def close(self, hypothesis: str, reason: CloseReason) -> None:
        """End a hypothesis. Closing twice is a no-op."""
        if reason not in CLOSE_REASONS:
            msg = f"unknown reason {reason!r}"
            raise ValueError(msg)
        if self._open.pop(hypothesis, None) is not None:
            self._closed.add(hypothesis)
            self._events.append(Closed(self.lease.stream, hypothesis, reason))

    def take_events(self) -> tuple[LeaseEvent, ...]:
        """Events since the last call."""
        events = tuple(self._events)
        self._events.clear()
        return events

    def _known_here(self, hypothesis: str) -> Held:
        held = self._open.get(hypothesis)
        if held is None:
            msg = f"hypothesis {hypothesis} has no reservation here"
            raise NotFound(msg)
        return held
