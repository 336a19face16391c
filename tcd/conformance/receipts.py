"""Vectors of the receipts' primitives: RFC 9162 inclusion and consistency proofs, Ed25519 signatures (Wycheproof).

A proof or signature that must be accepted and is not, or the reverse, is a decision that differs.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from tcd.conformance.findings import Finding, Malformed, compare
from tcd.errors import VerificationError
from tcd.receipts import merkle
from tcd.receipts.keys import verify_ed25519

Data = Mapping[str, Any]


def is_inclusion(data: Data) -> bool:
    """Whether this is an inclusion proof in the form of transparency-dev/merkle."""
    return "leafIdx" in data and "treeSize" in data


def is_consistency(data: Data) -> bool:
    """Whether this is a consistency proof in the form of transparency-dev/merkle."""
    return "size1" in data and "size2" in data


def is_ed25519(data: Data) -> bool:
    """Whether this is a Wycheproof file of EdDSA signatures."""
    return data.get("algorithm") == "EDDSA" and "testGroups" in data


def _flag(data: Data, name: str) -> bool:
    value = data[name]
    if type(value) is not bool:
        msg = f"{name} is not a boolean"
        raise Malformed(msg)
    return value


def _base64(value: str | None) -> bytes:
    try:
        return base64.b64decode(value or "", validate=True)
    except binascii.Error as error:
        msg = f"not base64: {error}"
        raise Malformed(msg) from error


def _refused(check: Callable[[], None]) -> bool:
    try:
        check()
    except VerificationError:
        return True
    return False


def _proof(rule: str, data: Data, check: Callable[[], None]) -> list[Finding]:
    wrong = int(_refused(check) is not _flag(data, "wantErr"))
    return [compare(rule, [0.0], wrong=wrong)]


def check_inclusion(data: Data) -> list[Finding]:
    """Compare the verdict on an inclusion proof.

    Raises:
        Malformed: a member is of the wrong form.
    """
    path = [_base64(item) for item in data["proof"] or []]
    leaf, root = _base64(data["leafHash"]), _base64(data["root"])
    return _proof(
        "inclusion", data, lambda: merkle.check_inclusion(data["leafIdx"], data["treeSize"], leaf, path, root)
    )


def check_consistency(data: Data) -> list[Finding]:
    """Compare the verdict on a consistency proof.

    Raises:
        Malformed: a member is of the wrong form.
    """
    path = [_base64(item) for item in data["proof"] or []]
    old, new = _base64(data["root1"]), _base64(data["root2"])
    return _proof("consistency", data, lambda: merkle.check_consistency(data["size1"], data["size2"], old, new, path))


def check_ed25519(data: Data) -> list[Finding]:
    """Compare the verdict on every signature of a Wycheproof file; "acceptable" ones count as to be refused.

    Raises:
        Malformed: fewer or more signatures than the file says.
    """
    verdicts = [
        verify_ed25519(bytes.fromhex(group["publicKey"]["pk"]), bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
        is (case["result"] == "valid")
        for group in data["testGroups"]
        for case in group["tests"]
    ]
    if len(verdicts) != data["numberOfTests"]:
        msg = f"{len(verdicts)} signatures, the file says {data['numberOfTests']}"
        raise Malformed(msg)
    return [compare("ed25519", [0.0] * len(verdicts), wrong=verdicts.count(False))]
