"""The bench of the proxy measures all ways; the figures themselves depend on the machine."""

from __future__ import annotations

from tcd.bench.proxy import WAYS, measure, median, table


def test_all_ways_are_measured() -> None:
    rows = measure(3)
    assert [row["way"] for row in rows] == [*WAYS] * 3
    assert all(0 < row["first"][0] <= row["whole"][2] for row in rows)
    text = table(rows, 3)
    assert text.count("\n| ") == 10
    assert "64 events" in text


def test_the_interval_of_a_median_holds_it() -> None:
    assert median([float(v) for v in range(101)]) == (50.0, 40.0, 61.0)
    assert median([7.0]) == (7.0, 7.0, 7.0)
