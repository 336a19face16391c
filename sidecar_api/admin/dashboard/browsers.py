"""Browsers that were let in: one-time codes, and sessions that read for a while.

A principal asks for a code with a signed request; a browser exchanges it, once, for a cookie. Of both only digests
are kept, in memory. What a session may see follows from the principals in force: who is removed is out at once.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sidecar_api.admin.principals import AdminScope, Principal, Principals
from sidecar_api.admin.tokens import Caller
from tcd.errors import Unauthorized, Unavailable

#: Seconds that a code is good.
CODE_LIVES: Final = 120.0
#: Seconds that a session lives at most, and without a request.
SESSION_LIVES: Final = 3600.0
SESSION_RESTS: Final = 900.0
#: Codes and sessions at once; of one principal, the oldest makes room.
_MOST: Final = 1000
_EACH: Final = 8
#: What a session may be used for: to read. Whatever changes something takes a signed request.
READING: Final[frozenset[AdminScope]] = frozenset(
    {"principals:read", "config:read", "policy:read", "alpha:read", "receipts:read", "receipts:audit", "state:read"}
)


class NotSignedIn(Unauthorized):
    """No session; the answer is the same for all reasons."""

    def __init__(self) -> None:
        """Say how to get in."""
        super().__init__("sign in first: tcd admin login")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whose session it is, and what it may see.

    Attributes:
        principal: as it is in force now.
        scopes: to read.
        granted: of the token that the session began with, to see which proposals wait for this principal.
        form: that the forms of this session's pages carry.
        until: when the session ends at the latest, seconds since 1970.
    """

    principal: Principal
    scopes: frozenset[AdminScope]
    granted: frozenset[AdminScope]
    form: str
    until: float

    @property
    def tenant(self) -> str:
        """That the principal is bound to."""
        return self.principal.tenant

    @property
    def caller(self) -> Caller:
        """As the lists of proposals ask for it."""
        return Caller(self.principal, self.granted, "")


@dataclass(frozen=True, slots=True)
class _Held:
    """A code or a session."""

    name: str
    kid: str
    x: bytes
    granted: frozenset[AdminScope]
    authority: str
    form: str
    until: float
    rests: float
    certificate: str = ""


class Browsers:
    """Codes and sessions of one process."""

    def __init__(self, *, random: Callable[[int], bytes], now: Callable[[], float]) -> None:
        """Nobody is in."""
        self._random = random
        self._now = now
        self._codes: OrderedDict[str, _Held] = OrderedDict()
        self._sessions: OrderedDict[str, _Held] = OrderedDict()

    def code(self, caller: Caller, authority: str) -> str:
        """A code for a browser that speaks to `authority`; good once, for `CODE_LIVES`.

        Raises:
            Unavailable: too many are out.
        """
        secret = self._random(16).hex()
        until = self._now() + CODE_LIVES
        held = _Held(
            caller.name, caller.principal.kid, _public(caller.principal), caller.scopes, authority, "", until, until
        )
        self._put(self._codes, secret, held)
        return secret

    def exchange(
        self, code: str, authority: str, principals: Principals | None, certificate: str = ""
    ) -> tuple[str, Viewer]:
        """The cookie and the session of a code; the code is gone, whatever comes of it.

        Where browsers show a certificate the session is bound to it.

        Raises:
            NotSignedIn: it is no good, or was for another authority.
        """
        held = self._codes.pop(_digest(code), None)
        now = self._now()
        if held is None or held.until <= now or held.authority != authority:
            raise NotSignedIn
        cookie = self._random(32).hex()
        made = replace(
            held,
            form=self._random(16).hex(),
            until=now + SESSION_LIVES,
            rests=now + SESSION_RESTS,
            certificate=certificate,
        )
        viewer = _viewer(made, principals)
        self._put(self._sessions, cookie, made)
        return cookie, viewer

    def find(self, cookie: str | None, authority: str, principals: Principals | None, certificate: str = "") -> Viewer:
        """Whose session a cookie is; it goes on for `SESSION_RESTS`, up to its end.

        Raises:
            NotSignedIn: there is none, or its principal is no longer what it was.
        """
        at = _digest(cookie or "")
        held = self._sessions.get(at)
        now = self._now()
        known = held is not None and (held.authority, held.certificate) == (authority, certificate)
        if held is None or not known or min(held.until, held.rests) <= now:
            self._sessions.pop(at, None)
            raise NotSignedIn
        try:
            viewer = _viewer(held, principals)
        except NotSignedIn:
            del self._sessions[at]
            raise
        self._sessions[at] = replace(held, rests=now + SESSION_RESTS)
        return viewer

    def end(self, cookie: str | None) -> None:
        """End a session."""
        self._sessions.pop(_digest(cookie or ""), None)

    def __len__(self) -> int:
        """Sessions that have not ended."""
        now = self._now()
        return sum(min(held.until, held.rests) > now for held in self._sessions.values())

    def _put(self, kept: OrderedDict[str, _Held], secret: str, held: _Held) -> None:
        now = self._now()
        for at in [at for at, other in kept.items() if min(other.until, other.rests) <= now]:
            del kept[at]
        own = [at for at, other in kept.items() if other.name == held.name]
        if len(own) >= _EACH:
            del kept[own[0]]
        if len(kept) >= _MOST:
            msg = "too many browsers are signed in"
            raise Unavailable(msg, retry_after=60.0)
        kept[_digest(secret)] = held


def same(given: str, form: str) -> bool:
    """Whether a form's secret is that of the session."""
    return bool(form) and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), form.encode())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _public(principal: Principal) -> bytes:
    return principal.public.public_bytes_raw()


def _viewer(held: _Held, principals: Principals | None) -> Viewer:
    """The session of a principal that is still enrolled with the same key; scopes that were taken away are gone."""
    principal = None if principals is None else principals.of(held.kid)
    if principal is None or principal.name != held.name or _public(principal) != held.x:
        raise NotSignedIn
    granted = held.granted & principal.scopes
    return Viewer(principal, granted & READING, granted, held.form, held.until)
