"""Signal providers: whatever turns a model server's step into the members of a request, behind one protocol.

`DefaultProvider` works on numpy arrays and torch tensors; model servers bring their own by having `step`. The
conformance suite in `tests/unit/signals/test_providers.py` is what a provider has to pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet
from tcd.contract import SPECTRUM_RANK
from tcd.signals.hidden import HIDDEN_WINDOW, features, spectrum
from tcd.signals.logits import token_signals
from tcd.signals.projection import derived, projection


@dataclass(frozen=True, slots=True)
class StepSignals:
    """The signals of one step of one generation; `members` has them as a request does.

    Attributes:
        log_probability: of the sampled token at temperature 1, nats, at most 0.
        entropy: of the distribution it was sampled from, nats.
        spectrum: singular values of the newest hidden states, descending; empty without hidden states.
        features: projection of the newest hidden state, its last component replaced by the log of the nucleus size;
            empty without.
    """

    log_probability: float
    entropy: float
    spectrum: tuple[float, ...] = ()
    features: tuple[float, ...] = ()

    def members(self) -> dict[str, Any]:
        """Members of /diagnose."""
        out: dict[str, Any] = {"trace_vector": [self.log_probability], "entropy": self.entropy}
        if self.spectrum:
            out |= {"spectrum": list(self.spectrum), "features": list(self.features)}
        return out


class SignalProvider(Protocol):
    """Turns the steps of one generation into signals, in order."""

    def step(self, logits: Any, token: int, hidden: Any = None) -> StepSignals | None:
        """Signals of one step.

        Args:
            logits: (V,) next-token logits that `token` was sampled from, before any warping.
            token: the sampled token.
            hidden: (D,) hidden state that the logits were made of, or None.

        Returns:
            The signals, or None when the step has none (a NaN, an impossible token): send nothing for it.
        """
        ...

    def reset(self) -> None:
        """A new generation begins."""
        ...


def as_numpy(values: Any) -> NDArray[np.float32]:
    """An array or a tensor of any device as FP32 on the host, without importing torch."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    array: NDArray[np.float32] = np.asarray(values, np.float32)
    return array


class DefaultProvider:
    """The same numbers as the ensemble's `tcd_signals`, FP32 on the wire."""

    def __init__(self, assets: AssetSet | None = None) -> None:
        """Project hidden states with recorded projections of `assets`, or with the derived ones."""
        self._assets = assets
        self._hidden: deque[NDArray[np.float32]] = deque(maxlen=HIDDEN_WINDOW)

    def reset(self) -> None:
        """See `SignalProvider`."""
        self._hidden.clear()

    def step(self, logits: Any, token: int, hidden: Any = None) -> StepSignals | None:
        """See `SignalProvider`."""
        found = token_signals(as_numpy(logits)[None], np.array([token]))
        state = None if hidden is None else as_numpy(hidden)
        if not found.good[0] or (state is not None and not np.isfinite(state).all()):
            return None
        lp, entropy = float(np.float32(found.log_probability[0])), float(np.float32(found.entropy[0]))
        if state is None:
            return StepSignals(lp, entropy)
        self._hidden.append(state)
        window = np.stack(self._hidden)[None]
        width = state.shape[0]
        matrix = derived(width) if self._assets is None else projection(width, self._assets)
        sigma = spectrum(window)[0, :SPECTRUM_RANK].astype(np.float32)
        row = features(window, matrix)[0].astype(np.float32)
        row[-1] = found.log_nucleus[0]
        return StepSignals(lp, entropy, tuple(map(float, sigma)), tuple(map(float, row)))


class ReplayProvider:
    """Recorded signals in their order, whatever is handed in: for replays and tests of integrations."""

    def __init__(self, recorded: Sequence[StepSignals]) -> None:
        """Replay `recorded`; after its end every step has no signals."""
        self._recorded = tuple(recorded)
        self._next: Iterator[StepSignals] = iter(self._recorded)

    def reset(self) -> None:
        """See `SignalProvider`."""
        self._next = iter(self._recorded)

    def step(self, logits: Any, token: int, hidden: Any = None) -> StepSignals | None:  # noqa: ARG002 - the protocol's
        """See `SignalProvider`."""
        return next(self._next, None)
