"""Access tokens: JWTs that a principal signs for itself with its pinned key (RFC 8725, RFC 9068).

PyJWT checks the signature and the registered claims. What it would accept and may not be is refused here, before it
sees the token: long and padded input, members twice, headers that name keys, other types, long lives.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar_api.admin.principals import SCOPES, AdminScope, Principal, Principals
from sidecar_api.admin.tls import thumbprint
from tcd.errors import Unauthorized

ISSUER: Final = "tcd-operator"
AUDIENCE: Final = "tcd-admin"
TYPES: Final = frozenset({"at+jwt", "tcd-admin+jwt"})
#: Seconds that a token may live.
LONGEST: Final = 900
#: Seconds that clocks may differ by.
SKEW: Final = 5
_MOST: Final = 8192
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}", re.ASCII)
_HEADER: Final = frozenset({"alg", "typ", "kid"})
_CLAIMS: Final = frozenset({"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "scope", "cnf"})
_X5T: Final = "x5t#S256"
#: Checked against where nobody has the key: the same work, whose outcome is not looked at.
_NOBODY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
_TIMES: Final = ("iat", "nbf", "exp")


class BadToken(Unauthorized):
    """The token is refused. The answer never says why; `why` is for the log."""

    def __init__(self, why: str) -> None:
        """Know why."""
        super().__init__("a valid access token is needed")
        self.why = why


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the principal, what the token lets it do, and the token's id."""

    principal: Principal
    scopes: frozenset[AdminScope]
    jti: str

    @property
    def name(self) -> str:
        """The principal's name."""
        return self.principal.name

    @property
    def tenant(self) -> str:
        """The tenant that it is bound to."""
        return self.principal.tenant


class Tokens:
    """Verifies access tokens against the principals in force."""

    def __init__(self, principals: Principals | None, *, now: Callable[[], float], bound: bool = False) -> None:
        """Verify against `principals`, None is nobody; `now` is seconds since 1970.

        `bound` says that only tokens that are bound to a certificate are good.
        """
        self._principals = principals
        self._now = now
        self._bound = bound

    def verify(self, authorization: str | None, *, certificate: bytes | None = None) -> Caller:
        """Who calls.

        Args:
            authorization: value of `Authorization`.
            certificate: DER of the one that the client showed.

        Raises:
            BadToken: there is no token or it is refused.
        """
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            raise BadToken("no bearer token")
        if len(token) > _MOST or _FORM.fullmatch(token) is None:
            raise BadToken("too long, or no compact JWT without padding")
        first, second, signature = token.split(".")
        header, claims = _members(first), _members(second)
        _bytes(signature)
        kid = self._kid(header)
        principal = None if self._principals is None else self._principals.of(kid)
        # the signature comes first, and is checked for keys that nobody has too: refusals take as long whoever is meant
        try:
            jwt.decode(
                token,
                _NOBODY if principal is None else principal.public,
                algorithms=["EdDSA"],
                issuer=ISSUER,
                audience=AUDIENCE,
                # times are checked here, by this clock
                options={
                    "require": [*_TIMES, "iss", "aud", "sub", "jti"],
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            why = ""
        except jwt.PyJWTError as error:
            why = type(error).__name__
        if principal is None:
            raise BadToken("a key that is not pinned")
        if why:
            raise BadToken(why)
        self._check(claims, principal)
        self._confirm(claims, certificate)
        asked = frozenset(claims["scope"].split())
        scopes = frozenset(scope for scope in SCOPES if scope in asked) & principal.scopes
        return Caller(principal, scopes, claims["jti"])

    @staticmethod
    def _kid(header: dict[str, Any]) -> str:
        typ, kid = header.get("typ"), header.get("kid")
        if not header.keys() <= _HEADER:
            raise BadToken("a header that is not known: keys are pinned, nothing is critical")
        # a list or an object cannot be looked up
        if header.get("alg") != "EdDSA" or not (isinstance(typ, str) and typ in TYPES and isinstance(kid, str)):
            raise BadToken("another alg or typ, or no kid")
        return kid

    def _confirm(self, claims: dict[str, Any], certificate: bytes | None) -> None:
        """A token that is bound to a certificate (RFC 8705) is good over its connections only."""
        if "cnf" not in claims:
            if self._bound:
                raise BadToken("not bound to a certificate")
            return
        cnf = claims["cnf"]
        wanted = cnf.get(_X5T) if isinstance(cnf, dict) and cnf.keys() == {_X5T} else None
        if not isinstance(wanted, str) or not wanted.isascii():
            raise BadToken("cnf is no x5t#S256")
        if certificate is None or not hmac.compare_digest(thumbprint(certificate), wanted):
            raise BadToken("bound to another certificate")

    def _check(self, claims: dict[str, Any], principal: Principal) -> None:
        if not claims.keys() <= _CLAIMS:
            raise BadToken("a claim that is not known")
        times = [claims.get(name) for name in _TIMES]
        if not all(type(time) is int for time in times):
            raise BadToken("iat, nbf and exp are integers")
        issued, start, end = (int(time) for time in times if time is not None)
        now = self._now()
        if not (issued <= now + SKEW and start <= now + SKEW and now < end + SKEW):
            raise BadToken("not yet or no longer valid")
        if not 0 < end - issued <= LONGEST:
            raise BadToken(f"it lives longer than {LONGEST} s")
        jti, scope = claims.get("jti"), claims.get("scope")
        if not (isinstance(jti, str) and 0 < len(jti) <= 128 and isinstance(scope, str)):  # noqa: PLR2004
            raise BadToken("jti and scope are strings")
        if claims.get("sub") != principal.name:
            raise BadToken("another's name")


def _bytes(part: str) -> bytes:
    """A part of a token; each has one form, also in the bits that the last character does not need."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (ValueError, binascii.Error):
        raw = b""
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise BadToken("no base64url, or bits that stand for nothing")
    return raw


def _members(part: str) -> dict[str, Any]:
    """An object of a token; each member once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise BadToken("a member twice")
        return made

    try:
        # as text: json would take UTF-16 and UTF-32 as well
        value = json.loads(_bytes(part).decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise BadToken("no JSON in base64url") from None
    if not isinstance(value, dict):
        raise BadToken("no object")
    return value
