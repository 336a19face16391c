"""From the template of a decision's record to its bytes: what is computed anew for every record.

A template is the body's text with a control character (no string of a body may hold one) for each of the numbers,
the nonce, the digests and the witness. The kernels fill it in one call; `by_python` says what they do.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcd.native import decision
from tcd.receipts.body import check_issued_size, head_of
from tcd.receipts.errors import LimitExceeded
from tcd.receipts.segments import written
from tcd.receipts.witness import NAMES, SALT

Windows = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
REALS: Final = 20
#: What stands for the numbers, in their order.
MARKS: Final = tuple(map(chr, range(1, REALS + 1)))
NONCE, REQUEST, COMPONENTS, E_OBJECT, WITNESS = (chr(REALS + i) for i in range(1, 6))
#: A nonce, and a salt for each signal.
RANDOM_BYTES: Final = SALT * (1 + len(NAMES))
_NO_WINDOW: Final = np.zeros(0, np.float32)
NO_WINDOWS: Final[Windows] = (_NO_WINDOW, _NO_WINDOW, _NO_WINDOW, _NO_WINDOW)
_MARK: Final = re.compile(r"[\x01-\x1f]")
_REALS: Final = struct.Struct(f">{REALS}d")
_AV: Final = b'{"av":'


class Strange(ValueError):
    """An object's text is not of the form that it was said to be."""


class Objects(NamedTuple):
    """The objects that a record names by their digests.

    Attributes:
        request: JSON of the validated request; None = the record names another object, whose digest is in the template.
        components: JSON of the answer's `components`, whose first member is `av`, the e-object.
        exact: 1 = both are RFC 8785; 0 = compact JSON with sorted keys and shortest numbers, which `fill` makes RFC
            8785 or refuses; 2 = only the components are such.
    """

    request: bytes | None
    components: bytes
    exact: int


Fill = Callable[[bytes, Objects, Windows, Sequence[float], bytes], tuple[bytes, bytes]]


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def e_object(components: bytes) -> bytes:
    """The member `av` of RFC 8785 text whose first member it is and whose strings have no braces and escapes.

    Raises:
        Strange: it is not there.
    """
    depth = 0
    for found in re.finditer(rb"[{}]", components[len(_AV) :]):
        depth += 1 if found[0] == b"{" else -1
        if not depth:
            break
    else:
        depth = -1
    if depth or not components.startswith(_AV + b"{"):
        msg = "no member av"
        raise Strange(msg)
    return components[len(_AV) : len(_AV) + found.end()]


def by_python(
    template: bytes, objects: Objects, windows: Windows, reals: Sequence[float], random: bytes
) -> tuple[bytes, bytes]:
    """Head and body of a record.

    Args:
        template: UTF-8 text with marks.
        objects: exact ones.
        windows: trace, entropy, spectrum, features; empty ones have no segment.
        reals: the numbers, each written as hex64.
        random: the nonce, and 16 bytes of salt for each window that is not empty.

    Raises:
        LimitExceeded: the body is too long.
        Strange: the objects are not exact.
        ValueError: a number or a value of a window is not finite.
    """
    if objects.exact != 1:
        msg = "only RFC 8785 text is taken here"
        raise Strange(msg)
    if not all(map(math.isfinite, reals)):
        msg = "hex64 holds finite numbers only"
        raise ValueError(msg)
    # adding zero makes a negative zero a zero
    texts = _REALS.pack(*[value + 0.0 for value in reals]).hex()
    values = [texts[16 * i : 16 * i + 16] for i in range(REALS)]
    values += (
        random[:SALT].hex(),
        "" if objects.request is None else _digest(objects.request),
        _digest(objects.components),
        _digest(e_object(objects.components)),
        written(tuple(zip(NAMES, windows, strict=True)), random[SALT:]),
    )
    body = _MARK.sub(lambda mark: values[ord(mark[0]) - 1], template.decode()).encode()
    check_issued_size(body)
    return head_of(body), body


@lru_cache(maxsize=1)
def _filler() -> decision.Filler | None:
    from tcd.native import library  # noqa: PLC0415 - the detector: who only verifies receipts does without

    found = library.loaded().library
    return None if found is None else decision.Filler(found)


def fills_raw() -> bool:
    """Whether `fill` takes objects that are not exact."""
    return _filler() is not None


def fill(
    template: bytes, objects: Objects, windows: Windows, reals: Sequence[float], random: bytes
) -> tuple[bytes, bytes]:
    """`by_python`, by the kernels where they are; these make objects exact that are of the form of `Objects`."""
    filler = _filler()
    if filler is None:
        return by_python(template, objects, windows, reals, random)
    try:
        return filler(template, *objects, windows, reals, random)
    except decision.Refused as error:
        if error.code in {decision.STRANGE_REQUEST, decision.STRANGE_COMPONENTS}:
            raise Strange(str(error)) from None
        if error.code == decision.TOO_LONG:
            raise LimitExceeded(str(error)) from None
        raise
