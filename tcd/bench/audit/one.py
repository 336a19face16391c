"""One audit in a process of its own, so that its peak of memory is its own: `python -m tcd.bench.audit.one FOLDER`."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from tcd.bench.audit.synthetic import keyset
from tcd.bench.controller.shim import synthetic_assets
from tcd.ledger.auditing.decisions import Assets
from tcd.ledger.auditing.order import write
from tcd.ledger.auditing.run import Asked, run
from tcd.ledger.auditing.sources import sqlite_store
from tcd.ledger.sqlite import FILE
from tcd.receipts import VerifyPolicy


def peak_mib() -> int:
    """Peak of the resident set since this program began; `ru_maxrss` counts what its parent had at the fork, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def audited(folder: Path) -> dict[str, Any]:
    """Audit a synthetic ledger, everything recomputed, and write the report beside it; what it took."""
    policy = VerifyPolicy(keyset(), log_algorithms=frozenset({"Ed25519", "ML-DSA-44"}))
    asked = Asked(policy, assets=Assets.of(calibrations=synthetic_assets()))
    wall, cpu = time.perf_counter(), time.process_time()
    before = peak_mib()
    with sqlite_store(folder / FILE) as store:
        result = run(store, asked)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    write(result, folder)
    return {
        "receipts": result.log["size"],
        "events": result.facts["events"],
        "chains": result.audit.counts["chains"],
        "findings": len(result.audit.findings),
        "file_bytes": (folder / FILE).stat().st_size,
        "seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "start_mib": before,
        "peak_mib": peak_mib(),
    }


if __name__ == "__main__":
    print(json.dumps(audited(Path(sys.argv[1]))))
