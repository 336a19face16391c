"""A log with witnesses, so that tests attack whole proofs instead of mocks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tcd.receipts import KeySet, MlDsaKey, PinnedKey, Receipt, SigningKey, VerifyPolicy
from tcd.receipts.checkpoint import LogHead, TlogProof
from tcd.receipts.cosign import Cosigner, MlDsaVerifier, cosign
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.merkle import MerkleTree
from tcd.receipts.note import parse_note as parse
from tcd.receipts.note import write_note
from tcd.receipts.tlog_policy import WitnessPolicy, parse_policy

TIME = 1_760_000_000


def seed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@dataclass
class LogSimulator:
    """A log of receipts.

    Attributes:
        origin: of the log and of its receipts.
        witnesses: how many cosign; even ones with Ed25519, odd ones with ML-DSA-44.
    """

    origin: str = "tcd.example"
    witnesses: int = 2
    name: str = "log"
    tree: MerkleTree = field(default_factory=MerkleTree)

    def __post_init__(self) -> None:
        self.key, self.quantum = SigningKey(seed(f"{self.name}/ed")), MlDsaKey(seed(f"{self.name}/ml"))
        self.signer = LogSigner(self.origin, [self.key, self.quantum])
        self.cosigners: list[Any] = [
            (SigningKey if number % 2 == 0 else MlDsaKey)(seed(f"w{number}")) for number in range(self.witnesses)
        ]

    def add(self, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            self.tree.append(receipt.head)

    def witness_name(self, number: int) -> str:
        return f"witness.example/w{number}"

    def checkpoint(self, size: int | None = None, *, witnesses: Sequence[int] | None = None) -> bytes:
        size = len(self.tree) if size is None else size
        text, lines = parse(self.signer.checkpoint(size, self.tree.root(size), time=TIME))
        head = LogHead.from_text(text)
        chosen = range(self.witnesses) if witnesses is None else witnesses
        more = [cosign(head, self.witness_name(n), self.cosigners[n], time=TIME + n) for n in chosen]
        return write_note(text, [*lines, *more])

    def proof(self, index: int, size: int | None = None, *, extra: bytes | None = None, **options: Any) -> bytes:
        return TlogProof(index, self.tree.inclusion(index, size), self.checkpoint(size, **options), extra).write()

    def pinned(self, **restrictions: Any) -> tuple[PinnedKey, ...]:
        return self.signer.pinned(**restrictions)

    def witness_policy(self, threshold: str = "all") -> WitnessPolicy:
        lines = []
        for number, key in enumerate(self.cosigners):
            kind = Cosigner if number % 2 == 0 else MlDsaVerifier
            lines.append(f"witness w{number} {kind(self.witness_name(number), key.public).vkey()}")
        names = " ".join(f"w{number}" for number in range(self.witnesses))
        return parse_policy("\n".join([*lines, f"group all {threshold} {names}", "quorum all", ""]).encode())

    def policy(self, *keys: PinnedKey, threshold: str = "all", **options: Any) -> VerifyPolicy:
        """Everything is demanded: both algorithms of the log and the quorum."""
        settings: dict[str, Any] = {
            "log_algorithms": frozenset({"Ed25519", "ML-DSA-44"}),
            "witnesses": self.witness_policy(threshold),
            **options,
        }
        return VerifyPolicy(KeySet([*keys, *self.pinned()]), **settings)
