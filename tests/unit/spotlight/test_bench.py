"""The benchmark of rewriting: its bodies are what they say, and its figures come from them. No time is asserted."""

from __future__ import annotations

import json
import math

import pytest

from tcd.bench import spotlight as bench
from tests.unit.spotlight.kit import run


@pytest.mark.parametrize("name", bench.BODIES)
@pytest.mark.parametrize("size", [1 << 10, 16 << 10, 1 << 20])
def test_bodies_are_as_large_as_asked_and_are_rewritten(name: str, size: int) -> None:
    body = bench.BODIES[name].body(size)
    assert size * 0.85 < len(body) <= size
    outcome = run(body)
    assert outcome.failures == ()
    assert outcome.body_rewritten is (name not in {"user, own words", "user, headers and commas"})


def test_a_row_and_the_tables() -> None:
    row = bench.in_process("tool, prose", 2048, n=20)
    assert (row.n, row.size <= 2048) == (20, True)
    assert 0 < row.p50 <= row.p99 <= row.worst
    rows = [bench.Row("x", size, 1, size * 2.0, 1, 1, 1) for size in bench.SIZES]
    assert math.isclose(bench.slope(rows), 1.0)
    served = [bench.Served("tcd_spotlight", 1024, 1, 10, 1.0, 2.0, 300.0)]
    page = bench.markdown([row], {row.name: 1.0}, served)
    assert "| tool, prose | 2 |" in page
    assert "| tcd_spotlight | 1 | 1 | 1.00 | 2.00 | 300 | 10 |" in page
    json.dumps(bench.raw([row], {row.name: 1.0}, served))
