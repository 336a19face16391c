"""The sampler obeys temperature, top-p and decoder code, and is a function of its seed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tcd.contract import DECODERS
from tcd.demo.sampler import HISTORY, Setting, blocked, choose

LOGITS = np.array([2.0, 1.0, 0.0, -1.0, 5.0], np.float32)
GREEDY, NO_REPEAT, SAMPLE = (DECODERS.index(name) for name in ("greedy", "no_repeat", "sample"))


def draws(setting: Setting, n: int = 4000, seed: int = 0, history: tuple[int, ...] = ()) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return np.array([choose(LOGITS, setting, history=history, rng=rng) for _ in range(n)])


@pytest.mark.parametrize("setting", [Setting(0.0), Setting(0.049), Setting(3.0, decoder=GREEDY)])
def test_greedy_takes_the_maximum_and_draws_no_randomness(setting: Setting) -> None:
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state
    assert choose(LOGITS, setting, history=(), rng=rng) == 4
    assert rng.bit_generator.state == before


def test_frequencies_follow_the_softmax_at_the_temperature() -> None:
    temperature = 2.0
    counts = np.bincount(draws(Setting(temperature, top_p=1.0), n=20_000), minlength=5) / 20_000
    expected = np.exp(LOGITS / temperature) / np.exp(LOGITS / temperature).sum()
    # five standard errors
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected * (1 - expected) / 20_000))


def test_top_p_keeps_the_smallest_nucleus_that_reaches_it() -> None:
    p = np.exp(LOGITS - LOGITS.max())
    p /= p.sum()  # token 4 has .93, tokens 4 and 0 have .98
    assert p[4] < 0.95 < p[4] + p[0]
    assert set(draws(Setting(1.0, top_p=0.95))) == {4, 0}
    assert set(draws(Setting(1.0, top_p=float(p[4]) - 1e-6))) == {4}


def test_a_tiny_top_p_still_leaves_one_token() -> None:
    assert set(draws(Setting(1.0, top_p=1e-9), n=10)) == {4}


def test_the_same_seed_draws_the_same_tokens_and_another_does_not() -> None:
    hot = Setting(5.0, top_p=1.0)
    assert np.array_equal(draws(hot, n=50, seed=7), draws(hot, n=50, seed=7))
    assert not np.array_equal(draws(hot, n=50, seed=7), draws(hot, n=50, seed=8))


def test_sample_draws_even_at_a_greedy_temperature() -> None:
    flat = np.zeros(50, np.float32)
    rng = np.random.default_rng(0)
    seen = {choose(flat, Setting(0.0, 1.0, SAMPLE), history=(), rng=rng) for _ in range(200)}
    assert len(seen) > 20


def test_no_repeat_forbids_the_third_token_of_a_seen_trigram() -> None:
    # "0 1 4" was there; after "0 1" the maximum 4 is forbidden, the next best is 0
    history = (0, 1, 4, 2, 0, 1)
    assert blocked(history) == {4}
    assert choose(LOGITS, Setting(0.0), history=history, rng=np.random.default_rng(0)) == 4
    assert choose(LOGITS, Setting(0.0, decoder=NO_REPEAT), history=history, rng=np.random.default_rng(0)) == 0


def test_no_repeat_sees_the_newest_tokens_only() -> None:
    old = (0, 1, 4) + (2,) * HISTORY
    assert blocked((*old, 0, 1)) == set()
    assert blocked((0, 1)) == set()


def test_no_repeat_with_everything_forbidden_falls_back_to_the_logits() -> None:
    logits = np.array([1.0, 2.0], np.float32)
    history = (0, 0, 1, 0, 0, 0, 0)
    assert blocked(history) == {0, 1}
    assert choose(logits, Setting(0.0, decoder=NO_REPEAT), history=history, rng=np.random.default_rng(0)) == 1


def test_minus_infinity_is_never_drawn() -> None:
    logits = np.array([0.0, -np.inf, 0.0], np.float32)
    rng = np.random.default_rng(0)
    assert 1 not in {choose(logits, Setting(2.0, 1.0), history=(), rng=rng) for _ in range(300)}
