"""Patches of settings in a running shim: the operations that an operator's plane calls, what is in force for a step.

Each step of a patch is in its journal before it is answered, and a leaf of the log. A patch may only tighten, as a
reload may.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from sidecar_api.bindings import defaults_of
from sidecar_api.receipting import Receipts
from sidecar_api.settle import Judge
from sidecar_api.turn import JudgeRules
from tcd.config import Settings
from tcd.errors import Conflict, Forbidden, TcdError, ValidationFailed
from tcd.journal import Journal
from tcd.reload import RELOADABLE
from tcd.trust import Event, Objective, Patch, PatchRuntime
from tcd.trust.patches import parted

_LOG: Final = logging.getLogger(__name__)
FILE: Final = "patches.journal"
#: Steps in the journal at most; then those of forgotten patches go to files of their own, for auditors.
MOST_EVENTS: Final = 8192
#: Settings that a patch may set, and where they act.
PATCHABLE: Final = (
    *("mode", "on_failure", "static_action", "hard_fail_on_floor", "entropy_floor", "deadline_ms"),
    *("hysteresis_on", "hysteresis_off", "cooldown_steps"),
)


def settled(settings: Settings, name: str, value: Any) -> Any:
    """A setting's value in the type that the setting has: "500" is 500.0.

    Raises:
        ValueError: the setting cannot have it.
    """
    return getattr(Settings(**{**{n: getattr(settings, n) for n in type(settings).model_fields}, name: value}), name)


def allowed_value(settings: Settings, name: str, value: Any) -> bool:
    """Whether a setting may have a value at all; none that a patch sets is infinite, which no JSON has."""
    try:
        found = settled(settings, name, value)
    except ValueError:
        return False
    return not isinstance(found, float) or math.isfinite(found)


def events_of(values: Iterable[Any]) -> list[Event]:
    """The events of a journal."""
    return [Event(**value) for value in values]


class Patches:
    """The patches of one shim.

    Attributes:
        settings: those in force; a reload puts others in their place.
    """

    def __init__(
        self,
        settings: Settings,
        judge: Judge,
        *,
        now: Callable[[], float],
        objective: Objective | None = None,
        journal: Journal | None = None,
    ) -> None:
        """Go on with the patches of `journal`; without one they end with the process.

        Args:
            settings: those in force.
            judge: writes the leaves.
            now: seconds since 1970.
            objective: when a patch is rolled back.
            journal: of their steps.
        """
        self.settings, self._judge, self._now = settings, judge, now
        self._journal, self._objective = journal, objective
        self._events = events_of(journal.values if journal is not None else ())
        self._runtime = self._replayed()
        self._active: tuple[Patch, ...] = ()
        self._look()

    def _replayed(self) -> PatchRuntime:
        def check(name: str) -> Callable[[Any], bool]:
            return lambda value: allowed_value(self.settings, name, value)

        checks = {name: check(name) for name in PATCHABLE}
        return PatchRuntime.replay(self._events, checks, objective=self._objective)

    # -- what operators do ---------------------------------------------------------------------------------

    def register(self, patch: str, *, setting: str, value: Any, actor: str, ttl: float, share: float = 1.0) -> Patch:
        """Propose a patch.

        Raises:
            ValidationFailed: the setting or its value is not allowed, or ttl or share is out of range.
            Forbidden: it would loosen.
            Conflict: there is one of this name, or too many are open.
            Unavailable: the journal cannot be written; nothing happened.
        """
        now, value = self._now(), self._tightens(setting, value)
        found = self._do(
            lambda: self._runtime.register(
                patch, setting=setting, value=value, actor=actor, now=now, ttl=ttl, share=share
            )
        )
        return self._runtime.get(found[0].patch)

    def approve(self, patch: str, *, actor: str) -> Patch:
        """Approve a patch; its author cannot.

        Raises:
            Forbidden, NotFound, Conflict, Unavailable: see `PatchRuntime.approve`; the journal cannot be written.
        """
        self._do(lambda: self._runtime.approve(patch, actor=actor, now=self._now()))
        return self._runtime.get(patch)

    def apply(self, patch: str, *, actor: str) -> Patch:
        """Put an approved patch in force, in place of one of the same setting that asks for no more.

        Raises:
            Forbidden: under the settings of now it would loosen.
            Conflict: it would end a patch that is stricter, for more subjects or for longer; that takes a roll-back.
            NotFound, Conflict, Unavailable: see `PatchRuntime.apply`; the journal cannot be written.
        """
        known, now = self._runtime.get(patch), self._now()
        self._tightens(known.setting, known.value)
        for other in self._active if known.state == "approved" else ():
            if other.setting == known.setting and now < other.ends and _weaker(known, other, now):
                msg = f"{other.id} is in force and asks for more: roll it back first, or make {patch} as strict"
                raise Conflict(msg)
        self._do(lambda: self._runtime.apply(patch, actor=actor, now=self._now()))
        return self._runtime.get(patch)

    def roll_back(self, patch: str, *, actor: str, reason: str, since: float | None = None) -> Patch:
        """End a patch that is in force.

        Args:
            patch: its name.
            actor: who.
            reason: for the log.
            since: when it was applied, to end no other one of this name; None: whichever it is.

        Raises:
            NotFound, Conflict, Unavailable: see `PatchRuntime.roll_back`; the journal cannot be written.
        """
        if since is not None and self._runtime.get(patch).since != since:
            msg = f"patch {patch} has taken another step since"
            raise Conflict(msg)
        self._do(lambda: self._runtime.roll_back(patch, actor=actor, now=self._now(), reason=reason))
        return self._runtime.get(patch)

    def withdraw(self, patch: str, *, actor: str) -> Patch:
        """Take back a patch that is not in force.

        Raises:
            NotFound, Conflict, Unavailable: see `PatchRuntime.withdraw`; the journal cannot be written.
        """
        self._do(lambda: self._runtime.withdraw(patch, actor=actor, now=self._now()))
        return self._runtime.get(patch)

    def __iter__(self) -> Any:
        """Patches in the order of registration."""
        return iter(self._runtime)

    def get(self, patch: str) -> Patch:
        """A patch.

        Raises:
            NotFound: there is none, or it is forgotten.
        """
        return self._runtime.get(patch)

    # -- what the dataplane does ---------------------------------------------------------------------------

    def rules(self, rules: JudgeRules, subject: str) -> JudgeRules:
        """The rules of a step with the patches that cover its subject (a keyed digest)."""
        now = self._now()
        mine = [patch for patch in self._active if now < patch.ends and patch.covers(subject)]
        return patched(rules, mine) if mine else rules

    @property
    def active(self) -> bool:
        """Whether any patch is in force for anybody."""
        return bool(self._active)

    def seen(self, subject: str, *, seconds: float, degraded: bool) -> None:
        """A step was answered; a patch whose canary misses its objective is rolled back."""
        slo = self.settings.slo_ms / 1000.0
        for patch in self._active:
            if patch.covers(subject):
                self._quietly(self._seen_by(patch.id, bad=degraded or seconds > slo))

    def _seen_by(self, patch: str, *, bad: bool) -> Callable[[], list[Event]]:
        return lambda: self._runtime.observe(patch, bad=bad, now=self._now())

    def tick(self) -> None:
        """End what has run out of time."""
        if self._active or any(p.state in {"registered", "approved"} for p in self._runtime):
            self._quietly(lambda: self._runtime.tick(self._now()))

    # -- inside --------------------------------------------------------------------------------------------

    def _tightens(self, setting: str, value: Any) -> Any:
        """The value as the setting has it; it only tightens."""
        if setting not in PATCHABLE or not allowed_value(self.settings, setting, value):
            msg = f"{setting} cannot be set to this at run time"
            raise ValidationFailed(msg, pointer="/setting")
        value = settled(self.settings, setting, value)
        if RELOADABLE[setting](getattr(self.settings, setting), value):
            msg = f"{setting} = {value!r} loosens: a patch only tightens"
            raise Forbidden(msg)
        return value

    def _do(self, work: Callable[[], list[Event]]) -> list[Event]:
        events = work()
        if events:
            self._keep(events)
        return events

    def _quietly(self, work: Callable[[], list[Event]]) -> None:
        try:
            self._do(work)
        except TcdError as error:
            _LOG.error("a step of a patch could not be kept: %s", error.detail)

    def _keep(self, events: list[Event]) -> None:
        values = [asdict(event) for event in events]
        try:
            if self._journal is not None:
                self._journal.append(values)
        except TcdError:
            # nothing happened: back to what the journal says
            self._runtime = self._replayed()
            self._look()
            raise
        self._events += events
        self._look()
        self._shorten()
        receipts = self._judge.receipts
        for event, value in zip(events, values, strict=True):
            _LOG.warning("patch %s: %s by %s %s", event.patch, event.kind, event.actor, event.reason)
            if receipts is not None:
                self._leaf(receipts, event, value)

    def _shorten(self) -> None:
        """Let go of the steps of forgotten patches; those that receipts may name stay in a file beside the journal."""
        if len(self._events) <= MOST_EVENTS:
            return
        needed, over = parted(self._events, self._runtime)
        try:
            if self._journal is not None:
                if over:
                    self._journal.set_aside([asdict(event) for event in over])
                self._journal.replace([asdict(event) for event in needed])
        except TcdError as error:
            # the next step tries again
            _LOG.error("the journal of patches could not be shortened: %s", error.detail)
            return
        self._events = needed

    def _leaf(self, receipts: Receipts, event: Event, value: dict[str, Any]) -> None:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        self._judge.put(
            receipts.admin(f"patch.{event.kind}", digest, actor=event.actor[:128] or "-"), lost=receipts.forget_acts
        )

    def _look(self) -> None:
        self._active = tuple(p for p in self._runtime if p.state == "active")

    def start(self) -> None:
        """Nothing to do: patches go on where the journal ends."""

    def stop(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()


def _weaker(new: Patch, other: Patch, now: float) -> bool:
    """Whether a patch in place of another one would ask for less, of fewer or other subjects, or for a shorter time."""
    # which subjects a share covers follows from the name: of two that are not whole neither covers the other
    return new.share < 1 or now + new.ttl < other.ends or RELOADABLE[new.setting](other.value, new.value)


def patched(rules: JudgeRules, patches: Sequence[Patch]) -> JudgeRules:
    """Rules with patches over them; where a policy is stricter than a patch, the policy stays."""
    mine = {patch.setting: patch.value for patch in patches}
    # the settings may have been tightened since the patch was applied: the stricter of the two
    mine = {
        name: value
        for name, value in mine.items()
        if not hasattr(rules.decision, name) or not RELOADABLE[name](getattr(rules.decision, name), value)
    }
    decision = replace(rules.decision, **{name: value for name, value in mine.items() if hasattr(rules.decision, name)})
    bound = rules.bound
    if bound is not None and mine.get("mode") == "enforce":
        bound = replace(bound, mode="enforce")
    if bound is not None and {"on_failure", "static_action", "hard_fail_on_floor"} & mine.keys():
        # the severest row that holds decides: adding the settings' rows only tightens
        bound = replace(bound, table=(*bound.table, *defaults_of(replace(rules, decision=decision)).table()))
    floor, hold = rules.entropy_floor, rules.hold
    if "entropy_floor" in mine:
        floor = max(mine["entropy_floor"], floor) if floor is not None else mine["entropy_floor"]
    if "hysteresis_on" in mine and hold.on is not None:
        hold = replace(hold, on=min(hold.on, mine["hysteresis_on"]))
    if "hysteresis_off" in mine:
        hold = replace(hold, off=min(hold.off, mine["hysteresis_off"]))
    if "cooldown_steps" in mine:
        hold = replace(hold, cooldown=max(hold.cooldown, mine["cooldown_steps"]))
    deadline = min(rules.deadline, mine.get("deadline_ms", math.inf) / 1000.0)
    return replace(
        rules,
        decision=decision,
        bound=bound,
        entropy_floor=floor,
        hold=hold,
        deadline=deadline,
        patches=tuple(patch.id for patch in patches),
    )
