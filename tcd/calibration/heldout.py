"""What assets do on sessions that their fit has not seen: coverage by key and by session, delays, forms of p."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from tcd.calibration import report
from tcd.calibration.assets import AssetSet, DetectorAsset, Match
from tcd.calibration.conditional import conditional_table, smoothed_p, weighted_p
from tcd.calibration.conformal import p_value, session_p
from tcd.calibration.evaluate import Scored, fault_delays, healthy_p, score_sequence, summarise
from tcd.calibration.steps import Steps
from tcd.calibration.traces import Key
from tcd.errors import AssetError
from tcd.routing import DEFAULT_POLICY

F64 = NDArray[np.float64]
SCHEMA: Final = "tcd-evaluation-1"
LEVELS: Final = (0.01, 0.05, 0.1, 0.2)
#: Probability with which a valid calibration shows a larger one-sided KS distance by chance.
_CHANCE: Final = 0.05
#: Confidence of the calibration-conditional form beside the others.
_DELTA: Final = 0.01
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """A held-out sequence and what answered it."""

    scored: Scored
    key: Key
    match: Match
    detector: DetectorAsset
    mask: int


def judge(steps: list[Steps], assets: AssetSet, *, asked: Key | None = None) -> list[Judged]:
    """Score sequences with the assets that would answer their keys.

    Args:
        steps: sequences that no asset has seen.
        assets: the set.
        asked: key of sequences that name none.

    Raises:
        AssetError: no asset answers a key or its signals.
    """
    out = []
    weight = (assets.policy(0) or DEFAULT_POLICY).weight
    for one in steps:
        key = one.sequence.key or asked
        if key is None:
            msg = "the recordings do not say whose generations they are: name their key"
            raise AssetError(msg)
        wire = (key.value(0), key.value(1), key.value(2))
        detector, match = assets.detector_match(wire)
        monitor, _ = assets.multivariate_match(wire)
        mask = one.sequence.signals
        if detector is None or mask not in detector.masks:
            msg = f"no calibration for {'/'.join(key)} with signal mask {mask}"
            raise AssetError(msg)
        usable = monitor if monitor is not None and monitor.features == one.sequence.features.shape[1] else None
        out.append(Judged(score_sequence(one, detector, usable, mask, weight=weight), key, match, detector, mask))
    return out


def _whole(judged: list[Judged]) -> list[Judged]:
    return [one for one in judged if one.scored.steps.sequence.complete and np.isfinite(one.scored.maximum)]


def chance(hits: int, n: int, level: float, calibration: int) -> float:
    """Chance of at least so many of n new sessions at a level, over calibration sets and sessions, when all is right.

    Given a set of m sessions the rate of a marginal p-value at most a level is Beta(k, m + 1 - k), with
    k = floor(level (m + 1)): the number of hits is beta-binomial. (Bates et al., Annals of Statistics 51, 2023.)
    """
    k = math.floor(level * (calibration + 1) + 1e-9)
    if k < 1:
        return 1.0 if not hits else 0.0
    return float(betabinom.sf(hits - 1, n, k, calibration + 1 - k)) if hits else 1.0


def shares(p: F64, calibration: int | None = None) -> dict[str, dict[str, float]]:
    """Per level: how many p-values are at most it, their share, its 95 % Clopper-Pearson interval.

    With the size of the calibration also the `chance` of so many.
    """
    out = {}
    for level in LEVELS:
        hits, n = int((p <= level).sum()), int(p.shape[0])
        low, high = report.interval(hits, n)
        entry = {"hits": hits, "n": n, "share": hits / n, "low": low, "high": high}
        if calibration is not None:
            entry["chance"] = chance(hits, n, level, calibration)
        out[str(level)] = entry
    return out


def ks_limit(n: int, calibration: int) -> float:
    """One-sided two-sample KS distance that chance exceeds in one of twenty valid calibrations (Smirnov's limit)."""
    return math.sqrt(-math.log(_CHANCE) / 2 * (1 / n + 1 / max(calibration, 1)))


def _session_entry(judged: list[Judged]) -> dict[str, Any]:
    """Session-level coverage of some sequences, as served."""
    whole = _whole(judged)
    p = np.array([one.scored.hypothesis_p for one in whole])
    out: dict[str, Any] = {"sessions": len(whole)}
    if whole:
        calibration = min(one.detector.masks[one.mask].sessions.shape[0] for one in whole)
        out |= {"calibration_sessions": calibration, "ks_one_sided": report.ks_one_sided(p)}
        out |= {"ks_limit": ks_limit(len(whole), calibration), "p_at_most": shares(p, calibration)}
    return out


def by_key(judged: list[Judged]) -> list[dict[str, Any]]:
    """Coverage per key: which assets answered, step p-values, sessions."""
    groups: dict[tuple[Key, int, bool], list[Judged]] = {}
    for one in judged:
        groups.setdefault((one.key, one.match.level, one.match.fallback), []).append(one)
    return [
        {
            "key": "/".join(key),
            "level": level,
            "fallback": fallback,
            "steps": report.coverage([p for parts in healthy_p([o.scored for o in group]).values() for p in parts]),
            "session": _session_entry(group),
        }
        for (key, level, fallback), group in sorted(groups.items())
    ]


def forms(judged: list[Judged], calibration: Mapping[str, tuple[F64, F64]]) -> dict[str, F64]:
    """p-values of the detector's session maximum in every form; sessions of fall-backs are left out.

    Args:
        judged: held-out sequences.
        calibration: per detector digest, (n,) maxima of its conformal sessions, ascending, and their weights; without
            an entry the asset's table counts, and no weighted form is made.
    """
    out: dict[str, list[float]] = {"marginal": [], f"conditional, delta {_DELTA}": [], "smoothed": []}
    weighted: list[float] = []
    rng = np.random.default_rng(_SEED)
    whole = [one for one in _whole(judged) if not one.match.fallback]
    for one in whole:
        table = one.detector.masks[one.mask].sessions
        top = np.array([one.scored.maximum])
        values = (
            p_value(table, top),
            session_p(table, conditional_table(table.shape[0], delta=_DELTA), top),
            smoothed_p(table, top, rng.uniform(size=1)),
        )
        for name, value in zip(out, values, strict=True):
            out[name].append(float(value[0]))
        known = calibration.get(one.detector.digest)
        if known is not None:
            own = np.array([one.scored.steps.sequence.weight])
            weighted.append(float(weighted_p(known[0], known[1], top, own)[0]))
    if whole and len(weighted) == len(whole):
        out["weighted"] = weighted
    return {name: np.array(values) for name, values in out.items()}


def weights_of(conformal: list[Judged]) -> dict[str, tuple[F64, F64]]:
    """Maxima and weights of conformal sessions by detector digest, where any weight is not 1."""
    found: dict[str, list[tuple[float, float]]] = {}
    for one in _whole(conformal):
        if not one.match.fallback:
            found.setdefault(one.detector.digest, []).append((one.scored.maximum, one.scored.steps.sequence.weight))
    if all(weight == 1.0 for pairs in found.values() for _, weight in pairs):
        return {}
    tables = {digest: np.array(sorted(pairs)) for digest, pairs in found.items()}
    return {digest: (table[:, 0], table[:, 1]) for digest, table in tables.items()}


def evaluate(
    steps: list[Steps],
    assets: AssetSet,
    *,
    source: str,
    asked: Key | None = None,
    conformal: list[Steps] | None = None,
) -> tuple[dict[str, Any], str]:
    """The evaluation of assets on sequences that their fit has not seen.

    Args:
        steps: the sequences.
        assets: what is evaluated.
        source: name and digest of the log that the sequences are of.
        asked: key of sequences that name none.
        conformal: sequences of the conformal part, for the weighted form.

    Returns:
        The numbers (`docs/calibration.md` describes them), and the page.

    Raises:
        AssetError: there are no sequences, or no asset answers one.
    """
    if not steps:
        msg = "no sessions to evaluate on"
        raise AssetError(msg)
    judged = judge(steps, assets, asked=asked)
    scored = [one.scored for one in judged]
    weights = weights_of(judge(conformal, assets, asked=asked)) if conformal else {}
    variants = forms(judged, weights)
    groups = {name: parts for name, parts in healthy_p(scored).items() if parts}
    delays = fault_delays(scored)
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "source": source,
        "assets": assets.manifest_digest,
        "demo": any(one.detector.provenance.demo for one in judged),
        "confidence": assets.confidence,
        "sequences": len(judged),
        "prompts": len({one.scored.steps.sequence.prompt_id for one in judged}),
        "session": _session_entry([one for one in judged if not one.match.fallback]),
        "forms": {name: shares(p) for name, p in variants.items() if p.shape[0]},
        "keys": by_key(judged),
        "p_values": {name: report.coverage(parts) for name, parts in groups.items()},
        "detection": summarise(scored),
    }
    served = np.array([one.scored.hypothesis_p for one in _whole(judged) if not one.match.fallback])
    found = report.plain(found)
    return found, report.page(found, groups, delays, {"as served": served, **variants})
