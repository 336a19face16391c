"""The controller and the e-process against golden vectors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tcd.errors import Conflict
from tcd.risk_av import Controller, ControllerParams, e_value
from tcd.risk_av.eprocess import START, advance, mixture
from tcd.risk_av.exact import to_float

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "statistics"
REL = 1e-9
LOGS = json.loads((VECTORS / "controller_events.json").read_text())["logs"]
STREAMS = json.loads((VECTORS / "rai.json").read_text())["streams"]


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=REL, abs_tol=1e-300)


def _replay_vector_event(controller: Controller, event: dict[str, Any], costs: dict[str, float]) -> None:
    name, expect = event["rid"], event["expect"]
    if event["op"] == "reserve":
        got = controller.reserve(stream="s", hypothesis=name)
        assert got.new is not expect.get("idempotent", False)
        costs.setdefault(name, got.cost)
        assert got.seq == expect["seq"]
        assert got.known == expect["rejections_known_at_reserve"]
        assert close(got.alpha, expect["alpha_alloc"])
        assert close(costs[name], expect["cost"])
        assert got.cost == (costs[name] if got.new else 0.0)
        return
    alpha = controller.reserve(stream="s", hypothesis=name).alpha
    if expect.get("error"):
        assert expect["error"] == Conflict.code
        with pytest.raises(Conflict):
            controller.settle(stream="s", hypothesis=name, p=event["p"], trigger=event["p"] <= alpha)
        return
    if event["op"] == "settle":
        settled = controller.settle(stream="s", hypothesis=name, p=event["p"], trigger=event["p"] <= alpha)
        assert settled.trigger is expect["trigger"]
        done = controller.close(stream="s", hypothesis=name, reason="end")
    else:
        done = controller.close(stream="s", hypothesis=name, reason="abandoned")
    assert done is not None
    assert done.trigger is expect["trigger"]


@pytest.mark.parametrize("log", LOGS, ids=[log["name"] for log in LOGS])
def test_event_logs_give_the_levels_states_and_decisions(log: dict[str, Any]) -> None:
    params = ControllerParams(alpha=log["alpha"], schedule=("omega", log["omega"]), kappa=log["kappa"])
    controller = Controller(params)
    costs: dict[str, float] = {}
    for event in log["events"]:
        _replay_vector_event(controller, event, costs)
        view, state = controller.state("s"), event["state"]
        assert close(view.spent, state["alpha_spent"])
        assert close(view.budget_remaining, state["budget_remaining"])
        assert view.rejections_known == view.rejections == state["rejections_known"]
        assert close(view.e_process, state["e_value"])
        assert close(view.e_process_max, state["e_max"])
        assert view.folded == state["folded"]
        assert view.reserved_total == state["reserved"]
    assert Controller.replay(controller.take_events(), params).digest() == controller.digest()


def _run_rai(stream: dict[str, Any], name: str) -> None:
    asynchronous = "_async_" in name
    expected = stream["results"][name]
    omega = float(name.rpartition("_w")[2])
    controller = Controller(ControllerParams(alpha=stream["alpha"], schedule=("omega", omega)))
    levels: list[float] = []
    rejected: list[bool] = []
    waiting: list[int] = []
    for t, p in enumerate(stream["p"], start=1):
        ready = [j for j in waiting if not asynchronous or stream["E"][j - 1] <= t - 1]
        for j in ready:
            waiting.remove(j)
            q = stream["p"][j - 1]
            controller.settle(stream="s", hypothesis=str(j), p=q, trigger=q <= levels[j - 1])
        got = controller.reserve(stream="s", hypothesis=str(t))
        levels.append(got.alpha)
        rejected.append(p <= got.alpha)
        waiting.append(t)
    assert rejected == [bool(r) for r in expected["reject"]]
    assert all(close(a, b) for a, b in zip(levels, expected["alpha_t"], strict=True))
    left = controller.state("s").budget_remaining
    assert math.isclose(left, expected["budget_left"], rel_tol=REL, abs_tol=1e-15)


CASES = [(stream, name) for stream, data in STREAMS.items() for name in data["results"]]


@pytest.mark.parametrize(("stream", "name"), CASES)
def test_rai_gives_the_levels_and_decisions_also_with_delayed_decisions(stream: str, name: str) -> None:
    _run_rai(STREAMS[stream], name)


def test_rai_on_all_shared_streams(shared: Path) -> None:
    streams = json.loads((shared / "vectors" / "statistics" / "online_fdr.json").read_text())["streams"]
    ran = 0
    for stream in streams.values():
        for name in stream["results"]:
            if name.startswith("rai_lord"):
                _run_rai(stream, name)
                ran += 1
    assert ran == 6 * len(streams)


def test_eprocess_vectors() -> None:
    vectors = json.loads((VECTORS / "eprocess.json").read_text())
    state = START
    for p, m, c in zip(vectors["p"], vectors["restart_mixture"], vectors["e_cusum"], strict=True):
        state = advance(state, p)
        assert close(to_float(mixture(state)), m)
        assert close(to_float(state.c), c)
    for p, e in zip(vectors["calibrator"]["p"], vectors["calibrator"]["e"], strict=True):
        assert close(e_value(p), e)
