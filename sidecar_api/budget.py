"""The controller as the dataplane uses it: bounded streams, an epoch length per stream, views that are cheap."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from tcd.errors import Unavailable
from tcd.risk_av import (
    CloseReason,
    Controller,
    ControllerParams,
    Event,
    Pool,
    Reservation,
    RuleName,
    Settlement,
    StreamView,
)

#: Streams looked at for one that may rest.
_TRIES: Final = 8


@dataclass(slots=True)
class _Known:
    tenant: str
    calibrated: bool
    pool: str = ""


class Budget:
    """Streams, reservations and settlements. Synchronous: no step of another request comes between.

    Attributes:
        leased: whether what is reserved was durably debited before, so that a reservation need not wait for a commit.
    """

    leased = False

    def __init__(
        self, controller: Controller, *, auto_length: bool, max_streams: int, awake: int = 8192, shares: int = 0
    ) -> None:
        """Use a controller.

        Args:
            controller: in-memory state of all streams; its params are those of new streams.
            auto_length: whether a stream's epoch length follows from its calibration.
            max_streams: streams at most.
            shares: streams are subjects', paid by so many shares of their tenant's budget; 0 = they are tenants'.
            awake: streams that are kept ready; above it the longest unused ones rest (`Controller.rest`).
        """
        self.controller = controller
        self._auto = auto_length
        self._max = max_streams
        self._awake = awake
        self._shares = shares
        self._retuned = False
        self._streams: OrderedDict[str, _Known] = OrderedDict()
        self._views: dict[str, StreamView] = {}

    def retune(self, alpha: float) -> None:
        """Hot reload of alpha, a logged event; lengths that follow from calibrations are derived anew."""
        self.controller.configure(replace(self.controller.params, alpha=alpha))
        self._views.clear()
        self._retuned = True
        for known in self._streams.values():
            known.calibrated = False

    def tenant(self, stream: str) -> str:
        """Tenant of a stream."""
        return self._streams[stream].tenant

    def owner(self, stream: str) -> str:
        """Tenant of a stream; empty where nobody used it since the start."""
        known = self._streams.get(stream)
        return "" if known is None else known.tenant

    def acknowledge(self, stream: str) -> int:
        """Clear the alarms of a stream; number of the new claim.

        Raises:
            tcd.errors.NotFound: no such stream.
        """
        self._views.pop(stream, None)
        return self.controller.acknowledge(stream=stream)

    def open(self, stream: str, tenant: str, *, pool: str = "") -> None:
        """Make a stream known; `pool` names its tenant's budget where streams are subjects'.

        Raises:
            Unavailable: there are too many.
        """
        if stream in self._streams:
            self._streams.move_to_end(stream)
            return
        there = self.controller.knows(stream)
        if not there and len(self) >= self._max:
            msg = f"{self._max} tenants have a budget already"
            raise Unavailable(msg, retry_after=60.0)
        # one that a log brought back may have the length of its first calibrated hypothesis already
        own = there and self.controller.params_of(stream).schedule != self.controller.params.schedule
        self._streams[stream] = _Known(tenant, calibrated=own and not self._retuned, pool=pool)
        if len(self._streams) > self._awake:
            self._rest()

    def _rest(self) -> None:
        """Let the longest unused stream rest; what has something open goes to the end of the queue."""
        for stream in tuple(itertools.islice(self._streams, _TRIES)):
            if self.controller.rest(stream=stream):
                del self._streams[stream]
                self._views.pop(stream, None)
                return
            self._streams.move_to_end(stream)

    async def prepare(self, stream: str, *, length: int) -> None:
        """See that `reserve` can follow at once; nothing to do where the whole budget is here."""

    def reserve(self, stream: str, hypothesis: str, *, user: str, length: int) -> Reservation:
        """Reserve the level of a hypothesis.

        Args:
            stream: a known stream.
            hypothesis: id.
            user: for the cap of credits.
            length: epoch length that the hypothesis's calibration carries, 0 = too small for any. The first
                calibrated hypothesis fixes the stream's; that is before any of its evidence.
        """
        known = self._streams[stream]
        pool = self.pool(stream, length)
        if pool is not None:
            self._views.pop(stream, None)
            return self.controller.reserve(stream=stream, hypothesis=hypothesis, user=user, pool=pool)
        if self._auto and length and not known.calibrated:
            known.calibrated = True
            params = replace(self.controller.params, schedule=("uniform", length))
            if params != self.controller.params:
                self.controller.configure(params, stream=stream)
        reservation = self.controller.reserve(stream=stream, hypothesis=hypothesis, user=user)
        self._views.pop(stream, None)
        return reservation

    def unmoved(self, stream: str, hypothesis: str, *, p: float, trigger: bool) -> bool:
        """Whether `settle` would change nothing, and need not be called."""
        return self.controller.unmoved(stream=stream, hypothesis=hypothesis, p=p, trigger=trigger)

    def settle(self, stream: str, hypothesis: str, *, p: float, trigger: bool) -> Settlement:
        """Record the newest p-value; see `Controller.settle` for what it raises."""
        settlement = self.controller.settle(stream=stream, hypothesis=hypothesis, p=p, trigger=trigger)
        if settlement.first:
            self._views.pop(stream, None)
        return settlement

    def fail(self, stream: str, hypothesis: str) -> None:
        """A step gave no evidence; the cost is kept."""
        self.controller.fail(stream=stream, hypothesis=hypothesis)

    def close(self, stream: str, hypothesis: str, reason: CloseReason) -> Settlement | None:
        """End a hypothesis."""
        self._views.pop(stream, None)
        return self.controller.close(stream=stream, hypothesis=hypothesis, reason=reason)

    def find(self, stream: str, hypothesis: str) -> Settlement | None:
        """A hypothesis as of now, or None when it is unknown or forgotten."""
        return self.controller.find(stream=stream, hypothesis=hypothesis)

    def pool(self, stream: str, length: int) -> Pool | None:
        """What pays the epochs of a stream; None where it is a tenant's."""
        if not self._shares:
            return None
        kind, size = self.controller.params.schedule
        whole = length if self._auto and length else int(size) if kind == "uniform" else 1
        return Pool(self._streams[stream].pool, max(1, whole), self._shares)

    def view(self, stream: str) -> StreamView:
        """The stream as of now; computed anew only after it changed."""
        found = self._views.get(stream)
        if found is None:
            found = self.controller.state(stream)
            if stream in self._streams:
                self._views[stream] = found
        return found

    @property
    def unsaved(self) -> bool:
        """Whether there are events that must become durable."""
        return self.controller.changed

    def take_events(self) -> tuple[Event, ...]:
        """Events that must become durable with the next commit."""
        return self.controller.take_events()

    def __len__(self) -> int:
        """Number of streams, those at rest included."""
        return max(len(self._streams), self.controller.count)


def controller_params(
    *,
    alpha: float,
    alpha_e: float,
    rule: RuleName,
    schedule: str,
    omega: float,
    length: int,
    epoch_roll: str,
    credit_cap: int,
) -> ControllerParams:
    """Parameters of new streams from the settings."""
    return ControllerParams(
        alpha=alpha,
        alpha_e=alpha_e,
        rule=rule,
        schedule=("omega", omega) if schedule == "omega" else ("uniform", length),
        epoch_roll="auto" if epoch_roll == "auto" else "manual",
        credit_cap=credit_cap,
    )
