"""The bench of trust: the rounds end at the fixed point, within bounds, as the plain loop does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tcd.bench.trust import _loop, graph, markdown, run
from tcd.trust import propagate


def test_a_small_run_is_at_the_fixed_point_and_within_bounds() -> None:
    found = run(small=True)
    assert {row["kind"] for row in found["rows"]} == {"random", "hubs", "chain"}
    for row in found["rows"]:
        assert row["residual"] < 1e-9
        assert row["outside"] == 0
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "| random | 10000 |" in markdown(found)


@pytest.mark.parametrize("kind", ["random", "hubs", "chain"])
def test_the_vectorised_rounds_are_those_of_the_plain_loop(kind: str) -> None:
    own, edges = graph(kind, 200, np.random.default_rng(3))
    assert np.allclose(propagate(own, edges, damping=0.8), _loop(own, edges), atol=1e-11, rtol=0)
