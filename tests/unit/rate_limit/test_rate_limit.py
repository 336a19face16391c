from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcd.rate_limit import Limit, TokenBuckets, token_cost


class Model:
    """The textbook bucket: tokens and the time they were counted."""

    def __init__(self, limit: Limit) -> None:
        self.limit, self.tokens, self.at = limit, limit.capacity, 0.0

    def take(self, cost: float, now: float) -> bool:
        self.tokens = min(self.limit.capacity, self.tokens + (now - self.at) * self.limit.refill)
        self.at = now
        cost = min(cost, self.limit.capacity)
        if cost > self.tokens + 1e-6:
            return False
        self.tokens = max(0.0, self.tokens - cost)
        return True


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.5, 100),
    st.floats(0.1, 100),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4000), st.integers(0, 6000)), max_size=60),
)
def test_it_is_the_textbook_bucket(capacity: float, refill: float, calls: list[tuple[int, int, int]]) -> None:
    limit = Limit(capacity, refill)
    table, models, now = TokenBuckets(limit, max_keys=10), [Model(limit) for _ in range(4)], 0.0
    for key, pause, cost in calls:
        now += pause / 1000
        grant = table.take(key, cost / 50, now=now)
        model = models[key]
        before = min(capacity, model.tokens + (now - model.at) * refill)
        close = abs(min(cost / 50, capacity) - before) < 1e-5
        if not close:
            assert grant.allowed == model.take(cost / 50, now)
            assert grant.remaining == pytest.approx(model.tokens, abs=1e-5)
        elif grant.allowed:
            model.tokens, model.at = max(0.0, before - cost / 50), now
        else:
            model.tokens, model.at = before, now


def test_capacity_and_one_more() -> None:
    table = TokenBuckets(Limit(60, 30), max_keys=10)
    assert all(table.take("a", 1, now=5.0).allowed for _ in range(60))
    refused = table.take("a", 1, now=5.0)
    assert not refused.allowed
    assert (refused.remaining, refused.reset, refused.retry_after) == pytest.approx((0.0, 2.0, 1 / 30))
    assert table.take("a", 1, now=5.0 + 1 / 30).allowed
    assert not table.take("a", 1, now=5.0 + 1 / 30).allowed


def test_retry_after_is_when_it_works() -> None:
    table = TokenBuckets(Limit(10, 3), max_keys=10)
    assert table.take("a", 9, now=0.0).allowed
    refused = table.take("a", 7.5, now=0.0)
    assert not table.take("a", 7.5, now=refused.retry_after - 1e-3).allowed
    assert table.take("a", 7.5, now=refused.retry_after).allowed


def test_a_cost_above_capacity_has_to_wait_but_is_possible() -> None:
    table = TokenBuckets(Limit(60, 30), max_keys=10)
    assert table.take("a", 1e9, now=0.0).allowed
    assert not table.take("a", 1e9, now=1.9).allowed
    assert table.take("a", 1e9, now=2.0).allowed


def test_refusal_takes_nothing() -> None:
    table = TokenBuckets(Limit(2, 1), max_keys=10)
    table.take("a", 1.5, now=0.0)
    for _ in range(100):
        assert not table.take("a", 1.0, now=0.0).allowed
    assert table.take("a", 0.5, now=0.0).allowed


@pytest.mark.parametrize(
    ("tokens", "per_step", "cost"),
    [(50, True, 1.0), (100, True, 2.0), (0, True, 0.02), (-7, True, 0.02), (1, False, 1.0), (200, False, 4.0)],
)
def test_costs(tokens: int, per_step: Literal[True, False], cost: float) -> None:
    assert token_cost(tokens, divisor=50, per_step=per_step) == cost


def test_only_full_buckets_are_forgotten() -> None:
    """With any number of other subjects a drained bucket stays drained."""
    table = TokenBuckets(Limit(10, 1), max_keys=5)
    assert table.take("victim", 10, now=0.0).allowed
    for i in range(1000):
        table.take(i, 0.001, now=i * 0.001)
    assert len(table) <= 5
    assert not table.take("victim", 5, now=1.0).allowed
    assert table.take("victim", 5, now=5.0).allowed


def test_a_full_table_of_drained_buckets_makes_new_subjects_wait() -> None:
    table = TokenBuckets(Limit(10, 1), max_keys=3)
    for key, cost in (("a", 10), ("b", 4), ("c", 7)):
        assert table.take(key, cost, now=0.0).allowed
    refused = table.take("d", 1, now=0.0)
    assert (refused.allowed, refused.retry_after) == (False, 4.0)
    assert table.take("b", 1, now=1.0).allowed
    assert table.take("d", 1, now=4.0).retry_after == 1.0
    assert table.take("d", 1, now=5.0).allowed
    assert len(table) == 3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 500), st.integers(1, 500)), max_size=150))
def test_eviction_never_gives_more_than_a_table_without_bound(calls: list[tuple[int, int, int]]) -> None:
    limit = Limit(5, 2)
    small, large, now = TokenBuckets(limit, max_keys=4), TokenBuckets(limit, max_keys=1000), 0.0
    taken: dict[int, float] = {}
    for key, pause, cost in calls:
        now += pause / 1000
        if small.take(key, cost / 100, now=now).allowed:
            assert large.take(key, cost / 100, now=now).allowed
            taken[key] = taken.get(key, 0.0) + cost / 100
        assert len(small) <= 4
    assert all(total <= limit.capacity + now * limit.refill + 1e-6 for total in taken.values())


def test_limits_per_key() -> None:
    table = TokenBuckets(Limit(1, 1), max_keys=10)
    assert table.take(("a", "vip"), 5, now=0.0, limit=Limit(5, 1)).remaining == 0.0
    assert table.take("a", 5, now=0.0).allowed
    assert Limit(60, 30).window == 2.0
