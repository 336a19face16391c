"""CPU of the shim alone per /diagnose: the ASGI app in process, a client of Triton that answers from memory.

No socket, no Triton: what is left is what the shim itself costs, in process time, so that a busy machine matters
little. `--profile` prints where it goes. Asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import pstats
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import uvloop
from pydantic import SecretStr

from sidecar_api.app import Edges, create_app
from tcd.bench.load import body
from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.config import Settings
from tcd.ledger.sqlite import SqliteLedger
from tcd.scoring import diagnose
from tcd.triton.batcher import MicroBatcher
from tcd.triton.wire import Codec

SESSIONS = 256
_HEADERS = [
    (b"host", b"127.0.0.1:8080"),
    (b"content-type", b"application/json"),
    (b"content-length", b"700"),
]


_HEAD = b'{"tenant":"%s","session":"%s",'


class Canned:
    """An `InferenceClient`: each answer is the first one of its number of rows, with maxima that do not fall."""

    def __init__(self, assets: AssetDirectory, codec: Any) -> None:
        self._assets = assets
        self._codec = codec
        self._first: Any = None

    async def infer(self, tensors: Any, *, model: Any, timeout: float) -> Any:
        self._codec.encode(model, tensors)
        rows = tensors["ALPHA"].shape[0]
        if self._first is None:
            one = {name: array[:1] for name, array in tensors.items()}
            self._first = {k: np.array(v) for k, v in diagnose(one, self._assets.current()).items()}
        out = {name: np.repeat(array, rows, 0) for name, array in self._first.items()}
        out["SUP_OUT"] = np.maximum(tensors["SUP"], out["SUP_OUT"])
        await asyncio.sleep(0)
        return out

    async def close(self) -> None: ...


async def _client(app: Any, number: int, clients: int, steps: int) -> None:
    rest = json.dumps(body(), separators=(",", ":")).encode()[1:]
    for i in range(steps):
        named = {"session": f"run-{(number + clients * i) % SESSIONS}", "tenant": f"tenant{number % 8}"}
        message = {"type": "http.request", "body": _HEAD % (named["tenant"].encode(), named["session"].encode()) + rest}
        scope = {"type": "http", "method": "POST", "path": "/diagnose", "headers": list(_HEADERS)}
        status: list[Any] = []

        async def receive(message: Any = message) -> Any:
            return message

        async def send(out: Any, status: Any = status) -> None:
            status.append(out.get("status"))

        await app({**scope, "client": ("127.0.0.1", 5000)}, receive, send)
        assert status[0] == 200, status


async def _run(args: argparse.Namespace) -> list[float]:
    assets = AssetDirectory(default_asset_dir())
    settings = Settings(
        receipts_enable=args.receipts,
        log_level="warning",
        http_rate_cap=1e9,
        http_rate_refill=1e9,
        attest_sk_hex=SecretStr("11" * 32),
        deadline_ms=10_000.0,
        **json.loads(args.settings),
    )
    with tempfile.TemporaryDirectory() as folder:
        ledger = SqliteLedger(Path(folder)) if args.durable else None
        codec = Codec("127.0.0.1:8000")
        batcher = MicroBatcher(Canned(assets, codec))  # type: ignore[arg-type]
        app = create_app(settings, scorer=batcher, assets=assets, edges=Edges(ledger=ledger))
        app.runtime.service.start()
        if args.gc:
            gc.collect()
            gc.freeze()
            gc.set_threshold(args.gc, 20, 50)
        out = []
        for turn in range(args.rounds + 1):
            profile = cProfile.Profile() if args.profile and turn == args.rounds else None
            if profile:
                profile.enable()
            began, loop_began = time.process_time(), time.thread_time()
            steps = args.requests // args.clients
            await asyncio.gather(*(_client(app, n, args.clients, steps) for n in range(args.clients)))
            spent, loop_spent = time.process_time() - began, time.thread_time() - loop_began
            if profile:
                profile.disable()
                pstats.Stats(profile).sort_stats(args.sort).print_stats(args.lines)
            count = args.clients * steps
            if turn:
                out.append(1e6 * spent / count)
                whole, loop = 1e6 * spent / count, 1e6 * loop_spent / count
                sys.stdout.write(f"{whole:.0f} us, of which the loop's thread {loop:.0f}\n")
        await app.runtime.service.stop(timeout=5)
        if ledger is not None:
            await ledger.close()
        return out


def main() -> None:
    """Print microseconds of CPU per request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-receipts", dest="receipts", action="store_false")
    parser.add_argument("--memory", dest="durable", action="store_false")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gc", type=int, default=0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--sort", default="tottime")
    parser.add_argument("--lines", type=int, default=60)
    parser.add_argument("--settings", default="{}")
    args = parser.parse_args()
    loop = uvloop.new_event_loop()
    found = loop.run_until_complete(_run(args))
    sys.stdout.write(f"median {median(found):.0f} us of CPU per request\n")


if __name__ == "__main__":
    main()
