"""Calls of the admin plane: a token and, for what changes something, a signature of the request. Extra `admin`."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import os
import ssl
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms

from tcd.files import write_whole

ISSUER: Final = "tcd-operator"
AUDIENCE: Final = "tcd-admin"
TAG: Final = "tcd-admin"
COMPONENTS: Final = ("@method", "@target-uri", "@authority", "content-digest", "content-type", "authorization")
#: Signed too where the request has it.
IF_PRESENT: Final = ("idempotency-key",)
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

    def token(self, scopes: Sequence[str], *, now: float | None = None, certificate: bytes | None = None) -> str:
        """An access token that lives five minutes; bound to a certificate (DER) where one is given (RFC 8705)."""
        issued = int(time.time() if now is None else now)
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": self.principal,
            "iat": issued,
            "nbf": issued,
            "exp": issued + _LIFE,
            "jti": uuid.uuid4().hex,
            "scope": " ".join(scopes),
        }
        if certificate is not None:
            digest = hashlib.sha256(certificate).digest()
            claims["cnf"] = {"x5t#S256": base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}
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
    """The headers with `Content-Digest`, `Signature-Input` and `Signature`.

    `headers` has the authorization, and the idempotency key where the request has one: it is signed too.
    """
    present = {name.lower() for name in headers}
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
        covered_component_ids=(*COMPONENTS, *(name for name in IF_PRESENT if name in present)),
        body=body,
    )
    return message.headers


@dataclass(frozen=True, slots=True)
class ClientTls:
    """TLS of a client.

    Attributes:
        ca: PEM, who signed the server's certificate; None = as the system trusts.
        cert: PEM, the client's own certificate (the first one) and what leads to its CA.
        key: PEM, its key; None = in `cert`.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """As the connections use it.

        Raises:
            OSError, ValueError: a file cannot be read, or is none.
        """
        made = ssl.create_default_context(cafile=self.ca)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.cert is not None:
            made.load_cert_chain(self.cert, self.key)
        return made

    def certificate(self) -> bytes | None:
        """DER of the client's certificate.

        Raises:
            OSError, ValueError: the file cannot be read, or is none.
        """
        if self.cert is None:
            return None
        return x509.load_pem_x509_certificates(self.cert.read_bytes())[0].public_bytes(Encoding.DER)


class AdminClient:
    """Calls an admin plane as one principal."""

    def __init__(
        self,
        url: str,
        key: OperatorKey,
        *,
        scopes: Sequence[str],
        tls: ClientTls | None = None,
        transport: Any = None,
    ) -> None:
        """Call `url` with tokens for `scopes`, bound to the certificate of `tls`; `transport` is httpx2's, for tests.

        Raises:
            OSError, ValueError: a file of `tls` cannot be used.
        """
        self._url = url.rstrip("/")
        self._key = key
        self._scopes = scopes
        self._certificate = None if tls is None else tls.certificate()
        verify: Any = True if tls is None else tls.context()
        self._client = httpx2.Client(transport=transport, timeout=30.0, verify=verify)

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
        headers = {"authorization": f"Bearer {bearer or self._key.token(self._scopes, certificate=self._certificate)}"}
        if method != "GET":
            headers["idempotency-key"] = key or uuid.uuid4().hex
            headers = sign(self._key, method, url, headers, content)
        return self._client.request(method, url, headers=headers, content=content or None)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
