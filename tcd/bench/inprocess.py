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
from uvicorn.config import Config
from uvicorn.server import ServerState

from sidecar_api.app import Edges, create_app
from sidecar_api.http.lean import LeanProtocol
from sidecar_api.http.surface import ShimApp
from tcd.bench.load import body
from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.config import Settings
from tcd.contract import DIAGNOSE, Model
from tcd.ledger.sqlite import SqliteLedger
from tcd.rows import Checked
from tcd.scoring import diagnose
from tcd.triton.batcher import MicroBatcher
from tcd.triton.wire import Codec, Tensors

_HEADERS: Final = [
    (b"host", b"127.0.0.1:8080"),
    (b"content-type", b"application/json"),
    (b"content-length", b"700"),
]
_HEAD: Final = (
    b"POST /diagnose HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
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
        rows = tensors["ALPHA"].shape[0]
        # as a transport hands them over, whose own part is not measured here
        out = Checked({name: np.repeat(array, rows, 0) for name, array in self._first.items()})
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


class _Wire(asyncio.Transport):
    """A connection in memory: what is written to it is the answer of the request that was sent last."""

    def __init__(self, shim: ShimApp) -> None:
        super().__init__({"peername": ("127.0.0.1", 5000), "sockname": ("127.0.0.1", 8080)})
        config, state = Config(shim, lifespan="off", log_config=None, access_log=False), ServerState()
        self.protocol = LeanProtocol(shim.runtime, config=config, server_state=state, app_state={})
        self.protocol.connection_made(self)
        self._answered: asyncio.Future[bytes] | None = None

    async def ask(self, tenant: str, session: str) -> None:
        """One POST /diagnose."""
        self._answered = asyncio.get_running_loop().create_future()
        body = _BODY % (tenant.encode(), session.encode())
        self.protocol.data_received(_HEAD % len(body) + body)
        answer = await self._answered
        if not answer.startswith(b"HTTP/1.1 200 "):
            msg = f"the shim answered {answer[:16]!r}"
            raise RuntimeError(msg)

    def write(self, data: Any) -> None:
        """The answer, in one piece."""
        assert self._answered is not None  # noqa: S101 - it was asked
        self._answered.set_result(data)

    def is_closing(self) -> bool:
        """Never."""
        return False

    def resume_reading(self) -> None:
        """It was not paused."""

    def close(self) -> None:
        """Nothing to close."""


async def decide(shim: ShimApp, requests: int, name: Name, *, clients: int = 64, http: bool = False) -> float:
    """CPU seconds of this process for `requests` decisions.

    Args:
        shim: the app, started.
        requests: how many.
        name: tenant and session of a request's number.
        clients: that ask at once.
        http: through the connection that `tcd serve` has, with its parser, instead of ASGI.
    """

    async def client(number: int) -> None:
        wire = _Wire(shim) if http else None
        for i in range(number, requests, clients):
            await (_ask(shim, *name(i)) if wire is None else wire.ask(*name(i)))
        if wire is not None:
            wire.protocol.connection_lost(None)

    began = time.process_time()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return time.process_time() - began
