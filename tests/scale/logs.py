"""One root over the logs of all cells: what a proof is then, what it costs, and that a changed one is refused."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass

from tcd.receipts.merkle import MerkleTree, check_inclusion, leaf_hash

_HASH = 32


@dataclass(frozen=True, slots=True)
class Rooted:
    """A root over shard roots: leaf n of the upper tree states origin, size and root of shard n."""

    shards: tuple[MerkleTree, ...]
    upper: MerkleTree

    @classmethod
    def over(cls, shards: list[MerkleTree]) -> Rooted:
        """Of the shards as they are now."""
        return cls(tuple(shards), MerkleTree(statement(n, shard) for n, shard in enumerate(shards)))

    def proof(self, shard: int, index: int) -> Proof:
        """That leaf `index` of a shard is under the upper root."""
        tree = self.shards[shard]
        return Proof(
            shard, index, len(tree), tree.root(), tree.inclusion(index), self.upper.inclusion(shard), len(self.upper)
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """The path in the shard, what the upper tree says of the shard, and the path there."""

    shard: int
    index: int
    size: int
    root: bytes
    path: tuple[bytes, ...]
    upper_path: tuple[bytes, ...]
    shards: int

    @property
    def hash_bytes(self) -> int:
        """Bytes of its hashes."""
        return _HASH * (len(self.path) + len(self.upper_path) + 1)

    def check(self, entry: bytes, upper_root: bytes) -> None:
        """Demand that `entry` is where the proof says, under a root that was signed.

        Raises:
            tcd.errors.VerificationError: it is not.
        """
        check_inclusion(self.index, self.size, leaf_hash(entry), self.path, self.root)
        said = leaf_hash(_statement(self.shard, self.size, self.root))
        check_inclusion(self.shard, self.shards, said, self.upper_path, upper_root)


def statement(number: int, shard: MerkleTree) -> bytes:
    """What the upper tree has of a shard."""
    return _statement(number, len(shard), shard.root())


def _statement(number: int, size: int, root: bytes) -> bytes:
    return f"tcd.example/cell-{number}\n{size}\n{root.hex()}\n".encode()


def entry(shard: int, index: int) -> bytes:
    """A leaf: the head of a receipt."""
    return hashlib.sha256(f"{shard}/{index}".encode()).digest()


def measured(*, shards: int, leaves: int) -> dict[str, float]:
    """CPU microseconds: of the upper root over so many shards, and of the check of one proof."""
    small = [MerkleTree(entry(n, i) for i in range(leaves)) for n in range(shards)]
    began = time.process_time()
    rooted = Rooted.over(small)
    root = rooted.upper.root()
    built = time.process_time() - began
    proofs = [(rooted.proof(n, n % leaves), entry(n, n % leaves)) for n in range(shards)]
    began = time.process_time()
    for proof, leaf in proofs:
        proof.check(leaf, root)
    return {
        "shards": shards,
        "leaves": leaves,
        "upper_root_us": built * 1e6,
        "check_us": (time.process_time() - began) / shards * 1e6,
    }


def proof_bytes(*, shards: float, leaves: float) -> int:
    """Bytes of the hashes of a proof in logs of that size."""
    return _HASH * (math.ceil(math.log2(leaves)) + math.ceil(math.log2(shards)) + 1)
