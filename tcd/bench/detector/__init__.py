"""The detector on recorded generations: the measures of its targets, each with its interval, beside its peers.

Without assets every prompt is scored by a fit that has not seen it; with assets nothing is fitted for tcd, and rows
may go through a real Triton or a running shim. The table, what each part buys, and whether p-values are p-values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcd.bench.detector import ablation, budget, drift, peers, rows, validity, via
from tcd.bench.detector.recordings import Recordings, load
from tcd.bench.detector.report import markdown, plots
from tcd.calibration.evaluate import Scored
from tcd.calibration.fit import shipped_weights as weights_of_package
from tcd.calibration.options import FitOptions
from tcd.calibration.steps import training_steps
from tcd.calibration.store import load_assets
from tcd.errors import AssetError, ConfigError

__all__ = ["markdown", "measure", "plots"]

#: Shares of healthy steps at which the ROC curves are kept.
RATES: Final = np.geomspace(1e-4, 1.0, 41)
OURS: Final = "all signals"


def _peers(recordings: Recordings, folds: int, *, small: bool) -> tuple[dict[str, list[Scored]], list[str]]:
    """Peers with a statistic, and why others are missing."""
    missing: list[str] = []
    charts = dict(list(peers.CHARTS.items())[:1]) if small else peers.CHARTS
    out = {name: peers.chart(recordings, statistic) for name, statistic in charts.items()}
    if "tok" in recordings.recorded:
        out |= {name: peers.rule(recordings, statistic) for name, statistic in peers.RULES.items()}
    else:
        missing.append("rules on token ids: the recordings have none")
    for name, squares in {"logistic regression": False, "logistic regression, squares": True}.items():
        fitted = None if small and squares else peers.regression(recordings, folds, squares=squares)
        if fitted is not None:
            out[name] = fitted
        elif not squares:
            missing.append("logistic regression: a fold leaves it no faults to learn from")
    return out, missing


def _curve(scored: Sequence[Scored]) -> dict[str, Any]:
    return {"roc": budget.roc(scored, RATES)}


def _as_shipped(scored: list[Scored]) -> dict[str, Any]:
    """What the fast alarm does at the level of the assets, by either reading."""
    steps, flags = [one.steps for one in scored], [one.alarms for one in scored]
    out = {reading: budget.detection(steps, flags, rearm) for reading, rearm in budget.READINGS.items()}
    tokens = budget.healthy_tokens(steps)
    rates = {reading: budget.rate(steps, flags, rearm) for reading, rearm in budget.READINGS.items()}
    return {"healthy_tokens": tokens, "rates": rates, **out}


def _ours(recordings: Recordings, folds: int, options: FitOptions, *, small: bool) -> dict[str, list[Scored]]:
    """The detector by signal mask, cross-validated over prompts."""
    masks = {OURS: ablation.MASKS[OURS]} if small else ablation.MASKS
    return {
        name: ablation.cross_validated(recordings.steps, recordings.prompts, folds, mask, options)
        for name, mask in masks.items()
    }


def _also(options: FitOptions) -> str:
    if not options.learn:
        return ", weights as shipped"
    prompts = len({s.sequence.prompt_id for s in options.training})
    return f", weights also of {len(options.training)} generations of {prompts} other prompts" if prompts else ""


def _given(
    recordings: Recordings, folder: Path, way: str, model: str, *, small: bool
) -> tuple[dict[str, list[Scored]], dict[str, Any]]:
    """The detector by signal mask as given assets answer, the score that an answer carries; how rows were served."""
    served = via.serve(recordings.steps, folder, way, model=model)
    out = {OURS: served.scored}
    out["score of the answer"] = [
        budget.bare(steps, peers.warm(score)) for steps, score in zip(recordings.steps, served.score, strict=True)
    ]
    for name, mask in ablation.MASKS.items():
        if not small and way == "library" and name != OURS:
            under = rows.terms(load_assets(folder), model, mask)
            out[name] = [rows.as_scored(s, rows.library(s.sequence, under), under) for s in recordings.steps]
    return out, {"way": way, "given": True, "compared": served.compared, "different": served.different}


def _check(way: str, assets: Path | None) -> None:
    if way not in via.WAYS:
        msg = f"rows cannot go through {way}; {', '.join(via.WAYS)} are known"
        raise ConfigError(msg)
    if way != "library" and assets is None:
        msg = f"rows through {way} are scored by given assets: name their directory with --assets"
        raise AssetError(msg)


def _fitted(
    recordings: Recordings, folds: int, options: FitOptions, missing: list[str], *, small: bool
) -> tuple[dict[str, Any], list[Scored] | None]:
    """What needs fits of its own: ours without each component, and p-values by the wrong key."""
    components = {} if small else ablation.components(recordings, folds, options)
    foreign = validity.wrong_key(recordings)
    if foreign is None:
        missing.append("the wrong key: the recordings do not say which prompts are code, or have too few others")
    return {name: budget.row(one) for name, one in components.items()}, foreign


def _options(training: Sequence[Path], *, shipped_weights: bool) -> FitOptions:
    options = FitOptions(training=training_steps(training))
    return replace(options, weights=weights_of_package(), learn=False) if shipped_weights else options


def _river(
    recordings: Recordings, missing: list[str], *, small: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """River's detectors at their best and with their defaults, by name."""
    if small:
        missing.append("river's detectors, components left out: --small")
        return {}, {}
    families = drift.families().items()
    return (
        {name: drift.measure(recordings, family) for name, family in families},
        {name: drift.as_shipped(recordings, family) for name, family in families},
    )


def measure(
    data: Path,
    *,
    assets: Path | None = None,
    way: str = "library",
    model: str = "model0",
    folds: int = 4,
    training: Sequence[Path] = (),
    shipped_weights: bool = False,
    most: int = 0,
    small: bool = False,
) -> dict[str, Any]:
    """Measure a directory of recorded generations.

    Args:
        data: the directory.
        assets: score with these; None fits per fold, without the prompts that are scored.
        way: through what rows are scored: `library`, or with assets also `triton` and `http`.
        model: `model_id` by which the assets are found.
        folds: of the cross-validation.
        training: directories of recordings of other prompts that every fold fits its weights on too.
        shipped_weights: fit scales and tables only, as for a model whose faults nobody has recorded.
        most: sequences that are measured, 0 for all.
        small: only all signals, and the peers that take no time.

    Returns:
        `rows` (ours, then peers), `components` (ours without each), `shipped` (river with its defaults), `fast_alarm`,
        `p_values`, `missing` (what was not measured and why), `via`, and what it was measured on. Cells are
        [value, low, high].

    Raises:
        AssetError: if the data cannot be read or are too few, or the assets do not answer them.
        ConfigError: if the way is not known.
        LauncherError: if a server does not start.
        ScoringError: if a server does not answer.
    """
    _check(way, assets)
    recordings = load(data, most=most)
    options = _options(training, shipped_weights=shipped_weights)
    served: dict[str, Any] = {"way": way, "given": False, "compared": {}, "different": {}}
    if assets is None:
        ours = _ours(recordings, folds, options, small=small)
    else:
        ours, served = _given(recordings, assets, way, model, small=small)
    others, missing = _peers(recordings, folds, small=small)
    table = {name: budget.row(scored) | _curve(scored) for name, scored in (ours | others).items()}
    drifting, shipped = _river(recordings, missing, small=small)
    if assets is None:
        components, foreign = _fitted(recordings, folds, options, missing, small=small)
    else:
        components, foreign = {}, None
        missing.append("components left out, the wrong key: they need a fit, and the assets were given")
    return {
        "source": recordings.source,
        "sequences": len(recordings.steps),
        "prompts": len(recordings.prompts),
        "folds": folds,
        "scored_by": f"cross-validation over prompts{_also(options)}"
        if assets is None
        else load_assets(assets).manifest_digest,
        "via": served,
        "ours": list(ours),
        "headline": next(iter(budget.READINGS)),
        "rows": table | drifting,
        "rates": RATES.tolist(),
        "components": components,
        "shipped": shipped,
        "fast_alarm": _as_shipped(ours[OURS]),
        "p_values": validity.table(ours[OURS], recordings, foreign),
        "missing": missing,
    }
