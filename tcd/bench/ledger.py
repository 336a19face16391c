"""What durability costs: group commits beside a commit per decision and beside bare syncs, in one run on one disk.

Decisions are made before the clock starts: a receipt of the size of a real one, its two events and an idempotent
answer. Rates depend on the disk and the machine; the ratios are what to compare.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcd import __version__
from tcd.ledger import Batch, Idempotent, SqliteLedger
from tcd.receipts import ChainState, Issuer, SigningKey, chain_id
from tcd.risk_av import Controller, ControllerParams

#: Members of a body that the issuer writes itself.
_HEADER: Final = ("v", "typ", "suite", "kid", "origin", "chain", "ts_us", "nonce", "tenant", "config", "policy")
_D: Final = "sha256:" + "d" * 64
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a file system, the names in it are random
_QUANTILES: Final = (0.1, 0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one kind of wait, as quantiles, and how many a second were done."""

    name: str
    count: int
    per_second: float
    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, name: str, waits: list[float], seconds: float) -> Timing:
        """From single waits over `seconds`."""
        found = np.quantile(waits, _QUANTILES).tolist()
        return cls(name, len(waits), len(waits) / seconds, tuple(found))

    @property
    def p50(self) -> float:
        """The median."""
        return self.quantiles[1]

    def to_json(self) -> dict[str, Any]:
        """Milliseconds, rounded."""
        ms = {f"p{100 * q:g}_ms": round(v * 1e3, 3) for q, v in zip(_QUANTILES, self.quantiles, strict=True)}
        return {"name": self.name, "n": self.count, "per_second": round(self.per_second, 1), **ms}


@dataclass(frozen=True, slots=True)
class Sample:
    """One decision of the shim: members of its two records, and its answer."""

    opened: dict[str, Any]
    decision: dict[str, Any]
    answer: bytes

    @property
    def size(self) -> int:
        """Bytes of the decision record's own members and the answer."""
        return len(json.dumps(self.decision)) + len(self.answer)


async def sample() -> Sample:
    """Ask the shim, with every signal and witness segments."""
    from sidecar_api.app import create_app
    from sidecar_api.pins import FixedAssets
    from tcd.bench.controller.shim import NullScorer, post, synthetic_assets
    from tcd.config import Settings

    values: dict[str, Any] = {"attest_sk_hex": "11" * 32, "log_decisions": False, "deadline_ms": 10_000.0}
    settings = Settings(**values)
    app = create_app(settings, scorer=NullScorer(1), assets=FixedAssets(synthetic_assets()))
    answer = await post(app, "/diagnose", {"trace_vector": [-1.0] * 16, "entropy": 1.0, "session": "s", "step_id": 0})
    bodies = []
    for head in await app.runtime.ledger.heads():
        stored = await app.runtime.ledger.get(head.hex())
        assert stored is not None  # noqa: S101 - for the type checker: the shim just wrote it
        assert stored.receipt is not None  # noqa: S101 - the same
        bodies.append(json.loads(stored.receipt.body))
    own = [{name: value for name, value in body.items() if name not in _HEADER} for body in bodies[-2:]]
    return Sample(own[0], own[1], json.dumps(answer).encode())


def decisions(seen: Sample, clients: int, each: int) -> list[list[Batch]]:
    """For each client, batches of one decision each: a chain of receipts, two events, an answer."""
    issuer = Issuer(SigningKey(bytes(32)), origin="bench")
    controller = Controller(ControllerParams(schedule=("uniform", 1_000_000), keep_closed=64))
    out: list[list[Batch]] = []
    for client in range(clients):
        chain, own = ChainState(chain_id("session", str(client))), []
        for number in range(each):
            name = f"{client}-{number}"
            receipt = issuer.issue(
                chain=chain,
                typ="decision" if number else "open",
                tenant="t",
                config=_D,
                policy=_D,
                members=seen.decision if number else seen.opened,
                ts_us=1,
                nonce=bytes(16),
            )
            chain = receipt.next()
            alpha = controller.reserve(stream="s", hypothesis=name).alpha
            controller.settle(stream="s", hypothesis=name, p=0.5, trigger=alpha >= 0.5)  # noqa: PLR2004
            answer = Idempotent("t", name, _D, seen.answer, receipt.head_hex, 10**18)
            own.append(Batch((receipt,), controller.take_events(), (answer,)))
            controller.close(stream="s", hypothesis=name, reason="end")
            controller.take_events()
        out.append(own)
    return out


def syncs(directory: Path, count: int) -> Timing:
    """Write a page and sync it, `count` times: the floor of a commit."""
    fd = os.open(directory / "sync", os.O_WRONLY | os.O_CREAT, 0o600)
    waits = []
    began = time.perf_counter()
    for number in range(count):
        start = time.perf_counter()
        os.pwrite(fd, os.urandom(4096), number * 4096)
        os.fdatasync(fd)
        waits.append(time.perf_counter() - start)
    os.close(fd)
    return Timing.of("a bare sync of one page", waits, time.perf_counter() - began)


async def rows(directory: Path, batches: list[Batch]) -> Timing:
    """A commit per decision."""
    ledger = SqliteLedger(directory)
    waits = []
    began = time.perf_counter()
    for batch in batches:
        start = time.perf_counter()
        await ledger.append(batch, now_us=0)
        waits.append(time.perf_counter() - start)
    seconds = time.perf_counter() - began
    await ledger.close()
    return Timing.of("a commit per decision", waits, seconds)


async def group(directory: Path, clients: list[list[Batch]]) -> tuple[Timing, float]:
    """Clients that wait for their decision each, behind the shim's group commit; also decisions per commit."""
    from sidecar_api.commit import Committer

    ledger = _Counting(directory)
    committer = Committer(ledger, now_us=lambda: 0)
    waits: list[float] = []
    random = np.random.default_rng(len(clients))

    async def client(own: list[Batch]) -> None:
        # not all at once: what shares a commit then follows from the commits alone
        await asyncio.sleep(float(random.uniform(0.0, 0.02)))
        for batch in own:
            start = time.perf_counter()
            await committer.put(receipts=batch.receipts, events=batch.events, answers=batch.answers)
            waits.append(time.perf_counter() - start)

    began = time.perf_counter()
    await asyncio.gather(*map(client, clients))
    seconds = time.perf_counter() - began
    await ledger.close()
    return Timing.of(f"group commit, {len(clients)} waiting", waits, seconds), len(waits) / ledger.commits


class _Counting(SqliteLedger):
    commits = 0

    async def append(self, batch: Batch, **options: Any) -> Any:
        self.commits += 1
        return await super().append(batch, **options)


async def on_this_disk(clients: tuple[int, ...], *, turns: int, each: int) -> dict[str, Any]:
    """Syncs, commits per decision and group commits, in turns so that a busy machine hits all alike.

    Args:
        clients: how many wait at once, one group of them after the other.
        turns: of which the one with the median ratio is reported for each number of clients.
        each: decisions per client.
    """
    seen = await sample()
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in clients}
    with tempfile.TemporaryDirectory() as text:
        for turn in range(turns):
            for count in clients:
                folder = Path(text) / f"{turn}-{count}"
                folder.mkdir()
                floor = syncs(folder, 100)
                single = await rows(folder / "rows", decisions(seen, 1, 2 * each)[0])
                many, per_commit = await group(folder / "group", decisions(seen, count, each))
                runs[count].append(
                    {
                        "clients": count,
                        "sync": floor.to_json(),
                        "rows": single.to_json(),
                        "group": many.to_json(),
                        "decisions_per_commit": round(per_commit, 1),
                        "ratio": round(many.per_second / single.per_second, 2),
                        "p50_in_syncs": round(many.p50 / floor.p50, 2),
                    }
                )
                shutil.rmtree(folder)
    return {
        "receipt_bytes": len(decisions(seen, 1, 2)[0][1].receipts[0].body),
        "answer_bytes": len(seen.answer),
        "runs": [sorted(found, key=lambda run: float(run["ratio"]))[len(found) // 2] for found in runs.values()],
    }


def on_a_slow_disk(clients: tuple[int, ...], milliseconds: float, *, turns: int, each: int) -> dict[str, Any] | None:
    """The same where a sync takes so long and nothing else does: in memory, with syncs delayed by strace.

    Returns:
        As `on_this_disk`; None where strace cannot be had.
    """
    strace = shutil.which("strace")
    if strace is None:
        return None
    fault = f"inject=fdatasync,fsync:delay_exit={round(milliseconds * 1000)}"
    command = [strace, "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", fault]
    command += [sys.executable, "-m", "tcd.bench.ledger", str(turns), str(each), *map(str, clients)]
    memory = {"TMPDIR": str(_MEMORY)} if _MEMORY.is_dir() else {}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **memory})
    if done.returncode:
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run.

    Attributes:
        clients: how many wait at once, one group of them after the other.
        turns: of each measurement; `each` decisions per client in one.
        events: sizes of the logs that are started from.
        subjects: whose growth is measured, 0 = none.
    """

    clients: tuple[int, ...] = (1, 8, 64, 256)
    turns: int = 5
    each: int = 60
    events: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    subjects: int = 1_000_000

    @classmethod
    def small(cls) -> Scale:
        """Seconds instead of minutes: what CI runs."""
        return cls(clients=(1, 64), turns=1, each=6, events=(4_000, 30_000), subjects=0)


#: Milliseconds of a sync of the slow disk: about what a disk without a cache of its own takes.
SLOW_MS: Final = 4.0


def run(scale: Scale) -> dict[str, Any]:
    """Run everything; the report as JSON values."""
    from tcd.bench import ledger_start
    from tcd.bench.controller import cost

    began = time.perf_counter()
    turns, each = scale.turns, scale.each
    return {
        "version": __version__,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "slow": on_a_slow_disk(scale.clients, SLOW_MS, turns=turns, each=each),
        "here": asyncio.run(on_this_disk(scale.clients, turns=turns, each=each)),
        "start": asyncio.run(ledger_start.measure(scale.events)),
        "cost": cost.measure(subjects=scale.subjects, count=50_000 if scale.subjects else 5_000),
        "load": os.getloadavg()[0],
        "seconds": round(time.perf_counter() - began, 1),
    }


if __name__ == "__main__":
    counts = [int(text) for text in sys.argv[1:]]
    print(json.dumps(asyncio.run(on_this_disk(tuple(counts[2:]), turns=counts[0], each=counts[1]))))
