"""What a check finds: the largest deviation per rule, and why a rule is not compared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Status = Literal["ok", "deviates", "not implemented", "not compared"]
#: Relative tolerance of levels, e-values and distances.
RELATIVE: Final = 1e-9


class Malformed(ValueError):
    """A file is none that is known, or not of the form that it claims."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one rule.

    Attributes:
        rule: its name in the file.
        status: `ok`; `deviates`; `not implemented`: tcd should have the rule and has not, which fails; `not
            compared`: tcd does not offer it, which does not fail.
        deviation: largest deviation, NaN where nothing was compared.
        tolerance: what it may be.
        compared: values compared.
        note: decisions that differ, or why nothing was compared.
    """

    rule: str
    status: Status
    deviation: float = math.nan
    tolerance: float = RELATIVE
    compared: int = 0
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether this makes the file fail."""
        return self.status in {"deviates", "not implemented"}


def relative(got: float, want: float) -> float:
    """Relative deviation; infinite where one is not finite and the other is."""
    if got == want:
        return 0.0
    if not (math.isfinite(got) and math.isfinite(want)):
        return math.inf
    return abs(got - want) / max(abs(want), 1e-300)


def absolute(got: float, want: float) -> float:
    """Absolute deviation; infinite for a NaN."""
    return abs(got - want) if math.isfinite(got) and math.isfinite(want) else math.inf


def compare(rule: str, deviations: Iterable[float], *, tolerance: float = RELATIVE, wrong: int = 0) -> Finding:
    """The finding of a rule: its deviations, and decisions that differ."""
    found = list(deviations)
    if not found:
        msg = f"{rule}: no values"
        raise Malformed(msg)
    worst = max(found)
    # a NaN must not pass
    fine = worst <= tolerance and not wrong and not any(math.isnan(d) for d in found)
    note = f"{wrong} decisions differ" if wrong else ""
    return Finding(rule, "ok" if fine else "deviates", worst, tolerance, len(found), note)
