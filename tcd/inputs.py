"""The digest of one row's input tensors, by which a direct caller commits to what it sent to the ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.contract import MODELS
from tcd.rows import ScoreRow, pack

_DOMAIN: Final = b"tcd/inputs/v1\0"


def inputs_digest(row: ScoreRow | Mapping[str, NDArray[np.generic]]) -> str:
    """`sha256:` digest over the input tensors of `tcd_diagnose` in the order of the contract.

    Each tensor counts with its name, a zero byte, its length in bytes (8 bytes, big-endian) and its
    little-endian bytes, as they are on the wire, padding included.

    Args:
        row: one row, or its tensors by name.

    Raises:
        KeyError: a tensor is missing.
    """
    tensors = pack([row]) if isinstance(row, ScoreRow) else row
    digest = hashlib.sha256(_DOMAIN)
    for tensor in MODELS["tcd_diagnose"].inputs:
        array = np.ascontiguousarray(tensors[tensor.name])
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        digest.update(tensor.name.encode() + b"\0" + len(data).to_bytes(8, "big") + data)
    return "sha256:" + digest.hexdigest()
