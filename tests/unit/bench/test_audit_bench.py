"""The bench of audits: a log through the real ledger, one process per audit, memory that does not grow with the log."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tcd.bench.audit import growth, one, writing
from tcd.ledger.auditing.sources import sqlite_store
from tcd.ledger.sqlite import FILE


def rows_of(counts: list[int], folder: Path) -> list[dict[str, Any]]:
    said: list[str] = []
    found = growth.measure(counts, folder=folder, say=said.append)
    assert len(said) == 2 * len(counts)
    text = growth.markdown(found, image="x.svg")
    assert all(text.count(f"| {row['receipts']:,} |") == 2 for row in found["rows"])
    ET.fromstring(growth.plot(found))  # noqa: S314 - ours
    json.dumps(found)
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def test_an_audit_is_measured(tmp_path: Path) -> None:
    (row,) = rows_of([400], tmp_path)
    assert row["receipts"] >= 400
    assert row["findings"] == 0
    assert row["chains"] > row["receipts"] / 20
    assert row["cpu_seconds"] > 0
    assert row["peak_mib"] >= row["start_mib"] > 0
    assert list(tmp_path.iterdir()) == []
    said_by_both(row)


def said_by_both(row: dict[str, Any]) -> None:
    """What DuckDB finds in the Parquet is what the audit counted in the ledger."""
    assert row["parquet"]["receipts"] == row["receipts"]
    actions = row["query"]["actions"]
    assert {name: one["decisions"] for name, one in actions.items()} == row["actions"]
    assert sum(one["triggers"] for one in actions.values()) == row["triggers"]


def test_a_ledger_of_parts_follows_from_the_seed_and_audits_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_BATCH", 100)
    size = writing.write(tmp_path, 400, parts=2)
    assert size >= 400
    # what the two processes were to send, in turn
    parts = [writing._batches(0, part, 2, 100) for part in range(2)]
    batches = (next(parts[number % 2])[0] for number in itertools.count())
    heads = [receipt.head for receipt in itertools.islice(itertools.chain.from_iterable(batches), size)]
    with sqlite_store(tmp_path / FILE) as store:
        assert [row.head for row in store.rows(0)] == heads
    found = one.audit(tmp_path)
    assert (found["receipts"], found["findings"]) == (size, 0)


@pytest.mark.long
def test_memory_does_not_grow_up_to_ten_million_receipts(tmp_path: Path) -> None:
    """An hour and 44 GB of disk: the peaks at 10^7 are those at 10^5 and 32 MiB.

    An export's footer has each row group of 32,768 rows, some 80 KiB until it is written: 23 MiB more.
    """
    small, large = rows_of([100_000, 10_000_000], tmp_path)
    assert (small["findings"], large["findings"]) == (0, 0)
    assert large["receipts"] >= 10_000_000
    assert large["peak_mib"] <= small["peak_mib"] + 32
    assert large["parquet"]["peak_mib"] <= small["parquet"]["peak_mib"] + 32 + 23
    said_by_both(large)
