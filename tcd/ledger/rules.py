"""What every ledger refuses, and what a batch comes to: pure, the same for each adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tcd.errors import Conflict, Unavailable
from tcd.ledger.values import Batch, Checkpoint, SavedState
from tcd.receipts.chain import ChainState
from tcd.receipts.erasure import runs_of
from tcd.receipts.fast import read_json
from tcd.receipts.issue import Receipt

#: Kept states; an older one is what a damaged newest one falls back to.
KEPT_STATES: Final = 2
#: Bytes of a state at most.
MAX_STATE: Final = 512 << 20


def check_checkpoint(checkpoint: Checkpoint, *, newest: int, size: int) -> None:
    """Refuse a checkpoint that does not continue the log.

    Args:
        checkpoint: to be stored.
        newest: size of the newest stored one, 0 = none.
        size: of the ledger.

    Raises:
        tcd.errors.Conflict: it is not larger than the newest one, or larger than the ledger.
    """
    if not newest < checkpoint.size <= size:
        msg = f"a checkpoint of {checkpoint.size} leaves: the newest has {newest}, the ledger {size}"
        raise Conflict(msg)


def check_erasure(positions: Sequence[int], *, size: int) -> None:
    """Refuse to erase what was not there before the batch.

    Raises:
        tcd.errors.Conflict: a position is not below `size`.
    """
    if positions and not 0 <= min(positions) <= max(positions) < size:
        msg = f"only what is among the first {size} receipts can be erased"
        raise Conflict(msg)


def erased_by(batch: Batch, size: int) -> dict[int, int]:
    """Positions that a batch erases and an `erase` record in it names, to the position of the record.

    Args:
        batch: appended as a whole; several erasures may be in it.
        size: of the ledger before.
    """
    found: dict[int, int] = {}
    wanted = frozenset(batch.erase)
    for position, receipt in enumerate(batch.receipts, size) if wanted else ():
        if receipt.typ == "erase":
            named = (place for first, end in runs_of(read_json(receipt.body)) for place in range(first, end))
            for place in wanted.intersection(named):
                found.setdefault(place, position)
    return found


def check_state(state: SavedState, *, newest: int, events: int) -> None:
    """Refuse a state that does not continue the kept ones.

    Args:
        state: to be kept.
        newest: events of the newest kept one, 0 = none.
        events: in the ledger.

    Raises:
        tcd.errors.Conflict: it is not newer, or of events that the ledger does not have.
        tcd.errors.Unavailable: it is larger than `MAX_STATE`.
    """
    if not newest < state.events <= events:
        msg = f"a state after {state.events} events: the newest is after {newest}, the ledger has {events}"
        raise Conflict(msg)
    if len(state.data) > MAX_STATE:
        msg = f"a state of {len(state.data)} bytes: at most {MAX_STATE} are kept"
        raise Unavailable(msg)


def next_states(receipts: Sequence[Receipt], find: Callable[[str], ChainState | None]) -> dict[str, ChainState]:
    """States of the chains after `receipts`, each the next record of its chain.

    Args:
        receipts: in order.
        find: state of a known chain.

    Raises:
        tcd.errors.Conflict: a receipt does not continue its chain.
    """
    after: dict[str, ChainState] = {}
    for receipt in receipts:
        state = after.get(receipt.chain) or find(receipt.chain) or ChainState(receipt.chain)
        if state.closed or (receipt.seq, receipt.prev) != (state.seq, state.prev):
            msg = f"receipt {receipt.seq} does not continue its chain at {state.seq}"
            raise Conflict(msg)
        after[receipt.chain] = receipt.next()
    return after
