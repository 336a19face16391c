r"""Handing over from one receipt key to the next: a record that both keys sign.

The old key signs the `rotate` record as any record. The new key signs "tcd/rotate/v1\0" || u32be length and bytes of
the origin and of both algorithms || both kids || u64be time, and that signature is in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tcd.receipts.errors import BadSignature, SchemaMismatch
from tcd.receipts.keys import Public, Signer, key_id
from tcd.receipts.keyset import PinnedKey

CONTEXT: Final = b"tcd/rotate/v1"
_PREFIX: Final = b"tcd/rotate/v1\0"


def _message(*, origin: str, old: tuple[str, str], new: tuple[str, str], from_us: int) -> bytes:
    names = [part.encode() for part in (origin, old[0], new[0])]
    joined = b"".join(len(name).to_bytes(4, "big") + name for name in names)
    return _PREFIX + joined + bytes.fromhex(old[1]) + bytes.fromhex(new[1]) + from_us.to_bytes(8, "big")


def rotate_members(*, origin: str, old: PinnedKey, new: Signer, from_us: int) -> dict[str, Any]:
    """Members of a `rotate` record, which the old key then signs.

    Args:
        origin: of both keys.
        old: the key that hands over.
        new: the key that takes over.
        from_us: from when the new key signs, in microseconds since 1970.
    """
    message = _message(origin=origin, old=(old.alg, old.kid), new=(new.alg, new.kid), from_us=from_us)
    return {
        "rotate": {
            "alg": new.alg,
            "pub": new.public.hex(),
            "kid": new.kid,
            "from_us": from_us,
            "proof": new.sign(message, CONTEXT).hex(),
        }
    }


def check_rotation(body: Mapping[str, Any]) -> PinnedKey:
    """The key that a verified `rotate` record names, after its own signature was checked.

    The record's own signature is checked as of any receipt. Whether the new key is trusted is the key set's business.

    Raises:
        BadKey: the new key is unsafe.
        BadSignature: the new key did not sign.
        SchemaMismatch: no `rotate` record, or a kid that is not the key's.
    """
    if body.get("typ") != "rotate":
        msg = "not a rotate record"
        raise SchemaMismatch(msg, pointer="/typ")
    rotate = body["rotate"]
    public = bytes.fromhex(rotate["pub"])
    if key_id(public, rotate["alg"]) != rotate["kid"] or rotate["kid"] == body["kid"]:
        msg = "not the id of the new key, or no new key"
        raise SchemaMismatch(msg, pointer="/rotate/kid")
    message = _message(
        origin=body["origin"],
        old=(body["suite"], body["kid"]),
        new=(rotate["alg"], rotate["kid"]),
        from_us=rotate["from_us"],
    )
    if not Public(rotate["alg"], public).verify(bytes.fromhex(rotate["proof"]), message, CONTEXT):
        msg = "the new key did not sign"
        raise BadSignature(msg)
    return PinnedKey(public, "receipt", body["origin"], not_before_us=rotate["from_us"], alg=rotate["alg"])
