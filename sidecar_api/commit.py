"""Group commit: whatever is ready in one tick of the loop becomes durable in one append.

A commit that is waited for by nobody any more (a cancelled client) still happens. Events of a commit that
failed are carried to the next one: the controller's log has no holes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tcd.errors import TcdError, Unavailable
from tcd.ledger import Appended, Batch, Idempotent, Ledger
from tcd.ledger.shared import Fenced, InDoubt
from tcd.receipts import Receipt
from tcd.risk_av import Event

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class _Item:
    batch: Batch
    done: asyncio.Future[None]
    lost: Callable[[], None] | None


class Watcher(Protocol):
    """Whoever follows a shared log; must not raise."""

    def appended(self, appended: Appended, events: tuple[Event, ...]) -> None:
        """Events are in the log and end at `appended.events`."""
        ...

    def fenced(self) -> None:
        """This shim may not write any more."""
        ...


class Committer:
    """One writer before a ledger.

    Attributes:
        failures: items that did not become durable.
        watcher: of a shared log.
        grew: is told how many receipts the ledger has after an append of some; must not raise.
        ended: is called after each append; must not raise.
    """

    def __init__(self, ledger: Ledger, *, now_us: Callable[[], int]) -> None:
        """Write to `ledger`; `now_us` is the wall clock in microseconds."""
        self._ledger = ledger
        self._now_us = now_us
        self._waiting: list[_Item] = []
        self._writing = 0
        self._carried: tuple[Event, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self.failures = 0
        self.watcher: Watcher | None = None
        self.grew: Callable[[int], None] = lambda _: None
        self.ended: Callable[[], None] = lambda: None

    def put(
        self,
        *,
        receipts: tuple[Receipt, ...] = (),
        events: tuple[Event, ...] = (),
        answers: tuple[Idempotent, ...] = (),
        erase: tuple[int, ...] = (),
        lost: Callable[[], None] | None = None,
        done: asyncio.Future[None] | None = None,
    ) -> asyncio.Future[None]:
        """Hand over what becomes durable together; the order of calls is the order in the ledger.

        Args:
            receipts: each the next one of its chain.
            events: of the controller.
            answers: of requests with an idempotency key.
            erase: positions of receipts whose bodies go.
            lost: called when it will not be durable, before anybody who waits hears of it.
            done: what to return; None = a new one.

        Returns:
            A future that is done when it is durable, with `TcdError` when it will not be. Whoever waits may cancel
            it: what was handed over is committed all the same.
        """
        loop = asyncio.get_running_loop()
        if done is None:
            done = loop.create_future()
        item = _Item(Batch(receipts, events, answers, erase), done, lost)
        self._waiting.append(item)
        if self._task is None:
            self._task = loop.create_task(self._run())
        return item.done

    @property
    def under_way(self) -> int:
        """Items that are not durable yet."""
        return self._writing + len(self._waiting)

    @property
    def carries(self) -> bool:
        """Whether events of a failed commit wait for the next one."""
        return bool(self._carried)

    def discard(self) -> None:
        """Forget what waits: it was made by a shim that was declared lost since."""
        waiting, self._waiting, self._carried = self._waiting, [], ()
        for item in waiting:
            _finish(item, Fenced("this shim was declared lost"))

    async def flush(self) -> None:
        """Wait until nothing waits."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                items, self._waiting = self._waiting, []
                self._writing = len(items)
                await self._append(items)
                self._writing = 0
                self.ended()
                if self._ledger.durable:
                    # who waited for that sync may have the next thing ready: it joins those who came meanwhile
                    await asyncio.sleep(0)
        finally:
            self._task, self._writing = None, 0
            waiting, self._waiting = self._waiting, []
            for item in waiting:
                self._finish_one(item, Unavailable("the ledger's writer was stopped"))

    async def _append(self, items: list[_Item]) -> None:
        error = await self._try(items)
        # one batch in doubt comes again as a whole, one of a fenced shim never
        if error is not None and len(items) > 1 and not isinstance(error, Fenced | InDoubt):
            for item in items:
                alone = await self._try([item])
                self._finish_one(item, alone)
            return
        for item in items:
            self._finish_one(item, error)

    def _finish_one(self, item: _Item, error: TcdError | None) -> None:
        if error is not None:
            self.failures += 1
            if not isinstance(error, Fenced):
                self._carried += item.batch.events
        _finish(item, error)

    async def _try(self, items: list[_Item]) -> TcdError | None:
        merged = Batch(
            receipts=tuple(r for item in items for r in item.batch.receipts),
            events=self._carried + tuple(e for item in items for e in item.batch.events),
            answers=tuple(a for item in items for a in item.batch.answers),
            erase=tuple(e for item in items for e in item.batch.erase),
        )
        try:
            appended = await self._ledger.append(merged, now_us=self._now_us())
        except Fenced as error:
            if self.watcher is not None:
                self.watcher.fenced()
            return error
        except TcdError as error:
            return error
        except OSError as error:
            return Unavailable(f"the ledger cannot be written: {error.strerror or type(error).__name__}")
        except Exception as error:  # noqa: BLE001 - a defect below: whoever waits has to hear of it, events are kept
            _LOG.exception("the ledger failed")
            return Unavailable(f"the ledger cannot be written: {type(error).__name__}")
        self._carried = ()
        if merged.receipts:
            self.grew(appended.size)
        if self.watcher is not None:
            self.watcher.appended(appended, merged.events)
        return None


def _finish(item: _Item, error: TcdError | None) -> None:
    if error is not None and item.lost is not None:
        item.lost()
    if item.done.done():
        return
    if error is None:
        item.done.set_result(None)
    else:
        item.done.set_exception(error)
        # nobody may be waiting any more: then nobody has to hear of it
        item.done.exception()
