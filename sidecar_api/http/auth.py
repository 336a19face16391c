"""Static bearer tokens with scopes, compared in constant time. Without a configured token nothing is open."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from tcd.config import ApiToken, Scope
from tcd.errors import Forbidden


class Tokens:
    """The configured tokens, as digests."""

    def __init__(self, tokens: Sequence[ApiToken]) -> None:
        """Know `tokens`."""
        self._known = [(_digest(t.token.get_secret_value().encode()), t.scopes) for t in tokens]

    def require(self, authorization: str | None, scope: Scope) -> None:
        """Check a request's `Authorization`.

        Raises:
            Forbidden: no token of this scope; the answer is the same whether the token is unknown or lacks it.
        """
        kind, _, token = (authorization or "").partition(" ")
        found = _digest(token.strip().encode("utf-8", "surrogateescape"))
        allowed = False
        for known, scopes in self._known:
            # every token is compared, so that time tells nothing
            allowed |= hmac.compare_digest(known, found) and scope in scopes
        if not allowed or kind.lower() != "bearer":
            msg = f"a bearer token with the scope {scope} is needed"
            raise Forbidden(msg)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
