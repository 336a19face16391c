"""Checks of one value that fail closed: unknown members and values are refused, null is no value.

Each also knows a regular expression of the canonical texts that it takes, so that a whole body is checked in one match.
The expression never takes more than the check; a text that it does not take is left to the check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tcd.receipts.errors import SchemaMismatch

Check = Callable[[Any], None]
_MAX_INT: Final = 2**53 - 1
_U64: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
#: What `risk_av.exact.unhex64` takes: the exponent of NaN and infinities and the bits of -0 are excluded.
_REAL: Final = re.compile(r"(?!7ff|fff|8000000000000000)[0-9a-f]{16}")
_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class Shape:
    """A check with its expression.

    Attributes:
        run: raises SchemaMismatch for a value that is refused.
        expression: of canonical texts (tcd-jcs-1) of values that are not refused; None = none is known.
    """

    run: Check
    expression: str | None

    def __call__(self, value: Any) -> None:
        """Run the check."""
        self.run(value)


def expression_of(check: Check) -> str | None:
    """The expression of a check, None where it has none."""
    return check.expression if isinstance(check, Shape) else None


def _digits(high: int) -> str:
    """Decimal numbers in 1..high, longest first."""
    text = str(high)
    same = [text]
    for at, digit in enumerate(text):
        low = 0 if at else 1
        if int(digit) > low:
            same.append(f"{text[:at]}[{low}-{int(digit) - 1}][0-9]{{{len(text) - at - 1}}}")
    shorter = [f"[1-9][0-9]{{0,{len(text) - 2}}}"] if len(text) > 1 else []
    return "|".join([*reversed(same), *shorter])


def _number(low: int, high: int) -> str | None:
    """Integers in low..high, where the range is symmetric or begins with 0 or 1."""
    if low not in {0, 1, -high}:
        return None
    return {0: f"(?:0|{_digits(high)})", 1: f"(?:{_digits(high)})"}.get(low, f"(?:0|-?(?:{_digits(high)}))")


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

    return Shape(check, _number(low, high))


def _boolean(value: Any) -> None:
    if type(value) is not bool:
        raise refuse(why="not a boolean")


def _real(value: Any) -> None:
    if type(value) is not str or _REAL.fullmatch(value) is None:
        raise refuse(why="not a hex64 real")


#: A bool.
boolean: Final = Shape(_boolean, "(?:true|false)")
#: A hex64 real: finite, not -0.
real: Final = Shape(_real, f'"{_REAL.pattern}"')


def text(limit: int = 128, low: int = 0) -> Check:
    """A string of low..limit characters."""

    def check(value: Any) -> None:
        if type(value) is not str or not low <= len(value) <= limit:
            raise refuse(why=f"not a string of {low}..{limit} characters")

    # those without escapes
    return Shape(check, rf'"[^"\\\x00-\x1f]{{{low},{limit}}}"')


def pattern(expression: str) -> Check:
    """A string that matches as a whole."""
    compiled = re.compile(expression)

    def check(value: Any) -> None:
        if type(value) is not str or compiled.fullmatch(value) is None:
            raise refuse(why=f"does not match {expression}")

    return Shape(check, f'"(?:{expression})"')


def hexadecimal(size: int) -> Check:
    """`size` bytes as lower-case hex."""
    return pattern(f"[0-9a-f]{{{2 * size}}}")


digest: Final = pattern(r"sha256:[0-9a-f]{64}")


def _u64(value: Any) -> None:
    if type(value) is not str or _U64.fullmatch(value) is None or int(value) >= 1 << 64:
        raise refuse(why="not a decimal string below 2^64")


#: An unsigned 64-bit number as a decimal string.
u64: Final = Shape(_u64, f'"(?:0|{_digits((1 << 64) - 1)})"')


def one_of(*values: str) -> Check:
    """One of the given strings."""
    allowed = frozenset(values)

    def check(value: Any) -> None:
        if type(value) is not str or value not in allowed:
            raise refuse(why=f"not one of {', '.join(values)}"[:_SHOWN])

    return Shape(check, f'"(?:{"|".join(map(re.escape, values))})"')


def _several(before: str, item: str | None, after: str, low: int, high: int) -> str | None:
    """low..high items with commas between them."""
    if item is None:
        return None
    some = f"{item}(?:,{item}){{{max(low, 1) - 1},{high - 1}}}"
    return before + (some if low else f"(?:{some})?") + after


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

    return Shape(check, _several(r"\[", expression_of(item), r"\]", low, high))


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

    inner = expression_of(item)
    member = None if inner is None else f'"{_KEY.pattern}":{inner}'
    return Shape(check, _several(r"\{", member, r"\}", 0, high))


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

    return Shape(check, _members(known, names))


def _members(known: Mapping[str, Check], required: frozenset[str]) -> str | None:
    """An object of these members in the order of their names; the first one is required."""
    parts: list[str] = []
    for name in sorted(known):
        inner = expression_of(known[name])
        if inner is None or (not parts and name not in required):
            return None
        member = f'{"," if parts else ""}"{re.escape(name)}":{inner}'
        parts.append(member if name in required else f"(?:{member})?")
    return r"\{" + "".join(parts) + r"\}" if parts else None


def either(*checks: Check) -> str | None:
    """The texts that one of the checks takes."""
    parts = [expression_of(check) for check in checks]
    known = [part for part in parts if part is not None]
    return f"(?:{'|'.join(known)})" if len(known) == len(parts) else None
