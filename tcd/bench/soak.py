"""A long run at 70 % of capacity: memory, threads, file descriptors and shared memory must not grow.

Sessions are generations of 64 steps that begin anew, so that what is live stays the same while what has been grows.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

from tcd.bench import shim
from tcd.bench.load import SESSIONS, body
from tcd.bench.openloop import Phase, Shot, drive
from tcd.triton.process import usage

SHARE: Final = 0.7
STEPS: Final = 64
#: What may be live of each: sessions that are in work, and the ledger's bounded caches fill up for hours.
MEMORY_PER_HOUR: Final = 64 << 20
#: Threads of the event loop's default pool, which start when they are needed first.
THREADS: Final = min(32, (os.cpu_count() or 1) + 4)
#: Connections of the pool to Triton, opened when they are needed first; both ends are counted.
FILES: Final = 32
_LOOKS: Final = 120
_SHM: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
_PROBE: Final = 200.0
_GROWTH: Final = 1.4


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the processes; bytes are those of all of them, `at` is in seconds from the start of the load."""

    at: float
    shim_bytes: int
    triton_bytes: int
    threads: int
    files: int
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class Soak:
    """Result: `idle` holds a look before and one after the load, with nothing connected."""

    rate: float
    seconds: float
    answered: int
    failed: int
    slowest_ms: float
    p99_ms: float
    idle: tuple[Sample, Sample]
    samples: list[Sample] = field(default_factory=list)
    fixed: bool = False


def threads(pid: int) -> int:
    """Threads of a process; 0 when it is gone."""
    return _count(f"/proc/{pid}/task")


def files(pid: int) -> int:
    """Open file descriptors of a process; 0 when it is gone."""
    return _count(f"/proc/{pid}/fd")


def _count(folder: str) -> int:
    try:
        return len(os.listdir(folder))  # noqa: PTH208 - names alone
    except OSError:
        return 0


def _shared(prefixes: Sequence[str]) -> int:
    names = [path for path in _SHM.iterdir() if path.name.startswith(tuple(prefixes))]
    return sum(path.stat().st_size for path in names if path.exists())


def look(server: shim.Server, at: float) -> Sample:
    """What the server's processes hold now."""
    pids = set().union(*server.parts.values())
    (own,) = server.parts["shim"]
    return Sample(
        at=at,
        shim_bytes=usage(server.parts["shim"]).resident_bytes,
        triton_bytes=usage(server.parts["triton"]).resident_bytes,
        threads=sum(map(threads, pids)),
        files=sum(map(files, pids)),
        # Triton's shared memory is named after the shim that started it
        shared_bytes=_shared((f"tcd_{own}_",)),
    )


def bodies(run: str) -> Callable[[int], bytes]:
    """Bodies of sessions that begin anew after `STEPS` steps: request number to bytes."""
    rest = body()

    def make(number: int) -> bytes:
        place, step = number % SESSIONS, number // SESSIONS
        generation = step // STEPS
        named = {"session": f"{run}-{place}-{generation % 4}", "tenant": f"tenant{number % 8}", "step_id": step % STEPS}
        return json.dumps(rest | named, separators=(",", ":")).encode()

    return make


def failed(shots: Sequence[Shot]) -> int:
    """Requests that were not answered, or not well."""
    return sum(shot.status != 200 or shot.degraded for shot in shots)  # noqa: PLR2004


async def _load(url: str, run: str, rate: float, seconds: float) -> list[Shot]:
    where = urlsplit(url)
    assert where.hostname  # noqa: S101 - our own server's address
    assert where.port  # noqa: S101
    return await drive(where.hostname, where.port, (Phase(rate, seconds),), bodies(run))


async def capacity(url: str, *, seconds: float) -> float:
    """Requests per second that are still answered well and in time, found by raising the rate."""
    rate = _PROBE
    while True:
        shots = await _load(url, f"probe{rate:.0f}", rate, seconds)
        late = sum(shot.latency > 0.1 for shot in shots)  # noqa: PLR2004 - a queue that grows
        if failed(shots) or late > len(shots) / 20:
            return rate / _GROWTH
        rate *= _GROWTH


async def _run(server: shim.Server, *, seconds: float, probe: float, every: float, fixed: float) -> Soak:
    # above the rate, so that every connection that may be opened is open before the first look
    await _load(server.url, "warm", 3.0 * fixed or _PROBE, probe)
    rate = fixed or SHARE * await capacity(server.url, seconds=probe)
    await asyncio.sleep(1.0)
    before = look(server, 0.0)
    samples: list[Sample] = []
    began = time.perf_counter()
    load = asyncio.ensure_future(_load(server.url, "soak", rate, seconds))
    while not load.done():
        await asyncio.wait([load], timeout=every)
        samples.append(look(server, time.perf_counter() - began))
    shots = load.result()
    # closed connections are noticed a little later
    for _ in range(_LOOKS):
        after = look(server, time.perf_counter() - began)
        if not _grown(before, after):
            break
        await asyncio.sleep(0.5)
    took = sorted(1000.0 * shot.latency for shot in shots)
    return Soak(
        rate=rate,
        seconds=seconds,
        answered=len(shots) - failed(shots),
        failed=failed(shots),
        slowest_ms=took[-1],
        p99_ms=took[int(0.99 * len(took))],
        idle=(before, after),
        samples=samples,
        fixed=fixed > 0,
    )


def measure(*, seconds: float, probe: float = 5.0, every: float = 10.0, rate: float = 0.0) -> Soak:
    """Run for `seconds` at 70 % of the capacity that probes of `probe` seconds find, or at a given `rate`."""
    import uvloop

    with (
        tempfile.TemporaryDirectory() as folder,
        shim.shim(Path(folder), "shim", {"TCD_LOG_LEVEL": "warning"}) as server,
    ):
        loop = uvloop.new_event_loop()
        try:
            return loop.run_until_complete(_run(server, seconds=seconds, probe=probe, every=every, fixed=rate))
        finally:
            loop.close()


def _grown(before: Sample, after: Sample) -> list[str]:
    """What is more of than before, beyond what the pools of threads and connections may start late."""
    most = {"threads": before.threads + THREADS, "files": before.files + FILES, "shared_bytes": before.shared_bytes}
    return [name for name, bound in most.items() if getattr(after, name) > bound]


def growth(samples: Sequence[Sample], name: str) -> float:
    """Median of the last third over that of the middle third, less it: of a member of the samples."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    return float(median(getattr(s, name) for s in last) - median(getattr(s, name) for s in middle))


def problems(found: Soak) -> list[str]:
    """What grew, or nothing."""
    out = [f"{found.failed} of {found.answered + found.failed} requests failed"] if found.failed else []
    before, after = found.idle
    out += [f"{name}: {getattr(before, name)} before, {getattr(after, name)} after" for name in _grown(before, after)]
    hours = found.seconds / 3 / 3600.0
    for name in ("shim_bytes", "triton_bytes"):
        grown = growth(found.samples, name)
        # a page or two per look is noise, whatever the length
        if grown > MEMORY_PER_HOUR * hours + (4 << 20):
            out.append(f"{name}: {grown / 1e6:.1f} MB more in the last third than in the middle one")
    return out


def markdown(found: Soak) -> str:
    """The result as text."""
    before, after = found.idle
    wrong = problems(found)
    how = "a fixed rate" if found.fixed else f"{SHARE:.0%} of capacity"
    load = f"{found.seconds / 60:.1f} minutes at {found.rate:.0f} requests/s ({how})"
    answers = f"{found.answered:,} answered, {found.failed} failed"
    lines = [
        f"{load}: {answers}, p99 {found.p99_ms:.0f} ms, slowest {found.slowest_ms:.0f} ms",
        "",
        "| | before, idle | after, idle | last third less middle third, under load |",
        "|---|---|---|---|",
    ]
    for name, unit, scale in (
        *(("shim_bytes", "MB resident, shim", 1e6), ("triton_bytes", "MB resident, Triton", 1e6)),
        *(("threads", "threads", 1.0), ("files", "file descriptors", 1.0), ("shared_bytes", "MB in /dev/shm", 1e6)),
    ):
        values = (getattr(before, name), getattr(after, name), growth(found.samples, name))
        lines.append(f"| {unit} | {' | '.join(f'{value / scale:.1f}' for value in values)} |")
    return "\n".join([*lines, "", "; ".join(wrong) if wrong else "Nothing grew."])


def raw(found: Soak) -> dict[str, Any]:
    """The result as JSON values."""
    return asdict(found)
