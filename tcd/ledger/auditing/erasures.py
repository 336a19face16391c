"""Bodies that are gone: an `erase` record says so of each, and of no other. Two bits of memory per receipt."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tcd.ledger.auditing.bits import Bits
from tcd.ledger.auditing.sources import Row, Store
from tcd.ledger.findings import HOSTILE, Audit
from tcd.receipts.erasure import heads_digest, runs_of

#: Findings of one kind; the others are counted in the last one.
_MOST: Final = 100
#: Findings of rows that leave open what is gone where.
_UNCLEAR: Final = ("index_gap", "orphan_body", "row_malformed")


class Erasures:
    """The erasures of one ledger."""

    def __init__(self, audit: Audit, store: Store, tenant: str | None) -> None:
        """Of `tenant`; None = of all."""
        self._audit = audit
        self._store = store
        self._tenant = tenant
        self._gone, self._named = Bits(), Bits()
        self._before = store.tally()

    def gone(self, row: Row) -> None:
        """A receipt has no body."""
        self._gone.add(row.idx)

    def named(self, row: Row, value: Mapping[str, Any]) -> None:
        """An `erase` record, within what is audited: what it names is gone, and its heads are those in the log."""
        where, kept = f"receipt {row.idx}", 0
        if any(end > row.idx for _, end in runs_of(value)):
            self._audit.note("erasure_mismatch", where, "it names receipts that are not before it")
            return
        for first, end in runs_of(value):
            for at in range(first, end):
                self._named.add(at)
                if at not in self._gone and self._tenant is None:
                    kept += 1
                    if kept <= _MOST:
                        self._audit.note("body_kept", f"receipt {at}", f"{where} says that it is erased")
        if kept > _MOST:
            self._audit.note("body_kept", where, f"it names {kept} receipts whose bodies are there")
        heads = (head for first, end in runs_of(value) for head in _heads(self._store, first, end))
        if heads_digest(heads) != value["erase"]["heads"]:
            self._audit.note("erasure_mismatch", where, "the heads of what it names are not those in the log")

    def finish(self, bound: int) -> None:
        """Bodies that are gone without a record. Erasures that came meanwhile are recorded after `bound`."""
        # the records are nobody's: an audit of one tenant has not seen them
        at = bound if self._tenant is None else 0
        while page := self._store.erasures(at):
            for index, body in page:
                at = index + 1
                with contextlib.suppress(*HOSTILE):
                    for first, end in runs_of(json.loads(body)):
                        for place in range(first, min(end, bound)):
                            self._named.add(place)
        found = list(_few(self._gone.missing_from(self._named)))
        for place in found[:_MOST]:
            self._audit.note("body_missing", f"receipt {place}", "no erase record names it")
        if len(found) > _MOST:
            self._audit.note("body_missing", f"receipts after {found[_MOST - 1]}", "more than these")

    def count(self, bound: int) -> None:
        """The kept count is what the rows up to `bound` say, all of which were seen; unless it changed meanwhile."""
        said = self._before
        clear = not any(self._audit.counts[f"finding {code}"] for code in _UNCLEAR)
        if self._tenant is None and said is not None and clear and said == self._store.tally():
            gone = self._gone.below(bound) - self._gone.below(max(0, said.first))
            if said.gone != gone or not 0 <= said.first <= bound:
                detail = f"it says {said.gone} of the receipts from {said.first} on; the rows say {gone}"
                self._audit.note("count_mismatch", "tally", detail)


def _few(places: Iterator[int]) -> Iterator[int]:
    for _, place in zip(range(_MOST + 1), places, strict=False):
        yield place


def _heads(store: Store, first: int, end: int) -> Iterator[bytes]:
    while first < end and (page := store.heads(first, end)):
        yield from page
        first += len(page)
