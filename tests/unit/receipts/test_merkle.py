"""The Merkle tree against published vectors, against the definition, and against every small mutation of a proof."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tcd.errors import VerificationError
from tcd.receipts import merkle
from tcd.receipts.errors import BadInclusion, InconsistentLog

ENTRIES = [hashlib.sha256(bytes([number])).digest() for number in range(70)]


def _definition(entries: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\1" + _definition(entries[:split]) + _definition(entries[split:])).digest()


def _bytes(value: str | None) -> bytes:
    return base64.b64decode(value or "")


def _vectors(shared: Path, kind: str) -> list[dict[str, Any]]:
    files = sorted((shared / "vectors" / "receipts" / "merkle" / kind).rglob("*.json"))
    return [json.loads(path.read_text()) for path in files]


def test_published_inclusion_vectors(shared: Path) -> None:
    vectors = _vectors(shared, "inclusion")
    assert len(vectors) > 20
    for case in vectors:
        path = [_bytes(item) for item in case["proof"] or []]
        arguments = (case["leafIdx"], case["treeSize"], _bytes(case["leafHash"]), path, _bytes(case["root"]))
        if case["wantErr"]:
            with pytest.raises(BadInclusion):
                merkle.check_inclusion(*arguments)
        else:
            merkle.check_inclusion(*arguments)


def test_published_consistency_vectors(shared: Path) -> None:
    vectors = _vectors(shared, "consistency")
    assert len(vectors) > 10
    for case in vectors:
        path = [_bytes(item) for item in case["proof"] or []]
        arguments = (case["size1"], case["size2"], _bytes(case["root1"]), _bytes(case["root2"]), path)
        if case["wantErr"]:
            with pytest.raises(InconsistentLog):
                merkle.check_consistency(*arguments)
        else:
            merkle.check_consistency(*arguments)


def test_roots_are_those_of_the_definition() -> None:
    tree, compact = merkle.MerkleTree(), merkle.CompactRange()
    for size in range(len(ENTRIES) + 1):
        assert tree.root() == compact.root() == _definition(ENTRIES[:size])
        if size < len(ENTRIES):
            tree.append(ENTRIES[size])
            compact.extend([ENTRIES[size]])
    assert all(tree.root(size) == _definition(ENTRIES[:size]) for size in range(len(ENTRIES) + 1))


def test_a_compact_range_resumes() -> None:
    whole = merkle.CompactRange()
    whole.extend(ENTRIES[:37])
    resumed = merkle.CompactRange(whole.size, whole.roots)
    resumed.extend(ENTRIES[37:])
    assert resumed.root() == _definition(ENTRIES)
    with pytest.raises(ValueError, match="compact range"):
        merkle.CompactRange(3, whole.roots[:1])


def test_every_proof_of_every_small_tree_verifies_and_no_neighbour_does() -> None:
    tree = merkle.MerkleTree(ENTRIES[:33])
    for size in range(1, 34):
        root = tree.root(size)
        for index in range(size):
            path, leaf = tree.inclusion(index, size), merkle.leaf_hash(ENTRIES[index])
            merkle.check_inclusion(index, size, leaf, path, root)
            wrong = [
                (index + 1, size, leaf, path, root),
                (index, size, merkle.leaf_hash(leaf), path, root),
                (index, size, leaf, (*path, root), root),
                (index, size, leaf, path[:-1], root) if path else (index - 1, size, leaf, path, root),
                (index, size, leaf, path, merkle.EMPTY_ROOT),
            ]
            for arguments in wrong:
                with pytest.raises(BadInclusion):
                    merkle.check_inclusion(*arguments)


def test_every_small_pair_of_sizes_is_consistent_and_no_mutation_is() -> None:
    tree = merkle.MerkleTree(ENTRIES[:33])
    for size in range(34):
        for old in range(size + 1):
            path = tree.consistency(old, size)
            merkle.check_consistency(old, size, tree.root(old), tree.root(size), path)
            wrong = [(*path, tree.root()), path[:-1] if path else (tree.root(),), path[::-1]]
            for proof in wrong:
                if proof != path:
                    with pytest.raises(InconsistentLog):
                        merkle.check_consistency(old, size, tree.root(old), tree.root(size), proof)
            if size:
                with pytest.raises(InconsistentLog):
                    merkle.check_consistency(old, size, b"\1" * 32, tree.root(size), path)
                with pytest.raises(InconsistentLog):
                    merkle.check_consistency(old, size, tree.root(old), b"\1" * 32, path) if old else (
                        merkle.check_consistency(size, old, tree.root(size), tree.root(old), path)
                    )


def test_work_is_bounded_on_hostile_proofs() -> None:
    leaf = merkle.leaf_hash(b"")
    for length in (merkle.MAX_PATH, merkle.MAX_PATH + 1, 100_000):
        with pytest.raises(VerificationError):
            merkle.check_inclusion(0, merkle.MAX_SIZE, leaf, [leaf] * length, leaf)
        with pytest.raises(VerificationError):
            merkle.check_consistency(1, merkle.MAX_SIZE, leaf, leaf, [leaf] * length)
    with pytest.raises(BadInclusion):
        merkle.check_inclusion(0, 10**400, leaf, [], leaf)
