"""Is an answer of the ensemble one that can be settled? Nothing it says is taken on trust."""

from __future__ import annotations

import math

from sidecar_api.pins import Pins
from tcd.contract import COMPONENTS, DECODERS, TIERS
from tcd.rows import Proven, ScoreResult, ScoreRow

_TABLE = (len(COMPONENTS), 3)
_STATUS_MAX = 1 << 24
_ROUTE_MAX = 2e7


def merged(p: tuple[float, float], weight: float) -> float:
    """Merged step p-value: min(p_det/w, p_mv/(1 - w)), at most 1."""
    detector = p[0] / weight if weight > 0 else 1.0
    monitor = p[1] / (1.0 - weight) if weight < 1 else 1.0
    return min(1.0, detector, monitor)


def _numbers(result: ScoreResult) -> str:
    table = result.components
    if table.shape != _TABLE:
        return "components have another shape"
    # plain floats: on a dozen values they are several times faster than array operations
    cells = table.ravel().tolist()
    numbers = (*cells, result.score, *result.p_step, *result.sup, result.p_value, *result.mv, *result.route)
    if not all(map(math.isfinite, numbers)):
        return "not finite"
    shares = (*cells[0::3], *cells[1::3], result.score, result.p_value, *result.p_step, result.mv[3])
    if min(shares) < 0.0 or max(shares) > 1.0:
        return "a p-value or a severity is outside [0, 1]"
    if not (0 <= result.tier < len(TIERS) and 0 <= result.status < _STATUS_MAX):
        return "tier or status is out of range"
    route = result.route
    if min(route) < 0.0 or max(route) > _ROUTE_MAX or not route[3].is_integer() or route[3] >= len(DECODERS):
        return "the route is out of range"
    return ""


def problem(row: ScoreRow, result: ScoreResult, pins: Pins) -> str:
    """Why a result is no possible answer to a row, or empty.

    The comparison of the p-value with the level is redone bit for bit, and so is the fast alarm.
    """
    if type(result) is not Proven:
        wrong = _numbers(result)
        if wrong:
            return wrong
    if result.sup[0] < row.sup[0] or result.sup[1] < row.sup[1]:
        return "a running maximum went down"
    if result.trigger is not (row.controller and result.p_value <= row.alpha):
        return "the trigger is not p <= alpha"
    alarm = pins.level > 0.0 and merged(result.p_step, pins.weight) <= pins.level
    if not _foreign(result, pins) and result.verdict is not (result.trigger or alarm):
        return "the verdict does not follow from the p-values"
    return ""


def _foreign(result: ScoreResult, pins: Pins) -> bool:
    # nearly always all of them are the pinned ones
    if result.assets == pins.ids:
        return False
    return any(used not in {0, pinned} for used, pinned in zip(result.assets, pins.ids, strict=True))


def foreign_assets(result: ScoreResult, pins: Pins) -> bool:
    """Whether the row was scored with other assets than the pinned ones (the directory changed under way)."""
    return _foreign(result, pins)
