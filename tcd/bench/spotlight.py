"""What rewriting costs: in process beside parsing and serialising alone, and in Triton beside a model that echoes.

Times depend on the machine; the ratios and the slope over sizes are what to compare.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcd.contract import SPOTLIGHT
from tcd.spotlight import Policy, rewrite
from tcd.triton.launcher import DEFAULT_REPOSITORY, LaunchOptions, TritonServer
from tcd.triton.noop import NOOP_SPOTLIGHT, write_repository
from tcd.triton.process import tree, usage

KEY: Final = b"k" * 32
SIZES: Final = tuple(1024 * 4**i for i in range(6))
_POLICY: Final = Policy(shadow=False)
_PROSE: Final = "The quick brown fox jumps over 13 lazy dogs.\nIt is, they say; a habit. "
_MIXED: Final = "Der Zug fährt um 9 Uhr — 時刻表を見て。 \U0001f600\u200b\u00a0 Ignore\u202e all. "
_JSON: Final = '{"id": 12, "name": "a \\"b\\" c", "tags": ["x", "y z"], "price": 1.50}, '


def _chat(role: str, text: str) -> bytes:
    messages = [{"role": "system", "content": "Be brief."}, {"role": role, "content": text}]
    return json.dumps({"model": "m", "messages": messages}, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of body: the role of its long text, and what that text is made of."""

    role: str
    unit: str
    head: str = ""
    tail: str = ""

    def body(self, size: int) -> bytes:
        """The longest body of at most `size` bytes."""
        fixed = len(_chat(self.role, self.head + self.tail))
        each = len(_chat(self.role, self.head + self.unit + self.tail)) - fixed
        return _chat(self.role, self.head + self.unit * max(1, (size - fixed) // each) + self.tail)


#: What tools bring, what users paste, and what is made to be slow.
BODIES: Final = {
    "tool, prose": Kind("tool", _PROSE),
    "tool, mixed scripts": Kind("tool", _MIXED),
    "user, own words": Kind("user", _PROSE),
    "user, code": Kind("user", "    x = [1, 2] # a, b\n", "Explain:\n```\n", "```\n"),
    "user, JSON": Kind("user", _JSON, "Sum up: [", "{}]"),
    "user, broken JSON": Kind("user", _JSON, "Sum up: [1 2 ", "{}]"),
    "user, brackets": Kind("user", '[1] {"'),
    "user, headers and commas": Kind("user", "From: a,b\nx,y,z\n\n"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One body: CPU microseconds of rewriting, and of `json.loads` and `json.dumps` of the same body."""

    name: str
    size: int
    n: int
    p50: float
    p99: float
    worst: float
    parse: float


def _timed(work: Callable[[], object], n: int) -> np.ndarray[Any, Any]:
    """Microseconds of this thread's CPU: what else runs on the machine is not in it."""
    work()
    times = np.empty(n)
    for i in range(n):
        began = time.thread_time()
        work()
        times[i] = time.thread_time() - began
    return times * 1e6


def in_process(name: str, size: int, *, n: int) -> Row:
    """Time one body."""
    body = BODIES[name].body(size)
    times = _timed(lambda: rewrite(body, _POLICY, key=KEY, random=os.urandom), n)
    parse = _timed(lambda: json.dumps(json.loads(body)), max(10, n // 10))
    p50, p99 = np.percentile(times, [50, 99])
    return Row(name, len(body), n, float(p50), float(p99), float(times.max()), float(np.median(parse)))


def slope(rows: list[Row]) -> float:
    """Exponent of size in the median time, from the sizes of 16 KiB on: 1 is linear."""
    large = [row for row in rows if row.size >= 16_000]  # noqa: PLR2004
    x = np.log([row.size for row in large])
    y = np.log([row.p50 for row in large])
    return float(np.polyfit(x, y, 1)[0])


@dataclass(frozen=True, slots=True)
class Served:
    """A model in Triton: milliseconds per request and the server's CPU microseconds per request."""

    model: str
    size: int
    concurrency: int
    n: int
    p50: float
    p99: float
    cpu_us: float


def _infer(url: str, model: str, body: bytes, n: int) -> list[float]:
    import tritonclient.grpc

    tensors = []
    for name, value in (("BODY", body), ("OPTIONS", b'{"shadow": false}')):
        tensor = tritonclient.grpc.InferInput(name, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[value]], np.object_))
        tensors.append(tensor)
    times = []
    with tritonclient.grpc.InferenceServerClient(url) as client:
        for _ in range(n):
            began = time.perf_counter()
            client.infer(model, tensors)
            times.append((time.perf_counter() - began) * 1e3)
    return times


def in_triton(*, sizes: tuple[int, ...] = (1024, 16384), workers: tuple[int, ...] = (1, 4), n: int) -> list[Served]:
    """Time `tcd_spotlight` and its no-op in one server, in turns.

    Raises:
        LauncherError: the server does not start.
    """
    with tempfile.TemporaryDirectory(prefix="tcd-bench-") as folder:
        write_repository(Path(folder))
        options = LaunchOptions(
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            models=(SPOTLIGHT.name, NOOP_SPOTLIGHT.name),
            repositories=(DEFAULT_REPOSITORY, Path(folder)),
        )
        with TritonServer(options) as server:
            return [
                _serve(server, model, BODIES["tool, prose"].body(size), count, n)
                for size in sizes
                for count in workers
                for model in (SPOTLIGHT.name, NOOP_SPOTLIGHT.name)
            ]


def _serve(server: TritonServer, model: str, body: bytes, workers: int, n: int) -> Served:
    assert server.pid is not None  # noqa: S101 - for the type checker: it runs
    _infer(server.grpc_url, model, body, 20)
    before = usage(tree(server.pid)).cpu_seconds
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(lambda _: _infer(server.grpc_url, model, body, n // workers), range(workers)))
    spent = usage(tree(server.pid)).cpu_seconds - before
    times = np.array([t for part in parts for t in part])
    p50, p99 = np.percentile(times, [50, 99])
    return Served(model, len(body), workers, times.size, float(p50), float(p99), spent * 1e6 / times.size)


def measure(*, n: int = 1000) -> tuple[list[Row], dict[str, float]]:
    """Every body at 16 KiB, then the slope of each over the sizes to 1 MiB."""
    rows = [in_process(name, 16 << 10, n=n) for name in BODIES]
    slopes = {}
    for name in BODIES:
        sized = [in_process(name, size, n=max(5, min(n, n * 4096 // size))) for size in SIZES]
        slopes[name] = slope(sized)
        rows += [row for row in sized if row.size > 1_000_000]  # noqa: PLR2004
    return rows, slopes


def markdown(rows: list[Row], slopes: dict[str, float], served: list[Served]) -> str:
    """The tables of `docs/performance.md`."""
    lines = [
        "| body | KiB | p50 us | p99 us | worst us (n) | p50 over json.loads + json.dumps | exponent of size |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (r.size > 1_000_000, r.name)):  # noqa: PLR2004
        cells = (r.name, f"{r.size / 1024:.0f}", f"{r.p50:.0f}", f"{r.p99:.0f}", f"{r.worst:.0f} ({r.n})")
        lines.append(f"| {' | '.join(cells)} | {r.p50 / r.parse:.2f} | {slopes[r.name]:.2f} |")
    if served:
        titles = ("in Triton", "KiB", "concurrency", "p50 ms", "p99 ms", "server CPU us", "n")
        lines += ["", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for s in served:
        figures = (
            s.model,
            f"{s.size / 1024:.0f}",
            str(s.concurrency),
            f"{s.p50:.2f}",
            f"{s.p99:.2f}",
            f"{s.cpu_us:.0f}",
        )
        lines.append(f"| {' | '.join(figures)} | {s.n} |")
    return "\n".join(lines)


def raw(rows: list[Row], slopes: dict[str, float], served: list[Served]) -> dict[str, Any]:
    """All of it for a file."""
    from dataclasses import asdict

    finite = {name: value for name, value in slopes.items() if math.isfinite(value)}
    return {"rows": [asdict(r) for r in rows], "slopes": finite, "triton": [asdict(s) for s in served]}
