"""C2SP tlog checkpoints (origin, size, root in a signed note) and `tlog-proof@v1`, the inclusion proof as text."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

from tcd.receipts.errors import MalformedCheckpoint, MalformedNote, WrongOrigin
from tcd.receipts.merkle import HASH, MAX_PATH, MAX_SIZE, check_inclusion, leaf_hash
from tcd.receipts.note import MAX_NOTE, NoteVerifier, open_note, parse_note, strict_base64

_HEADER: Final = "c2sp.org/tlog-proof@v1"
#: Bytes of a proof besides its checkpoint.
MAX_PROOF: Final = MAX_NOTE + 16_384
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")


def _number(text: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > MAX_SIZE:
        msg = "not a decimal number of a log"
        raise MalformedCheckpoint(msg)
    return int(text)


@dataclass(frozen=True, slots=True)
class LogHead:
    """What a checkpoint says.

    Attributes:
        origin: name of the log.
        size: leaves.
        root: 32 bytes.
        extensions: further lines, not interpreted.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """The text that is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def from_text(cls, text: str) -> LogHead:
        """Inverse of `text`.

        Raises:
            MalformedCheckpoint: any other text.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):  # noqa: PLR2004 - three lines and the end
            msg = "a checkpoint has an origin, a size and a root, and no empty line"
            raise MalformedCheckpoint(msg)
        try:
            root = strict_base64(lines[2])
        except MalformedNote as error:
            raise MalformedCheckpoint(error.detail) from error
        if len(root) != HASH:
            msg = "a root has 32 bytes"
            raise MalformedCheckpoint(msg)
        return cls(lines[0], _number(lines[1]), root, tuple(lines[3:-1]))

    @classmethod
    def from_note(cls, note: bytes) -> LogHead:
        """What a checkpoint says, whoever signed it: its signatures are not looked at.

        Raises:
            MalformedCheckpoint, MalformedNote: the form.
        """
        return cls.from_text(parse_note(note)[0])


def open_checkpoint(note: bytes, log: NoteVerifier) -> LogHead:
    """The checkpoint of a log by its pinned key; the key's name is the origin.

    Raises:
        BadSignature: not signed by the key.
        MalformedCheckpoint, MalformedNote: the form.
        WrongOrigin: a checkpoint of another log.
    """
    text, _ = open_note(note, (log,))
    head = LogHead.from_text(text)
    if head.origin != log.name:
        msg = "the checkpoint is of another log"
        raise WrongOrigin(msg)
    return head


@dataclass(frozen=True, slots=True)
class TlogProof:
    """An inclusion proof with the checkpoint that it leads to.

    Attributes:
        index: of the leaf.
        path: hashes, nearest sibling first.
        checkpoint: the signed note.
        extra: opaque bytes, or None.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def write(self) -> bytes:
        """The proof as text."""
        extra = [] if self.extra is None else [f"extra {base64.b64encode(self.extra).decode()}"]
        hashes = [base64.b64encode(item).decode() for item in self.path]
        lines = [_HEADER, *extra, f"index {self.index}", *hashes, ""]
        return "".join(f"{line}\n" for line in lines).encode() + self.checkpoint

    @classmethod
    def parse(cls, text: bytes) -> TlogProof:
        """Inverse of `write`; the checkpoint is not looked into.

        Raises:
            MalformedNote: any other text, or over the limits.
        """
        if len(text) > MAX_PROOF:
            msg = f"a proof has at most {MAX_PROOF} bytes"
            raise MalformedNote(msg)
        top, empty, checkpoint = text.partition(b"\n\n")
        try:
            lines = top.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            msg = "a proof is ASCII"
            raise MalformedNote(msg) from error
        if lines.pop(0) != _HEADER or not empty or not checkpoint:
            msg = "not a tlog-proof@v1 with a checkpoint"
            raise MalformedNote(msg)
        extra = strict_base64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
        if not lines or not lines[0].startswith("index ") or len(lines) > 1 + MAX_PATH:
            msg = f"a proof has an index and at most {MAX_PATH} hashes"
            raise MalformedNote(msg)
        try:
            index = _number(lines[0][6:])
        except MalformedCheckpoint as error:
            raise MalformedNote(error.detail) from error
        path = tuple(strict_base64(line) for line in lines[1:])
        if any(len(item) != HASH for item in path):
            msg = "a hash has 32 bytes"
            raise MalformedNote(msg)
        return cls(index, path, checkpoint, extra)


def check_proof(proof: TlogProof, head: bytes, log: NoteVerifier) -> LogHead:
    """Check that a receipt's 32-byte head, computed from its received bytes, is in the log of a pinned key.

    Raises:
        BadInclusion: the receipt is not in the log by this proof.
        BadSignature: the log's signature is wrong or not there.
        MalformedCheckpoint, MalformedNote, WrongOrigin: the checkpoint.
    """
    found = open_checkpoint(proof.checkpoint, log)
    check_inclusion(proof.index, found.size, leaf_hash(head), proof.path, found.root)
    return found
