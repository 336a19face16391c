"""The bench of audits: a log through the real ledger, one process per audit, memory that does not grow with the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tcd.bench.audit import growth


def rows_of(counts: list[int], folder: Path) -> list[dict[str, Any]]:
    said: list[str] = []
    found = growth.measure(counts, folder=folder, say=said.append)
    assert len(said) == 2 * len(counts)
    text = growth.markdown(found, image="x.svg")
    assert all(f"| {row['receipts']:,} |" in text for row in found["rows"])
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


@pytest.mark.long
def test_memory_does_not_grow_up_to_ten_million_receipts(tmp_path: Path) -> None:
    """An hour and 43 GB of disk: the peak at 10^7 is that at 10^5 and 64 MiB."""
    small, large = rows_of([100_000, 10_000_000], tmp_path)
    assert (small["findings"], large["findings"]) == (0, 0)
    assert large["receipts"] >= 10_000_000
    assert large["peak_mib"] <= small["peak_mib"] + 64
