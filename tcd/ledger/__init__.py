"""The ledger: receipts, controller events and idempotent answers, appended as atomic batches."""

from __future__ import annotations

from tcd.ledger.memory import MemoryLedger
from tcd.ledger.port import (
    Appended,
    Batch,
    EventPage,
    Idempotent,
    Ledger,
    LedgerStats,
    Limits,
    StoredReceipt,
)

__all__ = [
    "Appended",
    "Batch",
    "EventPage",
    "Idempotent",
    "Ledger",
    "LedgerStats",
    "Limits",
    "MemoryLedger",
    "StoredReceipt",
]
