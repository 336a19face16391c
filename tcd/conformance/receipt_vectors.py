"""The vectors that we publish (docs/verifier/vectors): runs of receipts with the verdict that they must get."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from tcd.conformance.findings import Finding, Malformed, compare
from tcd.errors import TcdError, VerificationError
from tcd.receipts import (
    Anchor,
    KeySet,
    VerifyPolicy,
    chain_id,
    head_of,
    key_id,
    replay_step,
    segment,
    signature_input,
    verify_chain,
    verify_single,
)
from tcd.receipts.cosign import Subtree
from tcd.risk_av.exact import unhex64

VERSION: Final = "tcd.receipt-vectors/1"
PRIMITIVES: Final = "tcd.receipt-primitives/1"
Data = Mapping[str, Any]


def is_vectors(data: Data) -> bool:
    """Whether this is a file of receipts with verdicts."""
    return data.get("v") == VERSION


def is_primitives(data: Data) -> bool:
    """Whether this is a file of the steps under receipts."""
    return data.get("v") == PRIMITIVES


def _segment(case: Data) -> bool:
    values = [unhex64(value) for value in case["values"]]
    salt = bytes.fromhex(case["segment"]["salt"])
    return bool(segment(case["segment"]["name"], np.asarray(values), salt) == case["segment"])


def _follows(case: Data) -> bool:
    try:
        replay_step(case["previous"], case["current"], case["terms"])
    except VerificationError:
        return not case["ok"]
    return bool(case["ok"])


def _message(case: Data) -> bool:
    head = bytes.fromhex(case["head"])
    return bool(signature_input(suite=case["suite"], kid=case["kid"], head=head).hex() == case["message"])


def _subtree(case: Data) -> bool:
    subtree = Subtree(case["origin"], case["start"], case["end"], bytes.fromhex(case["root"]))
    return bool(subtree.message(case["origin"], case["time"]).hex() == case["message"])


_STEPS: Final[Mapping[str, Callable[[Data], bool]]] = {
    "heads": lambda case: head_of(case["body"].encode()).hex() == case["head"],
    "kids": lambda case: key_id(bytes.fromhex(case["pub"]), case["alg"]) == case["kid"],
    "messages": _message,
    "chains": lambda case: chain_id(case["kind"], *case["parts"]) == case["id"],
    "witness": _segment,
    "eproc": _follows,
    "subtrees": _subtree,
}


def check_primitives(data: Data) -> list[Finding]:
    """Compare every step, by its kind."""
    results = {name: [check(case) for case in data[name]] for name, check in _STEPS.items()}
    return [compare(name, [0.0] * len(found), wrong=found.count(False)) for name, found in results.items()]


def verdict(receipts: Sequence[Mapping[str, Any]], policy: VerifyPolicy) -> tuple[bool, str]:
    """Verdict and code of consecutive records: each by itself, then their links and their order in the log."""
    for item in receipts:
        report = verify_single(
            item["receipt_body"],
            head=item["receipt"],
            sig=item["receipt_sig"],
            proof=item.get("proof"),
            policy=policy,
        )
        if not report.ok:
            return False, report.code
    proofs = [item.get("proof") for item in receipts]
    first = json.loads(receipts[0]["receipt_body"])["chain"]
    try:
        chain = verify_chain(
            [item["receipt_body"] for item in receipts],
            heads=[item["receipt"] for item in receipts],
            sigs=[item["receipt_sig"] for item in receipts],
            proofs=proofs if all(proofs) else None,
            start=Anchor(first["seq"] - 1, first["prev"]) if first["seq"] else None,
            policy=policy,
        )
    except TcdError as error:
        return False, error.code
    return chain.ok, chain.code


def check_vectors(data: Data) -> list[Finding]:
    """Compare verdict and code of every case, by the part of the format that it is about.

    Raises:
        Malformed: no key set.
    """
    try:
        policy = VerifyPolicy(KeySet.from_json(data["keyset"]))
    except VerificationError as error:
        msg = f"no key set: {error.detail}"
        raise Malformed(msg) from error
    groups: dict[str, list[str]] = {}
    for case in data["cases"]:
        right = verdict(case["receipts"], policy) == (case["ok"], case["code"])
        groups.setdefault(case["name"].split(":")[0], []).append("" if right else case["name"])
    return [
        compare(f"receipts, {group}", [0.0] * len(names), wrong=len(names) - names.count(""))
        for group, names in groups.items()
    ]
