"""Whether a candidate bundle loosens anything for anybody: what a reload may not do without a break-glass grant.

Decision tables are compared exactly: rows are floors under risks and the engine is monotone, so a table is at least as
strict as another one when it is so at the least risk of each row of the other. Subjects are compared at one
representative of every combination of patterns that the two bundles tell apart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tcd.contract import TIERS
from tcd.spotlight.policy import Policy as RewritePolicy
from tcd.trust.engine import ACTIONS, SEVERITY, Defaults, Risk, Row, decide
from tcd.trust.policies import SUBJECT, Policy, PolicySet
from tcd.trust.tiers import Routing

#: Representatives times policies that are looked at, about half a second; of bundles with more nothing is said but that
#: they may loosen.
MAX_WORK: Final = 400_000
#: Stands for what no pattern names.
_OTHER: Final = "\x7fother"
_WIDTH: Final = {"off": 0, "heuristic": 1, "operator": 1, "both": 2}


@dataclass(frozen=True, slots=True)
class Base:
    """The settings under which bundles are compared: what holds where a policy says nothing."""

    defaults: Defaults = field(default_factory=Defaults)
    hysteresis_on: float | None = None
    hysteresis_off: float = 0.9
    cooldown_steps: int = 0
    entropy_floor: float | None = None
    receipt: bool = True
    witness: bool = True
    rewrite_receipt: bool = False
    rewrite: RewritePolicy = field(default_factory=RewritePolicy)


@dataclass(frozen=True, slots=True)
class Loosening:
    """Something that a candidate loosens, and for whom (a representative)."""

    subject: Mapping[str, str]
    before: str
    after: str
    what: str


def loosenings(old: PolicySet | None, new: PolicySet | None, base: Base) -> list[Loosening]:
    """What `new` loosens, one representative of each; empty when nothing is."""
    bundles = tuple(policies for policies in (old, new) if policies is not None)
    if any(policy.cel is not None for policies in bundles for policy in policies) and _digest(old) != _digest(new):
        return [Loosening({}, "", "", "match.cel: whom an expression matches cannot be compared")]
    values = _values(bundles)
    kinds = math.prod(map(len, values))
    if kinds * sum(policies.widest for policies in bundles) > MAX_WORK:
        return [Loosening({}, "", "", f"{kinds} kinds of subjects are too many to be compared")]
    found: list[Loosening] = []
    seen: set[tuple[str, str]] = set()
    for chosen in itertools.product(*values):
        subject = dict(zip(SUBJECT, chosen, strict=True))
        before, after = (None if policies is None else policies.of(subject) for policies in (old, new))
        refs = _ref(before), _ref(after)
        if refs[0] != refs[1] and refs not in seen:
            seen.add(refs)
            found += [Loosening(subject, *refs, what) for what in _looser(before, after, base)]
    return found


def _digest(policies: PolicySet | None) -> str:
    return "" if policies is None else policies.digest


def _ref(policy: Policy | None) -> str:
    return "" if policy is None else policy.ref


def _values(bundles: tuple[PolicySet, ...]) -> list[list[str]]:
    """Values of each member of a subject that the bundles tell apart."""
    values: list[list[str]] = []
    for member in SUBJECT:
        patterns = {p.match[member] for policies in bundles for p in policies if member in p.match}
        found = {_OTHER, *(_join(pattern) for pattern in patterns)}
        found |= {_join(a, b) for a, b in itertools.permutations(sorted(p for p in patterns if "*" in p), 2)}
        values.append(sorted(found))
    return values


def _join(*patterns: str) -> str:
    """A value that all of the patterns match, where there is one that is easily found."""
    if "*" not in patterns[0]:
        return patterns[0]
    pieces = [pattern.split("*") for pattern in patterns]
    first = max((piece[0] for piece in pieces), key=len)
    last = max((piece[-1] for piece in pieces), key=len)
    middle = [part for piece in pieces for part in piece[1:-1]]
    return _OTHER.join([first, *middle, last])


def _looser(before: Policy | None, after: Policy | None, base: Base) -> Iterator[str]:
    old, new = _Effective.of(before, base), _Effective.of(after, base)
    if old.mode == "enforce" and new.mode == "monitor":
        yield "mode: enforce -> monitor"
    for row in old.table:
        if SEVERITY[row.action] and _milder(row, new.table):
            yield f"decision.{row.name}: less than {row.action} at its risk"
    for name, (looser, value) in new.values.items():
        if looser(old.values[name][1], value):
            yield f"{name}: {old.values[name][1]} -> {value}"


def _milder(row: Row, table: tuple[Row, ...]) -> bool:
    """Whether the table does less than the row at the row's least risk."""
    # a row with an expression counts for no row but one with the same expression
    counted = [other for other in table if not other.cel or other.cel == row.cel]
    at = Risk(**{name: (int(floor) if name == "tier" else floor) for name, floor in row.when.items()})  # type: ignore[arg-type] # members of Risk
    bare = [Row(other.name, other.when, other.action, other.cause) for other in counted]
    return SEVERITY[decide(bare, at).action] < SEVERITY[row.action]


_Rule = tuple[Callable[[Any, Any], bool], Any]


@dataclass(frozen=True, slots=True)
class _Effective:
    mode: str
    table: tuple[Row, ...]
    values: Mapping[str, _Rule]

    @classmethod
    def of(cls, policy: Policy | None, base: Base) -> _Effective:
        sections: Mapping[str, Mapping[str, Any]] = {} if policy is None else policy.sections
        detector, receipt = sections.get("detector", {}), sections.get("receipt", {})
        routing = Routing.of(sections.get("routing", {}))
        rewrite = base.rewrite if policy is None else policy.rewrite(base.rewrite)
        values: dict[str, _Rule] = {
            "detector.entropy_floor": (_fewer, detector.get("entropy_floor", base.entropy_floor)),
            "detector.hysteresis_on": (_later, detector.get("hysteresis_on", base.hysteresis_on)),
            "detector.hysteresis_off": (_later, detector.get("hysteresis_off", base.hysteresis_off)),
            "detector.cooldown_steps": (_fewer, detector.get("cooldown_steps", base.cooldown_steps)),
            "receipt.enable": (_fewer, receipt.get("enable", base.receipt)),
            "receipt.witness": (_fewer, receipt.get("witness", base.witness)),
            "receipt.rewrite": (_fewer, receipt.get("rewrite", base.rewrite_receipt)),
            **{
                f"routing.{tier}.{name}": (_more, cap)
                for tier, caps in zip(TIERS, routing.caps, strict=True)
                for name, cap in zip(("temperature_max", "top_p_max", "max_tokens"), caps, strict=True)
            },
            **{f"routing.tier_of.{a}": (_fewer, tier) for a, tier in zip(ACTIONS, routing.tiers, strict=True)},
            "rewrite.zones": (_narrower, rewrite.zones),
            "rewrite.shadow": (_more, rewrite.shadow),
            "rewrite.plain_tags": (_more, rewrite.plain_tags),
            "rewrite.on_failure": (_fewer, rewrite.on_failure == "closed"),
            "rewrite.marking": (_fewer, rewrite.marking != "none"),
            "rewrite.data_roles": (_lost, rewrite.data_roles),
            "rewrite.boundary_roles": (_lost, rewrite.boundary_roles),
            "rewrite.max_body": (_fewer, rewrite.max_body),
            "rewrite.max_output": (_fewer, rewrite.max_output),
        }
        if policy is None:
            return cls(base.defaults.mode, base.defaults.table(), values)
        return cls(policy.over(base.defaults).mode, policy.table(base.defaults), values)


def _fewer(old: Any, new: Any) -> bool:
    return bool((-1 if new is None else new) < (-1 if old is None else old))


def _more(old: Any, new: Any) -> bool:
    return bool(new > old)


def _later(old: Any, new: Any) -> bool:
    """A threshold that rises fires less; none is the verdict's own."""
    return new != old and (old is None or new is None or bool(new > old))


def _lost(old: Any, new: Any) -> bool:
    return not old <= new


def _narrower(old: Any, new: Any) -> bool:
    return new != old and _WIDTH[new] <= _WIDTH[old]
