"""A session's windows for thin clients: the newest values of each signal, appended in two phases.

`stage` writes behind the committed end and shows the windows as they would be; `commit` moves the end.
A step that fails or is cancelled commits nothing, so a retry sees the windows as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tcd.contract import MAX_FEATURE_ROWS, MAX_FEATURE_VALUES, MAX_WINDOW, Signal
from tcd.errors import ValidationFailed

F32 = NDArray[np.float32]
_FIRST: Final = 64
_TRACE, _ENTROPY, _SPECTRUM, _FEATURES = (int(signal) for signal in Signal)
_NONE: Final = np.zeros(0, np.float32)
_NO_ROWS: Final = np.zeros((0, 0), np.float32)


class Ring:
    """The newest `limit` values (or rows of `cols` values), contiguous, with a staged end."""

    __slots__ = ("_buffer", "_end", "_limit", "_start")

    def __init__(self, limit: int, cols: int = 0) -> None:
        """An empty ring; `cols` > 0 makes it one of rows."""
        shape = (min(_FIRST, limit), cols) if cols else (min(_FIRST, limit),)
        self._buffer: F32 = np.empty(shape, np.float32)
        self._limit = limit
        self._start = 0
        self._end = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return self._buffer.nbytes

    @property
    def view(self) -> F32:
        """The committed values."""
        return self._buffer[self._start : self._end]

    def stage(self, values: F32) -> F32:
        """The window as it would be with `values` appended; valid until the next call of `stage`."""
        added = values.shape[0]
        if added >= self._limit:
            return values[-self._limit :]
        if self._end + added > self._buffer.shape[0]:
            self._make_room(added)
        end = self._end + added
        self._buffer[self._end : end] = values
        return self._buffer[max(self._start, end - self._limit) : end]

    def commit(self, values: F32) -> None:
        """Append the values of the last `stage`."""
        added = values.shape[0]
        if added >= self._limit:
            self._start = self._end = 0
            self._make_room(self._limit)
            self._buffer[: self._limit] = values[-self._limit :]
            self._end = self._limit
            return
        self._end += added
        self._start = max(self._start, self._end - self._limit)

    def _make_room(self, added: int) -> None:
        kept = self._end - self._start
        size = self._buffer.shape[0]
        # at the limit a quarter more, so that a full window is moved once per limit/4 values
        wanted = min(max(2 * (kept + added), _FIRST), self._limit + max(self._limit // 4, added))
        # a new buffer also when it need not grow: a row of a step given up may still show the old one
        fresh = np.empty((max(size, wanted), *self._buffer.shape[1:]), np.float32)
        fresh[:kept] = self._buffer[self._start : self._end]
        self._buffer = fresh
        self._start, self._end = 0, kept


class Staged(Struct, frozen=True):
    """One step's windows and what it appends.

    Attributes:
        trace, entropy, spectrum, features: the windows with this step, as the row carries them.
        added: values (rows) that the step appends to trace, entropy and features; unused with `keep` off.
        keep: whether `commit` appends (window=step).
        tokens: tokens of the generation up to here, at least.
    """

    trace: F32
    entropy: F32
    spectrum: F32
    features: F32
    added: tuple[F32, F32, F32]
    keep: bool
    tokens: int

    @property
    def mask(self) -> int:
        """Signals that are present."""
        return (
            (_TRACE if self.trace.size else 0)
            | (_ENTROPY if self.entropy.size else 0)
            | (_SPECTRUM if self.spectrum.size else 0)
            | (_FEATURES if self.features.size else 0)
        )


class SessionWindow:
    """The windows of one session."""

    __slots__ = ("entropy", "features", "seen", "spectrum", "tokens", "trace")

    def __init__(self) -> None:
        """Empty windows."""
        self.trace = Ring(MAX_WINDOW)
        self.entropy = Ring(MAX_WINDOW)
        self.features: Ring | None = None
        self.spectrum: F32 = _NONE
        #: Values ever appended: trace, entropy, feature rows.
        self.seen = (0, 0, 0)
        self.tokens = 0

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        rows = self.features.nbytes if self.features is not None else 0
        return self.trace.nbytes + self.entropy.nbytes + rows + self.spectrum.nbytes

    @property
    def feature_view(self) -> F32:
        """The committed feature rows."""
        return self.features.view if self.features is not None else _NO_ROWS

    def stage(self, trace: F32, entropy: F32, spectrum: F32, features: F32) -> Staged:
        """Windows of a step that brings the newest values.

        Args:
            trace: values since the last step.
            entropy: likewise.
            spectrum: of the newest window of hidden states; empty keeps the last one.
            features: (rows, cols) newest vectors.

        Raises:
            ValidationFailed: feature vectors of another width than the session's.
        """
        window = self.feature_view
        if features.size:
            if self.features is None:
                self.features = feature_ring(features.shape[1])
            elif features.shape[1] != self.features.view.shape[1]:
                if self.seen[2]:
                    msg = f"not {self.features.view.shape[1]} values as before in this session"
                    raise ValidationFailed(msg, pointer="/features")
                self.features = feature_ring(features.shape[1])
            window = self.features.stage(features)
        seen = tuple(a + b.shape[0] for a, b in zip(self.seen, (trace, entropy, features), strict=True))
        return Staged(
            trace=self.trace.stage(trace) if trace.size else self.trace.view,
            entropy=self.entropy.stage(entropy) if entropy.size else self.entropy.view,
            spectrum=spectrum if spectrum.size else self.spectrum,
            features=window,
            added=(trace, entropy, features),
            keep=True,
            tokens=max(self.tokens, *seen),
        )

    def whole(self, trace: F32, entropy: F32, spectrum: F32, features: F32) -> Staged:
        """Windows of a step that brings the whole windows; nothing of them is kept."""
        longest = max(trace.shape[0], entropy.shape[0], features.shape[0])
        return Staged(
            trace=trace,
            entropy=entropy,
            spectrum=spectrum,
            features=features,
            added=(_NONE, _NONE, _NO_ROWS),
            keep=False,
            # a full window slides: at least one token per step
            tokens=max(self.tokens + 1, longest) if longest else self.tokens,
        )

    def commit(self, staged: Staged) -> None:
        """Append what the step brought."""
        self.tokens = staged.tokens
        if not staged.keep:
            return
        trace, entropy, features = staged.added
        if trace.size:
            self.trace.commit(trace)
        if entropy.size:
            self.entropy.commit(entropy)
        if features.size and self.features is not None:
            self.features.commit(features)
        self.spectrum = staged.spectrum
        self.seen = (
            self.seen[0] + trace.shape[0],
            self.seen[1] + entropy.shape[0],
            self.seen[2] + features.shape[0],
        )


def feature_ring(cols: int) -> Ring:
    """A ring of as many rows as the contract allows for this width."""
    return Ring(min(MAX_FEATURE_ROWS, MAX_FEATURE_VALUES // cols), cols)


@dataclass(frozen=True, slots=True)
class HoldRules:
    """When a fast alarm is held beyond its step.

    Attributes:
        on: score that starts a held alarm; None = the step's own fast alarm.
        off: score under which a step is calm.
        cooldown: calm steps in a row that end it; 0 = never held.
    """

    on: float | None = None
    off: float = 0.9
    cooldown: int = 0


class Hold(Struct, frozen=True):
    """Hysteresis of a session: whether its alarm is held, calm steps so far, the route that goes with it."""

    on: bool = False
    calm: int = 0
    route: tuple[float, float, float, float] | None = None

    def step(self, rules: HoldRules, *, score: float, alarm: bool, route: tuple[float, float, float, float]) -> Hold:
        """The state after a step; `route` is the step's own."""
        starts = alarm if rules.on is None else score >= rules.on
        if starts:
            return Hold(rules.cooldown > 0, 0, route if rules.cooldown > 0 else None)
        if not self.on:
            return self
        calm = self.calm + 1 if score < rules.off else 0
        return Hold() if calm >= rules.cooldown else Hold(True, calm, self.route)
