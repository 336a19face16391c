"""Witness segments: salted digests of the signals a decision was made from, disclosed on demand.

Values are quantised to a 32-bit lattice over the segment's own [min, max], which the segment commits to; so
nothing is clamped, and a reader of the (private) body learns the range but not the values.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.receipts.errors import WitnessMismatch
from tcd.risk_av.exact import hex64, unhex64

QUANTISER: Final = "affine-u32/1"
NAMES: Final = ("trace", "entropy", "spectrum", "features")
MAX_VALUES: Final = 16_384
SALT: Final = 16
_STEPS: Final = 4294967295.0

Values = Sequence[float] | NDArray[np.floating[Any]]


def _array(values: Values) -> NDArray[np.float64]:
    array = np.ascontiguousarray(values, dtype=np.float64).reshape(-1)
    if array.size > MAX_VALUES:
        msg = f"{array.size} values: at most {MAX_VALUES}"
        raise ValueError(msg)
    if not bool(np.isfinite(array).all()):
        msg = "a witness value is not finite"
        raise ValueError(msg)
    return array


def quantise(values: Values, lo: float, hi: float) -> NDArray[np.uint32]:
    """Lattice points: clamp(round_half_even((x - lo) (2^32 - 1) / (hi - lo)), 0, 2^32 - 1) in binary64.

    All points are 0 where hi = lo.

    Args:
        values: any shape, read row-major.
        lo: value of point 0.
        hi: value of point 2^32 - 1.

    Raises:
        ValueError: non-finite values, too many, lo > hi, or a range above binary64.
    """
    array = _array(values)
    width = hi - lo
    if not 0.0 <= width < math.inf or not math.isfinite(width * _STEPS):
        msg = "witness range is empty or too wide"
        raise ValueError(msg)
    if width == 0.0:
        return np.zeros(array.size, np.uint32)
    points: NDArray[np.float64] = np.rint((array - lo) * _STEPS / width)
    return np.clip(points, 0.0, _STEPS).astype(np.uint32)


def quantise_reference(values: Sequence[float], lo: float, hi: float) -> list[int]:
    """`quantise` without numpy, the definition for other languages."""
    width = hi - lo
    if width == 0.0:
        return [0] * len(values)
    return [min(max(round((x - lo) * _STEPS / width), 0), 4294967295) for x in values]


def dequantise(points: NDArray[np.uint32], lo: float, hi: float) -> NDArray[np.float64]:
    """Values of lattice points; `quantise` gives the points back."""
    values: NDArray[np.float64] = lo + points.astype(np.float64) * ((hi - lo) / _STEPS)
    return np.minimum(values, hi)


def segment_digest(name: str, salt: bytes, points: NDArray[np.uint32]) -> str:
    r"""SHA-256("tcd/witness/v1\0" || name || 0 || salt || u32be n || u32le points), as `sha256:...`."""
    head = b"tcd/witness/v1\0" + name.encode() + b"\0" + salt + struct.pack(">I", points.size)
    return "sha256:" + hashlib.sha256(head + points.astype("<u4").tobytes()).hexdigest()


def segment(name: str, values: Values, salt: bytes) -> dict[str, Any]:
    """A segment of the member `witness`.

    Args:
        name: trace, entropy, spectrum or features.
        values: the signal, any shape (row-major); at most 16,384 finite values.
        salt: 16 random bytes, one per segment; disclosing the segment means sending salt and values.

    Raises:
        ValueError: unknown name, wrong salt, non-finite or too many values.
    """
    if name not in NAMES or len(salt) != SALT:
        msg = f"segment {name!r} with a salt of {len(salt)} bytes"
        raise ValueError(msg)
    array = _array(values)
    lo, hi = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    points = quantise(array, lo, hi)
    return {
        "name": name,
        "n": int(array.size),
        "q": QUANTISER,
        "lo": hex64(lo),
        "hi": hex64(hi),
        "salt": salt.hex(),
        "digest": segment_digest(name, salt, points),
    }


def check_disclosure(committed: dict[str, Any], values: Values) -> None:
    """Check disclosed values against a segment of a body.

    Args:
        committed: the segment, of a body that passed the schema.
        values: the values disclosed.

    Raises:
        WitnessMismatch: another number of values, one outside [lo, hi], or another digest.
    """
    name = str(committed["name"])
    lo, hi = unhex64(committed["lo"]), unhex64(committed["hi"])
    try:
        array = _array(values)
        points = quantise(array, lo, hi)
    except (TypeError, ValueError) as error:
        msg = f"segment {name}: {error}"
        raise WitnessMismatch(msg) from error
    inside = bool(((array >= lo) & (array <= hi)).all())
    digest = segment_digest(name, bytes.fromhex(committed["salt"]), points)
    if array.size != committed["n"] or not inside or digest != committed["digest"]:
        msg = f"segment {name} differs from what was committed"
        raise WitnessMismatch(msg)
