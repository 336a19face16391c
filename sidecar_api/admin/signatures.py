"""Signatures of mutating requests (RFC 9421): who holds a token must also hold the key, for this very request, once.

http-message-signatures checks the signature and the digest of the body; what has to be covered is required here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Final

from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, InvalidSignature, algorithms
from http_message_signatures.exceptions import HTTPMessageSignaturesException

from sidecar_api.admin.principals import Principal
from sidecar_api.admin.store import AdminStore
from tcd.errors import Unauthorized

TAG: Final = "tcd-admin"
#: Seconds that a signature may be old, or live.
WINDOW: Final = 60
COMPONENTS: Final = ("@method", "@target-uri", "@authority", "content-digest", "content-type", "authorization")
#: Covered too where a request has it: who could change it on the way would have one act done twice, because its
#: sender's retry under the key that was signed would find no answer.
IF_PRESENT: Final = ("idempotency-key",)
#: Seconds that nonces are remembered beyond it: replicas' clocks may differ by as much.
_BEYOND: Final = 600
_MOST_NONCE: Final = 128
_LEAST_NONCE: Final = 16


class BadSignature(Unauthorized):
    """The request's signature is refused. The answer never says why; `why` is for the log."""

    def __init__(self, why: str, told: str = "a valid signature of this request is needed") -> None:
        """Know why; `told` is for whoever has shown that the key is theirs."""
        super().__init__(told)
        self.why = why


@dataclass(frozen=True, slots=True)
class Message:
    """A request as the library takes it."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


class _Key(HTTPSignatureKeyResolver):
    """The one key that may sign."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    def resolve_public_key(self, key_id: str) -> object:
        return self._principal.public if key_id == self._principal.kid else None


class Signatures:
    """Verifies requests; each signature is good once."""

    def __init__(self, store: AdminStore, *, now: Callable[[], float]) -> None:
        """Verify; where a restart forgets nonces, signatures made before now are refused."""
        self._store = store
        self._now = now
        self._since = 0 if store.durable else int(now())

    async def verify(self, message: Message, principal: Principal) -> None:
        """Refuse a request that is not signed by `principal`, now, and for the first time.

        Raises:
            BadSignature: it is not.
            Unavailable: there is no room to remember its nonce.
        """
        verifier = HTTPMessageVerifier(signature_algorithm=algorithms.ED25519, key_resolver=_Key(principal))
        try:
            found = verifier.verify(
                message,
                max_age=dt.timedelta(seconds=WINDOW),
                expect_tag=TAG,
                require_components=COMPONENTS,
                body=message.body,
            )
        except (InvalidSignature, HTTPMessageSignaturesException) as error:
            raise BadSignature(str(error)) from None
        if len(found) != 1:
            raise BadSignature("more than one signature with the tag")
        self._covers(message, found[0].covered_components)
        said = found[0].parameters
        if said.get("alg") != "ed25519":
            raise BadSignature("no alg, or another")
        created, expires, nonce = said.get("created"), said.get("expires"), said.get("nonce")
        if not (isinstance(created, int) and isinstance(expires, int) and isinstance(nonce, str)):
            raise BadSignature("created, expires and nonce are required")
        if not 0 < expires - created <= WINDOW or not _LEAST_NONCE <= len(nonce) <= _MOST_NONCE:
            raise BadSignature("it lives too long, or its nonce is too short or too long")
        if created < self._since:
            raise BadSignature("made before this process began")
        until = created + WINDOW + _BEYOND
        if not await self._store.use_nonce(principal.kid, nonce, until=until, now=self._now()):
            raise BadSignature("replayed")

    @staticmethod
    def _covers(message: Message, covered: Container[str]) -> None:
        """Refuse a good signature that leaves out a field which it has to cover because it is there.

        Whoever made it holds the key: they are told, because clients of earlier versions did not sign that field.
        """
        for name in IF_PRESENT:
            if any(field.lower() == name for field in message.headers) and f'"{name}"' not in covered:
                raise BadSignature(f"{name} is not covered", f"the signature has to cover {name}")
