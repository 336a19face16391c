"""Which rules apply to a request: one immutable version of all of them, made from the settings and a bundle.

A request takes its rules once, when it begins; a reload puts another `Bindings` in the place of this one. So no answer
is made by parts of two versions.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sidecar_api.decision import Bound
from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.turn import JudgeRules
from sidecar_api.windows import HoldRules
from tcd.trust import BadBundle, Defaults, Policy, PolicySet
from tcd.trust.policies import SUBJECT
from tcd.trust.tiers import Routing

_CACHED: Final = 8192
_Key = tuple[str, ...]
#: From the rules of a subject to those with a patch in force; the digest is of its name.
Patched = Callable[[DiagnoseRequest, JudgeRules], JudgeRules]


def defaults_of(rules: JudgeRules) -> Defaults:
    """The settings' part of decisions, as policies start from it."""
    decision = rules.decision
    return Defaults(
        mode=decision.mode,
        on_failure=decision.on_failure,
        static_action=decision.static_action,
        hard_fail_on_floor=decision.hard_fail_on_floor,
    )


def bound_rules(base: JudgeRules, policy: Policy) -> JudgeRules:
    """The rules of a policy over the settings'.

    Raises:
        BadBundle: it says what cannot be said for one subject.
    """
    sections, detector, receipt = policy.sections, policy.sections["detector"], policy.sections["receipt"]
    if sections["av"].get("alpha") is not None:
        msg = (
            f"{policy.file}:{policy.line}: policy {policy.name}: av.alpha: a budget is a tenant's and not a policy's; "
        )
        msg += "its level is TCD_ALPHA"
        raise BadBundle(msg)
    hold = HoldRules(
        detector.get("hysteresis_on", base.hold.on),
        detector.get("hysteresis_off", base.hold.off),
        detector.get("cooldown_steps", base.hold.cooldown),
    )
    if hold.on is not None and hold.off > hold.on:
        msg = (
            f"{policy.file}:{policy.line}: policy {policy.name}: detector.hysteresis_off {hold.off} is above {hold.on}"
        )
        raise BadBundle(msg)
    defaults = defaults_of(base)
    table = policy.table(defaults)
    deadline = sections["failure"].get("deadline_ms")
    return replace(
        base,
        hold=hold,
        entropy_floor=detector.get("entropy_floor", base.entropy_floor),
        policy_ref=policy.ref,
        policy=policy.digest,
        receipt=receipt.get("enable", base.receipt),
        witness=receipt.get("witness", base.witness),
        bound=Bound(
            table=table,
            mode=policy.over(defaults).mode,
            routing=Routing.of(sections["routing"]),
            asks=any(row.about is not None for row in table),
        ),
        deadline=math.inf if deadline is None else deadline / 1000.0,
    )


class Bindings:
    """The rules of every subject."""

    def __init__(self, base: JudgeRules, policies: PolicySet | None = None) -> None:
        """Rules of `policies` over the settings' `base`.

        Raises:
            BadBundle: a policy says what cannot be said for one subject.
        """
        self.base = base
        self.policies = policies
        self._made = {policy.ref: bound_rules(base, policy) for policy in (policies if policies is not None else ())}
        self._known: OrderedDict[_Key, JudgeRules] = OrderedDict()

    def of(self, request: DiagnoseRequest) -> JudgeRules:
        """The rules of a request; the settings' where no policy applies."""
        if self.policies is None:
            return self.base
        key = (
            *(request.tenant, request.user, request.session),
            *(request.model_id, request.gpu_id, request.task, request.lang),
        )
        found = self._known.get(key)
        if found is None:
            policy = self.policies.of(dict(zip(SUBJECT, key, strict=True)))
            found = self._known[key] = self.base if policy is None else self._made[policy.ref]
            if len(self._known) > _CACHED:
                self._known.popitem(last=False)
        return found
