"""Experiment 1 through kill -9: benign epochs trigger no more often than promised when the shim dies at random points.

Retried sessions have the p-value they had, so a life that forgot what it had spent would try it again. A control does
forget: half of the lives start from the copy that the life before started from. Its epochs trigger twice as often.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcd.bench.controller.null import target
from tcd.bench.controller.rate import Rate, clopper_pearson
from tcd.bench.controller.shim import LENGTH
from tcd.ledger import SqliteLedger
from tcd.risk_av import Reserved, Settled
from tests.faults import null_decider
from tests.faults.forked import Forked
from tests.faults.recording import lines

ALPHA = 0.05


def live(directory: Path, seed: int, first: int, again: list[int], *, answers: int) -> list[Any]:
    """What a life said that was killed after so many answers."""
    process = Forked(null_decider.start, str(directory), str(seed), str(first), *map(str, again))
    said = process.lines(answers + 1)
    process.kill()
    said += process.rest()
    found = lines(said)
    assert len(found) > answers, "it ended by itself"
    return found[1:]


async def lives(directory: Path, kills: int, *, answers: int, seed: int, forget: float = 0.0) -> dict[int, bool]:
    """Epochs, and whether any answer of theirs was a trigger; the first and the last one are not whole."""
    random = np.random.default_rng(seed)
    triggered: dict[int, bool] = {}
    first, missing = 0, list[int]()
    data, copy = directory / "data", directory / "copy"
    for _ in range(kills):
        if data.is_dir():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(data, copy, ignore=shutil.ignore_patterns("*-shm"))
        said = live(data, seed, first, missing, answers=int(random.integers(answers // 2, answers)))
        heard = {line["n"] for line in said}
        assert "degraded" not in {line["cause"] for line in said}
        for line in said:
            triggered[line["epoch"]] = triggered.get(line["epoch"], False) or line["trigger"]
        started = max(heard) + 1
        missing = [n for n in (*missing, *range(first, started)) if n not in heard]
        first = max(first, started)
        if random.random() < forget and copy.is_dir():
            shutil.rmtree(data)
            shutil.copytree(copy, data)
    if not forget:
        await check(data, triggered)
    return {epoch: hit for epoch, hit in triggered.items() if epoch < max(triggered)}


async def check(directory: Path, triggered: dict[int, bool]) -> None:
    """Each epoch of the log has its reservations once, and what was answered is what the log says."""
    ledger = SqliteLedger(directory)
    events = (await ledger.events(limit=10**7)).events
    await ledger.close()
    places: dict[int, list[int]] = {}
    epoch_of: dict[str, int] = {}
    for event in events:
        if isinstance(event, Reserved):
            places.setdefault(event.epoch, []).append(event.index)
            epoch_of[event.hypothesis] = event.epoch
    assert all(found == list(range(1, len(found) + 1)) and len(found) <= LENGTH for found in places.values())
    rejected = {epoch_of[e.hypothesis] for e in events if isinstance(e, Settled) and e.rejected}
    assert {epoch for epoch, hit in triggered.items() if hit} <= rejected


async def test_the_null_through_kills(tmp_path: Path) -> None:
    """N small: what CI has time for. It sees a rate above .1, say; `make test-long` sees one above .06."""
    epochs = await lives(tmp_path, 5, answers=300, seed=3)
    rate = Rate.of_hits("null", "killed", sum(epochs.values()), len(epochs), bound=ALPHA, check="at_most")
    assert rate.n >= 60
    assert rate.ok, rate


@pytest.mark.long
async def test_the_null_through_sixty_kills(tmp_path: Path, record_property: Any) -> None:
    epochs = await lives(tmp_path, 60, answers=1000, seed=4)
    rate = Rate.of_hits("null", "killed", sum(epochs.values()), len(epochs), bound=ALPHA, check="at_most")
    record_property("rate", str(rate))
    assert rate.n >= 3000
    assert rate.ok, rate
    # lost and repeated sessions aside it is the rate without kills
    assert rate.high >= target(LENGTH) / 2


@pytest.mark.long
async def test_forgetting_what_was_spent_is_seen(tmp_path: Path, record_property: Any) -> None:
    epochs = await lives(tmp_path, 40, answers=1000, seed=5, forget=0.5)
    low, high = clopper_pearson(sum(epochs.values()), len(epochs))
    record_property("rate", f"{sum(epochs.values())} of {len(epochs)}: [{low:.4f}, {high:.4f}]")
    assert low > ALPHA
