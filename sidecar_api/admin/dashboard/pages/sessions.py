"""A session: why it was blocked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sidecar_api.admin.dashboard import explain, figures
from sidecar_api.admin.dashboard.forms import asked
from sidecar_api.admin.dashboard.gates import viewer_of
from sidecar_api.admin.dashboard.pages.frame import MOST_READ, STRICT, Frame, Name, may_see
from sidecar_api.admin.dashboard.rendering import BASE, HEADERS
from sidecar_api.admin.dashboard.sources import Sources
from tcd.errors import NotFound
from tcd.ledger.search import Found

_SUBJECT: Final = re.compile(r"sha256:[0-9a-f]{64}")


class SessionNames(BaseModel):
    """A session by its names."""

    model_config = STRICT
    tenant: Name
    user: Name
    session: Name


class GenerationQuery(BaseModel):
    """Which generation of a session."""

    model_config = STRICT
    chain: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None


class SessionPages:
    """Sessions."""

    def __init__(self, frame: Frame, sources: Sources) -> None:
        """Show `sources`."""
        self._frame = frame
        self._sources = sources

    async def named(self, request: Request) -> Response:
        """From the names of a session to its page."""
        query = asked(request, SessionNames)
        if not may_see(viewer_of(request), query.tenant):
            msg = "no decision about such a session"
            raise NotFound(msg)
        digest = self._sources.search.subject(query.tenant, query.user, query.session)
        return RedirectResponse(f"{BASE}/sessions/{digest}", 303, HEADERS)

    async def session(self, request: Request) -> Response:
        """Why a session was blocked."""
        viewer, sources = viewer_of(request), self._sources
        subject = request.path_params["subject"]
        query = asked(request, GenerationQuery)
        found: list[Found] = []
        if _SUBJECT.fullmatch(subject) is not None:
            await sources.catch_up()
            found = await sources.found({"subject": subject}, tenant=viewer.tenant, limit=MOST_READ)
        steps, lost = await sources.steps(found)
        if not steps and not lost:
            msg = "no decision about such a session"
            raise NotFound(msg)
        chains = _generations(steps)
        chain = query.chain or _telling(chains)
        if chain not in chains and chains:
            msg = "no such generation"
            raise NotFound(msg)
        shown = chains.get(chain, [])
        why = next((step for step in shown if step.enforced == "block"), None)
        why = why or next((step for step in shown if step.action != "allow"), None) or (shown[-1] if shown else None)
        return self._frame.show(
            request,
            "session.html",
            here="receipts",
            subject=subject,
            chains=[(name, of) for name, of in reversed(chains.items())],
            chain=chain,
            steps=shown,
            lost=lost,
            cut=len(found) >= MOST_READ,
            why=why,
            headline=explain.headline(why) if why else None,
            evidence=explain.evidence(why) if why else (),
            policy=explain.policy_name(why.policy, sources.policy_names()) if why else "",
            evidence_plot=figures.evidence(shown) if shown else None,
            score_plot=figures.alarms(shown) if shown else None,
        )


def _generations(steps: list[explain.Step]) -> dict[str, list[explain.Step]]:
    out: dict[str, list[explain.Step]] = {}
    for step in steps:
        out.setdefault(step.chain, []).append(step)
    return out


def _telling(chains: Mapping[str, list[explain.Step]]) -> str:
    """The newest generation that something was done about, else the newest."""
    names = list(chains)
    acted = [name for name in names if any(step.enforced != "allow" for step in chains[name])]
    return (acted or names or [""])[-1]
