"""Where a chain of receipts stands: the next sequence number, the head it links to, whether it is closed.

A chain (a session, or an epoch of a stream) starts with an `open` record and numbers its records without gaps.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from tcd.receipts.body import NO_PREV
from tcd.receipts.errors import ChainMismatch


def _joined(parts: tuple[str, ...]) -> bytes:
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def chain_id(kind: str, *parts: str) -> str:
    r"""Id of a chain: SHA-256("tcd/chain/v1\0" || u32be length and bytes of kind and of each part).

    Args:
        kind: `session` or `epoch`.
        parts: what identifies the chain, such as subject digest, model and generation, or stream and epoch.
    """
    return "sha256:" + hashlib.sha256(b"tcd/chain/v1\0" + _joined((kind, *parts))).hexdigest()


def subject_digest(key: bytes, *parts: str) -> str:
    """Keyed digest of a subject, so that guessed names cannot be confirmed by who lacks the key.

    Args:
        key: secret of the installation, at least 16 bytes.
        parts: tenant, user, session.
    """
    return "sha256:" + hmac.new(key, b"tcd/subject/v1\0" + _joined(parts), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class ChainState:
    """A chain before its next record.

    Attributes:
        id: `chain_id`.
        seq: number that the next record gets.
        prev: head of the last record in hex, zeros before the first.
        closed: whether the last record is a `close`.
        ts_us: time of the last record; the next one is not earlier.
    """

    id: str
    seq: int = 0
    prev: str = NO_PREV
    closed: bool = False
    ts_us: int = 0

    def check_next(self, typ: str) -> None:
        """Refuse a record that cannot come next.

        Raises:
            ChainMismatch: the chain is closed, not opened, or opened twice.
        """
        if self.closed:
            msg = "the chain is closed"
            raise ChainMismatch(msg)
        if (typ == "open") is not (self.seq == 0):
            msg = f"a record {typ} cannot be number {self.seq} of a chain"
            raise ChainMismatch(msg)
