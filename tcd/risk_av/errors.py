"""What the controller raises on purpose, beside `tcd.errors.NotFound` and `tcd.errors.Conflict`."""

from __future__ import annotations

from tcd.errors import ScoringError, TcdError, Unavailable


class LevelMismatch(ScoringError):
    """The scorer's trigger is not the comparison of its own p-value with the reserved level."""

    code = "level_mismatch"


class ReplayError(TcdError):
    """An event log does not follow from its own earlier events."""

    code = "replay_mismatch"


class BudgetUsedUp(Unavailable):
    """The epoch has no reservation left and does not roll by itself."""

    code = "budget_used_up"
