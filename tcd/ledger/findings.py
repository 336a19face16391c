"""What an audit finds: a stable code, where, and what the code means."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tcd.errors import TcdError, VerificationError
from tcd.receipts.logcheck import OpenedLog, open_log
from tcd.receipts.report import VerifyPolicy
from tcd.receipts.witnessing import Seen

#: Findings kept; the rest is counted.
MAX_FINDINGS: Final = 1000

#: What each code says, for whoever reads a report. docs/audits.md has the same table; a test holds them equal.
MEANINGS: Final = {
    "bad_key": "The signing key is no safe Ed25519 or ML-DSA key.",
    "bad_number": "The body has a number that the profile forbids: it was not written by tcd.",
    "bad_signature": "The pinned key did not sign this head or checkpoint: it was changed, or somebody else made it.",
    "bad_string": "The body has a string that the profile forbids: it was not written by tcd.",
    "body_kept": "A body is there that was erased: what should be forgotten was put back.",
    "body_missing": "A body is gone, and no record in the log says that it was erased.",
    "budget_mismatch": "Events and signed receipts disagree about a budget: the events were changed.",
    "budget_overspent": "More was spent in an epoch than its claim allows: the guarantee of that epoch does not hold.",
    "chain_state": "A chain's state is not that after its last record: rows were added, removed or restored.",
    "count_mismatch": "The kept count of erased bodies is not what the rows say: it was edited, or bodies were taken.",
    "decision_mismatch": "Action, enforcement or verdict do not follow from the recorded facts and the policy.",
    "equivocation": "Another history of the same length was signed and seen before: the log was replaced.",
    "erasure_mismatch": "What an erase record names is not what the log has there.",
    "event_gap": "Events of the controller are missing.",
    "event_malformed": "A row of the controller's log is no event.",
    "event_mismatch": "An event does not follow from those before it: a level, a cost or a count was changed.",
    "guard_missing": "A trigger that keeps rows from being changed or deleted is not there: somebody removed it.",
    "head_mismatch": "The body is not what the head commits to: one of the two was edited.",
    "inconsistent_log": "The receipts up to a signed checkpoint are not those that it was made of.",
    "index_gap": "Rows of receipts are missing.",
    "key_not_authorised": "A pinned key signed what it may not: another purpose, origin, algorithm or tenant.",
    "key_not_valid": "A key signed outside its time of validity, or after it was compromised.",
    "level_mismatch": "Level, spent budget or wealth of a decision do not follow from the terms that were committed.",
    "limit": "A body is larger or deeper than bodies may be.",
    "malformed_checkpoint": "What is stored as a checkpoint is none.",
    "malformed_note": "What is stored as a signed note is none.",
    "malformed_tile": "A tile of the published log is not the hashes of what is below it.",
    "missing_signature": "A signature that the policy demands is not there.",
    "no_quorum": "Too few witnesses have cosigned the published checkpoint.",
    "not_canonical": "The bytes of a body are not its canonical form: they were written anew.",
    "orphan_body": "There is a body that belongs to no receipt.",
    "p_mismatch": "A p-value does not follow from the recorded maxima and the calibration, or it rose.",
    "prev_mismatch": "A record does not name the record before it: one of the two was changed.",
    "replay_mismatch": "A step of the e-process does not follow from the step before it.",
    "rollback": "The ledger is shorter than what was signed or seen before: a tail was cut off, or a backup restored.",
    "row_malformed": "A row has values that no row can have, or says what cannot be.",
    "row_mismatch": "A column differs from the signed body: the row was edited.",
    "schema": "The body has members that it may not have, or lacks some.",
    "schema_changed": "The tables are not those that tcd makes: constraints may be gone.",
    "seq_gap": "A chain's records are not numbered without a gap: one was removed, added or moved.",
    "storage": "The database file is damaged.",
    "time_order": "Time goes backwards within a chain.",
    "trigger_mismatch": "The trigger does not follow from the p-value and the level, or it was taken back.",
    "unknown_file": "A file that does not belong there.",
    "unknown_key": "No pinned key signed this: rows of another ledger, or forged ones.",
    "version": "A record of a version that is not known.",
    "wrong_origin": "A checkpoint of another log.",
}


#: What hostile rows may raise where they say what cannot be: a finding, never the end of an audit.
HOSTILE: Final = (
    TcdError,
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong.

    Attributes:
        code: stable; of `tcd.receipts.errors` where it is the failure of a check.
        where: row or file.
        detail: for people.
    """

    code: str
    where: str
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """JSON form."""
        means = MEANINGS.get(self.code, "A check failed.")
        return {"code": self.code, "where": self.where, "detail": self.detail, "means": means}


@dataclass(slots=True)
class Audit:
    """What was looked at and what was found.

    Attributes:
        findings: the first `MAX_FINDINGS`.
        counts: number of findings by code, and of rows looked at.
        newest: newest checkpoint that verified and fits, with its origin.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    newest: tuple[str, Seen] | None = None

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.findings

    def note(self, code: str, where: str, detail: str = "") -> None:
        """Record a finding."""
        self.counts[f"finding {code}"] += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(code, where, detail))

    def attempt(self, where: str, check: Callable[[], None]) -> bool:
        """Run a check; its failure is a finding."""
        try:
            check()
        except VerificationError as error:
            self.note(error.code, where, error.detail)
            return False
        return True

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "ok": self.ok,
            "counts": dict(sorted(self.counts.items())),
            "findings": [finding.to_json() for finding in self.findings],
        }


def open_noted(audit: Audit, where: str, note: bytes, origin: str, policy: VerifyPolicy) -> OpenedLog | None:
    """A checkpoint whose signatures verify; else a finding and None."""
    try:
        return open_log(note, origin=origin, policy=policy)
    except VerificationError as error:
        audit.note(error.code, where, error.detail)
        return None
