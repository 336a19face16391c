"""One measurement in a process of its own, so that its peak of memory is its own.

`python -m tcd.bench.audit.one audit|parquet|query FOLDER [WORKERS]`, of the folder of a synthetic ledger.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tcd.bench.audit.synthetic import keyset
from tcd.bench.controller.shim import synthetic_assets
from tcd.ledger.auditing.decisions import Assets
from tcd.ledger.auditing.order import write
from tcd.ledger.auditing.run import Asked, run
from tcd.ledger.auditing.sources import sqlite_store
from tcd.ledger.sqlite import FILE
from tcd.receipts import VerifyPolicy

PARQUET: Final = "log.parquet"
#: What an analyst asks: every decision is read, six columns of it.
QUERY: Final = (
    "SELECT action, count(*), sum(trigger::int), avg(score), quantile_cont(p, 0.01), count(DISTINCT stream)"
    " FROM read_parquet(?) WHERE typ = 'decision' GROUP BY action ORDER BY action"
)


def peak_mib() -> int:
    """Peak of the resident set since this program began; `ru_maxrss` counts what its parent had at the fork, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def audit(folder: Path, workers: int = 0) -> dict[str, Any]:
    """Audit a synthetic ledger, everything recomputed, and write the report beside it; `workers` is that of `run`."""
    policy = VerifyPolicy(keyset(), log_algorithms=frozenset({"Ed25519", "ML-DSA-44"}))
    asked = Asked(policy, assets=Assets.of(calibrations=synthetic_assets()))
    with sqlite_store(folder / FILE) as store:
        result = run(store, asked, workers=workers)
    write(result, folder)
    return {
        "receipts": result.log["size"],
        "events": result.facts["events"],
        "chains": result.audit.counts["chains"],
        "findings": len(result.audit.findings),
        "actions": dict(sorted(result.statistics.actions.items())),
        "triggers": sum(part["triggers"] for part in result.statistics.times.bins),
        "file_bytes": (folder / FILE).stat().st_size,
        "workers": workers,
    }


def parquet(folder: Path, _: int = 0) -> dict[str, Any]:
    """Export a ledger as Parquet (extra `parquet`)."""
    # here: what it takes is not an audit's
    from tcd.parquet import Wanted
    from tcd.parquet import write as export

    file = folder / PARQUET
    with sqlite_store(folder / FILE) as store, file.open("wb") as out:
        rows = export(store, out, Wanted())
    return {"receipts": rows, "file_bytes": file.stat().st_size}


def query(folder: Path, _: int = 0) -> dict[str, Any]:
    """Ask DuckDB `QUERY` of the Parquet; rows of actions."""
    import duckdb

    with duckdb.connect() as db:
        rows = db.execute(QUERY, [str(folder / PARQUET)]).fetchall()
    return {"actions": {row[0]: {"decisions": row[1], "triggers": row[2], "streams": row[5]} for row in rows}}


WORK: Final[dict[str, Callable[[Path, int], dict[str, Any]]]] = {"audit": audit, "parquet": parquet, "query": query}


def measured(what: str, folder: Path, workers: int = 0) -> dict[str, Any]:
    """Do it; what came of it and what it took, CPU with that of the workers."""
    before = peak_mib()
    wall, cpu = time.perf_counter(), _cpu()
    found = WORK[what](folder, workers)
    wall, cpu = time.perf_counter() - wall, _cpu() - cpu
    others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024 if workers else 0
    return {
        **found,
        "seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "start_mib": before,
        "peak_mib": peak_mib(),
        "worker_mib": others,
    }


def _cpu() -> float:
    """Seconds of CPU of this process and of its children that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))))
