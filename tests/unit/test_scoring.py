"""The ensemble in process: outputs of the contract, the scorer port, agreement of the raw ensemble with its parts."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np

from tcd.calibration import default_asset_dir, load_assets
from tcd.contract import DIAGNOSE, DIAGNOSE_RAW, Status, detector_key, unpack_status
from tcd.rows import ScoreRow, Tensors, pack
from tcd.scoring import LibraryScorer, diagnose, diagnose_raw
from tcd.signals import start

ASSETS = load_assets(default_asset_dir())
KEY = detector_key("smollm2-135m", "gpu0", "chat", "en", "1.00")


def row(n: int = 40) -> ScoreRow:
    rng = np.random.default_rng(n)
    return ScoreRow(
        trace=-rng.exponential(2, n).astype(np.float32),
        entropy=rng.exponential(2, n).astype(np.float32),
        spectrum=rng.exponential(20, 16).astype(np.float32),
        features=rng.normal(0, 10, (n, 16)).astype(np.float32),
        key=KEY,
    )


def test_outputs_of_the_contract() -> None:
    out = diagnose(pack([row(), row(50)]), ASSETS)
    types = {"FP32": np.float32, "FP64": np.float64, "INT32": np.int32, "UINT64": np.uint64}
    assert list(out) == [tensor.name for tensor in DIAGNOSE.outputs]
    for tensor in DIAGNOSE.outputs:
        assert out[tensor.name].dtype == types[tensor.dtype]
        assert out[tensor.name].shape == (2, *tensor.dims)


def test_the_scorer_answers_like_the_ensemble() -> None:
    result = asyncio.run(LibraryScorer(ASSETS).score(row(), timeout=1.0))
    out = diagnose(pack([row()]), ASSETS)
    assert result.p_value == out["P_VALUE"][0, 0]
    assert result.score == out["SCORE"][0, 0]
    assert unpack_status(result.status) == (Status.OK, Status.OK, Status.OK)
    assert all(result.assets)
    assert LibraryScorer(ASSETS).score_rows([]) == []


def test_the_raw_ensemble_steps_a_session() -> None:
    rng = np.random.default_rng(0)
    windows: Tensors = start(1)
    fixed = {name: pack([row()])[name] for name in ("KEY", "POLICY", "ALPHA", "SUP", "BASE")}
    for _ in range(20):
        raw: Tensors = {
            "LOGITS": rng.normal(0, 3, (1, 200)).astype(np.float32),
            "TOKEN": rng.integers(0, 200, (1, 1)).astype(np.int32),
            "HIDDEN": rng.normal(0, 2, (1, 32, 576)).astype(np.float32),
        }
        out = diagnose_raw({**raw, **windows, **fixed}, ASSETS)
        windows = {f"PREV_{name}": out[f"NEXT_{name}"] for name in ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")}
        fixed["SUP"] = out["SUP_OUT"]
    assert list(out) == [tensor.name for tensor in DIAGNOSE_RAW.outputs]
    assert out["NEXT_LENGTHS"].tolist() == [[20, 20, 16, 20, 16, 0]]
    assert out["P_STEP"][0, 0] < 1


def test_a_bad_raw_step_is_p_one_with_a_status() -> None:
    raw: Tensors = {
        "LOGITS": np.full((1, 9), np.nan, np.float32),
        "TOKEN": np.zeros((1, 1), np.int32),
        "HIDDEN": np.zeros((1, 0, 0), np.float32),
    }
    fixed = {name: pack([row()])[name] for name in ("KEY", "POLICY", "ALPHA", "SUP", "BASE")}
    out = diagnose_raw({**raw, **start(1), **fixed}, ASSETS)
    assert unpack_status(int(out["STATUS"][0, 0]))[0] & Status.BAD_INPUT
    assert out["P_STEP"].tolist() == [[1, 1]]


def test_the_scoring_path_imports_numpy_only() -> None:
    code = (
        "import sys, tcd.scoring, tcd.calibration\n"
        "print([m for m in ('torch', 'scipy', 'pandas', 'pyarrow', 'sklearn', 'fastapi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
