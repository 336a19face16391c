"""Readiness by a canary inference each second: Triton's own stays green with a dead stub.

Hysteresis keeps one lost canary from taking a replica out; `heal` is called when they keep failing, with
growing pauses while it does not help.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from tcd.background import running
from tcd.contract import DIAGNOSE, Model
from tcd.errors import LauncherError, ScoringError
from tcd.triton.client import InferenceClient
from tcd.triton.probe import canary_inputs
from tcd.triton.wire import find_model

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class HealthState:
    """What is known of the server.

    Attributes:
        ready: whether requests should be sent to it.
        successes: canaries answered in a row.
        failures: canaries lost in a row.
        heals: times that healing was tried.
        latency: seconds that the newest answered canary took.
        error: why the newest canary was lost, "" when it was answered.
    """

    ready: bool = False
    successes: int = 0
    failures: int = 0
    heals: int = 0
    latency: float = 0.0
    error: str = "no canary yet"


class HealthMonitor:
    """Sends canaries and keeps the state."""

    def __init__(
        self,
        client: InferenceClient,
        *,
        model: Model | str = DIAGNOSE,
        interval: float = 1.0,
        timeout: float = 1.0,
        fall: int = 2,
        rise: int = 2,
        heal: Callable[[], Awaitable[object]] | None = None,
        heal_after: int = 3,
        on_change: Callable[[HealthState], None] | None = None,
    ) -> None:
        """Make a monitor; `run` runs it.

        Args:
            client: the client that the service uses, so that what is tested is what is used.
            model: the ensemble.
            interval: seconds between canaries.
            timeout: seconds after which a canary is lost.
            fall: lost canaries in a row that end readiness.
            rise: answered canaries in a row that bring it back (one is enough at the start).
            heal: repairs the server, e.g. `lambda: asyncio.to_thread(server.heal)`.
            heal_after: lost canaries in a row after which `heal` is called.
            on_change: told when readiness changes.
        """
        self._client = client
        self._model = find_model(model)
        self._interval = interval
        self._timeout = timeout
        self._fall = fall
        self._rise = rise
        self._heal = heal
        self._heal_after = heal_after
        self._on_change = on_change
        self._inputs = canary_inputs(self._model)
        self._pause = 0.0
        self._heal_at = 0.0
        self._seen = False
        self.state = HealthState()

    @property
    def ready(self) -> bool:
        """Whether requests should be sent to the server."""
        return self.state.ready

    async def check(self) -> bool:
        """Send one canary and fold its outcome into the state; whether it was answered."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            await self._client.infer(self._inputs, model=self._model, timeout=self._timeout)
        except ScoringError as error:
            self._lost(error.detail)
            return False
        self._answered(loop.time() - started)
        return True

    async def run(self) -> None:
        """Check, heal and sleep until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            if not await self.check():
                await self._heal_if_due()
            await asyncio.sleep(max(0.0, started + self._interval - loop.time()))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[HealthMonitor]:
        """Run in the background inside an `async with`."""
        async with running(self.run()):
            yield self

    def _answered(self, latency: float) -> None:
        successes = self.state.successes + 1
        ready = self.state.ready or not self._seen or successes >= self._rise
        self._seen = True
        self._pause = 0.0
        self._update(
            replace(self.state, ready=ready, successes=successes, failures=0, latency=latency, error=""),
        )

    def _lost(self, error: str) -> None:
        failures = self.state.failures + 1
        ready = self.state.ready and failures < self._fall
        self._update(replace(self.state, ready=ready, successes=0, failures=failures, error=error))

    def _update(self, state: HealthState) -> None:
        before, self.state = self.state, state
        if before.ready != state.ready:
            _LOG.warning("triton is %s%s", "ready" if state.ready else "not ready: ", state.error)
            if self._on_change:
                self._on_change(state)

    async def _heal_if_due(self) -> None:
        loop = asyncio.get_running_loop()
        if self._heal is None or self.state.failures < self._heal_after or loop.time() < self._heal_at:
            return
        self.state = replace(self.state, heals=self.state.heals + 1)
        try:
            outcome = await self._heal()
        except LauncherError as error:
            _LOG.error("triton cannot be healed: %s", error.detail)
        else:
            _LOG.warning("triton was healed: %s", outcome)
        self._pause = min(_LONGEST_PAUSE, max(self._interval, 2 * self._pause))
        self._heal_at = loop.time() + self._pause
