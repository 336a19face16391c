"""Who may use the admin plane: public keys with a name, scopes and a tenant, pinned in one file.

A JWKS whose keys have one more member, `tcd`. No key is ever taken from a token or fetched from anywhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidecar_api.schemas import TEXT_PATTERN
from tcd.errors import ConfigError, ValidationFailed
from tcd.files import write_whole

AdminScope = Literal[
    "principals:read",
    "principals:write",
    "config:read",
    "config:write",
    "policy:read",
    "policy:write",
    "alpha:read",
    "receipts:read",
    "receipts:audit",
    "receipts:erase",
    "keys:rotate",
    "state:read",
    "state:load",
    "calibration:write",
    "patch:propose",
    "patch:approve",
    "trust:write",
    "ledger:repair",
    "alarm:ack",
]
SCOPES: Final[tuple[AdminScope, ...]] = get_args(AdminScope)
#: Who is not bound to one tenant.
EVERY_TENANT: Final = "*"
#: The two-person rule needs two.
LEAST: Final = 2
MOST: Final = 64
_STRICT: Final = ConfigDict(frozen=True, extra="forbid", strict=True)


class Rights(BaseModel):
    """What a key may do."""

    model_config = _STRICT

    principal: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]
    scopes: Annotated[tuple[AdminScope, ...], Field(min_length=1, max_length=len(SCOPES), strict=False)]
    tenant: Annotated[str, Field(min_length=1, max_length=128, pattern=TEXT_PATTERN)] = EVERY_TENANT


class Key(BaseModel):
    """An Ed25519 public key (RFC 8037) and its rights."""

    model_config = _STRICT

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    kid: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
    x: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    alg: Literal["EdDSA"] = "EdDSA"
    use: Literal["sig"] = "sig"
    tcd: Rights


class KeySet(BaseModel):
    """All keys."""

    model_config = _STRICT

    keys: Annotated[tuple[Key, ...], Field(min_length=LEAST, max_length=MOST, strict=False)]


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody with a key.

    Attributes:
        kid: of the key.
        name: one per key.
        scopes: granted.
        tenant: bound to; `*` is none.
        public: the key.
    """

    kid: str
    name: str
    scopes: frozenset[AdminScope]
    tenant: str
    public: Ed25519PublicKey


class Principals:
    """A key set that was checked; immutable."""

    def __init__(self, keys: KeySet) -> None:
        """Take the keys.

        Raises:
            ValidationFailed: a name or key is there twice, a key is no point, or nobody could change the set.
        """
        self.document = keys
        self._by_kid: dict[str, Principal] = {}
        names, points = set(), set()
        for key in keys.keys:
            made = Principal(key.kid, key.tcd.principal, frozenset(key.tcd.scopes), key.tcd.tenant, _public(key))
            if key.kid in self._by_kid or made.name in names or key.x in points:
                msg = f"{made.name}: its key id, its name or its key is there twice"
                raise ValidationFailed(msg)
            self._by_kid[key.kid] = made
            names.add(made.name)
            points.add(key.x)
        able = [p for p in self if "principals:write" in p.scopes and p.tenant == EVERY_TENANT]
        if len(able) < LEAST:
            msg = f"at least {LEAST} principals of every tenant need principals:write: changes take two people"
            raise ValidationFailed(msg)

    def __iter__(self) -> Any:
        """The principals."""
        return iter(self._by_kid.values())

    def of(self, kid: str) -> Principal | None:
        """Whose key this is."""
        return self._by_kid.get(kid)

    @property
    def digest(self) -> str:
        """Of all keys and rights."""
        text = json.dumps(self.document.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_whole(path, self.document.model_dump_json(indent=2).encode() + b"\n", mode=0o600)

    @classmethod
    def load(cls, path: Path) -> Principals:
        """Read the file.

        Raises:
            ConfigError: it cannot be read or is no such key set; says why.
        """
        try:
            return cls(KeySet.model_validate_json(path.read_bytes()))
        except OSError as error:
            msg = f"{path}: {error.strerror}"
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False)[0]
            msg = f"{path}: {'.'.join(map(str, found['loc']))}: {found['msg']}"
        except ValidationFailed as error:
            msg = f"{path}: {error.detail}"
        raise ConfigError(msg) from None


def _public(key: Key) -> Ed25519PublicKey:
    try:
        raw = base64.urlsafe_b64decode(key.x + "=")
        # the pattern lets 258 bits through
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == key.x:
            return Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, binascii.Error):
        pass
    msg = f"{key.kid}: x is no Ed25519 key in base64url"
    raise ValidationFailed(msg)


def changed(before: Principals, after: Principals) -> Sequence[str]:
    """Names that a change adds, removes or gives other rights, for the people who approve it."""
    old = {key.tcd.principal: key for key in before.document.keys}
    new = {key.tcd.principal: key for key in after.document.keys}
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
