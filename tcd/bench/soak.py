"""A long run at 70 % of capacity: memory, threads, file descriptors and shared memory must not grow.

Sessions are generations of 64 steps that begin anew. What the shim keeps on purpose up to a bound is counted at each
look and taken off: live sessions (until they were idle for ten minutes), leaf hashes of the newest tiles, states of
chains, connections to Triton. What is checked is the rest; `soak_report` has the rules.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tcd.bench import shim
from tcd.bench.load import SESSIONS, body
from tcd.bench.openloop import REFUSED, Phase, Shot, drive
from tcd.bench.soak_report import SHARE, STEPS, Sample, Soak, grown
from tcd.triton.process import usage

#: Sessions that take turns: so many that a disk may stand still for a second before two steps of one meet (409), which
#: a generation that waits for its answer never does.
PLACES: Final = 4 * SESSIONS
_LOOKS: Final = 120
_SHM: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
_PROBE: Final = 200.0
_GROWTH: Final = 1.4


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
        place, step = number % PLACES, number // PLACES
        generation = step // STEPS
        named = {"session": f"{run}-{place}-{generation % 4}", "tenant": f"tenant{number % 8}", "step_id": step % STEPS}
        return json.dumps(rest | named, separators=(",", ":")).encode()

    return make


def told(shots: Sequence[Shot]) -> dict[str, Any]:
    """What a `Soak` says about the answers."""
    bad = [shot for shot in shots if not shot.well]
    kinds = Counter(map(_kind, bad))
    why = Counter(said for shot in bad if (said := _said(shot)))
    counts = {kind: kinds[kind] for kind in ("refused", "degraded", "lost", "errors")}
    return {"answered": len(shots) - len(bad), "failed": len(bad), **counts, "why": dict(sorted(why.items()))}


def _kind(bad: Shot) -> str:
    if not bad.status:
        return "lost"
    if bad.status in REFUSED:
        return "refused"
    return "degraded" if bad.degraded else "errors"


def _said(bad: Shot) -> str:
    """What is known of a request that failed; of a refusal, nothing that its status does not say."""
    kind = _kind(bad)
    if kind == "errors":
        return f"status {bad.status}" + (f": {bad.why}" if bad.why else "")
    return "" if kind == "refused" else f"{kind}: {bad.why}"


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
        if not all(shot.well for shot in shots) or late > len(shots) / 20:
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
        # a short run has looks in each of its thirds too
        await asyncio.wait([load], timeout=min(every, seconds / 9))
        samples.append(await look(server, time.perf_counter() - began))
    shots = load.result()
    # closed connections are noticed a little later
    for _ in range(_LOOKS):
        after = await look(server, time.perf_counter() - began)
        if not grown(before, after):
            break
        await asyncio.sleep(0.5)
    took = sorted(1000.0 * shot.latency for shot in shots)
    return Soak(
        rate=rate,
        seconds=seconds,
        slowest_ms=took[-1],
        p99_ms=took[int(0.99 * len(took))],
        idle=(before, after),
        samples=samples,
        fixed=fixed > 0,
        **told(shots),
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
