"""The shim in this process: its ASGI app on a durable ledger, before an ensemble that answers from memory.

No socket and no Triton: what is left is what the shim itself costs per decision, in CPU time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from sidecar_api.app import Edges, create_app
from sidecar_api.http.surface import ShimApp
from tcd.bench.load import body
from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.config import Settings
from tcd.contract import DIAGNOSE, Model
from tcd.ledger.sqlite import SqliteLedger
from tcd.scoring import diagnose
from tcd.triton.batcher import MicroBatcher
from tcd.triton.wire import Codec, Tensors

_HEADERS: Final = [
    (b"host", b"127.0.0.1:8080"),
    (b"content-type", b"application/json"),
    (b"content-length", b"700"),
]
_BODY: Final = b'{"tenant":"%s","session":"%s",' + json.dumps(body(), separators=(",", ":")).encode()[1:]
Name = Callable[[int], tuple[str, str]]


class Canned:
    """An `InferenceClient`: every row gets the answer of the first one, with running maxima that do not fall."""

    def __init__(self, assets: AssetDirectory) -> None:
        """Answer as the library does under `assets`."""
        self._assets = assets
        self._codec = Codec("127.0.0.1:8000")
        self._first: Tensors | None = None

    async def infer(self, tensors: Tensors, *, model: Model | str = DIAGNOSE, timeout: float) -> Tensors:  # noqa: ARG002 - the port's
        """See `InferenceClient.infer`; the request is encoded as for Triton."""
        assert isinstance(model, Model)  # noqa: S101 - the batcher's
        self._codec.encode(model, tensors)
        if self._first is None:
            one = {name: array[:1] for name, array in tensors.items()}
            self._first = {k: np.array(v) for k, v in diagnose(one, self._assets.current()).items()}
        out = {name: np.repeat(array, tensors["ALPHA"].shape[0], 0) for name, array in self._first.items()}
        out["SUP_OUT"] = np.maximum(tensors["SUP"], out["SUP_OUT"])
        await asyncio.sleep(0)
        return out

    async def ready(self, *, timeout: float = 1.0) -> bool:  # noqa: ARG002 - the port's
        """Always."""
        return True

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def app(folder: Path | None, **changes: Any) -> AsyncIterator[ShimApp]:
    """The app, with its ledger in `folder` (None: in memory) and these settings."""
    assets = AssetDirectory(default_asset_dir())
    values = {"log_level": "warning", "http_rate_cap": 1e9, "http_rate_refill": 1e9, "edge_rate_cap": 1e9}
    values |= {"edge_rate_refill": 1e9, "deadline_ms": 10_000.0, "attest_sk_hex": "11" * 32}
    ledger = None if folder is None else SqliteLedger(folder)
    made = create_app(
        Settings(**{**values, **changes}),
        scorer=MicroBatcher(Canned(assets)),
        assets=assets,
        edges=Edges(ledger=ledger),
    )
    try:
        # as a server would: recovers, starts, and in the end makes everything durable
        async with made.router.lifespan_context(made):
            yield made
    finally:
        if ledger is not None:
            await ledger.close()


async def _ask(shim: ShimApp, tenant: str, session: str) -> None:
    message = {"type": "http.request", "body": _BODY % (tenant.encode(), session.encode())}
    status: list[Any] = []

    async def receive() -> Any:
        return message

    async def send(out: Any) -> None:
        status.append(out.get("status"))

    scope = {"type": "http", "method": "POST", "path": "/diagnose", "headers": list(_HEADERS)}
    await shim({**scope, "client": ("127.0.0.1", 5000)}, receive, send)
    if status[0] != 200:  # noqa: PLR2004 - OK
        msg = f"the shim answered {status[0]}"
        raise RuntimeError(msg)


async def decide(shim: ShimApp, requests: int, name: Name, *, clients: int = 64) -> float:
    """CPU seconds of this process for `requests` decisions; `name` gives tenant and session of a request's number."""

    async def client(number: int) -> None:
        for i in range(number, requests, clients):
            await _ask(shim, *name(i))

    began = time.process_time()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return time.process_time() - began
