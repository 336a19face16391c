"""The member `witness` of a decision as text: `witness.segment` of each signal."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.receipts.witness import MAX_VALUES, NAMES, QUANTISER, SALT, quantise
from tcd.risk_av.exact import hex64

F32 = NDArray[np.float32]
_HEADS: Final = {name: b"tcd/witness/v1\0" + name.encode() + b"\0" for name in NAMES}
_TAIL: Final = f'","q":"{QUANTISER}","salt":"'
_COUNT: Final = struct.Struct(">I")


def written(signals: Sequence[tuple[str, F32]], salts: bytes) -> str:
    """tcd-jcs-1 text of the member `witness`.

    Args:
        signals: name and values of each signal, contiguous FP32 of any shape; empty ones are left out.
        salts: 16 random bytes for each signal.

    Raises:
        ValueError: an unknown name or one that comes twice, too few salts, non-finite or too many values.
    """
    present = [(name, values) for name, values in signals if values.size]
    if not present:
        return "[]"
    names = {name for name, _ in present}
    if len(names) != len(present) or not names <= _HEADS.keys() or len(salts) < SALT * len(present):
        msg = f"segments {[name for name, _ in present]} with {len(salts)} bytes of salt"
        raise ValueError(msg)
    if max(values.size for _, values in present) > MAX_VALUES:
        msg = f"at most {MAX_VALUES} values"
        raise ValueError(msg)
    parts = []
    for i, (name, signal) in enumerate(present):
        values = signal.astype(np.float64).reshape(-1)
        low, high = float(values.min()), float(values.max())
        points = quantise(values, low, high)
        salt = salts[SALT * i : SALT * (i + 1)]
        state = hashlib.sha256(_HEADS[name] + salt + _COUNT.pack(values.size))
        state.update(points.astype("<u4").data)
        parts.append(
            f'{{"digest":"sha256:{state.hexdigest()}","hi":"{hex64(high)}","lo":"{hex64(low)}",'
            f'"n":{values.size},"name":"{name}{_TAIL}{salt.hex()}"}}'
        )
    return f"[{','.join(parts)}]"
