"""What a long run found: how it is judged, as text and as JSON.

Memory, threads, file descriptors and shared memory must not grow. Answers are judged beside: none may be missing, none
an error. Issue 6 asks that nothing grows, not that no disk ever stands still: on a shared one a commit may come too
late, and the shim then says so (a degraded decision) or lets nobody in (a refusal). Their shares are a service level.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from tcd.ledger.tile_memory import MOST_LEAF_TILES
from tcd.receipts.tiles import WIDTH

#: Of the capacity that is found.
SHARE: Final = 0.7
#: Steps of a generation.
STEPS: Final = 64
#: Share of requests that may be refused: a disk that stands still for a quarter of a second fills all places.
SPARE: Final = 0.01
#: Share of answers that may be degraded decisions: a commit that such a disk did not let through before the deadline.
SPARE_DEGRADED: Final = 1e-5
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

    `failed` counts whatever was not answered well. Of those, `refused` were refused at once (429, 503), `degraded` were
    answered 200 with a degraded decision, `lost` had no answer, `errors` had another status. `why` counts the latter
    three by what is known of them. Reports of older versions tell only the refused apart, see `untold`.
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
    degraded: int = 0
    lost: int = 0
    errors: int = 0
    why: dict[str, int] = field(default_factory=dict)

    @property
    def untold(self) -> int:
        """Requests that failed, and it is not known how."""
        return self.failed - self.refused - self.degraded - self.lost - self.errors


def grown(before: Sample, after: Sample) -> list[str]:
    """Names of what is more of than before, beyond what the pool of threads may start late."""
    most = {"threads": before.threads + THREADS, "files": before.files + FILES, "shared_bytes": before.shared_bytes}
    return [name for name, bound in most.items() if getattr(after, name) > bound]


def growth(samples: Sequence[Sample], name: str) -> float:
    """Median of the last third over that of the middle third, less it: of a member of the samples."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    return float(median(getattr(s, name) for s in last) - median(getattr(s, name) for s in middle))


def problems(found: Soak) -> list[str]:
    """What grew, and which answers were too many; nothing where the run is as it should be."""
    asked = found.answered + found.failed
    limits = (
        *(("had no answer", found.lost, 0.0), ("had an error", found.errors, 0.0)),
        *(("were refused", found.refused, SPARE), ("were degraded", found.degraded, SPARE_DEGRADED)),
        ("failed, and how is not told", found.untold, 0.0),
    )
    out = [f"{count} of {asked} requests {what}" for what, count, share in limits if count > share * asked]
    before, after = found.idle
    out += [f"{name}: {getattr(before, name)} before, {getattr(after, name)} after" for name in grown(before, after)]
    hours = found.seconds / 3 / 3600.0
    for name in ("rest_bytes", "triton_bytes"):
        more = growth(found.samples, name)
        if more > MEMORY_PER_HOUR * hours + NOISE:
            out.append(f"{name}: {more / 1e6:.1f} MB more in the last third than in the middle one")
    return out


def markdown(found: Soak) -> str:
    """The result as text."""
    before, after = found.idle
    wrong = problems(found)
    how = "a fixed rate" if found.fixed else f"{SHARE:.0%} of capacity"
    load = f"{found.seconds / 60:.1f} minutes at {found.rate:.0f} requests/s ({how})"
    lines = [
        f"{load}: {found.answered:,} answered well, p99 {found.p99_ms:.0f} ms, slowest {found.slowest_ms:.0f} ms",
        "",
        *_answers(found),
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
    return "\n".join([*lines, "", f"**Not held**: {'; '.join(wrong)}" if wrong else "Held: nothing grew."])


def _answers(found: Soak) -> list[str]:
    """What was not answered well, as a table, and below it what is known of that."""
    asked = found.answered + found.failed
    rows = [("refused at once (429, 503)", found.refused, f"{SPARE:.0%}")]
    if found.untold:
        rows.append(("degraded, lost or an error: an older report, which does not tell", found.untold, "none"))
    else:
        rows += [
            ("answered with a degraded decision", found.degraded, f"{SPARE_DEGRADED * 1e5:.0f} in 100,000"),
            *(("without an answer", found.lost, "none"), ("answered with another status", found.errors, "none")),
        ]
    lines = [f"| of {asked:,} requests | | share | allowed |", "|---|---|---|---|"]
    lines += [f"| {what} | {count:,} | {count / asked:.2g} | {most} |" for what, count, most in rows]
    return lines + [f"{'' if at else chr(10)}* {count:,} {why}" for at, (why, count) in enumerate(found.why.items())]


def document(found: Soak) -> str:
    """The report."""
    return f"# A long run\n\n`tcd bench soak`: {markdown(found)}\n"


def raw(found: Soak) -> dict[str, Any]:
    """The result as JSON values."""
    return asdict(found)


def read(found: Mapping[str, Any]) -> Soak:
    """The result of what `raw` made, also by a version that counted less."""
    before, after = (Sample(**one) for one in found["idle"])
    return Soak(**{**found, "idle": (before, after), "samples": [Sample(**one) for one in found["samples"]]})
