"""Verifying one receipt: pure, ordered, fail-closed. Same input, same report.

Nothing is trusted but the policy's pinned keys; the signed bytes are never produced by re-serialising.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tcd.errors import TooLarge, VerificationError
from tcd.receipts import canonical, jcs
from tcd.receipts.body import check_body, head_of, signature_input
from tcd.receipts.eproc import replay_step, snapshot_digest
from tcd.receipts.errors import (
    BadKey,
    BadSignature,
    BadString,
    ChainMismatch,
    HeadMismatch,
    KeyNotAuthorised,
    KeyNotValid,
    MissingSignature,
    NotConcordant,
    PolicyRefused,
    PrevMismatch,
    SchemaMismatch,
    SeqGap,
    TimeOrder,
    UnknownKey,
    WitnessMismatch,
)
from tcd.receipts.keys import PinnedKey, check_public, key_id, verify_ed25519
from tcd.receipts.report import SINGLE, Checks, Report, Trust, VerifyPolicy
from tcd.receipts.witness import MAX_VALUES, check_disclosure

MAX_CHARS: Final = 512_000
_NO_TRUST: Trust = "none"
_CORE: Final = frozenset({"size", "utf8", "parse", "canonical", "schema", "head"})
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")


@dataclass(frozen=True, slots=True)
class Anchor:
    """A record of a chain that the verifier already trusts: its number and its head in hex."""

    seq: int
    head: str


def body_bytes(body: str | bytes) -> bytes:
    """UTF-8 bytes of a body as it was received.

    Raises:
        tcd.errors.TooLarge: over 512,000 characters.
        BadString: a lone surrogate.
    """
    if len(body) > MAX_CHARS:
        msg = f"body of {len(body)} characters: at most {MAX_CHARS}"
        raise TooLarge(msg)
    if isinstance(body, bytes):
        return body
    try:
        return body.encode("utf-8")
    except UnicodeEncodeError as error:
        msg = "lone surrogate"
        raise BadString(msg) from error


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


def check_head(raw: bytes, head: str) -> None:
    """The given head is that of the received bytes.

    Raises:
        HeadMismatch: it is not.
    """
    if head_of(raw).hex() != head:
        msg = "the head is not that of the body"
        raise HeadMismatch(msg)


def resolve_key(value: Mapping[str, Any], policy: VerifyPolicy, verify_key: str | None) -> PinnedKey:
    """The pinned key of a body. A caller's key may only name it.

    Raises:
        BadKey: the caller's key is malformed or unsafe.
        UnknownKey: no pinned key has this id.
        KeyNotAuthorised: the caller's key is another one.
    """
    if verify_key is not None:
        if len(verify_key) != 64 or _HEX.fullmatch(verify_key) is None:  # noqa: PLR2004 - 32 bytes in hex
            msg = "the key is not 64 lower-case hex digits"
            raise BadKey(msg)
        named = key_id(bytes.fromhex(verify_key))
        if policy.keys.get(named) is not None and named != value["kid"]:
            msg = "the key is not the one that the body names"
            raise KeyNotAuthorised(msg)
        if policy.keys.get(named) is None:
            check_public(bytes.fromhex(verify_key))
            msg = "the key is not pinned"
            raise UnknownKey(msg)
    key = policy.keys.get(value["kid"])
    if key is None:
        msg = f"no pinned key {value['kid']}"
        raise UnknownKey(msg)
    return key


def check_key(key: PinnedKey, value: Mapping[str, Any], policy: VerifyPolicy) -> None:
    """The key may sign this body: purpose, origin, tenant, validity, compromise.

    Raises:
        KeyNotAuthorised, KeyNotValid: it may not.
    """
    if key.purpose != "receipt":
        msg = f"a key of purpose {key.purpose}"
        raise KeyNotAuthorised(msg)
    if key.origin != value["origin"] or (policy.origins is not None and value["origin"] not in policy.origins):
        msg = f"origin {value['origin']!r}"
        raise KeyNotAuthorised(msg)
    if key.tenants is not None and value["tenant"] not in key.tenants:
        msg = "another tenant"
        raise KeyNotAuthorised(msg)
    if not key.valid_at(value["ts_us"]):
        msg = "outside the validity of the key"
        raise KeyNotValid(msg)
    if key.compromised_after_size is not None:
        msg = "the key is compromised, and no inclusion proof shows an earlier log"
        raise KeyNotValid(msg)


def _message(value: Mapping[str, Any], head: str) -> bytes:
    return signature_input(suite=value["suite"], kid=value["kid"], head=bytes.fromhex(head))


def check_signature(key: PinnedKey, value: Mapping[str, Any], head: str, sig: str, policy: VerifyPolicy) -> None:
    """The pinned key signed the head.

    Raises:
        BadSignature: it did not.
    """
    fine = _HEX.fullmatch(sig) is not None and len(head) == 64 and _HEX.fullmatch(head) is not None  # noqa: PLR2004
    if not fine or not policy.keys.verify(key.kid, bytes.fromhex(sig), _message(value, head)):
        msg = "the signature does not verify"
        raise BadSignature(msg)


def _caller_signed(value: Mapping[str, Any], head: str, sig: str, verify_key: str) -> bool:
    public = bytes.fromhex(verify_key)
    if key_id(public) != value["kid"] or _HEX.fullmatch(sig) is None or _HEX.fullmatch(head) is None:
        return False
    return verify_ed25519(public, bytes.fromhex(sig), _message(value, head))


def check_concordance(value: Mapping[str, Any], objects: Mapping[str, Any]) -> None:
    """Disclosed objects have the digests of the body.

    Args:
        value: the body.
        objects: `req`, `comp`, `e` to the object.

    Raises:
        NotConcordant: one has not.
    """
    for name, disclosed in objects.items():
        try:
            found = jcs.digest(disclosed)
        except (TypeError, ValueError) as error:
            msg = f"{name}: {error}"
            raise NotConcordant(msg) from error
        if value.get(name) != found:
            msg = f"the {name} object differs from its digest"
            raise NotConcordant(msg)


def check_witness(value: Mapping[str, Any], disclosed: Sequence[Mapping[str, Any]]) -> None:
    """Disclosed segments `{name, salt, values}` are those of the body.

    Raises:
        WitnessMismatch: one is not.
    """
    committed = {segment["name"]: segment for segment in value.get("witness", [])}
    seen = [segment.get("name") for segment in disclosed]
    for name, segment in zip(seen, disclosed, strict=True):
        values = segment.get("values")
        known = committed.get(name) if type(name) is str else None
        plain = (
            type(values) is list and len(values) <= MAX_VALUES and all(type(item) in {int, float} for item in values)
        )
        if known is None or not plain or seen.count(name) > 1 or segment.get("salt") != known["salt"]:
            msg = f"segment {str(name)[:20]!r} is not committed so"
            raise WitnessMismatch(msg)
        try:
            check_disclosure(known, [float(item) for item in values or ()])
        except OverflowError as error:
            msg = f"segment {name}: {error}"
            raise WitnessMismatch(msg) from error


def check_link(value: Mapping[str, Any], anchor: Anchor, before: Mapping[str, Any] | None) -> None:
    """The body is the record after `anchor`.

    Raises:
        ChainMismatch, SeqGap, PrevMismatch, TimeOrder: it is not.
    """
    chain = value["chain"]
    if before is not None and before["chain"]["id"] != chain["id"]:
        msg = "another chain"
        raise ChainMismatch(msg)
    if chain["seq"] != anchor.seq + 1:
        msg = f"record {chain['seq']} after {anchor.seq}"
        raise SeqGap(msg)
    if chain["prev"] != anchor.head:
        msg = "prev is not the head before"
        raise PrevMismatch(msg)
    if before is not None and before["ts_us"] > value["ts_us"]:
        msg = "time goes backwards"
        raise TimeOrder(msg)


def _previous(previous: str | bytes) -> tuple[Anchor, Mapping[str, Any]]:
    raw = body_bytes(previous)
    value = canonical.parse(raw)
    check_body(value)
    return Anchor(value["chain"]["seq"], head_of(raw).hex()), value


def check_clock(value: Mapping[str, Any], policy: VerifyPolicy) -> None:
    """The receipt is not from the future, where the policy knows the time.

    Raises:
        PolicyRefused: it is.
    """
    if policy.now_us is not None and value["ts_us"] > policy.now_us + policy.max_future_us:
        msg = "the receipt is from the future"
        raise PolicyRefused(msg)


def _attempt(checks: Checks, name: str, check: Callable[[], None]) -> None:
    try:
        check()
    except VerificationError as error:
        checks.failed(name, error)
    else:
        checks.passed(name)


def _requested(policy: VerifyPolicy, **given: bool) -> set[str]:
    """Names of the checks that the policy or something given asks for."""
    requested = set(_CORE) | policy.require | {name for name, there in given.items() if there}
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
    proof: str | None = None,
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
        proof: inclusion proof; not checked by this version, so giving one makes the report not ok.

    Raises:
        tcd.errors.TooLarge: the body is over 512,000 characters.
    """
    objects = {name: obj for name, obj in (("req", req_obj), ("comp", comp_obj), ("e", e_obj)) if obj is not None}
    requested = _requested(
        policy,
        signature=sig is not None,
        concordance=bool(objects),
        witness=witness_segments is not None,
        chain=previous is not None or anchor is not None,
        clock=policy.now_us is not None,
        inclusion=proof is not None,
        eproc=previous_eproc is not None or terms is not None,
    )
    checks, trust = Checks(requested), _NO_TRUST
    raw, value = read_body(checks, body)
    if value is not None:
        _attempt(checks, "head", lambda: check_head(raw, head))
        if "signature" in requested:
            trust = _signature(checks, value, head=head, sig=sig, policy=policy, verify_key=verify_key)
        _disclosed(checks, value, objects, witness_segments)
        before = _links(checks, value, previous, anchor)
        if policy.now_us is not None:
            _attempt(checks, "clock", lambda: check_clock(value, policy))
        _eproc(checks, value, before, previous_eproc, terms)
    return checks.report(SINGLE, policy=policy.digest, trust=trust, body=value)


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
        return "caller" if brought and _caller_signed(value, head, str(sig), str(verify_key)) else "none"
    checks.passed("key")
    _attempt(checks, "key_valid", lambda: check_key(key, value, policy))
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
            found, before = _previous(previous)
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
