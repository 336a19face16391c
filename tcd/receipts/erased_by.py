"""Which record erased a body: `erase` records beside what is left of the records that they name.

An `erase` record has a chain of its own, so its place in the log is what binds it: it names places, and the proofs of
both in a log of one size and root show that it means this log, and these records of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from tcd.receipts.checkpoint import LogHead, TlogProof
from tcd.receipts.erasure import heads_digest, is_named, runs_of
from tcd.receipts.errors import MalformedBundle
from tcd.receipts.report import CheckResult, Report, VerifyPolicy
from tcd.receipts.verify import verify_single

#: Of what a policy demands of records, that which an `erase` record can have.
_DEMANDED: Final = frozenset({"signature", "inclusion", "checkpoint", "witness_quorum"})


@dataclass(frozen=True, slots=True)
class ErasedBy:
    """A verified record that erased a body.

    Attributes:
        record: its head.
        index: its place in the log.
        ts_us: its time, microseconds since 1970.
        actor, reason: who, and `subject` or `age`.
    """

    record: str
    index: int
    ts_us: int
    actor: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Placed:
    """A record of a bundle whose place in the log was shown.

    Attributes:
        number: in the bundle.
        head: 64 hex digits.
        index: its place.
        log: under which it was shown.
        erased: whether its body is gone.
    """

    number: int
    head: str
    index: int
    log: LogHead
    erased: bool

    @classmethod
    def of(cls, number: int, item: Mapping[str, Any]) -> Placed:
        """A receipt of a bundle whose proof was checked."""
        proof = TlogProof.parse(item["proof"].encode())
        return cls(number, item["head"], proof.index, _log(proof), "erased" in item)


def _log(proof: TlogProof) -> LogHead:
    return LogHead.from_note(proof.checkpoint)


def verify_erasure(
    item: Mapping[str, Any], placed: Sequence[Placed], policy: VerifyPolicy
) -> tuple[Report, dict[int, ErasedBy]]:
    """The report of an `erase` record, and which records' bodies it erased, by their number in the bundle.

    Args:
        item: `body`, `head`, `sig` and `proof` of the record.
        placed: what it may name.
        policy: pinned keys, and what is demanded of every record.
    """
    # a rule is about the records that somebody wants to see, not about who erased them
    demanded = replace(policy, rule=None, require=policy.require & _DEMANDED)
    report = verify_single(item["body"], head=item["head"], sig=item["sig"], policy=demanded, proof=item["proof"])
    if not report.ok:
        return report, {}
    found, wrong = _named(item, report.verified(), placed)
    if wrong is None:
        return report, found
    check = CheckResult("erases", "fail", MalformedBundle.code, wrong)
    return replace(report, ok=False, code=check.code, checks=(*report.checks, check)), {}


def _named(
    item: Mapping[str, Any], body: Mapping[str, Any], placed: Sequence[Placed]
) -> tuple[dict[int, ErasedBy], str | None]:
    """What a verified record erased, or why it does not belong there."""
    if body["typ"] != "erase":
        return {}, "it is no erase record"
    own, runs, erase = TlogProof.parse(item["proof"].encode()), runs_of(body), body["erase"]
    if runs[-1][1] > own.index:
        return {}, "it names records that are not before it"
    # of a log of another size it is not known here that it is the same
    log = _log(own)
    there = [one for one in placed if one.log == log and is_named(runs, one.index)]
    found = [one.number for one in there if one.erased]
    if not found:
        return {}, "it names no record here whose body is gone"
    heads = {one.index: bytes.fromhex(one.head) for one in there}
    if len(heads) == erase["count"] and heads_digest([heads[at] for at in sorted(heads)]) != erase["heads"]:
        return {}, "it was made for other heads than the log has there"
    by = ErasedBy(item["head"], own.index, body["ts_us"], erase["actor"], erase["reason"])
    return dict.fromkeys(found, by), None
