"""fsck of a store: every row against what it must be, and against what was signed.

A finding names what is wrong and where. Nothing is repaired: an auditor reads, an operator restores.
"""

from __future__ import annotations

from pathlib import Path

from tcd.ledger.auditing.run import Asked, run
from tcd.ledger.auditing.sources import sqlite_store
from tcd.ledger.findings import Audit
from tcd.receipts.report import VerifyPolicy
from tcd.receipts.witnessing import Seen


def audit_store(path: Path, *, policy: VerifyPolicy, seen: Seen | None = None, origin: str = "") -> Audit:
    """Check a SQLite ledger that no process uses, reading only; `auditing.run.run` says more of it.

    Args:
        path: the file.
        policy: pinned keys; receipts must be signed by them, checkpoints too.
        seen: a newer or equal checkpoint that the auditor has from elsewhere; shows that a tail was cut off.
        origin: of the log; empty = the one of the first receipt.

    Raises:
        tcd.errors.ConfigError: it cannot be read or is no ledger.
    """
    with sqlite_store(path) as store:
        return run(store, Asked(policy, origin, () if seen is None else (seen,))).audit
