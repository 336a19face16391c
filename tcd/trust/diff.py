"""What a candidate bundle would change (subjects, decisions of a recorded log), and what looks wrong in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tcd.trust.cel import Condition
from tcd.trust.engine import ACTIONS, SEVERITY, Action, Defaults, Risk, decide
from tcd.trust.policies import Policy, PolicySet

Subject = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rebound:
    """A subject to which another policy, or another version of it, would apply; `changes` are members old to new."""

    subject: Subject
    before: str
    after: str
    changes: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Redecided:
    """An entry of a log that would be decided differently."""

    index: int
    before: Action
    after: Action
    enforced_before: Action
    enforced_after: Action
    milder: bool


@dataclass(frozen=True, slots=True)
class Logged:
    """A recorded decision.

    Attributes:
        subject: whose; without `user` and `session` where the record does not name them.
        risk: what was known.
        context: of the request; None where the record does not have it.
        action, enforced: what was decided; None where only bundles are compared.
        ref: `policy_ref` that decided.
        missing: why it cannot be replayed, or empty.
    """

    subject: Subject
    risk: Risk
    context: Mapping[str, Any] | None = None
    action: Action | None = None
    enforced: Action | None = None
    ref: str = ""
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something in a bundle that is allowed and looks wrong."""

    file: str
    line: int
    policy: str
    code: str
    detail: str


def subjects_that_change(old: PolicySet, new: PolicySet, subjects: Iterable[Subject]) -> list[Rebound]:
    """Subjects whose policy differs in anything, in the order given."""
    out = []
    for subject in subjects:
        before, after = old.of(subject), new.of(subject)
        refs = _ref(before), _ref(after)
        if refs[0] != refs[1]:
            out.append(Rebound(subject, *refs, _changes(before, after)))
    return out


def decisions_that_change(
    old: PolicySet, new: PolicySet, log: Iterable[Logged], *, defaults: Defaults | None = None
) -> list[Redecided]:
    """Entries whose action, or what of it is enforced, differs; `defaults` are the settings of the shim."""
    out = []
    for index, entry in enumerate(log):
        before, after = (_decided(policies.of(entry.subject), entry, defaults) for policies in (old, new))
        if before != after:
            out.append(_redecided(index, before, after))
    return out


@dataclass(frozen=True, slots=True)
class Replay:
    """A log under a bundle.

    Attributes:
        entries: how many were read.
        changed: those that the bundle decides otherwise than they were decided.
        unknown: index and reason of those that the record does not say enough about.
    """

    entries: int
    changed: Sequence[Redecided]
    unknown: Sequence[tuple[int, str]]


def replay(policies: PolicySet, log: Iterable[Logged], *, defaults: Defaults | None = None) -> Replay:
    """What would have been decided otherwise, exactly; `defaults` are the settings of the shim."""
    needs = _needs(policies)
    changed, unknown, index = [], [], -1
    for index, entry in enumerate(log):
        lacks = sorted(needs - entry.subject.keys() - ({"context"} if entry.context is not None else set()))
        if entry.missing or lacks or entry.action is None or entry.enforced is None:
            unknown.append((index, entry.missing or f"the record has no {', '.join(lacks) or 'decision'}"))
            continue
        after = _decided(policies.of(entry.subject), entry, defaults)
        if after != (entry.action, entry.enforced):
            changed.append(_redecided(index, (entry.action, entry.enforced), after))
    return Replay(index + 1, changed, unknown)


def _needs(policies: PolicySet) -> set[str]:
    """Members of a record without which the bundle cannot be applied."""
    needs = {member for policy in policies for member in policy.match if member != "cel"}
    for policy in policies:
        needs |= policy.cel.variables if policy.cel is not None else set()
        for row in policy.rows:
            needs |= row.about.variables if isinstance(row.about, Condition) else set()
    return needs


def _redecided(index: int, before: tuple[Action, Action], after: tuple[Action, Action]) -> Redecided:
    milder = SEVERITY[after[1]] < SEVERITY[before[1]] or SEVERITY[after[0]] < SEVERITY[before[0]]
    return Redecided(index, before[0], after[0], before[1], after[1], milder)


def _decided(policy: Policy | None, entry: Logged, defaults: Defaults | None) -> tuple[Action, Action]:
    settings = defaults or Defaults()
    whose = {**entry.subject, "context": entry.context or {}}
    if policy is None:
        verdict = decide(settings.table(), entry.risk, mode=settings.mode)
    else:
        verdict = decide(policy.table(settings), entry.risk, mode=policy.over(settings).mode, whose=whose)
    return verdict.action, verdict.enforced


def _ref(policy: Policy | None) -> str:
    return "" if policy is None else policy.ref


def _flat(policy: Policy | None) -> dict[str, Any]:
    if policy is None:
        return {}
    flat: dict[str, Any] = {"mode": policy.mode}
    for section, members in policy.sections.items():
        flat |= {f"{section}.{name}": value for name, value in members.items()}
    return flat | {f"decision.{row.name}": (dict(row.when), row.action, row.cause, row.cel) for row in policy.rows}


def _changes(before: Policy | None, after: Policy | None) -> dict[str, tuple[Any, Any]]:
    old, new = _flat(before), _flat(after)
    names = sorted(old.keys() | new.keys())
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def lint(policies: PolicySet) -> list[Remark]:
    """Remarks on a bundle, in the order of precedence."""
    out: list[Remark] = []
    seen: dict[tuple[tuple[str, str], ...], Policy] = {}
    ordered: list[Policy] = list(policies)
    for policy in ordered:
        key = tuple(sorted(policy.match.items()))

        def remark(code: str, detail: str, policy: Policy = policy) -> None:
            out.append(Remark(policy.file, policy.line, policy.name, code, detail))

        if key in seen:
            remark("shadowed", f"{seen[key].name} has the same match and goes first")
        seen.setdefault(key, policy)
        if policy.sections["failure"].get("on_failure") == "open" and policy.mode != "monitor":
            remark("fails_open", "when a part fails, nothing is enforced")
        if not any(row.action == "block" and row.when.get("trigger") for row in policy.table()):
            remark("trigger_not_blocked", "a rejected hypothesis does not block")
        for action in sorted({row.action for row in policy.table() if not row.when and row.action != "allow"}):
            remark("always", f"a row without conditions: every decision is at least {action}")
    if ordered and ordered[-1].match:
        last = ordered[-1]
        out.append(Remark(last.file, last.line, last.name, "no_default", "no policy applies to everyone"))
    return out


def reachable(policy: Policy) -> set[Action]:
    """The actions that some risk leads to."""
    found: set[Action] = {"allow"} if not any(not row.when for row in policy.table()) else set()
    for row in policy.table():
        # the least risk at which the row holds; a severer row may hold there too
        found.add(decide(policy.table(), Risk(**row.when)).action)  # type: ignore[arg-type] # members of Risk
    return found & set(ACTIONS)
