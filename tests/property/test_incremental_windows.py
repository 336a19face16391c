"""A session whose windows grow step by step scores the same bits as one whose windows are made from its whole past."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sidecar_api.windows import SessionWindow
from tcd.calibration import default_asset_dir, load_assets
from tcd.contract import MAX_FEATURE_ROWS, MAX_WINDOW, detector_key
from tcd.rows import ScoreRow, pack
from tcd.scoring import diagnose
from tcd.signals import raw_step, start

ASSETS = load_assets(default_asset_dir())
KEY = detector_key("smollm2-135m", "gpu0", "chat", "en", "1.00")
CHECKED = {1, 15, 16, 17, 31, 32, 33, 48, 64, 65, 96, 111, 112, 113, 130}


#: Past the longest window: the oldest of 4,096 tokens and of 112 feature vectors have left it.
WRAPPED = {MAX_WINDOW - 1, MAX_WINDOW, MAX_WINDOW + 1, MAX_WINDOW + 2, MAX_WINDOW + 200}
F32 = NDArray[np.float32]


def _scratch(trace: list[float], entropy: list[float], vectors: list[F32], spectrum: F32) -> ScoreRow:
    """The row of a caller who kept everything and sends its newest part."""
    return ScoreRow(
        trace=np.array(trace[-MAX_WINDOW:], np.float32),
        entropy=np.array(entropy[-MAX_WINDOW:], np.float32),
        spectrum=spectrum,
        features=np.stack(vectors[-MAX_FEATURE_ROWS:]),
        key=KEY,
    )


def _same(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]], count: int) -> None:
    for name, array in one.items():
        assert array.tobytes() == other[name].tobytes(), (name, count)


@pytest.mark.parametrize(("seed", "checked"), [(0, CHECKED), (1, CHECKED), (2, CHECKED), (3, WRAPPED)])
def test_incremental_equals_from_scratch(seed: int, checked: set[int]) -> None:
    """The windows that `tcd_signals` hands back, against those of the whole past."""
    rng = np.random.default_rng(seed)
    # the spectrum is of 32 states; where 4,296 steps are made, one is enough to have vectors
    depth = 32 if max(checked) < MAX_WINDOW else 1
    carried = start(1)
    trace: list[float] = []
    entropy: list[float] = []
    vectors: list[F32] = []
    seen = 0
    for count in range(1, max(checked) + 1):
        logits = rng.normal(0, 3, (1, 60)).astype(np.float32)
        hidden = rng.normal(0, 2, (1, depth, 576)).astype(np.float32)
        out = raw_step(logits, rng.integers(0, 60, 1).astype(np.int32), hidden, carried, ASSETS)
        carried = {f"PREV_{name}": out[f"NEXT_{name}"] for name in ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")}
        n, _, sigma, rows, cols, _ = out["NEXT_LENGTHS"][0].tolist()
        trace.append(float(out["NEXT_TRACE"][0, n - 1]))
        entropy.append(float(out["NEXT_ENTROPY"][0, n - 1]))
        vectors.append(out["NEXT_FEATURES"][0, (rows - 1) * cols : rows * cols].astype(np.float32))
        if count not in checked:
            continue
        assert (n, rows) == (min(count, MAX_WINDOW), min(count, MAX_FEATURE_ROWS))
        scratch = pack([_scratch(trace, entropy, vectors, out["SPECTRUM"][0, :sigma].astype(np.float32))])
        grown = {
            **scratch,
            **{name: out[f"NEXT_{name}"] for name in ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")},
            "SPECTRUM": out["SPECTRUM"],
        }
        _same(diagnose(scratch, ASSETS), diagnose(grown, ASSETS), count)
        seen += 1
    assert seen == len(checked)


@pytest.mark.parametrize("seed", range(3))
def test_the_shims_windows_equal_the_whole_past(seed: int) -> None:
    """Steps of 1 to 40 tokens through a session's rings, some of them given up after staging, to 4,296 tokens."""
    rng = np.random.default_rng(seed)
    window = SessionWindow()
    trace: list[float] = []
    entropy: list[float] = []
    vectors: list[F32] = []
    seen = 0
    while len(trace) < max(WRAPPED):
        added = int(rng.integers(1, 41))
        values = -rng.exponential(2.0, added).astype(np.float32)
        levels = rng.exponential(2.0, added).astype(np.float32)
        rows = rng.normal(0, 9, (added, 16)).astype(np.float32)
        spectrum = np.sort(rng.exponential(9.0, 16).astype(np.float32))[::-1].copy()
        staged = window.stage(values, levels, spectrum, rows)
        if rng.random() < 0.1:
            # a step that failed leaves no trace
            continue
        before = len(trace)
        trace += values.tolist()
        entropy += levels.tolist()
        vectors += list(rows)
        if before < 200 or before > MAX_WINDOW - 100:
            grown = ScoreRow(
                trace=staged.trace, entropy=staged.entropy, spectrum=staged.spectrum, features=staged.features, key=KEY
            )
            scratch = _scratch(trace, entropy, vectors, spectrum)
            _same(diagnose(pack([scratch]), ASSETS), diagnose(pack([grown]), ASSETS), len(trace))
            seen += 1
        window.commit(staged)
    assert window.trace.view.shape == (MAX_WINDOW,)
    assert window.feature_view.shape == (MAX_FEATURE_ROWS, 16)
    assert seen > 15
