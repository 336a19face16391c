"""Receipts of the log in COSE (RFC 9942, `application/scitt-receipt+cose`) for transparency services that speak it.

A COSE_Sign1 of the log's Ed25519 key over the root of a checkpoint, detached, with the inclusion proof of one head in
its unprotected header. Needs the extra `cose` (cbor2, MIT). Signed with Ed25519 alone: peers know no ML-DSA-44 in COSE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import cbor2

from tcd.receipts.errors import BadSignature, MalformedNote, MissingSignature, UnknownKey, WrongOrigin
from tcd.receipts.keys import ALG, Public, Signer
from tcd.receipts.keyset import KeySet
from tcd.receipts.merkle import HASH, MAX_PATH, inclusion_root, leaf_hash

MEDIA_TYPE: Final = "application/scitt-receipt+cose"
#: COSE_Sign1, its headers (RFC 9052), the algorithm Ed25519 (RFC 9864), CWT claims (RFC 9597), RFC 9942's own.
_SIGN1: Final = 18
_ALG, _KID, _CLAIMS, _VDS, _VDP = 1, 4, 15, 395, 396
_ED25519: Final = -19
_RFC9162_SHA256: Final = 1
_INCLUSION: Final = -1
_ISSUER: Final = 1
_MAX: Final = 16_384


@dataclass(frozen=True, slots=True)
class Shown:
    """What a receipt in COSE shows.

    Attributes:
        origin: of the log.
        size: leaves of the tree as the proof says it. Only the root is signed, and a proof may lead to it from several
            sizes: whoever needs the size takes a checkpoint.
        index: of the leaf.
        kid: of the key that signed.
    """

    origin: str
    size: int
    index: int
    kid: str


def _to_be_signed(protected: bytes, root: bytes) -> bytes:
    encoded: bytes = cbor2.dumps(["Signature1", protected, b"", root], canonical=True)
    return encoded


def write_receipt(*, origin: str, size: int, index: int, path: tuple[bytes, ...], root: bytes, key: Signer) -> bytes:
    """The receipt of one leaf.

    Args:
        origin: of the log, the issuer in the CWT claims.
        size: leaves of the tree.
        index: of the leaf.
        path: its inclusion proof, nearest sibling first.
        root: of the tree: one that a checkpoint of the log has.
        key: the log's Ed25519 key.

    Raises:
        MissingSignature: a key of another algorithm.
    """
    if key.alg != ALG:
        msg = f"no COSE library has {key.alg}: the log's Ed25519 key signs"
        raise MissingSignature(msg)
    claims = {_ISSUER: origin}
    header = {_ALG: _ED25519, _KID: bytes.fromhex(key.kid), _CLAIMS: claims, _VDS: _RFC9162_SHA256}
    protected = cbor2.dumps(header, canonical=True)
    return _message(protected, (size, index, path), key.sign(_to_be_signed(protected, root)))


def check_receipt(data: bytes, head: bytes, *, keys: KeySet, origin: str) -> Shown:
    """Check that a receipt shows the head of a receipt of ours in the log.

    Args:
        data: as received.
        head: 32 bytes, computed from the received body.
        keys: pinned.
        origin: of the log that is asked for.

    Raises:
        BadInclusion: no proof of such a leaf.
        BadSignature: the root that the proof leads to is not the one that was signed.
        UnknownKey, WrongOrigin: who signed.
        MalformedNote: not a receipt in COSE, or not its one encoding.
    """
    protected, header, proof, signature = _parse(data)
    size, index, path = proof
    claims = header.get(_CLAIMS)
    if not isinstance(claims, Mapping) or claims.get(_ISSUER) != origin:
        msg = "the receipt is of another log"
        raise WrongOrigin(msg)
    kid = header[_KID].hex()
    pinned = {key.kid: key for key in keys.of("checkpoint", origin)}
    key = pinned.get(kid)
    if key is None or key.alg != ALG or key.compromised_after_size is not None:
        msg = f"no pinned key {kid} of this log"
        raise UnknownKey(msg)
    root = inclusion_root(index, size, leaf_hash(head), path)
    if not Public(ALG, key.public).verify(signature, _to_be_signed(protected, root)):
        msg = "the signature is not over the root that the proof leads to"
        raise BadSignature(msg)
    return Shown(origin, size, index, kid)


Proof = tuple[int, int, tuple[bytes, ...]]


def _parse(data: bytes) -> tuple[bytes, dict[int, Any], Proof, bytes]:
    """Protected header, as bytes and read, the proof, the signature."""
    try:
        found = _read(data) if len(data) <= _MAX else None
    except (cbor2.CBORError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        found = None
    if found is None:
        msg = "not a receipt in COSE, or not its one encoding"
        raise MalformedNote(msg)
    return found


def _read(data: bytes) -> tuple[bytes, dict[int, Any], Proof, bytes] | None:
    """As `_parse`; None, or whatever the decoder raises, for anything that `write_receipt` does not write."""
    message = cbor2.loads(data)
    protected, unprotected, _, signature = message.value
    header = cbor2.loads(protected)
    size, index, path = cbor2.loads(unprotected[_VDP][_INCLUSION][0])
    hashes = tuple(path)
    fine = (header[_ALG], header[_VDS], type(header[_KID])) == (_ED25519, _RFC9162_SHA256, bytes)
    fine = fine and type(size) is int and type(index) is int and type(signature) is bytes and len(hashes) <= MAX_PATH
    fine = fine and all(type(item) is bytes and len(item) == HASH for item in hashes)
    if not fine or _message(cbor2.dumps(header, canonical=True), (size, index, hashes), signature) != data:
        return None
    return protected, header, (size, index, hashes), signature


def _message(protected: bytes, proof: Proof, signature: bytes) -> bytes:
    size, index, path = proof
    inclusion = cbor2.dumps([size, index, list(path)], canonical=True)
    value = [protected, {_VDP: {_INCLUSION: [inclusion]}}, None, signature]
    encoded: bytes = cbor2.dumps(cbor2.CBORTag(_SIGN1, value), canonical=True)
    return encoded
