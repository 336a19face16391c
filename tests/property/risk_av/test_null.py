"""P(any trigger in an epoch) under the global null is 1 - prod(1 - alpha_t), whatever the interleaving.

A lost update (two requests that debit the same reservation) shows here as about twice that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import beta

from tcd.risk_av import Controller, ControllerParams

LENGTH = 10
EPOCHS = 3000
CONFIDENCE = 0.999
PARAMS = ControllerParams(schedule=("uniform", LENGTH), keep_closed=64)
EXPECTED = 1.0 - (1.0 - PARAMS.alpha / LENGTH) ** LENGTH


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    tail = (1.0 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1.0 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


class LostUpdate(Controller):
    """Broken on purpose: of every two concurrent reservations the second writes back what the first had read."""

    def __init__(self, params: ControllerParams) -> None:
        super().__init__(params)
        self.calls = 0

    def reserve(self, *, stream: str, hypothesis: str, user: str = "", pool: object = None) -> object:  # type: ignore[override]
        got = super().reserve(stream=stream, hypothesis=hypothesis, user=user)
        self.calls += got.new
        if got.new and self.calls % 2:
            rule = self._streams[stream].epochs[got.epoch].rule
            rule.index -= 1  # type: ignore[misc]
        return got


def triggered_epochs(
    make: Callable[[ControllerParams], Controller], concurrency: int, seed: int, epochs: int = EPOCHS
) -> tuple[int, int]:
    """Epochs with a trigger, and whole epochs, when up to `concurrency` sessions of a few calls each are open."""
    rng = np.random.default_rng(seed)
    controller = make(PARAMS)
    pending: list[tuple[str, int, float, list[float]]] = []
    hit: dict[int, bool] = {}
    count = 0
    while True:
        if len(pending) < concurrency and (not pending or rng.random() < 0.5):
            got = controller.reserve(stream="s", hypothesis=str(count))
            if got.epoch > epochs:
                break
            count += 1
            hit.setdefault(got.epoch, False)
            # the running p of a session never rises and ends at a uniform one
            final = float(rng.random())
            path = [1.0 - (1.0 - final) * float(rng.random()), final] if rng.random() < 0.5 else [final]
            pending.append((str(count - 1), got.epoch, got.alpha, path))
            continue
        name, epoch, alpha, path = pending[int(rng.integers(len(pending)))]
        retries = 2 if rng.random() < 0.2 else 1
        for _ in range(retries):
            settled = controller.settle(stream="s", hypothesis=name, p=path[0], trigger=path[0] <= alpha)
        hit[epoch] |= settled.trigger
        path.pop(0)
        if not path:
            controller.close(stream="s", hypothesis=name, reason="end")
            pending = [item for item in pending if item[0] != name]
        controller.take_events()
    for _, epoch, alpha, path in pending:
        hit[epoch] |= min(path) <= alpha
    return sum(hit.values()), len(hit)


def say(what: str, hits: int, n: int) -> None:
    low, high = clopper_pearson(hits, n)
    text = f"{what}: N={n} rate={hits / n:.4f} interval=[{low:.4f}, {high:.4f}] want={EXPECTED:.4f}"
    print(text)  # noqa: T201 - the interval is the result of the experiment


@pytest.mark.parametrize("concurrency", [1, 4, 16, 64])
def test_the_false_alarm_rate_of_an_epoch_is_the_promised_one(concurrency: int) -> None:
    hits, n = triggered_epochs(Controller, concurrency, seed=20 + concurrency)
    low, high = clopper_pearson(hits, n)
    say(f"concurrency={concurrency}", hits, n)
    assert n == EPOCHS
    assert low <= EXPECTED <= high


@pytest.mark.parametrize("concurrency", [4, 64])
def test_a_lost_update_is_caught(concurrency: int) -> None:
    hits, n = triggered_epochs(LostUpdate, concurrency, seed=20 + concurrency, epochs=EPOCHS // 2)
    low, _ = clopper_pearson(hits, n)
    say("lost update", hits, n)
    assert low > EXPECTED
