"""C2SP tlog-witness: what a log asks of a witness (`add-checkpoint`), and how a witness decides.

Pure: the caller holds the state and must store the new one, atomically with the comparison, before it answers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tcd.errors import VerificationError
from tcd.receipts.checkpoint import LogHead
from tcd.receipts.cosign import cosign
from tcd.receipts.errors import BadKey, BadSignature, InconsistentLog, MalformedNote
from tcd.receipts.keys import Signer
from tcd.receipts.merkle import EMPTY_ROOT, HASH, check_consistency
from tcd.receipts.note import (
    MAX_NOTE,
    LineVerifier,
    parse_note,
    parse_signatures,
    strict_base64,
    verify_lines,
    write_note,
)

MAX_PROOF_LINES: Final = 63
MAX_REQUEST: Final = MAX_NOTE + 4096
SIZE_TYPE: Final = "text/x.tlog.size"
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request.

    Attributes:
        old: size that the witness is believed to know, 0 = none.
        path: proof of consistency from there.
        checkpoint: the signed note.
    """

    old: int
    path: tuple[bytes, ...]
    checkpoint: bytes

    def write(self) -> bytes:
        """The body of the request."""
        lines = [f"old {self.old}", *(base64.b64encode(item).decode() for item in self.path), ""]
        return "".join(f"{line}\n" for line in lines).encode() + self.checkpoint

    @classmethod
    def parse(cls, raw: bytes) -> AddCheckpoint:
        """Inverse of `write`; the checkpoint is not looked into.

        Raises:
            MalformedNote: any other text.
        """
        top, empty, checkpoint = raw.partition(b"\n\n")
        if len(raw) > MAX_REQUEST or not empty or not checkpoint or not top.isascii():
            msg = "not an add-checkpoint request"
            raise MalformedNote(msg)
        lines = top.decode("ascii").split("\n")
        found = _OLD.fullmatch(lines[0])
        if found is None or len(lines) > 1 + MAX_PROOF_LINES:
            msg = f"a request begins with the old size and has at most {MAX_PROOF_LINES} hashes"
            raise MalformedNote(msg)
        path = tuple(strict_base64(line) for line in lines[1:])
        if any(len(item) != HASH for item in path):
            msg = "a hash has 32 bytes"
            raise MalformedNote(msg)
        return cls(int(found[1]), path, checkpoint)


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest checkpoint of a log that a witness or a verifier accepted.

    Attributes:
        size: leaves.
        root: 32 bytes.
        note: the signed note, kept as evidence.
    """

    size: int
    root: bytes
    note: bytes = b""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a witness answers and must do before that.

    Attributes:
        status: of HTTP.
        body: of the answer.
        origin: of the log, empty where the request could not be read that far.
        new: state to store before answering, None = unchanged.
        evidence: two notes of the log that contradict each other, to be kept; empty = none.
        reason: for people.
    """

    status: int
    body: bytes = b""
    origin: str = ""
    new: Seen | None = None
    evidence: tuple[bytes, ...] = ()
    reason: str = ""

    @property
    def content_type(self) -> str:
        """Type of the answer's body."""
        is_size = self.status == 409 and self.body  # noqa: PLR2004 - a conflict
        return SIZE_TYPE if is_size else "text/plain; charset=utf-8"


class Witness:
    """A witness: its name, its keys, the logs that it knows."""

    __slots__ = ("_keys", "_logs", "name")

    def __init__(self, name: str, keys: Sequence[Signer], logs: Sequence[LineVerifier]) -> None:
        """A witness.

        Args:
            name: of the witness in its cosignatures.
            keys: Ed25519, ML-DSA-44 or both.
            logs: keys of the logs that it knows; the name of a key is the origin of its log.
        """
        self.name = name
        self._keys = tuple(keys)
        self._logs: dict[str, list[LineVerifier]] = {}
        for log in logs:
            self._logs.setdefault(log.name, []).append(log)

    def judge(self, raw: bytes, *, seen: Callable[[str], Seen | None], time: int) -> Verdict:
        """Decide on a request.

        Args:
            raw: the request's body.
            seen: the newest checkpoint that the witness cosigned for an origin.
            time: seconds since 1970.
        """
        try:
            request = AddCheckpoint.parse(raw)
            text, lines = parse_note(request.checkpoint)
            head = LogHead.from_text(text)
        except VerificationError as error:
            return Verdict(400, reason=error.detail)
        if head.origin not in self._logs:
            return Verdict(404, origin=head.origin, reason="an unknown log")
        try:
            signed = verify_lines(text, lines, self._logs[head.origin])
        except (BadSignature, BadKey) as error:
            return Verdict(403, origin=head.origin, reason=error.detail)
        if not signed:
            return Verdict(403, origin=head.origin, reason="not signed by a key of the log")
        if request.old > head.size:
            return Verdict(400, origin=head.origin, reason="the old size is beyond the checkpoint")
        return self._accept(request, head, seen(head.origin), time)

    def _accept(self, request: AddCheckpoint, head: LogHead, known: Seen | None, time: int) -> Verdict:
        size = 0 if known is None else known.size
        if known is not None and head.size == size and head.root != known.root:
            # signed by the log, of one size, with two roots: whatever old size it came with
            return Verdict(
                409,
                f"{size}\n".encode(),
                head.origin,
                evidence=(known.note, request.checkpoint),
                reason="the log shows two histories",
            )
        if request.old != size:
            return Verdict(409, f"{size}\n".encode(), head.origin, reason="another size was cosigned last")
        try:
            old_root = EMPTY_ROOT if known is None else known.root
            check_consistency(size, head.size, old_root, head.root, request.path)
        except InconsistentLog as error:
            return Verdict(422, origin=head.origin, reason=error.detail)
        answer = "".join(cosign(head, self.name, key, time=time).line() for key in self._keys)
        return Verdict(200, answer.encode(), head.origin, Seen(head.size, head.root, request.checkpoint))


def add_cosignatures(note: bytes, answer: bytes, trusted: Mapping[str, LineVerifier]) -> tuple[bytes, tuple[str, ...]]:
    """A checkpoint with what a witness answered: lines of unknown witnesses are left out.

    Args:
        note: the checkpoint.
        answer: body of the witness's answer.
        trusted: name in the policy to key of each witness.

    Returns:
        The note with the new lines, and the names of the witnesses that made them.

    Raises:
        BadSignature: a trusted witness's line is wrong.
        MalformedNote: not signature lines.
    """
    text, lines = parse_note(note)
    try:
        more = parse_signatures(answer.decode("utf-8"))
    except UnicodeDecodeError as error:
        msg = "an answer is UTF-8"
        raise MalformedNote(msg) from error
    signed = verify_lines(text, more, trusted.values())
    there = {(line.name, line.hash) for line in lines}
    new = [found for found in signed if (found.signature.name, found.signature.hash) not in there]
    names = tuple(name for name, key in trusted.items() if any(found.verifier == key for found in new))
    return write_note(text, [*lines, *(found.signature for found in new)]), names
