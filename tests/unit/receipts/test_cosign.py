"""ML-DSA-44 and Ed25519 lines of logs and witnesses, subtrees of batches, hybrid keys."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from tcd.receipts import HybridKey, KeySet, MlDsaKey, SigningKey
from tcd.receipts.checkpoint import LogHead
from tcd.receipts.cosign import (
    Cosigner,
    MlDsaVerifier,
    Subtree,
    batch_subtrees,
    cosign,
    sign_subtree,
    time_of,
    verifier_of,
    verify_subtree,
)
from tcd.receipts.errors import BadKey, BadSignature, MalformedCheckpoint, MalformedNote, MissingSignature
from tcd.receipts.keys import HYBRID, Public, signer
from tcd.receipts.log_signer import SignedSubtree, check_subtree
from tcd.receipts.merkle import MerkleTree
from tcd.receipts.note import LineVerifier, NoteVerifier, open_note, parse_note, sign_note, verify_lines, write_note
from tests.unit.receipts.simulator import TIME, LogSimulator

ED, ML = SigningKey(b"\1" * 32), MlDsaKey(b"\2" * 32)
HEAD = LogHead("log.example", 7, b"\7" * 32)


def test_the_published_cosignature_has_the_documented_layout(shared: Path) -> None:
    examples = json.loads((shared / "vectors" / "receipts" / "tlog" / "c2sp_examples.json").read_text())["examples"]
    text, lines = parse_note(examples["tlog-cosignature.md"][0].encode())
    assert LogHead.from_text(text).size == 20852163
    assert time_of(lines[1]) == 1679315147
    assert len(lines[1].signature) == 72


def test_a_cosignature_signs_the_time_and_the_whole_text() -> None:
    head = LogHead("log.example", 7, b"\7" * 32, ("an extension",))
    line = cosign(head, "w.example", ED, time=TIME)
    message = b"cosignature/v1\ntime %d\n%s" % (TIME, head.text().encode())
    assert Public("Ed25519", ED.public).verify(line.signature[8:], message)
    assert line.signature[:8] == struct.pack(">Q", TIME)
    verifier = Cosigner("w.example", ED.public)
    assert verifier.verify(head.text(), line.signature)
    assert not verifier.verify(HEAD.text(), line.signature)
    assert not verifier.verify(head.text(), struct.pack(">Q", TIME + 1) + line.signature[8:])


def test_an_ml_dsa_cosignature_signs_the_documented_structure_without_a_context() -> None:
    line = cosign(HEAD, "w.example", ML, time=TIME)
    message = b"subtree/v1\n\0" + b"\x09w.example" + struct.pack(">Q", TIME) + b"\x0blog.example"
    message += struct.pack(">QQ", 0, 7) + HEAD.root
    MLDSA44PublicKey.from_public_bytes(ML.public).verify(line.signature[8:], message)
    verifier = MlDsaVerifier("w.example", ML.public)
    assert verifier.verify(HEAD.text(), line.signature)
    for other in (LogHead("log2.example", 7, HEAD.root), LogHead("log.example", 8, HEAD.root)):
        assert not verifier.verify(other.text(), line.signature)
    assert not MlDsaVerifier("w2.example", ML.public).verify(HEAD.text(), line.signature)


def test_types_of_lines_do_not_stand_for_each_other() -> None:
    """One Ed25519 key used for all: the line of one type verifies as no other."""
    text = HEAD.text()
    note, timed = sign_note(text, "k", ED), cosign(HEAD, "k", ED, time=TIME)
    assert not Cosigner("k", ED.public).verify(text, note.signature)
    assert not NoteVerifier("k", ED.public).verify(text, timed.signature)
    assert not NoteVerifier("k", ED.public).verify(text, timed.signature[8:])
    assert len({NoteVerifier("k", ED.public).hash, Cosigner("k", ED.public).hash}) == 2
    subtree = Subtree("k", 0, 7, HEAD.root)
    assert not Cosigner("k", ED.public).verify(text, bytes(8) + sign_subtree(subtree, ED))
    with pytest.raises(BadKey):
        sign_note(text, "k", ML)
    with pytest.raises(BadKey):
        cosign(HEAD, "k", HybridKey(bytes(64)), time=TIME)


def test_verifier_keys_of_every_type_round_trip() -> None:
    for verifier in (NoteVerifier("a", ED.public), Cosigner("b", ED.public), MlDsaVerifier("c", ML.public)):
        assert verifier_of(verifier.vkey()) == verifier
    for bad in ("a+b", NoteVerifier("a", ED.public).vkey()[:-4], ""):
        with pytest.raises((MalformedNote, BadKey)):
            verifier_of(bad)
    with pytest.raises(BadKey):
        MlDsaVerifier("a", ML.public[:-1])


def test_a_hybrid_checkpoint_opens_with_either_key_and_every_bit_of_its_lines_counts() -> None:
    log = LogSimulator(witnesses=1)
    for number in range(5):
        log.tree.append(bytes([number]))
    note = log.checkpoint()
    verifiers: list[LineVerifier] = [
        NoteVerifier(log.origin, log.key.public),
        MlDsaVerifier(log.origin, log.quantum.public),
        Cosigner(log.witness_name(0), log.cosigners[0].public),
    ]
    for verifier in verifiers:
        assert open_note(note, [verifier])[1] == (verifier.name,)
    text, lines = parse_note(note)
    assert [found.verifier for found in verify_lines(text, lines, verifiers)] == verifiers
    for verifier, line in zip(verifiers, lines, strict=True):
        for position in range(0, len(line.signature) * 8, 1 if len(line.signature) < 100 else 41):
            flipped = bytearray(line.signature)
            flipped[position // 8] ^= 1 << position % 8
            assert not verifier.verify(text, bytes(flipped))
        assert not verifier.verify(text, line.signature[:-1])
        assert not verifier.verify(text, b"")


def test_batches_are_covered_by_one_or_two_aligned_subtrees() -> None:
    tree = MerkleTree(bytes([number]) for number in range(130))
    ones = 0
    for start in range(64):
        for end in range(start + 1, 130):
            ranges = batch_subtrees(start, end)
            ones += len(ranges) == 1
            assert len(ranges) <= 2
            assert ranges[0][0] <= start
            assert ranges[-1][1] == end
            assert all(left[1] == right[0] for left, right in pairwise(ranges))
            for first, last in ranges:
                Subtree("o", first, last, tree.range_root(first, last))
    assert ones > 64
    for bad in ((3, 3), (4, 3), (-1, 2)):
        with pytest.raises(ValueError, match="no leaves"):
            batch_subtrees(*bad)


@pytest.mark.parametrize(
    ("start", "end", "root"), [(1, 3, b"\0" * 32), (4, 13, b"\0" * 32), (2, 2, b"\0" * 32), (3, 2, b""), (0, 1, b"")]
)
def test_what_is_no_subtree_is_refused(start: int, end: int, root: bytes) -> None:
    with pytest.raises(MalformedCheckpoint):
        Subtree("o", start, end, root)


def test_a_subtree_has_no_time_unless_it_is_a_whole_tree() -> None:
    assert Subtree("o", 0, 2, bytes(32)).message("o", TIME)
    for time in (TIME, -1, 2**63):
        with pytest.raises(MalformedCheckpoint):
            Subtree("o", 2, 4, bytes(32)).message("o", time)
    with pytest.raises(MalformedCheckpoint):
        Subtree("o" * 256, 0, 2, bytes(32)).message("o")


def test_a_batch_is_signed_with_both_algorithms_and_each_part_is_demanded() -> None:
    log = LogSimulator()
    for number in range(40):
        log.tree.append(bytes([number]))
    both = frozenset({"Ed25519", "ML-DSA-44"})
    keys = KeySet(log.pinned())
    signed = log.signer.subtrees(8, 23, log.tree.range_root)
    assert [(item.subtree.start, item.subtree.end) for item in signed] == [(8, 23)] or len(signed) == 2
    for item in signed:
        check_subtree(item, keys, both)
        assert item.to_json()["root"] == log.tree.range_root(item.subtree.start, item.subtree.end).hex()
        with pytest.raises(MissingSignature):
            check_subtree(SignedSubtree(item.subtree, item.sigs[:1]), keys, both)
        swapped = tuple((kid, sig) for (kid, _), (_, sig) in zip(item.sigs, reversed(item.sigs), strict=True))
        with pytest.raises(BadSignature):
            check_subtree(SignedSubtree(item.subtree, swapped), keys, both)
        moved = Subtree(log.origin, item.subtree.start, item.subtree.end, bytes(32))
        with pytest.raises(BadSignature):
            check_subtree(SignedSubtree(moved, item.sigs), keys, both)
    with pytest.raises(MissingSignature):
        check_subtree(signed[0], KeySet([]), frozenset())
    assert not verify_subtree(Subtree("o", 0, 1, bytes(32)), Public("ML-DSA-44", ML.public), b"")


def test_hybrid_keys_need_both_parts() -> None:
    key = signer(HYBRID, b"\1" * 32 + b"\2" * 32)
    assert key.public == ED.public + ML.public
    public, other = Public(HYBRID, key.public), signer(HYBRID, b"\3" * 64)
    sig = key.sign(b"m", b"c")
    assert public.verify(sig, b"m", b"c")
    assert not public.verify(sig, b"m", b"another context")
    assert not public.verify(sig, b"n", b"c")
    theirs = other.sign(b"m", b"c")
    for bad in (sig[:64], sig[64:], sig[:64] + theirs[64:], theirs[:64] + sig[64:], sig[64:] + sig[:64]):
        assert not public.verify(bad, b"m", b"c")
    for alg, length in ((HYBRID, 32), ("Ed25519", 31), ("ML-DSA-65", 32)):
        with pytest.raises(ValueError, match="seed"):
            signer(alg, bytes(length))
    with pytest.raises(BadKey):
        Public("ML-DSA-65", ML.public)
    assert "02020202" not in repr(key) + repr(ML)


def test_a_note_signed_by_two_keys_of_one_name_counts_each_key_once() -> None:
    text = HEAD.text()
    lines = [sign_note(text, "k", ED), cosign(HEAD, "k", ML, time=0), sign_note(text, "k", ED)]
    found = verify_lines(text, lines, [NoteVerifier("k", ED.public), MlDsaVerifier("k", ML.public)])
    assert [item.verifier.algorithm for item in found] == [0x01, 0x06]
    assert open_note(write_note(text, lines), [NoteVerifier("k", ED.public)])[1] == ("k",)
