from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sidecar_api.windows import Hold, HoldRules, Ring, SessionWindow
from tcd.contract import MAX_FEATURE_ROWS, MAX_WINDOW
from tcd.errors import ValidationFailed

NONE = np.zeros(0, np.float32)
NO_ROWS = np.zeros((0, 0), np.float32)


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=30), st.sampled_from([0, 1, 3])
)
def test_a_ring_is_the_newest_committed_values(limit: int, steps: list[tuple[int, bool]], cols: int) -> None:
    ring, model, number = Ring(limit, cols), np.zeros((0, cols) if cols else 0, np.float32), 0
    for count, commit in steps:
        values = np.arange(number, number + count * max(cols, 1), dtype=np.float32)
        values = values.reshape(-1, cols) if cols else values
        number += values.size
        expected = np.concatenate([model, values])[-limit:]
        assert np.array_equal(ring.stage(values), expected)
        assert np.array_equal(ring.view, model)
        if commit:
            ring.commit(values)
            model = expected
            assert np.array_equal(ring.view, model)


def test_a_full_ring_stays_small() -> None:
    ring = Ring(MAX_WINDOW)
    for _ in range(20_000):
        ring.stage(f32(1.0))
        ring.commit(f32(1.0))
    assert ring.view.shape == (MAX_WINDOW,)
    assert ring.nbytes <= 4 * MAX_WINDOW * 1.25


def test_a_row_of_a_given_up_step_keeps_its_values_when_the_ring_moves() -> None:
    ring = Ring(8)
    for i in range(8):
        ring.stage(f32(float(i)))
        ring.commit(f32(float(i)))
    given_up = ring.stage(f32(100.0))
    before = given_up.copy()
    ring.stage(f32(*range(20)))
    assert np.array_equal(given_up, before)


def test_nothing_is_kept_of_a_step_that_is_not_committed() -> None:
    window = SessionWindow()
    first = window.stage(f32(1), f32(2), f32(3), np.ones((1, 2), np.float32))
    assert window.tokens == 0
    assert first.mask == 15
    again = window.stage(f32(7), NONE, NONE, NO_ROWS)
    assert (again.trace.tolist(), again.entropy.size, again.spectrum.size, again.features.size) == ([7.0], 0, 0, 0)
    window.commit(again)
    assert (window.trace.view.tolist(), window.tokens) == ([7.0], 1)


def test_the_spectrum_is_the_newest_one() -> None:
    window = SessionWindow()
    window.commit(window.stage(f32(1), NONE, f32(5, 4), NO_ROWS))
    assert window.stage(f32(1), NONE, NONE, NO_ROWS).spectrum.tolist() == [5.0, 4.0]
    assert window.stage(f32(1), NONE, f32(9), NO_ROWS).spectrum.tolist() == [9.0]


def test_the_feature_width_is_fixed_by_the_first_committed_vector() -> None:
    window = SessionWindow()
    window.stage(NONE, NONE, NONE, np.ones((1, 3), np.float32))
    window.commit(window.stage(NONE, NONE, NONE, np.ones((1, 2), np.float32)))
    with pytest.raises(ValidationFailed) as error:
        window.stage(NONE, NONE, NONE, np.ones((1, 3), np.float32))
    assert error.value.pointer == "/features"


@pytest.mark.parametrize(("cols", "rows"), [(1, 112), (146, 112), (147, 111), (2048, 8)])
def test_feature_rows_are_bounded_by_rows_and_by_values(cols: int, rows: int) -> None:
    window = SessionWindow()
    for _ in range(MAX_FEATURE_ROWS + 5):
        window.commit(window.stage(NONE, NONE, NONE, np.ones((1, cols), np.float32)))
    assert window.feature_view.shape == (rows, cols)


def test_whole_windows_keep_nothing_but_count_tokens() -> None:
    window = SessionWindow()
    values = np.ones(100, np.float32)
    for tokens in (100, 101, 102):
        staged = window.whole(values, NONE, NONE, NO_ROWS)
        assert staged.tokens == tokens
        window.commit(staged)
    assert window.trace.view.size == 0


def test_hysteresis_holds_and_cools_down() -> None:
    rules, route, other = HoldRules(on=0.99, off=0.9, cooldown=2), (0.7, 0.9, 0.0, 3.0), (1.0, 1.0, 0.0, 0.0)
    hold = Hold().step(rules, score=0.98, alarm=True, route=route)
    assert not hold.on
    hold = hold.step(rules, score=0.99, alarm=False, route=route)
    assert (hold.on, hold.route) == (True, route)
    hold = hold.step(rules, score=0.5, alarm=False, route=other)
    hold = hold.step(rules, score=0.95, alarm=False, route=other)
    assert (hold.on, hold.calm, hold.route) == (True, 0, route)
    hold = hold.step(rules, score=0.5, alarm=False, route=other)
    assert hold.on
    assert hold.step(rules, score=0.5, alarm=False, route=other) == Hold()


def test_without_cooldown_nothing_is_held() -> None:
    assert not Hold().step(HoldRules(), score=1.0, alarm=True, route=(1.0, 1.0, 0.0, 0.0)).on
