"""What the bench reads of a directory: the calibration's steps, and beside them what only its peers need."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tcd.calibration.steps import Steps, steps_of
from tcd.calibration.traces import Sequence, load_traces

#: Signals that the calibration does not read; the logits' own and the token ids.
EXTRAS: Final = ("tok", "margin", "top1", "nuc95")


@dataclass(frozen=True, slots=True)
class Recordings:
    """Scored sequences of a directory.

    Attributes:
        steps: raw statistics by sequence.
        extras: by sequence, those of `EXTRAS` that were recorded; (n,) each.
        tasks: by sequence, the task of its prompt; "" where it was not recorded.
        source: name and digest of the recordings.
    """

    steps: list[Steps]
    extras: list[dict[str, NDArray[np.generic]]]
    tasks: list[str]
    source: str

    @property
    def prompts(self) -> tuple[str, ...]:
        """Distinct prompts, ordered by name."""
        return tuple(sorted({s.sequence.prompt_id for s in self.steps}))

    @property
    def recorded(self) -> frozenset[str]:
        """Extras that every sequence has."""
        return frozenset.intersection(*(frozenset(one) for one in self.extras))


def _index(directory: Path) -> tuple[list[dict[str, Any]], Path]:
    """Rows in the order of the arrays, and the array file, of a directory that `load_traces` has taken."""
    if (directory / "index.parquet").exists():
        rows = sorted(pq.read_table(directory / "index.parquet").to_pylist(), key=lambda row: int(row["idx"]))
        return rows, directory / str(rows[0]["file"])
    path = next(path for path in directory.glob("*.json") if path.with_suffix(".npz").exists())
    return json.loads(path.read_bytes()), path.with_suffix(".npz")


def _counted(sequence: Sequence) -> Sequence:
    """The sequence with no healthy step, not less than none: a label of -1 would count nearly all from the end."""
    return sequence if sequence.healthy >= 0 else replace(sequence, healthy=0)


def load(directory: Path, *, most: int = 0) -> Recordings:
    """Read a directory of recorded generations and compute the raw statistics of every step.

    Args:
        directory: in the format of `tcd.calibration.traces`.
        most: sequences to keep, spread evenly; 0 keeps all.

    Raises:
        AssetError: if it is no such directory.
    """
    traces = load_traces(directory)
    rows, path = _index(directory)
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in EXTRAS if name in archive.files}
        offsets = archive["offsets"].astype(np.int64)
    total = len(traces.sequences)
    kept = [i * total // most for i in range(most)] if 0 < most < total else list(range(total))
    return Recordings(
        [steps_of(_counted(traces.sequences[i])) for i in kept],
        [{name: array[offsets[i] : offsets[i + 1]] for name, array in arrays.items()} for i in kept],
        [str(rows[i].get("task") or "") for i in kept],
        traces.source,
    )
