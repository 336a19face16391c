"""What every page has: its frame, what its viewer may see, and the pages of errors."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from sidecar_api.admin.dashboard.browsers import READING, Viewer
from sidecar_api.admin.dashboard.rendering import Renderer
from sidecar_api.admin.plane import Plane
from sidecar_api.admin.principals import EVERY_TENANT
from tcd.errors import NotFound, TcdError

US: Final = 1_000_000
#: Decisions whose bodies a page reads, at most.
MOST_READ: Final = 500
#: Tenants on a page.
TENANTS: Final = 20
Name = Annotated[str, Field(min_length=1, max_length=128)]
STRICT: Final = ConfigDict(frozen=True, extra="forbid")


class Frame:
    """Makes pages."""

    def __init__(self, plane: Plane, renderer: Renderer) -> None:
        """Pages for principals of `plane`."""
        self._plane = plane
        self._renderer = renderer

    def show(self, request: Request, template: str, *, here: str, status: int = 200, **values: Any) -> Response:
        """A page with its frame."""
        viewer: Viewer | None = getattr(request.state, "viewer", None)
        return self._renderer.page(
            template,
            status,
            here=here,
            viewer=viewer,
            everywhere=viewer is not None and viewer.tenant == EVERY_TENANT,
            now_us=int(self._plane.now() * US),
            **values,
        )

    def sign_in(self, request: Request, *, status: int = 200, why: str = "", code: str = "") -> Response:
        """The form that takes a code."""
        return self.show(
            request, "login.html", here="", status=status, why=why, code=code, reading=sorted(READING), error=status
        )

    def problem(self, request: Request, error: TcdError) -> Response:
        """An error as a page."""
        context = request.scope["tcd"]
        response = self.show(
            request, "problem.html", here="", status=error.http_status, error=error, request_id=context.request_id
        )
        if error.retry_after is not None:
            response.headers["retry-after"] = str(max(1, round(error.retry_after)))
        return response

    async def missing(self, request: Request) -> Response:
        """What is not there."""
        del request
        msg = "no such page"
        raise NotFound(msg)


def bound(viewer: Viewer) -> str | None:
    """The one tenant that a viewer sees; None = all of them."""
    return None if viewer.tenant == EVERY_TENANT else viewer.tenant


def may_see(viewer: Viewer, tenant: str | None) -> bool:
    """Whether a viewer sees a tenant, and what is not of one."""
    return tenant is None or viewer.tenant in {EVERY_TENANT, tenant}
