"""The keeper of saved states: what it saves is the state at the hand-over, and only once that is durable."""

from __future__ import annotations

import asyncio

import pytest

from sidecar_api.states import StateKeeper
from tcd.errors import Unavailable
from tcd.ledger import Batch, MemoryLedger, SavedState
from tcd.risk_av import Controller


class Shim:
    """A controller before a ledger that says when it is durable."""

    def __init__(self, every: int) -> None:
        self.ledger = MemoryLedger()
        self.controller = Controller()
        self.keeper = StateKeeper(self.ledger, self.controller, every=every)
        self.count = 0

    async def hand(self, done: asyncio.Future[None]) -> bytes:
        """One reservation; its events are in the ledger, `done` is the shim's word for it."""
        self.count += 1
        self.controller.reserve(stream="s", hypothesis=str(self.count))
        events = self.controller.take_events()
        await self.ledger.append(Batch(events=events), now_us=0)
        self.keeper.handed(len(events), done)
        return self.controller.save()


def future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def test_a_state_is_that_of_the_hand_over_and_waits_until_it_is_durable() -> None:
    shim, done = Shim(every=2), future()
    wanted = await shim.hand(done)
    await shim.hand(future())
    assert await shim.ledger.states() == ()
    done.set_result(None)
    await shim.keeper.settled()
    assert await shim.ledger.states() == (2,)
    assert await shim.ledger.state(2) == SavedState(2, wanted)


async def test_after_a_failed_commit_a_later_state_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar_api.states._PER_EVENT", 10**9)
    shim, done = Shim(every=1), future()
    await shim.hand(done)
    done.set_exception(Unavailable("no space"))
    await shim.keeper.settled()
    assert await shim.ledger.states() == ()
    done = future()
    done.set_result(None)
    wanted = await shim.hand(done)
    await shim.keeper.settled()
    assert await shim.ledger.state(3) == SavedState(3, wanted)


async def test_states_are_as_seldom_as_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar_api.states._PER_EVENT", 40)
    shim = Shim(every=2)
    for _ in range(120):
        done = future()
        done.set_result(None)
        await shim.hand(done)
        await shim.keeper.settled()
    newest, older = await shim.ledger.states()
    size = len((await shim.ledger.state(older)).data)
    assert newest - older >= size // 40 > 2


async def test_the_end_is_saved_unless_events_are_still_held_back() -> None:
    shim = Shim(every=1000)
    done = future()
    done.set_result(None)
    wanted = await shim.hand(done)
    shim.controller.reserve(stream="s", hypothesis="held back")
    await shim.keeper.finish()
    assert await shim.ledger.states() == ()
    await shim.ledger.append(Batch(events=shim.controller.take_events()), now_us=0)
    shim.keeper.handed(1, done)
    await shim.keeper.finish()
    assert await shim.ledger.states() == (3,)
    assert (await shim.ledger.state(3)).data != wanted
