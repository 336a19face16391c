"""The formats that are known, one line each: how a file is recognised, and what checks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tcd.conformance.controller import check_controller
from tcd.conformance.findings import Finding, Malformed
from tcd.conformance.http_signatures import check_request, is_request
from tcd.conformance.jcs import check_document, check_numbers, is_document, is_numbers
from tcd.conformance.online import check_online
from tcd.conformance.receipt_vectors import check_primitives, check_vectors, is_primitives, is_vectors
from tcd.conformance.receipts import (
    check_consistency,
    check_ed25519,
    check_inclusion,
    is_consistency,
    is_ed25519,
    is_inclusion,
)
from tcd.conformance.statistics import check_mewma_limits, check_statistics, is_statistics
from tcd.conformance.tlog import (
    check_examples,
    check_notes,
    check_proofs,
    check_tree,
    is_examples,
    is_notes,
    is_proofs,
    is_tree,
)

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checker:
    """A format: its name, what recognises it, what checks it."""

    name: str
    recognises: Callable[[Data], bool]
    check: Callable[[Data], list[Finding]]


@dataclass(frozen=True, slots=True)
class Report:
    """Findings of one file."""

    format: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        """Whether a rule deviates or is missing."""
        return any(finding.failed for finding in self.findings)


def _disputed(_: Data) -> list[Finding]:
    return [Finding("disputed", "not compared", note="peers disagree on these rules: the file is not golden")]


#: Add a format here.
CHECKERS: Final = (
    Checker("receipts", is_vectors, check_vectors),
    Checker("receipts' primitives", is_primitives, check_primitives),
    Checker("disputed", lambda d: str(d.get("about", "")).startswith("Peers disagree"), _disputed),
    Checker("online testing", lambda d: isinstance(d.get("streams"), Mapping), check_online),
    Checker("controller events", lambda d: isinstance(d.get("logs"), list), check_controller),
    Checker("MEWMA limits", lambda d: isinstance(d.get("h"), list), check_mewma_limits),
    Checker("inclusion proof", is_inclusion, check_inclusion),
    Checker("consistency proof", is_consistency, check_consistency),
    Checker("Ed25519 signatures", is_ed25519, check_ed25519),
    Checker("RFC 8785 document", is_document, check_document),
    Checker("RFC 8785 numbers", is_numbers, check_numbers),
    Checker("signed notes", is_notes, check_notes),
    Checker("C2SP examples", is_examples, check_examples),
    Checker("RFC 6962 tree", is_tree, check_tree),
    Checker("RFC 9421 signatures", is_request, check_request),
    Checker("tlog-proofs", is_proofs, check_proofs),
    Checker("statistics", is_statistics, check_statistics),
)


def check(data: object) -> Report:
    """Check the content of a file.

    Raises:
        Malformed: if no format knows it, or a member is missing or of the wrong type.
    """
    if not isinstance(data, Mapping):
        msg = "not a JSON object"
        raise Malformed(msg)
    for checker in CHECKERS:
        if checker.recognises(data):
            try:
                findings = tuple(checker.check(data))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                if isinstance(error, Malformed):
                    raise
                msg = f"{checker.name}: {type(error).__name__}: {error}"
                raise Malformed(msg) from error
            if not findings:
                msg = f"{checker.name}: nothing to check"
                raise Malformed(msg)
            return Report(checker.name, findings)
    msg = f"none of the formats {', '.join(checker.name for checker in CHECKERS)}"
    raise Malformed(msg)
