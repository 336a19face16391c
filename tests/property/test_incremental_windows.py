"""A session whose windows grow step by step scores the same bits as one whose windows are made from its whole past."""

from __future__ import annotations

import numpy as np
import pytest

from tcd.calibration import default_asset_dir, load_assets
from tcd.contract import MAX_FEATURE_ROWS, MAX_WINDOW, detector_key
from tcd.rows import ScoreRow, pack
from tcd.scoring import diagnose
from tcd.signals import raw_step, start

ASSETS = load_assets(default_asset_dir())
KEY = detector_key("smollm2-135m", "gpu0", "chat", "en", "1.00")
CHECKED = {1, 15, 16, 17, 31, 32, 33, 48, 64, 65, 96, 111, 112, 113, 130}


@pytest.mark.parametrize("seed", range(3))
def test_incremental_equals_from_scratch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    carried = start(1)
    trace: list[float] = []
    entropy: list[float] = []
    vectors: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []
    seen = 0
    for count in range(1, max(CHECKED) + 1):
        logits = rng.normal(0, 3, (1, 60)).astype(np.float32)
        hidden = rng.normal(0, 2, (1, 32, 576)).astype(np.float32)
        out = raw_step(logits, rng.integers(0, 60, 1).astype(np.int32), hidden, carried, ASSETS)
        carried = {f"PREV_{name}": out[f"NEXT_{name}"] for name in ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")}
        n, _, _, rows, cols, _ = out["NEXT_LENGTHS"][0].tolist()
        trace.append(float(out["NEXT_TRACE"][0, n - 1]))
        entropy.append(float(out["NEXT_ENTROPY"][0, n - 1]))
        vectors.append(out["NEXT_FEATURES"][0, (rows - 1) * cols : rows * cols].astype(np.float32))
        if count not in CHECKED:
            continue
        row = ScoreRow(
            trace=np.array(trace[-MAX_WINDOW:], np.float32),
            entropy=np.array(entropy[-MAX_WINDOW:], np.float32),
            spectrum=out["SPECTRUM"][0, :16].astype(np.float32),
            features=np.stack(vectors[-MAX_FEATURE_ROWS:]),
            key=KEY,
        )
        scratch = pack([row])
        grown = {
            **scratch,
            **{name: out[f"NEXT_{name}"] for name in ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")},
            "SPECTRUM": out["SPECTRUM"],
        }
        one, other = diagnose(scratch, ASSETS), diagnose(grown, ASSETS)
        for name, array in one.items():
            assert array.tobytes() == other[name].tobytes(), (name, count)
        seen += 1
    assert seen == len(CHECKED)
