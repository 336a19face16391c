r"""A key set signed by offline root keys, of which a threshold must agree; newer ones replace older ones only.

The roots sign "tcd/keyset/v1/sig\0" || kid (16 bytes) || the canonical bytes of {"keyset": ..., "serial": ...}.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tcd.receipts import canonical
from tcd.receipts.errors import BadSignature, MalformedKeyset, MissingSignature, Rollback, SchemaMismatch
from tcd.receipts.keys import PUBLIC_SIZES, Public, Signer, key_id
from tcd.receipts.keyset import KeySet
from tcd.receipts.schema import hexadecimal, integer, listing, one_of, pattern, record

VERSION: Final = "tcd.keyset-signed/1"
ROOT_VERSION: Final = "tcd.root/1"
CONTEXT: Final = b"tcd/keyset/v1"
MAX_ROOTS: Final = 16
_PREFIX: Final = b"tcd/keyset/v1/sig\0"
_SIGNATURE: Final = record({"kid": hexadecimal(16), "sig": pattern("(?:[0-9a-f]{2}){64,2484}")})
_SIGNED: Final = record(
    {
        "v": one_of(VERSION),
        "serial": integer(1),
        "keyset": lambda _: None,
        "sigs": listing(_SIGNATURE, MAX_ROOTS),
    }
)
_ROOT: Final = record({"alg": one_of(*PUBLIC_SIZES), "pub": pattern("(?:[0-9a-f]{2}){32,1344}")})
_ROOTS: Final = record(
    {"v": one_of(ROOT_VERSION), "threshold": integer(1, MAX_ROOTS), "roots": listing(_ROOT, MAX_ROOTS, 1)}
)


@dataclass(frozen=True, slots=True)
class RootKeys:
    """Offline keys that sign key sets.

    Attributes:
        keys: algorithm and public key of each, all different.
        threshold: how many must sign.
    """

    keys: tuple[tuple[str, bytes], ...]
    threshold: int

    def __post_init__(self) -> None:
        """Refuse unsafe keys and thresholds that cannot be met.

        Raises:
            BadKey, MalformedKeyset: why.
        """
        for alg, public in self.keys:
            Public(alg, public)
        if len(set(self.keys)) != len(self.keys) or not 1 <= self.threshold <= len(self.keys):
            msg = "root keys are different, and at least as many as must sign"
            raise MalformedKeyset(msg)

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        roots = [{"alg": alg, "pub": public.hex()} for alg, public in self.keys]
        return {"v": ROOT_VERSION, "threshold": self.threshold, "roots": roots}

    @classmethod
    def from_json(cls, obj: Any) -> RootKeys:
        """Inverse of `to_json`.

        Raises:
            BadKey, MalformedKeyset: anything that `to_json` does not write.
        """
        try:
            _ROOTS(obj)
        except SchemaMismatch as error:
            raise MalformedKeyset(error.detail) from error
        return cls(tuple((root["alg"], bytes.fromhex(root["pub"])) for root in obj["roots"]), obj["threshold"])


def _message(kid: str, keyset: Any, serial: int) -> bytes:
    return _PREFIX + bytes.fromhex(kid) + canonical.encode({"keyset": keyset, "serial": serial})


def sign_keyset(keyset: KeySet, *, serial: int, roots: Iterable[Signer]) -> dict[str, Any]:
    """The signed form of a key set.

    Args:
        keyset: what to sign.
        serial: 1, and one more for every later key set.
        roots: keys that sign.
    """
    obj = keyset.to_json()
    sigs = [{"kid": key.kid, "sig": key.sign(_message(key.kid, obj, serial), CONTEXT).hex()} for key in roots]
    return {"v": VERSION, "serial": serial, "keyset": obj, "sigs": sigs}


def open_keyset(obj: Any, *, roots: RootKeys, newest: int = 0) -> tuple[KeySet, int]:
    """The key set and its serial, if enough root keys signed it.

    Args:
        obj: the signed form.
        roots: pinned.
        newest: the largest serial seen before.

    Raises:
        BadKey, MalformedKeyset: the form.
        BadSignature: a root key's signature is wrong.
        MissingSignature: too few root keys signed.
        Rollback: an older key set than one seen before.
    """
    try:
        _SIGNED(obj)
    except SchemaMismatch as error:
        raise MalformedKeyset(error.detail) from error
    known = {key_id(public, alg): Public(alg, public) for alg, public in roots.keys}
    good: set[str] = set()
    for item in obj["sigs"]:
        key = known.get(item["kid"])
        if key is None:
            continue
        if not key.verify(bytes.fromhex(item["sig"]), _message(item["kid"], obj["keyset"], obj["serial"]), CONTEXT):
            msg = f"wrong signature of root key {item['kid']}"
            raise BadSignature(msg)
        good.add(item["kid"])
    if len(good) < roots.threshold:
        msg = f"{len(good)} root keys signed, not {roots.threshold}"
        raise MissingSignature(msg)
    if obj["serial"] < newest:
        msg = f"key set {obj['serial']} after {newest}"
        raise Rollback(msg)
    return KeySet.from_json(obj["keyset"]), obj["serial"]
