"""The job of an audit: reads the ledger by itself, a page at a time, and writes the report."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Any, Final

from sidecar_api.admin.job_process import Run
from tcd.ledger.auditing.order import Order, make, write

#: Members of the arguments that are no part of an order.
_OURS: Final = frozenset({"checkpoints", "service"})


def run(job: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Audit; writes `report.json` and `report.html`.

    Args:
        job: of the process.
        arguments: see `Audits.order`.

    Raises:
        ConfigError, VerificationError: a part of the order is none, or the ledger cannot be read.
    """
    order: Order = {name: value for name, value in arguments.items() if name not in _OURS}  # type: ignore[assignment] # made by Audits.order
    result = make(order, progress=job.progress)
    result.service = arguments.get("service")
    write(result, job.folder)
    newest, whole = result.audit.newest, order.get("tenant") is None
    return {
        "ok": result.audit.ok,
        "findings": {n.removeprefix("finding "): c for n, c in result.audit.counts.items() if n.startswith("finding ")},
        "receipts": result.log["size"],
        "root": result.log["root"],
        "checkpointed": result.log["checkpointed"],
        "epochs": result.budgets.epochs,
        "epochs_within_their_claim": result.budgets.within,
        "seconds": result.facts["seconds"],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        # it says how large the log is, which one tenant is not told
        "checkpoint": newest[1].note.decode() if whole and result.audit.ok and newest is not None else "",
    }
