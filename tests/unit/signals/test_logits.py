"""Log-probability and entropy against FP64 definitions; masked tokens; what is not good."""

from __future__ import annotations

import numpy as np
import pytest

from tcd.signals.logits import token_signals


def test_definitions() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (5, 49152)).astype(np.float32)
    token = rng.integers(0, 49152, 5)
    out = token_signals(logits, token)
    exact = logits.astype(np.float64)
    log_p = exact - np.log(np.exp(exact - exact.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
    log_p -= exact.max(axis=1, keepdims=True)
    assert out.log_probability == pytest.approx(log_p[np.arange(5), token], abs=1e-5)
    assert out.entropy == pytest.approx(-(np.exp(log_p) * log_p).sum(axis=1), abs=1e-5)
    assert out.good.all()


def test_a_uniform_distribution_has_log_v_nats() -> None:
    out = token_signals(np.zeros((1, 1000), np.float32), np.array([3]))
    assert out.entropy[0] == pytest.approx(np.log(1000))
    assert out.log_probability[0] == pytest.approx(-np.log(1000))


def test_masked_tokens_are_left_out() -> None:
    logits = np.array([[1.0, -np.inf, 1.0, -np.inf]], np.float32)
    out = token_signals(logits, np.array([2]))
    assert out.entropy[0] == pytest.approx(np.log(2))
    assert out.good[0]


@pytest.mark.parametrize("spread", [0.05, 0.5, 1.0, 2.0, 4.0, 12.0])
def test_the_nucleus_is_the_fewest_tokens_of_95_per_cent(spread: float) -> None:
    logits = np.random.default_rng(4).normal(0, spread, (6, 49152)).astype(np.float32)
    out = token_signals(logits, np.zeros(6, np.int64))
    exact = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    size = (np.cumsum(-np.sort(-exact, axis=1), axis=1) < 0.95).sum(axis=1) + 1
    # a token on the edge may fall on either side of it in FP32
    assert np.abs(np.exp(out.log_nucleus) - np.minimum(size, 1025)).max() <= 1.0 + 1e-9


def test_a_small_vocabulary_has_a_small_nucleus() -> None:
    logits = np.array([[0.0, 0.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0], [0.0, 0.0, -np.inf, -np.inf]], np.float32)
    assert np.exp(token_signals(logits, np.array([0, 0, 0])).log_nucleus) == pytest.approx([4, 1, 2])


@pytest.mark.parametrize(
    ("row", "token"),
    [
        ([0.0, np.nan], 0),
        ([0.0, np.inf], 0),
        ([-np.inf, -np.inf], 0),
        ([0.0, -np.inf], 1),
        ([0.0, 0.0], 2),
        ([0.0, 0.0], -1),
    ],
)
def test_what_is_not_good(row: list[float], token: int) -> None:
    out = token_signals(np.array([row], np.float32), np.array([token]))
    assert (out.good[0], out.log_probability[0], out.entropy[0]) == (False, 0, 0)
