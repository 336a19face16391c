"""The pinned set of public keys that a verifier trusts.

A verifier never takes a key from a receipt: `kid` selects among pinned keys, each of one purpose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tcd.receipts import canonical, mldsa
from tcd.receipts.errors import MalformedKeyset, SchemaMismatch
from tcd.receipts.keys import ALG, HYBRID, PUBLIC_SIZES, Public, key_id
from tcd.receipts.schema import Check, hexadecimal, integer, listing, one_of, pattern, record, text

Purpose = Literal["receipt", "checkpoint", "admin"]
PURPOSES: Final = ("receipt", "checkpoint", "admin")
VERSION: Final = "tcd.keyset/1"
#: What a key of each purpose may be.
ALGORITHMS: Final = {"receipt": (ALG, HYBRID), "checkpoint": (ALG, mldsa.ALG), "admin": (ALG,)}
MAX_KEYS: Final = 40
_NAME: Final = text(128, 1)
_OPTIONAL: Final[dict[str, Check]] = {
    **dict.fromkeys(("not_before_us", "not_after_us", "compromised_after_size"), integer()),
    "tenants": listing(_NAME, 256),
}
_KEY: Final = record(
    {
        "alg": one_of(*PUBLIC_SIZES),
        "kid": hexadecimal(16),
        "origin": _NAME,
        "pub": pattern("(?:[0-9a-f]{2}){32,1344}"),
        "purpose": one_of(*PURPOSES),
    },
    _OPTIONAL,
)
_KEYSET: Final = record({"v": one_of(VERSION), "keys": listing(_KEY, MAX_KEYS)})


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A public key and what it may be used for.

    Attributes:
        public: as long as its algorithm wants; of a hybrid key the Ed25519 part comes first.
        purpose: one of receipt, checkpoint, admin.
        origin: the issuer's name that its receipts carry, or the origin of the log that its checkpoints carry.
        tenants: tenants it may sign for; None = all.
        not_before_us, not_after_us: validity in microseconds since 1970, both ends included; None = open.
        compromised_after_size: log size from which it is compromised: a receipt must be shown to be among that many
            first leaves, a checkpoint may not be larger and needs a quorum of witnesses. None = not compromised.
        alg: Ed25519, ML-DSA-44 (checkpoints) or Ed25519+ML-DSA-44 (receipts).
        kid: id of the key.
    """

    public: bytes
    purpose: Purpose
    origin: str
    tenants: frozenset[str] | None = None
    not_before_us: int | None = None
    not_after_us: int | None = None
    compromised_after_size: int | None = None
    alg: str = ALG
    kid: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse unsafe keys and unknown purposes.

        Raises:
            BadKey: small order, not canonical, not on the curve, or of another length.
            ValueError: unknown purpose, or an algorithm that the purpose does not take.
        """
        if self.alg not in ALGORITHMS.get(self.purpose, ()):
            msg = f"a key of purpose {self.purpose!r} is not of algorithm {self.alg!r}"
            raise ValueError(msg)
        Public(self.alg, self.public)
        object.__setattr__(self, "kid", key_id(self.public, self.alg))

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
            BadKey: an unsafe key.
            MalformedKeyset: anything else that `to_json` does not write.
        """
        try:
            _KEY(obj)
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
        except (SchemaMismatch, ValueError) as error:
            raise MalformedKeyset(str(error)) from error
        if key.to_json() != dict(obj):
            msg = f"key {key.kid}: not its id, or tenants that are not sorted"
            raise MalformedKeyset(msg)
        return key


class KeySet:
    """An immutable set of pinned keys."""

    __slots__ = ("_keys", "_loaded", "digest")

    def __init__(self, keys: Iterable[PinnedKey] = ()) -> None:
        """Pin `keys`.

        Raises:
            ValueError: a key is pinned twice (one purpose per key), also as a part of a hybrid key.
        """
        self._keys: dict[str, PinnedKey] = {}
        self._loaded: dict[str, Public] = {}
        parts: set[bytes] = set()
        for key in keys:
            own = _parts(key)
            if parts & own:
                msg = f"key {key.kid} is pinned twice"
                raise ValueError(msg)
            parts |= own
            self._keys[key.kid] = key
            self._loaded[key.kid] = Public(key.alg, key.public)
        written = canonical.write(self.to_json())
        #: `sha256:` digest of the set.
        self.digest = "sha256:" + hashlib.sha256(b"tcd/keyset/v1\0" + written).hexdigest()

    def get(self, kid: str) -> PinnedKey | None:
        """The pinned key `kid`, or None."""
        return self._keys.get(kid)

    def verify(self, kid: str, signature: bytes, message: bytes, context: bytes = b"") -> bool:
        """Whether the pinned key `kid` signed `message`; False for any malformed signature."""
        loaded = self._loaded.get(kid)
        return loaded is not None and loaded.verify(signature, message, context)

    def of(self, purpose: Purpose, origin: str) -> tuple[PinnedKey, ...]:
        """The keys of a purpose and an origin, in the order of their ids."""
        found = (self._keys[kid] for kid in sorted(self._keys))
        return tuple(key for key in found if (key.purpose, key.origin) == (purpose, origin))

    def __iter__(self) -> Iterator[PinnedKey]:
        """The keys in the order of their ids."""
        return iter([self._keys[kid] for kid in sorted(self._keys)])

    def __len__(self) -> int:
        """Number of keys."""
        return len(self._keys)

    def to_json(self) -> dict[str, Any]:
        """JSON form (`keyset.json` without its root signatures)."""
        return {"v": VERSION, "keys": [self._keys[kid].to_json() for kid in sorted(self._keys)]}

    @classmethod
    def from_json(cls, obj: Any) -> KeySet:
        """Inverse of `to_json`.

        Raises:
            BadKey: an unsafe key.
            MalformedKeyset: anything else that `to_json` does not write.
        """
        try:
            _KEYSET(obj)
            return cls(PinnedKey.from_json(key) for key in obj["keys"])
        except (SchemaMismatch, ValueError) as error:
            msg = f"not a {VERSION}: {error}"
            raise MalformedKeyset(msg) from error


def _parts(key: PinnedKey) -> set[bytes]:
    if key.alg != HYBRID:
        return {key.public}
    size = PUBLIC_SIZES[ALG]
    return {key.public[:size], key.public[size:]}
