"""From what is known about a step to an action and a route. Pure, and monotone: more risk is never milder.

`decide` follows the settings; `decide_by` follows the table of a policy, whose rows are data (`tcd.trust`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from msgspec import Struct

from sidecar_api.schemas import Action, Cause
from tcd.calibration.assets import RoutingPolicy
from tcd.trust import SEVERITY, Risk, Row, engine
from tcd.trust.engine import Mode
from tcd.trust.tiers import Routing

RouteTuple = tuple[float, float, float, float]
ACTIONS: Final[tuple[Action, Action, Action]] = ("allow", "degrade", "block")
_DEGRADE: Final = 1
_BLOCK: Final = 2
#: As receipts carry them.
_MAX_TAGS: Final = 16
_MAX_TAG: Final = 64


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decisions follow from."""

    mode: Literal["enforce", "monitor"] = "enforce"
    on_failure: Literal["closed", "open", "static"] = "closed"
    static_action: Literal["allow", "degrade", "block"] = "degrade"
    hard_fail_on_floor: bool = False


class Facts(Struct, frozen=True):
    """What is known about a step.

    Attributes:
        tier: of the routing model, 0 when there is no answer.
        route: of the routing model, None when there is no answer.
        trigger: the session's hypothesis was rejected (latched).
        alarm: the fast alarm, of this step or held.
        held: route of the step that began a held alarm.
        floor: the newest entropy is under the floor.
        exhausted: there is no budget left that could trigger.
        failed: a part that the decision needs did not work.
        score: of the step.
        spent: share of the epoch's budget that is spent.
        distrust: 1 - trust of whoever takes part; 0 without a trust graph.
        pressure: latency of late over its objective.
    """

    tier: int = 0
    route: RouteTuple | None = None
    trigger: bool = False
    alarm: bool = False
    held: RouteTuple | None = None
    floor: bool = False
    exhausted: bool = False
    failed: bool = False
    score: float = 0.0
    spent: float = 0.0
    distrust: float = 0.0
    pressure: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether nothing speaks against the step."""
        return not (self.tier or self.trigger or self.alarm or self.floor or self.exhausted or self.failed or self.held)

    @property
    def risk(self) -> Risk:
        """As a table sees it."""
        return Risk(
            score=self.score,
            tier=self.tier,
            alarm=self.alarm,
            trigger=self.trigger,
            floor=self.floor,
            exhausted=self.exhausted,
            spent=self.spent,
            failed=self.failed,
            distrust=self.distrust,
            pressure=self.pressure,
        )


@dataclass(frozen=True, slots=True)
class Bound:
    """What of a policy decisions follow from.

    Attributes:
        table: rows of the decision table.
        mode: whether actions are enforced.
        routing: caps on routes, and the tier of an action.
        asks: whether a row has an expression.
    """

    table: tuple[Row, ...]
    mode: Mode
    routing: Routing
    asks: bool = False


class Decision(Struct, frozen=True):
    """The decision about a step; `tier` indexes `tcd.contract.TIERS`."""

    verdict: bool
    trigger: bool
    action: Action
    enforced: Action
    cause: Cause
    tier: int
    route: RouteTuple
    tags: tuple[str, ...]


def route_of(policy: RoutingPolicy, tier: int, base: RouteTuple) -> RouteTuple:
    """The route of a tier by policy, as the routing model computes it.

    Args:
        policy: the routing policy.
        tier: 0 normal, 1 cautious, 2 strict.
        base: temperature, top_p, max_tokens (0 = no limit named); the fourth value is not used.
    """
    rule = policy.tiers[tier]
    temperature, top_p, max_tokens, _ = base
    if rule.temperature is not None:
        low, high = rule.temperature
        temperature = min(max(temperature, low), high)
    if rule.top_p is not None:
        top_p = min(top_p, rule.top_p)
    if rule.max_tokens is not None:
        max_tokens = min(max_tokens, rule.max_tokens) if max_tokens > 0 else rule.max_tokens
    return temperature, top_p, max(max_tokens, 0.0), float(rule.decoder)


def _rank(rules: Rules, facts: Facts) -> int:
    ranks = [0, _DEGRADE if facts.tier or facts.alarm or facts.floor or facts.exhausted else 0]
    if facts.trigger or (facts.floor and rules.hard_fail_on_floor):
        ranks.append(_BLOCK)
    if facts.exhausted or (facts.failed and rules.on_failure == "static"):
        ranks.append(ACTIONS.index(rules.static_action))
    if facts.failed and rules.on_failure == "closed":
        ranks.append(_BLOCK)
    return max(ranks)


def _cause(facts: Facts, rank: int) -> Cause:
    causes: tuple[tuple[bool, Cause], ...] = (
        (facts.failed, "degraded"),
        (facts.trigger, "av"),
        (facts.exhausted, "budget"),
        (facts.floor, "policy"),
        (facts.alarm, "detector"),
        (rank > 0, "policy"),
    )
    return next((cause for there, cause in causes if there), "")


def _route(facts: Facts, rank: int, policy: RoutingPolicy, base: RouteTuple) -> RouteTuple:
    if facts.route is not None and facts.tier == rank:
        return facts.route
    if rank == _DEGRADE and facts.held is not None:
        return facts.held
    return route_of(policy, rank, base)


def decide(rules: Rules, facts: Facts, *, policy: RoutingPolicy, base: RouteTuple) -> Decision:
    """The decision about a step.

    Args:
        rules: the settings.
        facts: what is known.
        policy: for routes that the routing model did not give.
        base: temperature, top_p, max_tokens as the caller uses them.
    """
    if facts.quiet:
        # most steps; what follows says the same of them
        enforced: Action = "allow"
        route = facts.route if facts.route is not None else route_of(policy, 0, base)
        return Decision(False, False, "allow", enforced, "", 0, route, ())
    rank = _rank(rules, facts)
    route = _route(facts, rank, policy, base)
    action = ACTIONS[rank]
    cause = _cause(facts, rank)
    return Decision(
        verdict=facts.trigger or facts.alarm or facts.floor,
        trigger=facts.trigger,
        action=action,
        enforced=action if rules.mode == "enforce" else "allow",
        cause=cause,
        tier=rank,
        route=route,
        tags=(action, cause) if rank and cause else (),
    )


def decide_by(
    bound: Bound, facts: Facts, *, policy: RoutingPolicy, base: RouteTuple, whose: Mapping[str, Any]
) -> Decision:
    """The decision about a step by a policy's table.

    The tags say which rows held, severest first.

    Args:
        bound: of the subject's policy.
        facts: what is known.
        policy: for routes that the routing model did not give.
        base: temperature, top_p, max_tokens as the caller uses them.
        whose: subject and `context`, for rows with an expression.
    """
    verdict = engine.decide(bound.table, facts.risk, mode=bound.mode, whose=whose)
    tier = bound.routing.tiers[SEVERITY[verdict.action]]
    cause = "degraded" if facts.failed else verdict.cause
    said = (verdict.action, cause) if verdict.action != "allow" and cause else ()
    rows = tuple(f"rule:{name}"[:_MAX_TAG] for name in verdict.because)
    return Decision(
        verdict=facts.trigger or facts.alarm or facts.floor,
        trigger=facts.trigger,
        action=verdict.action,
        enforced=verdict.enforced,
        cause=cause,
        tier=tier,
        route=bound.routing.tightened(_route(facts, tier, policy, base), tier),
        tags=(*said, *bound.routing.tags, *rows)[:_MAX_TAGS],
    )
