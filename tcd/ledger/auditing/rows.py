"""One receipt: body against head, columns against body, and the signature, also where the body was erased."""

from __future__ import annotations

from typing import Any

from tcd.errors import VerificationError
from tcd.ledger.auditing.sources import Row
from tcd.ledger.findings import Audit
from tcd.ledger.sqlite_reader import chain_key
from tcd.receipts.body import head_of, read_fitting
from tcd.receipts.checks import MAX_CHARS, check_key, check_signed, resolve_key
from tcd.receipts.report import Checks, VerifyPolicy
from tcd.receipts.verify import read_body


def _fitting(body: bytes) -> dict[str, Any] | None:
    try:
        return read_fitting(body.decode(), body) if len(body) <= MAX_CHARS else None
    except UnicodeDecodeError:
        return None


class Rows:
    """Checks rows by pinned keys; what it finds goes to `audit`."""

    def __init__(self, audit: Audit, policy: VerifyPolicy, origin: str) -> None:
        """Check by `policy`; `origin` empty = that of the first body."""
        self.audit = audit
        self._policy = policy
        self.origin = origin

    def read(self, row: Row) -> dict[str, Any] | None:
        """Check a row; its body, None where it was erased, is another one, is not signed or cannot be read."""
        where = f"receipt {row.idx}"
        if row.body is None:
            self.audit.counts["bodies erased"] += 1
            self._signed(row, where, None)
            return None
        if head_of(row.body) != row.head:
            # nobody signed this body: nothing that it says is looked at
            self.audit.note("head_mismatch", where, "the head is not that of the body")
            self._signed(row, where, None)
            return None
        value = _fitting(row.body)
        if value is None:
            # another body, or one that cannot be told at once: step by step
            reading = Checks(set())
            _, value = read_body(reading, row.body)
            if value is None:
                bad = reading.results[-1]
                self.audit.note(bad.code, where, bad.detail)
                return None
        self.origin = self.origin or value["origin"]
        link = value["chain"]
        columns = (row.kid, row.typ, row.tenant, row.chain, row.seq, row.prev.hex(), row.ts_us)
        told = (
            *(value[name] for name in ("kid", "typ", "tenant")),
            *(chain_key(link["id"]), link["seq"], link["prev"], value["ts_us"]),
        )
        if columns != told:
            self.audit.note("row_mismatch", where, "a column differs from the body")
        if value["origin"] != self.origin:
            self.audit.note("key_not_authorised", where, f"origin {value['origin']!r}")
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
            check_signed(key, told, row.head, row.sig, self._policy)
        except VerificationError as error:
            self.audit.note(error.code, where, error.detail)
            return False
        return True
