"""How a shim gets its leases: all that ask at once share one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar_api.following import Follower
from sidecar_api.receipting import Receipts
from sidecar_api.shared_budget import SharedBudget
from tcd.background import Tasks
from tcd.errors import TcdError, Unavailable
from tcd.ledger import Batch
from tcd.ledger.shared import Root, SharedLedger
from tcd.receipts import ChainState, Receipt
from tcd.risk_av import EpochOpened, Event, LeaseRequest

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class _Wish:
    length: int
    done: asyncio.Future[None]
    count: int = 0


class Leasing:
    """Asks the log for leases. Bound to one event loop."""

    def __init__(
        self,
        ledger: SharedLedger,
        follower: Follower,
        budget: SharedBudget,
        *,
        receipts: Receipts | None,
        tasks: Tasks,
    ) -> None:
        """For `budget`; `receipts` of the epochs that open, None = receipts are off."""
        self._ledger = ledger
        self._follower = follower
        self._budget = budget
        self._receipts = receipts
        self._tasks = tasks
        self._wishes: dict[str, _Wish] = {}
        self._leasing: asyncio.Task[None] | None = None

    async def ask(self, stream: str, length: int) -> None:
        """Get leases of a stream for one more reservation.

        Raises:
            TcdError: it has no budget, or the ledger cannot be written.
        """
        wish = self._wishes.get(stream)
        if wish is None:
            wish = self._wishes[stream] = _Wish(length, asyncio.get_running_loop().create_future())
        wish.count += 1
        if self._leasing is None:
            self._leasing = self._tasks.start(self._lease())
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
            await self._follower.catch_up(root)
            budget, replicas = self._budget, len(await root.members())
            requests = [
                LeaseRequest(
                    stream,
                    self._follower.holder,
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

        await self._follower.transact(work)
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


def _finish(done: asyncio.Future[None], error: TcdError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
        done.exception()
