"""Rows of the ensemble that nobody should send: any scale, any length, hostile values, counts that lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcd.contract import SUP_START, detector_key
from tcd.rows import ScoreRow, Tensors

KEYS = (
    detector_key("smollm2-135m", "gpu0", "chat", "en", "1.00"),
    detector_key("another", "gpu1", "code", "de", "greedy"),
    (0, 0, 0),
)
TOP = float(np.finfo(np.float32).max)
LENGTHS = (0, 1, 4, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 79, 80, 96, 111, 112, 113, 128, 200, 352, 700, 4096)
#: What a hostile value is.
HOSTILE = (np.nan, np.inf, -np.inf, TOP, -TOP, 1e-45, -1e-38, 0.0, -0.0, 1.0, -1e30, 1e20)


def window(rng: np.random.Generator, shape: tuple[int, ...], hostility: float) -> NDArray[np.float32]:
    """Values of any scale, some a loop, some constant, some with hostile members."""
    scale = 10.0 ** rng.choice((0, 0, 0, 1, -3, 6, -20, 18, 30))
    values = rng.normal(0, 1, shape) * scale + rng.choice((0, 0, 5, 1e4)) * scale
    if rng.random() < 0.3 and shape[0] > 20:
        values = np.resize(values[: int(rng.integers(1, 20))], shape)
    values = np.clip(values, -TOP, TOP).astype(np.float32)
    if values.size and rng.random() < hostility:
        flat = values.reshape(-1)
        flat[rng.integers(0, flat.size, int(rng.integers(1, 4)))] = rng.choice(HOSTILE)
        if rng.random() < 0.2:
            flat[:] = rng.choice(HOSTILE)
    return np.asarray(values, np.float32)


def hostile_row(rng: np.random.Generator, hostility: float) -> ScoreRow:
    n = int(rng.choice(LENGTHS)) if rng.random() < 0.6 else int(rng.integers(0, 300))
    rows = min(n, 112) if rng.random() < 0.8 else int(rng.integers(0, 113))
    cols = int(rng.choice((16, 16, 16, 3, 1, 40, 146)))
    base = rng.choice((0.0, -0.0, 1.0, 0.7, np.nan, 300.0, -5.0), 4).tolist()
    return ScoreRow(
        trace=-np.abs(window(rng, (n,), hostility)) if rng.random() < 0.8 else window(rng, (n // 2,), hostility),
        entropy=np.abs(window(rng, (n,), hostility)) if rng.random() < 0.9 else window(rng, (n // 3,), hostility),
        spectrum=np.abs(window(rng, (int(rng.choice((0, 3, 16, 16, 17, 90))),), hostility)),
        features=window(rng, (rows, cols), hostility),
        key=KEYS[int(rng.integers(len(KEYS)))],
        policy=int(rng.choice((0, 0, 5))),
        alpha=float(rng.choice((0.05, 0.5, np.nan, -1.0))),
        sup=(float(rng.choice((0.5, SUP_START, np.nan, 1e300))), float(rng.choice((3.0, SUP_START, -np.inf, -0.0)))),
        base=(base[0], base[1], base[2], base[3]),
        controller=bool(rng.random() < 0.7),
    )


def spoilt(tensors: Tensors, rng: np.random.Generator, *, share: float = 0.3) -> Tensors:
    """Some counts and flags that lie."""
    lengths = tensors["LENGTHS"].copy()
    for row in lengths:
        if rng.random() < share:
            row[rng.integers(0, 6)] = rng.choice((-1, 0, 1, 17, 112, 113, 5000, 2**31 - 1, -(2**31)))
    return tensors | {"LENGTHS": lengths}


def rows_of_one_size(n: int, count: int) -> list[ScoreRow]:
    """Rows that share the counts of their values."""
    rng = np.random.default_rng(n)
    return [
        ScoreRow(
            trace=-rng.exponential(2, n).astype(np.float32),
            entropy=rng.exponential(2, n).astype(np.float32),
            spectrum=rng.exponential(20, 16).astype(np.float32),
            features=rng.normal(3, 10, (min(n, 112), 16)).astype(np.float32),
            key=KEYS[0],
        )
        for _ in range(count)
    ]
