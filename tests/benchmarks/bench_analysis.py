"""First index of a long log, and its Parquet: time and memory from 10^4 receipts on, each in a process of its own.

`python tests/benchmarks/bench_analysis.py --most 1000000` prints one JSON line per size. The index is also made as it
was before (receipts one by one, sorted while they come), up to 10^5. Asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from tcd.bench.audit.growth import sizes
from tcd.bench.audit.writing import write as write_log
from tcd.ledger import SqliteLedger
from tcd.ledger.auditing.sources import sqlite_store
from tcd.ledger.search import ReceiptIndex
from tcd.ledger.sqlite import FILE
from tcd.parquet import Wanted, write

ONE_BY_ONE = 100_000


async def indexed(folder: Path, name: str, *, one_by_one: bool) -> int:
    ledger = SqliteLedger(folder)
    index = ReceiptIndex(folder / name, ledger)
    if one_by_one:
        await index._run(index._sorted)
        size = (await ledger.stats()).receipts
        for first in range(0, size, 1000):
            heads = await ledger.heads(first=first, limit=1000)
            page = [await ledger.get(head.hex()) for head in heads]
            await index._run(index._insert, [stored for stored in page if stored is not None])
    else:
        size = await index.catch_up()
    await index.close()
    await ledger.close()
    return size


def exported(folder: Path) -> int:
    with sqlite_store(folder / FILE) as store, (folder / "r.parquet").open("wb") as out:
        return write(store, out, Wanted())


def queried(folder: Path) -> int:
    with duckdb.connect() as db:
        query = "SELECT action, tier, count(*), avg(p), quantile_cont(e_log10, 0.5) FROM read_parquet(?) GROUP BY ALL"
        return len(db.execute(query, [str(folder / "r.parquet")]).fetchall())


WORK: dict[str, Callable[[Path], int]] = {
    "index": lambda folder: asyncio.run(indexed(folder, "new.sqlite", one_by_one=False)),
    "index_one_by_one": lambda folder: asyncio.run(indexed(folder, "old.sqlite", one_by_one=True)),
    "parquet": exported,
    "duckdb": queried,
}


def one(name: str, folder: Path) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = WORK[name](folder)
    return {
        "count": count,
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "start_mib": before // 1024,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "FOLDER"))
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(one(options.one[0], Path(options.one[1]))))
        return
    for size in sizes(options.most):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "data"
            receipts = write_log(folder, size)
            found: dict[str, Any] = {"receipts": receipts, "ledger_mib": (folder / FILE).stat().st_size >> 20}
            for what in WORK:
                if what != "index_one_by_one" or size <= ONE_BY_ONE:
                    command = [sys.executable, __file__, "--one", what, str(folder)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    found[what] = json.loads(done.stdout)
            found["parquet"]["mib"] = round((folder / "r.parquet").stat().st_size / 2**20, 1)
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
