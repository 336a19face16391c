"""Binary64 as text, and numbers that neither overflow nor underflow.

Only + - x / and sqrt are used, all exactly rounded in IEEE-754, so that anybody can repeat a computation
bit for bit in any language.
"""

from __future__ import annotations

import math
import struct
import sys
from typing import Final, NamedTuple

_PACK: Final = struct.Struct(">d")
#: Exponent distance from which the smaller addend is under half an ulp of the larger one.
_FAR: Final = 60
_LOG10_2: Final = math.log10(2.0)


def hex64(value: float) -> str:
    """16 lower-case hex digits of the big-endian binary64; a negative zero is written as zero.

    Raises:
        ValueError: for NaN and infinities.
    """
    if not math.isfinite(value):
        msg = "hex64 holds finite numbers only"
        raise ValueError(msg)
    return _PACK.pack(value + 0.0).hex()


def unhex64(text: str) -> float:
    """Inverse of `hex64`.

    Raises:
        ValueError: for anything `hex64` does not write, NaN, infinities and negative zero included.
    """
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    # spaces, capitals, another length: not what `hex` writes
    if len(raw) != _PACK.size or raw.hex() != text:
        msg = "hex64: not 16 lower-case hex digits"
        raise ValueError(msg)
    value: float = _PACK.unpack(raw)[0]
    if not math.isfinite(value) or (value == 0.0 and text[0] == "8"):
        msg = "hex64: NaN, infinity or negative zero"
        raise ValueError(msg)
    return value


class Scaled(NamedTuple):
    """The number m * 2**k, with 1 <= m < 2, or zero as (0.0, 0)."""

    m: float
    k: int


ZERO: Final = Scaled(0.0, 0)
ONE: Final = Scaled(1.0, 0)


def _normal(m: float, k: int) -> Scaled:
    fraction, exponent = math.frexp(m)
    return Scaled(fraction * 2.0, k + exponent - 1)


def scaled(value: float) -> Scaled:
    """`value` (finite, >= 0) as a `Scaled`, exactly.

    Raises:
        ValueError: for negative or non-finite values.
    """
    if not 0.0 <= value < math.inf:
        msg = "a scaled number is finite and not negative"
        raise ValueError(msg)
    return ZERO if value == 0.0 else _normal(value, 0)


def mul(a: Scaled, b: Scaled) -> Scaled:
    """Product, rounded once."""
    return ZERO if a.m == 0.0 or b.m == 0.0 else _normal(a.m * b.m, a.k + b.k)


def add(a: Scaled, b: Scaled) -> Scaled:
    """Sum, rounded once."""
    if a.m == 0.0:
        return b
    if b.m == 0.0:
        return a
    if a.k < b.k:
        a, b = b, a
    distance = a.k - b.k
    if distance >= _FAR:
        return a
    return _normal(a.m + math.ldexp(b.m, -distance), a.k)


def at_least(a: Scaled, b: Scaled) -> bool:
    """Whether a >= b."""
    if a.m == 0.0 or b.m == 0.0:
        return b.m == 0.0
    return (a.k, a.m) >= (b.k, b.m)


def to_float(a: Scaled) -> float:
    """Nearest binary64, the largest finite one when `a` is above the range."""
    if a.k > sys.float_info.max_exp - 1:
        return sys.float_info.max
    return math.ldexp(a.m, a.k)


def log10(a: Scaled) -> float:
    """Decimal logarithm for display (libm may differ in the last bit); -1e308 for zero."""
    return -1e308 if a.m == 0.0 else math.log10(a.m) + a.k * _LOG10_2
