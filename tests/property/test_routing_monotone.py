"""More risk, more drift or a worse status never gives a milder tier."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tcd.calibration import AssetSet, default_asset_dir, load_assets
from tcd.contract import Flag, Status
from tcd.routing import route
from tcd.rows import Tensors

ASSETS = load_assets(default_asset_dir())
P = st.floats(1e-6, 1.0)
STATUSES = st.sampled_from([0, int(Status.WARMUP), int(Status.NONFINITE), int(Status.FAILED), int(Status.FALLBACK)])


def inputs(
    *,
    step: tuple[float, float] = (1.0, 1.0),
    hypothesis: tuple[float, float] = (1.0, 1.0),
    level: float = 0.0,
    status: tuple[int, int] = (0, 0),
    alpha: float = 0.0,
    base: tuple[float, float, float, float] = (1.0, 1.0, 100.0, 0.0),
    policy: int = 0,
    flags: int = int(Flag.CONTROLLER),
) -> Tensors:
    lengths = np.zeros((1, 6), np.int32)
    lengths[0, 5] = flags
    return {
        "DETECTOR_P": np.array([[step[0], hypothesis[0]]]),
        "DETECTOR_SUP": np.array([[1.0]]),
        "DETECTOR_LEVEL": np.array([[level]]),
        "DETECTOR_ASSET": np.array([[7]], np.uint64),
        "DETECTOR_STATUS": np.array([[status[0]]], np.int32),
        "MULTIVARIATE_P": np.array([[step[1], hypothesis[1]]]),
        "MULTIVARIATE_SUP": np.array([[2.0]]),
        "MULTIVARIATE_ASSET": np.array([[9]], np.uint64),
        "MULTIVARIATE_STATUS": np.array([[status[1]]], np.int32),
        "LENGTHS": lengths,
        "POLICY": np.array([[policy]], np.uint64),
        "ALPHA": np.array([[alpha]]),
        "BASE": np.array([base], np.float32),
    }


def tier(tensors: Tensors, assets: AssetSet = ASSETS) -> int:
    return int(route(tensors, assets)["TIER"][0, 0])


@settings(max_examples=200, deadline=None)
@given(
    p=st.tuples(P, P, P, P),
    smaller=st.tuples(*[st.floats(0.0, 1.0)] * 4),
    drift=st.floats(-1, 1),
    more=st.floats(0, 2),
    alpha=st.floats(0, 0.2),
    level=st.floats(0, 0.1),
    status=STATUSES,
)
def test_risk_and_drift_only_tighten(
    p: tuple[float, float, float, float],
    smaller: tuple[float, float, float, float],
    drift: float,
    more: float,
    alpha: float,
    level: float,
    status: int,
) -> None:
    mild = inputs(step=p[:2], hypothesis=p[2:], level=level, alpha=alpha, base=(1.0, 1.0, 100.0, drift))
    q = [a * b for a, b in zip(p, smaller, strict=True)]
    worse = inputs(
        step=(q[0], q[1]),
        hypothesis=(q[2], q[3]),
        level=level,
        alpha=alpha,
        base=(1.0, 1.0, 100.0, drift + more),
        status=(status, status),
    )
    assert tier(worse) >= tier(mild)


@settings(max_examples=100, deadline=None)
@given(
    temperature=st.floats(0, 3, width=32), top_p=st.floats(0, 1, width=32), tokens=st.integers(0, 4096), p=P, drift=P
)
def test_a_route_is_within_its_tier(temperature: float, top_p: float, tokens: int, p: float, drift: float) -> None:
    tensors = inputs(step=(p, 1.0), level=0.01, base=(temperature, top_p, float(tokens), drift))
    out = route(tensors, ASSETS)
    answered = out["ROUTE"][0].tolist()
    if out["TIER"][0, 0] == 0:
        assert answered == [np.float32(temperature), np.float32(top_p), tokens, 0]
    else:
        assert np.float32(0.6) <= answered[0] <= np.float32(0.8)
        assert answered[1] <= min(np.float32(top_p), np.float32(0.95))
        assert answered[2] <= (tokens or 512)
        assert answered[3] == 3
