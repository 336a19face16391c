"""The single checks of a receipt: each raises what it finds, and knows nothing of the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tcd.errors import TooLarge
from tcd.receipts import canonical, jcs
from tcd.receipts.body import CONTEXT, check_body, head_of, signature_input
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
    SeqGap,
    TimeOrder,
    UnknownKey,
    WitnessMismatch,
)
from tcd.receipts.keys import HYBRID, PUBLIC_SIZES, SIGNATURE_SIZES, Public, key_id
from tcd.receipts.keyset import PinnedKey
from tcd.receipts.report import VerifyPolicy
from tcd.receipts.witness import MAX_VALUES, check_disclosure

MAX_CHARS: Final = 512_000
_HEX: Final = re.compile(r"[0-9a-f]+")


#: Bytes of one half of a hybrid signature.
_CUT: Final = frozenset(size for alg, size in SIGNATURE_SIZES.items() if alg != HYBRID)


def _is_hex(text: str, length: int | None = None) -> bool:
    fine = len(text) % 2 == 0 if length is None else len(text) == length
    return fine and _HEX.fullmatch(text) is not None


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


def check_head(raw: bytes, head: str) -> None:
    """The given head is that of the received bytes.

    Raises:
        HeadMismatch: it is not.
    """
    if head_of(raw).hex() != head:
        msg = "the head is not that of the body"
        raise HeadMismatch(msg)


def _hinted(verify_key: str) -> tuple[str, bytes]:
    """Algorithm and bytes of a key in hex; its length tells the algorithm."""
    for alg, size in PUBLIC_SIZES.items():
        if len(verify_key) == 2 * size and _HEX.fullmatch(verify_key):
            return alg, bytes.fromhex(verify_key)
    msg = "the key is not lower-case hex digits of the length of a key"
    raise BadKey(msg)


def resolve_key(value: Mapping[str, Any], policy: VerifyPolicy, verify_key: str | None) -> PinnedKey:
    """The pinned key of a body. A caller's key may only name it.

    Raises:
        BadKey: the caller's key is malformed or unsafe.
        UnknownKey: no pinned key has this id.
        KeyNotAuthorised: the caller's key is another one.
    """
    if verify_key is not None:
        alg, public = _hinted(verify_key)
        named = key_id(public, alg)
        if policy.keys.get(named) is not None and named != value["kid"]:
            msg = "the key is not the one that the body names"
            raise KeyNotAuthorised(msg)
        if policy.keys.get(named) is None:
            Public(alg, public)
            msg = "the key is not pinned"
            raise UnknownKey(msg)
    key = policy.keys.get(value["kid"])
    if key is None:
        msg = f"no pinned key {value['kid']}"
        raise UnknownKey(msg)
    return key


def check_key(key: PinnedKey, value: Mapping[str, Any], policy: VerifyPolicy, *, index: int | None = None) -> None:
    """The key may sign this body: purpose, suite, origin, tenant, validity, compromise.

    Args:
        key: that the body names.
        value: the body.
        policy: which origins are accepted.
        index: of the receipt in the log, where a checked proof shows it.

    Raises:
        KeyNotAuthorised, KeyNotValid: it may not.
    """
    if key.purpose != "receipt" or key.alg != value["suite"]:
        msg = f"a key of purpose {key.purpose} and algorithm {key.alg}"
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
    if key.compromised_after_size is not None and (index is None or index >= key.compromised_after_size):
        msg = f"the key is compromised, and no proof shows the receipt in the first {key.compromised_after_size} leaves"
        raise KeyNotValid(msg)


def _message(value: Mapping[str, Any], head: bytes) -> bytes:
    return signature_input(suite=value["suite"], kid=value["kid"], head=head)


def check_signature(key: PinnedKey, value: Mapping[str, Any], head: str, sig: str, policy: VerifyPolicy) -> None:
    """The pinned key signed the head, with every algorithm of the suite and of the policy.

    Raises:
        MissingSignature: a part of the suite was left out, or the policy demands another suite.
        BadSignature: it did not.
    """
    _complete(key, value, len(sig) / 2, policy)
    shaped = _is_hex(sig) and _is_hex(head, 64)
    _signed(key, value, bytes.fromhex(head) if shaped else b"", bytes.fromhex(sig) if shaped else b"", policy)


def check_signed(key: PinnedKey, value: Mapping[str, Any], head: bytes, sig: bytes, policy: VerifyPolicy) -> None:
    """The pinned key signed the head, with every algorithm of the suite and of the policy: `check_signature` of bytes.

    Raises:
        MissingSignature: a part of the suite was left out, or the policy demands another suite.
        BadSignature: it did not.
    """
    _complete(key, value, len(sig), policy)
    _signed(key, value, head, sig, policy)


def _complete(key: PinnedKey, value: Mapping[str, Any], size: float, policy: VerifyPolicy) -> None:
    missing = policy.algorithms.difference(value["suite"].split("+"))
    if missing or (key.alg == HYBRID and size in _CUT):
        msg = f"no signature of {', '.join(sorted(missing))}" if missing else f"not all of {key.alg}"
        raise MissingSignature(msg)


def _signed(key: PinnedKey, value: Mapping[str, Any], head: bytes, sig: bytes, policy: VerifyPolicy) -> None:
    if not policy.keys.verify(key.kid, sig, _message(value, head), CONTEXT):
        msg = "the signature does not verify"
        raise BadSignature(msg)


def caller_signed(value: Mapping[str, Any], head: str, sig: str, verify_key: str) -> bool:
    """Whether the key that the caller brought signed the head."""
    alg, public = _hinted(verify_key)
    if key_id(public, alg) != value["kid"] or alg != value["suite"]:
        return False
    if not (_is_hex(sig) and _is_hex(head)):
        return False
    return Public(alg, public).verify(bytes.fromhex(sig), _message(value, bytes.fromhex(head)), CONTEXT)


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


def previous_record(previous: str | bytes) -> tuple[Anchor, Mapping[str, Any]]:
    """Anchor and value of the body before.

    Raises:
        VerificationError: it is none.
    """
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
