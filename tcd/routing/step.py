"""The routing step of the ensemble: p-values, level and policy to trigger, verdict, tier and route.

Pure and batch-first. More risk or drift never gives a milder tier; every output is finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet, RoutingPolicy, TierRule
from tcd.calibration.lookup import ALL, Rows, alike
from tcd.contract import FLAG_MASK, SUP_START, UNKNOWN_POLICY, Flag, Length, Status
from tcd.native import library as kernels
from tcd.native import routing as native
from tcd.routing.policy import DEFAULT_POLICY
from tcd.rowwise import Inputs, Outputs, isolated

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

_CAUTIOUS: Final = 1
_STRICT: Final = 2
_FLOAT_MAX: Final = float(np.finfo(np.float32).max)
_CONTROLLER: Final = int(Flag.CONTROLLER)
_UNKNOWN_FLAGS: Final = ~FLAG_MASK
_BYTE: Final = 0xFF
_BAD_INPUT, _UNKNOWN_POLICY = int(Status.BAD_INPUT), int(UNKNOWN_POLICY)
#: BASE read when a member of it is not finite.
_SAFE_BASE: Final = np.array([1.0, 1.0, 0.0, 0.0])


def merge(detector: F64, multivariate: F64, weight: float) -> F64:
    """min(1, p_det / w, p_mv / (1 - w)); a monitor of weight 0 is left out. Any shape."""
    p: F64 | float = 1.0
    if weight > 0:
        p = np.minimum(p, detector / weight)
    if weight < 1:
        p = np.minimum(p, multivariate / (1.0 - weight))
    return np.asarray(p)


def _policies(ids: NDArray[np.generic], assets: AssetSet) -> Iterator[tuple[Rows, RoutingPolicy, bool]]:
    """Rows by policy: which they are, the policy that answers, whether the asked one was known."""
    same = alike(ids)
    flat = ids[:1, 0].tolist() if same else ids[:, 0].tolist()
    for value in dict.fromkeys(flat):
        policy = assets.policy(int(value))
        rows = ALL if same else np.array([i for i, other in enumerate(flat) if other == value], np.int64)
        yield rows, policy or assets.policy(0) or DEFAULT_POLICY, policy is not None or int(value) == 0


def _base(values: NDArray[np.generic]) -> tuple[F64, Bool | None]:
    """BASE as FP64 with a safe value for whatever is not finite, and where all is, None for everywhere; (N, 4)."""
    base = values.astype(np.float64)
    good = np.isfinite(base)
    return (base, None) if good.all() else (np.where(good, base, _SAFE_BASE), good)


def _limited(rule: TierRule, out: F64) -> F64:
    """ROUTE (R, 4) of rows in one tier; `out` is changed and answered."""
    if rule.temperature is not None:
        np.minimum(np.maximum(out[:, 0], rule.temperature[0]), rule.temperature[1], out=out[:, 0])
    if rule.top_p is not None:
        np.minimum(out[:, 1], rule.top_p, out=out[:, 1])
    if rule.max_tokens is not None:
        # 0 from the caller means that it named no limit
        out[:, 2] = np.where(out[:, 2] > 0, np.minimum(out[:, 2], rule.max_tokens), rule.max_tokens)
    out[:, 3] = rule.decoder
    return out


def _route(policy: RoutingPolicy, tier: I32, base: F64) -> F64:
    """ROUTE (R, 4) of rows under one policy."""
    out = base.copy()
    np.maximum(out[:, 2], 0.0, out=out[:, 2])
    out[:, 2] += 0.0  # no negative zero
    tiers = set(tier.tolist())
    if len(tiers) == 1:
        _limited(policy.tiers[tiers.pop()], out)
    for index in tiers:
        here = np.flatnonzero(tier == index)
        out[here] = _limited(policy.tiers[index], out[here])
    return np.minimum(np.maximum(out, -_FLOAT_MAX), _FLOAT_MAX)


class _Row:
    """Inputs of the step, read and cleaned once for the whole batch."""

    def __init__(self, inputs: Inputs) -> None:
        # step and hypothesis of the detector, then of the multivariate monitor
        self.p = np.concatenate([inputs["DETECTOR_P"], inputs["MULTIVARIATE_P"]], axis=1, dtype=np.float64)
        self.level = inputs["DETECTOR_LEVEL"][:, 0]
        self.alpha = inputs["ALPHA"][:, 0]
        self.base, good_base = _base(inputs["BASE"])
        flags = inputs["LENGTHS"][:, Length.FLAGS].astype(np.int32, copy=False)
        self.controller = (flags & _CONTROLLER) == _CONTROLLER
        self.detector = inputs["DETECTOR_STATUS"][:, 0].astype(np.int32, copy=False) & _BYTE
        self.multivariate = inputs["MULTIVARIATE_STATUS"][:, 0].astype(np.int32, copy=False) & _BYTE
        self.status = np.zeros(self.p.shape[0], np.int32)
        # a NaN fails every comparison
        fine = _unit(self.p) and _unit(self.alpha) and good_base is None
        if not fine or (int(np.bitwise_or.reduce(flags)) & _UNKNOWN_FLAGS):
            self._clean(good_base, flags)

    def _clean(self, good_base: Bool | None, flags: I32) -> None:
        """Find the rows with something wrong in them, and make that safe."""
        good = (self.p >= 0) & (self.p <= 1)
        self.p = np.where(good, self.p, 1.0)
        bad_alpha = self.controller & ~((self.alpha >= 0) & (self.alpha <= 1))
        self.controller &= ~bad_alpha
        wrong = ~good.all(axis=1) | bad_alpha | ((flags & _UNKNOWN_FLAGS) != 0)
        if good_base is not None:
            wrong |= ~good_base.all(axis=1)
        self.status[wrong] = _BAD_INPUT


def _unit(values: F64) -> bool:
    """Whether all values are in [0, 1]."""
    return bool(values.min(initial=0.0) >= 0.0 and values.max(initial=0.0) <= 1.0)


def _finite(values: NDArray[np.generic]) -> F64:
    # fmax prefers a number to a NaN
    return np.asarray(np.minimum(np.fmax(values.astype(np.float64), SUP_START), -SUP_START)) + 0.0


def _pack(detector: I32, multivariate: I32, routing: I32) -> I32:
    return detector | (multivariate << 8) | (routing << 16)


def _step(inputs: Inputs, assets: AssetSet) -> Outputs:
    row = _Row(inputs)
    n = row.p.shape[0]
    status = row.status
    monitors = row.detector | row.multivariate
    merged = np.empty((n, 2))
    tier = np.zeros(n, np.int32)
    route = np.empty((n, 4), np.float32)
    used = np.empty((n, 3), np.uint64)
    used[:, :1], used[:, 1:2] = inputs["DETECTOR_ASSET"], inputs["MULTIVARIATE_ASSET"]
    trigger, alarm = np.empty(n, np.bool_), np.empty(n, np.bool_)
    for rows, policy, known in _policies(inputs["POLICY"], assets):
        if not known:
            status[rows] |= _UNKNOWN_POLICY
        merged[rows] = merge(row.p[rows, :2], row.p[rows, 2:], policy.weight)
        trigger[rows] = row.controller[rows] & (merged[rows, 1] <= row.alpha[rows])
        alarm[rows] = merged[rows, 0] <= row.level[rows]
        cautious = alarm[rows] | (row.base[rows, 3] >= policy.drift)
        cautious |= ((monitors[rows] | status[rows]) & policy.failed) != 0
        # cautious is 1, strict 2
        tier[rows] = np.where(trigger[rows], _STRICT, cautious)
        route[rows] = _route(policy, tier[rows], row.base[rows])
        used[rows, 2] = policy.asset_id
    return {
        "SCORE": np.subtract(1.0, merged[:, :1]).astype(np.float32),
        "P_STEP": np.ascontiguousarray(row.p[:, ::2]),
        "SUP_OUT": _finite(np.concatenate([inputs["DETECTOR_SUP"], inputs["MULTIVARIATE_SUP"]], axis=1)),
        "P_VALUE": merged[:, 1:],
        "TRIGGER": trigger[:, None].astype(np.int32),
        "VERDICT": (trigger | alarm)[:, None].astype(np.int32),
        "TIER": tier[:, None],
        "STATUS": _pack(row.detector, row.multivariate, status)[:, None],
        "ROUTE": route,
        "ASSETS": used,
    }


def _compiled(assets: AssetSet) -> Callable[[Inputs], Outputs] | None:
    """The step by the compiled kernels, the same bits; None where there are none."""
    library = kernels.loaded().library
    return None if library is None else lambda inputs: native.route(library, inputs, assets)


def _failed(inputs: Inputs) -> Outputs:
    n = inputs["BASE"].shape[0]
    base, _ = _base(inputs["BASE"])
    tier = np.full(n, _CAUTIOUS, np.int32)
    detector, multivariate = (
        inputs[name].astype(np.int32, copy=False)[:, 0] & _BYTE for name in ("DETECTOR_STATUS", "MULTIVARIATE_STATUS")
    )
    return {
        "SCORE": np.zeros((n, 1), np.float32),
        "P_STEP": np.ones((n, 2)),
        "SUP_OUT": np.concatenate([_finite(inputs["DETECTOR_SUP"]), _finite(inputs["MULTIVARIATE_SUP"])], axis=1),
        "P_VALUE": np.ones((n, 1)),
        "TRIGGER": np.zeros((n, 1), np.int32),
        "VERDICT": np.zeros((n, 1), np.int32),
        "TIER": tier[:, None],
        "STATUS": _pack(detector, multivariate, np.full(n, int(Status.FAILED), np.int32))[:, None],
        "ROUTE": _route(DEFAULT_POLICY, tier, base).astype(np.float32),
        "ASSETS": np.zeros((n, 3), np.uint64),
    }


def route(inputs: Inputs, assets: AssetSet) -> Outputs:
    """Route a batch; inputs and answers are the tensors of `tcd.contract.ROUTING`, batch first.

    An unknown POLICY is answered by the default policy and said so in the status (UNKNOWN_POLICY). A BASE
    max_tokens of 0 means that the caller named no limit; a ROUTE max_tokens of 0 under tier 2 ends the generation.
    """
    return isolated(lambda part: _step(part, assets), _failed, compiled=_compiled(assets))(inputs)
