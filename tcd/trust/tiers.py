"""Routing tiers as data: which tier an action takes, and caps on a tier's route. Both only tighten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tcd.contract import TIERS
from tcd.trust.engine import ACTIONS, Action

_DEFAULT: Final[Mapping[Action, str]] = {
    "allow": "normal",
    "degrade": "cautious",
    "throttle": "cautious",
    "ask_for_review": "cautious",
    "escalate_to_human": "strict",
    "block": "strict",
}
Route = tuple[float, float, float, float]


def tiers_of(said: Mapping[Action, str]) -> tuple[int, ...]:
    """Index in `TIERS` by severity of the action.

    Args:
        said: what a policy says; the rest is the default.

    Raises:
        ValueError: a severer action would have a milder tier.
    """
    found = tuple(TIERS.index({**_DEFAULT, **said}[action]) for action in ACTIONS)
    for rank in range(1, len(ACTIONS)):
        if found[rank] < found[rank - 1]:
            msg = f"{ACTIONS[rank]} would have a milder tier than {ACTIONS[rank - 1]}"
            raise ValueError(msg)
    return found


@dataclass(frozen=True, slots=True)
class Routing:
    """The member `routing` of a policy.

    Attributes:
        tiers: index in `TIERS` by severity of the action.
        caps: by tier: of temperature, top_p and max_tokens; infinite = none.
        tags: added to every route.
    """

    tiers: tuple[int, ...]
    caps: tuple[tuple[float, float, float], ...]
    tags: tuple[str, ...]

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Routing:
        """From a resolved section."""
        caps = []
        for tier in TIERS:
            levels = (section, section.get(tier, {}))
            caps.append(
                tuple(
                    min((level[name] for level in levels if level.get(name) is not None), default=float("inf"))
                    for name in ("temperature_max", "top_p_max", "max_tokens")
                )
            )
        return cls(tiers_of(section.get("tier_of", {})), tuple(caps), tuple(section.get("tags", ())))  # type: ignore[arg-type] # three each

    def tightened(self, route: Route, tier: int) -> Route:
        """A route within the caps of its tier; max_tokens 0 means that none was named, unless the tier is strict."""
        temperature, top_p, max_tokens, decoder = route
        low, share, most = self.caps[tier]
        if most < max_tokens or (max_tokens == 0 and most != float("inf") and tier < len(TIERS) - 1):
            max_tokens = most
        return min(temperature, low), min(top_p, share), float(max_tokens), decoder
