"""A finding: what was looked at, how it stands, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing stands.

    Attributes:
        check: what was looked at, stable.
        status: `fail` keeps tcd from working or its claims from holding, `warn` costs something, `skip` could not
            be looked at.
        detail: what was seen.
        remedy: what to do; there for `warn` and `fail`.
    """

    check: str
    status: Status
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        """Refuse a finding that leaves people alone.

        Raises:
            ValueError: something is wrong and there is no remedy.
        """
        if self.status in {"warn", "fail"} and not self.remedy:
            msg = f"{self.check}: no remedy"
            raise ValueError(msg)

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return asdict(self)


def worst(findings: Iterable[Finding]) -> int:
    """Exit status: 0 nothing wrong, 1 warnings, 2 failures."""
    found = {finding.status for finding in findings}
    return 2 if "fail" in found else int("warn" in found)
