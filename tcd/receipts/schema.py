"""Closures that check one value and fail closed: unknown members and values are refused, null is no value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from tcd.receipts.errors import SchemaMismatch

Check = Callable[[Any], None]
_MAX_INT: Final = 2**53 - 1
_U64: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
#: What `risk_av.exact.unhex64` takes: the exponent of NaN and infinities and the bits of -0 are excluded.
_REAL: Final = re.compile(r"(?!7ff|fff|8000000000000000)[0-9a-f]{16}")
_SHOWN: Final = 40


def refuse(*, why: str, pointer: str = "") -> SchemaMismatch:
    """The error to raise for the value checked, or for the member at `pointer` under it."""
    return SchemaMismatch(why, pointer=pointer)


def inside(name: str, error: SchemaMismatch) -> SchemaMismatch:
    """`error` of the member `name`, as an error of the value that holds the member."""
    return SchemaMismatch(error.detail, pointer=f"/{name}{error.pointer}")


def integer(low: int = 0, high: int = _MAX_INT) -> Check:
    """An int (not a bool) in low..high."""

    def check(value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise refuse(why=f"not an integer in {low}..{high}")

    return check


def boolean(value: Any) -> None:
    """A bool."""
    if type(value) is not bool:
        raise refuse(why="not a boolean")


def real(value: Any) -> None:
    """A hex64 real: finite, not -0."""
    if type(value) is not str or _REAL.fullmatch(value) is None:
        raise refuse(why="not a hex64 real")


def text(limit: int = 128, low: int = 0) -> Check:
    """A string of low..limit characters."""

    def check(value: Any) -> None:
        if type(value) is not str or not low <= len(value) <= limit:
            raise refuse(why=f"not a string of {low}..{limit} characters")

    return check


def pattern(expression: str) -> Check:
    """A string that matches as a whole."""
    compiled = re.compile(expression)

    def check(value: Any) -> None:
        if type(value) is not str or compiled.fullmatch(value) is None:
            raise refuse(why=f"does not match {expression}")

    return check


def hexadecimal(size: int) -> Check:
    """`size` bytes as lower-case hex."""
    return pattern(f"[0-9a-f]{{{2 * size}}}")


digest: Final = pattern(r"sha256:[0-9a-f]{64}")


def u64(value: Any) -> None:
    """An unsigned 64-bit number as a decimal string."""
    if type(value) is not str or _U64.fullmatch(value) is None or int(value) >= 1 << 64:
        raise refuse(why="not a decimal string below 2^64")


def one_of(*values: str) -> Check:
    """One of the given strings."""
    allowed = frozenset(values)

    def check(value: Any) -> None:
        if type(value) is not str or value not in allowed:
            raise refuse(why=f"not one of {', '.join(values)}"[:_SHOWN])

    return check


def listing(item: Check, high: int, low: int = 0) -> Check:
    """An array of low..high elements."""

    def check(value: Any) -> None:
        if type(value) is not list or not low <= len(value) <= high:
            raise refuse(why=f"not an array of {low}..{high} elements")
        index = 0
        try:
            for index, element in enumerate(value):  # noqa: B007 - the handler names the element
                item(element)
        except SchemaMismatch as error:
            raise inside(str(index), error) from error

    return check


def mapping(item: Check, high: int) -> Check:
    """An object of at most `high` members with keys of the profile."""

    def check(value: Any) -> None:
        if type(value) is not dict or len(value) > high:
            raise refuse(why=f"not an object of at most {high} members")
        key = ""
        try:
            for key, element in value.items():
                if _KEY.fullmatch(key) is None:
                    raise refuse(why="a key outside the profile")
                item(element)
        except SchemaMismatch as error:
            raise inside(key[:_SHOWN], error) from error

    return check


def _unknown(_: Any) -> None:
    raise refuse(why="unknown member")


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with exactly these members."""
    known = {**required, **(optional or {})}
    names = frozenset(required)

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise refuse(why="not an object")
        if not names <= value.keys():
            raise refuse(why=f"missing {', '.join(sorted(names - value.keys()))}")
        if len(value) > len(known):
            raise refuse(why="unknown members")
        name = ""
        try:
            for name, element in value.items():
                known.get(name, _unknown)(element)
        except SchemaMismatch as error:
            raise inside(name[:_SHOWN], error) from error

    return check
