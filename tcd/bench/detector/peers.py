"""Simple peers without tcd: charts of the entropy, rules on token ids, logistic regression on raw signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.bench.detector.budget import bare
from tcd.bench.detector.recordings import Recordings
from tcd.calibration.evaluate import Scored, folds_of
from tcd.calibration.options import FitOptions
from tcd.calibration.steps import Steps
from tcd.detector.windows import BLOCK

F64 = NDArray[np.float64]
_SMOOTHING: Final = 0.1
#: Longest period of a verbatim loop that the rule looks for.
_PERIODS: Final = 96
#: Length of the n-grams of the rule of repetition, the window it looks at and the past it looks in, tokens.
_GRAM, _NEWEST, _PAST = 4, 32, 256
#: Windows of the rolling means that the regression gets, tokens.
_WINDOWS: Final = (8, 16, 32, 64)


def _chart(values: F64) -> F64:
    """EWMA of a standardised signal, two-sided."""
    out, state = np.empty(values.shape[0]), 0.0
    for i, value in enumerate(values):
        state += _SMOOTHING * (value - state)
        out[i] = abs(state)
    return out


def _cusum(values: F64) -> F64:
    """The larger of the two one-sided CUSUMs with reference value 1/2."""
    out, up, down = np.empty(values.shape[0]), 0.0, 0.0
    for i, value in enumerate(values):
        up, down = max(0.0, up + value - 0.5), max(0.0, down - value - 0.5)
        out[i] = max(up, down)
    return out


#: Chart -> its statistic of a standardised entropy.
CHARTS: Final[dict[str, Callable[[F64], F64]]] = {"entropy EWMA": _chart, "entropy CUSUM": _cusum}


def standardised(recordings: Recordings, signal: Callable[[Steps], F64]) -> list[F64]:
    """A signal by sequence, with the mean and scale of all healthy steps, unseen prompts too: a peer's advantage."""
    values = [signal(s) for s in recordings.steps]
    healthy = np.concatenate([v[: s.sequence.healthy] for v, s in zip(values, recordings.steps, strict=True)])
    mean, scale = float(healthy.mean()), float(healthy.std()) or 1.0
    return [(v - mean) / scale for v in values]


def entropy(steps: Steps) -> F64:
    """Entropy by step, nats."""
    return steps.sequence.entropy.astype(np.float64)


def warm(statistic: F64) -> F64:
    """The statistic with no say in the first 15 steps, as tcd has none."""
    statistic[: BLOCK - 1] = -np.inf
    return statistic


def chart(recordings: Recordings, statistic: Callable[[F64], F64]) -> list[Scored]:
    """A chart of the entropy, restarted at every generation."""
    values = standardised(recordings, entropy)
    return [bare(s, warm(statistic(v))) for s, v in zip(recordings.steps, values, strict=True)]


def copied(tokens: NDArray[np.generic]) -> F64:
    """Consecutive tokens up to each that equal those one period earlier, at the best period of at most 96; (n,)."""
    best = np.zeros(tokens.shape[0], np.int64)
    for period in range(1, min(_PERIODS, tokens.shape[0] - 1) + 1):
        equal = tokens[period:] == tokens[:-period]
        count = np.cumsum(equal)
        run = count - np.maximum.accumulate(np.where(equal, 0, count))
        np.maximum(best[period:], run, out=best[period:])
    return best.astype(np.float64)


def repeated(tokens: NDArray[np.generic]) -> F64:
    """Share of the newest 32 4-grams that occurred already in the 256 tokens before; (n,)."""
    seen: dict[tuple[int, ...], int] = {}
    ids = tokens.tolist()
    again = np.zeros(len(ids))
    for i in range(_GRAM - 1, len(ids)):
        gram = tuple(ids[i - _GRAM + 1 : i + 1])
        again[i] = gram in seen and i - seen[gram] <= _PAST
        seen[gram] = i
    total = np.concatenate([[0.0], np.cumsum(again)])
    ends = np.arange(1, len(ids) + 1)
    return np.asarray((total[ends] - total[np.maximum(ends - _NEWEST, 0)]) / _NEWEST)


#: Rule -> its statistic of token ids.
RULES: Final[dict[str, Callable[[NDArray[np.generic]], F64]]] = {
    "verbatim copy (token ids)": copied,
    "repeated 4-grams (token ids)": repeated,
}


def rule(recordings: Recordings, statistic: Callable[[NDArray[np.generic]], F64]) -> list[Scored]:
    """A rule on token ids."""
    pairs = zip(recordings.steps, recordings.extras, strict=True)
    return [bare(steps, warm(statistic(extras["tok"]))) for steps, extras in pairs]


def _rolling(values: F64) -> list[F64]:
    """Means over the newest 8 to 64 values, fewer at the start."""
    total, ends = np.concatenate([[0.0], np.cumsum(values)]), np.arange(1, values.shape[0] + 1)
    return [(total[ends] - total[np.maximum(ends - w, 0)]) / np.minimum(ends, w) for w in _WINDOWS]


def raw_signals(recordings: Recordings, i: int) -> F64:
    """Rolling means of a sequence's per-token signals; (n, columns)."""
    sequence, extras = recordings.steps[i].sequence, recordings.extras[i]
    signals: list[NDArray[np.generic]] = [sequence.trace, sequence.entropy]
    signals += [extras[name] for name in ("margin", "top1") if name in recordings.recorded]
    if "nuc95" in recordings.recorded:
        signals.append(np.log1p(extras["nuc95"].astype(np.float32)))
    return np.stack([mean for signal in signals for mean in _rolling(signal.astype(np.float64))], axis=1)


def regression(recordings: Recordings, folds: int, *, squares: bool = False) -> list[Scored] | None:
    """Logistic regression on rolling means, fitted without the prompts that it scores, on the same steps as tcd.

    It trains on all other prompts: it needs no conformal part.

    Args:
        recordings: what to score.
        folds: the folds of tcd's cross-validation.
        squares: also the squares of the standardised means.

    Returns:
        The scored sequences, None where a fold leaves no healthy or no faulty steps to learn from.
    """
    options = FitOptions()
    signals = [raw_signals(recordings, i) for i in range(len(recordings.steps))]
    out: list[Scored | None] = [None] * len(signals)
    for held_out in folds_of(recordings.prompts, folds):
        parts: list[F64] = []
        labels: list[bool] = []
        for steps, values in zip(recordings.steps, signals, strict=True):
            sequence = steps.sequence
            if sequence.prompt_id in held_out:
                continue
            chosen = [(values[BLOCK - 1 : max(sequence.healthy, BLOCK - 1) : options.stride], False)]
            if sequence.onset >= 0 and sequence.kind not in {"control", "healthy", "greedy"}:
                first = max(sequence.onset + options.first, BLOCK - 1)
                chosen.append((values[first : sequence.onset + options.last : options.stride], True))
            for rows, label in chosen:
                parts.append(rows)
                labels += [label] * rows.shape[0]
        if len(set(labels)) < 2:  # noqa: PLR2004 - healthy and faulty
            return None
        model = _model(squares=squares).fit(np.concatenate(parts), labels)
        for i, steps in enumerate(recordings.steps):
            if steps.sequence.prompt_id in held_out:
                out[i] = bare(steps, warm(np.asarray(model.decision_function(signals[i]), np.float64)))
    return [one for one in out if one is not None]


def _model(*, squares: bool) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    last = LogisticRegression(class_weight="balanced", solver="newton-cholesky", max_iter=200)
    if not squares:
        return make_pipeline(StandardScaler(), last)
    return make_pipeline(StandardScaler(), FunctionTransformer(_with_squares), last)


def _with_squares(z: F64) -> F64:
    return np.concatenate([z, z * z], axis=1)
