"""hex64 and the mantissa/exponent arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from tcd.risk_av.eprocess import START, advance, mixture
from tcd.risk_av.exact import ONE, ZERO, Scaled, add, at_least, hex64, log10, mul, scaled, to_float, unhex64


def exact(a: Scaled) -> Fraction:
    return Fraction(a.m) * Fraction(2) ** a.k


def test_hex64_of_the_documented_number() -> None:
    assert hex64(0.1) == "3fb999999999999a"
    assert hex64(-0.0) == "0" * 16
    assert unhex64(hex64(5e-324)) == 5e-324


@pytest.mark.parametrize(
    "text", ["", "3fb999999999999", "3FB999999999999A", "7ff0000000000000", "fff8000000000001", "8000000000000000"]
)
def test_unhex64_refuses_what_hex64_does_not_write(text: str) -> None:
    with pytest.raises(ValueError, match="hex64"):
        unhex64(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_hex64_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        hex64(value)


def test_sums_and_products_are_rounded_once() -> None:
    rng = np.random.default_rng(1)
    for _ in range(3000):
        a = Scaled(1.0 + float(rng.random()), int(rng.integers(-70, 70)))
        b = Scaled(1.0 + float(rng.random()), int(rng.integers(-70, 70)))
        for got, want in ((mul(a, b), exact(a) * exact(b)), (add(a, b), exact(a) + exact(b))):
            assert 1.0 <= got.m < 2.0
            assert got == scaled(float(want))
        assert at_least(a, b) is (exact(a) >= exact(b))


def test_zero_is_neutral_and_least() -> None:
    assert add(ZERO, ONE) == add(ONE, ZERO) == ONE
    assert mul(ZERO, ONE) == ZERO
    assert at_least(ONE, ZERO)
    assert not at_least(ZERO, ONE)
    assert at_least(ZERO, ZERO)
    assert to_float(Scaled(1.5, 5000)) == math.nextafter(math.inf, 0.0)
    assert to_float(Scaled(1.5, -5000)) == 0.0
    assert log10(Scaled(1.0, 10000)) == pytest.approx(3010.3, rel=1e-5)


def test_a_million_extreme_steps_neither_overflow_nor_die() -> None:
    state = START
    for _ in range(300_000):
        state = advance(state, 0.0)
    assert state.c.k > 10**8
    assert at_least(mixture(state), scaled(1e308))
    for _ in range(700_000):
        state = advance(state, 1.0)
    assert state.step == 1_000_000
    assert 1.0 <= state.s.m < 2.0
    assert 1.0 <= state.c.m < 2.0
    # e = 1/2 at p = 1: the mixture halves at each step but never falls under its restarts
    low = START
    for _ in range(3000):
        low = advance(low, 1.0)
    assert to_float(mixture(low)) >= 1.0 / 3002
