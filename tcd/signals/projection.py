"""Fixed projections of hidden states to feature vectors: recorded ones are assets, all others follow from SHA-256."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet

F64 = NDArray[np.float64]

#: Width of a feature vector. Its last component makes room for the log of the nucleus size (`tcd.signals.step`).
FEATURE_WIDTH: Final = 16
_DOMAIN: Final = b"tcd-projection-1"
_SCALE: Final = 0.25


@lru_cache(maxsize=16)
def derived(width: int) -> F64:
    """The (width, 16) projection with entries +-1/4 from SHA-256 in counter mode, so that norms are kept on average.

    Bit j of block i = SHA-256(domain, width, i) is the sign of entry 256 i + j, row-major. Read-only.
    """
    needed = width * FEATURE_WIDTH
    blocks = -(-needed // 256)
    stream = b"".join(
        hashlib.sha256(_DOMAIN + width.to_bytes(8, "big") + i.to_bytes(8, "big")).digest() for i in range(blocks)
    )
    bits = np.unpackbits(np.frombuffer(stream, np.uint8))[:needed]
    matrix = (bits.astype(np.float64) * 2.0 - 1.0).reshape(width, FEATURE_WIDTH) * _SCALE
    matrix.setflags(write=False)
    return matrix


def projection(width: int, assets: AssetSet) -> F64:
    """The (width, 16) projection for hidden states of this width: the recorded one where the manifest has it."""
    asset = assets.projection(width)
    return derived(width) if asset is None else asset.matrix
