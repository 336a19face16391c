"""The decision engine: what is known about a step, and a table of rows, to an action.

Every condition of a row is a floor under a risk, and the severest action of the rows that hold is taken. So more risk
never gives a milder action, whatever a table says: a table can only be wrong in being too strict or too mild.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, get_args

Action = Literal["allow", "degrade", "throttle", "ask_for_review", "escalate_to_human", "block"]
Cause = Literal["detector", "av", "policy", "budget", "degraded", "trust", "slo"]
Mode = Literal["enforce", "monitor"]
#: From mild to severe.
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)
SEVERITY: Final[Mapping[str, int]] = {name: rank for rank, name in enumerate(ACTIONS)}


@dataclass(frozen=True, slots=True)
class Risk:
    """What is known about a step; larger is riskier everywhere.

    Attributes:
        score: of the step, 0 to 1.
        tier: of the routing model, 0 to 2.
        alarm: the fast alarm, of this step or held.
        trigger: the hypothesis was rejected.
        floor: the newest entropy is under the policy's floor.
        exhausted: no budget is left that could trigger.
        spent: share of the epoch's budget that is spent, 0 to 1.
        failed: a part that the decision needs did not work.
        distrust: 1 - trust of the subject, 0 to 1.
        pressure: latency over its objective, 0 and up.
    """

    score: float = 0.0
    tier: int = 0
    alarm: bool = False
    trigger: bool = False
    floor: bool = False
    exhausted: bool = False
    spent: float = 0.0
    failed: bool = False
    distrust: float = 0.0
    pressure: float = 0.0


#: Members of `Risk`, the names that a row's conditions may have.
RISKS: Final = tuple(f.name for f in fields(Risk))
FLAGS: Final = frozenset({"alarm", "trigger", "floor", "exhausted", "failed"})


About = Callable[[Mapping[str, Any]], bool | None]
_NOBODY: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Row:
    """One row: when every risk is at least its floor, the action is at least this one.

    Attributes:
        name: for explanations.
        when: floor by member of `Risk`; a flag's floor is true. Without any the row always holds.
        action: at least this.
        cause: what is said.
        cel: expression of `about`, of the subject and its context; a row for which it is false does not hold. It sees
            no risk.
        about: the compiled expression.
    """

    name: str
    when: Mapping[str, float | bool]
    action: Action
    cause: Cause
    cel: str = ""
    about: About | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what would not be monotone.

        Raises:
            ValueError: a condition is unknown, or a flag's floor is not true.
        """
        for member, floor in self.when.items():
            if member not in RISKS:
                msg = f"{member} is no risk"
                raise ValueError(msg)
            if (member in FLAGS) is not isinstance(floor, bool) or floor is False:
                msg = f"{member} takes {'true' if member in FLAGS else 'a number'}"
                raise ValueError(msg)

    def holds(self, risk: Risk, whose: Mapping[str, Any] = _NOBODY) -> bool:
        """Whether every condition is met; NaN counts as the greatest risk.

        Args:
            risk: what is known.
            whose: what `about` is asked of; where it cannot say, the row holds.
        """
        # `not <` and not `>=`: a comparison with NaN is false
        if any(getattr(risk, member) < floor for member, floor in self.when.items()):
            return False
        return self.about is None or self.about(whose) is not False


@dataclass(frozen=True, slots=True)
class Defaults:
    """What decisions follow from where no policy says otherwise: the shim's settings.

    Attributes:
        mode: whether actions are enforced.
        on_failure: what is done when a part does not work: block, decide on what is known, or `static_action`.
        static_action: also the least that is done when the budget is exhausted.
        hard_fail_on_floor: block, not degrade, under the entropy floor.
    """

    mode: Mode = "enforce"
    on_failure: Literal["closed", "open", "static"] = "closed"
    static_action: Action = "degrade"
    hard_fail_on_floor: bool = False

    def table(self) -> tuple[Row, ...]:
        """As rows, in the order in which causes are named."""
        failed: Action = {"closed": "block", "open": "allow", "static": self.static_action}[self.on_failure]  # type: ignore[assignment] # all are actions
        exhausted = max("degrade", self.static_action, key=SEVERITY.__getitem__)
        floor: Action = "block" if self.hard_fail_on_floor else "degrade"
        return (
            Row("failed", {"failed": True}, failed, "degraded"),
            Row("trigger", {"trigger": True}, "block", "av"),
            Row("exhausted", {"exhausted": True}, exhausted, "budget"),
            Row("floor", {"floor": True}, floor, "policy"),
            Row("alarm", {"alarm": True}, "degrade", "detector"),
            Row("tier", {"tier": 1}, "degrade", "policy"),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the table says.

    Attributes:
        action: the severest of the rows that hold.
        enforced: the action, or `allow` where the mode only watches.
        cause: of the first such row in the table, "" for `allow`.
        because: names of all rows that hold, severest first: the explanation.
    """

    action: Action
    enforced: Action
    cause: Cause | Literal[""]
    because: tuple[str, ...]


def decide(table: Sequence[Row], risk: Risk, *, mode: Mode = "enforce", whose: Mapping[str, Any] = _NOBODY) -> Verdict:
    """Decide.

    Args:
        table: rows in any order; order only breaks ties of the cause.
        risk: what is known.
        mode: whether the action is enforced.
        whose: subject and `context`, for rows with an expression.
    """
    held = sorted((row for row in table if row.holds(risk, whose)), key=lambda row: -SEVERITY[row.action])
    if not held or held[0].action == "allow":
        return Verdict("allow", "allow", "", tuple(row.name for row in held))
    first = held[0]
    enforced: Action = first.action if mode == "enforce" else "allow"
    return Verdict(first.action, enforced, first.cause, tuple(row.name for row in held))
