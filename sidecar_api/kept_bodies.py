"""What this shim's log has of the bodies of receipts that a verification showed to be its own.

A valid proof says nothing of whether the log still has the body: it may have been erased since. Only who showed the
receipt, by its body or by its signature, is told; of anybody else's receipt nothing is said, not even that it is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sidecar_api.schemas import BodiesKept, BodyErased
from tcd.errors import TcdError
from tcd.ledger import Ledger, StoredReceipt
from tcd.receipts.erasure import runs_of
from tcd.receipts.fast import read_json

#: Erasures that are told one by one; all are counted.
TOLD: Final = 64


async def of_receipt(ledger: Ledger, head: str) -> BodiesKept | None:
    """About one receipt, by its head; None where the ledger cannot be read."""
    try:
        found = await ledger.get(head)
        return await _told(ledger, [] if found is None else [found])
    except TcdError:
        # it is no part of the proof: what was verified stays verified
        return None


async def of_chain(ledger: Ledger, first: str, heads: Sequence[str]) -> BodiesKept | None:
    """About consecutive records of a chain.

    Args:
        ledger: of this shim.
        first: body of the first of them, a whole one.
        heads: of all, in order.
    """
    chain = read_json(first.encode())["chain"]
    try:
        stored = await ledger.chain_records(chain["id"], first=chain["seq"], limit=len(heads))
        wanted = set(heads)
        return await _told(ledger, [record for record in stored if record.head in wanted])
    except TcdError:
        return None


async def _told(ledger: Ledger, stored: Sequence[StoredReceipt]) -> BodiesKept:
    gone = [record for record in stored if record.receipt is None and record.stub is not None]
    told = []
    named: dict[int, StoredReceipt] = {}
    for record in gone[:TOLD]:
        by = named.get(record.index) or await ledger.erasure(record.index)
        if by is not None and record.index not in named:
            # one record names many: each is read once
            named |= dict.fromkeys(_places(by), by)
        by = named.get(record.index)
        told.append(BodyErased(record.head, record.index, *((None, None) if by is None else (by.head, by.index))))
    kept = sum(record.receipt is not None for record in stored)
    return BodiesKept(kept=kept, erased=len(gone), erasures=told)


def _places(record: StoredReceipt) -> Iterator[int]:
    """Places that a record of the log says are erased; which record to look into is only derived."""
    if record.receipt is not None and record.receipt.typ == "erase":
        for first, end in runs_of(read_json(record.receipt.body)):
            yield from range(first, min(end, record.index))
