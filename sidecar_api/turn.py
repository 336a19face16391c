"""One step on its way through the dataplane, and the rules that it is judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sidecar_api.decision import Bound, Decision, Facts, RouteTuple, Rules, decide, decide_by
from sidecar_api.idempotency import Claim
from sidecar_api.outcome import Call, Quota, Stages
from sidecar_api.pins import Pins
from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.sessions import Session
from sidecar_api.windows import HoldRules, Staged
from tcd.risk_av import Reservation, RuleName
from tcd.trust.policies import SUBJECT


@dataclass(slots=True)
class Turn:
    """One step on its way through the dataplane; the members without a default are known from the start.

    `rules` are those in force when the step began: a reload in between does not change them. `lost` says why nothing
    can be reserved for it, or is empty. `caller` is the digest of the inputs that a direct caller sent to the ensemble,
    empty for the shim's own rows.
    """

    session: Session
    request: DiagnoseRequest
    call: Call
    quota: Quota
    claim: Claim | None
    stages: Stages
    began: float
    rules: JudgeRules
    staged: Staged = field(init=False)
    pins: Pins = field(init=False)
    base: RouteTuple = field(init=False)
    reservation: Reservation | None = None
    cost: float = 0.0
    reserved: bool = False
    first: bool = False
    caller: str = ""
    lost: str = ""


@dataclass(frozen=True, slots=True)
class JudgeRules:
    """What a conclusion follows from: the settings, and the policy of the subject where there is one.

    Attributes:
        decision: the settings' part of a decision.
        hold, entropy_floor: how scores become alarms.
        unit, rule, durable: of the controller.
        policy_ref, policy: name and digest of the policy.
        config_hash: digest of the settings.
        receipt, witness: whether decisions have receipts, and these have witness segments.
        bound: the table that decides; None = the settings do.
        deadline: seconds that a decision may take at most by policy.
        record: whether decisions go into the decision log.
        patches: names of the patches in force.
    """

    decision: Rules
    hold: HoldRules
    entropy_floor: float | None
    unit: str
    rule: RuleName
    durable: bool
    policy_ref: str
    policy: str
    config_hash: str
    receipt: bool = True
    witness: bool = True
    bound: Bound | None = None
    deadline: float = math.inf
    record: bool = False
    patches: tuple[str, ...] = ()


@dataclass(slots=True)
class Pressure:
    """Latency of late over its objective: an average whose memory is about a hundred decisions."""

    objective: float = math.inf
    value: float = 0.0

    def seen(self, seconds: float) -> None:
        """A decision took so long."""
        self.value += 0.01 * (seconds / self.objective - self.value)


def decided(turn: Turn, facts: Facts) -> Decision:
    """What follows from the facts by the rules of the step."""
    decision = _by_rules(turn, facts)
    if not turn.rules.patches:
        return decision
    names = tuple(f"patch:{name}"[:64] for name in turn.rules.patches)
    return msgspec.structs.replace(decision, tags=(*decision.tags, *names)[:16])


def _by_rules(turn: Turn, facts: Facts) -> Decision:
    bound = turn.rules.bound
    if bound is None:
        return decide(turn.rules.decision, facts, policy=turn.pins.policy, base=turn.base)
    whose: dict[str, Any] = {}
    if bound.asks:
        request = turn.request
        whose = {**{name: getattr(request, name) for name in SUBJECT}, "context": request.context}
    return decide_by(bound, facts, policy=turn.pins.policy, base=turn.base, whose=whose)
