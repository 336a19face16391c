"""Calls of the admin plane: a token and, for what changes something, a signature of the request. Extra `admin`."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms

from tcd.files import write_whole

ISSUER: Final = "tcd-operator"
AUDIENCE: Final = "tcd-admin"
TAG: Final = "tcd-admin"
COMPONENTS: Final = ("@method", "@target-uri", "@authority", "content-digest", "content-type", "authorization")
_LIFE: Final = 300
_WINDOW: Final = 60


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """The key of one principal; it never leaves this side.

    Attributes:
        principal: name at the admin plane.
        kid: id of the key.
        private: the key.
    """

    principal: str
    kid: str
    private: Ed25519PrivateKey

    @classmethod
    def generate(cls, principal: str) -> OperatorKey:
        """A new key."""
        return cls(principal, f"{principal}-{os.urandom(6).hex()}", Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> OperatorKey:
        """Read a file of `save`.

        Raises:
            OSError, ValueError: it cannot be read, or is none.
        """
        known = json.loads(path.read_bytes())
        if not isinstance(known, dict) or {"principal", "kid", "seed"} - known.keys():
            msg = f"{path}: no key of an operator"
            raise ValueError(msg)
        seed = bytes.fromhex(str(known["seed"]))
        return cls(str(known["principal"]), str(known["kid"]), Ed25519PrivateKey.from_private_bytes(seed))

    def save(self, path: Path) -> None:
        """Write the key to a file of mode 0600."""
        seed = self.private.private_bytes_raw().hex()
        made = {"principal": self.principal, "kid": self.kid, "seed": seed}
        write_whole(path, json.dumps(made).encode() + b"\n", mode=0o600)

    def public(self, scopes: Sequence[str], *, tenant: str = "*") -> dict[str, Any]:
        """The public key with its rights, as it stands in the key set of the admin plane."""
        x = base64.urlsafe_b64encode(self.private.public_key().public_bytes_raw()).rstrip(b"=").decode()
        rights = {"principal": self.principal, "scopes": list(scopes), "tenant": tenant}
        return {
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid, "x": x, "tcd": rights
        }  # fmt: skip

    def token(self, scopes: Sequence[str], *, now: float | None = None) -> str:
        """An access token that lives five minutes."""
        issued = int(time.time() if now is None else now)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": self.principal,
            "iat": issued,
            "nbf": issued,
            "exp": issued + _LIFE,
            "jti": uuid.uuid4().hex,
            "scope": " ".join(scopes),
        }
        return jwt.encode(claims, self.private, algorithm="EdDSA", headers={"typ": "tcd-admin+jwt", "kid": self.kid})


class _Key(HTTPSignatureKeyResolver):
    """The key that signs."""

    def __init__(self, key: OperatorKey) -> None:
        self._key = key

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey:
        del key_id
        return self._key.private


@dataclass(slots=True)
class _Message:
    """A request as the library takes it."""

    method: str
    url: str
    headers: dict[str, str]


def sign(
    key: OperatorKey, method: str, url: str, headers: dict[str, str], body: bytes, *, created: float | None = None
) -> dict[str, str]:
    """The headers with `Content-Digest`, `Signature-Input` and `Signature`; `headers` has the authorization."""
    message = _Message(method, url, {"content-type": "application/json", **headers})
    at = dt.datetime.fromtimestamp(time.time() if created is None else created, tz=dt.timezone.utc)
    HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=_Key(key)).sign(
        message,
        key_id=key.kid,
        created=at,
        expires=at + dt.timedelta(seconds=_WINDOW),
        nonce=os.urandom(16).hex(),
        label="sig",
        tag=TAG,
        covered_component_ids=COMPONENTS,
        body=body,
    )
    return message.headers


class AdminClient:
    """Calls an admin plane as one principal."""

    def __init__(self, url: str, key: OperatorKey, *, scopes: Sequence[str], transport: Any = None) -> None:
        """Call `url` with tokens for `scopes`; `transport` is httpx2's, for tests."""
        self._url = url.rstrip("/")
        self._key = key
        self._scopes = scopes
        self._client = httpx2.Client(transport=transport, timeout=30.0)

    def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, bearer: str | None = None
    ) -> Any:
        """The reply (httpx2) to one request; what is no GET is signed.

        Args:
            method: of HTTP.
            path: from `/admin/v1` on.
            body: JSON members; None sends none.
            key: idempotency key; a new one when it is not given.
            bearer: another credential than a token of this key, to enrol.
        """
        url, content = self._url + path, b"" if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {bearer or self._key.token(self._scopes)}"}
        if method != "GET":
            headers["idempotency-key"] = key or uuid.uuid4().hex
            headers = sign(self._key, method, url, headers, content)
        return self._client.request(method, url, headers=headers, content=content or None)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
