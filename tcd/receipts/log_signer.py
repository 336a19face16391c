"""What a log signs: checkpoints with every key that it has, and the subtrees of its batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tcd.receipts import mldsa
from tcd.receipts.checkpoint import LogHead
from tcd.receipts.cosign import Subtree, batch_subtrees, cosign, sign_subtree, verify_subtree
from tcd.receipts.errors import BadSignature, MissingSignature
from tcd.receipts.keys import ALG, Public, Signer
from tcd.receipts.keyset import KeySet, PinnedKey
from tcd.receipts.merkle import HashRange
from tcd.receipts.note import check_name, sign_note, write_note


@dataclass(frozen=True, slots=True)
class SignedSubtree:
    """A subtree with the log's signatures.

    Attributes:
        subtree: the leaves and their root.
        sigs: kid and signature of each key.
    """

    subtree: Subtree
    sigs: tuple[tuple[str, bytes], ...]

    def to_json(self) -> dict[str, Any]:
        """JSON form, of the profile tcd-jcs-1."""
        return {
            "v": "tcd.subtree/1",
            "origin": self.subtree.origin,
            "start": self.subtree.start,
            "end": self.subtree.end,
            "root": self.subtree.root.hex(),
            "sigs": [{"kid": kid, "sig": sig.hex()} for kid, sig in self.sigs],
        }


class LogSigner:
    """The keys of a log: Ed25519 (line 0x01), and ML-DSA-44 (line 0x06) where it has one."""

    __slots__ = ("_keys", "origin")

    def __init__(self, origin: str, keys: Sequence[Signer]) -> None:
        """A log.

        Args:
            origin: name of the log, which its receipts carry too; no white space and no plus.
            keys: of purpose `checkpoint`: one Ed25519 key, and at most one ML-DSA-44 key.

        Raises:
            MalformedNote: an origin that no note can carry.
            ValueError: other keys.
        """
        check_name(origin)
        if [key.alg for key in keys] not in ([ALG], [ALG, mldsa.ALG]):
            msg = "a log signs with an Ed25519 key, and with an ML-DSA-44 key after it"
            raise ValueError(msg)
        self.origin = origin
        self._keys = tuple(keys)

    @property
    def algorithms(self) -> frozenset[str]:
        """With which the log signs."""
        return frozenset(key.alg for key in self._keys)

    @property
    def classic(self) -> Signer:
        """The Ed25519 key."""
        return self._keys[0]

    def pinned(self, **restrictions: Any) -> tuple[PinnedKey, ...]:
        """The public keys for a verifier's key set; `restrictions` are options of `PinnedKey`."""
        return tuple(
            PinnedKey(key.public, "checkpoint", self.origin, alg=key.alg, **restrictions) for key in self._keys
        )

    def checkpoint(self, size: int, root: bytes, *, time: int = 0) -> bytes:
        """The signed note of a checkpoint.

        Args:
            size: leaves.
            root: 32 bytes.
            time: seconds since 1970 that the ML-DSA-44 line states; 0 = none.
        """
        head = LogHead(self.origin, size, root)
        text = head.text()
        lines = [
            cosign(head, self.origin, key, time=time) if key.alg == mldsa.ALG else sign_note(text, self.origin, key)
            for key in self._keys
        ]
        return write_note(text, lines)

    def subtrees(self, start: int, end: int, hash_range: HashRange) -> tuple[SignedSubtree, ...]:
        """The one or two subtrees that cover a batch, signed with every key.

        Args:
            start: index of the batch's first leaf.
            end: index after its last leaf.
            hash_range: root of the leaves [start, end), such as `MerkleTree.range_root`.

        Raises:
            ValueError: an empty batch.
        """
        found = []
        for first, last in batch_subtrees(start, end):
            subtree = Subtree(self.origin, first, last, hash_range(first, last))
            found.append(SignedSubtree(subtree, tuple((key.kid, sign_subtree(subtree, key)) for key in self._keys)))
        return tuple(found)


def check_subtree(signed: SignedSubtree, keys: KeySet, algorithms: frozenset[str]) -> None:
    """Check a signed subtree against pinned checkpoint keys.

    Args:
        signed: as received.
        keys: pinned.
        algorithms: that must have signed.

    Raises:
        BadSignature: a pinned key's signature is wrong.
        MissingSignature: an algorithm is missing.
    """
    pinned = {key.kid: key for key in keys.of("checkpoint", signed.subtree.origin)}
    good: set[str] = set()
    for kid, sig in signed.sigs:
        key = pinned.get(kid)
        if key is None or key.compromised_after_size is not None:
            continue
        if not verify_subtree(signed.subtree, Public(key.alg, key.public), sig):
            msg = f"wrong signature of {kid}"
            raise BadSignature(msg)
        good.add(key.alg)
    if algorithms - good or not good:
        msg = f"the subtree is not signed with {', '.join(sorted(algorithms - good)) or 'a pinned key'}"
        raise MissingSignature(msg)
