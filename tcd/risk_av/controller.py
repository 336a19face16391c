"""The controller: reserve -> score -> settle for all streams.

A level depends only on what was known before the p-value exists, so any interleaving, retry, latency or crash
keeps the guarantee. Every mutator is synchronous: it checks, makes events, applies them, and cannot fail half-way.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from itertools import islice

from tcd.errors import Conflict
from tcd.risk_av.errors import BudgetUsedUp, LevelMismatch
from tcd.risk_av.events import Acknowledged, Closed, Configured, EpochOpened, Event, Failed, Reserved, Rested, Settled
from tcd.risk_av.folded import Folded
from tcd.risk_av.hypothesis import Epoch
from tcd.risk_av.idle import IdleStreams
from tcd.risk_av.lease import Lease
from tcd.risk_av.params import ControllerParams
from tcd.risk_av.planning import LeaseRequest, plan_end, plan_leases
from tcd.risk_av.pool import Pool, PoolState
from tcd.risk_av.stream import Stream
from tcd.risk_av.views import CLOSE_REASONS, CloseReason, Reservation, Settlement


class Controller(Folded):
    """In-memory state of all streams, and the acts that change it.

    Hypothesis ids are unique within a stream for as long as the stream remembers them (`keep_closed`): a new
    generation needs a new id. Not thread-safe; one event loop or one lock owns it. After each call `take_events`
    hands over the events that must be durable before the call is answered.
    """

    @classmethod
    def replay(cls, events: Iterable[Event], params: ControllerParams | None = None) -> Controller:
        """The state after `events`, equal to the live one bit for bit.

        Args:
            events: a whole log, oldest first.
            params: those the controller was made with.

        Raises:
            ReplayError: when an event does not follow from the ones before.
        """
        controller = cls(params)
        controller.fold(events)
        return controller

    # -- reserve, settle, close --------------------------------------------------------------------------

    def reserve(self, *, stream: str, hypothesis: str, user: str = "", pool: Pool | None = None) -> Reservation:
        """Reserve the level of a hypothesis; the first call debits, later calls return the same level.

        Opens the stream at its first reservation and, with `epoch_roll="auto"`, the next epoch when the schedule
        is used up.

        Args:
            stream: the ordered hypotheses that share the budget.
            hypothesis: id, unique in the stream.
            user: whose rejections `credit_cap` counts; empty = not counted.
            pool: what pays the stream's epochs; None = they have alpha to themselves.
        """
        state = self._streams.get(stream)
        if state is not None:
            known = state.find(hypothesis)
            if known is not None:
                return state.reservation(known, new=False)
        state, epoch = self._with_room(stream, pool)
        level = epoch.rule.level()
        event = Reserved(
            stream, hypothesis, user, epoch.number, epoch.rule.index + 1, state.seq + 1, level.cost, level.alpha
        )
        reserved = state.apply_reserve(event)
        self._pending.append(event)
        return state.reservation(reserved, new=True)

    def settle(self, *, stream: str, hypothesis: str, p: float, trigger: bool) -> Settlement:
        """Record the newest p-value of a hypothesis. Folded by minimum; a rejection counts once.

        Args:
            stream: of the reservation.
            hypothesis: of the reservation.
            p: p-value of the hypothesis (P_VALUE), in [0, 1].
            trigger: the scorer's comparison of `p` with the reserved level (TRIGGER).

        Raises:
            tcd.errors.NotFound: the hypothesis was never reserved, or is forgotten.
            tcd.errors.Conflict: it is closed with another p-value.
            LevelMismatch: `trigger` is not `p <= alpha`, bit for bit.
            ValueError: `p` is no p-value.
        """
        p = float(p)
        if not 0.0 <= p <= 1.0:
            msg = f"p-value {p!r} is outside [0, 1]"
            raise ValueError(msg)
        state, h = self._known(stream, hypothesis)
        if bool(trigger) is not (p <= h.level.alpha):
            msg = f"trigger={trigger} but p={p.hex()} and alpha={h.level.alpha.hex()}"
            raise LevelMismatch(msg)
        if h.reason:
            if p != h.p:
                msg = f"hypothesis {hypothesis} is closed ({h.reason})"
                raise Conflict(msg)
            return state.settlement(h)
        if h.p is not None and p >= h.p:
            return state.settlement(h)
        first = bool(trigger) and not h.rejected
        event = Settled(stream, hypothesis, p, first)
        credited = state.apply_settle(event)
        self._pending.append(event)
        return state.settlement(h, first=first, credited=credited)

    def unmoved(self, *, stream: str, hypothesis: str, p: float, trigger: bool) -> bool:
        """Whether `settle` would change nothing: the hypothesis is open and has as small a p-value already."""
        state = self._streams.get(stream)
        h = None if state is None else state.live.get(hypothesis)
        if h is None or h.reason or h.p is None:
            return False
        return h.p <= p <= 1.0 and trigger is (p <= h.level.alpha)

    def fail(self, *, stream: str, hypothesis: str) -> None:
        """A step of the hypothesis produced no evidence; the cost is kept. No-op when it is closed.

        Raises:
            tcd.errors.NotFound: the hypothesis was never reserved, or is forgotten.
        """
        _, h = self._known(stream, hypothesis)
        if not h.reason:
            self._emit(Failed(stream, hypothesis))

    def close(self, *, stream: str, hypothesis: str, reason: CloseReason) -> Settlement | None:
        """End a hypothesis and fold the e-process in reservation order. Closing twice is a no-op.

        Its evidence is its last settled p-value whatever the reason; e = kappa when none was settled.

        Args:
            stream: of the reservation.
            hypothesis: of the reservation.
            reason: `end`, `idle`, `horizon`, `pin_changed` or `abandoned`.

        Returns:
            The final settlement, with the snapshots that the fold made; None for an unknown hypothesis.
        """
        if reason not in CLOSE_REASONS:
            msg = f"unknown reason {reason!r}"
            raise ValueError(msg)
        state = self._streams.get(stream)
        h = state.find(hypothesis) if state is not None else None
        if state is None or h is None:
            return None
        if h.reason:
            return state.settlement(h)
        event = Closed(stream, hypothesis, reason)
        folded = state.apply_close(event)
        self._pending.append(event)
        return state.settlement(h, folded=folded)

    # -- leases ------------------------------------------------------------------------------------------

    def lease(self, *, stream: str, holder: str, replicas: int) -> Lease:
        """Debit a part of the epoch for a replica; opens the stream and, with `auto`, the next epoch as `reserve` does.

        Args:
            stream: of whose budget.
            holder: name of the replica.
            replicas: how many share the stream; a lease is at most L/(4 replicas) reservations, at least one.

        Raises:
            Unavailable: the epoch is used up and does not roll by itself.
            ValueError: the stream's rule or schedule cannot be leased.
        """
        events, refused = self.plan_leases([LeaseRequest(stream, holder, replicas)])
        for error in refused.values():
            raise error
        for event in events:
            self._emit(event)
        state = self._stream(stream)
        return self.granted(stream=stream, number=state.leased)

    def plan_leases(self, requests: Iterable[LeaseRequest]) -> tuple[list[Event], dict[str, BudgetUsedUp]]:
        """Events that would grant leases as of now, and the streams that have none; nothing is changed.

        Args:
            requests: each of another stream.

        Raises:
            ValueError: a stream's rule or schedule cannot be leased.
        """
        events: list[Event] = []
        refused: dict[str, BudgetUsedUp] = {}
        pools: dict[str, PoolState] = {}
        for request in requests:
            pool = None
            if request.pool is not None:
                name = request.pool.name
                pool = pools.setdefault(name, copy(self._pools.get(name, PoolState())))
            try:
                events += plan_leases(request, state=self._awake(request.stream), params=self.params, pool=pool)
            except BudgetUsedUp as error:
                refused[request.stream] = error
        return events, refused

    def plan_end(self, *, stream: str, number: int, drawn: int) -> list[Event]:
        """Events that would end a lease; nothing is changed. See `end_lease`."""
        return plan_end(stream, self._granted(stream, number), drawn=drawn)

    def accept(self, events: Iterable[Event]) -> None:
        """Take over a holder's events in their order; each is checked as in a replay.

        Raises:
            ReplayError: one does not follow, for example because the lease was declared lost.
        """
        for event in events:
            self._emit(event)

    def end_lease(self, *, stream: str, number: int, drawn: int) -> None:
        """A lease is over, returned or lost. What it was debited stays spent.

        Hypotheses that were drawn and are still open are closed as abandoned.

        Args:
            stream: of the lease.
            number: of the lease.
            drawn: reservations that may have been drawn: those never heard of count as e = kappa, later ones are
                skipped. All of them when it is not known.

        Raises:
            NotFound: no such lease is out.
        """
        for event in self.plan_end(stream=stream, number=number, drawn=drawn):
            self._emit(event)

    # -- operators ---------------------------------------------------------------------------------------

    def configure(self, params: ControllerParams, *, stream: str = "") -> None:
        """Hot reload: a new alpha counts at once for what is not reserved yet, the rest from the next epoch on.

        The change must not depend on evidence. The claim of the running epoch becomes max(alpha', spent).

        Args:
            params: the new parameters.
            stream: one stream, or empty for all streams present and to come.
        """
        self._emit(Configured(stream, params))

    def roll(self, *, stream: str) -> None:
        """Open the next epoch of a stream now. A logged act of an operator, not to be driven by evidence.

        Raises:
            tcd.errors.NotFound: no such stream.
        """
        state = self._stream(stream)
        self._emit(EpochOpened(stream, 1 if state.epoch is None else state.epoch.number + 1, state.params))

    def plan_rest(self, limit: int) -> list[Event]:
        """Events that would let streams without anything open rest; `limit` of them are looked at."""
        looked = islice(self._streams.items(), limit)
        return [Rested(name) for name, state in looked if IdleStreams.fits(state)]

    def rest(self, *, stream: str) -> bool:
        """Pack a stream that has nothing open: about 190 bytes stay, and nothing that was spent is forgotten.

        It wakes by itself when it is used again. Its closed hypotheses are forgotten.

        Returns:
            Whether it rests; False while something is open, a lease is out, or for another rule than RAI.
        """
        state = self._streams.get(stream)
        if state is None:
            return stream in self._idle
        if not IdleStreams.fits(state):
            return False
        self._emit(Rested(stream))
        return stream not in self._streams

    def acknowledge(self, *, stream: str) -> int:
        """Clear the alarms of a stream; a new e-process with a new alpha_e claim begins.

        Returns:
            Number of the new claim.

        Raises:
            tcd.errors.NotFound: no such stream.
        """
        claim = self._stream(stream).claim + 1
        self._emit(Acknowledged(stream, claim))
        return claim

    def _with_room(self, stream: str, pool: Pool | None = None) -> tuple[Stream, Epoch]:
        """The stream and its current epoch, both opened when there is none or it is used up."""
        state = self._awake(stream)
        epoch = None if state is None else state.epoch
        if state is None or epoch is None or (epoch.rule.full and state.params.epoch_roll == "auto"):
            params = self.params if state is None else state.params
            if pool is not None:
                params = pool.params(self.params)
                self._emit(self._pools.get(pool.name, PoolState()).next(pool.name, stream, params))
            number = 1 if epoch is None else epoch.number + 1
            self._emit(EpochOpened(stream, number, params))
            state = self._streams[stream]
            epoch = state.epochs[number]
        return state, epoch
