"""Measures `tcd_diagnose` with perf_analyzer beside a no-op ensemble of the same shape in the same server.

What counts is the ratio: both ensembles meet the same machine, the same load generator and the same minute.
"""

from __future__ import annotations

import csv
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcd.contract import DIAGNOSE
from tcd.errors import LauncherError
from tcd.rows import ScoreRow, pack
from tcd.triton.launcher import DEFAULT_REPOSITORY, LaunchOptions, TritonServer
from tcd.triton.noop import NOOP_DIAGNOSE, NOOP_MODELS, write_repository
from tcd.triton.perf_tool import PerfAnalyzer
from tcd.triton.process import group_members, usage

#: Models of the measured ensemble, without those of `tcd_diagnose_raw`.
MEASURED: Final = (*(s.model for s in DIAGNOSE.steps), DIAGNOSE.name)
#: Ratios to the no-op ensemble that are promised, by client batch (CPU per row).
FLOORS: Final = {32: 1.3}
_SPECTRUM: Final = 16
_FEATURES: Final = 16
_TIMEOUT_MARGIN: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PerfOptions:
    """How to measure.

    Attributes:
        batches: client batch sizes.
        concurrency: requests under way.
        window: tokens in each row's trace and entropy.
        protocol: `grpc` or `http`.
        interval_ms: length of one measurement.
        trials: measurements per point.
        seed: of the rows.
    """

    batches: tuple[int, ...] = (1, 32, 128)
    concurrency: int = 4
    window: int = 64
    protocol: str = "grpc"
    interval_ms: int = 1500
    trials: int = 3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """A server to measure.

    Attributes:
        http: `host:port` of KServe over HTTP (statistics come from there).
        grpc: `host:port` of KServe over gRPC.
        pid: leader of the server's process group on this machine, None when it is elsewhere.
    """

    http: str
    grpc: str
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One measured point.

    Attributes:
        model: the ensemble.
        batch: rows of a request.
        rows_per_second: throughput.
        p50_us: median latency of a request.
        p99_us: 99th percentile of it.
        cpu_us_per_row: CPU of the server and its stubs per row, None when they are not on this machine.
        rows: rows answered during the measurement, as the server counts them.
    """

    model: str
    batch: int
    rows_per_second: float
    p50_us: float
    p99_us: float
    cpu_us_per_row: float | None
    rows: int


@dataclass(frozen=True, slots=True)
class Report:
    """All points and their ratios."""

    options: PerfOptions
    points: tuple[Point, ...]
    ratios: dict[int, dict[str, float]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=2)


def realistic_rows(n: int, *, window: int, seed: int = 0) -> list[ScoreRow]:
    """Rows as a model server in the middle of a generation sends them; every fourth one is collapsing."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        scale = 0.05 if i % 4 == 3 else 1.0  # noqa: PLR2004
        rows.append(
            ScoreRow(
                trace=-rng.exponential(1.2 * scale, window).astype(np.float32),
                entropy=rng.exponential(1.8 * scale, window).astype(np.float32),
                spectrum=np.sort(rng.exponential(3.0, _SPECTRUM))[::-1].astype(np.float32),
                features=rng.normal(size=(_FEATURES, _FEATURES)).astype(np.float32),
                alpha=0.01,
                base=(0.8, 0.95, 256.0, 0.0),
                controller=True,
            )
        )
    return rows


def input_json(rows: Sequence[ScoreRow]) -> str:
    """Rows as perf_analyzer's `--input-data`: all of one shape, so that any may share a client batch."""
    tensors = pack(rows)
    steps = [
        {
            # perf_analyzer wants floats written as floats: tolist() of FP32 gives Python floats, `12.0`
            name: {"content": array[i].reshape(-1).tolist(), "shape": list(array.shape[1:])}
            for name, array in tensors.items()
        }
        for i in range(len(rows))
    ]
    return json.dumps({"data": steps})


@contextmanager
def own_server() -> Iterator[Target]:
    """A server on free ports with `tcd_diagnose` and its no-op, for the time of a measurement.

    Raises:
        LauncherError: it does not start.
    """
    with ExitStack() as stack:
        repository = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tcd-noop-")))
        write_repository(repository)
        options = LaunchOptions(
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            models=(*MEASURED, *(m.name for m in NOOP_MODELS)),
            repositories=(DEFAULT_REPOSITORY, repository),
            restrict_admin=False,
        )
        server = stack.enter_context(TritonServer(options))
        yield Target(server.http_url.removeprefix("http://"), server.grpc_url, server.pid)


def rows_answered(target: Target, model: str) -> int | None:
    """Rows that a model has answered, None when the server does not have it.

    Raises:
        LauncherError: the server does not answer.
    """
    connection = HTTPConnection(target.http, timeout=10)
    try:
        connection.request("GET", f"/v2/models/{model}/stats")
        reply = connection.getresponse()
        body = reply.read()
    except (OSError, HTTPException) as error:
        msg = f"no server answers at {target.http}: {error}; remedy: start one with `tcd triton`, or leave out --url"
        raise LauncherError(msg) from error
    finally:
        connection.close()
    if reply.status != 200:  # noqa: PLR2004
        return None
    return int(json.loads(body)["model_stats"][0]["inference_count"])


def _cpu_seconds(target: Target) -> float | None:
    return None if target.pid is None else usage(group_members(target.pid)).cpu_seconds


def measure_point(
    tool: PerfAnalyzer, target: Target, model: str, *, batch: int, data: Path, options: PerfOptions
) -> Point:
    """Run perf_analyzer once.

    Raises:
        LauncherError: perf_analyzer failed; the text has its last words.
    """
    with tempfile.TemporaryDirectory(prefix="tcd-perf-") as scratch:
        results = Path(scratch) / "results.csv"
        command = [
            *(str(tool.binary), "-m", model, "-b", str(batch), "-i", options.protocol),
            *("-u", target.grpc if options.protocol == "grpc" else target.http),
            *("--async", "--concurrency-range", f"{options.concurrency}:{options.concurrency}"),
            *("--input-data", str(data), "-p", str(options.interval_ms), "-r", str(options.trials)),
            *("-s", "999", "--percentile", "99", "-f", str(results)),
        ]
        rows_before, cpu_before = rows_answered(target, model) or 0, _cpu_seconds(target)
        limit = options.interval_ms / 1000 * options.trials * 4 + _TIMEOUT_MARGIN
        try:
            done = subprocess.run(  # noqa: S603 - our own arguments
                command, env=tool.env, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired as error:
            msg = f"perf_analyzer was not done after {limit:g} s; remedy: look at the server's log"
            raise LauncherError(msg) from error
        cpu_after, rows_after = _cpu_seconds(target), rows_answered(target, model) or 0
        if done.returncode or not results.is_file():
            words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            msg = f"perf_analyzer failed on {model}: {words}; remedy: see `{tool.binary.name} --help`"
            raise LauncherError(msg)
        with results.open(newline="") as file:
            line = next(csv.DictReader(file))
    rows = rows_after - rows_before
    cpu = None if cpu_before is None or cpu_after is None else (cpu_after - cpu_before) / max(1, rows) * 1e6
    return Point(
        model=model,
        batch=batch,
        rows_per_second=float(line["Inferences/Second"]),
        p50_us=float(line["p50 latency"]),
        p99_us=float(line["p99 latency"]),
        cpu_us_per_row=cpu,
        rows=rows,
    )


def ratios(points: Sequence[Point]) -> dict[int, dict[str, float]]:
    """`tcd_diagnose` over its no-op by client batch: throughput (higher is better), latency and CPU (lower)."""
    by_key = {(p.model, p.batch): p for p in points}
    out: dict[int, dict[str, float]] = {}
    for (model, batch), ours in by_key.items():
        floor = by_key.get((NOOP_DIAGNOSE.name, batch))
        if model != DIAGNOSE.name or floor is None:
            continue
        out[batch] = {
            "throughput": ours.rows_per_second / floor.rows_per_second,
            "p50": ours.p50_us / floor.p50_us,
            "p99": ours.p99_us / floor.p99_us,
        }
        if ours.cpu_us_per_row is not None and floor.cpu_us_per_row:
            out[batch]["cpu"] = ours.cpu_us_per_row / floor.cpu_us_per_row
    return out


def measure(tool: PerfAnalyzer, target: Target, options: PerfOptions) -> Report:
    """Measure both ensembles, alternating, at each client batch.

    A running server that lacks the no-op ensemble is measured without it.

    Raises:
        LauncherError: the server or perf_analyzer failed.
    """
    if rows_answered(target, DIAGNOSE.name) is None:
        msg = f"the server at {target.http} has no {DIAGNOSE.name}; remedy: start one with `tcd triton`"
        raise LauncherError(msg)
    models = [m for m in (NOOP_DIAGNOSE.name, DIAGNOSE.name) if rows_answered(target, m) is not None]
    with tempfile.TemporaryDirectory(prefix="tcd-perf-") as scratch:
        data = Path(scratch) / "rows.json"
        count = max(64, *options.batches)
        data.write_text(input_json(realistic_rows(count, window=options.window, seed=options.seed)))
        points = tuple(
            measure_point(tool, target, model, batch=batch, data=data, options=options)
            for batch in options.batches
            for model in models
        )
    return Report(options, points, ratios(points))


def as_table(report: Report) -> list[list[Any]]:
    """The report as rows of text, the header first."""
    table: list[list[Any]] = [["ensemble", "batch", "rows/s", "p50 ms", "p99 ms", "server CPU us/row"]]
    for p in report.points:
        cpu = "-" if p.cpu_us_per_row is None else f"{p.cpu_us_per_row:.1f}"
        latencies = (f"{p.p50_us / 1000:.2f}", f"{p.p99_us / 1000:.2f}")
        table.append([p.model, str(p.batch), f"{p.rows_per_second:.0f}", *latencies, cpu])
    return table
