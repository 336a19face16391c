"""Windows: counts validated once or row by row, newest values and past sums of rows of any length; extreme values."""

from __future__ import annotations

import numpy as np
import pytest

from tcd.contract import Length
from tcd.detector import recurrence
from tcd.detector.windows import BLOCK, TAIL, counts_of, past_sums, right_align

RNG = np.random.default_rng(11)
WIDTHS = {"trace": 256, "entropy": 256, "spectrum": 64, "features": 1024}
GOOD = (200, 180, 16, 40, 16, 1)
ROWS = [
    GOOD,
    (257, 1, 1, 0, 0, 0),
    (-1, 0, 0, 0, 0, 0),
    (10, 10, 65, 0, 0, 0),
    (10, 10, 3, 0, 7, 0),
    (10, 10, 3, 64, 17, 0),
    (10, 10, 3, 113, 1, 0),
    (0, 0, 0, 0, 0, 7),
]


@pytest.mark.parametrize("row", ROWS)
def test_counts_are_the_same_alone_and_among_others(row: tuple[int, ...]) -> None:
    alone = counts_of(np.array([row] * 3, np.int32), **WIDTHS)
    mixed = counts_of(np.array([row, GOOD, (1, 2, 3, 4, 5, 6)], np.int32), **WIDTHS)
    assert alone.common == tuple(alone.table[0].tolist())
    assert mixed.common is None
    assert alone.table[1].tolist() == mixed.table[0].tolist()
    assert alone.bad.tolist() == [bool(mixed.bad[0])] * 3
    assert alone.trace.tolist() == alone.table[:, Length.TRACE].tolist()


@pytest.mark.parametrize("room", [20, TAIL, 300])
@pytest.mark.parametrize("dense", [True, False])
def test_newest_values_are_right_aligned(room: int, *, dense: bool) -> None:
    values = RNG.normal(size=(5, 400)).astype(np.float32)[:, : 400 if dense else 350]
    counts = np.array([0, 7, room, 350, 113])
    for common in (None, 7, 350):
        number = counts if common is None else np.full(5, common)
        out = np.full((5, room), np.nan, np.float32)
        right_align(out, values, number, common)
        for row, source, count in zip(out, values, number.tolist(), strict=True):
            expected = np.zeros(room, np.float32)
            taken = source[max(count - room, 0) : count]
            expected[room - taken.shape[0] :] = taken
            assert row.tolist() == expected.tolist()


def test_past_sums_have_the_bits_of_the_row_alone() -> None:
    values = RNG.normal(size=(40, 4096)).astype(np.float32)
    counts = RNG.choice([0, 1, 15, 16, 17, 40, 200, 4095, 4096], 40)
    together = past_sums(values, counts)
    for i, count in enumerate(counts.tolist()):
        assert together[i] == past_sums(values[i : i + 1, :count], counts[i : i + 1])[0]
        assert together[i] == pytest.approx(values[i, : max(count - BLOCK, 0)].astype(np.float64).sum())


def test_recurrence_of_values_whose_differences_overflow() -> None:
    top = np.float32(np.finfo(np.float32).max)
    window = RNG.uniform(-1, 1, (3, TAIL)).astype(np.float32)
    window[1] *= top
    plain, scaled = window[:2].copy(), window[:2].copy()
    scaled[1] = plain[1] * np.float32(2.0**-30)
    with np.errstate(over="ignore", invalid="ignore"):
        for part in ("ratio", "share"):
            got, same, batch = (
                getattr(recurrence.scalar(x, np.full(len(x), TAIL)), part) for x in (plain, scaled, window)
            )
            assert got.tolist() == same.tolist()
            assert batch.tolist()[:2] == got.tolist()
