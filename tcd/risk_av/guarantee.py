"""The claim in force, as text; resolution of a calibration; length of an epoch that it can carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from tcd.risk_av.params import RuleName

Unit = Literal["session", "request", "block"]
Mode = Literal["prds", "csu", "model_based", "empirical"]
#: Levels at the start of an epoch are at least this many times the smallest p-value.
RESOLUTION: Final = 5.0
_SLACK: Final = 1e-9
#: Rules whose theorems need independent p-values: they are never more than empirical here.
_INDEPENDENT: Final = frozenset({"saffron", "addis"})


def _claim(rule: str, alpha: float, mode: Mode, confidence: float | None) -> tuple[str, str]:
    """What is claimed at the head of the string, and on which ground at its end."""
    if mode in {"model_based", "empirical"}:
        heads = {"rai": "supfdr", "e_lond": "fdr", "alpha_spending": "fwer"}
        return f"{heads.get(rule, 'fdr')}<={alpha!r}", mode
    if rule in _INDEPENDENT:
        return f"target={alpha!r}", "empirical|independent p-values only"
    ground = "prds|marginal" if mode == "prds" else f"csu|confidence={confidence!r}"
    if rule == "rai":
        return f"supfdr<={alpha!r}", ground
    if rule == "alpha_spending":
        # a union bound needs each p-value's own validity, nothing about their dependence
        return f"fwer<={alpha!r}", "marginal" if mode == "prds" else ground
    if rule == "e_lond":
        return f"fdr<={alpha!r}", "any dependence|marginal" if mode == "prds" else f"any dependence|{ground}"
    if mode == "csu":
        return f"mfdr<={alpha!r}", ground
    return f"target={alpha!r}", "empirical|dependent p-values"


def guarantee(
    *,
    alpha: float,
    unit: Unit,
    epoch: int,
    calibration: str,
    mode: Mode,
    confidence: float | None = None,
    rule: RuleName = "rai",
    reasons: Sequence[str] = (),
) -> str:
    """The `guarantee` of an answer and its receipt.

    Args:
        alpha: claim level of the epoch (`StreamView.claim_level`).
        unit: unit of the hypothesis.
        epoch: the claim is about this epoch alone.
        calibration: digest of the calibration, `sha256:` and 64 hex digits.
        mode: `prds` (marginal conformal p-values of independent sessions), `csu` (calibration-conditional
            p-values, needs `confidence`), `model_based` or `empirical`.
        confidence: 1 - delta of mode `csu`, in (0, 1).
        rule: whose theorem the claim rests on: `rai` SupFDR, `alpha_spending` FWER, `e_lond` FDR under any
            dependence, `lord` and `foster_stine` mFDR with `csu` p-values and a mere target otherwise, `saffron`
            and `addis` a target ("independent p-values only").
        reasons: why there is no guarantee; any reason makes it `none (reason; ...)`.

    Raises:
        ValueError: a `csu` claim without its confidence, or a confidence for another mode.
    """
    if reasons:
        return f"none ({'; '.join(reasons)})"
    if (mode == "csu") is (confidence is None) or (confidence is not None and not 0.0 < confidence < 1.0):
        msg = f"mode {mode} with confidence {confidence}"
        raise ValueError(msg)
    claimed, ground = _claim(rule, alpha, mode, confidence)
    named = "" if rule == "rai" else f"|rule={rule}"
    return f"{claimed}|unit={unit}|epoch={epoch}|calibration={calibration}{named}|{ground}"


def merged_p_floor(*, detector: float | None, multivariate: float | None, weight: float = 0.5) -> float:
    """Smallest p-value that the merge of the monitors can give: min(detector/w, multivariate/(1-w)), at most 1.

    Args:
        detector: smallest p-value of the detector's calibration, 1/(n+1) or the calibration-conditional one;
            None when it is absent.
        multivariate: the same of the multivariate monitor.
        weight: w, the detector's merge weight in [0, 1]; a monitor of weight 0 is left out.
    """
    if not 0.0 <= weight <= 1.0:
        msg = f"weight {weight!r} is outside [0, 1]"
        raise ValueError(msg)
    floors = [
        floor / share
        for floor, share in ((detector, weight), (multivariate, 1.0 - weight))
        if floor is not None and share > 0.0
    ]
    return min(1.0, *floors) if floors else 1.0


def epoch_length_auto(alpha: float, p_floor: float) -> int:
    """Reservations per epoch that the resolution allows: floor(alpha / (5 p_floor)).

    0 means: the calibration is too small; run with length 1 and `none (calibration too small)`.

    Raises:
        ValueError: if `alpha` or `p_floor` is outside (0, 1].
    """
    if not 0.0 < alpha <= 1.0 or not 0.0 < p_floor <= 1.0:
        msg = f"alpha {alpha!r} or p_floor {p_floor!r} is outside (0, 1]"
        raise ValueError(msg)
    return math.floor(alpha / (RESOLUTION * p_floor) * (1.0 + _SLACK))


def sessions_needed(length: int, alpha: float, *, weight: float = 1.0, inflation: float = 1.0) -> int:
    """Calibration sessions that an epoch of `length` reservations needs.

    Args:
        length: reservations per epoch.
        alpha: budget of the epoch.
        weight: merge weight of the monitor with the coarsest p-value.
        inflation: factor of calibration-conditional p-values at the floor (8.0 at n = 1000), 1 for marginal ones.
    """
    return math.ceil(RESOLUTION * length * inflation / (alpha * weight) * (1.0 - _SLACK)) - 1


def check_epoch_length(length: int, alpha: float, p_floor: float) -> None:
    """Refuse a configured epoch length that the calibration cannot carry.

    Raises:
        ValueError: says how many calibration sessions it would need.
    """
    allowed = epoch_length_auto(alpha, p_floor)
    if length > max(1, allowed):
        needed = math.ceil(RESOLUTION * length * p_floor / alpha * (1.0 - _SLACK))
        msg = (
            f"epoch length {length}: p_floor {p_floor:.3g} carries {allowed} at alpha {alpha:g}; "
            f"it needs about {needed} times as many calibration sessions "
            f"({sessions_needed(length, alpha)} for one monitor with marginal p-values)"
        )
        raise ValueError(msg)
