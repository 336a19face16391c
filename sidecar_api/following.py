"""The controller of a shim, kept where the shared log is.

Everything that changes a budget itself is made under the lock of the log, from all of it, and takes effect here when
it is read back from there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from sidecar_api.shared_budget import SharedBudget
from tcd.background import Tasks
from tcd.ledger import Appended, Batch
from tcd.ledger.shared import Fenced, Root, SharedLedger
from tcd.risk_av import Controller, Event, Leased, ReplayError


class Follower:
    """Folds the events of a shared log in their order, whoever wrote them. Bound to one event loop.

    Attributes:
        position: events that were folded.
        problem: why the log cannot be followed, or empty.
        fenced: called when this shim turns out to be declared lost.
    """

    def __init__(
        self,
        ledger: SharedLedger,
        budget: SharedBudget,
        *,
        tasks: Tasks,
        fenced: Callable[[], None],
        now_us: Callable[[], int],
    ) -> None:
        """Follow `ledger` with the controller of `budget`; work beside runs in `tasks`."""
        self._ledger = ledger
        self._budget = budget
        self._tasks = tasks
        self._now_us = now_us
        self._catching = asyncio.Lock()
        self.fenced = fenced
        self.position = 0
        self.problem = ""

    @property
    def controller(self) -> Controller:
        """As of `position`."""
        return self._budget.controller

    @property
    def holder(self) -> str:
        """Name of this shim in leases; its number is the fencing token."""
        return f"shim-{self._ledger.epoch}"

    async def transact(self, work: Callable[[Root], Awaitable[Batch]]) -> None:
        """Append under the lock of the log, and apply what was appended."""
        made: list[Batch] = []

        async def kept(root: Root) -> Batch:
            batch = await work(root)
            made.append(batch)
            return batch

        try:
            appended = await self._ledger.transact(kept, now_us=self._now_us())
        except Fenced:
            self.fenced()
            raise
        self.appended(appended, made[0].events)

    def appended(self, appended: Appended, events: tuple[Event, ...]) -> None:
        """This shim's events are in the log, and end at `appended.events`."""
        events = events[appended.known :]
        first = appended.events - len(events)
        if first > self.position:
            if not self._tasks.over:
                self._tasks.start(self.catch_up())
            return
        # a log that does not follow from itself was seen, see `problem`: that it was written to stays true
        with contextlib.suppress(ReplayError):
            self._fold(first, events)

    async def catch_up(self, root: Root | None = None) -> None:
        """Fold what others appended."""
        async with self._catching:
            while True:
                first = self.position
                page = await (self._ledger.events(first=first) if root is None else root.page(first))
                self._fold(first, page.events)
                if not page.events:
                    return

    def _fold(self, first: int, events: tuple[Event, ...]) -> None:
        """Apply events of the log that were not applied yet."""
        controller, budget = self.controller, self._budget
        for event in events[max(0, self.position - first) :]:
            try:
                controller.fold((event,))
            except ReplayError as error:
                self.problem = f"the shared log does not follow from itself: {error.detail}"
                raise
            self.position += 1
            budget.changed(getattr(event, "stream", ""))
            if isinstance(event, Leased) and event.holder == self.holder:
                budget.adopt(controller.granted(stream=event.stream, number=event.lease))
