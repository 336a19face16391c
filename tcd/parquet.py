"""Receipts as Parquet, one row each, for DuckDB, Spark and pandas: `tcd export parquet` (extra `parquet`).

The file is written in row groups from pages of the ledger, so memory does not grow with it. It proves nothing: a head
names the receipt, which is where proofs begin. Columns are described in docs/log-export.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tcd.contract import COMPONENTS
from tcd.ledger.auditing.sources import Row, Store
from tcd.receipts.fast import read_json

VERSION: Final = "tcd.parquet/1"
#: Rows of one row group, up to a page more.
GROUP: Final = 32_768
_MONITORS: Final = (*COMPONENTS, "multivariate")
_ZERO: Final = "0" * 16
_EMPTY: Final[dict[str, Any]] = {}
_TEXT: Final = pa.dictionary(pa.int32(), pa.string())
_LOG2: Final = math.log10(2.0)
#: Member of a body (by its path) of each column: text, integers, booleans, reals.
_TEXTS: Final = {
    "subject": ("subject",),
    "model_id": ("model", "id"),
    "gpu_id": ("model", "gpu"),
    "task": ("model", "task"),
    "lang": ("model", "lang"),
    "config": ("config",),
    "policy": ("policy",),
    "action": ("decision", "action"),
    "enforced": ("decision", "enforced"),
    "cause": ("decision", "cause"),
    "decoder": ("route", "decoder"),
    "tier": ("route", "tier"),
    "unit": ("av", "unit"),
    "stream": ("av", "stream"),
    "hypothesis": ("av", "hypothesis"),
    "guarantee": ("guarantee",),
    "evidence": ("evidence",),
    "close_reason": ("close", "reason"),
    "admin_action": ("admin", "action"),
    "actor": ("admin", "actor"),
    "admin_reason": ("admin", "reason"),
}
_NUMBERS: Final = {
    "step": ("decision", "step"),
    "status": ("decision", "status"),
    "max_tokens": ("route", "max_tokens"),
    "epoch": ("av", "epoch"),
    "av_index": ("av", "index"),
    "av_seq": ("av", "seq"),
    "known": ("av", "known"),
    "e_claim": ("eproc", "claim"),
    "e_step": ("eproc", "step"),
}
_FLAGS: Final = {
    "verdict": ("decision", "verdict"),
    "trigger": ("decision", "trigger"),
    "exhausted": ("av", "exhausted"),
    "e_trigger": ("eproc", "trigger"),
    **{f"{name}_triggered": ("components", name, "triggered") for name in _MONITORS},
}
_REALS: Final = {
    "score": ("decision", "score"),
    "threshold": ("decision", "threshold"),
    "p": ("av", "p"),
    "p_floor": ("av", "p_floor"),
    "alloc": ("av", "alloc"),
    "spent": ("av", "spent"),
    "wealth": ("av", "wealth"),
    "distrust": ("risk", "distrust"),
    "pressure": ("risk", "pressure"),
    **{f"{name}_{part}": ("components", name, part) for name in _MONITORS for part in ("severity", "p", "z")},
}
_ROW: Final = [
    ("index", pa.int64()),
    ("head", pa.string()),
    ("typ", _TEXT),
    ("tenant", _TEXT),
    ("chain", pa.string()),
    ("seq", pa.int64()),
    ("time", pa.timestamp("us", tz="UTC")),
    ("kid", _TEXT),
    ("erased", pa.bool_()),
]
_OTHERS: Final = [
    ("temperature", pa.float64()),
    ("top_p", pa.float64()),
    ("e_log10", pa.float64()),
    ("tags", pa.list_(pa.string())),
]
#: Not worth a dictionary: as many values as rows.
_UNIQUE: Final = frozenset({"subject", "hypothesis"})


def schema(*, bodies: bool = False) -> pa.Schema:
    """The columns, in order; with `bodies` also the canonical text of each body."""
    fields = [
        *_ROW,
        *((name, pa.string() if name in _UNIQUE else _TEXT) for name in _TEXTS),
        *((name, pa.int64()) for name in _NUMBERS),
        *((name, pa.bool_()) for name in _FLAGS),
        *((name, pa.float64()) for name in _REALS),
        *_OTHERS,
        *([("body", pa.string())] if bodies else []),
    ]
    return pa.schema(fields, metadata={"tcd": VERSION})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which receipts, and whether with their bodies."""

    typ: str = ""
    tenant: str = ""
    first: int = 0
    bodies: bool = False

    def takes(self, row: Row) -> bool:
        """Whether a receipt is wanted."""
        return self.typ in {"", row.typ} and self.tenant in {"", row.tenant}


def write(
    store: Store, out: IO[bytes], wanted: Wanted, *, progress: Callable[[int, int], None] = lambda *_: None
) -> int:
    """Write the receipts of a ledger that are there now; how many.

    Args:
        store: read page by page.
        out: a binary file; it need not be seekable.
        wanted: which ones.
        progress: is told receipts looked at, and of how many.

    Raises:
        tcd.errors.ConfigError: the ledger cannot be read.
    """
    columns, count = schema(bodies=wanted.bodies), 0
    waiting: list[pa.RecordBatch] = []
    with pq.ParquetWriter(out, columns, compression="zstd") as writer:
        for rows in _pages(store, wanted, progress):
            waiting.append(_batch(rows, columns, bodies=wanted.bodies))
            count += len(rows)
            if sum(batch.num_rows for batch in waiting) >= GROUP:
                _write_group(writer, waiting, columns)
                waiting = []
        if waiting:
            _write_group(writer, waiting, columns)
    return count


def _write_group(writer: pq.ParquetWriter, batches: Sequence[pa.RecordBatch], columns: pa.Schema) -> None:
    table = pa.Table.from_batches(batches, columns).unify_dictionaries()
    writer.write_table(table, row_group_size=table.num_rows)


def _pages(store: Store, wanted: Wanted, progress: Callable[[int, int], None]) -> Iterator[list[Row]]:
    first, size = wanted.first, store.sizes().receipts
    while first < size and (page := store.rows(first)):
        first = page[-1].idx + 1
        progress(min(first, size), size)
        if rows := [row for row in page if row.idx < size and wanted.takes(row)]:
            yield rows


def _batch(rows: Sequence[Row], columns: pa.Schema, *, bodies: bool) -> pa.RecordBatch:
    values = _Bodies([_merged(row) for row in rows])
    arrays = [
        pa.array([row.idx for row in rows], pa.int64()),
        pa.array([row.head.hex() for row in rows]),
        pa.array([row.typ for row in rows]).dictionary_encode(),
        pa.array([row.tenant for row in rows]).dictionary_encode(),
        pa.array(["sha256:" + row.chain.hex() for row in rows]),
        pa.array([row.seq for row in rows], pa.int64()),
        pa.array([row.ts_us for row in rows], pa.timestamp("us", tz="UTC")),
        pa.array([row.kid for row in rows]).dictionary_encode(),
        pa.array([row.body is None for row in rows]),
    ]
    for name, path in _TEXTS.items():
        found = pa.array(values.at(path), pa.string())
        arrays.append(found if name in _UNIQUE else found.dictionary_encode())
    arrays += [pa.array(values.at(path), pa.int64()) for path in _NUMBERS.values()]
    arrays += [pa.array(values.at(path), pa.bool_()) for path in _FLAGS.values()]
    arrays += [_reals(values.at(path)) for path in _REALS.values()]
    arrays += [_millionths(values.at(("route", name))) for name in ("temperature_e6", "top_p_e6")]
    arrays.append(_log10(values.at(("eproc", "e")), values.at(("eproc", "e_exp2"))))
    arrays.append(pa.array(values.at(("decision", "tags")), pa.list_(pa.string())))
    if bodies:
        arrays.append(pa.array([None if row.body is None else row.body.decode() for row in rows], pa.string()))
    return pa.RecordBatch.from_arrays(arrays, schema=columns)


def _merged(row: Row) -> dict[str, Any]:
    """A body's members; whose session it opens is where decisions have it."""
    if row.body is None:
        return {}
    value: dict[str, Any] = read_json(row.body)
    opened = value.get("open")
    if opened is not None:
        value = {**value, **{name: opened[name] for name in ("subject", "model") if name in opened}}
    return value


class _Bodies:
    """Bodies of a page, by member: the members of an object are looked up in it, not again from the top."""

    def __init__(self, values: list[dict[str, Any]]) -> None:
        self._inside: dict[tuple[str, ...], list[dict[str, Any]]] = {(): values}

    def at(self, path: tuple[str, ...]) -> list[Any]:
        """A member of each body, None where it has none."""
        name = path[-1]
        return [value.get(name) for value in self._objects(path[:-1])]

    def _objects(self, path: tuple[str, ...]) -> list[dict[str, Any]]:
        found = self._inside.get(path)
        if found is None:
            found = self._inside[path] = [value or _EMPTY for value in self.at(path)]
        return found


def _floats(values: Sequence[str | None]) -> tuple[Any, Any]:
    """Numbers of hex64 texts, and where there is none."""
    raw = bytes.fromhex("".join(_ZERO if value is None else value for value in values))
    return np.frombuffer(raw, ">f8").astype("<f8"), np.array([value is None for value in values])


def _reals(values: Sequence[str | None]) -> pa.Array:
    numbers, missing = _floats(values)
    return pa.array(numbers, mask=missing)


def _millionths(values: Sequence[int | None]) -> pa.Array:
    numbers = np.array([0 if value is None else value for value in values], np.float64) / 1e6
    return pa.array(numbers, mask=np.array([value is None for value in values]))


def _log10(mantissas: Sequence[str | None], exponents: Sequence[int | None]) -> pa.Array:
    """Logarithms of m 2^k, which itself may be beyond a float; of 0 there is none."""
    numbers, missing = _floats(mantissas)
    missing = missing | (numbers <= 0.0)
    powers = np.array([0 if value is None else value for value in exponents], np.float64)
    return pa.array(np.log10(np.where(missing, 1.0, numbers)) + powers * _LOG2, mask=missing)
