"""Verifying what is left of a receipt whose body was erased: who signed its head, and that the log has it.

The answer is never `ok`: what is not there cannot be verified. It is `erased` when everything that is left is in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tcd.errors import VerificationError
from tcd.receipts.checks import check_signature
from tcd.receipts.erasure import ErasedBody
from tcd.receipts.errors import Erased, HeadMismatch, KeyNotAuthorised, KeyNotValid, UnknownKey
from tcd.receipts.logcheck import check_log
from tcd.receipts.report import SINGLE, Checks, Report, Trust, VerifyPolicy

_HEX: Final = frozenset("0123456789abcdef")
_HEAD: Final = 64
GONE: Final = Erased("the body was erased")


def check_erased(body: ErasedBody, head: str, sig: str, policy: VerifyPolicy, *, index: int | None) -> None:
    """The head was signed by a pinned key that may sign receipts of this origin and tenant.

    Its time is gone with the body, so a key's validity in time is not looked at; its compromise is.

    Args:
        body: in the place of the body.
        head: 64 hex digits.
        sig: in hex.
        policy: pinned keys.
        index: of the receipt in the log, where a checked proof shows it.

    Raises:
        UnknownKey, KeyNotAuthorised, KeyNotValid, MissingSignature, BadSignature: it was not.
    """
    key = policy.keys.get(body.kid)
    if key is None:
        msg = f"no pinned key {body.kid}"
        raise UnknownKey(msg)
    foreign = policy.origins is not None and body.origin not in policy.origins
    if (key.purpose, key.alg, key.origin) != ("receipt", body.suite, body.origin) or foreign:
        msg = f"a key of purpose {key.purpose}, algorithm {key.alg} and origin {key.origin!r}"
        raise KeyNotAuthorised(msg)
    if key.tenants is not None and body.tenant not in key.tenants:
        msg = "another tenant"
        raise KeyNotAuthorised(msg)
    if key.compromised_after_size is not None and (index is None or index >= key.compromised_after_size):
        msg = "the key is compromised, and the log does not show that the receipt is older"
        raise KeyNotValid(msg)
    check_signature(key, body.members(), head, sig, policy)


def log_value(body: ErasedBody) -> Mapping[str, Any]:
    """What `check_log` takes for the body."""
    return {**body.members(), "ts_us": 0}


def verify_erased(
    body: ErasedBody, *, head: str, sig: str, policy: VerifyPolicy, proof: str | bytes | None = None
) -> Report:
    """Report of a receipt without its body; its last check, `erased`, always fails.

    Args:
        body: in the place of the body.
        head: 64 lower-case hex digits.
        sig: signature in hex.
        policy: what is demanded and which keys are pinned.
        proof: `tlog-proof@v1`.
    """
    checks, trust = Checks({"signature"} | (policy.require & {"inclusion", "checkpoint", "witness_quorum"})), "none"
    order = (*SINGLE, "erased")
    if len(head) != _HEAD or not set(head) <= _HEX:
        checks.failed("head", HeadMismatch("not a head"))
        return checks.report(order, policy=policy.digest, trust=_trust(trust))
    evidence = None
    if proof is not None:
        checks.requested |= {"inclusion", "checkpoint"}
        evidence = check_log(checks, proof, head=bytes.fromhex(head), value=log_value(body), policy=policy)
    try:
        check_erased(body, head, sig, policy, index=None if evidence is None else evidence.index)
    except VerificationError as error:
        checks.failed("signature", error)
    else:
        checks.passed("signature")
        trust = "server"
    checks.failed("erased", GONE)
    return checks.report(order, policy=policy.digest, trust=_trust(trust))


def _trust(name: str) -> Trust:
    return "server" if name == "server" else "none"
