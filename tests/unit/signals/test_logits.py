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
