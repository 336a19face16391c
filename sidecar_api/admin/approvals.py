"""The two-person rule: what one principal proposes, another one has to approve before it happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from sidecar_api.admin.principals import AdminScope
from sidecar_api.admin.tokens import Caller
from tcd.errors import Forbidden, NotFound, Unavailable

#: Seconds that a proposal waits.
WAITS: Final = 900.0
_MOST: Final = 100
_NONE: Final = "no such proposal"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Something that waits for a second principal.

    Attributes:
        id: random.
        action: what it is.
        scope: that the second principal needs too.
        by: name of the first.
        kid: key of the first.
        tenant: that the first is bound to.
        digest: of what it acts on.
        shown: what it would do, for people.
        until: seconds since 1970.
        work: does it.
    """

    id: str
    action: str
    scope: AdminScope
    by: str
    kid: str
    tenant: str
    digest: str
    shown: Any
    until: float
    work: Callable[[str], Awaitable[Any]]

    def to_json(self) -> dict[str, Any]:
        """As people see it."""
        return {
            "id": self.id,
            "action": self.action,
            "scope": self.scope,
            "proposed_by": self.by,
            "object": self.digest,
            "shown": self.shown,
            "expires_at": int(self.until),
        }


class Approvals:
    """Proposals that wait. They do not outlive the process: then nothing happens."""

    def __init__(self, *, now: Callable[[], float]) -> None:
        """None waits."""
        self._now = now
        self._waiting: dict[str, Proposal] = {}

    def put(self, proposal: Proposal) -> None:
        """Let a proposal wait.

        Raises:
            Unavailable: too many do.
        """
        self._expire()
        if len(self._waiting) >= _MOST:
            msg = f"{_MOST} proposals wait already"
            raise Unavailable(msg, retry_after=60.0)
        self._waiting[proposal.id] = proposal

    def seen_by(self, caller: Caller) -> list[Proposal]:
        """What a caller could see approved: proposals of its scopes and tenant."""
        self._expire()
        return [p for p in self._waiting.values() if _visible(p, caller)]

    def take(self, identifier: str, caller: Caller) -> Proposal:
        """A proposal that `caller` may approve; it is given once.

        Raises:
            NotFound: there is none that the caller may see.
            Forbidden: it is the caller's own.
        """
        self._expire()
        found = self._waiting.get(identifier)
        if found is None or not _visible(found, caller):
            raise NotFound(_NONE)
        if caller.name == found.by or caller.principal.kid == found.kid:
            msg = "a proposal is approved by somebody else"
            raise Forbidden(msg)
        return self._waiting.pop(identifier)

    def _expire(self) -> None:
        now = self._now()
        for identifier in [p.id for p in self._waiting.values() if p.until <= now]:
            del self._waiting[identifier]


def _visible(proposal: Proposal, caller: Caller) -> bool:
    return proposal.scope in caller.scopes and proposal.tenant == caller.tenant
