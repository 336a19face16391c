"""Whether p-values are p-values: their share below a level on healthy text, of the right key and of a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.bench.detector.recordings import Recordings
from tcd.calibration.evaluate import Scored, evaluate_fold
from tcd.detector.blocks import TOKENS, p_value, statistic
from tcd.detector.windows import BLOCK
from tcd.errors import AssetError

F64 = NDArray[np.float64]
LEVELS: Final = (0.1, 0.05, 0.01)
_DRAWS: Final = 1000
#: Points at which a reliability curve is kept.
GRID: Final = np.geomspace(1e-3, 1.0, 31)
#: The p-values of a step that are looked at.
P_VALUES: Final[dict[str, Callable[[Scored], F64]]] = {
    "detector": lambda one: one.p,
    "merged": lambda one: one.merged,
}
_GREEDY: Final = frozenset({"greedy", "loop", "soft"})
#: The task that stands for another key: it is scored by a calibration of all other tasks.
OTHER_TASK: Final = "code"


def _lag_1(parts: Sequence[F64]) -> float | None:
    """Correlation of neighbours within sessions; None where there is nothing to correlate."""
    pairs = [np.stack([p[:-1], p[1:]]) for p in parts if p.shape[0] > 1]
    if not pairs:
        return None
    both = np.concatenate(pairs, axis=1)
    return float(np.corrcoef(both)[0, 1]) if both.shape[1] > 1 and both.std(axis=1).all() else None


def row(scored: Sequence[Scored], kinds: frozenset[str], which: Callable[[Scored], F64]) -> dict[str, Any]:
    """P(p <= a)/a of healthy steps, with the 95 % interval of a bootstrap over prompts.

    Args:
        scored: sequences.
        kinds: of the generations whose healthy steps count.
        which: p-values of a sequence, by step.

    Returns:
        `steps`, `prompts`, `sessions`; per level [ratio, low, high]; `curve`, P(p <= a) on `GRID`; `lag_1`, correlation
        of neighbouring steps; `lag_1_blocks`, that of the steps that end neighbouring blocks of 8 tokens.
    """
    parts = []
    for one in scored:
        sequence = one.steps.sequence
        if sequence.kind in kinds:
            parts.append((sequence.prompt_id, which(one)[BLOCK - 1 : max(sequence.healthy, BLOCK - 1)]))
    out = _row(parts)
    if out["steps"]:
        out["lag_1"] = _lag_1([p for _, p in parts])
        # the warm-up ends with step 15, which ends a block
        out["lag_1_blocks"] = _lag_1([p[(-BLOCK) % TOKENS :: TOKENS] for _, p in parts])
    return out


def blocks(recordings: Recordings, kinds: frozenset[str]) -> dict[str, Any]:
    """The same of the evidence of the unit `block`: one p per block of healthy text against its own past.

    Its table is the package's, the same for every key.
    """
    parts = []
    for steps in recordings.steps:
        sequence = steps.sequence
        ends = range(TOKENS, max(sequence.healthy, 0) + 1, TOKENS) if sequence.kind in kinds else ()
        found = [statistic(sequence.trace[:end], sequence.entropy[:end], 0) for end in ends]
        p = [p_value(one, both=True) for one in found if one is not None]
        parts.append((sequence.prompt_id, np.array(p)))
    out = _row(parts)
    if out["steps"]:
        out |= {"lag_1": None, "lag_1_blocks": _lag_1([p for _, p in parts])}
    return out


def _row(parts: Sequence[tuple[str, F64]]) -> dict[str, Any]:
    """What `row` answers but the correlations, of p-values by prompt and session."""
    sessions = [(prompt, p) for prompt, p in parts if p.shape[0]]
    if not sessions:
        return {"steps": 0}
    groups: dict[str, list[F64]] = {}
    for prompt, p in sessions:
        groups.setdefault(prompt, []).append(p)
    prompts = [np.concatenate(group) for group in groups.values()]
    sizes = np.array([p.shape[0] for p in prompts])
    drawn = np.random.default_rng(0).integers(len(prompts), size=(_DRAWS, len(prompts)))
    out: dict[str, Any] = {"steps": int(sizes.sum()), "prompts": len(prompts), "sessions": len(sessions)}
    for level in LEVELS:
        hits = np.array([(p <= level).sum() for p in prompts])
        ratios = hits[drawn].sum(1) / sizes[drawn].sum(1) / level
        out[str(level)] = [float(hits.sum() / sizes.sum() / level), *np.quantile(ratios, [0.025, 0.975]).tolist()]
    everything = np.sort(np.concatenate(prompts))
    out["curve"] = (everything.searchsorted(GRID, "right") / everything.shape[0]).tolist()
    return out


def wrong_key(recordings: Recordings) -> list[Scored] | None:
    """Code scored by a calibration of everything else; None where the recordings do not tell or lack either."""
    others = {task for task in recordings.tasks if task and task != OTHER_TASK}
    held_out = frozenset(
        steps.sequence.prompt_id
        for steps, task in zip(recordings.steps, recordings.tasks, strict=True)
        if task == OTHER_TASK
    )
    if not held_out or not others:
        return None
    try:
        return evaluate_fold(recordings.steps, held_out, mask=15)
    except AssetError:
        return None


def table(scored: Sequence[Scored], recordings: Recordings, foreign: Sequence[Scored] | None) -> dict[str, Any]:
    """The table of p-values.

    Args:
        scored: all sequences, by the right key.
        recordings: the same sequences with their tasks.
        foreign: those that a wrong key has scored, if any.
    """
    code = {id(s) for s, task in zip(recordings.steps, recordings.tasks, strict=True) if task == OTHER_TASK}
    healthy = frozenset({"healthy"})
    groups = {
        "right key": (scored, healthy),
        "right key, greedy or looping later": (scored, _GREEDY),
    }
    if foreign is not None:
        groups["right key, code alone"] = ([one for one in scored if id(one.steps) in code], healthy | _GREEDY)
        groups["wrong key: calibrated on prose, applied to code"] = (foreign, healthy | _GREEDY)
    out = {
        which: {name: row(part, kinds, values) for name, (part, kinds) in groups.items()}
        for which, values in P_VALUES.items()
    }
    out["block"] = {
        "any key": blocks(recordings, healthy),
        "any key, greedy or looping later": blocks(recordings, _GREEDY),
    }
    return out
