"""Trajectories scored by a judge at every step: reading them, and a synthetic set with known labels.

Format: one CSV, plain or gzip, per data set with the columns `traj,num_steps,judge_probability,solved`; one row per
step, steps of a trajectory in order from 1, `solved` the same in all its rows.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.errors import AssetError

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Index = NDArray[np.int64]

COLUMNS: Final = ("traj", "num_steps", "judge_probability", "solved")
#: Fewer sessions of either label than this cannot be split three ways.
MIN_LABEL: Final = 50


@dataclass(frozen=True, slots=True)
class Sessions:
    """n sessions of at most T steps.

    Attributes:
        name: of the data set.
        scores: (n, T) the judge's probability that the step is right, NaN after a session's end.
        length: (n,) steps of each session, at least 1.
        solved: (n,) the final label; a solved session is benign, and triggering on it is a false alarm.
    """

    name: str
    scores: F64
    length: Index
    solved: Bool

    def take(self, rows: Index) -> Sessions:
        """The sessions `rows`."""
        return Sessions(self.name, self.scores[rows], self.length[rows], self.solved[rows])

    def __len__(self) -> int:
        """Number of sessions."""
        return int(self.length.shape[0])


def of_rows(name: str, rows: list[tuple[int, int, float, int]]) -> Sessions:
    """Sessions from rows of (trajectory, step, probability, solved).

    Raises:
        AssetError: steps out of order, a score outside [0, 1], a label that changes, or too few of one label.
    """
    table = np.array(rows, np.float64).reshape(-1, 4)
    trajectory, step, score, label = table[:, 0], table[:, 1].astype(np.int64), table[:, 2], table[:, 3]
    first = np.flatnonzero(step == 1)
    starts_session = np.ones(len(table), np.bool_)
    starts_session[1:] = trajectory[1:] != trajectory[:-1]
    counted = np.arange(len(table)) - np.maximum.accumulate(np.where(starts_session, np.arange(len(table)), 0)) + 1
    labels = label[starts_session]
    session = np.cumsum(starts_session) - 1
    checks = {
        "steps of a trajectory must be 1, 2, ... in order": bool((step == counted).all()),
        "a trajectory occurs twice": len(first) == len(np.unique(trajectory)),
        "judge_probability must be in [0, 1]": bool(((score >= 0.0) & (score <= 1.0)).all()),
        "solved must be 0 or 1 and the same in all steps": bool(
            np.isin(label, (0.0, 1.0)).all() and (label == labels[session]).all()
        ),
        f"at least {MIN_LABEL} sessions of each label expected": min(int((labels == 0).sum()), int((labels == 1).sum()))
        >= MIN_LABEL,
    }
    wrong = [text for text, fine in checks.items() if not fine]
    if wrong:
        msg = f"{name}: {'; '.join(wrong)}"
        raise AssetError(msg)
    length = np.bincount(session).astype(np.int64)
    scores = np.full((len(length), int(length.max())), np.nan)
    scores[session, step - 1] = score
    return Sessions(name, scores, length, labels == 1.0)


def load(path: Path) -> Sessions:
    """One data set.

    Raises:
        AssetError: the file cannot be read, or is not what the format says.
    """
    name = path.name.split(".")[0]
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != COLUMNS:
                msg = f"{path.name}: columns {','.join(COLUMNS)} expected"
                raise AssetError(msg)
            rows = [(int(t), int(s), float(p), int(y)) for t, s, p, y in reader]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, ValueError, csv.Error) as error:
        msg = f"{path.name}: {error}"
        raise AssetError(msg) from error
    return of_rows(name, rows)


def load_all(directory: Path) -> list[Sessions]:
    """All data sets of a directory, in the order of their names.

    Raises:
        AssetError: there is none, or one cannot be read.
    """
    paths = sorted([*directory.glob("*.csv"), *directory.glob("*.csv.gz")])
    if not paths:
        msg = f"no .csv or .csv.gz in {directory.name}"
        raise AssetError(msg)
    return [load(path) for path in paths]


def synthetic(n: int, seed: int, *, steps: int = 12, shift: float = 2.0, name: str = "synthetic") -> Sessions:
    """Sessions whose scores are correlated in time, and lower from a random step on when they will fail.

    Unlike real ones, judges' errors here are Gaussian on the logit and lengths do not depend on the label.
    """
    rng = np.random.default_rng(seed)
    solved = rng.random(n) < 0.6  # noqa: PLR2004 - the share of benign sessions
    length = rng.integers(2, steps + 1, n)
    noise = rng.standard_normal((n, steps))
    for t in range(1, steps):
        noise[:, t] = 0.7 * noise[:, t - 1] + np.sqrt(1.0 - 0.49) * noise[:, t]
    onset = rng.integers(0, length)
    late = np.arange(steps) >= onset[:, None]
    logit = 2.0 + noise - shift * (late & ~solved[:, None])
    scores = 1.0 / (1.0 + np.exp(-logit))
    scores[np.arange(steps) >= length[:, None]] = np.nan
    return Sessions(name, scores, length.astype(np.int64), solved)
