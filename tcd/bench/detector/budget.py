"""Detection at one budget of false alarms, by either way to count them, and AUROC with its interval.

`alarms`, the headline: after an alarm the next 32 steps raise no other. `steps`: every healthy step on which the alarm
sounds counts, the stricter reading, and that of the fast alarm's own level, which is a quantile of the step score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from tcd.calibration.alarms import REARM, alarm_count
from tcd.calibration.evaluate import Scored, realised
from tcd.calibration.report import interval
from tcd.calibration.steps import Steps
from tcd.detector.windows import BLOCK

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
#: Reading of the budget -> steps after an alarm in which no other counts. The first is the headline.
READINGS: Final = {"alarms": REARM, "steps": 0}
KINDS: Final = ("loop", "temperature", "severe", "mild", "shift", "soft")
#: Healthy tokens per false alarm.
TOKENS: Final = 1000
#: Steps after the onset whose statistics count as positives of an AUROC.
_POSITIVE: Final = (8, 96)
_DRAWS: Final = 1000
_LOOPING: Final = frozenset({"loop", "soft", "greedy"})


def bare(steps: Steps, statistic: F64) -> Scored:
    """A peer's statistic of a sequence; it has no p-values."""
    ones = np.ones(statistic.shape[0])
    return Scored(steps=steps, statistic=statistic, merged=ones, level=0.0, session_p=1.0, p=ones)


def healthy_tokens(steps: Sequence[Steps]) -> int:
    """Healthy steps past the warm-up: what false alarms are counted over, for every row alike."""
    return sum(max(0, s.sequence.healthy - (BLOCK - 1)) for s in steps)


def sounded(steps: Sequence[Steps], flags: Sequence[Bool], rearm: int) -> int:
    """Alarms on healthy steps; one holds its successors back for `rearm` steps."""
    return sum(alarm_count(flag[: one.sequence.healthy], rearm) for one, flag in zip(steps, flags, strict=True))


def delays(steps: Sequence[Steps], flags: Sequence[Bool], kind: str) -> F64:
    """Steps from the onset of each fault of a kind to the first alarm after it, infinity when there is none."""
    out = []
    for one, flag in zip(steps, flags, strict=True):
        sequence = one.sequence
        if sequence.kind == kind and 0 <= sequence.onset < sequence.steps:
            after = np.flatnonzero(flag[sequence.onset :])
            out.append(float(after[0]) if after.shape[0] else np.inf)
    return np.array(out)


def median_interval(values: F64) -> list[float | None]:
    """Interval of the median between two order statistics, at least 95 % for any law; None is infinity."""
    n = values.shape[0]
    ordered = np.sort(values)
    # so few below the median with probability at most 1/40
    outside = int(binom.ppf(0.025, n, 0.5)) - 1
    ends = (ordered[outside], ordered[n - 1 - outside]) if outside >= 0 else (0.0, np.inf)
    return [float(end) if np.isfinite(end) else None for end in ends]


def rate(steps: Sequence[Steps], flags: Sequence[Bool], rearm: int) -> list[float]:
    """False alarms per 1,000 healthy tokens, with the 95 % interval of a bootstrap over prompts."""
    parts: dict[str, list[int]] = {}
    for one, flag in zip(steps, flags, strict=True):
        part = parts.setdefault(one.sequence.prompt_id, [0, 0])
        part[0] += sounded([one], [flag], rearm)
        part[1] += healthy_tokens([one])
    alarms, tokens = np.array(list(parts.values())).T
    drawn = np.random.default_rng(0).integers(len(parts), size=(_DRAWS, len(parts)))
    rates = alarms[drawn].sum(1) / np.maximum(tokens[drawn].sum(1), 1)
    found = [alarms.sum() / max(tokens.sum(), 1), *np.quantile(rates, [0.025, 0.975])]
    return [TOKENS * float(one) for one in found]


def detection(steps: Sequence[Steps], flags: Sequence[Bool], rearm: int) -> dict[str, Any]:
    """What alarms are worth.

    Returns:
        `per_1000` false alarms per 1,000 healthy tokens; per kind `n`, `within_32` and `within_64` as
        [share, low, high] (95 % Clopper-Pearson over generations), `delay` (median, None for infinite),
        `delay_interval` (95 %) and `delays` (sorted, the finite ones).
    """
    out: dict[str, Any] = {"per_1000": TOKENS * sounded(steps, flags, rearm) / max(healthy_tokens(steps), 1)}
    for kind in KINDS:
        found = delays(steps, flags, kind)
        if not found.shape[0]:
            continue
        n, median = int(found.shape[0]), float(np.median(found))
        out[kind] = {
            "n": n,
            "delay": median if np.isfinite(median) else None,
            "delay_interval": median_interval(found),
            "delays": np.sort(found[np.isfinite(found)]).astype(int).tolist(),
        }
        for horizon in (32, 64):
            hits = int((found <= horizon).sum())
            out[kind][f"within_{horizon}"] = [hits / n, *interval(hits, n)]
    return out


def at_budget(scored: list[Scored]) -> dict[str, Any]:
    """Detection by either reading, each at the threshold that realises the budget on these healthy tokens."""
    steps = [one.steps for one in scored]
    out = {}
    for reading, rearm in READINGS.items():
        threshold = realised(scored, rearm, tokens=TOKENS)["threshold"]
        out[reading] = {
            "threshold": threshold,
            **detection(steps, [one.statistic > threshold for one in scored], rearm),
        }
    return out


def _sides(scored: Sequence[Scored], kinds: frozenset[str], against: frozenset[str] | None) -> dict[str, list[F64]]:
    """Prompt -> statistics of faulty and of healthy steps."""
    parts: dict[str, tuple[list[F64], list[F64]]] = {}
    for one in scored:
        sequence = one.steps.sequence
        positive, negative = parts.setdefault(sequence.prompt_id, ([np.zeros(0)], [np.zeros(0)]))
        if sequence.kind in kinds and sequence.onset >= 0:
            first = max(sequence.onset + _POSITIVE[0], BLOCK - 1)
            positive.append(one.statistic[first : sequence.onset + _POSITIVE[1]])
        if against is None or sequence.kind in against:
            negative.append(one.statistic[BLOCK - 1 : max(sequence.healthy, BLOCK - 1)])
    return {prompt: [np.concatenate(side) for side in sides] for prompt, sides in parts.items()}


def auroc(scored: Sequence[Scored], *, loops: bool = False) -> list[float] | None:
    """AUROC with the 95 % interval of a bootstrap over prompts; None when a side is empty.

    Args:
        scored: sequences.
        loops: verbatim loops against the healthy steps of greedy and looping generations, not all against all.
    """
    kinds, against = (frozenset({"loop"}), _LOOPING) if loops else (frozenset(KINDS), None)
    sides = list(_sides(scored, kinds, against).values())
    sizes = np.array([[side.shape[0] for side in both] for both in sides], np.float64)
    if not sizes.sum(0).all():
        return None
    wins = np.zeros((len(sides), len(sides)))
    for j, (_, negative) in enumerate(sides):
        ordered = np.sort(negative)
        for i, (positive, _) in enumerate(sides):
            below = ordered.searchsorted(positive, "left") + ordered.searchsorted(positive, "right")
            wins[i, j] = below.sum() / 2
    weights = np.random.default_rng(0).multinomial(len(sides), np.full(len(sides), 1 / len(sides)), size=_DRAWS)
    pairs = (weights @ sizes[:, 0]) * (weights @ sizes[:, 1])
    drawn = ((weights @ wins) * weights).sum(1)[pairs > 0] / pairs[pairs > 0]
    return [float(wins.sum() / sizes.sum(0).prod()), *np.quantile(drawn, [0.025, 0.975]).tolist()]


def row(scored: list[Scored]) -> dict[str, Any]:
    """One row of the table: detection by either reading, and both AUROCs."""
    return {
        **at_budget(scored),
        "auroc": auroc(scored),
        "auroc_loops_greedy": auroc(scored, loops=True),
    }


def roc(scored: Sequence[Scored], rates: F64) -> list[float]:
    """Share of faulty steps above the threshold that such a share of healthy steps exceeds, per rate.

    Between the thresholds that ties leave, linear.
    """
    sides = list(_sides(scored, frozenset(KINDS), None).values())
    positive, negative = (np.concatenate([both[i] for both in sides]) for i in (0, 1))
    if not positive.shape[0] or not negative.shape[0]:
        return []
    thresholds = np.unique(np.concatenate([negative, positive]))[::-1]
    false, true = (
        1.0 - np.sort(side).searchsorted(thresholds, "right") / side.shape[0] for side in (negative, positive)
    )
    # at no threshold at all every step is above it
    return [float(share) for share in np.interp(rates, np.append(false, 1.0), np.append(true, 1.0))]
