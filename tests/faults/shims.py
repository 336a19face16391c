"""Shims on one PostgreSQL, in one process: apps without HTTP, each with a ledger connection of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from sidecar_api.replica import Replica
from sidecar_api.service import Service
from tcd.errors import TcdError
from tcd.ledger.port import Ledger
from tcd.ledger.postgres import PostgresLedger
from tcd.risk_av import Controller, EpochOpened, Event, Leased
from tcd.risk_av.events import Drawn
from tests.unit.shim.conftest import SEED_HEX, Client, ScriptedScorer, settings_of, synthetic_assets


@dataclass
class Shim:
    """One of them."""

    client: Client
    ledger: PostgresLedger

    @property
    def service(self) -> Service:
        return self.client.app.runtime.service

    @property
    def replica(self) -> Replica:
        found = self.client.app.runtime.replica
        assert found is not None
        return found

    async def stop(self) -> None:
        """As a graceful stop would."""
        await self.service.stop(timeout=60.0)
        await self.replica.stop()
        await self.ledger.close()

    async def crash(self) -> None:
        """As kill -9 would: nothing more is said, the connections end."""
        for task in tuple(self.replica._tasks._running):
            task.cancel()
        if self.service._sweeper is not None:
            self.service._sweeper.cancel()
        await self.ledger.close()


async def start_shim(url: str, scorer: Any = None, **changes: Any) -> Shim:
    """A shim that serves; `changes` are settings. One that a busy machine holds up is not declared lost for that."""
    settings = settings_of(
        **{"attest_sk_hex": SEED_HEX, "lease_ttl_s": 60.0, "alpha": 0.5, "credit_cap": 1000, **changes}
    )
    ledger = await PostgresLedger.open(url, replica=settings.replica, subjects=b"test", origin=settings.origin)
    try:
        app = create_app(
            settings,
            scorer=scorer or ScriptedScorer(),
            assets=FixedAssets(synthetic_assets()),
            edges=Edges(ledger=ledger),
        )
        assert app.runtime.replica is not None
        await app.runtime.replica.start()
    except TcdError:
        await ledger.close()
        raise
    app.runtime.service.start()
    return Shim(Client(app), ledger)


@contextlib.asynccontextmanager
async def shims(url: str, count: int, scorer: Any = None, **changes: Any) -> AsyncIterator[list[Shim]]:
    """`count` shims that end gracefully."""
    made = [await start_shim(url, scorer, **changes) for _ in range(count)]
    try:
        yield made
    finally:
        for shim in made:
            if not shim.ledger._closed:
                await shim.stop()


async def all_events(ledger: Ledger) -> tuple[Event, ...]:
    """The whole log, which has to follow from itself."""
    out: list[Event] = []
    while True:
        page = await ledger.events(first=len(out))
        out += page.events
        if not page.events:
            return tuple(out)


def check_log(events: tuple[Event, ...]) -> Controller:
    """Replays the log; no budget is overspent, no reservation given twice, sequence numbers have no holes."""
    controller = Controller.replay(events)
    alphas: dict[tuple[str, int], float] = {}
    spent: dict[tuple[str, int], float] = {}
    given: dict[tuple[str, int], list[int]] = {}
    seqs: dict[str, list[int]] = {}
    drawn: set[tuple[str, int, int]] = set()
    for event in events:
        if isinstance(event, EpochOpened):
            alphas[event.stream, event.epoch] = event.params.alpha
        if isinstance(event, Leased):
            key = (event.stream, event.epoch)
            spent[key] = spent.get(key, 0.0) + event.cost * event.count
            given.setdefault(key, []).extend(range(event.index, event.index + event.count))
            seqs.setdefault(event.stream, []).extend(range(event.seq, event.seq + event.count))
        if isinstance(event, Drawn):
            place = (event.stream, event.lease, event.offset)
            assert place not in drawn, "a reservation was drawn twice"
            drawn.add(place)
    for key, total in spent.items():
        assert total <= alphas[key] * (1 + 1e-12), "more was spent than an epoch has"
        assert given[key] == list(range(1, len(given[key]) + 1)), "a reservation was given twice"
    for stream, found in seqs.items():
        assert found == list(range(1, len(found) + 1)), f"sequence numbers of {stream} have holes"
    return controller
