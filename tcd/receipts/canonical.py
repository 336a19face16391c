"""tcd-jcs-1: the profile of receipt bodies, a strict subset of RFC 8785 without floats.

Keys match [a-z][a-z0-9_]{0,31}; depth <= 8; <= 512 members and elements; strings without U+0000-001F and lone
surrogates, not normalised; numbers are integers in +-(2^53 - 1); reals are hex64 strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NoReturn

from tcd.receipts.errors import BadNumber, BadString, LimitExceeded, NotCanonical
from tcd.receipts.fast import sorted_json

MAX_DEPTH: Final = 8
MAX_MEMBERS: Final = 512
MAX_INT: Final = 2**53 - 1
_MAX_DIGITS: Final = 17
_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
#: An unclosed string reaches to the end, so that no quote is looked at twice.
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS: Final = bytes(sorted(set(range(256)) - set(b"[]{}")))
_OPEN: Final = frozenset(b"[{")
#: What the encoder may leave after a backslash: a quote or a backslash; anything else was a control character.
_ESCAPES: Final = re.compile(rb'(?:[^\\]|\\["\\])*')


def _children(value: Any) -> Iterable[Any]:
    """Members or elements of a container."""
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str or not _is_key(key):
                msg = f"key {str(key)[:40]!r}"
                raise NotCanonical(msg)
        children: Iterable[Any] = value.values()
        return children
    if kind is list or kind is tuple:
        elements: Iterable[Any] = value
        return elements
    msg = f"{kind.__name__} is no value of the profile"
    raise NotCanonical(msg)


def _check(value: Any, depth: int) -> int:
    """Members and elements in `value`; raises where it leaves the profile."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return 0
    if kind is int or kind is float:
        if kind is float or not -MAX_INT <= value <= MAX_INT:
            msg = "a float, or an integer beyond 2^53 - 1: reals are hex64 strings"
            raise BadNumber(msg)
        return 0
    if depth >= MAX_DEPTH:
        msg = f"nesting is deeper than {MAX_DEPTH}"
        raise LimitExceeded(msg)
    count = 0
    for child in _children(value):
        count += 1 + _check(child, depth + 1)
    if count > MAX_MEMBERS:
        msg = f"more than {MAX_MEMBERS} members"
        raise LimitExceeded(msg)
    return count


def encode(value: Any) -> bytes:
    """Canonical bytes of a value of the profile.

    Raises:
        BadNumber, BadString, LimitExceeded, NotCanonical: the value is outside the profile.
    """
    _check(value, 0)
    return write(value)


def write(value: Any) -> bytes:
    """Canonical bytes of a value whose types, keys, numbers and depth are known to be in the profile.

    Raises:
        BadString: a control character or a lone surrogate.
    """
    try:
        out = sorted_json(value)
    except UnicodeEncodeError as error:
        msg = "lone surrogate"
        raise BadString(msg) from error
    if b"\\" in out and _ESCAPES.fullmatch(out) is None:
        msg = "control character"
        raise BadString(msg)
    return out


def _check_structure(body: bytes) -> None:
    """Refuse too much nesting and too many members before any parser sees them; linear time."""
    bare = _STRING.sub(b"", body) if b"\\" in body else b"".join(body.split(b'"')[::2])
    deepest = depth = 0
    for byte in bare.translate(None, _NOT_BRACKETS):
        if byte in _OPEN:
            depth += 1
            if depth > deepest:
                deepest = depth
                if deepest > MAX_DEPTH:
                    msg = f"nesting is deeper than {MAX_DEPTH}"
                    raise LimitExceeded(msg)
        else:
            depth -= 1
    filled = bare.count(b"{") + bare.count(b"[") - bare.count(b"{}") - bare.count(b"[]")
    if bare.count(b",") + filled > MAX_MEMBERS:
        msg = f"more than {MAX_MEMBERS} members"
        raise LimitExceeded(msg)


@lru_cache(maxsize=1024)
def _is_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        msg = "duplicate key"
        raise NotCanonical(msg)
    if not all(map(_is_key, out)):
        msg = "a key outside the profile"
        raise NotCanonical(msg)
    return out


def _int(text: str) -> int:
    if len(text) <= _MAX_DIGITS and text != "-0":
        value = int(text)
        if -MAX_INT <= value <= MAX_INT:
            return value
    msg = "integer beyond 2^53 - 1, or -0"
    raise BadNumber(msg)


def _no_number(text: str) -> NoReturn:
    msg = f"{text[:20]} is no integer"
    raise BadNumber(msg)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=_no_number, parse_int=_int, parse_constant=_no_number, strict=False
)


def decode_utf8(body: bytes) -> str:
    """Text of a body.

    Raises:
        NotCanonical: it is not UTF-8, or starts with a byte order mark.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = "not UTF-8"
        raise NotCanonical(msg) from error
    if text.startswith("\ufeff"):
        msg = "byte order mark"
        raise NotCanonical(msg)
    return text


def parse_text(text: str, body: bytes) -> Any:
    """Value of a decoded body, not yet known to be canonical.

    Raises:
        BadNumber, LimitExceeded, NotCanonical: it is outside the profile.
    """
    _check_structure(body)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        msg = f"no JSON: {error.msg} at {error.pos}"
        raise NotCanonical(msg) from error


def check_canonical(value: Any, body: bytes) -> None:
    """Refuse a body that is not what `write` makes of the value that `parse_text` read.

    Raises:
        BadString, NotCanonical: why.
    """
    if write(value) != body:
        msg = "not the canonical bytes of its value"
        raise NotCanonical(msg)


def parse(body: bytes) -> Any:
    """Value of canonical bytes; refuses whatever `encode(parse(body)) != body` would.

    Raises:
        BadNumber, BadString, LimitExceeded, NotCanonical: the bytes are outside the profile.
    """
    value = parse_text(decode_utf8(body), body)
    check_canonical(value, body)
    return value
