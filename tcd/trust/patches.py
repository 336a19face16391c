"""Patches of settings at run time: registered, approved by a second person, applied for a time to a share of traffic.

A pure state machine over events. What happened is the list of events; replaying it gives the same state, so a store
that keeps the list survives a restart with its patches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from tcd.errors import Conflict, Forbidden, NotFound, ValidationFailed

State = Literal["registered", "approved", "active", "rolled_back", "expired", "withdrawn"]
Kind = Literal["register", "approve", "apply", "roll_back", "expire", "withdraw"]
#: What may follow on what.
_NEXT: Final[Mapping[Kind, frozenset[State]]] = {
    "approve": frozenset({"registered"}),
    "apply": frozenset({"approved"}),
    "roll_back": frozenset({"active"}),
    "expire": frozenset({"registered", "approved", "active"}),
    "withdraw": frozenset({"registered", "approved"}),
}
_AFTER: Final[Mapping[Kind, State]] = {
    "approve": "approved",
    "apply": "active",
    "roll_back": "rolled_back",
    "expire": "expired",
    "withdraw": "withdrawn",
}
MAX_TTL: Final = 7 * 86_400.0
#: Patches that are not over, of all and of one author.
MAX_OPEN: Final = 256
MAX_OWN: Final = 32
#: Patches that are over and still known: those that were in force, and those that never were. The oldest go first.
MAX_ENDED: Final = 256
MAX_UNUSED: Final = 64
_OPEN: Final[frozenset[State]] = frozenset({"registered", "approved", "active"})


@dataclass(frozen=True, slots=True)
class Objective:
    """When a patch is rolled back: at least `least` answers of the canary, more than `share` of them late or failed."""

    least: int = 50
    share: float = 0.05


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a patch; the first has its terms. JSON-ready members only."""

    kind: Kind
    patch: str
    actor: str
    at: float
    reason: str = ""
    terms: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch and where it stands.

    Attributes:
        id: its name.
        setting, value: what it sets.
        share: of subjects that have it, in (0, 1].
        ttl: seconds from its application until it ends.
        state: where it stands.
        author, approver: two people.
        since: seconds of the last step.
        ends: seconds when it ends by itself; infinite before it is applied.
        answers, bad: of the canary since it was applied.
    """

    id: str
    setting: str
    value: Any
    share: float
    ttl: float
    state: State
    author: str
    approver: str = ""
    since: float = 0.0
    ends: float = math.inf
    answers: int = 0
    bad: int = 0

    @property
    def used(self) -> bool:
        """Whether it is in force, or was: then receipts may name it."""
        return self.ends < math.inf

    def covers(self, subject: str) -> bool:
        """Whether a subject is in the canary: always the same ones for one patch."""
        digest = hashlib.sha256(f"{self.id}\0{subject}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64


Check = Callable[[Any], bool]


class PatchRuntime:
    """The patches that are open, and the last ones that are over.

    Every mutation returns the events that it made; keep them in order. A name may be used again when its patch is
    forgotten.
    """

    def __init__(self, allowed: Mapping[str, Check], *, objective: Objective | None = None) -> None:
        """Allow patches of the settings in `allowed`, with values that its checks accept."""
        self._allowed = dict(allowed)
        self._objective = objective or Objective()
        self._patches: dict[str, Patch] = {}
        #: Names of those that are over, in the order in which they ended.
        self._ended: dict[str, None] = {}

    @classmethod
    def replay(
        cls, events: Iterable[Event], allowed: Mapping[str, Check], *, objective: Objective | None = None
    ) -> PatchRuntime:
        """The runtime after these events."""
        runtime = cls(allowed, objective=objective)
        for event in events:
            runtime._take(event)
        return runtime

    def register(
        self, patch: str, *, setting: str, value: Any, actor: str, now: float, ttl: float, share: float = 1.0
    ) -> list[Event]:
        """Propose a patch.

        Raises:
            ValidationFailed: the setting or its value is not allowed, or ttl or share is out of range.
            Conflict: there is one of this name, or too many are open, of this author or of all.
        """
        if setting not in self._allowed or not self._allowed[setting](value):
            msg = f"{setting} cannot be set to this at run time"
            raise ValidationFailed(msg, pointer="/setting")
        if not (0 < ttl <= MAX_TTL and 0 < share <= 1):
            msg = f"ttl is in (0, {MAX_TTL:g}] seconds and share in (0, 1]"
            raise ValidationFailed(msg, pointer="/ttl")
        waiting = [p.author for p in self if p.state in _OPEN]
        if patch in self._patches or len(waiting) >= MAX_OPEN or waiting.count(actor) >= MAX_OWN:
            msg = f"patch {patch} is known, or {MAX_OPEN} are open, or {MAX_OWN} of yours"
            raise Conflict(msg)
        terms = {"setting": setting, "value": value, "ttl": ttl, "share": share}
        return [self._take(Event("register", patch, actor, now, terms=terms))]

    def approve(self, patch: str, *, actor: str, now: float) -> list[Event]:
        """Approve a patch.

        Raises:
            Forbidden: its author cannot.
            NotFound, Conflict: there is none, or it is not waiting for approval.
        """
        if self._get(patch).author == actor:
            msg = "another person than the author approves"
            raise Forbidden(msg)
        return [self._step("approve", patch, actor, now)]

    def apply(self, patch: str, *, actor: str, now: float) -> list[Event]:
        """Put an approved patch in force; one of the same setting that was in force ends.

        Raises:
            NotFound, Conflict: there is none, or it is not approved.
        """
        found = self._get(patch)
        self._may("apply", found)
        out = [
            self._step("roll_back", other.id, actor, now, reason=f"replaced by {patch}")
            for other in list(self)
            if other.state == "active" and other.setting == found.setting
        ]
        return [*out, self._step("apply", patch, actor, now)]

    def withdraw(self, patch: str, *, actor: str, now: float) -> list[Event]:
        """Take back a patch that is not in force.

        Raises:
            NotFound, Conflict: there is none, or it is in force or over.
        """
        return [self._step("withdraw", patch, actor, now)]

    def roll_back(self, patch: str, *, actor: str, now: float, reason: str = "asked for") -> list[Event]:
        """End a patch that is in force.

        Raises:
            NotFound, Conflict: there is none, or it is not in force.
        """
        return [self._step("roll_back", patch, actor, now, reason=reason)]

    def observe(self, patch: str, *, bad: bool, now: float) -> list[Event]:
        """Count an answer under a patch; rolls it back when the objective is missed. No event otherwise."""
        found = self._patches.get(patch)
        if found is None or found.state != "active":
            return []
        found = replace(found, answers=found.answers + 1, bad=found.bad + bad)
        self._patches[patch] = found
        goal = self._objective
        if found.answers < goal.least or found.bad <= goal.share * found.answers:
            return []
        reason = f"{found.bad} of {found.answers} answers missed the objective"
        return [self._step("roll_back", patch, "slo", now, reason=reason)]

    def tick(self, now: float) -> list[Event]:
        """End what has run out of time, in the order of names."""
        over = sorted(p.id for p in self if p.state in _OPEN and now >= _deadline(p))
        return [self._step("expire", patch, "clock", now) for patch in over]

    def overrides(self, subject: str, now: float) -> dict[str, Any]:
        """Settings in force for a subject; nothing that has run out, whether `tick` was called or not."""
        live = (p for p in self if p.state == "active" and now < p.ends and p.covers(subject))
        return {p.setting: p.value for p in live}

    def __iter__(self) -> Any:
        """Patches in the order of registration."""
        return iter(self._patches.values())

    def get(self, patch: str) -> Patch:
        """A patch.

        Raises:
            NotFound: there is none.
        """
        return self._get(patch)

    def _get(self, patch: str) -> Patch:
        if patch not in self._patches:
            msg = f"no patch {patch}"
            raise NotFound(msg)
        return self._patches[patch]

    @staticmethod
    def _may(kind: Kind, patch: Patch) -> None:
        if patch.state not in _NEXT[kind]:
            msg = f"patch {patch.id} is {patch.state.replace('_', ' ')}"
            raise Conflict(msg)

    def _step(self, kind: Kind, patch: str, actor: str, now: float, *, reason: str = "") -> Event:
        self._may(kind, self._get(patch))
        return self._take(Event(kind, patch, actor, now, reason))

    def _take(self, event: Event) -> Event:
        if event.kind == "register":
            terms = event.terms or {}
            self._patches[event.patch] = Patch(
                event.patch, **terms, state="registered", author=event.actor, since=event.at
            )
            return event
        known = self._get(event.patch)
        self._may(event.kind, known)
        changed = replace(known, state=_AFTER[event.kind], since=event.at)
        if event.kind == "approve":
            changed = replace(changed, approver=event.actor)
        elif event.kind == "apply":
            changed = replace(changed, ends=event.at + known.ttl, answers=0, bad=0)
        self._patches[event.patch] = changed
        if changed.state not in _OPEN:
            self._ended[event.patch] = None
            self._forget(used=changed.used)
        return event

    def _forget(self, *, used: bool) -> None:
        """Forget the oldest of those that are over, of those that were in force or of those that never were."""
        same = [name for name in self._ended if self._patches[name].used is used]
        for name in same[: -(MAX_ENDED if used else MAX_UNUSED)]:
            del self._patches[name], self._ended[name]


def parted(events: Sequence[Event], runtime: PatchRuntime) -> tuple[list[Event], list[Event]]:
    """The events that a runtime needs to be replayed, and those of forgotten patches that were in force.

    Args:
        events: all, in order.
        runtime: after them.

    Returns:
        What is needed, what is for auditors only; the rest, of patches that no receipt can name, is in neither.
    """
    runs: dict[str, list[int]] = {}
    over: list[list[int]] = []
    for at, event in enumerate(events):
        if event.kind == "register":
            # a name that was forgotten and is used again
            over.append(runs.pop(event.patch, []))
            runs[event.patch] = []
        runs[event.patch].append(at)
    known = {patch.id for patch in runtime}
    over += [run for name, run in runs.items() if name not in known]
    kept = sorted(at for name, run in runs.items() if name in known for at in run)
    used = sorted(at for run in over if any(events[at].kind == "apply" for at in run) for at in run)
    return [events[at] for at in kept], [events[at] for at in used]


def _deadline(patch: Patch) -> float:
    """When a patch ends: applied, after its time; before that, after the longest time there is."""
    return patch.ends if patch.state == "active" else patch.since + MAX_TTL
