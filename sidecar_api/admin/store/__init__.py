"""What the admin plane remembers, in memory, in a SQLite file or in PostgreSQL: nonces, answers, proposals.

Replicas on one store are one plane: a nonce is good once among them, what is proposed at one can be approved at
another, and a retry gets the first answer wherever it arrives.
"""

from sidecar_api.admin.store.driver import Driver, Transaction
from sidecar_api.admin.store.open import memory_store, open_store, sqlite_store
from sidecar_api.admin.store.store import AdminStore, Interrupted, Orphan, Ticket

__all__ = [
    "AdminStore",
    "Driver",
    "Interrupted",
    "Orphan",
    "Ticket",
    "Transaction",
    "memory_store",
    "open_store",
    "sqlite_store",
]
