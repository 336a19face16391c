"""Ed25519 signing keys, and the pinned set of public keys that a verifier trusts.

A verifier never takes a key from a receipt: `kid` selects among pinned keys, each of one purpose.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tcd.receipts import canonical
from tcd.receipts.edwards import point_problem, signature_problem
from tcd.receipts.errors import BadKey

ALG: Final = "Ed25519"
Purpose = Literal["receipt", "checkpoint", "admin"]
PURPOSES: Final = ("receipt", "checkpoint", "admin")
_SEED: Final = 32
_HEX32: Final = re.compile(r"[0-9a-f]{64}")


def key_id(public: bytes, alg: str = ALG) -> str:
    r"""`kid` of a public key: 32 hex digits, the first 16 bytes of SHA-256("tcd/kid/v1\0" || alg || 0 || pub)."""
    return hashlib.sha256(b"tcd/kid/v1\0" + alg.encode() + b"\0" + public).hexdigest()[:32]


def check_public(public: bytes) -> None:
    """Refuse an unsafe Ed25519 public key.

    Raises:
        BadKey: small order, not canonical or not on the curve.
    """
    problem = point_problem(public)
    if problem:
        msg = f"public key: {problem}"
        raise BadKey(msg)


class SigningKey:
    """An Ed25519 key pair."""

    __slots__ = ("_private", "kid", "public")

    def __init__(self, seed: bytes) -> None:
        """A key from its 32-byte seed.

        Raises:
            ValueError: the seed is not 32 bytes long.
        """
        if len(seed) != _SEED:
            msg = "an Ed25519 seed has 32 bytes"
            raise ValueError(msg)
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.kid = key_id(self.public)

    @classmethod
    def from_hex(cls, seed: str) -> SigningKey:
        """A key from 64 hex digits (`TCD_ATTEST_SK_HEX`).

        Raises:
            ValueError: not 64 hex digits. The message does not repeat them.
        """
        if _HEX32.fullmatch(seed.lower()) is None:
            msg = "the signing key is not 64 hex digits"
            raise ValueError(msg)
        return cls(bytes.fromhex(seed))

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> SigningKey:
        """A new key from a source of random bytes such as `os.urandom`."""
        return cls(random(_SEED))

    def sign(self, message: bytes) -> bytes:
        """64-byte signature."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        """Names the key without its secret."""
        return f"SigningKey(kid={self.kid})"


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A public key and what it may be used for.

    Attributes:
        public: 32 bytes.
        purpose: one of receipt, checkpoint, admin.
        origin: the issuer's name that its receipts carry.
        tenants: tenants it may sign for; None = all.
        not_before_us, not_after_us: validity in microseconds since 1970, both ends included; None = open.
        compromised_after_size: log size from which it is compromised; a receipt needs an inclusion proof under
            that size, so without one it is refused. None = not compromised.
        alg: Ed25519.
    """

    public: bytes
    purpose: Purpose
    origin: str
    tenants: frozenset[str] | None = None
    not_before_us: int | None = None
    not_after_us: int | None = None
    compromised_after_size: int | None = None
    alg: str = ALG

    def __post_init__(self) -> None:
        """Refuse unsafe keys and unknown purposes.

        Raises:
            BadKey: small order, not canonical, not on the curve.
            ValueError: unknown purpose or algorithm.
        """
        if self.purpose not in PURPOSES or self.alg != ALG:
            msg = f"unknown purpose {self.purpose!r} or algorithm {self.alg!r}"
            raise ValueError(msg)
        check_public(self.public)

    @property
    def kid(self) -> str:
        """Id of the key."""
        return key_id(self.public, self.alg)

    def valid_at(self, ts_us: int) -> bool:
        """Whether `ts_us` is inside the validity."""
        early = self.not_before_us is not None and ts_us < self.not_before_us
        late = self.not_after_us is not None and ts_us > self.not_after_us
        return not early and not late

    def to_json(self) -> dict[str, Any]:
        """JSON form in the profile tcd-jcs-1; absent members where a value is None."""
        optional = {
            "not_before_us": self.not_before_us,
            "not_after_us": self.not_after_us,
            "compromised_after_size": self.compromised_after_size,
            "tenants": None if self.tenants is None else sorted(self.tenants),
        }
        return {
            "alg": self.alg,
            "kid": self.kid,
            "origin": self.origin,
            "pub": self.public.hex(),
            "purpose": self.purpose,
            **{name: value for name, value in optional.items() if value is not None},
        }

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> PinnedKey:
        """Inverse of `to_json`.

        Raises:
            BadKey, ValueError, KeyError, TypeError: for anything `to_json` does not write.
        """
        tenants = obj.get("tenants")
        key = cls(
            public=bytes.fromhex(obj["pub"]),
            purpose=obj["purpose"],
            origin=obj["origin"],
            tenants=None if tenants is None else frozenset(tenants),
            not_before_us=obj.get("not_before_us"),
            not_after_us=obj.get("not_after_us"),
            compromised_after_size=obj.get("compromised_after_size"),
            alg=obj["alg"],
        )
        if key.to_json() != dict(obj):
            msg = f"key {key.kid}: unknown or wrong members"
            raise ValueError(msg)
        return key


class KeySet:
    """An immutable set of pinned keys."""

    __slots__ = ("_keys", "_loaded", "digest")

    def __init__(self, keys: Iterable[PinnedKey] = ()) -> None:
        """Pin `keys`.

        Raises:
            ValueError: a key is pinned twice (one purpose per key).
        """
        self._keys: dict[str, PinnedKey] = {}
        self._loaded: dict[str, Ed25519PublicKey] = {}
        for key in keys:
            if key.kid in self._keys:
                msg = f"key {key.kid} is pinned twice"
                raise ValueError(msg)
            self._keys[key.kid] = key
            self._loaded[key.kid] = Ed25519PublicKey.from_public_bytes(key.public)
        text = canonical.write(self.to_json())
        #: `sha256:` digest of the set.
        self.digest = "sha256:" + hashlib.sha256(b"tcd/keyset/v1\0" + text).hexdigest()

    def get(self, kid: str) -> PinnedKey | None:
        """The pinned key `kid`, or None."""
        return self._keys.get(kid)

    def verify(self, kid: str, signature: bytes, message: bytes) -> bool:
        """Whether the pinned key `kid` signed `message`; False for any malformed signature."""
        loaded = self._loaded.get(kid)
        return loaded is not None and _verify(loaded, signature, message)

    def __len__(self) -> int:
        """Number of keys."""
        return len(self._keys)

    def to_json(self) -> dict[str, Any]:
        """JSON form (`keyset.json` without its root signatures)."""
        return {"v": "tcd.keyset/1", "keys": [self._keys[kid].to_json() for kid in sorted(self._keys)]}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> KeySet:
        """Inverse of `to_json`.

        Raises:
            BadKey, ValueError, KeyError, TypeError: for anything `to_json` does not write.
        """
        if set(obj) != {"v", "keys"} or obj["v"] != "tcd.keyset/1":
            msg = "not a tcd.keyset/1"
            raise ValueError(msg)
        return cls(PinnedKey.from_json(key) for key in obj["keys"])


def _verify(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    if signature_problem(signature):
        return False
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def verify_ed25519(public: bytes, signature: bytes, message: bytes) -> bool:
    """Strict Ed25519 verification by a raw public key.

    Raises:
        BadKey: the public key is unsafe.
    """
    check_public(public)
    return _verify(Ed25519PublicKey.from_public_bytes(public), signature, message)
