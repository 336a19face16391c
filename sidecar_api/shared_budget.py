"""The budget of one shim among several: it draws from leases, and sees the streams as the shared log has them.

The controller here is a replica: the fold of the log as far as it was read, never ahead of it. What this shim does
with what it leased becomes events, which count for everybody once they are in the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from sidecar_api.budget import Budget
from tcd.errors import ConfigError, NotFound
from tcd.risk_av import (
    BudgetUsedUp,
    CloseReason,
    Controller,
    ControllerParams,
    Event,
    Lease,
    LeaseEnded,
    LeaseHolder,
    Reservation,
    Settlement,
    e_value,
)
from tcd.risk_av.lease import Held
from tcd.risk_av.rules import rai_level

#: Makes leases of a stream for one more reservation: stream and the epoch length of its calibration (0 = none).
Ask = Callable[[str, int], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Grant:
    holder: LeaseHolder
    used: float


@dataclass(slots=True)
class _Dry:
    """A hypothesis of an epoch without budget: nothing was debited, nothing can trigger."""

    reservation: Reservation
    p: float = 1.0


class SharedBudget(Budget):
    """`Budget` over leases; see `sidecar_api.leasing` for how they are got."""

    leased = True

    def __init__(
        self,
        controller: Controller,
        *,
        auto_length: bool,
        max_streams: int,
        awake: int = 8192,
        shares: int = 0,
        now: Callable[[], float],
    ) -> None:
        """See `Budget`; `now` is a clock that only grows, for leases that nobody uses."""
        super().__init__(controller, auto_length=auto_length, max_streams=max_streams, awake=awake, shares=shares)
        self._now = now
        self._grants: dict[str, deque[_Grant]] = {}
        self._open: dict[tuple[str, str], _Grant] = {}
        self._dry: dict[tuple[str, str], _Dry] = {}
        self._made: list[Event] = []
        self.ask: Ask | None = None
        self.wanted: ControllerParams | None = None

    # -- leases --------------------------------------------------------------------------------------------

    async def prepare(self, stream: str, *, length: int) -> None:
        """Get a lease where there is none to draw from; the caller reserves before it awaits anything else.

        Raises:
            tcd.errors.Unavailable: the ledger cannot give one now.
        """
        try:
            while not self._grants.get(stream):
                assert self.ask is not None  # noqa: S101 - for the type checker: set when the app is made
                await self.ask(stream, length)
        except BudgetUsedUp:
            return

    def schedule(self, stream: str, length: int) -> tuple[str, int] | None:
        """The schedule that a stream's first calibrated hypothesis fixes; None where it has one or needs none."""
        known = self._streams[stream]
        if not self._auto or not length or known.calibrated:
            return None
        there = self.controller.knows(stream)
        own = there and self.controller.params_of(stream).schedule != self.controller.params.schedule
        return None if own and not self._retuned else ("uniform", length)

    def adopt(self, lease: Lease) -> None:
        """Draw from a lease from now on."""
        known = self._streams.get(lease.stream)
        if known is not None:
            known.calibrated = True
        self._grants.setdefault(lease.stream, deque()).append(_Grant(LeaseHolder(lease), self._now()))

    def sweep(self, idle: float) -> None:
        """Return what nobody drew from for `idle` seconds: an undrawn place holds up the fold of its stream."""
        limit = self._now() - idle
        for stream in tuple(self._grants):
            for grant in tuple(self._grants[stream]):
                # open hypotheses belong to their lease: were this shim lost, the others would not know of them
                if grant.used <= limit and not grant.holder.opened:
                    self._return(stream, grant)

    def _return(self, stream: str, grant: _Grant) -> None:
        grants = self._grants[stream]
        grants.remove(grant)
        if not grants:
            del self._grants[stream]
        lease = grant.holder.lease
        self._made.append(LeaseEnded(stream, lease.number, grant.holder.drawn))

    def reset(self) -> None:
        """This shim was declared lost: what it held is gone."""
        self._grants.clear()
        self._open.clear()
        self._dry.clear()
        self._made.clear()

    def changed(self, stream: str) -> None:
        """The log changed a stream; an empty name = all of them."""
        if stream:
            self._views.pop(stream, None)
        else:
            self._views.clear()

    # -- Budget --------------------------------------------------------------------------------------------

    def retune(self, alpha: float) -> None:
        """See `Budget.retune`; it is made under the lock of the log."""
        self.wanted = replace(self.controller.params, alpha=alpha)
        self._retuned = True
        for known in self._streams.values():
            known.calibrated = False

    def _rest(self) -> None:
        """Forget the longest unused stream here; in the log it rests by an act under the lock."""
        stream = next(iter(self._streams))
        if stream in self._grants:
            self._streams.move_to_end(stream)
            return
        del self._streams[stream]
        self._views.pop(stream, None)

    def reserve(self, stream: str, hypothesis: str, *, user: str, length: int) -> Reservation:
        """Draw a reservation; see `Budget.reserve`."""
        del length
        grants = self._grants.get(stream)
        if not grants:
            return self._without_budget(stream, hypothesis)
        grant = grants[0]
        holder = grant.holder
        holder.learn(self.controller.known(stream=stream, epoch=holder.lease.epoch))
        holder.reserve(hypothesis, user)
        grant.used = self._now()
        if not holder.left:
            grants.popleft()
            if not grants:
                del self._grants[stream]
        self._open[stream, hypothesis] = grant
        self._made += holder.take_events()
        held = holder.find(hypothesis)
        assert held is not None  # noqa: S101 - for the type checker: just drawn
        lease = holder.lease
        index = lease.index + held.offset
        spent = rai_level(lease.terms, index, 0.0, held.known).spent
        return Reservation(
            stream=stream,
            hypothesis=hypothesis,
            epoch=lease.epoch,
            index=index,
            seq=lease.seq + held.offset,
            alpha=held.alpha,
            cost=lease.cost,
            known=held.known,
            spent=spent,
            wealth=max(0.0, lease.terms.alpha - spent) * (held.known + 1),
            exhausted=lease.cost <= 0.0,
            new=True,
        )

    def _without_budget(self, stream: str, hypothesis: str) -> Reservation:
        view = self.view(stream)
        reservation = Reservation(
            stream=stream,
            hypothesis=hypothesis,
            epoch=view.epoch,
            index=0,
            seq=0,
            alpha=0.0,
            cost=0.0,
            known=view.rejections_known,
            spent=view.spent,
            wealth=0.0,
            exhausted=True,
            new=True,
        )
        self._dry[stream, hypothesis] = _Dry(reservation)
        return reservation

    def unmoved(self, stream: str, hypothesis: str, *, p: float, trigger: bool) -> bool:
        """What is drawn of a lease is always told to its holder."""
        del stream, hypothesis, p, trigger
        return False

    def settle(self, stream: str, hypothesis: str, *, p: float, trigger: bool) -> Settlement:
        """Record the newest p-value; see `LeaseHolder.settle` for what it raises."""
        dry = self._dry.get((stream, hypothesis))
        if dry is not None:
            dry.p = min(dry.p, p)
            return self._dry_settlement(dry)
        grant = self._open.get((stream, hypothesis))
        if grant is None:
            msg = f"hypothesis {hypothesis} has no reservation"
            raise NotFound(msg)
        holder = grant.holder
        held = holder.find(hypothesis)
        before = held is not None and held.rejected
        holder.settle(hypothesis, p, trigger=trigger)
        self._made += holder.take_events()
        assert held is not None  # noqa: S101 - for the type checker: `settle` would have raised
        return self._settlement(holder.lease, hypothesis, held, first=held.rejected and not before)

    def fail(self, stream: str, hypothesis: str) -> None:
        """A step gave no evidence; the cost is kept. Nothing where the hypothesis is not open here any more."""
        grant = self._open.get((stream, hypothesis))
        if grant is not None:
            grant.holder.fail(hypothesis)
            self._made += grant.holder.take_events()

    def close(self, stream: str, hypothesis: str, reason: CloseReason) -> Settlement | None:
        """End a hypothesis; a lease that is drawn and over is ended with its last one."""
        self._dry.pop((stream, hypothesis), None)
        grant = self._open.pop((stream, hypothesis), None)
        if grant is None:
            return None
        holder = grant.holder
        held = holder.find(hypothesis)
        assert held is not None  # noqa: S101 - for the type checker: it is in the table of open ones
        holder.close(hypothesis, reason)
        self._made += holder.take_events()
        if holder.idle:
            self._made.append(LeaseEnded(stream, holder.lease.number, holder.drawn))
        return self._settlement(holder.lease, hypothesis, held, first=False, reason=reason)

    def find(self, stream: str, hypothesis: str) -> Settlement | None:
        """An open hypothesis as of now."""
        dry = self._dry.get((stream, hypothesis))
        if dry is not None:
            return self._dry_settlement(dry)
        grant = self._open.get((stream, hypothesis))
        held = None if grant is None else grant.holder.find(hypothesis)
        if grant is None or held is None:
            return None
        return self._settlement(grant.holder.lease, hypothesis, held, first=False)

    def _settlement(self, lease: Lease, hypothesis: str, held: Held, *, first: bool, reason: str = "") -> Settlement:
        p = min(held.p, 1.0)
        return Settlement(
            stream=lease.stream,
            hypothesis=hypothesis,
            epoch=lease.epoch,
            index=lease.index + held.offset,
            seq=lease.seq + held.offset,
            alpha=held.alpha,
            p=p,
            trigger=held.rejected,
            first=first,
            credited=first and held.credited,
            e_value=e_value(p),
            closed=bool(reason),
            reason=reason,
            folded=(),
            alarm=self.view(lease.stream).alarm,
        )

    def _dry_settlement(self, dry: _Dry) -> Settlement:
        r = dry.reservation
        return Settlement(
            stream=r.stream,
            hypothesis=r.hypothesis,
            epoch=r.epoch,
            index=0,
            seq=0,
            alpha=0.0,
            p=dry.p,
            trigger=False,
            first=False,
            credited=False,
            e_value=e_value(dry.p),
            closed=False,
            reason="",
            folded=(),
            alarm=self.view(r.stream).alarm,
        )

    def take_events(self) -> tuple[Event, ...]:
        """Events that must become durable with the next commit."""
        events, self._made = tuple(self._made), []
        return events


def shared_params(params: ControllerParams) -> None:
    """Refuse parameters whose budget cannot be leased.

    Raises:
        ConfigError: the costs of the rule depend on evidence, or the schedule has no length.
    """
    if params.rule != "rai" or params.schedule[0] != "uniform":
        msg = "shims on a shared ledger lease parts of a budget: that needs rule=rai and schedule=uniform"
        raise ConfigError(msg)
