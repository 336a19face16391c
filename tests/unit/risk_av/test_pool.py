"""Pools: whatever subjects come, the shares of a pool's epoch sum to its alpha."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tcd.risk_av import Controller, ControllerParams, Pool, PoolShared, ReplayError, event_from_json, event_to_json

PARAMS = ControllerParams()
POOL = Pool("tenant", length=20, shares=5)


def test_new_subjects_take_shares_and_make_no_budget() -> None:
    controller = Controller(PARAMS)
    costs: dict[int, list[float]] = {}
    for i in range(60):
        got = controller.reserve(stream=f"subject{i % 17}", hypothesis=str(i), pool=POOL)
        controller.close(stream=f"subject{i % 17}", hypothesis=str(i), reason="end")
        costs.setdefault(controller.pool("tenant")[0], [])
        assert got.alpha == pytest.approx(0.05 / 20)
    events = controller.take_events()
    shares = [event for event in events if isinstance(event, PoolShared)]
    by_epoch: dict[int, float] = {}
    for share in shares:
        by_epoch[share.epoch] = by_epoch.get(share.epoch, 0.0) + share.alpha
    assert all(total <= 0.05 * (1 + 1e-12) for total in by_epoch.values())
    assert sorted(by_epoch) == list(range(1, max(by_epoch) + 1))
    assert controller.pool("tenant")[0] == max(by_epoch)
    again = Controller.replay([event_from_json(event_to_json(event)) for event in events], PARAMS)
    assert again.digest() == controller.digest()


def test_a_subject_epoch_has_its_part_of_the_reservations() -> None:
    controller = Controller(PARAMS)
    epochs = [controller.reserve(stream="s", hypothesis=str(i), pool=POOL).epoch for i in range(9)]
    assert epochs == [1] * 4 + [2] * 4 + [3]
    view = controller.state("s")
    assert view.alpha == 0.05 / 5
    assert view.length == 4
    epoch, given, spent = controller.pool("tenant")
    assert (epoch, given) == (1, 3)
    assert math.isclose(spent, 0.03)


def test_a_smaller_alpha_reaches_the_shares() -> None:
    controller = Controller(PARAMS)
    controller.reserve(stream="s", hypothesis="x", pool=POOL)
    controller.configure(replace(PARAMS, alpha=0.02))
    assert math.isclose(controller.state("s").alpha, 0.02 / 5)
    controller.roll(stream="s")
    assert math.isclose(controller.state("s").alpha, 0.02 / 5)


def test_a_forged_share_is_refused() -> None:
    controller = Controller(PARAMS)
    for event in (PoolShared("tenant", 1, 2, "s", 0.01), PoolShared("tenant", 3, 1, "s", 0.01)):
        with pytest.raises(ReplayError, match="share"):
            controller.accept([event])
