"""Merge, trigger, verdict, tier and status of the routing step."""

from __future__ import annotations

import numpy as np
import pytest

from tcd.calibration import AssetSet, default_asset_dir, load_assets
from tcd.contract import ROUTING, Flag, Status, unpack_status
from tcd.routing import DEFAULT_POLICY, merge, route
from tcd.rows import Tensors

ASSETS = load_assets(default_asset_dir())


def inputs(**changed: object) -> Tensors:
    tensors: Tensors = {
        "DETECTOR_P": np.ones((1, 2)),
        "DETECTOR_SUP": np.array([[1.5]]),
        "DETECTOR_LEVEL": np.array([[0.002]]),
        "DETECTOR_ASSET": np.array([[2**63 + 1]], np.uint64),
        "DETECTOR_STATUS": np.zeros((1, 1), np.int32),
        "MULTIVARIATE_P": np.ones((1, 2)),
        "MULTIVARIATE_SUP": np.array([[-1e300]]),
        "MULTIVARIATE_ASSET": np.array([[9]], np.uint64),
        "MULTIVARIATE_STATUS": np.zeros((1, 1), np.int32),
        "LENGTHS": np.array([[0, 0, 0, 0, 0, int(Flag.CONTROLLER)]], np.int32),
        "POLICY": np.zeros((1, 1), np.uint64),
        "ALPHA": np.array([[0.01]]),
        "BASE": np.array([[0.0, 1.0, 0.0, 0.0]], np.float32),
    }
    return {name: np.asarray(changed.get(name, array), array.dtype) for name, array in tensors.items()}


@pytest.mark.parametrize(
    ("weight", "expected"), [(0.5, 0.02), (1.0, 0.01), (0.0, 0.5), (0.25, 0.04), (0.9, 0.01 / 0.9)]
)
def test_merge(weight: float, expected: float) -> None:
    assert merge(np.array([0.01]), np.array([0.5]), weight)[0] == pytest.approx(expected)


def test_merge_never_exceeds_one() -> None:
    assert merge(np.array([1.0]), np.array([1.0]), 0.5)[0] == 1.0


@pytest.mark.parametrize(("p", "trigger"), [(0.009, 1), (0.0091, 0)])
def test_the_trigger_compares_the_merged_p_with_the_level(p: float, trigger: int) -> None:
    out = route(inputs(DETECTOR_P=[[1.0, p]]), ASSETS)
    assert out["TRIGGER"][0, 0] == out["VERDICT"][0, 0] == trigger
    assert out["TIER"][0, 0] == 2 * trigger
    assert out["P_VALUE"][0, 0] == p / DEFAULT_POLICY.weight


def test_without_the_controller_nothing_triggers() -> None:
    out = route(inputs(DETECTOR_P=[[1.0, 1e-9]], LENGTHS=[[0, 0, 0, 0, 0, 0]]), ASSETS)
    assert out["TRIGGER"][0, 0] == 0


def test_the_fast_alarm_is_a_verdict_of_the_cautious_tier() -> None:
    out = route(inputs(DETECTOR_P=[[0.001, 1.0]]), ASSETS)
    assert (out["TRIGGER"][0, 0], out["VERDICT"][0, 0], out["TIER"][0, 0]) == (0, 1, 1)
    assert out["SCORE"][0, 0] == np.float32(1 - 0.001 / DEFAULT_POLICY.weight)
    # a greedy loop is taken back to a temperature at which text is healthy
    assert out["ROUTE"][0].tolist() == [np.float32(0.6), np.float32(0.95), 512, 3]


def test_the_strict_tier_ends_the_generation() -> None:
    out = route(inputs(DETECTOR_P=[[1.0, 1e-9]], BASE=[[0.7, 1.0, 200.0, 0.0]]), ASSETS)
    assert out["TIER"][0, 0] == 2
    assert out["ROUTE"][0, 2] == 0


def test_drift_alone_is_cautious() -> None:
    assert route(inputs(BASE=[[0.7, 1.0, 0.0, 0.6]]), ASSETS)["TIER"][0, 0] == 1
    assert route(inputs(BASE=[[0.7, 1.0, 0.0, -9.0]]), ASSETS)["TIER"][0, 0] == 0


def test_an_unknown_policy_is_said_and_answered_by_the_default() -> None:
    out = route(inputs(POLICY=[[12345]]), ASSETS)
    assert unpack_status(int(out["STATUS"][0, 0]))[2] == Status.NO_CALIBRATION
    known = ASSETS.policy(0)
    assert known is not None
    assert out["ASSETS"][0].tolist() == [2**63 + 1, 9, known.asset_id]


def test_a_policy_may_be_named_by_its_asset_id() -> None:
    policy = ASSETS.policy(0)
    assert policy is not None
    out = route(inputs(POLICY=[[policy.asset_id]]), ASSETS)
    assert out["STATUS"][0, 0] == 0


def test_without_assets_the_built_in_policy_answers() -> None:
    out = route(inputs(), AssetSet())
    assert out["STATUS"][0, 0] == 0
    assert out["ASSETS"][0, 2] == DEFAULT_POLICY.asset_id == 0


def test_status_bytes_are_packed() -> None:
    out = route(inputs(DETECTOR_STATUS=[[4]], MULTIVARIATE_STATUS=[[64]], BASE=[[np.nan, 1, 0, 0]]), ASSETS)
    assert unpack_status(int(out["STATUS"][0, 0])) == (Status.FALLBACK, Status.ABSENT, Status.BAD_INPUT)


def test_outputs_are_the_contracts() -> None:
    out = route(inputs(), ASSETS)
    types = {"FP32": np.float32, "FP64": np.float64, "INT32": np.int32, "UINT64": np.uint64}
    assert list(out) == [tensor.name for tensor in ROUTING.outputs]
    for tensor in ROUTING.outputs:
        assert out[tensor.name].dtype == types[tensor.dtype]
        assert out[tensor.name].shape == (1, *tensor.dims)


def test_a_failing_row_does_not_fail_its_neighbours() -> None:
    """A policy whose data break the step answers FAILED for its rows only."""
    tensors = {name: np.concatenate([array, array]) for name, array in inputs().items()}
    tensors["POLICY"][1, 0] = 77

    class Broken(AssetSet):
        def policy(self, policy_id: int) -> object:  # type: ignore[override]
            if policy_id == 77:
                raise RuntimeError
            return DEFAULT_POLICY

    out = route(tensors, Broken())
    assert out["STATUS"][:, 0].tolist() == [0, int(Status.FAILED) << 16]
    assert out["TIER"][:, 0].tolist() == [0, 1]
