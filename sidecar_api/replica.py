"""One shim among several on a shared ledger: it follows the log, leases budget, and ends what lost shims left.

Everything that changes a budget itself is made under the lock of the log, from all of it, and takes effect here when
it is read back from there. A shim that was declared lost hears of it at its next word, forgets what it held, and
joins again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar_api.commit import Committer
from sidecar_api.receipting import Receipts
from sidecar_api.recovery import Recovered, opened, restore
from sidecar_api.shared_budget import SharedBudget
from tcd.background import end
from tcd.errors import ConfigError, Conflict, TcdError, Unavailable
from tcd.ledger import Appended, Batch, SavedState
from tcd.ledger.shared import Fenced, Member, Root, SharedLedger
from tcd.receipts import ChainState, Receipt
from tcd.risk_av import (
    Acknowledged,
    Configured,
    ControllerParams,
    EpochOpened,
    Event,
    Leased,
    LeaseRequest,
    ReplayError,
)

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


@dataclass(slots=True)
class _Wish:
    length: int
    done: asyncio.Future[None]
    count: int = 0


@dataclass(slots=True)
class _Watched:
    """Signs of life of the other members, by this shim's own clock and only while the ledger answers."""

    seen: dict[int, tuple[str, float]] = field(default_factory=dict)
    at: float = 0.0

    def lost(self, members: Sequence[Member], now: float, ttl: float) -> list[int]:
        """Members that gave no sign for `ttl` seconds, in which this shim looked again and again."""
        if now - self.at > ttl:
            # this shim was away itself, and what held it up may have held up the others
            self.seen.clear()
        self.at = now
        found = {m.epoch: self.seen.get(m.epoch) for m in members}
        self.seen = {
            m.epoch: old if old is not None and old[0] == m.seen else (m.seen, now)
            for m in members
            for old in (found[m.epoch],)
        }
        return [epoch for epoch, (_, since) in self.seen.items() if now - since > ttl]


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
        self._receipts = receipts
        self._committer = committer
        self._now_us = now_us
        self._wanted = budget.controller.params
        self._wishes: dict[str, _Wish] = {}
        self._watched = _Watched()
        self._catching = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leasing: asyncio.Task[None] | None = None
        self._rejoining: asyncio.Task[None] | None = None
        self._saved = 0
        self._broken = ""
        self._stopping = False
        self.position = 0
        self.forget: Callable[[], None] = lambda: None
        budget.ask = self._ask
        committer.watcher = self

    @property
    def holder(self) -> str:
        """Name of this shim in leases; its number is the fencing token."""
        return f"shim-{self._ledger.epoch}"

    def problem(self) -> str:
        """Why this shim is not ready, or empty."""
        return self._broken

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
            for task in tuple(self._tasks):
                await end(task)
            with contextlib.suppress(TcdError):
                await self._ledger.leave()
            raise

    async def _start(self) -> Recovered:
        controller = self._budget.controller
        events, saved = await restore(self._ledger, controller)
        self.position, self._saved = events, saved
        hypotheses = sum(len(controller.open_hypotheses(stream)) for stream in controller.streams)
        self._spawn(self._live())
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
                    await self._retire([m.epoch for m in await self._ledger.members() if m.replica == self._rules.name])
                await self._agree()
                return await self._tidy()
            except Fenced:  # noqa: PERF203 - tried again
                tries += 1
                if tries == _SETTLE_TRIES:
                    raise
                self.fenced()
                if self._rejoining is not None:
                    await self._rejoining

    async def stop(self) -> None:
        """Return every lease and leave; sessions were closed before."""
        self._stopping = True
        for task in tuple(self._tasks):
            await end(task)
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
            await self._end_lost()

    async def _configure(self, *, alone: bool) -> int:
        """Log the wanted parameters where they are not the log's; other members that stand against it."""
        others = 0

        async def work(root: Root) -> Batch:
            nonlocal others
            await self._catch_up(root)
            controller = self._budget.controller
            if self.position and controller.params == self._wanted:
                return Batch()
            others = sum(m.epoch != self._ledger.epoch for m in await root.members()) if alone and self.position else 0
            return Batch() if others else Batch(events=(Configured("", self._wanted),))

        await self._transact(work)
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
            await self._catch_up(root)
            view = self._budget.controller.state(stream)
            if view.claim != claim or not (view.alarm or view.cusum_alarm):
                msg = "there is no alarm of this claim to acknowledge"
                raise Conflict(msg)
            made = make(view.claim + 1)
            return Batch(made, (Acknowledged(stream, view.claim + 1),))

        await self._transact(work)
        self._budget.changed(stream)
        return made

    # -- following the log ---------------------------------------------------------------------------------

    async def _transact(self, work: Callable[[Root], object]) -> None:
        """Append under the lock of the log, and apply what was appended."""
        made: list[Batch] = []

        async def kept(root: Root) -> Batch:
            batch = await work(root)  # type: ignore[misc]
            made.append(batch)
            return batch  # type: ignore[no-any-return]

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
            if not self._stopping:
                self._spawn(self._catch_up())
            return
        # a log that does not follow from itself was seen, see `problem`: that it was written to stays true
        with contextlib.suppress(ReplayError):
            self._fold(first, events)

    async def _catch_up(self, root: Root | None = None) -> None:
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
        controller, budget = self._budget.controller, self._budget
        for event in events[max(0, self.position - first) :]:
            try:
                controller.fold((event,))
            except ReplayError as error:
                self._broken = f"the shared log does not follow from itself: {error.detail}"
                raise
            self.position += 1
            budget.changed(getattr(event, "stream", ""))
            if isinstance(event, Leased) and event.holder == self.holder:
                budget.adopt(controller.granted(stream=event.stream, number=event.lease))

    # -- leases --------------------------------------------------------------------------------------------

    async def _ask(self, stream: str, length: int) -> None:
        """Get leases of a stream for one more reservation; all that ask at once share one transaction."""
        wish = self._wishes.get(stream)
        if wish is None:
            wish = self._wishes[stream] = _Wish(length, asyncio.get_running_loop().create_future())
        wish.count += 1
        if self._leasing is None:
            self._leasing = self._spawn(self._lease())
        await asyncio.shield(wish.done)

    async def _lease(self) -> None:
        try:
            while self._wishes:
                wishes, self._wishes = self._wishes, {}
                try:
                    refused = await self._grant(wishes)
                except Exception as error:  # noqa: BLE001 - whoever waits has to hear of it, whatever it is
                    known = error if isinstance(error, TcdError) else Unavailable("a lease could not be had")
                    if known is not error:
                        _LOG.exception("the lease of a budget failed")
                    refused = dict.fromkeys(wishes, known)
                for stream, wish in wishes.items():
                    _finish(wish.done, refused.get(stream))
        finally:
            self._leasing = None
            for wish in self._wishes.values():
                _finish(wish.done, Unavailable("the shim is stopping"))

    async def _grant(self, wishes: dict[str, _Wish]) -> dict[str, TcdError]:
        """Lease what is wished for; the streams that have no budget, and why."""
        refused: dict[str, TcdError] = {}

        async def work(root: Root) -> Batch:
            await self._catch_up(root)
            budget, replicas = self._budget, len(await root.members())
            requests = [
                LeaseRequest(
                    stream,
                    self.holder,
                    replicas,
                    wish.count,
                    schedule=budget.schedule(stream, wish.length),  # type: ignore[arg-type]
                    pool=budget.pool(stream, wish.length),
                )
                for stream, wish in wishes.items()
            ]
            events, dry = budget.controller.plan_leases(requests)
            refused.update(dry)
            return Batch(await self._epochs(root, events), tuple(events))

        await self._transact(work)
        return refused

    async def _epochs(self, root: Root, events: Sequence[Event]) -> tuple[Receipt, ...]:
        """Records of the epochs that `events` open; their chains are named so that every shim finds them."""
        receipts = self._receipts
        if receipts is None:
            return ()
        out: list[Receipt] = []
        last: dict[str, ChainState] = {}
        for event in events:
            if not isinstance(event, EpochOpened):
                continue
            owner = self._budget.tenant(event.stream)
            before = last.get(event.stream)
            if before is None and event.epoch > 1:
                before = await root.chain(receipts.epoch_chain(event.stream, event.epoch - 1, self._ledger.identity))
            if before is not None and not before.closed:
                out.append(receipts.roll_epoch(before, owner))
                root.unowned.add(before.id)
            chain = receipts.epoch_chain(event.stream, event.epoch, self._ledger.identity)
            out.append(receipts.open_epoch(event, owner, chain))
            root.unowned.add(chain)
            last[event.stream] = out[-1].next()
        return tuple(out)

    # -- signs of life -------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(self._rules.ttl / 4)
            try:
                await self._beat()
            except Fenced:
                self.fenced()
            except TcdError as error:
                # nobody is judged by a time in which nobody could give a sign
                self._watched = _Watched()
                _LOG.warning("the shared ledger cannot be followed: %s", error.detail)
            except Exception:  # noqa: BLE001 - a defect must not end the signs of life; the log has it
                _LOG.exception("the shared ledger cannot be followed")

    async def _beat(self) -> None:
        if self._rejoining is not None:
            return
        await self._ledger.beat()
        await self._catch_up()
        await self._end_lost()
        budget = self._budget
        budget.sweep(self._rules.idle)
        events = budget.take_events()
        if events or self._committer.carries:
            self._committer.put(events=events)
        if budget.wanted is not None:
            self._wanted, budget.wanted = budget.wanted, None
            await self._configure(alone=False)
        if len(budget.controller.streams) > self._rules.awake:
            await self._transact(self._rest)
        if self.position - self._saved >= self._rules.state_every:
            self._saved = self.position
            frozen = budget.controller.freeze()
            data = await asyncio.to_thread(frozen.encode)
            # another shim may have saved one that is newer
            with contextlib.suppress(Conflict):
                await self._ledger.put_state(SavedState(self._saved, data))

    async def _rest(self, root: Root) -> Batch:
        await self._catch_up(root)
        return Batch(events=tuple(self._budget.controller.plan_rest(_RESTING)))

    async def _end_lost(self) -> None:
        now = asyncio.get_running_loop().time()
        members = [m for m in await self._ledger.members() if m.epoch != self._ledger.epoch]
        lost = self._watched.lost(members, now, self._rules.ttl)
        if lost:
            _LOG.warning("shims gave no sign of life for %s s and are declared lost: %s", self._rules.ttl, lost)
            await self._retire(lost)
            await self._tidy()

    async def _retire(self, epochs: Sequence[int]) -> None:
        """Fence members; with it, in the same transaction, their leases end: what they held is lost."""
        for epoch in epochs:
            if epoch == self._ledger.epoch:
                continue

            async def work(root: Root, epoch: int = epoch) -> Batch:
                await self._catch_up(root)
                if not await root.retire(epoch):
                    return Batch()
                controller = self._budget.controller
                # what of it was drawn is not known: all that was never heard of counts as e = kappa
                return Batch(
                    events=tuple(
                        event
                        for stream, number in controller.leases(f"shim-{epoch}")
                        for event in controller.plan_end(stream=stream, number=number, drawn=sys.maxsize)
                    )
                )

            await self._transact(work)

    async def _tidy(self) -> int:
        """Close the chains of members that write no more; how many."""
        receipts, closed = self._receipts, 0
        while receipts is not None:
            count = 0

            async def work(root: Root, receipts: Receipts = receipts) -> Batch:
                nonlocal count
                orphans = await root.orphans()
                firsts = await root.first_records([state.id for state in orphans])
                count = len(orphans)
                return Batch(tuple(receipts.abandon(state, opened(firsts.get(state.id))[0]) for state in orphans))

            await self._transact(work)
            closed += count
            if not count:
                break
        return closed

    # -- being declared lost -------------------------------------------------------------------------------

    def fenced(self) -> None:
        """This shim was declared lost: forget what it held, join again."""
        if self._rejoining is None:
            _LOG.warning("this shim was declared lost; it joins again, and its open hypotheses are over")
            self._budget.reset()
            self._committer.discard()
            self.forget()
            self._rejoining = self._spawn(self._rejoin())

    async def _rejoin(self) -> None:
        try:
            while True:
                try:
                    await self._ledger.join()
                    await self._catch_up()
                except Unavailable:  # noqa: PERF203 - tried again until it is there
                    await asyncio.sleep(_REJOIN_S)
                else:
                    return
        finally:
            self._rejoining = None

    def _spawn(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.warning("following the shared ledger: %s", type(task.exception()).__name__)


def _finish(done: asyncio.Future[None], error: TcdError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
        done.exception()


def shared_params(params: ControllerParams) -> None:
    """Refuse parameters whose budget cannot be leased.

    Raises:
        ConfigError: the costs of the rule depend on evidence, or the schedule has no length.
    """
    if params.rule != "rai" or params.schedule[0] != "uniform":
        msg = "shims on a shared ledger lease parts of a budget: that needs rule=rai and schedule=uniform"
        raise ConfigError(msg)
