"""The text's own verdict: verbatim and soft loops."""

from __future__ import annotations

import numpy as np
import pytest

from tcd.demo.labels import degeneration, soft_loop, verbatim_loop
from tcd.demo.records import Token
from tcd.demo.survey import label

FRESH = list(range(1000, 1400))


def tokens_of(ids: list[int]) -> list[Token]:
    plain = {"text": "", "lp": -1.0, "entropy": 1.0, "temperature": 0.8, "top_p": 0.95, "decoder": 0, "asked": 0.8}
    return [Token(step=i, token=token, **plain) for i, token in enumerate(ids)]  # type: ignore[arg-type]


@pytest.mark.parametrize("period", [1, 5, 24, 40, 96])
def test_a_verbatim_loop_is_found_at_its_first_copied_token(period: int) -> None:
    start = 20
    text = FRESH[:start] + [i % period for i in range(4 * 96)]
    loop = verbatim_loop(text)
    assert loop is not None
    assert loop.onset == start + period
    assert loop.confirmed == start + period + max(24, period) - 1


def test_fewer_than_24_copies_are_no_loop() -> None:
    assert verbatim_loop([*FRESH[:30], *[7] * 24, *FRESH[30:60]]) is None
    assert verbatim_loop([*FRESH[:30], *[7] * 25, *FRESH[30:60]]) is not None


def test_a_period_of_97_is_no_verbatim_loop_but_a_soft_one() -> None:
    text = FRESH[:97] * 3
    assert verbatim_loop(text) is None
    assert soft_loop(text) is not None


def test_fresh_and_random_text_does_not_degenerate() -> None:
    assert degeneration(FRESH) is None
    assert degeneration(np.random.default_rng(0).integers(0, 500, 600).tolist()) is None


def test_half_repeated_grams_are_a_soft_loop() -> None:
    block = FRESH[:20]
    text = FRESH[20:60]
    for i in range(8):
        text += block + FRESH[100 + 8 * i : 108 + 8 * i]
    assert verbatim_loop(text) is None
    loop = soft_loop(text)
    assert loop is not None
    assert 60 <= loop.onset < loop.confirmed


def test_the_blow_up_begins_at_the_change_unless_the_text_ended_before() -> None:
    assert label("blowup", tokens_of(FRESH[:100])).onset == 48
    assert label("blowup", tokens_of(FRESH[:40])).onset == -1


def test_a_healthy_run_that_loops_by_itself_is_healthy_until_then() -> None:
    labels = label("healthy", tokens_of(FRESH[:60] + [3] * 60))
    assert labels.onset == -1
    assert labels.healthy == 61
