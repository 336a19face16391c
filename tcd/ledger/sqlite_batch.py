"""A batch as one SQLite statement: rows of a temporary view, whose triggers put each where it belongs.

CPython lets go of the interpreter's lock around every step of a statement and waits to have it back, up to a switch
interval each time while the event loop works. A transaction of many statements did that some dozens of times; one
statement outside a transaction is one by itself, and is one step.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from tcd.ledger.rules import erased_by
from tcd.ledger.sqlite_reader import chain_key
from tcd.ledger.values import Batch
from tcd.receipts.issue import Receipt
from tcd.risk_av.events import event_to_json

_WIDTH: Final = 12
#: Rows of one statement at most: 3,072 of the 32,766 variables that SQLite has at least.
MAX_ROWS: Final = 256
_NOTHING: Final = (None,) * _WIDTH
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode

#: What a row is, in its first column.
_RECEIPT, _NEWEST, _EVENT, _ANSWER, _ERASE, _ERASED, _EXPIRE = range(7)

#: A trigger for each, in the order of `Ledger.append`; a row of padding is none of them. The `chain` of a receipt that
#: is the newest of its chain is `Receipt.next()`; while it stays open, the index of open chains is left alone: each
#: receipt would write another page of that, one in six.
_LAYOUT: Final = """
CREATE TEMP VIEW batch (kind, a, b, c, d, e, f, g, h, i, j, k) AS
  SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TEMP TRIGGER batch_receipt INSTEAD OF INSERT ON batch WHEN NEW.kind <= 1 BEGIN
  INSERT INTO receipt VALUES (NEW.a, NEW.b, NEW.c, NEW.d, NEW.e, NEW.f, NEW.g, NEW.h, NEW.i, NEW.j);
  INSERT INTO body VALUES (NEW.a, NEW.k);
END;
CREATE TEMP TRIGGER batch_chain INSTEAD OF INSERT ON batch WHEN NEW.kind = 1 AND NEW.e <> 'close' BEGIN
  INSERT INTO chain VALUES (NEW.g, NEW.h + 1, NEW.b, 0, NEW.j)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, prev = excluded.prev, ts_us = excluded.ts_us;
END;
CREATE TEMP TRIGGER batch_closed INSTEAD OF INSERT ON batch WHEN NEW.kind = 1 AND NEW.e = 'close' BEGIN
  INSERT OR REPLACE INTO chain VALUES (NEW.g, NEW.h + 1, NEW.b, 1, NEW.j);
END;
CREATE TEMP TRIGGER batch_event INSTEAD OF INSERT ON batch WHEN NEW.kind = 2 BEGIN
  INSERT INTO event VALUES (NEW.a, NEW.b);
END;
CREATE TEMP TRIGGER batch_answer INSTEAD OF INSERT ON batch WHEN NEW.kind = 3 BEGIN
  INSERT INTO answer VALUES (NEW.a, NEW.b, NEW.c, NEW.d, NEW.e, NEW.f);
END;
CREATE TEMP TRIGGER batch_erase INSTEAD OF INSERT ON batch WHEN NEW.kind = 4 BEGIN
  DELETE FROM answer WHERE head IN
    (SELECT lower(hex(head)) FROM receipt WHERE idx IN (SELECT value FROM json_each(NEW.a)));
  DELETE FROM body WHERE idx IN (SELECT value FROM json_each(NEW.a));
END;
CREATE TEMP TRIGGER batch_erased INSTEAD OF INSERT ON batch WHEN NEW.kind = 5 BEGIN
  INSERT OR IGNORE INTO erasure VALUES (NEW.a, NEW.b);
END;
CREATE TEMP TRIGGER batch_expire INSTEAD OF INSERT ON batch WHEN NEW.kind = 6 BEGIN
  DELETE FROM answer WHERE expires_us <= NEW.a;
END;
"""


def lay_out(connection: sqlite3.Connection) -> None:
    """Make the view and its triggers for one connection; the file has nothing of them."""
    # a statement on a view keeps its rows apart first: never in a file outside the data directory
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.executescript(_LAYOUT)


def rows_of(batch: Batch, *, size: int, events: int, expired_us: int | None) -> list[tuple[Any, ...]]:
    """The rows of a batch for a ledger of `size` receipts and `events` events.

    Args:
        batch: its receipts continue their chains.
        size: position of the first receipt.
        events: of the first event.
        expired_us: answers go that expire until then; None = none is so old.
    """
    out: list[tuple[Any, ...]] = []
    if expired_us is not None:
        out.append(_row(_EXPIRE, expired_us))
    if batch.erase:
        out.append(_row(_ERASE, _encode(batch.erase)))
        out += [_row(_ERASED, place, record) for place, record in erased_by(batch, size).items()]
    newest = {receipt.chain: at for at, receipt in enumerate(batch.receipts)}
    out += [
        _receipt(receipt, _NEWEST if newest[receipt.chain] == at else _RECEIPT, size + at)
        for at, receipt in enumerate(batch.receipts)
    ]
    out += [_row(_EVENT, i, _encode(event_to_json(event))) for i, event in enumerate(batch.events, events)]
    out += [_row(_ANSWER, a.tenant, a.key, a.payload, a.answer, a.head, a.expires_us) for a in batch.answers]
    return out


def _row(*values: Any) -> tuple[Any, ...]:
    return values + _NOTHING[len(values) :]


def _receipt(r: Receipt, kind: int, idx: int) -> tuple[Any, ...]:
    prev = bytes.fromhex(r.prev)
    return (kind, idx, r.head, r.sig, r.kid, r.typ, r.tenant, chain_key(r.chain), r.seq, prev, r.ts_us, r.body)


def insert(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    """Write rows: all or none where they are one statement (up to `MAX_ROWS`), else inside a transaction."""
    for first in range(0, len(rows), MAX_ROWS):
        some = rows[first : first + MAX_ROWS]
        count = _rounded(len(some))
        some += [_NOTHING] * (count - len(some))
        # `execute` would take the lock once more, to ask for a row id that nobody wants
        connection.executemany(_statement(count), (_flat(some),))


def _flat(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    return [value for row in rows for value in row]


def _rounded(count: int) -> int:
    """The next number of rows that there is a statement for: 28 statements, at most a quarter of padding."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step


@cache
def _statement(count: int) -> str:
    row = f"({', '.join('?' * _WIDTH)})"
    return f"INSERT INTO batch VALUES {', '.join([row] * count)}"  # noqa: S608 - marks alone
