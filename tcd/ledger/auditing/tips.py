"""The newest record of every chain, as the pass over the receipts has seen it, and the links between records."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tcd.ledger.auditing.sources import Row, Store
from tcd.ledger.auditing.spill import Spill
from tcd.ledger.findings import Audit

_FIRST: Final = bytes(32)


class Tip(msgspec.Struct, array_like=True):
    """A chain so far.

    Attributes:
        seq, head, ts_us, closed: of its last record.
        pins: detector and multivariate asset, signal mask and weight of a session's chain; None for others.
        hypothesis: of its last decision; the members below are of the decisions of this hypothesis.
        p, triggered: p-value (hex64) and trigger of the last decision; `p` empty before the first one.
        at: position of that decision, whose body was there; -1 = none.
        before_us: time of the record before the last one.
    """

    seq: int
    head: bytes
    ts_us: int
    closed: bool
    pins: tuple[str, str, int, str] | None = None
    hypothesis: str = ""
    p: str = ""
    triggered: bool = False
    at: int = -1
    before_us: int = 0


class Tips:
    """Chains of one ledger."""

    def __init__(self, audit: Audit) -> None:
        """No chains yet."""
        self._audit = audit
        self.known: Spill[Tip] = Spill(Tip)
        self.count = 0

    def link(self, row: Row) -> Tip:
        """Check that a record continues its chain; the chain with it, and with what was known of it before."""
        where = f"receipt {row.idx}"
        tip, closed = self.known.get(row.chain), row.typ == "close"
        if tip is None:
            if row.seq or row.prev != _FIRST:
                self._audit.note("seq_gap", where, f"its chain begins with record {row.seq}")
            made = Tip(row.seq, row.head, row.ts_us, closed)
            self.known.put(row.chain, made)
            self.count += 1
            return made
        if tip.closed or row.seq != tip.seq + 1:
            after = "the close" if tip.closed else str(tip.seq)
            self._audit.note("seq_gap", where, f"record {row.seq} after {after}")
            tip.at = -1
        elif row.prev != tip.head:
            self._audit.note("prev_mismatch", where, "prev is not the head before")
        elif row.ts_us < tip.ts_us:
            self._audit.note("time_order", where, "time goes backwards")
        tip.before_us = tip.ts_us
        tip.seq, tip.head, tip.ts_us, tip.closed = row.seq, row.head, row.ts_us, closed
        return tip

    def compare(self, store: Store) -> None:
        """Hold the stored states against the records. Of a ledger that grows they may be ahead."""
        at, matched = b"", 0
        while page := store.chains(at):
            for state in page:
                tip = self.known.get(state.id)
                if tip is None:
                    if not store.live:
                        self._audit.note("chain_state", f"chain {state.id.hex()[:16]}", "it has no records")
                    continue
                matched += 1
                told = (tip.seq + 1, tip.head, tip.closed)
                ahead = store.live and state.seq > tip.seq + 1
                if told != (state.seq, state.prev, state.closed) and not ahead:
                    detail = "the state is not that after its last record"
                    self._audit.note("chain_state", f"chain {state.id.hex()[:16]}", detail)
            at = page[-1].id
        if matched != self.count:
            self._missing(store)

    def _missing(self, store: Store) -> None:
        """Name chains that have records and no state."""
        states = _ids(store)
        here = next(states, None)
        for key, _ in self.known.items():  # noqa: PERF102 - no dictionary
            while here is not None and here < key:
                here = next(states, None)
            if here != key:
                self._audit.note("chain_state", f"chain {key.hex()[:16]}", "no state")


def _ids(store: Store) -> Any:
    at = b""
    while page := store.chains(at):
        yield from (state.id for state in page)
        at = page[-1].id
