"""Recorded generations with per-step signals and labels: reading a directory, and replaying one as batches.

Format: a `.npz` of flat arrays over all steps with `offsets`, and beside it `index.parquet`, or a `.json` of the
same name, with one row per sequence (regime, cp, onsets, prompt_id).
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tcd.calibration.codec import digest_of
from tcd.contract import MAX_FEATURE_ROWS, MAX_FEATURE_VALUES, Length, Signal, detector_key
from tcd.errors import AssetError

F32 = NDArray[np.float32]

#: Corruptions that had no visible effect: a null control, neither healthy nor faulty.
_NULL_CONTROLS: Final = ("bitflip:4",)
#: Column of nucleus sizes; older recordings have none.
_NUCLEUS: Final = "nuc95"


class Key(NamedTuple):
    """The parts of a detector key; `bucket` is that of the temperature."""

    model_id: str
    gpu_id: str
    task: str
    lang: str
    bucket: str

    def at(self, level: int) -> tuple[str, ...]:
        """The parts that count at a level: 0 all, 1 all but the bucket, 2 the model."""
        return self[: (5, 4, 1)[level]]

    def value(self, level: int) -> int:
        """The key on the wire at a level."""
        return detector_key(*self)[level]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One recorded generation of n steps. A signal that was not recorded has no columns, or no entries.

    Attributes:
        prompt_id: what data are split by.
        kind: `healthy`, `greedy`, `loop` (verbatim), `soft` (loop), `temperature`, `shift`, `severe`, `mild` or
            `control`.
        trace: (n,) log-probabilities.
        entropy: (n,) nats, or (0,).
        spectrum: (n, 16) singular values, or more, or (n, 0).
        features: (n, d) feature vectors, or (n, 0).
        healthy: steps before this one are healthy and not a copy of another sequence's; 0 for none.
        onset: step at which the fault starts, -1 when there is none.
        complete: whether it is a whole benign session, as seen by a session maximum.
        session: its name in the log; empty in recordings.
        key: whose generation it is; None where the log does not say.
        weight: its likelihood ratio under the traffic to come.
        nucleus: whether the last feature is the log of the nucleus size, as `tcd.signals` sends it.
    """

    prompt_id: str
    kind: str
    trace: F32
    entropy: F32
    spectrum: F32
    features: F32
    healthy: int
    onset: int
    complete: bool
    session: str = ""
    key: Key | None = None
    weight: float = 1.0
    nucleus: bool = True

    @property
    def steps(self) -> int:
        """Number of steps n."""
        return int(self.trace.shape[0])

    @property
    def signals(self) -> int:
        """Mask of the signals that it carries."""
        there = (self.trace, self.entropy, self.spectrum, self.features)
        return sum(int(signal) for signal, array in zip(Signal, there, strict=True) if array.size)


@dataclass(frozen=True, slots=True)
class Traces:
    """All sequences of a directory, and a name and digest of where they come from."""

    sequences: tuple[Sequence, ...]
    source: str

    @property
    def prompts(self) -> tuple[str, ...]:
        """Distinct prompts, ordered by name."""
        return tuple(sorted({s.prompt_id for s in self.sequences}))


def _loops(row: dict[str, Any]) -> tuple[str, int, int]:
    """Kind of loop (`loop` verbatim, `soft`, or none), its onset, and the first step of either; -1 for none."""
    verbatim, soft = int(row["loop_onset"]), int(row["soft_onset"])
    first = min((onset for onset in (verbatim, soft) if onset >= 0), default=-1)
    if verbatim >= 0:
        return "loop", verbatim, first
    return ("soft", soft, first) if soft >= 0 else ("", -1, -1)


def _corrupted(row: dict[str, Any]) -> str:
    if row["corruption"] in _NULL_CONTROLS:
        return "control"
    name, _, strength = str(row["corruption"]).partition(":")
    severe = name == "quantg" or (name == "noise" and float(strength) >= 0.2)  # noqa: PLR2004 - relative noise
    return "severe" if severe else "mild"


def _label(row: dict[str, Any], steps: int) -> tuple[str, int, int, bool]:
    """Kind, first step that is not healthy, onset, complete."""
    loop, onset, first = _loops(row)
    change, regime = int(row["cp"]), str(row["regime"])
    until = steps if first < 0 else first
    if regime == "corrupt":
        return _corrupted(row), 0, change, False
    if regime in {"tempblow", "shift"} and change >= 0:
        kind = "temperature" if regime == "tempblow" else "shift"
        return kind, min(until, change), change, False
    if regime == "cooldown":
        return loop or "control", until if change < 0 else min(until, change), onset, False
    greedy = regime == "lowtemp"
    return loop or ("greedy" if greedy else "healthy"), until, onset, not (greedy and loop)


def _sequence(row: dict[str, Any], arrays: dict[str, NDArray[np.generic]], start: int, stop: int) -> Sequence:
    kind, healthy, onset, complete = _label(row, stop - start)

    def part(name: str) -> F32:
        return arrays[name][start:stop].astype(np.float32)

    features = part("feat")
    if _NUCLEUS in arrays:
        # as a caller sends it: recordings have the whole projection
        features[:, -1] = np.log(np.maximum(part(_NUCLEUS), 1.0))

    return Sequence(
        prompt_id=str(row["prompt_id"]),
        kind=kind,
        trace=np.minimum(part("lp"), 0.0),
        entropy=np.maximum(part("ent"), 0.0),
        spectrum=np.maximum(part("sv"), 0.0),
        features=features,
        healthy=healthy,
        onset=onset,
        complete=complete,
        nucleus=_NUCLEUS in arrays,
    )


def _index(directory: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    """Rows in the order of the arrays, and the array file."""
    if (directory / "index.parquet").exists():
        rows = pq.read_table(directory / "index.parquet").to_pylist()
        rows.sort(key=lambda row: int(row["idx"]))
        return rows, [directory / str(rows[0]["file"])]
    pairs = [path for path in sorted(directory.glob("*.json")) if path.with_suffix(".npz").exists()]
    if len(pairs) != 1:
        msg = f"{directory.name}: neither index.parquet nor exactly one .json with its .npz"
        raise AssetError(msg)
    return json.loads(pairs[0].read_bytes()), [pairs[0].with_suffix(".npz")]


def _refuse(rows: list[dict[str, Any]], arrays: dict[str, NDArray[np.generic]], offsets: NDArray[np.int64]) -> None:
    """Refuse recordings that would spoil a calibration silently.

    Raises:
        AssetError: if there are none, models are mixed, a signal is not finite, or a session is there twice.
    """
    models = sorted({str(row["model"]) for row in rows if row.get("model")})
    problem = ""
    if not rows:
        problem = "no sequences"
    elif len(models) > 1:
        problem = f"generations of several models: {', '.join(models[:4])}; fit one key at a time"
    elif offsets[0] != 0 or (np.diff(offsets) < 1).any() or offsets[-1] != arrays["lp"].shape[0]:
        problem = "offsets do not cut the arrays into sequences"
    for name, array in arrays.items():
        if not problem and not np.isfinite(array.astype(np.float64)).all():
            problem = f"{name}: a NaN or infinity"
    seen: dict[bytes, int] = {}
    for i in range(len(rows) if not problem else 0):
        part = slice(int(offsets[i]), int(offsets[i + 1]))
        content = arrays["lp"][part].tobytes() + arrays["feat"][part].tobytes()
        first = seen.setdefault(content, i)
        # greedy generation repeats itself
        if first != i and rows[i]["regime"] != "lowtemp":
            problem = f"sequences {first} and {i} are the same session: a copy would count as a second witness"
            break
    if problem:
        raise AssetError(problem)


def load_traces(directory: Path) -> Traces:
    """Read a directory of recorded generations.

    Raises:
        AssetError: if it is not one.
    """
    try:
        rows, (path,) = _index(directory)
        data = path.read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("lp", "ent", "sv", "feat", "offsets")}
            arrays |= {name: archive[name] for name in (_NUCLEUS,) if name in archive.files}
        offsets = arrays.pop("offsets").astype(np.int64)
        if len(rows) != offsets.shape[0] - 1:
            msg = f"{len(rows)} index rows, {offsets.shape[0] - 1} sequences"
            raise AssetError(msg)
        _refuse(rows, arrays, offsets)
        sequences = tuple(_sequence(row, arrays, int(offsets[i]), int(offsets[i + 1])) for i, row in enumerate(rows))
    except (OSError, KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile, pa.ArrowException) as error:
        msg = f"{directory.name}: not a directory of traces: {type(error).__name__}: {error}"
        raise AssetError(msg) from error
    return Traces(sequences, f"{path.name} {digest_of(data)}")


def replay(sequence: Sequence, start: int, stop: int) -> dict[str, NDArray[np.generic]]:
    """TRACE, ENTROPY, SPECTRUM, FEATURES and LENGTHS as a caller would send them at steps `start` to `stop` - 1."""
    steps = np.arange(start, stop)
    counts = steps + 1
    cols = sequence.features.shape[1]
    depth = min(MAX_FEATURE_ROWS, MAX_FEATURE_VALUES // max(cols, 1))
    rows = np.minimum(counts, depth)
    place = counts[:, None] - rows[:, None] + np.arange(min(depth, int(rows.max())))
    window = sequence.features[np.minimum(place, sequence.steps - 1)]
    window[np.arange(window.shape[1]) >= rows[:, None]] = 0.0
    inside = np.arange(stop) < counts[:, None]
    lengths = np.zeros((steps.shape[0], len(Length)), np.int32)
    lengths[:, Length.TRACE] = counts
    lengths[:, Length.SPECTRUM] = sequence.spectrum.shape[1]
    entropy = np.zeros((steps.shape[0], 0), np.float32)
    if sequence.entropy.size:
        lengths[:, Length.ENTROPY] = counts
        entropy = np.where(inside, sequence.entropy[:stop], 0).astype(np.float32)
    if cols:
        lengths[:, Length.FEATURE_ROWS], lengths[:, Length.FEATURE_COLS] = rows, cols
    return {
        "TRACE": np.where(inside, sequence.trace[:stop], 0).astype(np.float32),
        "ENTROPY": entropy,
        "SPECTRUM": sequence.spectrum[start:stop],
        "FEATURES": window.reshape(steps.shape[0], -1),
        "LENGTHS": lengths,
    }
