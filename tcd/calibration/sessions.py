"""Rows of a session log put together to sequences, within bounds. Pure.

What would spoil a calibration silently is refused with the reason: steps out of order, a signal that comes and goes,
a session whose key changes or that is there twice.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.rows import AnyRow, RequestRow, Row, SessionRow, StepRow, temperature_of
from tcd.calibration.traces import Key, Sequence
from tcd.contract import MAX_WINDOW, temperature_bucket
from tcd.errors import AssetError

F32 = NDArray[np.float32]
#: Sequences carry at most as many steps as a trace window: the horizon that a calibration can have.
HORIZON: Final = MAX_WINDOW
_BENIGN: Final = ("healthy", "greedy")
_NAMES: Final = ("log_prob", "entropy", "spectrum", "features")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a log.

    Attributes:
        sessions: most sessions.
        values: most numbers of all signals together, 4 bytes each.
    """

    sessions: int = 200_000
    values: int = 200_000_000


@dataclass(slots=True)
class _Session:
    """A session in the making: FP32 values by signal, how wide a step of each is."""

    name: str
    group: str
    key: Key
    weight: float
    values: dict[str, array[float]] = field(default_factory=lambda: {name: array("f") for name in _NAMES})
    width: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    label: str | None = None
    onset: int = -1
    complete: bool | None = None
    whole: bool = False
    last: RequestRow | None = None

    def add(self, step: dict[str, list[float]]) -> int:
        """Append a step; returns how many numbers it has."""
        widths = {name: len(values) for name, values in step.items()}
        if not self.steps:
            self.width = widths
        elif widths != self.width:
            odd = next(name for name in _NAMES if widths.get(name) != self.width.get(name))
            was, now = self.width.get(odd, 0), widths.get(odd, 0)
            msg = f"session {self.name!r}: {odd} has {now} values at step {self.steps} and had {was} before"
            raise AssetError(msg)
        self.steps += 1
        if self.steps > HORIZON:
            return 0
        for name, values in step.items():
            self.values[name].extend(values)
        return sum(widths.values())

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return sum(map(len, self.values.values()))

    def newest(self, name: str) -> list[float]:
        """The last values of a signal; empty where it has none."""
        width = self.width.get(name, 0)
        return self.values[name][-width:].tolist() if width else []

    def sequence(self) -> Sequence:
        """What the steps are together."""
        n = min(self.steps, HORIZON)
        parts = {name: np.array(values, np.float32) for name, values in self.values.items()}
        for name, part in parts.items():
            if not np.isfinite(part).all():
                msg = f"session {self.name!r}: {name} has a NaN or infinity"
                raise AssetError(msg)
        kind = self.label or ("greedy" if self.key.bucket == "greedy" else "healthy")
        onset = self._onset(kind)
        benign = kind in _BENIGN
        healthy = n if benign else max(onset, 0)
        return Sequence(
            prompt_id=self.group,
            kind=kind,
            trace=parts["log_prob"],
            entropy=parts["entropy"],
            spectrum=parts["spectrum"].reshape(n, -1),
            features=parts["features"].reshape(n, -1),
            healthy=healthy,
            onset=onset,
            complete=benign if self.complete is None else self.complete,
            session=self.name,
            key=self.key,
            weight=self.weight,
        )

    def _onset(self, kind: str) -> int:
        faulty = kind not in (*_BENIGN, "control")
        if faulty and not 0 <= self.onset < self.steps:
            msg = f"session {self.name!r}: the label {kind!r} needs an onset inside its {self.steps} steps"
        elif not faulty and self.onset >= 0:
            msg = f"session {self.name!r}: an onset, but the label is {kind!r}"
        elif self.complete and not (faulty or kind in _BENIGN):
            msg = f"session {self.name!r}: a control cannot be a complete benign session"
        else:
            return min(self.onset, HORIZON - 1)
        raise AssetError(msg)


class Collector:
    """Takes rows in the order of the log, answers the sequences at its end."""

    def __init__(self, limits: Limits | None = None) -> None:
        """Collect within `limits`."""
        self._limits = limits or Limits()
        self._sessions: dict[str, _Session] = {}
        self._runs: dict[tuple[str, str, str], int] = {}
        self._values = 0

    def add(self, row: AnyRow) -> None:
        """Take a row.

        Raises:
            AssetError: it does not fit what came before, or the log is over its bounds.
        """
        if isinstance(row, RequestRow):
            self._request(row)
        elif isinstance(row, SessionRow):
            self._whole(row)
        else:
            self._step(row)
        self._bound()

    def _over(self) -> bool:
        return self._values > self._limits.values or len(self._sessions) > self._limits.sessions

    def _bound(self) -> None:
        if self._over():
            msg = f"more than {self._limits.values} values or {self._limits.sessions} sessions in one log"
            raise AssetError(msg)

    def sequences(self) -> tuple[Sequence, ...]:
        """All sessions, in the order of their first rows.

        Raises:
            AssetError: there are none, one is not finite or mislabelled, or one is a copy of another.
        """
        if not self._sessions:
            msg = "no sessions"
            raise AssetError(msg)
        out: list[Sequence] = []
        seen: dict[bytes, str] = {}
        for name in list(self._sessions):
            # one session after the other, so that the log is not in memory twice
            one = self._sessions.pop(name).sequence()
            content = hashlib.sha256(one.trace.tobytes() + one.features.tobytes()).digest()
            first = seen.setdefault(content, name)
            if first != name and one.kind != "greedy":
                msg = f"sessions {first!r} and {name!r} are the same: a copy would count as a second witness"
                raise AssetError(msg)
            out.append(one)
        return tuple(out)

    def _open(self, name: str, group: str | None, key: Key, weight: float) -> _Session:
        known = self._sessions.get(name)
        if known is None:
            known = self._sessions[name] = _Session(name, group or name, key, weight)
        elif (known.group, known.key, known.weight) != (group or name, key, weight):
            msg = f"session {name!r}: its group, key, temperature or weight changes"
            raise AssetError(msg)
        return known

    @staticmethod
    def key_of(row: Row) -> Key:
        """Whose generation a row is of."""
        return Key(row.model_id, row.gpu_id, row.task, row.lang, temperature_bucket(row.temperature))

    def _named(self, row: Row) -> _Session:
        return self._open(row.session, row.group, self.key_of(row), row.weight)

    def _step(self, row: StepRow) -> None:
        session = self._named(row)
        if session.whole:
            msg = f"session {row.session!r} is there as a whole already"
            raise AssetError(msg)
        if row.step is not None and row.step != session.steps:
            msg = f"session {row.session!r}: step {row.step} where step {session.steps} is next"
            raise AssetError(msg)
        label = row.label if row.label not in (None, *_BENIGN) else None
        if label is not None and session.onset < 0 and label != "control":
            session.label, session.onset = label, session.steps
        elif row.label is not None and session.label in (None, *_BENIGN):
            session.label = row.label
        self._values += session.add(_signals([row.log_prob], row.entropy, row.spectrum, row.features))

    def _whole(self, row: SessionRow) -> None:
        if row.session in self._sessions:
            msg = f"session {row.session!r} is there twice"
            raise AssetError(msg)
        session = self._named(row)
        n = len(row.log_prob)
        for name in _NAMES[1:]:
            part = getattr(row, name)
            if part is not None and len(part) != n:
                msg = f"session {row.session!r}: {len(part)} entries of {name}, {n} of log_prob"
                raise AssetError(msg)
        for t in range(n):
            self._values += session.add(
                _signals(
                    [row.log_prob[t]],
                    row.entropy[t] if row.entropy is not None else None,
                    row.spectrum[t] if row.spectrum is not None else None,
                    row.features[t] if row.features is not None else None,
                )
            )
        session.whole, session.label, session.complete = True, row.label, row.complete
        session.onset = -1 if row.onset is None else row.onset

    def _request(self, row: RequestRow) -> None:
        name = self._generation(row)
        before = self._sessions.get(name)
        if before is not None and before.last is not None and _is_retry(row, before.last):
            return
        if before is not None and before.last is not None:
            _follows(name, row, before.last)
        elif row.step_id:
            msg = f"session {name!r} begins with step {row.step_id}"
            raise AssetError(msg)
        bucket = temperature_bucket(temperature_of(row))
        session = self._open(name, None, Key(row.model_id, row.gpu_id, row.task, row.lang, bucket), 1.0)
        # as the shim does: a step without a spectrum has the last one
        spectrum = row.spectrum or session.newest("spectrum")
        self._values += session.add(_signals(row.trace_vector, row.entropy, spectrum or None, row.features or None))
        session.last = row

    def _generation(self, row: RequestRow) -> str:
        """Name of the generation that a request belongs to: step 0 begins another one of its session."""
        owner = (row.tenant, row.user, row.session)
        run = self._runs.get(owner, 0)
        known = self._sessions.get("/".join(owner) + f"#{run}")
        if row.step_id == 0 and known is not None and known.last is not None and not _is_retry(row, known.last):
            run += 1
        self._runs[owner] = run
        return "/".join(owner) + f"#{run}"


def _is_retry(row: RequestRow, last: RequestRow) -> bool:
    """Whether a request says what the one before said of the same step."""
    same = (row.trace_vector, row.entropy, row.spectrum, row.features)
    return row.step_id is not None and (row.step_id, *same) == (
        last.step_id,
        last.trace_vector,
        last.entropy,
        last.spectrum,
        last.features,
    )


def _follows(name: str, row: RequestRow, last: RequestRow) -> None:
    """Refuse a request that is not the next step."""
    if row.step_id is None or last.step_id is None or row.step_id == last.step_id + 1:
        return
    msg = f"session {name!r}: step {row.step_id} follows step {last.step_id}"
    raise AssetError(msg)


def _signals(
    log_prob: list[float], entropy: float | None, spectrum: list[float] | None, features: list[float] | None
) -> dict[str, list[float]]:
    """The signals that a step has."""
    out = {"log_prob": log_prob}
    if entropy is not None:
        out["entropy"] = [entropy]
    if spectrum is not None:
        out["spectrum"] = spectrum
    if features is not None:
        out["features"] = features
    return out
