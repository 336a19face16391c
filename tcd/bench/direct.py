"""The peer below the shim: `tcd_diagnose` called row by row over HTTP, by as many clients as there are connections."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from tcd.bench.load import Load, body
from tcd.contract import detector_key, temperature_bucket
from tcd.rows import ScoreRow, pack, unpack
from tcd.triton.http_client import HttpClient

_TIMEOUT = 10.0


def _row() -> ScoreRow:
    """What the load's first step makes of its body."""
    step = body()
    values = {name: np.array(step[name], np.float32) for name in ("trace_vector", "spectrum", "features")}
    return ScoreRow(
        trace=values["trace_vector"],
        entropy=np.array([step["entropy"]], np.float32),
        spectrum=values["spectrum"],
        features=values["features"][None, :],
        key=detector_key(str(step["model_id"]), "gpu0", "chat", "en", temperature_bucket(0.8)),
        alpha=0.005,
        base=(0.8, 0.95, 256.0, 0.0),
        controller=True,
    )


def call(url: str, *, concurrency: int, seconds: float) -> Load:
    """Call the server at `url` (http://host:port) for `seconds`."""

    async def run() -> Load:
        client = HttpClient(url, max_connections=concurrency)
        took: list[float] = []
        row, until = _row(), time.perf_counter() + seconds

        async def one() -> None:
            while time.perf_counter() < until:
                began = time.perf_counter()
                unpack(await client.infer(pack([row]), timeout=_TIMEOUT))
                took.append(1000.0 * (time.perf_counter() - began))

        began, cpu = time.perf_counter(), time.process_time()
        try:
            await asyncio.gather(*(one() for _ in range(concurrency)))
        finally:
            await client.close()
        spent, cpu = time.perf_counter() - began, time.process_time() - cpu
        p50, p99, p999, most = np.quantile(took, (0.5, 0.99, 0.999, 1.0)).tolist()
        return Load(requests=len(took), seconds=spent, p50=p50, p99=p99, p999=p999, max=most, errors=0, cpu=cpu)

    import uvloop

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()
