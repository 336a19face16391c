"""The same row has the same bits alone, in any batch, at any padding, in the whole ensemble and in the raw one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tcd.calibration import AssetSet, default_asset_dir, load_assets
from tcd.contract import SUP_START, detector_key
from tcd.rows import ScoreRow, Tensors, pack
from tcd.scoring import diagnose, diagnose_raw
from tcd.signals import start

KEYS = (
    detector_key("smollm2-135m", "gpu0", "chat", "en", "1.00"),
    detector_key("another", "gpu1", "code", "de", "greedy"),
    (0, 0, 0),
)
LENGTHS = (0, 1, 15, 16, 17, 31, 32, 33, 47, 64, 65, 100, 112, 113, 200, 352, 700)
BATCHES = (7, 64, 200, 256)


@pytest.fixture(scope="module")
def assets() -> AssetSet:
    return load_assets(default_asset_dir())


def make_row(rng: np.random.Generator) -> ScoreRow:
    n = int(rng.choice(LENGTHS))
    if rng.random() < 0.3:
        n = int(rng.integers(0, 300))
    rows = min(n, 112)
    cols = int(rng.choice((16, 16, 16, 3)))
    loop = rng.random() < 0.3
    trace = -rng.exponential(2.0, n).astype(np.float32)
    features = rng.normal(0, 10, (rows, cols)).astype(np.float32)
    if loop and n > 20:
        trace = np.resize(trace[:9], n)
        features = np.resize(features[:9], (rows, cols))
    return ScoreRow(
        trace=trace if rng.random() < 0.9 else trace[:0],
        entropy=rng.exponential(2.0, n).astype(np.float32) if rng.random() < 0.9 else trace[:0],
        spectrum=rng.exponential(20, int(rng.choice((0, 3, 16, 16, 90)))).astype(np.float32),
        features=features if rng.random() < 0.9 else features[:0],
        key=KEYS[int(rng.integers(len(KEYS)))],
        policy=int(rng.choice((0, 0, 5))),
        alpha=float(rng.random() * 0.2),
        sup=(float(rng.normal()), 3.0) if rng.random() < 0.5 else (SUP_START, SUP_START),
        base=(float(rng.random() * 2), 0.95, 256.0, float(rng.random())),
        controller=bool(rng.random() < 0.5),
    )


def slice_of(tensors: Tensors, index: int | slice) -> Tensors:
    where = slice(index, index + 1) if isinstance(index, int) else index
    return {name: array[where] for name, array in tensors.items()}


def same_bits(left: Tensors, right: Tensors) -> None:
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert array.dtype == right[name].dtype, name
        assert array.tobytes() == right[name].tobytes(), name


def widen(tensors: Tensors, extra: int, value: float) -> Tensors:
    """Padding of any width and any content."""
    out = dict(tensors)
    for name in ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES"):
        array = tensors[name]
        pad: NDArray[np.float32] = np.full((array.shape[0], extra), value, np.float32)
        out[name] = np.concatenate([array, pad], axis=1)
    return out


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from(BATCHES), extra=st.integers(0, 70))
def test_a_row_alone_equals_the_row_in_a_batch(assets: AssetSet, seed: int, size: int, extra: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [make_row(rng) for _ in range(size)]
    together = diagnose(pack(rows), assets)
    for index in rng.choice(size, 5, replace=False):
        alone = diagnose(widen(pack([rows[index]]), extra, float("nan")), assets)
        same_bits(alone, slice_of(together, int(index)))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.sampled_from((16, 40, 64, 112, 352)))
def test_a_homogeneous_batch_equals_its_rows(assets: AssetSet, seed: int, length: int) -> None:
    """The fast paths of equal lengths give the bits of the general ones."""
    rng = np.random.default_rng(seed)
    depth = min(length, 112)
    rows = [
        ScoreRow(
            trace=-rng.exponential(2.0, length).astype(np.float32),
            entropy=rng.exponential(2.0, length).astype(np.float32),
            spectrum=rng.exponential(20, 16).astype(np.float32),
            features=rng.normal(0, 10, (depth, 16)).astype(np.float32),
            key=KEYS[0],
        )
        for _ in range(32)
    ]
    odd = ScoreRow(trace=rows[0].trace[:5], features=rows[0].features[:2], key=KEYS[0])
    equal, mixed = diagnose(pack(rows), assets), diagnose(pack([*rows, odd]), assets)
    same_bits(equal, slice_of(mixed, slice(0, 32)))
    for index in (0, 17, 31):
        same_bits(diagnose(pack([rows[index]]), assets), slice_of(equal, index))


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_raw_steps_of_sessions_at_different_lengths(assets: AssetSet, seed: int) -> None:
    """Sessions stepped together, and alone, hand back the same windows and scores."""
    rng = np.random.default_rng(seed)
    size, vocabulary, width = 9, 500, 48
    ages = rng.choice((0, 1, 15, 16, 63, 64, 111, 112, 130), size)
    previous = start(size, flags=1)
    room, depth = 256, 112
    previous["PREV_TRACE"] = -rng.exponential(2, (size, room)).astype(np.float32)
    previous["PREV_ENTROPY"] = rng.exponential(2, (size, room)).astype(np.float32)
    previous["PREV_FEATURES"] = rng.normal(0, 10, (size, depth * 16)).astype(np.float32)
    lengths = previous["PREV_LENGTHS"].astype(np.int32)
    lengths[:, 0] = lengths[:, 1] = ages
    lengths[:, 3], lengths[:, 4] = np.minimum(ages, depth), 16
    rows = pack([ScoreRow(key=KEYS[0]) for _ in range(size)])
    tensors: Tensors = {
        "LOGITS": rng.normal(0, 3, (size, vocabulary)).astype(np.float32),
        "TOKEN": rng.integers(0, vocabulary, (size, 1)).astype(np.int32),
        "HIDDEN": rng.normal(0, 2, (size, 32, width)).astype(np.float32),
        **previous,
        "PREV_LENGTHS": lengths,
        **{name: rows[name] for name in ("KEY", "POLICY", "ALPHA", "SUP", "BASE")},
    }
    together = diagnose_raw(tensors, assets)
    for index in range(size):
        alone = diagnose_raw(slice_of(tensors, index), assets)
        part = slice_of(together, index)
        for name, array in alone.items():
            narrow = part[name][:, : array.shape[1]] if name.startswith("NEXT_") else part[name]
            assert np.ascontiguousarray(narrow).tobytes() == array.tobytes(), name
            assert not part[name][:, array.shape[1] :].any() or not name.startswith("NEXT_")
