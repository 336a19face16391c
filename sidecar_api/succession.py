"""What shims that write no more left: who counts as lost, and the end of their leases and chains."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from sidecar_api.following import Follower
from sidecar_api.receipting import Receipts
from sidecar_api.recovery import opened
from tcd.ledger import Batch
from tcd.ledger.shared import Member, Root, SharedLedger

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Watched:
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


class Succession:
    """Ends what others left."""

    def __init__(self, ledger: SharedLedger, follower: Follower, *, receipts: Receipts | None, ttl: float) -> None:
        """Of members of `ledger`; one without a sign of life for `ttl` seconds is lost."""
        self._ledger = ledger
        self._follower = follower
        self._receipts = receipts
        self._ttl = ttl
        self._watched = Watched()

    def look_away(self) -> None:
        """The ledger did not answer: nobody is judged by a time in which nobody could give a sign."""
        self._watched = Watched()

    async def end_lost(self) -> None:
        """Look at the signs of life; end what the lost ones left."""
        now = asyncio.get_running_loop().time()
        members = [m for m in await self._ledger.members() if m.epoch != self._ledger.epoch]
        lost = self._watched.lost(members, now, self._ttl)
        if lost:
            _LOG.warning("shims gave no sign of life for %s s and are declared lost: %s", self._ttl, lost)
            await self.retire(lost)
            await self.tidy()

    async def replace(self, name: str) -> None:
        """End the predecessors of the shim `name`."""
        await self.retire([m.epoch for m in await self._ledger.members() if m.replica == name])

    async def retire(self, epochs: Sequence[int]) -> None:
        """Fence members; with it, in the same transaction, their leases end: what they held is lost."""
        for epoch in epochs:
            if epoch == self._ledger.epoch:
                continue

            async def work(root: Root, epoch: int = epoch) -> Batch:
                await self._follower.catch_up(root)
                if not await root.retire(epoch):
                    return Batch()
                controller = self._follower.controller
                # what of it was drawn is not known: all that was never heard of counts as e = kappa
                return Batch(
                    events=tuple(
                        event
                        for stream, number in controller.leases(f"shim-{epoch}")
                        for event in controller.plan_end(stream=stream, number=number, drawn=sys.maxsize)
                    )
                )

            await self._follower.transact(work)

    async def tidy(self) -> int:
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

            await self._follower.transact(work)
            closed += count
            if not count:
                break
        return closed
