"""What makes the slow requests slow: a shim at a given rate with a probe of its loop, its collector and its ledger.

Prints the latencies, and the longest turns of the event loop, collections and calls of the ledger's thread, each with
the CPU that its thread had in it: much time with little CPU is a disk, or a machine that is busy with something else.
Asserts nothing. `python tests/benchmarks/bench_shim_tail.py --rate 500`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvloop

from sidecar_api import app
from tcd.bench import shim
from tcd.bench.load import SESSIONS
from tcd.bench.openloop import Phase, Shot, drive
from tcd.bench.overload import bodies, latency
from tcd.cli.main import app as command
from tcd.ledger.sqlite_store import Store

_PLACE = "SHIM_TAIL_PROBE"
_KNOWN_TO_SHIM = ("append", "put_checkpoint", "put_state", "tidy")
_TICK = 0.002
_LEAST = 0.004


class Seen:
    """Whatever took longer than a few milliseconds."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.lines: list[dict[str, Any]] = []

    def note(self, kind: str, start: float, cpu: float, **more: Any) -> None:
        """Something ended now."""
        took = time.perf_counter() - start
        if took >= _LEAST:
            figures = {"at": round(start - self.began, 3), "ms": round(1e3 * took, 1), "cpu_ms": round(1e3 * cpu, 1)}
            self.lines.append({"kind": kind, **figures, **more})


def probed() -> None:
    """Be `tcd serve` under the probe."""
    seen, started = Seen(), [0.0, 0.0]

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            started[:] = time.perf_counter(), time.thread_time()
        else:
            seen.note(f"gc {info['generation']}", started[0], time.thread_time() - started[1])

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **more: Any) -> Any:
            start, cpu = time.perf_counter(), time.thread_time()
            try:
                return call(*args, **more)
            finally:
                seen.note(f"ledger.{name}", start, time.thread_time() - cpu)

        return wrapped

    for name in _KNOWN_TO_SHIM:
        setattr(Store, name, timed(name, getattr(Store, name)))
    serving = app._serving

    @contextlib.asynccontextmanager
    async def watched(runtime: Any, *, timeout: float) -> AsyncIterator[None]:
        async def ticks() -> None:
            while True:
                start, cpu = time.perf_counter() + _TICK, time.thread_time()
                await asyncio.sleep(_TICK)
                seen.note("loop", start, time.thread_time() - cpu, in_flight=runtime.in_flight)

        task = asyncio.ensure_future(ticks())
        async with serving(runtime, timeout=timeout):
            yield
            task.cancel()
        await asyncio.to_thread(Path(os.environ[_PLACE]).write_text, json.dumps(seen.lines))

    app._serving = watched
    gc.callbacks.append(collected)
    command()


def main() -> None:
    """Run the probed shim at a rate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--no-receipts", dest="receipts", action="store_false")
    parser.add_argument("--top", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        log, place = folder / "log", folder / "seen.json"
        env = {"TCD_LOG_LEVEL": "warning", "TCD_RECEIPTS_ENABLE": str(int(args.receipts)), _PLACE: str(place)}
        line = [sys.executable, __file__, "serve", "--port", "0", "--triton-port", "0"]
        line += ["--data-dir", str(folder / "data")]
        with shim._environment(env), shim._process(line, log) as process:
            found = re.search(r"(?m)^shim +http://[^:]+:(\d+)", shim._wait(process, log, r"(?m)^ready "))
            assert found is not None
            port, loop = int(found[1]), uvloop.new_event_loop()

            def run(name: str, seconds: float) -> list[Shot]:
                phase = Phase(args.rate, seconds)
                shots: list[Shot] = loop.run_until_complete(drive("127.0.0.1", port, (phase,), bodies(name)))
                return shots

            # a first step of a session costs twice as much: they begin before
            run("tail", 2 * SESSIONS / args.rate + 1.0)
            shots = run("tail", args.seconds)
        seen = json.loads(place.read_text())
    sys.stdout.write(f"{latency([shot.latency for shot in shots])}, load {os.getloadavg()[0]:.1f}\n")
    for kind in sorted({line["kind"] for line in seen}):
        mine = sorted((line for line in seen if line["kind"] == kind), key=lambda line: -line["ms"])
        sys.stdout.write(f"{kind}: {len(mine)} over {1e3 * _LEAST:.0f} ms\n")
        for line in mine[: args.top]:
            sys.stdout.write(f"  {json.dumps({k: v for k, v in line.items() if k != 'kind'})}\n")


if __name__ == "__main__":
    if _PLACE in os.environ:
        probed()
    else:
        main()
