"""Nothing in the content of the tensors raises: p = 1, the right status, every output finite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tcd.calibration import AssetSet, default_asset_dir, load_assets
from tcd.contract import DIAGNOSE, DIAGNOSE_RAW, SUP_START, Signal, Status, detector_key, unpack_status
from tcd.rows import ScoreRow, Tensors, pack
from tcd.rowwise import Outputs
from tcd.scoring import diagnose, diagnose_raw
from tcd.signals import start

KEY = detector_key("smollm2-135m", "gpu0", "chat", "en", "1.00")
INTEGERS = (-(2**31), -17, -1, 0, 1, 15, 16, 40, 64, 65, 112, 113, 2048, 4096, 4097, 16384, 2**31 - 1)


@pytest.fixture(scope="module")
def assets() -> AssetSet:
    return load_assets(default_asset_dir())


def healthy(length: int = 64) -> Tensors:
    rng = np.random.default_rng(3)
    features = rng.normal(0, 10, (min(length, 112), 16)).astype(np.float32)
    # the log of a nucleus size
    features[:, -1] = rng.uniform(0, 6, features.shape[0])
    row = ScoreRow(
        trace=-rng.exponential(2.0, length).astype(np.float32),
        entropy=rng.exponential(2.0, length).astype(np.float32),
        spectrum=rng.exponential(20, 16).astype(np.float32),
        features=features,
        key=KEY,
        alpha=0.01,
        controller=True,
    )
    return pack([row])


def check(out: Outputs) -> None:
    for name, array in out.items():
        assert np.isfinite(array.astype(np.float64)).all(), name
    for name in ("P_STEP", "P_VALUE"):
        assert ((out[name] > 0) & (out[name] <= 1)).all(), name
    assert (out["SUP_OUT"] >= SUP_START).all()


def status(out: Outputs) -> tuple[Status, Status, Status]:
    return unpack_status(int(out["STATUS"][0, 0]))


@pytest.mark.parametrize("name", ["TRACE", "ENTROPY", "SPECTRUM", "FEATURES"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_nonfinite_value_is_p_one(assets: AssetSet, name: str, value: float) -> None:
    tensors = healthy()
    tensors[name] = tensors[name].copy()
    tensors[name][0, 3] = value
    out = diagnose(tensors, assets)
    check(out)
    detector, monitor, _ = status(out)
    assert detector & Status.NONFINITE
    assert out["P_STEP"][0, 0] == 1
    assert bool(monitor & Status.NONFINITE) == (name == "FEATURES")
    assert out["TRIGGER"][0, 0] == 0
    assert out["TIER"][0, 0] == 1


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("value", [-1, -(2**31), 2**31 - 1, 4097])
def test_a_count_that_does_not_fit_is_p_one(assets: AssetSet, column: int, value: int) -> None:
    tensors = healthy()
    tensors["LENGTHS"] = tensors["LENGTHS"].copy()
    tensors["LENGTHS"][0, column] = value
    out = diagnose(tensors, assets)
    check(out)
    assert status(out)[0] & Status.BAD_INPUT
    assert out["P_STEP"][0, 0] == 1


def test_extreme_finite_values_are_scored_and_finite(assets: AssetSet) -> None:
    tensors = healthy()
    top = np.float32(np.finfo(np.float32).max)
    for name, value in (("TRACE", -top), ("ENTROPY", top), ("SPECTRUM", top), ("FEATURES", top)):
        tensors[name] = np.where(np.arange(tensors[name].shape[1]) % 2, value, tensors[name]).astype(np.float32)
    out = diagnose(tensors, assets)
    check(out)
    assert out["P_STEP"][0, 1] < 0.01
    assert out["MV"][0, 0] > 1e6


def test_constant_and_zero_rows_are_finite(assets: AssetSet) -> None:
    tensors = healthy(200)
    for name in ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES"):
        tensors[name] = np.zeros_like(tensors[name])
    check(diagnose(tensors, assets))


def test_negative_singular_values_are_refused(assets: AssetSet) -> None:
    tensors = healthy()
    tensors["SPECTRUM"] = -np.abs(tensors["SPECTRUM"])
    assert status(diagnose(tensors, assets))[0] & Status.NONFINITE


def test_an_empty_row_is_absent(assets: AssetSet) -> None:
    out = diagnose(pack([ScoreRow(key=KEY)]), assets)
    check(out)
    assert status(out)[:2] == (Status.ABSENT, Status.ABSENT)
    assert out["P_STEP"].tolist() == [[1, 1]]
    assert out["SCORE"][0, 0] == 0
    assert out["SUP_OUT"].tolist() == [[SUP_START, SUP_START]]


def test_an_empty_batch_is_empty(assets: AssetSet) -> None:
    tensors = {name: array[:0] for name, array in healthy().items()}
    out = diagnose(tensors, assets)
    assert {name: array.shape[0] for name, array in out.items()} == dict.fromkeys(out, 0)


def test_no_assets_at_all() -> None:
    out = diagnose(healthy(), AssetSet())
    check(out)
    assert status(out)[0] == status(out)[1] == Status.NO_CALIBRATION
    assert out["TIER"][0, 0] == 0


def test_warm_up_keeps_sup_and_its_hypothesis_p(assets: AssetSet) -> None:
    tensors = healthy(10)
    out = diagnose(tensors, assets)
    assert status(out)[0] == status(out)[1] == Status.WARMUP
    assert out["P_VALUE"][0, 0] == 1
    tensors["SUP"] = np.array([[50.0, SUP_START]])
    out = diagnose(tensors, assets)
    assert out["SUP_OUT"].tolist() == [[50.0, SUP_START]]
    assert out["P_STEP"].tolist() == [[1, 1]]
    assert out["P_VALUE"][0, 0] < 0.2


def test_sup_is_the_running_maximum(assets: AssetSet) -> None:
    first = diagnose(healthy(), assets)
    tensors = healthy()
    tensors["SUP"] = first["SUP_OUT"] + np.array([[1.0, -0.5]])
    second = diagnose(tensors, assets)
    assert second["SUP_OUT"].tolist() == [[first["SUP_OUT"][0, 0] + 1.0, first["SUP_OUT"][0, 1]]]


def test_foreign_feature_width(assets: AssetSet) -> None:
    tensors = healthy()
    tensors["LENGTHS"] = tensors["LENGTHS"].copy()
    tensors["LENGTHS"][0, 3:5] = (32, 8)
    out = diagnose(tensors, assets)
    detector, monitor, _ = status(out)
    assert monitor & Status.UNKNOWN_MASK
    assert out["P_STEP"][0, 1] == 1
    assert detector == Status.FALLBACK
    assert out["P_STEP"][0, 0] < 1


@pytest.mark.parametrize("mask", range(1, 16))
def test_every_signal_mask_has_a_calibration(assets: AssetSet, mask: int) -> None:
    tensors = healthy()
    tensors["LENGTHS"] = tensors["LENGTHS"].copy()
    for signal, column in zip(Signal, range(4), strict=True):
        if not mask & signal:
            tensors["LENGTHS"][0, column] = 0
    out = diagnose(tensors, assets)
    check(out)
    assert status(out)[0] == Status.OK
    assert out["P_STEP"][0, 0] < 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["SUP", "BASE", "ALPHA"])
def test_bad_scalars(assets: AssetSet, name: str, value: float) -> None:
    tensors = healthy()
    tensors[name] = np.full_like(tensors[name], value)
    out = diagnose(tensors, assets)
    check(out)
    if name != "SUP":
        assert status(out)[2] & Status.BAD_INPUT
    else:
        assert status(out)[0] & Status.BAD_INPUT


floats = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_content_is_answered(assets: AssetSet, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 4))

    def window(width: int) -> NDArray[np.float32]:
        return data.draw(arrays(np.float32, (n, width), elements=floats, fill=st.just(1.0)))

    lengths = data.draw(arrays(np.int32, (n, 6), elements=st.sampled_from(INTEGERS)))
    tensors: Tensors = {
        "TRACE": window(data.draw(st.sampled_from((0, 16, 64, 256)))),
        "ENTROPY": window(data.draw(st.sampled_from((0, 16, 64, 256)))),
        "SPECTRUM": window(data.draw(st.sampled_from((0, 16, 64)))),
        "FEATURES": window(data.draw(st.sampled_from((0, 256, 1024)))),
        "LENGTHS": lengths,
        "KEY": np.array([[0, 0, KEY[2]]] * n, np.uint64),
        "POLICY": np.array([[2**64 - 1]] * n, np.uint64),
        "ALPHA": data.draw(arrays(np.float64, (n, 1), elements=st.floats())),
        "SUP": data.draw(arrays(np.float64, (n, 2), elements=st.floats())),
        "BASE": window(4),
    }
    with np.errstate(all="ignore"):
        out = diagnose(tensors, assets)
    check(out)
    assert set(out) == {tensor.name for tensor in DIAGNOSE.outputs}
    assert not (out["STATUS"] & (Status.FAILED | (Status.FAILED << 8) | (Status.FAILED << 16))).any()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_raw_content_is_answered(assets: AssetSet, data: st.DataObject) -> None:
    n, vocabulary = 2, data.draw(st.sampled_from((0, 1, 40)))
    depth, width = data.draw(st.sampled_from(((0, 0), (1, 5), (40, 8))))
    base = start(n)
    rows = pack([ScoreRow(key=KEY)] * n)
    tensors: Tensors = {
        **base,
        **{name: rows[name] for name in ("KEY", "POLICY", "ALPHA", "SUP", "BASE")},
        "PREV_TRACE": data.draw(arrays(np.float32, (n, 64), elements=floats, fill=st.just(-1.0))),
        "PREV_FEATURES": data.draw(arrays(np.float32, (n, 256), elements=floats, fill=st.just(2.0))),
        "PREV_LENGTHS": data.draw(arrays(np.int32, (n, 6), elements=st.sampled_from(INTEGERS))),
        "LOGITS": data.draw(arrays(np.float32, (n, vocabulary), elements=floats, fill=st.just(0.0))),
        "TOKEN": data.draw(arrays(np.int32, (n, 1), elements=st.sampled_from((-1, 0, 1, 39, 40, 2**31 - 1)))),
        "HIDDEN": data.draw(arrays(np.float32, (n, depth, width), elements=floats, fill=st.just(1.0))),
    }
    out = diagnose_raw(tensors, assets)
    finite = {name: array for name, array in out.items() if name not in {"NEXT_TRACE", "NEXT_FEATURES"}}
    check(finite)
    assert set(out) == {tensor.name for tensor in DIAGNOSE_RAW.outputs}
    assert not (out["STATUS"] & (Status.FAILED | (Status.FAILED << 8) | (Status.FAILED << 16))).any()
