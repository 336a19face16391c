"""Nonces that only the server can make: 64 random bits and 64 bits of HMAC-SHA-256, 32 hex digits.

Text that carries an authentic nonce was framed by this server (or by an operator to whom it gave one); anything else
that looks like a frame is data.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final

Random = Callable[[int], bytes]
OPERATOR: Final = "operator"
_SHAPE: Final = re.compile(r"[0-9a-f]{32}")
#: Hex digits of a nonce.
LENGTH: Final = 32
_RANDOM_BYTES: Final = 8
_PREFIX: Final = b"tcd/spotlight/v1\0"


def _tag(key: bytes, purpose: str, random: bytes, marker: str) -> bytes:
    message = _PREFIX + purpose.encode() + b"\0" + random + marker.encode()
    return hmac.new(key, message, hashlib.sha256).digest()[:8]


def issue(key: bytes, random: Random, *, purpose: str, marker: str = "") -> str:
    """A new nonce.

    Args:
        key: the server's.
        random: source of random bytes.
        purpose: `OPERATOR`, or the marking that it frames.
        marker: of the request, "" where there is none.
    """
    drawn = random(_RANDOM_BYTES)
    return (drawn + _tag(key, purpose, drawn, marker)).hex()


def nonce(key: bytes, random: Random) -> str:
    """A nonce for an operator's inline tags."""
    return issue(key, random, purpose=OPERATOR)


def authentic(key: bytes, value: str, *, purpose: str, marker: str = "") -> bool:
    """Whether the server made this nonce for this purpose and marker; constant time in the tag."""
    if _SHAPE.fullmatch(value) is None:
        return False
    raw = bytes.fromhex(value)
    return hmac.compare_digest(raw[_RANDOM_BYTES:], _tag(key, purpose, raw[:_RANDOM_BYTES], marker))
