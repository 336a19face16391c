"""Vectors of C2SP: signed notes, verifier keys, tlog-proofs, checkpoints of the specifications' examples."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from tcd.conformance.findings import Finding, compare
from tcd.errors import VerificationError
from tcd.receipts.checkpoint import LogHead, TlogProof
from tcd.receipts.cosign import verifier_of
from tcd.receipts.keys import SigningKey
from tcd.receipts.merkle import CompactRange, MerkleTree
from tcd.receipts.note import open_note, parse_note, sign_note, write_note

Data = Mapping[str, Any]


def is_notes(data: Data) -> bool:
    """Whether these are signed notes with their verifier keys."""
    return "notes" in data and "vkeys" in data


def is_proofs(data: Data) -> bool:
    """Whether these are tlog-proofs as text."""
    cases = data.get("cases")
    return isinstance(cases, list) and bool(cases) and isinstance(cases[0], Mapping) and "text" in cases[0]


def is_examples(data: Data) -> bool:
    """Whether these are the examples of C2SP's pages."""
    return isinstance(data.get("examples"), Mapping)


def is_tree(data: Data) -> bool:
    """Whether this is a tree with the hashes of its nodes and the roots of its sizes."""
    return "leaf_inputs_hex" in data and "root_hashes_hex" in data


def _try(work: Callable[[], Any]) -> Any:
    """The result, None where verification refuses."""
    try:
        return work()
    except VerificationError:
        return None


def _open(case: Data) -> list[str] | None:
    verifiers = [verifier_of(text) for text in case["vkeys"]]
    opened = _try(lambda: open_note(base64.b64decode(case["note_b64"]), verifiers))
    return None if opened is None else list(opened[1])


def _sign(case: Data) -> str:
    _, _, name, _, secret = case["skey"].split("+", 4)
    key = SigningKey(base64.b64decode(secret)[1:])
    return write_note(case["text"], [sign_note(case["text"], name, key)]).decode()


def check_notes(data: Data) -> list[Finding]:
    """Compare who signed each note, which verifier keys are taken, and what a secret key signs."""
    opened = [_open(case) == (case["verified_names"] if case["valid"] else None) for case in data["notes"]]
    keys = []
    for case in data["vkeys"]:
        found = _try(lambda case=case: verifier_of(case["vkey"]).vkey())  # type: ignore[misc]
        keys.append(found == (case["vkey"] if case["valid"] else None))
    signed = [_sign(case) == case["note"] for case in data["sign"]]
    rules = (("signed notes", opened), ("verifier keys", keys), ("signing", signed))
    return [compare(rule, [0.0] * len(good), wrong=good.count(False)) for rule, good in rules]


def _proof(case: Data) -> bool:
    raw = case["text"].encode()
    proof = _try(lambda: TlogProof.parse(raw))
    if proof is None or not case["valid"]:
        return (proof is not None) is case["valid"]
    extra = None if proof.extra is None else base64.b64encode(proof.extra).decode()
    hashes = [base64.b64encode(item).decode() for item in proof.path]
    told = (proof.index, hashes, extra, proof.write())
    return bool(told == (case["index"], case["hashes"], case["extra"], raw))


def check_proofs(data: Data) -> list[Finding]:
    """Compare which proofs are read, and what is read."""
    good = [_proof(case) for case in data["cases"]]
    return [compare("tlog-proofs", [0.0] * len(good), wrong=good.count(False))]


def _checkpoint(text: str) -> bool:
    def same() -> bool:
        body, lines = parse_note(text.encode())
        return LogHead.from_text(body).text() == body and write_note(body, lines) == text.encode()

    return _try(same) is True


def check_examples(data: Data) -> list[Finding]:
    """Compare the checkpoints of the examples; the others are abbreviated or have placeholders."""
    findings: list[Finding] = []
    for page, texts in data["examples"].items():
        if page in {"tlog-checkpoint.md", "tlog-cosignature.md"}:
            good = [_checkpoint(text) for text in texts]
            findings.append(compare(page, [0.0] * len(good), wrong=good.count(False)))
        else:
            findings.append(Finding(page, "not compared", note="abbreviated, or placeholders instead of keys"))
    return findings


def check_tree(data: Data) -> list[Finding]:
    """Compare the roots of every size, of both trees that tcd has."""
    entries = [bytes.fromhex(item) for item in data["leaf_inputs_hex"]]
    tree, compact = MerkleTree(entries), CompactRange()
    wrong = 0
    for size, expected in enumerate(data["root_hashes_hex"]):
        wrong += tree.root(size).hex() != expected
        wrong += compact.root().hex() != expected
        compact.extend(entries[size : size + 1])
    return [compare("roots", [0.0] * len(data["root_hashes_hex"]), wrong=wrong)]
