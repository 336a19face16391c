"""The fuzzing targets on seeded mutations (always) and under coverage guidance (long); the tree against pymerkle."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pymerkle
import pytest

from tcd.receipts.merkle import CompactRange, MerkleTree, check_consistency, check_inclusion, leaf_hash
from tests.property.receipts.targets import TARGETS, seeds

ROOT = Path(__file__).resolve().parents[3]
JUNK = (*(bytes([char]) for char in b'"\\{[}],\n\xff=+ 0'), b"\n\n", b"-0", b"1e9", "\u2014 ".encode())
#: Mutations per target: as many as take about two seconds each on one core.
COUNTS = {
    "canonical_parser": 4000,
    "jcs_encoder": 6000,
    "note": 6000,
    "checkpoint": 1500,
    "proof": 400,
    "keyset": 500,
    "receipt": 400,
    "bundle": 150,
    "witness": 1000,
    "tile": 20_000,
}
#: Repeated many times; what a reader may look at again and again.
UNITS = (b"[", b'"', b'{"a":', b'"\\', b"\n", b"\n\n", "\u2014 k AAAA\n".encode(), b"1", "\U0001f602".encode(), b",")


def mutated(random: Random, corpus: list[bytes]) -> bytes:
    data = bytearray(random.choice(corpus))
    for _ in range(random.randrange(5)):
        at = random.randrange(len(data) + 1)
        match random.randrange(6):
            case 0:
                data[at:at] = random.choice(JUNK)
            case 1:
                del data[at : at + random.randrange(1, 8)]
            case 2:
                other = random.choice(corpus)
                start = random.randrange(len(other))
                data[at:at] = other[start : start + random.randrange(40)]
            case 3 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 4:
                data[at : at + 1] = str(random.choice((0, 1, 2**53, 2**63, 10**40))).encode()
            case _:
                data[at : at + 1] = bytes([random.randrange(256)])
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_seeded_mutations(name: str) -> None:
    random, corpus, check = Random(f"20261126/{name}"), seeds()[name], TARGETS[name]  # noqa: S311 - reproducible
    taken = Counter(check(data) for data in corpus)
    assert taken[True] >= (2 if name == "bundle" else 1), "the seeds reach the other side"
    taken += Counter(check(mutated(random, corpus)) for _ in range(COUNTS[name]))
    assert taken[False] > 50


@pytest.mark.parametrize("name", TARGETS)
def test_work_is_bounded(name: str) -> None:
    """Ten times the input takes at most about ten times the CPU time: quadratic readers would take a hundred."""
    check = TARGETS[name]
    for unit in UNITS:
        # a neighbour on the same core can make one look slow, a quadratic reader is slow at each
        for _ in range(5):
            spent = []
            for count in (3_000, 30_000):
                data = unit * count
                start = time.process_time()
                check(data)
                spent.append(time.process_time() - start)
            if spent[1] < 40 * max(spent[0], 0.002):
                break
        else:
            pytest.fail(f"{unit!r}: {spent} s of CPU")


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_coverage_guided(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris: pip install tcd[fuzz]")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index, seed in enumerate(seeds()[name]):
        (corpus / str(index)).write_bytes(seed)
    seconds = os.environ.get("FUZZ_SECONDS", "600")
    options = (f"-max_total_time={seconds}", "-max_len=16384", "-timeout=10", "-rss_limit_mb=2048")
    command = [sys.executable, "-m", "tests.property.receipts.fuzz", name, *options]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/", str(corpus)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done" in done.stderr


@pytest.mark.parametrize("size", [64, pytest.param(400, marks=pytest.mark.long)])
def test_the_tree_is_that_of_pymerkle(size: int) -> None:
    """Roots of every size, and the hashes of every proof; their proofs also hold the leaf itself."""
    random = Random(20261126)  # noqa: S311 - reproducible
    entries = [random.randbytes(random.randrange(40)) for _ in range(size)]
    ours, theirs, compact = MerkleTree(entries), pymerkle.InmemoryTree(algorithm="sha256"), CompactRange()
    for number, entry in enumerate(entries):
        theirs.append_entry(entry)
        compact.extend([entry])
        count = number + 1
        assert ours.root(count) == theirs.get_root(count) == compact.root()
        place, old = random.randrange(count), random.randrange(1, count + 1)
        path = ours.inclusion(place, count)
        leaf = leaf_hash(entries[place])
        shown = theirs.prove_inclusion(place + 1, count).serialize()["path"]
        assert Counter(shown) == Counter(item.hex() for item in (leaf, *path))
        check_inclusion(place, count, leaf, path, theirs.get_root(count))
        check_consistency(old, count, theirs.get_root(old), theirs.get_root(count), ours.consistency(old, count))
