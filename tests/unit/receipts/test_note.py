"""Signed notes, checkpoints and text proofs: published vectors, round trips, every bit flip."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tcd.errors import VerificationError
from tcd.receipts.checkpoint import LogHead, TlogProof, check_proof, open_checkpoint
from tcd.receipts.errors import BadInclusion, BadKey, BadSignature, MalformedCheckpoint, MalformedNote, WrongOrigin
from tcd.receipts.keys import SigningKey
from tcd.receipts.merkle import MAX_SIZE, MerkleTree
from tcd.receipts.note import MAX_NOTE, MAX_SIGNATURES, NoteVerifier, open_note, parse_note, sign_note, write_note

KEY, OTHER = SigningKey(b"\1" * 32), SigningKey(b"\2" * 32)
ORIGIN = "log.example/tcd"
LOG = NoteVerifier(ORIGIN, KEY.public)
HEADS = [bytes([number]) * 32 for number in range(11)]


def _tlog(shared: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared / "vectors" / "receipts" / "tlog" / name).read_text())
    return found


def _signed(text: str, name: str = ORIGIN, key: SigningKey = KEY) -> bytes:
    return write_note(text, [sign_note(text, name, key)])


def _proof(index: int = 5) -> TlogProof:
    tree = MerkleTree(HEADS)
    return TlogProof(index, tree.inclusion(index), _signed(LogHead(ORIGIN, len(tree), tree.root()).text()))


def test_published_notes(shared: Path) -> None:
    cases = _tlog(shared, "signed_note.json")["notes"]
    assert len(cases) == 6
    for case in cases:
        verifiers = [NoteVerifier.from_vkey(item) for item in case["vkeys"]]
        note = base64.b64decode(case["note_b64"])
        if case["valid"]:
            assert list(open_note(note, verifiers)[1]) == case["verified_names"]
        else:
            with pytest.raises(VerificationError):
                open_note(note, verifiers)


def test_published_keys_and_a_published_signature(shared: Path) -> None:
    published = _tlog(shared, "signed_note.json")
    for case in published["vkeys"]:
        assert NoteVerifier.from_vkey(case["vkey"]).vkey() == case["vkey"]
    case = published["sign"][0]
    _, _, name, _, secret = case["skey"].split("+", 4)
    key = SigningKey(base64.b64decode(secret)[1:])
    assert _signed(case["text"], name, key).decode() == case["note"]


def test_published_text_proofs(shared: Path) -> None:
    cases = _tlog(shared, "tlog_proof.json")["cases"]
    assert len(cases) == 11
    for case in cases:
        text = case["text"].encode()
        if case["valid"]:
            proof = TlogProof.parse(text)
            assert proof.index == case["index"]
            assert [base64.b64encode(item).decode() for item in proof.path] == case["hashes"]
            assert proof.write() == text
        else:
            with pytest.raises(MalformedNote):
                TlogProof.parse(text)


def test_an_auditor_checks_a_receipt_in_the_log() -> None:
    for index, head in enumerate(HEADS):
        proof = TlogProof.parse(_proof(index).write())
        assert check_proof(proof, head, LOG).size == len(HEADS)
        with pytest.raises(BadInclusion):
            check_proof(proof, HEADS[index - 1], LOG)


def test_every_bit_flip_of_a_proof_is_detected() -> None:
    raw = _proof().write()
    for position in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(VerificationError):
            check_proof(TlogProof.parse(bytes(flipped)), HEADS[5], LOG)


def test_a_checkpoint_of_another_log_or_key_is_refused() -> None:
    text = LogHead("other.example", 1, HEADS[1]).text()
    with pytest.raises(WrongOrigin):
        open_checkpoint(_signed(text), LOG)
    with pytest.raises(BadSignature):
        open_checkpoint(_signed(LogHead(ORIGIN, 1, HEADS[1]).text(), key=OTHER), LOG)


ROOT = base64.b64encode(HEADS[1]).decode()


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{ORIGIN}\n{size}\n{ROOT}\n"
            for size in ("+1", "01", "1_0", "-1", " 1", "1 ", "", "1.0", "\u0661", "9" * 20)
        ),
        f"{ORIGIN}\n{MAX_SIZE + 1}\n{ROOT}\n",
        *(f"{ORIGIN}\n1\n{base64.b64encode(HEADS[1][:-1] + tail).decode()}\n" for tail in (b"", b"\1\1")),
        f"{ORIGIN}\n1\n{ROOT[:-1]}\n",
        f"{ORIGIN}\n1\n{ROOT[:-2]}F=\n",
        f"{ORIGIN}\n1\n",
        f"\n1\n{ROOT}\n",
        f"{ORIGIN}\n1\n{ROOT}\n\n",
    ],
)
def test_malformed_checkpoints_are_refused_though_signed(text: str) -> None:
    with pytest.raises(MalformedCheckpoint):
        open_checkpoint(_signed(text), LOG)


def test_extension_lines_survive() -> None:
    head = LogHead(ORIGIN, 1, HEADS[1], ("one", "two three"))
    assert open_checkpoint(_signed(head.text()), LOG) == head


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"\xff\n\n",
        _signed("text\n")[:-1],
        _signed("text\n") + b"\n",
        _signed("text\n").replace(b"\n\n", b"\n"),
        _signed("text\n").replace(b"text", b"te\rt"),
        _signed("text\n").replace("\u2014".encode(), b"-"),
        _signed("text\n").replace(b"=", b""),
        b"text\n\n" + _signed("text\n").split(b"\n\n")[1] * (MAX_SIGNATURES + 1),
        b"x" * MAX_NOTE + _signed("text\n"),
    ],
)
def test_what_is_no_note_is_refused(note: bytes) -> None:
    with pytest.raises(MalformedNote):
        parse_note(note)


def test_sixteen_signatures_are_read_and_a_key_counts_once() -> None:
    line = sign_note("text\n", ORIGIN, KEY)
    assert open_note(write_note("text\n", [line] * MAX_SIGNATURES), [LOG]) == ("text\n", (ORIGIN,))


def test_unsafe_keys_and_wrong_hashes_are_refused() -> None:
    with pytest.raises(BadKey):
        NoteVerifier(ORIGIN, b"\1" + b"\0" * 31)
    with pytest.raises(BadKey):
        NoteVerifier.from_vkey(LOG.vkey().replace(LOG.hash.hex(), "00000000"))
    for name in ("", "a b", "a+b", "a\u00a0b", "a\udc80"):
        with pytest.raises(MalformedNote):
            NoteVerifier(name, KEY.public)
