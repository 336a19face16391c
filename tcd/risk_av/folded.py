"""All streams as a fold over an event log: events are applied, handed over, saved, and looked at.

Nothing here decides anything. A state is what its events come to, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from tcd.errors import Conflict, NotFound
from tcd.risk_av.errors import ReplayError
from tcd.risk_av.events import (
    Acknowledged,
    Closed,
    Configured,
    Drawn,
    EpochOpened,
    Event,
    Failed,
    Leased,
    LeaseEnded,
    PoolShared,
    Reserved,
    Rested,
    Settled,
)
from tcd.risk_av.hypothesis import Granted, Hypothesis
from tcd.risk_av.idle import IdleStreams, stream_key
from tcd.risk_av.lease import Lease
from tcd.risk_av.params import ControllerParams
from tcd.risk_av.pool import PoolState
from tcd.risk_av.rules import rai_level
from tcd.risk_av.saving import Frozen, Saved, freeze, load
from tcd.risk_av.stream import Stream
from tcd.risk_av.views import Settlement, StreamView

#: What each event does to its stream; the two that may come before there is one are not here.
_APPLY: Final[dict[type[Event], Callable[[Stream, Any], object]]] = {
    Reserved: Stream.apply_reserve,
    Settled: Stream.apply_settle,
    Failed: Stream.apply_failure,
    Closed: Stream.apply_close,
    Acknowledged: Stream.apply_acknowledge,
    Leased: Stream.apply_lease,
    Drawn: Stream.apply_draw,
    LeaseEnded: Stream.apply_lease_end,
}


class Folded:
    """Streams, awake or at rest, and pools, after the events so far. Not thread-safe."""

    def __init__(self, params: ControllerParams | None = None) -> None:
        """No streams yet.

        Args:
            params: of streams that are opened by their first reservation.
        """
        self.params = params if params is not None else ControllerParams()
        self._streams: dict[str, Stream] = {}
        self._idle = IdleStreams()
        self._pools: dict[str, PoolState] = {}
        self._pending: list[Event] = []

    # -- events ------------------------------------------------------------------------------------------

    @property
    def events(self) -> tuple[Event, ...]:
        """Events since the last `take_events`."""
        return tuple(self._pending)

    @property
    def changed(self) -> bool:
        """Whether there are events since the last `take_events`."""
        return bool(self._pending)

    def take_events(self) -> tuple[Event, ...]:
        """Hand over the events since the last call; they must be durable before anything is answered."""
        events = tuple(self._pending)
        self._pending.clear()
        return events

    def fold(self, events: Iterable[Event]) -> None:
        """Go on by events of a log: they are applied, and not handed over again by `take_events`.

        Raises:
            ReplayError: when an event does not follow from the ones before.
        """
        for event in events:
            self._apply(event)

    def _emit(self, event: Event) -> None:
        self._apply(event)
        self._pending.append(event)

    def _apply(self, event: Event) -> None:
        if isinstance(event, Configured):
            self._apply_params(event)
            return
        if isinstance(event, PoolShared):
            self._pools.setdefault(event.pool, PoolState()).apply(event)
            return
        state = self._awake(event.stream)
        if isinstance(event, Rested):
            self._apply_rest(state, event)
            return
        if isinstance(event, EpochOpened):
            if state is None:
                state = self._streams[event.stream] = Stream(event.stream, event.params)
            state.apply_epoch(event)
            return
        if state is None:
            msg = f"stream {event.stream} has no epoch"
            raise ReplayError(msg)
        _APPLY[type(event)](state, event)

    def _apply_params(self, event: Configured) -> None:
        if event.stream:
            if self._awake(event.stream) is None:
                self._streams[event.stream] = Stream(event.stream, event.params)
            self._streams[event.stream].apply_params(event.params)
            return
        before, self.params = self.params, event.params

        def change(state: Stream) -> None:
            # a stream with a length of its own keeps it
            own = state.params.schedule != before.schedule
            state.apply_params(replace(event.params, schedule=state.params.schedule) if own else event.params)

        for state in self._streams.values():
            change(state)
        self._idle.each(change)

    def _apply_rest(self, state: Stream | None, event: Rested) -> None:
        if state is None or not IdleStreams.fits(state):
            msg = f"stream {event.stream} cannot rest"
            raise ReplayError(msg)
        if self._idle.put(state):
            del self._streams[event.stream]

    # -- saved states ------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """All of the state, after every event so far; `restore` and the later events give the live one bit for bit."""
        return self.freeze().encode()

    def freeze(self) -> Frozen:
        """What `save` writes out, for another thread: the state as of now, whatever happens here meanwhile."""
        return freeze(Saved(self.params, self._streams, self._pools, self._idle))

    def restore(self, data: bytes) -> None:
        """Begin where another one was saved. Only one without streams can: nothing is ever lowered.

        Raises:
            tcd.errors.Conflict: there are streams here.
            ReplayError: these bytes are no saved state.
        """
        self._begin(load(data))

    def take_over(self, other: Folded) -> None:
        """Go on with the state of `other`, which is used no more; see `restore`.

        Raises:
            tcd.errors.Conflict: there are streams here.
        """
        self._begin(Saved(other.params, other._streams, other._pools, other._idle))

    def _begin(self, saved: Saved) -> None:
        if self.count or self._pools or self._pending:
            msg = "a controller that has streams takes no other state: something might be lowered"
            raise Conflict(msg)
        self.params, self._streams, self._pools, self._idle = saved.params, saved.streams, saved.pools, saved.idle

    # -- views -------------------------------------------------------------------------------------------

    def state(self, stream: str) -> StreamView:
        """View of a stream; of an unused one when it has none yet."""
        known = self._streams.get(stream) or self._idle.peek(stream)
        return (known if known is not None else Stream(stream, self.params)).view()

    def pool(self, name: str) -> tuple[int, int, float]:
        """Epoch of a pool, shares given in it, and what they sum to."""
        state = self._pools.get(name, PoolState())
        return state.epoch, state.given, state.spent

    def knows(self, stream: str) -> bool:
        """Whether a stream is there, awake or at rest."""
        return stream in self._streams or stream in self._idle

    @property
    def count(self) -> int:
        """Streams, those at rest included."""
        return len(self._streams) + len(self._idle)

    def find(self, *, stream: str, hypothesis: str) -> Settlement | None:
        """A hypothesis as of now, or None when it is unknown or forgotten."""
        state = self._streams.get(stream)
        h = state.find(hypothesis) if state is not None else None
        return state.settlement(h) if state is not None and h is not None else None

    def open_hypotheses(self, stream: str) -> tuple[str, ...]:
        """Open hypotheses of a stream in reservation order."""
        state = self._streams.get(stream)
        return () if state is None else tuple(h.name for h in state.queue if h.name and not h.reason)

    def params_of(self, stream: str) -> ControllerParams:
        """Parameters of a stream; those of new streams when there is none of that name."""
        state = self._streams.get(stream) or self._idle.peek(stream)
        return self.params if state is None else state.params

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams that are awake, in the order of their opening or waking."""
        return tuple(self._streams)

    def granted(self, *, stream: str, number: int) -> Lease:
        """A lease that is out, with the rejections that are known now.

        Raises:
            NotFound: no such lease is out.
        """
        granted = self._granted(stream, number)
        state = self._stream(stream)
        epoch = state.epochs.get(granted.epoch)
        return Lease(
            stream=stream,
            epoch=granted.epoch,
            number=number,
            holder=granted.holder,
            index=granted.index,
            seq=granted.seq,
            count=len(granted.slots),
            cost=rai_level(granted.terms, granted.index, 0.0, 0).cost,
            known=0 if epoch is None else epoch.rule.known,
            credit_cap=state.params.credit_cap,
            terms=granted.terms,
        )

    def leases(self, holder: str) -> tuple[tuple[str, int], ...]:
        """Stream and number of every lease that a holder has out."""
        return tuple(
            (name, granted.number)
            for name, state in self._streams.items()
            for granted in state.leases.values()
            if granted.holder == holder
        )

    def known(self, *, stream: str, epoch: int) -> int:
        """Credited rejections of an epoch; 0 when it is over."""
        state = self._streams.get(stream)
        found = None if state is None else state.epochs.get(epoch)
        return 0 if found is None else found.rule.known

    def digest(self) -> str:
        """Digest of all of the state, bit for bit."""
        dumps = dict(self._idle.dumps())
        dumps.update((stream_key(name).hex(), stream.dump()) for name, stream in self._streams.items())
        pools = {name: [pool.epoch, pool.given, pool.spent] for name, pool in self._pools.items()}
        text = json.dumps([self.params.to_json(), dumps, pools], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    # -- for the acts ------------------------------------------------------------------------------------

    def _awake(self, stream: str) -> Stream | None:
        """The stream, woken when it rests."""
        state = self._streams.get(stream)
        if state is None:
            state = self._idle.take(stream)
            if state is not None:
                self._streams[stream] = state
        return state

    def _stream(self, stream: str) -> Stream:
        state = self._awake(stream)
        if state is None:
            msg = f"no stream {stream}"
            raise NotFound(msg)
        return state

    def _granted(self, stream: str, number: int) -> Granted:
        granted = self._stream(stream).leases.get(number)
        if granted is None:
            msg = f"lease {number} of stream {stream} is not out"
            raise NotFound(msg)
        return granted

    def _known(self, stream: str, hypothesis: str) -> tuple[Stream, Hypothesis]:
        state = self._streams.get(stream)
        h = state.find(hypothesis) if state is not None else None
        if state is None or h is None:
            msg = f"hypothesis {hypothesis} has no reservation"
            raise NotFound(msg)
        return state, h
