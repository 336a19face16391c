"""Budgets of tenants, and of one its course."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from sidecar_api.admin.dashboard import explain, figures
from sidecar_api.admin.dashboard.browsers import Viewer
from sidecar_api.admin.dashboard.forms import asked
from sidecar_api.admin.dashboard.gates import viewer_of
from sidecar_api.admin.dashboard.pages.frame import MOST_READ, STRICT, TENANTS, Frame, Name
from sidecar_api.admin.dashboard.sources import Sources
from tcd.errors import NotFound


class BudgetPage(BaseModel):
    """Parameters of the budgets."""

    model_config = STRICT
    tenant: Name | None = None
    user: Name | None = None
    after: Annotated[str, Field(max_length=128)] = ""


class BudgetPages:
    """Budgets."""

    def __init__(self, frame: Frame, sources: Sources) -> None:
        """Show `sources`."""
        self._frame = frame
        self._sources = sources

    async def budgets(self, request: Request) -> Response:
        """Budgets of tenants, and of one its course."""
        viewer, sources, query = viewer_of(request), self._sources, asked(request, BudgetPage)
        await sources.catch_up()
        if query.tenant is not None:
            return await self._budget(request, viewer, query)
        names = await sources.tenants(viewer.tenant, after=query.after, limit=TENANTS + 1)
        rows = [(name, sources.budget(name, None, tenant=viewer.tenant)) for name in names[:TENANTS]]
        more = names[TENANTS - 1] if len(names) > TENANTS else None
        return self._frame.show(
            request, "budgets.html", here="budgets", rows=rows, more=more, unit=sources.unit, after=query.after
        )

    async def _budget(self, request: Request, viewer: Viewer, query: BudgetPage) -> Response:
        sources, name = self._sources, query.tenant or ""
        now = sources.budget(name, query.user, tenant=viewer.tenant)
        steps: list[explain.Step] = []
        if query.user is None and "receipts:read" in viewer.scopes:
            found = await sources.found({"tenant": name, "typ": "decision"}, tenant=viewer.tenant, limit=MOST_READ)
            steps, _ = await sources.steps(found)
        if now is None and not steps:
            msg = "no such budget"
            raise NotFound(msg)
        steps = [step for step in steps if step.unit != "none"]
        epochs: dict[int, explain.Step] = {step.epoch: step for step in steps}
        return self._frame.show(
            request,
            "budget.html",
            here="budgets",
            name=name,
            user=query.user,
            now=now,
            epochs=sorted(epochs.values(), key=lambda step: -step.epoch),
            read=len(steps),
            spending=figures.spending(steps, now["alpha"] if now else 0.0) if steps else None,
            wealth=figures.wealth(steps) if steps else None,
        )
