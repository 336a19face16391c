"""A long run at 70 % of capacity: memory, threads, file descriptors and shared memory must not grow.

Sessions are generations of 64 steps that begin anew. What the shim keeps on purpose up to a bound is counted at each
look and taken off: live sessions (until they were idle for ten minutes), leaf hashes of the newest tiles, states of
chains, connections to Triton. What is checked is the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

from tcd.bench import shim
from tcd.bench.load import SESSIONS, body
from tcd.bench.openloop import Phase, Shot, drive
from tcd.bench.overload import REFUSED
from tcd.ledger.tile_memory import MOST_LEAF_TILES
from tcd.receipts.tiles import WIDTH
from tcd.triton.process import usage

SHARE: Final = 0.7
#: Share of requests that may be refused: a disk that stands still for a quarter of a second fills all places.
SPARE: Final = 0.01
STEPS: Final = 64
#: Bytes that may come in an hour without being known: 20 of a request's at 60 requests/s.
MEMORY_PER_HOUR: Final = 4 << 20
#: What memory moves about without growing: the allocator's arenas, a burst that waited.
NOISE: Final = 4 << 20
#: A live session with its windows, its hypothesis and its rate limit (`tcd bench growth` measures it), bytes.
SESSION: Final = 11_000
#: A receipt's leaf hash, and the state of a chain: a generation, `STEPS` receipts, has its session's and its epoch's;
#: and how many are kept of both at most.
LEAF: Final = 32
MOST_LEAVES: Final = MOST_LEAF_TILES * WIDTH
CHAIN: Final = 600
MOST_CHAINS: Final = 65_536
#: Threads of the event loop's default pool, which start when they are needed first.
THREADS: Final = min(32, (os.cpu_count() or 1) + 4)
#: Sockets that a process may open late without being a connection to Triton, which are counted.
FILES: Final = 2
_LOOKS: Final = 120
_SHM: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
_PROBE: Final = 200.0
_GROWTH: Final = 1.4


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the processes; bytes are those of all of them, `at` is in seconds from the start of the load.

    `files` are without those of connections to Triton (`pool`, both ends); `sessions` are live, `receipts` written.
    """

    at: float
    shim_bytes: int
    triton_bytes: int
    threads: int
    files: int
    shared_bytes: int
    pool: int = 0
    sessions: int = 0
    receipts: int = 0

    @property
    def kept_bytes(self) -> int:
        """What the shim keeps on purpose, up to bounds: live sessions, leaf hashes, states of chains."""
        leaves, chains = min(self.receipts, MOST_LEAVES), min(2 * (self.receipts // STEPS), MOST_CHAINS)
        return SESSION * self.sessions + LEAF * leaves + CHAIN * chains

    @property
    def rest_bytes(self) -> int:
        """What the shim holds beyond that: what must not grow."""
        return self.shim_bytes - self.kept_bytes


@dataclass(frozen=True, slots=True)
class Soak:
    """Result: `idle` holds a look before and one after the load, with nothing connected.

    `failed` counts whatever was not answered well, `refused` those of them that were refused at once (429, 503).
    """

    rate: float
    seconds: float
    answered: int
    failed: int
    slowest_ms: float
    p99_ms: float
    idle: tuple[Sample, Sample]
    samples: list[Sample] = field(default_factory=list)
    fixed: bool = False
    refused: int = 0


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


def counted(page: str) -> tuple[int, int]:
    """Live sessions and receipts of decisions on a page of metrics."""
    live = re.search(r"(?m)^tcd_sessions_live (\S+)$", page)
    receipts = re.findall(r"(?m)^tcd_receipts_total\S* (\S+)$", page)
    return int(float(live[1])) if live else 0, int(sum(map(float, receipts)))


def connections(table: str, port: int) -> int:
    """Ends of established connections to a port of this machine, in the text of /proc/net/tcp."""
    end = f":{port:04X}"
    rows = [line.split() for line in table.splitlines()[1:]]
    return sum(row[3] == "01" and (row[1].endswith(end) or row[2].endswith(end)) for row in rows)


def _outside(url: str) -> tuple[str, str]:
    """The page of metrics and the kernel's table of connections."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60.0) as answer:  # noqa: S310 - our own server
        return str(answer.read(), "utf-8"), Path("/proc/net/tcp").read_text()


async def look(server: shim.Server, at: float) -> Sample:
    """What the server's processes hold now."""
    page, table = await asyncio.to_thread(_outside, server.url)
    sessions, receipts = counted(page)
    pids = set().union(*server.parts.values())
    (own,) = server.parts["shim"]
    pool = connections(table, urlsplit(server.triton_http).port or 0)
    return Sample(
        at=at,
        shim_bytes=usage(server.parts["shim"]).resident_bytes,
        triton_bytes=usage(server.parts["triton"]).resident_bytes,
        threads=sum(map(threads, pids)),
        files=sum(map(files, pids)) - pool,
        # Triton's shared memory is named after the shim that started it
        shared_bytes=_shared((f"tcd_{own}_",)),
        pool=pool,
        sessions=sessions,
        receipts=receipts,
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
    before = await look(server, 0.0)
    samples: list[Sample] = []
    began = time.perf_counter()
    load = asyncio.ensure_future(_load(server.url, "soak", rate, seconds))
    while not load.done():
        await asyncio.wait([load], timeout=every)
        samples.append(await look(server, time.perf_counter() - began))
    shots = load.result()
    # closed connections are noticed a little later
    for _ in range(_LOOKS):
        after = await look(server, time.perf_counter() - began)
        if not _grown(before, after):
            break
        await asyncio.sleep(0.5)
    took = sorted(1000.0 * shot.latency for shot in shots)
    return Soak(
        rate=rate,
        seconds=seconds,
        answered=len(shots) - failed(shots),
        failed=failed(shots),
        refused=sum(shot.status in REFUSED for shot in shots),
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
    """What is more of than before, beyond what the pool of threads may start late."""
    most = {"threads": before.threads + THREADS, "files": before.files + FILES, "shared_bytes": before.shared_bytes}
    return [name for name, bound in most.items() if getattr(after, name) > bound]


def growth(samples: Sequence[Sample], name: str) -> float:
    """Median of the last third over that of the middle third, less it: of a member of the samples."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    return float(median(getattr(s, name) for s in last) - median(getattr(s, name) for s in middle))


def problems(found: Soak) -> list[str]:
    """What grew, or nothing."""
    asked, lost = found.answered + found.failed, found.failed - found.refused
    out = [f"{lost} of {asked} requests failed"] if lost else []
    if found.refused > SPARE * asked:
        out.append(f"{found.refused} of {asked} requests were refused")
    before, after = found.idle
    out += [f"{name}: {getattr(before, name)} before, {getattr(after, name)} after" for name in _grown(before, after)]
    hours = found.seconds / 3 / 3600.0
    for name in ("rest_bytes", "triton_bytes"):
        grown = growth(found.samples, name)
        if grown > MEMORY_PER_HOUR * hours + NOISE:
            out.append(f"{name}: {grown / 1e6:.1f} MB more in the last third than in the middle one")
    return out


def markdown(found: Soak) -> str:
    """The result as text."""
    before, after = found.idle
    wrong = problems(found)
    how = "a fixed rate" if found.fixed else f"{SHARE:.0%} of capacity"
    load = f"{found.seconds / 60:.1f} minutes at {found.rate:.0f} requests/s ({how})"
    answers = f"{found.answered:,} answered, {found.refused:,} refused, {found.failed - found.refused:,} failed"
    lines = [
        f"{load}: {answers}, p99 {found.p99_ms:.0f} ms, slowest {found.slowest_ms:.0f} ms",
        "",
        "| | before, idle | after, idle | last third less middle third, under load |",
        "|---|---|---|---|",
    ]
    for name, unit, scale in (
        *(("shim_bytes", "MB resident, shim", 1e6), ("kept_bytes", "of it kept on purpose", 1e6)),
        *(("rest_bytes", "the rest", 1e6), ("triton_bytes", "MB resident, Triton", 1e6)),
        *(("sessions", "live sessions", 1.0), ("receipts", "receipts", 1.0), ("threads", "threads", 1.0)),
        *(("files", "file descriptors", 1.0), ("pool", "those of connections to Triton", 1.0)),
        ("shared_bytes", "MB in /dev/shm", 1e6),
    ):
        values = (getattr(before, name), getattr(after, name), growth(found.samples, name))
        lines.append(f"| {unit} | {' | '.join(f'{value / scale:.1f}' for value in values)} |")
    return "\n".join([*lines, "", "; ".join(wrong) if wrong else "Nothing grew."])


def raw(found: Soak) -> dict[str, Any]:
    """The result as JSON values."""
    return asdict(found)
