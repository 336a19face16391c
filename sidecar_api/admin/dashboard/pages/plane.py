"""The plane itself: what waits for approval, jobs, health."""

from __future__ import annotations

import json
import time
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from sidecar_api.admin.dashboard.gates import viewer_of
from sidecar_api.admin.dashboard.pages.frame import US, Frame
from sidecar_api.admin.dashboard.rendering import HEADERS
from sidecar_api.admin.dashboard.sources import Sources
from sidecar_api.admin.job_routes import MEDIA, REPORT_POLICY
from sidecar_api.admin.plane import Plane

#: Characters of JSON that a page shows.
_SHOWN: Final = 20_000


class PlanePages:
    """Approvals, jobs, health."""

    def __init__(self, frame: Frame, sources: Sources, plane: Plane) -> None:
        """Show `plane` and the health of `sources`."""
        self._frame = frame
        self._sources = sources
        self._plane = plane

    async def approvals(self, request: Request) -> Response:
        """What waits for a second principal."""
        waiting = await self._plane.approvals.seen_by(viewer_of(request).caller)
        rows = [
            (proposal, json.dumps(proposal.shown, indent=2, ensure_ascii=False)[:_SHOWN], int(proposal.until * US))
            for proposal in waiting
        ]
        return self._frame.show(request, "approvals.html", here="approvals", rows=rows)

    async def jobs(self, request: Request) -> Response:
        """Audits, replays and calibrations, newest first."""
        found = self._plane.jobs.list(viewer_of(request).caller)
        return self._frame.show(request, "jobs.html", here="jobs", jobs=found)

    async def job(self, request: Request) -> Response:
        """One of them, with its result and files."""
        job = self._plane.jobs.get(request.path_params["identifier"], viewer_of(request).caller)
        result = "" if job.result is None else json.dumps(job.result, indent=2, ensure_ascii=False)[:_SHOWN]
        return self._frame.show(
            request,
            "job.html",
            here="jobs",
            job=job,
            arguments=json.dumps(job.arguments, indent=2, ensure_ascii=False)[:_SHOWN],
            result=result,
        )

    async def job_file(self, request: Request) -> Response:
        """A file that a job wrote; a report is shown in a sandbox."""
        identifier, name = request.path_params["identifier"], request.path_params["name"]
        path = self._plane.jobs.file(identifier, name, viewer_of(request).caller)
        headers = {**HEADERS, "content-security-policy": REPORT_POLICY}
        if path.suffix != ".html":
            headers["content-disposition"] = f'attachment; filename="{path.name}"'
        return FileResponse(path, media_type=MEDIA.get(path.suffix, "application/octet-stream"), headers=headers)

    async def health(self, request: Request) -> Response:
        """Whether it works."""
        began = time.perf_counter()
        figures_ = await self._sources.health()
        size = await self._sources.catch_up()
        return self._frame.show(
            request,
            "health.html",
            here="health",
            checks=self._sources.checks(),
            health=figures_,
            stats=figures_["stats"],
            indexed=size,
            took=(time.perf_counter() - began) * 1000,
        )
