"""Decisions of a baseline and a candidate compared in bounded space: what changed into what, how often, where first."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar_api.traffic.lines import Line
from sidecar_api.traffic.outcome import Outcome, different, moved

#: Generations remembered as under way; one that comes again after so many others counts as another one.
_LIVE: Final = 16_384
_EXAMPLES: Final = 20
_FIRST: Final = 100


@dataclass(slots=True)
class Diff:
    """The comparison so far.

    Attributes:
        same, changed: decisions.
        moved: decisions that are the same with other scores or p-values.
        actions, verdicts: (baseline, candidate) to how many: the confusion tables.
        members: how often each member differed.
        examples: the first changed decisions, as both sides have them.
        first: where the first generations that differ do so first.
        sessions, differing: generations seen, and those of them that differ somewhere.
    """

    same: int = 0
    changed: int = 0
    moved: int = 0
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    members: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)
    first: list[dict[str, Any]] = field(default_factory=list)
    sessions: int = 0
    differing: int = 0
    _live: OrderedDict[tuple[str, str, str], bool] = field(default_factory=OrderedDict)

    def add(self, line: Line, baseline: Outcome, candidate: Outcome) -> None:
        """Compare the outcomes of one request."""
        names = different(baseline, candidate)
        self.actions[baseline.action, candidate.action] += 1
        self.verdicts[baseline.verdict, candidate.verdict] += 1
        self.members.update(names)
        before = None if line.request.step_id == 0 else self._live.get(line.session)
        if before is None:
            self.sessions += 1
        if names:
            self.changed += 1
            self._note(line, names, baseline, candidate, new=not before)
        else:
            self.same += 1
            self.moved += moved(baseline, candidate)
        self._live[line.session] = bool(names) or bool(before)
        self._live.move_to_end(line.session)
        if len(self._live) > _LIVE:
            self._live.popitem(last=False)

    def _note(self, line: Line, names: tuple[str, ...], baseline: Outcome, candidate: Outcome, *, new: bool) -> None:
        where = {"line": line.number, "session": "/".join(line.session), "step": line.request.step_id}
        if len(self.examples) < _EXAMPLES:
            self.examples.append(
                {**where, "differs": list(names), "baseline": baseline.shown(), "candidate": candidate.shown()}
            )
        if new:
            self.differing += 1
            if len(self.first) < _FIRST:
                self.first.append({**where, "differs": list(names)})

    def to_json(self) -> dict[str, Any]:
        """All of it; tables as lists of [baseline, candidate, how many]."""
        return {
            "same": self.same,
            "changed": self.changed,
            "moved": self.moved,
            "sessions": self.sessions,
            "sessions_differing": self.differing,
            "members": dict(self.members),
            "actions": [[a, b, n] for (a, b), n in sorted(self.actions.items())],
            "verdicts": [[a, b, n] for (a, b), n in sorted(self.verdicts.items())],
            "first_differing": self.first,
            "examples": self.examples,
        }
