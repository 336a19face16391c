"""Vectors of RFC 8785: documents with their canonical form, numbers by their bits.

A document of the receipts' profile must also be read as a body is; any other one must be refused as a body.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from typing import Any, Final

from tcd.conformance.findings import Finding, Malformed, compare
from tcd.errors import VerificationError
from tcd.receipts import canonical, jcs

Data = Mapping[str, Any]
_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


def is_document(data: Data) -> bool:
    """Whether this is a document with its canonical form (`loading`)."""
    return "jcs_input" in data and "jcs_output" in data


def is_numbers(data: Data) -> bool:
    """Whether these are numbers by their bits (`loading`)."""
    return "es6_numbers" in data


def in_profile(value: Any) -> bool:
    """Whether a value is one of tcd-jcs-1, from its definition; depth and size are those of small documents."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return not any(ord(char) < 0x20 or 0xD800 <= ord(char) < 0xE000 for char in value)  # noqa: PLR2004 - Unicode
    if isinstance(value, int):
        return abs(value) < 2**53
    if isinstance(value, list):
        return all(map(in_profile, value))
    if isinstance(value, dict):
        return all(_KEY.fullmatch(key) and in_profile(item) for key, item in value.items())
    return False


def check_document(data: Data) -> list[Finding]:
    """Compare the canonical bytes, and whether the profile takes them as a body.

    Raises:
        Malformed: the input is no JSON.
    """
    try:
        value = json.loads(data["jcs_input"])
    except ValueError as error:
        msg = f"not JSON: {error}"
        raise Malformed(msg) from error
    expected = str(data["jcs_output"]).encode()
    try:
        written: bytes | None = jcs.encode(value)
    except (TypeError, ValueError):
        written = None
    try:
        taken = canonical.encode(canonical.parse(expected)) == expected
    except VerificationError:
        taken = False
    return [
        compare("RFC 8785 bytes", [0.0], wrong=int(written != expected)),
        compare("profile of bodies", [0.0], wrong=int(taken is not in_profile(value))),
    ]


def check_numbers(data: Data) -> list[Finding]:
    """Compare the text of every number.

    Raises:
        Malformed: bits that are not 64, or no numbers.
    """
    wrong = 0
    rows = data["es6_numbers"]
    for bits, text in rows:
        number = struct.unpack(">d", bytes.fromhex(bits.rjust(16, "0")))[0]
        wrong += jcs.number(number) != text
    return [compare("ECMAScript numbers", [0.0] * len(rows), wrong=wrong)]
