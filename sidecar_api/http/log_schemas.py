"""Answers of the log's routes that are JSON."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Included(Struct, kw_only=True, frozen=True):
    """Proof that a leaf is in the log of a size: hashes in hex, nearest sibling first (RFC 9162)."""

    index: int
    size: int
    path: list[str]


class Consistent(Struct, kw_only=True, frozen=True):
    """Proof that the first `old` leaves are the beginning of the log of a size (RFC 9162)."""

    old: int
    size: int
    path: list[str]


class ChainHead(Struct, kw_only=True, frozen=True):
    """A chain's newest record under the root of a `heads` record, which comes along; hashes in hex."""

    receipt: str
    receipt_body: str
    receipt_sig: str
    chain: str
    seq: int
    head: str
    index: int
    path: list[str]


class LogKeys(Struct, kw_only=True, frozen=True):
    """The key set `tcd.keyset/1` of this shim. Pin what came by another way; this is a copy."""

    v: str
    keys: list[dict[str, Any]]


class ReceiptOut(Struct, kw_only=True, frozen=True):
    """A receipt under the names of an answer, with its place in the log; the proof is null until a checkpoint."""

    receipt: str
    receipt_body: str
    receipt_sig: str
    verify_key: str | None
    receipt_proof: str | None
    index: int
