"""RFC 8785 (JCS): the canonical bytes of a JSON value, for digests of request and response objects.

Floats are allowed here and written as ECMAScript writes them; receipt bodies use the stricter `canonical`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any, Final

from tcd.receipts.fast import float_list

MAX_DEPTH: Final = 64
#: repr and ECMAScript agree on plain decimals in this range, but for a trailing ".0".
_PLAIN_LOW: Final = 1e-4
_PLAIN_HIGH: Final = 1e16
_POINT_MIN: Final = -6
_POINT_MAX: Final = 21
_INTEGRAL: Final = re.compile(r"\.0(?=,|\Z)")
_EXPONENT: Final = re.compile(r"-?[0-9.]+e[-+]?[0-9]+")
_MINUS_ZERO: Final = re.compile(r"(?<![^,])-0(?=,|\Z)")


def number(value: float) -> str:
    """A binary64 as ECMAScript's Number::toString writes it.

    Raises:
        ValueError: for NaN and infinities.
    """
    if not math.isfinite(value):
        msg = "JSON has no NaN and no infinity"
        raise ValueError(msg)
    if value == 0.0:
        return "0"
    text = repr(value)
    if _PLAIN_LOW <= abs(value) < _PLAIN_HIGH:
        return text.removesuffix(".0")
    sign = "-" if value < 0.0 else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= _POINT_MAX:
        body = digits + "0" * (point - count)
    elif 0 < point <= _POINT_MAX:
        body = f"{digits[:point]}.{digits[point:]}"
    elif _POINT_MIN < point <= 0:
        body = "0." + "0" * -point + digits
    else:
        rest = f".{digits[1:]}" if count > 1 else ""
        body = f"{digits[0]}{rest}e{point - 1:+d}"
    return sign + body


def _integer(value: int) -> str:
    if -(2**53) < value < 2**53:
        return int.__repr__(value)
    try:
        same = float(value)
    except OverflowError:
        same = math.inf
    if same != value:
        msg = f"integer of {value.bit_length()} bits is no binary64"
        raise ValueError(msg)
    return number(same)


def _floats(values: list[float]) -> str:
    text = float_list(values)
    if "n" in text:
        msg = "JSON has no NaN and no infinity"
        raise ValueError(msg)
    if "e" in text:
        text = _EXPONENT.sub(lambda found: number(float(found[0])), text)
    return "[" + _MINUS_ZERO.sub("0", _INTEGRAL.sub("", text)) + "]"


def _utf16(item: tuple[str, Any]) -> bytes:
    return item[0].encode("utf-16-be")


def _scalar(value: Any) -> str:
    kind = type(value)
    if kind is float:
        return number(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return _integer(value)
    if value is None:
        return "null"
    msg = f"{kind.__name__} is no JSON value"
    raise TypeError(msg)


def _write(value: Any, depth: int) -> str:
    if type(value) is str:
        return encode_basestring(value)
    if not isinstance(value, list | tuple | Mapping):
        return _scalar(value)
    if depth >= MAX_DEPTH:
        msg = f"nesting is deeper than {MAX_DEPTH}"
        raise ValueError(msg)
    if isinstance(value, Mapping):
        if not all(type(key) is str for key in value):
            msg = "keys are strings"
            raise TypeError(msg)
        items = sorted(value.items(), key=_utf16)
        return "{" + ",".join(f"{encode_basestring(k)}:{_write(v, depth + 1)}" for k, v in items) + "}"
    if value and all(type(item) is float for item in value):
        return _floats(list(value))
    return "[" + ",".join(_write(item, depth + 1) for item in value) + "]"


def encode(value: Any) -> bytes:
    """Canonical UTF-8 bytes of a JSON value.

    Integers beyond 2^53 are written when they are exactly a binary64, as RFC 8785 wants.

    Args:
        value: None, bool, int, float, str, list, tuple or mapping of these, at most 64 deep.

    Raises:
        ValueError: NaN, infinities, integers that are no binary64, lone surrogates, too deep.
        TypeError: a value that JSON does not have.
    """
    return _write(value, 0).encode("utf-8")


def digest(value: Any) -> str:
    """`sha256:` digest of the canonical bytes: the members `req`, `comp` and `e` of a receipt.

    Raises:
        ValueError, TypeError: as `encode`.
    """
    return "sha256:" + hashlib.sha256(encode(value)).hexdigest()
