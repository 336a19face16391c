"""What the log costs a shim: decisions per second and CPU with it off and on, and its parts by themselves.

`python -m tests.benchmarks.bench_log [DECISIONS]` on an idle machine; the SQLite ledger in a temporary directory under
the current one. Variants take turns, so that a slow minute hits all of them.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sidecar_api.app import Edges, create_app
from sidecar_api.log.keyring import seed_keys
from sidecar_api.pins import FixedAssets
from tcd.config import load
from tcd.ledger import SqliteLedger
from tcd.ledger.log_tree import LogTree
from tcd.ledger.tile_files import TileDirectory
from tcd.ledger.tile_memory import MemoryTiles, TileStore
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of, synthetic_assets

WORKERS = 32
VARIANTS: dict[str, dict[str, Any]] = {
    "off": {"log_enable": False},
    "every 5 s": {},
    "every 1 s": {"log_interval_s": 1.0},
    "every 1 s, exported": {"log_interval_s": 1.0, "log_dir": "log"},
}


async def decide(count: int, where: Path, changes: dict[str, Any]) -> tuple[float, float, float]:
    """Decisions per second, CPU of the process per decision in microseconds, 99th percentile in milliseconds."""
    if "log_dir" in changes:
        changes = {**changes, "log_dir": where / changes["log_dir"]}
    ledger = SqliteLedger(where / "data")
    app = create_app(
        settings_of(log_decisions=False, **changes),
        scorer=ScriptedScorer(0.5),
        assets=FixedAssets(synthetic_assets()),
        edges=Edges(ledger=ledger),
    )
    client, took = Client(app), list[float]()

    async def work(worker: int) -> None:
        for n in range(count // WORKERS):
            began = time.perf_counter()
            await client.step(session=f"{worker}-{n // 8}", step_id=n % 8)
            took.append(time.perf_counter() - began)

    async with app.router.lifespan_context(app):
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work(i) for i in range(WORKERS)))
        seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    await ledger.close()
    return len(took) / seconds, spent / len(took) * 1e6, sorted(took)[int(len(took) * 0.99)] * 1e3


def parts(name: str, store: TileStore) -> None:
    """CPU of a leaf, of a checkpoint and of a proof at 10^5 leaves."""
    signer = seed_keys(load({}).settings, b"k" * 32).log
    assert signer is not None
    tree, heads = LogTree(store), [os.urandom(32) for _ in range(100_000)]
    began = time.process_time()
    for first in range(0, len(heads), 1024):
        tree.extend(first, heads[first : first + 1024])
    leaf = (time.process_time() - began) / len(heads) * 1e6
    began = time.process_time()
    for _ in range(50):
        tree.extend(len(tree), heads[:7])
        root = tree.seal()
        tree.publish(signer.checkpoint(len(tree), root, time=1_800_000_000))
    checkpoint = (time.process_time() - began) / 50 * 1e3
    size = len(tree)
    began = time.process_time()
    for number in range(200):
        tree.proofs(size).inclusion(number * 499)
    proof = (time.process_time() - began) / 200 * 1e3
    sys.stdout.write(f"| tiles in {name} | {leaf:.1f} | {checkpoint:.1f} | {proof:.2f} |\n")


def main(count: int) -> None:
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in VARIANTS}
    for _ in range(5):
        for name, changes in VARIANTS.items():
            with tempfile.TemporaryDirectory(dir=".") as where:
                found[name].append(asyncio.run(decide(count, Path(where), changes)))
    sys.stdout.write(f"{count} decisions of {WORKERS} clients, median of 5 [range]\n\n")
    sys.stdout.write("| log | decisions/s | CPU, µs | p99, ms |\n|---|---|---|---|\n")
    for name, runs in found.items():
        cells = [f"{statistics.median(c):.0f} [{min(c):.0f}, {max(c):.0f}]" for c in zip(*runs, strict=True)]
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")
    sys.stdout.write("\n| CPU | leaf, µs | checkpoint, ms | proof, ms |\n|---|---|---|---|\n")
    parts("memory", MemoryTiles())
    with tempfile.TemporaryDirectory(dir=".") as where:
        parts("files", TileDirectory(Path(where)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
