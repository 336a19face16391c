"""The two-person rule: what one principal proposes, another one has to approve before it happens, or refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic import BaseModel

from sidecar_api.admin.bodies import STRICT, Reason
from sidecar_api.admin.principals import EVERY_TENANT, AdminScope, Principals
from sidecar_api.admin.store import AdminStore
from sidecar_api.admin.tokens import Caller
from tcd.errors import Conflict, Forbidden, NotFound

#: Seconds that a proposal waits.
WAITS: Final = 900.0
_NONE: Final = "no such proposal"
_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Refusal(BaseModel):
    """Why a proposal is refused or withdrawn; the log keeps it for good."""

    model_config = STRICT

    reason: Reason


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
        everywhere: whether it is not for principals of one tenant.
        digest: of what it acts on.
        shown: what it would do, for people.
        until: seconds since 1970.
        args: what carries it out gets; JSON, so that any replica can. None in lists.
    """

    id: str
    action: str
    scope: AdminScope
    by: str
    kid: str
    tenant: str
    everywhere: bool
    digest: str
    shown: Any
    until: float
    args: Any = None

    def made_by(self, caller: Caller) -> bool:
        """Whether it is the caller's own: by name, or by key."""
        return caller.name == self.by or caller.principal.kid == self.kid

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
    """Proposals that wait, in the store."""

    def __init__(self, store: AdminStore, *, now: Callable[[], float]) -> None:
        """Keep them in `store`."""
        self._store = store
        self._now = now

    async def put(self, proposal: Proposal) -> None:
        """Let a proposal wait.

        Raises:
            QuotaExceeded, Unavailable: too many do, of this principal or altogether.
        """
        members = asdict(proposal)
        args = members.pop("args")
        await self._store.propose(proposal.id, members, args, until=proposal.until, now=self._now())

    async def seen_by(self, caller: Caller) -> list[Proposal]:
        """What a caller could see approved: proposals of its scopes and tenant."""
        found = [Proposal(**one) for one in await self._store.proposals(now=self._now())]
        return [proposal for proposal in found if _visible(proposal, caller)]

    async def look(self, identifier: str, caller: Caller) -> Proposal:
        """A proposal that `caller` may see: one of its scopes and tenant.

        Raises:
            NotFound: there is none.
        """
        # what is no id is nothing's; a database would refuse some of it
        known = _ID.fullmatch(identifier) is not None
        one = await self._store.proposal(identifier, now=self._now()) if known else None
        found = None if one is None else Proposal(**one[0], args=one[1])
        if found is None or not _visible(found, caller):
            raise NotFound(_NONE)
        return found

    async def get(self, identifier: str, caller: Caller, principals: Principals) -> Proposal:
        """A proposal that `caller` may approve. It is taken when the act is described in the store.

        Raises:
            NotFound: there is none that the caller may see.
            Forbidden: it is the caller's own.
            Conflict: whoever proposed it may no longer.
        """
        found = await self.look(identifier, caller)
        if found.made_by(caller):
            msg = "a proposal is approved by somebody else"
            raise Forbidden(msg)
        proposer = principals.of(found.kid)
        if proposer is None or found.scope not in proposer.scopes or proposer.tenant != found.tenant:
            msg = "whoever proposed it may no longer do so"
            raise Conflict(msg)
        return found


def _visible(proposal: Proposal, caller: Caller) -> bool:
    whole = caller.tenant == EVERY_TENANT or not proposal.everywhere
    return proposal.scope in caller.scopes and proposal.tenant == caller.tenant and whole


def gone() -> NotFound:
    """The answer when a proposal is not there, or no longer."""
    return NotFound(_NONE)
