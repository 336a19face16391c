"""The decision engine is monotone; trust is bounded, monotone and converges; attacks on it gain nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from tcd.trust import ACTIONS, SEVERITY, Node, Params, Risk, Row, TrustGraph, decide, propagate
from tcd.trust.engine import FLAGS, RISKS
from tcd.trust.graph import iterations

quick = settings(max_examples=150, deadline=None, database=None)
LEVEL = st.floats(0, 3, allow_nan=False)
RISK = st.builds(
    Risk,
    **{name: st.booleans() if name in FLAGS else st.integers(0, 2) if name == "tier" else LEVEL for name in RISKS},
)
WHEN = st.dictionaries(st.sampled_from(RISKS), LEVEL, max_size=3).map(
    lambda d: {name: True if name in FLAGS else floor for name, floor in d.items()}
)
TABLE = st.lists(st.builds(Row, st.just("r"), WHEN, st.sampled_from(ACTIONS), st.just("policy")), max_size=8)


@seed(1)
@quick
@given(TABLE, RISK, st.sampled_from(RISKS), st.floats(0, 3, allow_nan=False))
def test_more_risk_never_gives_a_milder_action(table: Any, risk: Risk, member: str, more: float) -> None:
    value = True if member in FLAGS else getattr(risk, member) + more
    riskier = replace(risk, **{member: value})
    assert SEVERITY[decide(table, riskier).action] >= SEVERITY[decide(table, risk).action]
    assert SEVERITY[decide(table, riskier).enforced] >= SEVERITY[decide(table, risk).enforced]
    assert decide(table[::-1], risk).action == decide(table, risk).action
    assert decide(table, risk, mode="monitor").enforced == "allow"


def test_nan_counts_as_the_greatest_risk() -> None:
    table = [Row("r", {"score": 0.9}, "block", "policy")]
    assert decide(table, Risk(score=math.nan)).action == "block"


def graph_of(rng: np.random.Generator, nodes: int, degree: int) -> tuple[Any, dict[tuple[int, int], float]]:
    own = rng.random(nodes)
    source, target = rng.integers(0, nodes, nodes * degree), rng.integers(0, nodes, nodes * degree)
    weights = 1.0 - rng.random(nodes * degree)
    pairs = zip(source.tolist(), target.tolist(), strict=True)
    edges = {(s, t): w for (s, t), w in zip(pairs, weights.tolist(), strict=True) if s != t}
    return own, edges


@pytest.mark.parametrize("damping", [0.0, 0.5, 0.8, 0.95])
def test_propagation_converges_on_random_graphs_and_is_bounded_and_tightens(damping: float) -> None:
    rng = np.random.default_rng(7)
    for nodes, degree in ((3, 2), (50, 4), (10_000, 5)):
        own, edges = graph_of(rng, nodes, degree)
        trust = propagate(own, edges, damping=damping)
        assert trust.min() >= 0
        assert (trust <= own).all()
        # it is the fixed point
        bound = own.copy()
        for (s, t), w in edges.items():
            bound[s] = min(bound[s], 1 - damping * w * (1 - trust[t]))
        assert np.abs(bound - trust).max() < 1e-9
    assert iterations(damping) < 800


@seed(2)
@quick
@given(st.integers(0, 2**32 - 1), st.integers(0, 19), st.floats(0, 1))
def test_more_own_trust_never_lowers_anyone(number: int, node: int, more: float) -> None:
    own, edges = graph_of(np.random.default_rng(number), 20, 3)
    higher = own.copy()
    higher[node] = min(1.0, higher[node] + more)
    assert (propagate(higher, edges, damping=0.8) >= propagate(own, edges, damping=0.8) - 1e-9).all()


@seed(3)
@quick
@given(st.integers(0, 2**32 - 1), st.integers(0, 19), st.integers(0, 19), st.floats(0.01, 1))
def test_another_dependency_never_raises_anyone(number: int, source: int, target: int, weight: float) -> None:
    own, edges = graph_of(np.random.default_rng(number), 20, 3)
    edges.pop((source, target), None)
    more = edges if source == target else edges | {(source, target): weight}
    assert (propagate(own, more, damping=0.8) <= propagate(own, edges, damping=0.8) + 1e-9).all()


TOOL, MODEL, USER = Node("tool", "search"), Node("model", "m"), Node("user", "u")


def spoiled() -> tuple[TrustGraph, Any]:
    graph, ids = TrustGraph(), count()
    graph.depend(MODEL, TOOL, 1.0)
    graph.depend(USER, MODEL, 0.5)
    for _ in range(60):
        graph.observe(TOOL, good=False, evidence=str(next(ids)), at=0.0, now=0.0)
    return graph, ids


def test_distrust_reaches_who_depends_and_explains_itself() -> None:
    graph, _ = spoiled()
    assert graph.trust(TOOL, 0.0) == pytest.approx(0.25)
    assert graph.trust(MODEL, 0.0) == pytest.approx(1 - 0.8 * 0.75)
    assert graph.trust(USER, 0.0) == pytest.approx(1 - 0.8 * 0.5 * 0.6)
    told = graph.explain(USER, 0.0)
    assert (told.own, told.good, told.bad) == (1.0, 0.0, 0.0)
    [(nodes, left)] = told.paths
    assert nodes == (USER, MODEL, TOOL)
    assert left == pytest.approx(told.trust)
    assert graph.trust(Node("user", "nobody"), 0.0) == 1.0


def test_evidence_fades_with_its_half_life() -> None:
    graph, _ = spoiled()
    day = Params().half_life
    assert graph.trust(TOOL, day) == pytest.approx(20 / 50)
    assert graph.trust(TOOL, 40 * day) == pytest.approx(1.0)


def test_replayed_stale_and_future_evidence_does_not_count() -> None:
    graph, _ = spoiled()
    before = graph.trust(TOOL, 0.0)
    assert not graph.observe(TOOL, good=True, evidence="0", at=0.0, now=0.0)
    assert not graph.observe(TOOL, good=True, evidence="new", at=-3601.0, now=0.0)
    assert not graph.observe(TOOL, good=True, evidence="later", at=1.0, now=0.0)
    # forgotten only when its own time is too old to be taken
    assert not graph.observe(TOOL, good=True, evidence="0", at=0.0, now=3601.0)
    assert graph.trust(TOOL, 0.0) == before


def test_self_loops_are_refused() -> None:
    graph, _ = spoiled()
    before = graph.scores(0.0)
    assert not graph.depend(TOOL, TOOL)
    assert graph.scores(0.0) == before


def test_a_clique_of_sybils_raises_nobody() -> None:
    graph, ids = spoiled()
    before = graph.scores(0.0)
    sybils = [Node("user", f"sybil{i}") for i in range(30)]
    for a in sybils:
        for _ in range(5):
            graph.observe(a, good=True, evidence=str(next(ids)), at=0.0, now=0.0)
        for b in (*sybils, TOOL, MODEL, USER):
            graph.depend(a, b)
        graph.depend(TOOL, a)
        graph.depend(MODEL, a)
    after = graph.scores(0.0)
    assert all(after[node] <= before[node] + 1e-12 for node in before)


def test_a_good_record_lowers_the_weight_of_bad_evidence_but_never_lifts_above_one() -> None:
    graph, ids = spoiled()
    for _ in range(1000):
        graph.observe(TOOL, good=True, evidence=str(next(ids)), at=0.0, now=0.0)
    assert 0.9 < graph.trust(TOOL, 0.0) < 1.0


def test_it_survives_a_restart() -> None:
    graph, _ = spoiled()
    again = TrustGraph.from_json(json.loads(json.dumps(graph.to_json())))
    assert again.scores(5.0) == graph.scores(5.0)
    assert not again.observe(TOOL, good=True, evidence="0", at=0.0, now=1.0)
    with pytest.raises(ValueError, match="version 1"):
        TrustGraph.from_json({})


def test_bounds() -> None:
    graph = TrustGraph(Params(max_nodes=2, max_edges=1, max_ids=1))
    assert graph.depend(USER, MODEL)
    assert not graph.depend(MODEL, USER)
    assert graph.observe(USER, good=True, evidence="a", at=0.0, now=0.0)
    assert not graph.observe(USER, good=True, evidence="b", at=0.0, now=0.0)
    for weight in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="weight"):
            graph.depend(USER, TOOL, weight)
    with pytest.raises(ValueError, match="damping"):
        Params(damping=1.0)
