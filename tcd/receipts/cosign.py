r"""C2SP tlog-cosignature: what a witness, and a log with its post-quantum key, sign of a checkpoint or a subtree.

Type 0x04 is Ed25519 over `cosignature/v1`, a time and the checkpoint's text. Type 0x06 is ML-DSA-44, with an empty
context string, over the structure `subtree/v1`, which names the cosigner and the log. A log signs its checkpoints with
0x01 and 0x06, and the subtrees of its batches with ML-DSA-44 and with Ed25519 over "tcd/subtree/v1\0" and the same
structure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from tcd.receipts import mldsa
from tcd.receipts.checkpoint import LogHead
from tcd.receipts.errors import BadKey, MalformedCheckpoint, MalformedNote
from tcd.receipts.keys import ALG, Public, Signer
from tcd.receipts.merkle import HASH, MAX_SIZE
from tcd.receipts.note import KeyVerifier, NoteSignature, NoteVerifier, check_name, check_text, key_hash, parse_vkey

COSIGNATURE: Final = 0x04
ML_DSA_44: Final = 0x06
_LABEL: Final = b"subtree/v1\n\0"
_SUBTREE: Final = b"tcd/subtree/v1\0"
_TIME: Final = 8
_MAX_TIME: Final = 2**63 - 1
_MAX_NAME: Final = 255


def _short(text: str) -> bytes:
    raw = text.encode()
    if not 1 <= len(raw) <= _MAX_NAME:
        msg = f"a name of {len(raw)} bytes: 1..{_MAX_NAME}"
        raise MalformedCheckpoint(msg)
    return bytes([len(raw)]) + raw


@dataclass(frozen=True, slots=True)
class Subtree:
    """The leaves [start, end) of a log and their root.

    Attributes:
        origin: name of the log.
        start: index of the first leaf, a multiple of the smallest power of two that is not below `end - start`.
        end: index after the last leaf.
        root: 32 bytes, RFC 9162's hash of these leaves by themselves.
    """

    origin: str
    start: int
    end: int
    root: bytes

    def __post_init__(self) -> None:
        """Refuse what is no subtree.

        Raises:
            MalformedCheckpoint: a range that is none, or a root of another length.
        """
        width = self.end - self.start
        fine = 0 <= self.start <= self.end <= MAX_SIZE and (self.start == 0 or width > 0)
        if not fine or len(self.root) != HASH or (self.start and self.start % (1 << (width - 1).bit_length())):
            msg = f"no subtree [{self.start}, {self.end})"
            raise MalformedCheckpoint(msg)

    def message(self, cosigner: str, time: int = 0) -> bytes:
        """The structure `cosigned_message`.

        Args:
            cosigner: name of the key that signs.
            time: seconds since 1970; 0 = no statement that this is the largest tree seen.

        Raises:
            MalformedCheckpoint: names that are too long, a time out of range or of a subtree that begins later.
        """
        if not 0 <= time <= _MAX_TIME or (time and self.start):
            msg = "no time for this subtree"
            raise MalformedCheckpoint(msg)
        names = _short(cosigner) + struct.pack(">Q", time) + _short(self.origin)
        return _LABEL + names + struct.pack(">QQ", self.start, self.end) + self.root


def batch_subtrees(start: int, end: int) -> tuple[tuple[int, int], ...]:
    """The one or two aligned ranges that cover the leaves [start, end) of a batch.

    From draft-ietf-plants-merkle-tree-certs, "arbitrary intervals". The first range may begin before `start`: a
    signature of leaves that were signed before says nothing new about them.

    Raises:
        ValueError: an empty or negative range.
    """
    if not 0 <= start < end:
        msg = f"no leaves in [{start}, {end})"
        raise ValueError(msg)
    if end - start == 1:
        return ((start, end),)
    last = end - 1
    if start % (1 << (last - start).bit_length()) == 0:
        return ((start, end),)
    # where the paths of the first and of the last leaf part
    mask = (1 << ((start ^ last).bit_length() - 1)) - 1
    middle = last & ~mask
    left = start & ~((1 << (~start & mask).bit_length()) - 1)
    return ((left, middle), (middle, end))


def _cosignature_text(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _timed(signature: bytes) -> tuple[int, bytes] | None:
    if len(signature) <= _TIME:
        return None
    time = int.from_bytes(signature[:_TIME], "big")
    return (time, signature[_TIME:]) if time <= _MAX_TIME else None


def time_of(signature: NoteSignature) -> int:
    """Seconds since 1970 that a cosignature line states; trusted only after the line was verified.

    Raises:
        MalformedNote: no cosignature.
    """
    found = _timed(signature.signature)
    if found is None:
        msg = "a cosignature begins with a time"
        raise MalformedNote(msg)
    return found[0]


class Cosigner(KeyVerifier):
    """A trusted Ed25519 key of a witness (0x04)."""

    __slots__ = ()
    algorithm = COSIGNATURE

    def verify(self, text: str, signature: bytes) -> bool:
        """Whether the witness cosigned the checkpoint with this text."""
        timed = _timed(signature)
        return timed is not None and self.key.verify(timed[1], _cosignature_text(text, timed[0]))


class MlDsaVerifier(KeyVerifier):
    """A trusted ML-DSA-44 key of a log, whose name is its origin, or of a witness (0x06)."""

    __slots__ = ()
    algorithm = ML_DSA_44
    alg = mldsa.ALG

    def verify(self, text: str, signature: bytes) -> bool:
        """Whether the key cosigned the checkpoint with this text; its extension lines are not covered."""
        timed = _timed(signature)
        if timed is None:
            return False
        try:
            head = LogHead.from_text(text)
            message = Subtree(head.origin, 0, head.size, head.root).message(self.name, timed[0])
        except MalformedCheckpoint:
            return False
        return self.key.verify(timed[1], message)


_TYPES: Final[dict[int, type[NoteVerifier | Cosigner | MlDsaVerifier]]] = {
    0x01: NoteVerifier,
    COSIGNATURE: Cosigner,
    ML_DSA_44: MlDsaVerifier,
}


def verifier_of(text: str) -> NoteVerifier | Cosigner | MlDsaVerifier:
    """The trusted key of a vkey, of any type that is known.

    Raises:
        BadKey: an unsafe key, or a hash that is not the key's.
        MalformedNote: another form or algorithm.
    """
    name, algorithm, public = parse_vkey(text)
    if algorithm not in _TYPES:
        msg = f"a verifier key of type {algorithm:#04x}"
        raise MalformedNote(msg)
    return _TYPES[algorithm](name, public)


def cosign(head: LogHead, name: str, key: Signer, *, time: int) -> NoteSignature:
    """The line by which `name` says that it saw a consistent log of this head at `time`.

    Args:
        head: of a checkpoint that is consistent with what the cosigner saw before.
        name: of the cosigner.
        key: Ed25519 (0x04) or ML-DSA-44 (0x06).
        time: seconds since 1970.

    Raises:
        BadKey: a key of another algorithm.
        MalformedCheckpoint, MalformedNote: names that cannot be written, a time out of range.
    """
    check_name(name)
    text = head.text()
    check_text(text)
    message = Subtree(head.origin, 0, head.size, head.root).message(name, time)
    if key.alg == ALG:
        algorithm, signature = COSIGNATURE, key.sign(_cosignature_text(text, time))
    elif key.alg == mldsa.ALG:
        algorithm, signature = ML_DSA_44, key.sign(message)
    else:
        msg = f"no cosignature has algorithm {key.alg}"
        raise BadKey(msg)
    return NoteSignature(name, key_hash(name, algorithm, key.public), struct.pack(">Q", time) + signature)


def sign_subtree(subtree: Subtree, key: Signer) -> bytes:
    """Signature of a log over a subtree, 64 or 2,420 bytes; the log names itself as the cosigner."""
    message = subtree.message(subtree.origin)
    return key.sign(message if key.alg == mldsa.ALG else _SUBTREE + message)


def verify_subtree(subtree: Subtree, key: Public, signature: bytes) -> bool:
    """Whether a key of the log signed the subtree."""
    message = subtree.message(subtree.origin)
    return key.verify(signature, message if key.alg == mldsa.ALG else _SUBTREE + message)
