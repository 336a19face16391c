"""Event logs of the controller: level, cost, decision and state after every event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tcd.conformance.findings import Finding, Malformed, compare, relative
from tcd.errors import Conflict
from tcd.risk_av import Controller, ControllerParams

#: Member of a state in the file -> attribute of the view.
_STATE: Final = {
    "alpha_spent": "spent",
    "budget_remaining": "budget_remaining",
    "rejections_known": "rejections_known",
    "e_value": "e_process",
    "e_max": "e_process_max",
    "folded": "folded",
    "reserved": "reserved_total",
}


class _Replay:
    """One log: deviations so far, and decisions that differ."""

    def __init__(self, log: Mapping[str, Any]) -> None:
        params = ControllerParams(
            alpha=float(log["alpha"]), schedule=("omega", float(log["omega"])), kappa=float(log["kappa"])
        )
        self.controller = Controller(params)
        self.costs: dict[str, float] = {}
        self.deviations: list[float] = []
        self.wrong = 0

    def reserve(self, name: str, expect: Mapping[str, Any]) -> None:
        got = self.controller.reserve(stream="s", hypothesis=name)
        self.costs.setdefault(name, got.cost)
        self.wrong += got.new is bool(expect.get("idempotent", False))
        self.wrong += got.seq != expect["seq"] or got.known != expect["rejections_known_at_reserve"]
        self.deviations += [relative(got.alpha, expect["alpha_alloc"]), relative(self.costs[name], expect["cost"])]

    def settle(self, name: str, p: float, expect: Mapping[str, Any]) -> None:
        trigger = p <= self.controller.reserve(stream="s", hypothesis=name).alpha
        try:
            settled = self.controller.settle(stream="s", hypothesis=name, p=p, trigger=trigger)
        except Conflict as error:
            self.wrong += expect.get("error") != error.code
            return
        self.wrong += "error" in expect or settled.trigger is not expect.get("trigger")
        self.controller.close(stream="s", hypothesis=name, reason="end")

    def abandon(self, name: str, expect: Mapping[str, Any]) -> None:
        done = self.controller.close(stream="s", hypothesis=name, reason="abandoned")
        self.wrong += done is None or done.trigger is not expect["trigger"]

    def state(self, expect: Mapping[str, Any]) -> None:
        view = self.controller.state("s")
        self.deviations += [relative(float(getattr(view, _STATE[k])), float(v)) for k, v in expect.items()]


def _log(log: Mapping[str, Any]) -> Finding:
    replay = _Replay(log)
    for event in log["events"]:
        name, expect, kind = event["rid"], event["expect"], event["op"]
        if kind == "reserve":
            replay.reserve(name, expect)
        elif kind == "settle":
            replay.settle(name, float(event["p"]), expect)
        elif kind == "abandon":
            replay.abandon(name, expect)
        else:
            msg = f"{log['name']}: unknown event {kind!r}"
            raise Malformed(msg)
        replay.state(event["state"])
    return compare(str(log["name"]), replay.deviations, wrong=int(replay.wrong))


def check_controller(data: Mapping[str, Any]) -> list[Finding]:
    """Findings of a file with `logs` of events."""
    return [_log(log) for log in data["logs"]]
