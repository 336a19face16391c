"""The learned reference that came with the recordings (`lr_tcd_inputs.json`), with its own weights, on them.

It was fitted on them, so this is its best case: what it reaches here settles by which reading of the false-alarm
budget its published figures were counted, and what a detector that has not seen the prompts may be expected to reach.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.alarms import REARM
from tcd.calibration.evaluate import Scored, realised, summarise
from tcd.calibration.steps import Steps, steps_of
from tcd.calibration.traces import load_traces
from tcd.detector.statistics import INDEX

F64 = NDArray[np.float64]
_FIRST, _LIMIT, _BLOCK = 31, 20.0, 16


def rolling(x: F64, k: int) -> F64:
    """Mean of the newest k values, or of as many as there are."""
    total = np.concatenate([np.zeros(1), np.cumsum(x)])
    after = np.arange(1, x.shape[0] + 1)
    before = np.maximum(0, after - k)
    return np.asarray((total[after] - total[before]) / (after - before))


def against_past(x: F64) -> F64:
    """Mean of the newest 16 values minus that of all before them; 0 without 16 of those."""
    total, after = np.concatenate([np.zeros(1), np.cumsum(x)]), np.arange(1, x.shape[0] + 1)
    past = np.maximum(after - _BLOCK, 1)
    return np.asarray(np.where(after >= 2 * _BLOCK, rolling(x, _BLOCK) - total[past] / past, 0.0))


def inputs(steps: Steps, extra: dict[str, F64], projection: F64) -> dict[str, F64]:
    """The reference's inputs by name, (n,) each; recurrence as tcd computes it."""
    entropy, surprisal = steps.sequence.entropy.astype(np.float64), -steps.sequence.trace.astype(np.float64)
    sigma = steps.sequence.spectrum.astype(np.float64)
    power = np.square(sigma) / np.square(sigma).sum(axis=1, keepdims=True)
    ranks, n = extra["erank_c"], entropy.shape[0]
    return {
        "sur_m16": rolling(surprisal, 16),
        "ent_m16": rolling(entropy, 16),
        "ent_m32": rolling(entropy, 32),
        "ent_sd32": np.sqrt(np.maximum(rolling(entropy**2, 32) - rolling(entropy, 32) ** 2, 0.0)),
        "res_m16": rolling(surprisal - entropy, 16),
        "rel_ent": against_past(entropy),
        "rel_sur": against_past(surprisal),
        "per_ent": steps.raw.values[:, INDEX["recurrence_entropy"]],
        "per_feat": steps.raw.values[:, INDEX["recurrence_features"]],
        "erank_c": ranks,
        "pratio_c": extra["pratio_c"],
        "spec_ent": -(power * np.log(power + 1e-12)).sum(axis=1),
        "logdet16": np.log(sigma + 1e-6).mean(axis=1),
        "log_sv1": np.log(sigma[:, 0] + 1e-6),
        "log_sv16": np.log(sigma[:, 15] + 1e-6),
        "rel_erank": ranks - np.array([ranks[: max(t - _BLOCK + 1, 1)].mean() for t in range(n)]),
        "rel_feat": np.linalg.norm([against_past(column) for column in projection.T], axis=0),
    }


def main(directory: Path) -> None:
    """Measure and print."""
    reference = json.loads((directory / "lr_tcd_inputs.json").read_bytes())
    with np.load(directory / "smollm.npz") as archive:
        offsets, projection = archive["offsets"], archive["feat"].astype(np.float64)
        columns = {name: archive[name].astype(np.float64) for name in ("erank_c", "pratio_c")}
    steps = [steps_of(s) for s in load_traces(directory).sequences]
    spans = [slice(*pair) for pair in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    parts = [
        inputs(one, {name: column[span] for name, column in columns.items()}, projection[span])
        for one, span in zip(steps, spans, strict=True)
    ]
    logit = [np.full(one.sequence.steps, float(reference["intercept"])) for one in steps]
    for name, linear, square in zip(reference["features"], reference["coef_z"], reference["coef_z2"], strict=True):
        pooled = np.concatenate([p[name][_FIRST : s.sequence.healthy] for p, s in zip(parts, steps, strict=True)])
        centre = np.median(pooled)
        scale = 1.4826 * np.median(np.abs(pooled - centre))
        for i, part in enumerate(parts):
            z = np.clip((part[name] - centre) / scale, -_LIMIT, _LIMIT)
            logit[i] += linear * z + square * z * z
    scored = []
    for one, statistic in zip(steps, logit, strict=True):
        statistic[:_FIRST] = -np.inf
        nothing = np.ones(statistic.shape[0])
        scored.append(Scored(one, statistic, nothing, 0.0, 1.0, nothing))
    summary = summarise(scored)
    for reading, rearm in (("alarms", REARM), ("steps", 0)):
        found = realised(scored, rearm)
        cells = (
            f"{kind} {found[kind]['within_32'][0]:.2f}/{found[kind]['within_64'][0]:.2f}/{found[kind]['delay']}"
            for kind in ("loop", "temperature", "severe", "mild")
        )
        sys.stdout.write(f"{reading}: {', '.join(cells)} (within 32 / within 64 / median delay)\n")
    sys.stdout.write(f"AUROC {summary['auroc']:.3f}, loops {summary['auroc_loops_greedy']:.3f}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
