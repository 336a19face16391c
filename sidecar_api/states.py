"""Saves the controller's state beside its log now and then, so that a start folds few events.

The state is taken where it is exactly what the events handed over so far come to, written out in a thread, and kept
once those are durable. Only for a log that no other process writes to. Losing a state costs time at the next start and
nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from tcd.errors import TcdError
from tcd.ledger import Ledger, SavedState
from tcd.risk_av import Controller, Frozen

_LOG = logging.getLogger(__name__)
#: Bytes of a state that are worth one event: what is written for states stays below what is written for events.
_PER_EVENT: Final = 128


class StateKeeper:
    """Counts the events of a log and saves the state every so many."""

    def __init__(self, ledger: Ledger, controller: Controller, *, every: int) -> None:
        """Save at most once per `every` events, and more seldom where the state is large."""
        self._ledger = ledger
        self._controller = controller
        self._every = every
        self._handed = 0
        self._saved = 0
        self._due = every
        self._task: asyncio.Task[None] | None = None

    def begin(self, events: int, saved: int) -> None:
        """The log has `events` events, and a state after the first `saved` of them is kept."""
        self._handed, self._saved = events, saved

    def handed(self, count: int, durable: asyncio.Future[None]) -> None:
        """`count` events were taken from the controller just now; `durable` is done when they are, or failed."""
        self._handed += count
        if self._handed - self._saved < self._due or self._task is not None:
            return
        frozen = self._controller.freeze()
        self._task = asyncio.get_running_loop().create_task(self._keep(self._handed, frozen, durable))

    async def _keep(self, events: int, frozen: Frozen, durable: asyncio.Future[None] | None = None) -> None:
        try:
            state = SavedState(events, await asyncio.to_thread(frozen.encode))
            self._due = max(self._every, len(state.data) // _PER_EVENT)
            if durable is not None:
                await asyncio.wait([durable])
                if durable.cancelled() or durable.exception() is not None:
                    # its events come with a later commit: a later state will do
                    return
            await self._ledger.put_state(state)
        except TcdError as error:
            _LOG.warning("the state after %d events was not saved: %s", events, error.detail)
        finally:
            self._task = None
        self._saved = events

    async def settled(self) -> None:
        """Wait for the state that is being saved, if one is."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def finish(self) -> None:
        """Everything handed over is durable and nothing more will come: save where it ends."""
        await self.settled()
        if self._handed > self._saved and not self._controller.events:
            await self._keep(self._handed, self._controller.freeze())
