"""Verifying one receipt: pure, ordered, fail-closed. Same input, same report.

Nothing is trusted but the policy's pinned keys; the signed bytes are never produced by re-serialising.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tcd.errors import VerificationError
from tcd.receipts import canonical
from tcd.receipts.body import check_body, head_of, read_fitting
from tcd.receipts.checks import (
    Anchor,
    body_bytes,
    caller_signed,
    check_clock,
    check_concordance,
    check_head,
    check_key,
    check_link,
    check_signature,
    check_witness,
    previous_record,
    resolve_key,
)
from tcd.receipts.eproc import replay_step, snapshot_digest
from tcd.receipts.errors import MissingSignature, PrevMismatch, SchemaMismatch, UnknownKey
from tcd.receipts.logcheck import LogEvidence, check_log
from tcd.receipts.report import SINGLE, Checks, Report, Trust, VerifyPolicy
from tcd.receipts.rules import Facts

_NO_TRUST: Trust = "none"
_CORE: Final = frozenset({"size", "utf8", "parse", "canonical", "schema", "head"})


def read_body(checks: Checks, body: str | bytes) -> tuple[bytes, dict[str, Any] | None]:
    """Run size, utf8, parse, canonical and schema; None when one of them failed.

    Raises:
        tcd.errors.TooLarge: over the size limit.
    """
    name = "utf8"
    raw = b""
    try:
        raw = body_bytes(body)
        checks.passed("size")
        text = canonical.decode_utf8(raw)
        value = read_fitting(text, raw)
        if value is not None:
            for done in ("utf8", "parse", "canonical", "schema"):
                checks.passed(done)
            return raw, value
        checks.passed(name)
        name = "parse"
        value = canonical.parse_text(text, raw)
        checks.passed(name)
        name = "canonical"
        canonical.check_canonical(value, raw)
        checks.passed(name)
        name = "schema"
        check_body(value)
        checks.passed(name)
    except VerificationError as error:
        if name == "utf8" and not checks.results:
            checks.passed("size")
        checks.failed(name, error)
        return raw, None
    return raw, value


def _attempt(checks: Checks, name: str, check: Callable[[], None]) -> None:
    try:
        check()
    except VerificationError as error:
        checks.failed(name, error)
    else:
        checks.passed(name)


def _requested(demanded: frozenset[str], **given: bool) -> set[str]:
    """Names of the checks that the policy or something given asks for."""
    requested = set(_CORE) | demanded | {name for name, there in given.items() if there}
    return requested | {"key", "key_valid"} if "signature" in requested else requested


def verify_single(
    body: str | bytes,
    *,
    head: str,
    sig: str | None,
    policy: VerifyPolicy,
    verify_key: str | None = None,
    req_obj: Any = None,
    comp_obj: Any = None,
    e_obj: Any = None,
    witness_segments: Sequence[Mapping[str, Any]] | None = None,
    previous: str | bytes | None = None,
    anchor: Anchor | None = None,
    previous_eproc: Mapping[str, Any] | None = None,
    terms: Mapping[str, Any] | None = None,
    proof: str | bytes | None = None,
) -> Report:
    """Verify one receipt; giving something requests its check, and a requested check that cannot run fails.

    Args:
        body: as received, never re-serialised.
        head: 64 lower-case hex digits.
        sig: 128 lower-case hex digits, or None.
        policy: what is demanded and which keys are pinned.
        verify_key: key of the answer: a hint that may only select the pinned key.
        req_obj: the request object whose digest is `req`; None = not given.
        comp_obj: the components object, likewise.
        e_obj: the e-object, likewise.
        witness_segments: disclosed segments `{name, salt, values}`.
        previous: body of the record before in the chain.
        anchor: number and head of the record before, instead of its body.
        previous_eproc: the e-process snapshot before; by default that of `previous` when it is the one.
        terms: terms of the hypothesis folded in the snapshot, from the `open` record of its epoch.
        proof: `tlog-proof@v1` text that shows the receipt under a checkpoint of the log of its origin.

    Raises:
        tcd.errors.TooLarge: the body is over 512,000 characters.
    """
    objects = {name: obj for name, obj in (("req", req_obj), ("comp", comp_obj), ("e", e_obj)) if obj is not None}
    requested = _requested(
        policy.require,
        signature=sig is not None,
        concordance=bool(objects),
        witness=witness_segments is not None,
        chain=previous is not None or anchor is not None,
        clock=policy.now_us is not None,
        inclusion=proof is not None,
        checkpoint=proof is not None,
        witness_quorum=proof is not None and policy.witnesses is not None,
        policy=policy.rule is not None,
        eproc=previous_eproc is not None or terms is not None,
    )
    checks, trust = Checks(requested), _NO_TRUST
    raw, value = read_body(checks, body)
    if value is not None:
        _attempt(checks, "head", lambda: check_head(raw, head))
        log = None if proof is None else check_log(checks, proof, head=head_of(raw), value=value, policy=policy)
        if "signature" in requested:
            trust = _signature(checks, value, log, head=head, sig=sig, policy=policy, verify_key=verify_key)
        _disclosed(checks, value, objects, witness_segments)
        before = _links(checks, value, previous, anchor)
        if policy.now_us is not None:
            _attempt(checks, "clock", lambda: check_clock(value, policy))
        _eproc(checks, value, before, previous_eproc, terms)
        _rule(checks, value, log, policy, signed=trust == "server")
    return checks.report(SINGLE, policy=policy.digest, trust=trust, body=value)


def _rule(
    checks: Checks, value: Mapping[str, Any], log: LogEvidence | None, policy: VerifyPolicy, *, signed: bool
) -> None:
    rule = policy.rule
    if rule is None:
        return
    suite = frozenset(value["suite"].split("+")) if signed else frozenset[str]()
    facts = Facts(value, suite)
    if log is not None:
        opened = log.log
        facts = Facts(value, suite, opened.algorithms, frozenset(opened.witnesses), opened.head.size)
    _attempt(checks, "policy", lambda: rule.check(facts))


def _disclosed(
    checks: Checks,
    value: Mapping[str, Any],
    objects: Mapping[str, Any],
    segments: Sequence[Mapping[str, Any]] | None,
) -> None:
    if objects:
        _attempt(checks, "concordance", lambda: check_concordance(value, objects))
    if segments is not None:
        _attempt(checks, "witness", lambda: check_witness(value, segments))


def _signature(
    checks: Checks,
    value: Mapping[str, Any],
    log: LogEvidence | None,
    *,
    head: str,
    sig: str | None,
    policy: VerifyPolicy,
    verify_key: str | None,
) -> Trust:
    if sig is None:
        checks.failed("signature", MissingSignature("no signature was given"))
    try:
        key = resolve_key(value, policy, verify_key)
    except VerificationError as error:
        checks.failed("key", error)
        brought = isinstance(error, UnknownKey) and verify_key is not None and sig is not None
        return "caller" if brought and caller_signed(value, head, str(sig), str(verify_key)) else "none"
    checks.passed("key")
    _attempt(checks, "key_valid", lambda: check_key(key, value, policy, index=None if log is None else log.index))
    if sig is None:
        return "none"
    _attempt(checks, "signature", lambda: check_signature(key, value, head, sig, policy))
    return "server" if checks.results[-1].status == "pass" else "none"


def _links(
    checks: Checks, value: Mapping[str, Any], previous: str | bytes | None, anchor: Anchor | None
) -> Mapping[str, Any] | None:
    before: Mapping[str, Any] | None = None
    if previous is None and anchor is None:
        return None
    try:
        link = anchor
        if previous is not None:
            found, before = previous_record(previous)
            if link is not None and link != found:
                msg = "the anchor is not the record before"
                raise PrevMismatch(msg)
            link = found
        if link is not None:
            check_link(value, link, before)
    except VerificationError as error:
        checks.failed("chain", error)
    else:
        checks.passed("chain")
    return before


def _eproc(
    checks: Checks,
    value: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    previous_eproc: Mapping[str, Any] | None,
    terms: Mapping[str, Any] | None,
) -> None:
    current = value.get("eproc")
    if current is None or terms is None:
        return
    earlier = previous_eproc
    if earlier is None and before is not None:
        candidate = before.get("eproc")
        if candidate is not None and (candidate == current or snapshot_digest(candidate) == current["prev"]):
            earlier = candidate
    if earlier is None and current["step"] == 0:
        earlier = current
    if earlier is None:
        return
    there = earlier

    def replay() -> None:
        try:
            replay_step(there, current, terms)
        except (TypeError, AttributeError) as error:
            msg = f"snapshot or terms: {error}"
            raise SchemaMismatch(msg) from error

    _attempt(checks, "eproc", replay)
