"""The conformance suite of signal providers: every provider passes it, also one that comes from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from sidecar_api.schemas import DiagnoseRequest
from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.contract import SPECTRUM_RANK
from tcd.signals import raw_step, start
from tcd.signals.provider import DefaultProvider, ReplayProvider, SignalProvider, StepSignals

Make = Callable[[], SignalProvider]
STEPS, VOCABULARY, WIDTH = 40, 50, 24
RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(STEPS, VOCABULARY)).astype(np.float32)
HIDDEN = RNG.normal(size=(STEPS, WIDTH)).astype(np.float32)
TOKENS = RNG.integers(VOCABULARY, size=STEPS)


class Torch:
    """The default provider as a torch model server uses it."""

    def __init__(self) -> None:
        self._inner = DefaultProvider()

    def reset(self) -> None:
        self._inner.reset()

    def step(self, logits: Any, token: int, hidden: Any = None) -> StepSignals | None:
        state = None if hidden is None else torch.tensor(np.asarray(hidden), requires_grad=True)
        return self._inner.step(torch.tensor(np.asarray(logits)), token, state)


def replay() -> ReplayProvider:
    return ReplayProvider(run(DefaultProvider()))


def run(provider: SignalProvider) -> list[StepSignals]:
    found = [provider.step(LOGITS[i], int(TOKENS[i]), HIDDEN[i]) for i in range(STEPS)]
    assert all(s is not None for s in found)
    return [s for s in found if s is not None]


@pytest.mark.parametrize("make", [DefaultProvider, Torch, replay])
class TestConformance:
    def test_signals_are_in_their_range(self, make: Make) -> None:
        for index, signals in enumerate(run(make())):
            assert signals.log_probability <= 0
            assert 0 <= signals.entropy <= np.log(VOCABULARY) + 1e-6
            assert len(signals.spectrum) == min(SPECTRUM_RANK, index + 1, WIDTH)
            assert list(signals.spectrum) == sorted(signals.spectrum, reverse=True)
            assert np.isfinite([*signals.spectrum, *signals.features]).all()

    def test_members_are_a_request(self, make: Make) -> None:
        for signals in run(make())[:3]:
            request = DiagnoseRequest(**signals.members())
            assert request.trace_vector == [signals.log_probability]

    def test_the_same_steps_give_the_same_bits(self, make: Make) -> None:
        assert run(make()) == run(make())

    def test_after_a_reset_nothing_is_left(self, make: Make) -> None:
        provider = make()
        first = run(provider)
        provider.reset()
        assert run(provider) == first

    def test_they_are_the_ensembles_bits(self, make: Make) -> None:
        assets = AssetDirectory(default_asset_dir()).current()
        windows = start(1)
        for index, signals in enumerate(run(make())):
            hidden = HIDDEN[None, max(0, index - 31) : index + 1]
            out = raw_step(LOGITS[None, index], TOKENS[None, index].astype(np.int32), hidden, windows, assets)
            windows = {f"PREV_{n}": out[f"NEXT_{n}"] for n in ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")}
            count = len(signals.spectrum)
            assert np.float32(signals.log_probability) == out["NEXT_TRACE"][0, index]
            assert np.float32(signals.entropy) == out["NEXT_ENTROPY"][0, index]
            assert np.array_equal(np.array(signals.spectrum, np.float32), out["SPECTRUM"][0, :count])
            rows = int(out["NEXT_LENGTHS"][0, 3])
            newest = out["NEXT_FEATURES"][0].reshape(-1, 16)[rows - 1]
            assert np.array_equal(np.array(signals.features, np.float32), newest)


@pytest.mark.parametrize("make", [DefaultProvider, Torch])
@pytest.mark.parametrize(
    ("logits", "token", "hidden"),
    [
        (np.full(4, np.nan, np.float32), 0, None),
        (np.array([0.0, np.inf], np.float32), 0, None),
        (np.array([0.0, -np.inf], np.float32), 1, None),
        (np.zeros(4, np.float32), 4, None),
        (np.zeros(4, np.float32), -1, None),
        (np.zeros(4, np.float32), 0, np.array([np.nan], np.float32)),
    ],
)
def test_a_step_without_signals_is_none_and_harms_no_later_one(
    make: Make, logits: Any, token: int, hidden: Any
) -> None:
    provider = make()
    assert provider.step(logits, token, hidden) is None
    assert run(provider) == run(make())
