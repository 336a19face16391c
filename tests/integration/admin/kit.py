"""A shim in process with an admin plane on a port, and two operators."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from sidecar_api.admin.plane import Limits
from sidecar_api.admin.principals import SCOPES
from sidecar_api.admin.serving import AdminServer
from sidecar_api.app import Edges, create_app
from sidecar_api.http.surface import ShimApp
from sidecar_api.pins import FixedAssets
from sidecar_api.stores import memory_ledger
from tcd.client.admin import AdminClient, ClientTls, OperatorKey
from tcd.errors import Unavailable
from tcd.ledger import Batch, Ledger
from tcd.rate_limit import Limit
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of, synthetic_assets

UNLIMITED = Limit(1e9, 1e9)


class Running:
    """A shim with an admin plane, and two operators."""

    def __init__(self, app: ShimApp, server: AdminServer, scorer: ScriptedScorer, said: list[str]) -> None:
        self.app = app
        self.scorer = scorer
        self.server = server
        self.said = said
        self.shim = Client(app)
        self.tls: ClientTls | None = None
        self.alice, self.bob = OperatorKey.generate("alice"), OperatorKey.generate("bob")

    @property
    def runtime(self) -> Any:
        """Of the shim."""
        return self.app.runtime

    async def call(
        self, by: OperatorKey, method: str, path: str, body: Any = None, *, tls: ClientTls | None = None, **options: Any
    ) -> Any:
        """A call over HTTP; what is no GET is signed."""
        client = AdminClient(self.server.url, by, scopes=options.pop("scopes", SCOPES), tls=tls or self.tls)
        try:
            return await asyncio.to_thread(client.call, method, "/admin/v1" + path, body, **options)
        finally:
            client.close()

    async def get(self, path: str, status: int = 200) -> Any:
        """What Alice reads."""
        reply = await self.call(self.alice, "GET", path)
        assert reply.status_code == status, reply.text
        return reply.json()

    async def post(self, path: str, body: Any = None, *, by: OperatorKey | None = None, status: int = 200) -> Any:
        """What Alice, or somebody else, does alone."""
        reply = await self.call(by or self.alice, "POST", path, {} if body is None else body)
        assert reply.status_code == status, reply.text
        return reply.json()

    async def two(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        """What Alice proposes and Bob approves."""
        proposal = await self.post(path, body, status=202)
        # nobody approves his own
        await self.post(f"/approvals/{proposal['id']}", status=403)
        return await self.post(f"/approvals/{proposal['id']}", by=self.bob, status=status)

    async def enrol(self) -> Any:
        """Enrol Alice and Bob with every scope."""
        secret = next(line for line in self.said if line.startswith("bootstrap ")).split()[1]
        keys = {"keys": [self.alice.public(SCOPES), self.bob.public(SCOPES)]}
        return await self.call(self.alice, "POST", "/enrol", keys, bearer=secret)

    async def bodies(self, typ: str = "") -> list[dict[str, Any]]:
        """Bodies in the ledger, of one type or of all."""
        found = []
        for stored in await self.runtime.ledger.records(limit=100_000):
            if stored.receipt is not None:
                body = json.loads(stored.receipt.body)
                if typ in {"", body["typ"]}:
                    found.append(body)
        return found

    async def acts(self) -> list[tuple[str, str]]:
        """Records of operators' acts in the ledger."""
        return [(body["admin"]["action"], body["admin"]["actor"]) for body in await self.bodies("admin")]


@asynccontextmanager
async def running(place: Path, /, *, limits: Limits | None = None, **changes: Any) -> AsyncIterator[Running]:
    """A shim with a plane in `place` (no rate limits by default); `changes` are settings, `ledger` and other edges.

    A ledger that is a URL is a setting: the plane's store is there, and the shim's own ledger in memory.
    """
    own = [name for name in ("ledger", "folder", "now_us") if not isinstance(changes.get(name), str | None)]
    edges = {name: changes.pop(name) for name in own}
    settings = settings_of(edge_rate_cap=1e9, edge_rate_refill=1e9, **changes)
    made = Edges(**{"ledger": memory_ledger(settings), **edges})
    scorer = ScriptedScorer()
    app = create_app(settings, scorer=scorer, assets=FixedAssets(synthetic_assets()), edges=made)
    async with app.router.lifespan_context(app):
        limits = limits or Limits(UNLIMITED, UNLIMITED, UNLIMITED)
        server = AdminServer(app.runtime, place / "admin", host="127.0.0.1", port=0, limits=limits)
        said: list[str] = []
        await server.start(said.append)
        # the socket listens already; signatures of this second are from after the start
        server.plane.signatures._since -= 1
        try:
            yield Running(app, server, scorer, said)
        finally:
            await server.stop()


@contextmanager
def full_for(ledger: Ledger, typ: str) -> Iterator[None]:
    """While the block lasts, the ledger takes no batch with a record of this type."""
    append = ledger.append

    async def full(batch: Batch, **terms: Any) -> Any:
        if any(receipt.typ == typ for receipt in batch.receipts):
            msg = "full"
            raise Unavailable(msg)
        return await append(batch, **terms)

    with mock.patch.object(ledger, "append", full):
        yield
