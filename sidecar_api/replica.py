"""One shim among several on a shared ledger: it joins, agrees on the parameters, gives signs of life, and leaves.

A shim that was declared lost hears of it at its next word, forgets what it held, and joins again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sidecar_api.commit import Committer
from sidecar_api.following import Follower
from sidecar_api.leasing import Leasing
from sidecar_api.receipting import Receipts
from sidecar_api.recovery import Recovered, restore
from sidecar_api.shared_budget import SharedBudget
from sidecar_api.succession import Succession
from tcd.background import Tasks
from tcd.errors import ConfigError, Conflict, TcdError, Unavailable
from tcd.ledger import Batch, SavedState
from tcd.ledger.shared import Fenced, Root, SharedLedger
from tcd.receipts import Receipt
from tcd.risk_av import Acknowledged, Configured

_LOG = logging.getLogger(__name__)
#: Streams looked at for ones that may rest, at each beat.
_RESTING: Final = 64
_REJOIN_S: Final = 0.2
#: Times that a start joins again when it was declared lost meanwhile.
_SETTLE_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class ReplicaRules:
    """How a shim lives among others.

    Attributes:
        name: of this shim, or empty; a member of the same name is its predecessor.
        ttl: seconds without a sign of life after which a shim is declared lost.
        idle: seconds after which a lease that nobody draws from is returned.
        state_every: events between saved states.
        awake: streams that are kept ready.
    """

    name: str
    ttl: float
    idle: float
    state_every: int
    awake: int = 8192


class Replica:
    """The shim's end of a shared ledger. Bound to one event loop."""

    def __init__(
        self,
        ledger: SharedLedger,
        budget: SharedBudget,
        *,
        rules: ReplicaRules,
        receipts: Receipts | None,
        committer: Committer,
        now_us: Callable[[], int],
    ) -> None:
        """Follow `ledger` with the controller of `budget`; `receipts` None = receipts are off."""
        self._ledger = ledger
        self._budget = budget
        self._rules = rules
        self._committer = committer
        self._wanted = budget.controller.params
        self._tasks = Tasks("following the shared ledger")
        self._rejoining: asyncio.Task[None] | None = None
        self._saved = 0
        self.follower = Follower(ledger, budget, tasks=self._tasks, fenced=self.fenced, now_us=now_us)
        self._succession = Succession(ledger, self.follower, receipts=receipts, ttl=rules.ttl)
        self._leasing = Leasing(ledger, self.follower, budget, receipts=receipts, tasks=self._tasks)
        self.forget: Callable[[], None] = lambda: None
        budget.ask = self._leasing.ask
        committer.watcher = self.follower

    def problem(self) -> str:
        """Why this shim is not ready, or empty."""
        return self.follower.problem

    # -- life ----------------------------------------------------------------------------------------------

    async def start(self) -> Recovered:
        """Come to where the log ends, end what predecessors and lost shims left, agree on the parameters.

        Raises:
            ConfigError: other shims run with other parameters.
            ReplayError: an event does not follow from the ones before: the ledger was altered.
            tcd.errors.Unavailable: the ledger cannot be read or written.
        """
        try:
            return await self._start()
        except BaseException:
            # one that does not serve is nobody that others have to wait for
            await self._tasks.end()
            with contextlib.suppress(TcdError):
                await self._ledger.leave()
            raise

    async def _start(self) -> Recovered:
        controller = self._budget.controller
        events, saved = await restore(self._ledger, controller)
        self.follower.position, self._saved = events, saved
        hypotheses = sum(len(controller.open_hypotheses(stream)) for stream in controller.streams)
        self._tasks.start(self._live())
        chains = await self._settle_in()
        hypotheses -= sum(len(controller.open_hypotheses(stream)) for stream in controller.streams)
        return Recovered(events, saved, len(controller.streams), max(0, hypotheses), chains)

    async def _settle_in(self) -> int:
        """End what predecessors left, agree on the parameters; chains that were closed.

        To come here, and this itself, may take longer than the others wait for a sign of life: then it joins again.
        """
        tries = 0
        while True:
            try:
                if self._rules.name:
                    await self._succession.replace(self._rules.name)
                await self._agree()
                return await self._succession.tidy()
            except Fenced:  # noqa: PERF203 - tried again
                tries += 1
                if tries == _SETTLE_TRIES:
                    raise
                self.fenced()
                if self._rejoining is not None:
                    await self._rejoining

    async def stop(self) -> None:
        """Return every lease and leave; sessions were closed before."""
        await self._tasks.end()
        self._budget.sweep(-1.0)
        try:
            await self._committer.put(events=self._budget.take_events())
            await self._ledger.leave()
        except TcdError as error:
            _LOG.warning("this shim could not leave the ledger, others will declare it lost: %s", error.detail)

    async def _agree(self) -> None:
        """Make the settings' parameters those of the log; other shims that are alive must have the same."""
        loop = asyncio.get_running_loop()
        until = loop.time() + 1.5 * self._rules.ttl
        while True:
            others = await self._configure(alone=True)
            if not others:
                return
            if loop.time() > until:
                msg = f"{others} other shims of this ledger run with other parameters of the controller; "
                msg += "remedy: the same alpha, rule and epoch settings on all of them, or stop them"
                raise ConfigError(msg)
            await asyncio.sleep(self._rules.ttl / 4)
            await self._succession.end_lost()

    async def _configure(self, *, alone: bool) -> int:
        """Log the wanted parameters where they are not the log's; other members that stand against it."""
        others = 0

        async def work(root: Root) -> Batch:
            nonlocal others
            await self.follower.catch_up(root)
            controller = self._budget.controller
            begun = bool(self.follower.position)
            if begun and controller.params == self._wanted:
                return Batch()
            others = sum(m.epoch != self._ledger.epoch for m in await root.members()) if alone and begun else 0
            return Batch() if others else Batch(events=(Configured("", self._wanted),))

        await self.follower.transact(work)
        return others

    async def acknowledge(
        self, stream: str, claim: int, make: Callable[[int], tuple[Receipt, ...]]
    ) -> tuple[Receipt, ...]:
        """Clear the alarms of a stream's `claim` for all shims; the records that `make` made for the new claim.

        Raises:
            tcd.errors.Conflict: another shim did it meanwhile.
            tcd.errors.Unavailable: the ledger cannot be written.
        """
        made: tuple[Receipt, ...] = ()

        async def work(root: Root) -> Batch:
            nonlocal made
            await self.follower.catch_up(root)
            view = self._budget.controller.state(stream)
            if view.claim != claim or not (view.alarm or view.cusum_alarm):
                msg = "there is no alarm of this claim to acknowledge"
                raise Conflict(msg)
            made = make(view.claim + 1)
            return Batch(made, (Acknowledged(stream, view.claim + 1),))

        await self.follower.transact(work)
        self._budget.changed(stream)
        return made

    # -- signs of life -------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(self._rules.ttl / 4)
            try:
                await self._beat()
            except Fenced:
                self.fenced()
            except TcdError as error:
                self._succession.look_away()
                _LOG.warning("the shared ledger cannot be followed: %s", error.detail)
            except Exception:  # noqa: BLE001 - a defect must not end the signs of life; the log has it
                _LOG.exception("the shared ledger cannot be followed")

    async def _beat(self) -> None:
        if self._rejoining is not None:
            return
        await self._ledger.beat()
        await self.follower.catch_up()
        await self._succession.end_lost()
        budget = self._budget
        budget.sweep(self._rules.idle)
        events = budget.take_events()
        if events or self._committer.carries:
            self._committer.put(events=events)
        if budget.wanted is not None:
            self._wanted, budget.wanted = budget.wanted, None
            await self._configure(alone=False)
        if len(budget.controller.streams) > self._rules.awake:
            await self.follower.transact(self._rest)
        if self.follower.position - self._saved >= self._rules.state_every:
            self._saved = self.follower.position
            frozen = budget.controller.freeze()
            data = await asyncio.to_thread(frozen.encode)
            # another shim may have saved one that is newer
            with contextlib.suppress(Conflict):
                await self._ledger.put_state(SavedState(self._saved, data))

    async def _rest(self, root: Root) -> Batch:
        await self.follower.catch_up(root)
        return Batch(events=tuple(self._budget.controller.plan_rest(_RESTING)))

    # -- being declared lost -------------------------------------------------------------------------------

    def fenced(self) -> None:
        """This shim was declared lost: forget what it held, join again."""
        if self._rejoining is None:
            _LOG.warning("this shim was declared lost; it joins again, and its open hypotheses are over")
            self._budget.reset()
            self._committer.discard()
            self.forget()
            self._rejoining = self._tasks.start(self._rejoin())

    async def _rejoin(self) -> None:
        try:
            while True:
                try:
                    await self._ledger.join()
                    await self.follower.catch_up()
                except Unavailable:  # noqa: PERF203 - tried again until it is there
                    await asyncio.sleep(_REJOIN_S)
                else:
                    return
        finally:
            self._rejoining = None
