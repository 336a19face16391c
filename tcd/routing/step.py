"""The routing step of the ensemble: p-values, level and policy to trigger, verdict, tier and route.

Pure and batch-first. More risk or drift never gives a milder tier; every output is finite.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet, RoutingPolicy
from tcd.contract import FLAG_MASK, SUP_START, UNKNOWN_POLICY, Flag, Length, Status
from tcd.routing.policy import DEFAULT_POLICY
from tcd.rowwise import Inputs, Outputs, isolated

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

_CAUTIOUS: Final = 1
_STRICT: Final = 2
_FLOAT_MAX: Final = float(np.finfo(np.float32).max)
#: BASE read when a member of it is not finite.
_SAFE_BASE: Final = np.array([1.0, 1.0, 0.0, 0.0])


def merge(detector: F64, multivariate: F64, weight: float) -> F64:
    """min(1, p_det / w, p_mv / (1 - w)); a monitor of weight 0 is left out. Any shape."""
    p = np.ones_like(detector)
    if weight > 0:
        p = np.minimum(p, detector / weight)
    if weight < 1:
        p = np.minimum(p, multivariate / (1.0 - weight))
    return p


def _policies(ids: NDArray[np.generic], assets: AssetSet) -> Iterator[tuple[NDArray[np.int64], RoutingPolicy, bool]]:
    """Rows by policy: their indices, the policy that answers, whether the asked one was known."""
    flat = ids[:, 0].tolist()
    for value in set(flat):
        policy = assets.policy(int(value))
        rows = np.array([i for i, other in enumerate(flat) if other == value], np.int64)
        yield rows, policy or assets.policy(0) or DEFAULT_POLICY, policy is not None or int(value) == 0


def _probability(values: NDArray[np.generic]) -> tuple[F64, Bool]:
    """p-values as FP64 in [0, 1] with whatever is not one replaced by 1, and where that was."""
    p = values.astype(np.float64)
    wrong = ~((p >= 0) & (p <= 1))
    return np.where(wrong, 1.0, p), wrong.any(axis=1)


def _base(values: NDArray[np.generic]) -> tuple[F64, Bool]:
    base = values.astype(np.float64)
    wrong = ~np.isfinite(base)
    return np.where(wrong, _SAFE_BASE, base), wrong.any(axis=1)


def _route(policy: RoutingPolicy, tier: I32, base: F64) -> F64:
    """ROUTE (R, 4) of rows under one policy."""
    out = np.stack([base[:, 0], base[:, 1], np.maximum(base[:, 2], 0.0), np.zeros(base.shape[0])], axis=1)
    for index, rule in enumerate(policy.tiers):
        here = np.flatnonzero(tier == index)
        if not here.shape[0]:
            continue
        if rule.temperature is not None:
            out[here, 0] = np.clip(out[here, 0], *rule.temperature)
        if rule.top_p is not None:
            out[here, 1] = np.minimum(out[here, 1], rule.top_p)
        if rule.max_tokens is not None:
            asked = out[here, 2]
            # 0 from the caller means that it named no limit
            limit = np.where(asked > 0, np.minimum(asked, rule.max_tokens), rule.max_tokens)
            out[here, 2] = limit
        out[here, 3] = rule.decoder
    return np.asarray(np.clip(out, -_FLOAT_MAX, _FLOAT_MAX))


class _Row:
    """Inputs of the step, read and cleaned once for the whole batch."""

    def __init__(self, inputs: Inputs) -> None:
        self.p_detector, wrong_detector = _probability(inputs["DETECTOR_P"])
        self.p_multivariate, wrong_multivariate = _probability(inputs["MULTIVARIATE_P"])
        self.level = inputs["DETECTOR_LEVEL"][:, 0].astype(np.float64)
        self.alpha = inputs["ALPHA"][:, 0].astype(np.float64)
        self.base, wrong_base = _base(inputs["BASE"])
        flags = inputs["LENGTHS"][:, Length.FLAGS].astype(np.int64)
        self.controller = (flags & int(Flag.CONTROLLER)) != 0
        self.monitors = (
            inputs["DETECTOR_STATUS"][:, 0].astype(np.int64) | inputs["MULTIVARIATE_STATUS"][:, 0].astype(np.int64)
        ) & 0xFF
        wrong_alpha = self.controller & ~((self.alpha >= 0) & (self.alpha <= 1))
        self.wrong = wrong_detector | wrong_multivariate | wrong_base | wrong_alpha | ((flags & ~FLAG_MASK) != 0)
        self.controller &= ~wrong_alpha


def _finite(values: NDArray[np.generic]) -> F64:
    sup = values.astype(np.float64)
    return np.clip(np.where(np.isnan(sup), SUP_START, sup), SUP_START, -SUP_START)


def _pack(inputs: Inputs, routing: I32) -> NDArray[np.int32]:
    detector = inputs["DETECTOR_STATUS"][:, 0].astype(np.int64) & 0xFF
    multivariate = inputs["MULTIVARIATE_STATUS"][:, 0].astype(np.int64) & 0xFF
    return (detector | (multivariate << 8) | (routing.astype(np.int64) << 16)).astype(np.int32)


def _step(inputs: Inputs, assets: AssetSet) -> Outputs:
    row = _Row(inputs)
    n = row.level.shape[0]
    status = np.where(row.wrong, int(Status.BAD_INPUT), 0).astype(np.int32)
    merged = np.ones((n, 2))
    tier = np.zeros(n, np.int32)
    route = np.zeros((n, 4))
    used = np.zeros(n, np.uint64)
    trigger = np.zeros(n, np.bool_)
    alarm = np.zeros(n, np.bool_)
    for rows, policy, known in _policies(inputs["POLICY"], assets):
        if not known:
            status[rows] |= int(UNKNOWN_POLICY)
        merged[rows] = merge(row.p_detector[rows], row.p_multivariate[rows], policy.weight)
        trigger[rows] = row.controller[rows] & (merged[rows, 1] <= row.alpha[rows])
        alarm[rows] = merged[rows, 0] <= row.level[rows]
        broken = ((row.monitors[rows] | status[rows]) & policy.failed) != 0
        cautious = alarm[rows] | (row.base[rows, 3] >= policy.drift) | broken
        tier[rows] = np.where(trigger[rows], _STRICT, np.where(cautious, _CAUTIOUS, 0))
        route[rows] = _route(policy, tier[rows], row.base[rows])
        used[rows] = policy.asset_id
    sup = np.stack([_finite(inputs["DETECTOR_SUP"][:, 0]), _finite(inputs["MULTIVARIATE_SUP"][:, 0])], axis=1)
    assets_used = [inputs["DETECTOR_ASSET"][:, 0], inputs["MULTIVARIATE_ASSET"][:, 0], used]
    return {
        "SCORE": (1.0 - merged[:, :1]).astype(np.float32),
        "P_STEP": np.stack([row.p_detector[:, 0], row.p_multivariate[:, 0]], axis=1),
        "SUP_OUT": sup,
        "P_VALUE": merged[:, 1:],
        "TRIGGER": trigger[:, None].astype(np.int32),
        "VERDICT": (trigger | alarm)[:, None].astype(np.int32),
        "TIER": tier[:, None],
        "STATUS": _pack(inputs, status)[:, None],
        "ROUTE": route.astype(np.float32),
        "ASSETS": np.stack(assets_used, axis=1).astype(np.uint64),
    }


def _failed(inputs: Inputs) -> Outputs:
    n = inputs["BASE"].shape[0]
    base, _ = _base(inputs["BASE"])
    tier = np.full(n, _CAUTIOUS, np.int32)
    return {
        "SCORE": np.zeros((n, 1), np.float32),
        "P_STEP": np.ones((n, 2)),
        "SUP_OUT": np.concatenate([_finite(inputs["DETECTOR_SUP"]), _finite(inputs["MULTIVARIATE_SUP"])], axis=1),
        "P_VALUE": np.ones((n, 1)),
        "TRIGGER": np.zeros((n, 1), np.int32),
        "VERDICT": np.zeros((n, 1), np.int32),
        "TIER": tier[:, None],
        "STATUS": _pack(inputs, np.full(n, int(Status.FAILED), np.int32))[:, None],
        "ROUTE": _route(DEFAULT_POLICY, tier, base).astype(np.float32),
        "ASSETS": np.zeros((n, 3), np.uint64),
    }


def route(inputs: Inputs, assets: AssetSet) -> Outputs:
    """Route a batch; inputs and answers are the tensors of `tcd.contract.ROUTING`, batch first.

    An unknown POLICY is answered by the default policy and said so in the status (UNKNOWN_POLICY). A BASE
    max_tokens of 0 means that the caller named no limit; a ROUTE max_tokens of 0 under tier 2 ends the generation.
    """
    return isolated(lambda part: _step(part, assets), _failed)(inputs)
