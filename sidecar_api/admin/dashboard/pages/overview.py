"""The overview: what is going on."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from sidecar_api.admin.dashboard import figures
from sidecar_api.admin.dashboard.browsers import Viewer
from sidecar_api.admin.dashboard.gates import viewer_of
from sidecar_api.admin.dashboard.pages.frame import TENANTS, US, Frame, bound
from sidecar_api.admin.dashboard.sources import Sources
from sidecar_api.admin.plane import Plane
from sidecar_api.admin.principals import EVERY_TENANT
from tcd.ledger.search_views import MOST_GROUPED

_BLOCKED: Final = 12
_HOUR: Final = 3600


class OverviewPage:
    """Newest blocked sessions, counts, budgets, health."""

    def __init__(self, frame: Frame, sources: Sources, plane: Plane) -> None:
        """Show `sources`, and what waits in `plane`."""
        self._frame = frame
        self._sources = sources
        self._plane = plane

    async def overview(self, request: Request) -> Response:
        """What is going on: newest blocked sessions, counts, budgets, health."""
        viewer, sources = viewer_of(request), self._sources
        blocked, counts, whole, size = [], Counter[str](), True, None
        if "receipts:read" in viewer.scopes:
            size = await sources.catch_up()
            tenant = bound(viewer)
            blocked = await sources.views.sessions(tenant=tenant, enforced="block", limit=_BLOCKED)
            until = int(self._plane.now() * US)
            found, whole = await sources.views.counts(
                tenant=tenant, since_us=until - 24 * _HOUR * US, until_us=until + US, bins=1, most=MOST_GROUPED
            )
            for count in found:
                counts[count.enforced] += count.count
        budgets = await self._budgets(viewer) if "alpha:read" in viewer.scopes else []
        return self._frame.show(
            request,
            "overview.html",
            here="overview",
            blocked=blocked,
            most=_BLOCKED,
            counts=figures.legend(counts),
            whole=whole,
            total=sum(counts.values()),
            size=size if viewer.tenant == EVERY_TENANT else None,
            alarms=[budget for budget in budgets if budget["alarm"] or budget["exhausted"]],
            watched=len(budgets),
            failing=[name for name, why in sources.checks().items() if why],
            waiting=len(await self._plane.approvals.seen_by(viewer.caller)),
            running=[job for job in self._plane.jobs.list(viewer.caller) if job.state == "running"],
        )

    async def _budgets(self, viewer: Viewer) -> list[dict[str, Any]]:
        names = await self._sources.tenants(viewer.tenant, after="", limit=TENANTS)
        found = (self._sources.budget(name, None, tenant=viewer.tenant) for name in names)
        return [budget for budget in found if budget is not None]
