"""Below and above capacity: latency at 60 % of it, goodput at three times it, recovery afterwards; in rounds.

The excess must be refused fast, the accepted must be decided (not degraded), and the queue must be gone soon.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import mean
from typing import Any, Final
from urllib.parse import urlsplit

from tcd.bench import shim
from tcd.bench.cpu import Cpu, Meter, of_children
from tcd.bench.load import SESSIONS, body, wrk
from tcd.bench.openloop import REFUSED, Phase, Shot, drive

_CONCURRENCY: Final = 64
_BELOW: Final = 0.6
_ABOVE: Final = 3.0
_AFTER: Final = 0.5


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds of n requests."""

    n: int
    p50: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class Overload:
    """Result of a round; rates in requests per second, latencies in milliseconds, recovery in seconds.

    `capacity` is the mean of a run before the round and one after it; the rates offered follow from the one before.
    `below` is of later steps of generations. Before it, at the same rate, all of them begin one after the other: a
    first step has two commits, one of them before it is scored; `beginning` is the whole of that phase.
    `goodput` counts answers 200 that were decided (not degraded) before the overload ended; `refused` is the latency
    of 429 and 503. `cpu_capacity` is what the processes took in the run before the round (the load is
    wrk there), `cpu_below` and `cpu_above` at 60 % of it and at three times it; None where an older version measured.
    """

    capacity: float
    beginning: Latency
    below: Latency
    below_noop: Latency
    offered: float
    goodput: float
    statuses: dict[str, int]
    accepted: Latency
    refused: Latency
    recovery: float
    cpu_capacity: Cpu | None = None
    cpu_below: Cpu | None = None
    cpu_above: Cpu | None = None

    @property
    def goodput_ratio(self) -> float:
        """Goodput at the overload over capacity."""
        return self.goodput / self.capacity

    @property
    def below_ratio(self) -> float:
        """The 99th percentile at 60 % of capacity over the no-op route's at the same rate."""
        return self.below.p99 / self.below_noop.p99


def latency(seconds: list[float]) -> Latency:
    """Percentiles of latencies (empty: zeros)."""
    if not seconds:
        return Latency(0, 0.0, 0.0, 0.0, 0.0)
    ordered = sorted(1000.0 * s for s in seconds)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Latency(len(ordered), at(0.5), at(0.99), at(0.999), ordered[-1])


def recovery_seconds(shots: list[Shot], end: float) -> float:
    """Seconds after `end` until the last request that was not answered well was due; 0 = none of them."""
    return max((s.due - end for s in shots if s.due >= end and not s.well), default=0.0)


def bodies(run: str) -> Callable[[int], bytes]:
    """Bodies of later and later steps of many sessions: request number to bytes, at next to no cost."""
    rest = json.dumps(body(), separators=(",", ":")).encode()[1:]
    name = b'{"session":"' + run.encode() + b'-%d","tenant":"tenant%d",'
    names = [name % (number, number % 8) for number in range(2 * SESSIONS)]
    return lambda number: names[number % len(names)] + rest


def _drive(url: str, run: str, *phases: Phase, mark: Callable[[], None] | None = None) -> list[Shot]:
    import uvloop

    where = urlsplit(url)
    assert where.hostname and where.port  # noqa: S101, PT018 - our own server's address
    loop = uvloop.new_event_loop()
    try:
        shots: list[Shot] = loop.run_until_complete(drive(where.hostname, where.port, phases, bodies(run), mark=mark))
    finally:
        loop.close()
    return shots


def measure(*, seconds: float, rounds: int = 1) -> list[Overload]:
    """Measure one shim with receipts, and the floor beside it, round after round."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        folder = Path(directory)
        full = stack.enter_context(shim.shim(folder, "shim", {"TCD_LOG_LEVEL": "warning"}))
        floor = stack.enter_context(shim.noop(folder, shim.one_answer(full.url)))
        wrk(full.url, concurrency=_CONCURRENCY, seconds=1.0, run="warm")
        meter = Meter(full.parts, load=of_children)
        meter.mark()
        results: list[Overload] = []
        # beside each round: a machine that others use has another capacity a minute later
        found = [_capacity(full.url, seconds, 0)]
        meter.mark()
        for number in range(rounds):
            one = _round(full, floor.url, found[-1], seconds, str(number), meter.between(2 * number))
            meter.mark()
            found.append(_capacity(full.url, seconds, number + 1))
            meter.mark()
            results.append(replace(one, capacity=mean(found[-2:])))
        return results


def _capacity(url: str, seconds: float, number: int) -> float:
    return wrk(url, concurrency=_CONCURRENCY, seconds=seconds, run=f"capacity{number}").rate


def _round(server: shim.Server, floor: str, capacity: float, seconds: float, name: str, cpu: Cpu) -> Overload:
    url, below, over = server.url, Meter(server.parts), Meter(server.parts)
    calm = Phase(_BELOW * capacity, seconds)
    calm_shots = _drive(url, f"below{name}", calm, calm, mark=below.mark)
    below_noop = [s.latency for s in _drive(floor, f"below{name}", calm)]
    offered = _ABOVE * capacity
    # its sessions are open before it begins: a first step costs several records
    after = Phase(_AFTER * capacity, seconds)
    shots = _drive(url, f"above{name}", calm, Phase(offered, seconds), after, mark=over.mark)
    begin, end = seconds, 2 * seconds
    above = [s for s in shots if begin <= s.due < end]
    good = [s for s in above if s.well]
    in_time = sum(s.due + s.latency <= end for s in good)
    return Overload(
        capacity=capacity,
        beginning=latency([s.latency for s in calm_shots if s.due < seconds]),
        below=latency([s.latency for s in calm_shots if s.due >= seconds]),
        below_noop=latency(below_noop),
        offered=offered,
        goodput=in_time / seconds,
        statuses=dict(Counter("degraded" if s.degraded else str(s.status) for s in above)),
        accepted=latency([s.latency for s in good]),
        refused=latency([s.latency for s in above if s.status in REFUSED]),
        recovery=recovery_seconds(shots, end),
        cpu_capacity=cpu,
        cpu_below=below.between(1),
        cpu_above=over.between(1),
    )


def markdown(results: Sequence[Overload]) -> str:
    """The rounds as a table, a column each."""
    rows: dict[str, Callable[[Overload], str]] = {
        f"capacity at {_CONCURRENCY} connections, /s": lambda r: f"{r.capacity:.0f}",
        f"p50, p99 at {_BELOW:.0%}, ms": lambda r: f"{r.below.p50:.1f}, {r.below.p99:.1f}",
        "p99 of the no-op route at this rate, ms": lambda r: f"{r.below_noop.p99:.1f}",
        f"p99 while {2 * SESSIONS} sessions begin, ms": lambda r: f"{r.beginning.p99:.1f}",
        f"offered at {_ABOVE:g} times capacity, /s": lambda r: f"{r.offered:.0f}",
        "goodput, /s": lambda r: f"{r.goodput:.0f} ({r.goodput_ratio:.0%})",
        "answers": lambda r: ", ".join(f"{count} {status}" for status, count in sorted(r.statuses.items())),
        "p50, p99 of the accepted, ms": lambda r: f"{r.accepted.p50:.0f}, {r.accepted.p99:.0f}",
        "p50, p99, slowest of the refused, ms": lambda r: (
            f"{r.refused.p50:.1f}, {r.refused.p99:.1f}, {r.refused.max:.1f}"
        ),
        "recovered after, s": lambda r: f"{r.recovery:.2f}",
        "CPU of shim, Triton, wrk at capacity, cores": lambda r: _cores(r.cpu_capacity),
        f"CPU of shim, Triton, load generator at {_BELOW:.0%}, cores": lambda r: _cores(r.cpu_below),
        f"CPU of shim, Triton, load generator at {_ABOVE:g} times, cores": lambda r: _cores(r.cpu_above),
    }
    lines = [
        "| round " + "".join(f"| {number} " for number in range(1, len(results) + 1)) + "|",
        "|---" * (1 + len(results)) + "|",
    ]
    return "\n".join(lines + [f"| {what} | {' | '.join(map(text, results))} |" for what, text in rows.items()])


def _cores(cpu: Cpu | None) -> str:
    return "-" if cpu is None else f"{cpu.shim:.2f}, {cpu.triton:.2f}, {cpu.load:.2f}"


def raw(results: Sequence[Overload]) -> list[dict[str, Any]]:
    """The rounds as JSON values."""
    return [asdict(r) | {"goodput_ratio": r.goodput_ratio, "below_ratio": r.below_ratio} for r in results]


def read(found: Sequence[Mapping[str, Any]]) -> list[Overload]:
    """The rounds of what `raw` made, also in a version that measured less."""
    latencies = {"beginning", "below", "below_noop", "accepted", "refused"}
    cpus = {"cpu_capacity", "cpu_below", "cpu_above"}
    names = {field.name for field in fields(Overload)}

    def value(name: str, given: Any) -> Any:
        if name in latencies:
            return Latency(**given)
        return Cpu(**given) if name in cpus and given is not None else given

    return [Overload(**{name: value(name, given) for name, given in one.items() if name in names}) for one in found]
