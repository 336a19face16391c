"""A shim with a day of decisions behind it and its admin plane on a port, for browsers: seeded, without Triton.

Healthy sessions have p-values as a calibration promises them, a few degenerate, one is blocked: what the pages show
is made by the shim's own code from the scores that a model could have given.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sidecar_api.admin.app import AdminApp
from sidecar_api.admin.principals import SCOPES
from sidecar_api.admin.serving import AdminServer
from sidecar_api.app import Edges, create_app
from sidecar_api.http.surface import ShimApp
from sidecar_api.pins import FixedAssets
from sidecar_api.stores import memory_ledger
from tcd.client.admin import AdminClient, OperatorKey
from tcd.contract import COMPONENTS
from tcd.rate_limit import Limit, TokenBuckets
from tcd.rows import ScoreResult, ScoreRow
from tests.unit.shim.conftest import Client, result_for, settings_of, synthetic_assets

T = TypeVar("T")
WIDE = Limit(1e9, 1e9)
#: The detector's weight and the level of the fast alarm, as the assets of the tests have them.
WEIGHT, LEVEL = 0.9, 1e-3
#: The session that was blocked, by its names.
BLOCKED = {"tenant": "acme", "user": "u-17", "session": "chat-0042"}
#: Names that would be markup, or worse.
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


@dataclass
class Steps:
    """Scores as told: p of the session so far, p of the step."""

    p: float = 1.0
    step: float = 1.0
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))

    async def score(self, row: ScoreRow, *, timeout: float) -> ScoreResult:
        bad = self.p < 1e-3
        p = self.random.uniform(0.001 if bad else 0.02, 0.02 if bad else 1.0, len(COMPONENTS))
        components = np.stack([1 - p, p, np.sqrt(-2 * np.log(p))], axis=1).astype(np.float32)
        trigger = row.controller and self.p <= row.alpha
        alarm = self.step / WEIGHT <= LEVEL
        return result_for(
            row,
            self.p,
            score=1 - min(1.0, self.step / WEIGHT),
            p_step=(self.step, 1.0),
            components=components,
            verdict=trigger or alarm,
            tier=2 if trigger else int(alarm),
        )


@dataclass
class Stage:
    """What runs.

    Attributes:
        app: the shim.
        server: of the admin plane.
        folder: where it keeps what it keeps.
        alice, bob, carol: operators; Carol is bound to the tenant acme and may read.
        blocked: the answer that blocked `BLOCKED`.
    """

    app: ShimApp
    server: AdminServer
    folder: Path
    alice: OperatorKey
    bob: OperatorKey
    carol: OperatorKey
    blocked: dict[str, Any] = field(default_factory=dict)
    clients: dict[str, AdminClient] = field(default_factory=dict)

    @property
    def admin(self) -> AdminApp:
        """The admin plane's app."""
        app = self.server._server.config.app
        assert isinstance(app, AdminApp)
        return app

    async def call(self, by: OperatorKey, method: str, path: str, body: Any = None, **options: Any) -> Any:
        client = self.clients.get(by.kid)
        if client is None:
            client = self.clients[by.kid] = AdminClient(self.server.url, by, scopes=SCOPES)
        return await asyncio.to_thread(client.call, method, "/admin/v1" + path, body, **options)

    async def login(self, by: OperatorKey | None = None) -> str:
        """An address that lets a browser in."""
        reply = await self.call(by or self.alice, "POST", "/logins")
        assert reply.status_code == 200, reply.text
        return str(reply.json()["result"]["url"])


@asynccontextmanager
async def staged(
    folder: Path, *, sessions: int = 8, hours: float = 20.0, hostile: bool = True, **changes: Any
) -> AsyncIterator[Stage]:
    """A stage with `sessions` sessions over the last `hours`, besides the blocked one and a hostile one."""
    clock = [time.time_ns() // 1000 - int(hours * 3.6e9)]
    settings = settings_of(edge_rate_cap=1e9, edge_rate_refill=1e9, log_decisions=False, **changes)
    scorer = Steps()
    edges = Edges(ledger=memory_ledger(settings), now_us=lambda: clock[0])
    app = create_app(settings, scorer=scorer, assets=FixedAssets(synthetic_assets()), edges=edges)
    async with app.router.lifespan_context(app):
        server = AdminServer(app.runtime, folder / "admin", host="127.0.0.1", port=0)
        said: list[str] = []
        await server.start(said.append)
        server.plane.signatures._since -= 1
        server.plane._buckets = {name: TokenBuckets(WIDE, max_keys=100) for name in server.plane._buckets}
        keys = [OperatorKey.generate(name) for name in ("alice", "bob", "carol")]
        stage = Stage(app, server, folder / "admin", keys[0], keys[1], keys[2])
        try:
            secret = next(line for line in said if line.startswith("bootstrap ")).split()[1]
            reading = ["receipts:read", "alpha:read"]
            people = [*(key.public(SCOPES) for key in keys[:2]), keys[2].public(reading, tenant="acme")]
            reply = await stage.call(stage.alice, "POST", "/enrol", {"keys": people}, bearer=secret)
            assert reply.status_code == 200, reply.text
            stage.blocked = await _decide(app, scorer, clock, sessions, hostile=hostile)
            clock[0] = max(clock[0], time.time_ns() // 1000)
            yield stage
        finally:
            for client in stage.clients.values():
                client.close()
            await server.stop()


@dataclass(frozen=True)
class Threaded:
    """A stage in a loop of its own, for tests that are not asynchronous."""

    stage: Stage
    loop: asyncio.AbstractEventLoop

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` in that loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    @property
    def url(self) -> str:
        return self.stage.server.url


@contextmanager
def threaded(folder: Path, **options: Any) -> Iterator[Threaded]:
    """`staged` in a thread; every record is covered by a checkpoint."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="stage")
    thread.start()
    try:
        running = staged(folder, **options)

        def do(work: Coroutine[Any, Any, T]) -> T:
            return asyncio.run_coroutine_threadsafe(work, loop).result(120)

        stage = do(running.__aenter__())
        try:
            log = stage.app.runtime.log
            assert log is not None
            do(log.proof(stage.blocked["receipt"], wait=30.0))
            yield Threaded(stage, loop)
        finally:
            do(running.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _decide(app: ShimApp, scorer: Steps, clock: list[int], sessions: int, *, hostile: bool) -> dict[str, Any]:
    shim, random = Client(app), np.random.default_rng(5)
    gap = int((time.time_ns() // 1000 - clock[0]) / (sessions + 1) * 0.99)

    async def steps(final: float, count: int, **names: Any) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        falling = np.minimum.accumulate(np.geomspace(1.0, final, count) * random.uniform(1.0, 1.6, count)).clip(
            final, 1
        )
        for number, p in enumerate(falling):
            scorer.p = float(p)
            alarm = final > 1e-3 and random.random() < 0.02
            scorer.step = 5e-4 if alarm else float(random.uniform(0.002, 0.05 if p < 1e-2 else 1.0))
            clock[0] += int(random.uniform(5e4, 4e5))
            answer = await shim.step(trace_vector=[-1.0] * 32, step_id=number, **names)
            if answer["enforced"] == "block":
                break
        return answer

    for number in range(sessions):
        tenant = ("acme", "blue", "acme")[number % 3]
        start = clock[0]
        final = float(random.uniform(0.01, 1.0)) if number % 9 else 2e-4
        await steps(
            final, int(random.integers(6, 16)), tenant=tenant, user=f"u-{number % 20}", session=f"chat-{number}"
        )
        clock[0] = start + int(gap * random.uniform(0.7, 1.3))
    if hostile:
        await steps(2e-4, 6, tenant=HOSTILE[:100], user="u", session="s")
    return await steps(1e-9, 24, **BLOCKED)
