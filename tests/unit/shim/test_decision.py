from __future__ import annotations

import itertools

import pytest

from sidecar_api.decision import ACTIONS, Facts, Rules, decide, route_of
from tcd.contract import DECODERS
from tcd.routing.policy import DEFAULT_POLICY

BASE = (1.2, 1.0, 0.0, 0.0)
ROUTE = (1.1, 0.97, 40.0, 1.0)


def rank(rules: Rules, facts: Facts) -> int:
    return ACTIONS.index(decide(rules, facts, policy=DEFAULT_POLICY, base=BASE).action)


@pytest.mark.parametrize(
    ("facts", "action", "cause"),
    [
        (Facts(tier=0, route=ROUTE), "allow", ""),
        (Facts(tier=1, route=ROUTE), "degrade", "policy"),
        (Facts(tier=1, route=ROUTE, alarm=True), "degrade", "detector"),
        (Facts(tier=2, route=ROUTE, alarm=True), "degrade", "detector"),
        (Facts(tier=2, route=ROUTE, trigger=True), "block", "av"),
        (Facts(tier=0, route=ROUTE, trigger=True), "block", "av"),
        (Facts(tier=0, route=ROUTE, exhausted=True), "degrade", "budget"),
        (Facts(tier=0, route=ROUTE, floor=True), "degrade", "policy"),
        (Facts(failed=True), "block", "degraded"),
    ],
)
def test_table(facts: Facts, action: str, cause: str) -> None:
    decision = decide(Rules(), facts, policy=DEFAULT_POLICY, base=BASE)
    assert (decision.action, decision.cause, decision.enforced) == (action, cause, action)


@pytest.mark.parametrize(("policy", "action"), [("closed", "block"), ("open", "allow"), ("static", "degrade")])
def test_failure_policies(policy: str, action: str) -> None:
    decision = decide(Rules(on_failure=policy), Facts(failed=True), policy=DEFAULT_POLICY, base=BASE)  # type: ignore[arg-type]
    assert (decision.action, decision.cause, decision.verdict) == (action, "degraded", False)


def test_open_does_not_open_what_is_triggered() -> None:
    facts = Facts(failed=True, trigger=True)
    assert decide(Rules(on_failure="open"), facts, policy=DEFAULT_POLICY, base=BASE).action == "block"


def test_monitor_enforces_nothing() -> None:
    decision = decide(Rules(mode="monitor"), Facts(tier=2, trigger=True, route=ROUTE), policy=DEFAULT_POLICY, base=BASE)
    assert (decision.action, decision.enforced, decision.verdict) == ("block", "allow", True)


def test_more_risk_is_never_milder() -> None:
    flags = ("trigger", "alarm", "floor", "exhausted", "failed")
    for policy, static, hard in itertools.product(("closed", "open", "static"), ACTIONS, (False, True)):
        rules = Rules(on_failure=policy, static_action=static, hard_fail_on_floor=hard)  # type: ignore[arg-type]
        for values in itertools.product((False, True), repeat=5):
            facts = dict(zip(flags, values, strict=True))
            for tier in (0, 1, 2):
                here = rank(rules, Facts(tier=tier, **facts))  # type: ignore[arg-type]
                assert here <= rank(rules, Facts(tier=min(2, tier + 1), **facts))  # type: ignore[arg-type]
                for flag in flags:
                    assert here <= rank(rules, Facts(tier=tier, **{**facts, flag: True}))  # type: ignore[arg-type]


def test_routes() -> None:
    assert route_of(DEFAULT_POLICY, 0, (1.2, 0.9, 5.0, 0.0)) == (1.2, 0.9, 5.0, 0.0)
    assert route_of(DEFAULT_POLICY, 1, (0.0, 1.0, 0.0, 0.0)) == (0.6, 0.95, 512.0, DECODERS.index("no_repeat"))
    assert route_of(DEFAULT_POLICY, 2, (1.2, 1.0, 9.0, 0.0))[2] == 0.0
    kept = decide(Rules(), Facts(tier=1, route=ROUTE), policy=DEFAULT_POLICY, base=BASE)
    assert kept.route == ROUTE
    held = decide(
        Rules(), Facts(tier=0, route=ROUTE, alarm=True, held=(0.5, 0.5, 1.0, 2.0)), policy=DEFAULT_POLICY, base=BASE
    )
    assert held.route == (0.5, 0.5, 1.0, 2.0)
