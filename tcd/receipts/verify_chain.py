"""Verifying a run of records of one chain: links, numbers, time, start and end; signatures when given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from tcd.errors import InvalidRequest, TooLarge, ValidationFailed, VerificationError
from tcd.receipts.body import head_of
from tcd.receipts.checks import Anchor, check_head, check_key, check_signature, resolve_key
from tcd.receipts.erasure import ErasedBody
from tcd.receipts.errors import (
    BY_CODE,
    BadInclusion,
    ChainMismatch,
    CheckSkipped,
    Fork,
    HeadMismatch,
    LogChainMismatch,
    PrevMismatch,
    SeqGap,
    TimeOrder,
    Truncated,
)
from tcd.receipts.logcheck import LogEvidence, check_log
from tcd.receipts.merkle import HASH
from tcd.receipts.report import CHAIN, Checks, Report, Trust, VerifyPolicy
from tcd.receipts.verify import read_body
from tcd.receipts.verify_erased import GONE, check_erased, log_value

MAX_RECORDS: Final = 1024
MAX_BYTES: Final = 4 * 1024 * 1024
_HEX: Final = frozenset("0123456789abcdef")


Proofs = Sequence[str | bytes | None]
Body = str | bytes | ErasedBody


@dataclass(slots=True)
class _Run:
    """State while walking: the first error of each check with the index of its record.

    Attributes:
        bad: errors.
        last_index: place in the log of the record before.
        skipped: erased records since the last whole one; `leading`: before the first.
        previous: head of the record before.
    """

    bad: dict[str, tuple[int, VerificationError]] = field(default_factory=dict)
    last_index: int = -1
    skipped: int = 0
    previous: str = ""
    leading: int = 0

    def note(self, check: str, index: int, error: VerificationError) -> None:
        self.bad.setdefault(check, (index, error))

    def attempt(self, check: str, index: int, work: Callable[[], None]) -> None:
        try:
            work()
        except VerificationError as error:
            self.note(check, index, error)


def _size(body: Body) -> int:
    if isinstance(body, ErasedBody):
        return 0
    return len(body) if isinstance(body, bytes) else len(body.encode(errors="replace"))


def _refuse_undecidable(
    bodies: Sequence[Body], heads: Sequence[str], sigs: Sequence[str] | None, proofs: Proofs | None
) -> None:
    lengths = {len(bodies), len(heads), *(len(given) for given in (sigs, proofs) if given is not None)}
    if not bodies or len(lengths) > 1:
        msg = "heads, bodies, signatures and proofs must be arrays of one length, not empty"
        raise InvalidRequest(msg)
    if len(bodies) > MAX_RECORDS:
        msg = f"{len(bodies)} records: at most {MAX_RECORDS}"
        raise ValidationFailed(msg)
    if sum(map(_size, bodies)) > MAX_BYTES:
        msg = f"the bodies are over {MAX_BYTES} bytes"
        raise TooLarge(msg)


def _link(before: tuple[dict[str, Any], str], value: dict[str, Any], head: str, run: _Run) -> None:
    last, last_head = before
    chain, last_chain = value["chain"], last["chain"]
    if chain["id"] != last_chain["id"] or value["tenant"] != last["tenant"] or value["origin"] != last["origin"]:
        msg = "a record of another chain"
        raise ChainMismatch(msg)
    if chain["seq"] == last_chain["seq"] and head != last_head and not run.skipped:
        msg = f"two records {chain['seq']}"
        raise Fork(msg)
    if last["typ"] == "close" or chain["seq"] != last_chain["seq"] + 1 + run.skipped:
        msg = f"record {chain['seq']} after {last['typ']} {last_chain['seq']}"
        raise SeqGap(msg)
    _follows(value, run)


def _follows(value: dict[str, Any], run: _Run) -> None:
    if value["chain"]["prev"] != run.previous:
        msg = "prev is not the head before"
        raise PrevMismatch(msg)


def _start(value: dict[str, Any], start: Anchor | None, leading: int) -> None:
    chain = value["chain"]
    expected = leading if start is None else start.seq + 1 + leading
    if chain["seq"] != expected:
        msg = f"the first record is {chain['seq']}, not {expected}"
        raise SeqGap(msg)
    if start is not None and not leading and chain["prev"] != start.head:
        msg = "the first record does not link to the start anchor"
        raise PrevMismatch(msg)


def _tail(value: dict[str, Any], run: _Run, end: Anchor | None, checks: Checks) -> VerificationError | None:
    """Whether the run is complete: by the end anchor, else by a close record, else it cannot be told."""
    seq, head = value["chain"]["seq"] + run.skipped, run.previous
    if end is None:
        if value["typ"] == "close" and not run.skipped:
            checks.passed("tail")
        else:
            checks.missing("tail", "no close record and no end anchor: whether records follow cannot be told")
        return None
    if seq < end.seq:
        return Truncated(f"the last record is {seq}, not {end.seq}")
    if seq != end.seq or head != end.head:
        return Fork(f"the last record {seq} is not the end anchor {end.seq}")
    checks.passed("tail")
    return None


def _included(
    value: dict[str, Any], raw: bytes, proof: str | bytes | None, policy: VerifyPolicy, run: _Run, index: int
) -> int | None:
    """Place of a record in the log, None where it was not shown; every record is a leaf, in the order of the chain."""
    if proof is None:
        run.note("inclusion", index, CheckSkipped("a record without a proof"))
        return None
    checks = Checks({"inclusion", "checkpoint"})
    evidence = check_log(checks, proof, head=head_of(raw), value=value, policy=policy)
    return _placed(checks, evidence, run, index)


def _placed(checks: Checks, evidence: LogEvidence | None, run: _Run, index: int) -> int | None:
    """Place of a record in the log by what `check_log` found."""
    bad = next((result for result in checks.results if result.status != "pass"), None)
    if bad is not None or evidence is None:
        code = "skipped" if bad is None else bad.code
        error = BY_CODE[code]("" if bad is None else bad.detail)
        if isinstance(error, BadInclusion):
            error = LogChainMismatch(f"record {index} of the chain is not in the log: {error.detail}")
        run.note("inclusion", index, error)
        return None
    if evidence.index <= run.last_index:
        run.note("inclusion", index, LogChainMismatch("the log has the records in another order"))
    run.last_index = evidence.index
    return evidence.index


def _signed(
    value: dict[str, Any], head: str, sig: str, policy: VerifyPolicy, run: _Run, index: int, place: int | None
) -> None:
    try:
        key = resolve_key(value, policy, None)
        check_key(key, value, policy, index=place)
    except VerificationError as error:
        run.note("key", index, error)
        return
    try:
        check_signature(key, value, head, sig, policy)
    except VerificationError as error:
        run.note("signature", index, error)


def _walk(
    bodies: Sequence[Body],
    heads: Sequence[str],
    sigs: Sequence[str] | None,
    proofs: Proofs | None,
    policy: VerifyPolicy,
    run: _Run,
) -> list[tuple[dict[str, Any], str]]:
    """Records that parse, with their true heads; errors go to `run`. Stops at a record that cannot be read."""
    records: list[tuple[dict[str, Any], str]] = []
    places: list[int | None] = []
    numbers: list[int] = []
    for index, (body, head) in enumerate(zip(bodies, heads, strict=True)):
        if isinstance(body, ErasedBody):
            place = _erased(body, head, proofs, policy, run, index)
            if sigs is not None:
                run.attempt("signature", index, partial(check_erased, body, head, sigs[index], policy, index=place))
            continue
        reading = Checks(set())
        raw, value = read_body(reading, body)
        if value is None:
            bad = reading.results[-1]
            run.note("records", index, BY_CODE[bad.code](bad.detail))
            break
        run.attempt("head", index, partial(check_head, raw, head))
        if records:
            run.attempt("links", index, partial(_link, records[-1], value, head, run))
            if value["ts_us"] < records[-1][0]["ts_us"]:
                run.note("time", index, TimeOrder("time goes backwards"))
        elif run.skipped:
            run.leading = run.skipped
            run.attempt("links", index, partial(_follows, value, run))
        run.skipped, run.previous = 0, head
        places.append(None if proofs is None else _included(value, raw, proofs[index], policy, run, index))
        records.append((value, head))
        numbers.append(index)
    # apart from the reading: two loops, each in the processor's caches, take less time than one
    if sigs is not None:
        for index, (value, head), place in zip(numbers, records, places, strict=True):
            _signed(value, head, sigs[index], policy, run, index, place)
    return records


def _erased(
    body: ErasedBody, head: str, proofs: Proofs | None, policy: VerifyPolicy, run: _Run, index: int
) -> int | None:
    """Place in the log of a record without its body; the next record links to its head."""
    run.note("erased", index, GONE)
    run.skipped, run.previous = run.skipped + 1, head
    if len(head) != 2 * HASH or not set(head) <= _HEX:
        run.note("head", index, HeadMismatch("not a head"))
        return None
    proof = None if proofs is None else proofs[index]
    if proof is None:
        if proofs is not None:
            run.note("inclusion", index, CheckSkipped("a record without a proof"))
        return None
    checks = Checks({"inclusion", "checkpoint"})
    evidence = check_log(checks, proof, head=bytes.fromhex(head), value=log_value(body), policy=policy)
    return _placed(checks, evidence, run, index)


def verify_chain(
    bodies: Sequence[Body],
    *,
    heads: Sequence[str],
    policy: VerifyPolicy,
    sigs: Sequence[str] | None = None,
    proofs: Proofs | None = None,
    start: Anchor | None = None,
    end: Anchor | None = None,
) -> Report:
    """Verify consecutive records of one chain; `first_bad` is the index of the first bad one.

    Without a start anchor the first record must be the `open` record. Without an end anchor only a `close` record
    shows that nothing is missing at the end; otherwise the check `tail` is `absent`, which says so.

    Records whose bodies were erased are looked at as far as they are there; then the code is at best `erased`.

    Args:
        bodies: as received, oldest first; an `ErasedBody` where one was erased.
        heads: 64 lower-case hex digits each.
        policy: what is demanded and which keys are pinned.
        sigs: signatures in hex; without them the links are checked and the issuer is not.
        proofs: `tlog-proof@v1` text of each record; every record must then be a leaf of the log, in order.
        start: the record before the first one.
        end: the last record.

    Raises:
        tcd.errors.InvalidRequest: arrays empty, of different lengths, or in reverse order.
        tcd.errors.ValidationFailed: more than 1,024 records.
        tcd.errors.TooLarge: over 4 MiB, or a body over 512,000 characters.
    """
    _refuse_undecidable(bodies, heads, sigs, proofs)
    requested = {"records", "head", "links", "time", "start"} | policy.require_chain
    requested |= {"key", "signature"} if sigs is not None else set()
    requested |= {"tail"} if end is not None else set()
    requested |= {"inclusion"} if proofs is not None else set()
    checks = Checks(requested)
    run = _Run()
    records = _walk(bodies, heads, sigs, proofs, policy, run)
    numbers = [value["chain"]["seq"] for value, _ in records]
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[0] - len(numbers), -1)):
        msg = "the records are in reverse order"
        raise InvalidRequest(msg)
    if records:
        try:
            _start(records[0][0], start, run.leading)
        except VerificationError as error:
            run.note("start", 0, error)
    erased = sum(isinstance(body, ErasedBody) for body in bodies)
    if records and len(records) + erased == len(bodies):
        incomplete = _tail(records[-1][0], run, end, checks)
        if incomplete is not None:
            run.note("tail", len(bodies) - 1, incomplete)
    ran = ["records", "head", "links", "time", "start", *(["key", "signature"] if sigs is not None else [])]
    ran += ["inclusion"] if proofs is not None else []
    for name in (*ran, "tail"):
        if name in run.bad:
            checks.failed(name, run.bad[name][1])
        elif name != "tail" and (records or name == "records"):
            checks.passed(name)
    if erased:
        checks.failed("erased", GONE)
    order = (*CHAIN, "erased") if erased else CHAIN
    trust: Trust = "server" if sigs is not None and run.bad.keys() <= {"erased"} else "none"
    others = [index for name, (index, _) in run.bad.items() if name != "erased"]
    first = min(others or [index for index, _ in run.bad.values()], default=None)
    last = records[-1][0] if records else None
    return checks.report(order, policy=policy.digest, trust=trust, body=last, first_bad=first)
