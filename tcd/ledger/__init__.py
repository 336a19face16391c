"""The ledger: receipts, controller events and idempotent answers, appended as atomic batches."""

from __future__ import annotations

from tcd.ledger.memory import MemoryLedger
from tcd.ledger.port import Ledger
from tcd.ledger.sqlite import SqliteLedger
from tcd.ledger.values import (
    Appended,
    Batch,
    Checkpoint,
    EventPage,
    Idempotent,
    LedgerStats,
    Limits,
    SavedState,
    StoredReceipt,
    Stub,
)

__all__ = [
    "Appended",
    "Batch",
    "Checkpoint",
    "EventPage",
    "Idempotent",
    "Ledger",
    "LedgerStats",
    "Limits",
    "MemoryLedger",
    "SavedState",
    "SqliteLedger",
    "StoredReceipt",
    "Stub",
]
