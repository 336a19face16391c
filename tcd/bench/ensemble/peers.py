"""The ensemble, the fused model, their no-ops and a step called by itself, under the same load."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcd.calibration.store import default_asset_dir, load_assets
from tcd.contract import DETECTOR, DIAGNOSE, FUSED, Model
from tcd.rows import ScoreRow, Tensors, pack
from tcd.scoring import diagnose
from tcd.triton.client import connect
from tcd.triton.noop import NOOP_DIAGNOSE, NOOP_FUSED
from tcd.triton.perf import PerfOptions, Point, Target, measure_point, realistic_rows
from tcd.triton.perf_tool import PerfAnalyzer

#: Each model after the no-op of its shape; the last is one step, called by itself.
MODELS: Final[tuple[Model, ...]] = (NOOP_DIAGNOSE, DIAGNOSE, NOOP_FUSED, FUSED, DETECTOR)
CONCURRENCY: Final = 4
WINDOW: Final = 64
_TIMEOUT: Final = 60.0
_LEAST: Final = 1e-3
#: At most: perf_analyzer takes three windows, and more where a busy machine made one of them stand out.
_TRIALS: Final = 12


def input_data(model: Model, tensors: Tensors) -> str:
    """Rows as perf_analyzer's `--input-data`: the model's inputs alone."""
    names = [tensor.name for tensor in model.inputs]
    rows = [
        {n: {"content": tensors[n][i].reshape(-1).tolist(), "shape": list(tensors[n].shape[1:])} for n in names}
        for i in range(tensors["LENGTHS"].shape[0])
    ]
    return json.dumps({"data": rows})


@dataclass(frozen=True, slots=True)
class Load:
    """perf_analyzer against a server, gRPC."""

    tool: PerfAnalyzer
    target: Target
    interval_ms: int

    def point(self, model: Model, rows: Sequence[ScoreRow], *, batch: int, concurrency: int = CONCURRENCY) -> Point:
        """Measure one point with rows that were packed together.

        Raises:
            LauncherError: perf_analyzer failed.
        """
        return self.packed(model, pack(rows), batch=batch, concurrency=concurrency)

    def packed(self, model: Model, tensors: Tensors, *, batch: int, concurrency: int = CONCURRENCY) -> Point:
        """Measure one point with packed rows; see `point`."""
        return self.text(model, input_data(model, tensors), batch=batch, concurrency=concurrency)

    def text(self, model: Model, data: str, *, batch: int, concurrency: int = CONCURRENCY) -> Point:
        """Measure one point with given `--input-data`; see `point`."""
        options = PerfOptions(concurrency=concurrency, interval_ms=self.interval_ms, trials=_TRIALS)
        with tempfile.TemporaryDirectory(prefix="tcd-bench-") as place:
            path = Path(place) / "rows.json"
            path.write_text(data)
            return measure_point(self.tool, self.target, model.name, batch=batch, data=path, options=options)


def cpu(point: Point) -> float:
    """CPU of the server's processes per row, µs; above 0 also where it was less than a tick of the clock."""
    assert point.cpu_us_per_row is not None  # noqa: S101 - the server is this machine's
    return max(point.cpu_us_per_row, _LEAST)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, ends and number of values."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "n": len(values)}


def measure(load: Load, *, batches: Sequence[int], rounds: int) -> dict[str, Any]:
    """Points of all peers and ratios within rounds: CPU per row of tcd over the no-op's, and of batches over batch 1.

    Raises:
        LauncherError: perf_analyzer failed.
    """
    tensors = pack(realistic_rows(max(128, *batches), window=WINDOW))
    texts = {model.name: input_data(model, tensors) for model in MODELS}
    points: list[dict[str, Any]] = []
    for turn in range(rounds):
        for batch in batches:
            # every other round backwards: what gets busier meanwhile weighs on both alike
            for model in MODELS if turn % 2 == 0 else MODELS[::-1]:
                point = load.text(model, texts[model.name], batch=batch)
                points.append({"round": turn, **asdict(point), "cpu_us_per_row": cpu(point)})
    return {"points": points, "ratios": ratios(points), "library_us_per_row": library(batches)}


#: Name of a ratio, its two models.
_RATIOS: Final = (
    ("ensemble over no-op ensemble", DIAGNOSE, NOOP_DIAGNOSE),
    ("tcd_fused over no-op of one model", FUSED, NOOP_FUSED),
    ("tcd_fused over ensemble", FUSED, DIAGNOSE),
    ("ensemble over no-op of one model", DIAGNOSE, NOOP_FUSED),
    ("ensemble over one step by itself", DIAGNOSE, DETECTOR),
)


def ratios(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """CPU per row over CPU per row in the same round: by name and client batch; and batches over batch 1."""
    value = {(p["round"], p["batch"], p["model"]): float(p["cpu_us_per_row"]) for p in points}
    rounds = sorted({p["round"] for p in points})
    batches = sorted({p["batch"] for p in points})
    out: dict[str, Any] = {}
    for name, above, below in _RATIOS:
        out[name] = {
            str(b): spread([value[r, b, above.name] / value[r, b, below.name] for r in rounds]) for b in batches
        }
    out["ensemble, CPU per row over that at batch 1"] = {
        str(b): spread([value[r, b, DIAGNOSE.name] / value[r, batches[0], DIAGNOSE.name] for r in rounds])
        for b in batches
    }
    return out


def library(batches: Sequence[int], *, calls: int = 200) -> dict[str, float]:
    """Median time per row of `tcd.scoring.diagnose` in this process, µs, by batch."""
    assets = load_assets(default_asset_dir())
    out = {}
    for batch in batches:
        tensors, times = pack(realistic_rows(batch, window=WINDOW)), []
        for _ in range(calls):
            start = time.perf_counter()
            diagnose(tensors, assets)
            times.append(time.perf_counter() - start)
        out[str(batch)] = statistics.median(times) / batch * 1e6
    return out


def percentiles(values: Sequence[float]) -> dict[str, Any]:
    """p50, p99, p99.9, the worst and a curve, in the unit of the values."""
    array = np.sort(np.asarray(values))
    shares = (0.0, 1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 100)
    found = {f"p{share:g}": float(np.percentile(array, share)) for share in (50, 99, 99.9)}
    return {
        **found,
        "worst": float(array[-1]),
        "n": len(array),
        "curve": [[s, float(np.percentile(array, s))] for s in shares],
    }


def latencies(target: Target, *, batches: Sequence[int], requests: int) -> dict[str, Any]:
    """Latency of single requests, ms, four under way, over HTTP by the shim's own client: all peers by turns."""
    parts = 8
    taken: dict[tuple[str, int], list[float]] = {}

    async def run() -> None:
        client = connect(f"http://{target.http}")
        for _ in range(parts):
            for batch in batches:
                tensors = pack(realistic_rows(batch, window=WINDOW))
                for model in MODELS:
                    inputs = {tensor.name: tensors[tensor.name] for tensor in model.inputs}
                    times = taken.setdefault((model.name, batch), [])

                    async def caller(model: Model, inputs: Tensors, times: list[float]) -> None:
                        for _ in range(max(1, requests // parts // CONCURRENCY)):
                            start = time.perf_counter()
                            await client.infer(inputs, model=model, timeout=_TIMEOUT)
                            times.append((time.perf_counter() - start) * 1e3)

                    await asyncio.gather(*(caller(model, inputs, times) for _ in range(CONCURRENCY)))
        await client.close()

    asyncio.run(run())
    return {f"{name} {batch}": percentiles(times) for (name, batch), times in taken.items()}
