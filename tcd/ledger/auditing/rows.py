"""One receipt: body against head, columns against body, and the signature, also where the body was erased."""

from __future__ import annotations

from typing import Any

from tcd.errors import VerificationError
from tcd.ledger.auditing.sources import Row
from tcd.ledger.findings import Audit
from tcd.ledger.sqlite_reader import chain_key
from tcd.receipts.body import head_of
from tcd.receipts.checks import check_key, check_signature, resolve_key
from tcd.receipts.report import Checks, VerifyPolicy
from tcd.receipts.verify import read_body


class Rows:
    """Checks rows by pinned keys."""

    def __init__(self, audit: Audit, policy: VerifyPolicy, origin: str) -> None:
        """Check by `policy`; `origin` empty = that of the first body."""
        self._audit = audit
        self._policy = policy
        self.origin = origin

    def read(self, row: Row) -> dict[str, Any] | None:
        """Check a row; its body, None where it was erased, is another one, is not signed or cannot be read."""
        where = f"receipt {row.idx}"
        if row.body is None:
            self._audit.counts["bodies erased"] += 1
            self._signed(row, where, None)
            return None
        if head_of(row.body) != row.head:
            # nobody signed this body: nothing that it says is looked at
            self._audit.note("head_mismatch", where, "the head is not that of the body")
            self._signed(row, where, None)
            return None
        reading = Checks(set())
        _, value = read_body(reading, row.body)
        if value is None:
            bad = reading.results[-1]
            self._audit.note(bad.code, where, bad.detail)
            return None
        self.origin = self.origin or value["origin"]
        link = value["chain"]
        columns = (row.kid, row.typ, row.tenant, row.chain, row.seq, row.prev.hex(), row.ts_us)
        told = (
            *(value[name] for name in ("kid", "typ", "tenant")),
            *(chain_key(link["id"]), link["seq"], link["prev"], value["ts_us"]),
        )
        if columns != told:
            self._audit.note("row_mismatch", where, "a column differs from the body")
        if value["origin"] != self.origin:
            self._audit.note("key_not_authorised", where, f"origin {value['origin']!r}")
        # what nobody signed is not looked at
        return value if self._signed(row, where, value) else None

    def _signed(self, row: Row, where: str, value: dict[str, Any] | None) -> bool:
        try:
            told = value if value is not None else {"kid": row.kid}
            key = resolve_key(told, self._policy, None)
            if value is None:
                # the signature covers the head: what is left of an erased receipt can still be checked
                told = {
                    "kid": row.kid, "suite": key.alg, "origin": key.origin, "tenant": row.tenant, "ts_us": row.ts_us,
                }  # fmt: skip
            # the row itself is the place in the log; the checkpoints show whether it is
            check_key(key, told, self._policy, index=row.idx)
            check_signature(key, told, row.head.hex(), row.sig.hex(), self._policy)
        except VerificationError as error:
            self._audit.note(error.code, where, error.detail)
            return False
        return True
