"""Routes of jobs of every kind, and how a route of an area starts one."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from typing_extensions import TypedDict

from sidecar_api.admin.answers import Act
from sidecar_api.admin.describe import says
from sidecar_api.admin.jobs import Job, Jobs, Kind, object_of
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.tokens import Caller

#: Annotations are resolved in this module, so what they name stands in it.
CANCELLING: Final = Requires(None, mutates=True)
#: Media types of files by their suffix.
MEDIA: Final = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".svg": "image/svg+xml",
}
#: A report is one page without scripts; whatever is in it reaches nothing.
REPORT_POLICY: Final = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"


class JobList(TypedDict):
    """Jobs."""

    jobs: list[Job]


async def start_job(
    plane: Plane,
    request: Request,
    caller: Caller,
    rule: Requires,
    kind: Kind,
    arguments: dict[str, Any],
    private: dict[str, Any],
) -> Response:
    """Start a job: recorded as `KIND.start`, answered once.

    Args:
        plane: whose jobs.
        request: that asks for it.
        caller: who asks.
        rule: what the route requires.
        kind: of the job.
        arguments: shown with it, and recorded by their digest.
        private: what only the job is told.
    """

    async def work(actors: str) -> Any:
        return (await plane.jobs.start(kind, arguments, tenant=caller.tenant, by=actors, private=private)).to_json()

    mutation = Mutation(f"{kind.name}.start", object_of(kind.name, arguments), None, work)
    return await plane.mutate(request, caller, rule, mutation)


def add_jobs(made: APIRouter, plane: Plane, jobs: Jobs) -> None:
    """Add the routes: list, show, cancel, files."""

    @made.get("/jobs", **says("Jobs that the caller may see, newest first", gives=JobList))
    async def jobs_(caller: Annotated[Caller, Depends(Requires(None))]) -> Response:
        return JSONResponse({"jobs": [job.to_json() for job in jobs.list(caller)]})

    @made.get("/jobs/{identifier}", **says("A job: state, progress, result, files", gives=Job))
    async def job(identifier: str, caller: Annotated[Caller, Depends(Requires(None))]) -> Response:
        return JSONResponse(jobs.get(identifier, caller).to_json())

    @made.get("/jobs/{identifier}/files/{name}", **says("A file of a job", gives=bytes, media="*/*"))
    async def file(identifier: str, name: str, caller: Annotated[Caller, Depends(Requires(None))]) -> Response:
        path = jobs.file(identifier, name, caller)
        media = MEDIA.get(path.suffix, "application/octet-stream")
        return FileResponse(path, media_type=media, headers={"content-security-policy": REPORT_POLICY})

    @made.post("/jobs/{identifier}:cancel", **says("Cancel a job", gives=Act))
    async def cancel(request: Request, identifier: str, caller: Annotated[Caller, Depends(CANCELLING)]) -> Response:
        known = jobs.get(identifier, caller)

        async def work(_: str) -> Any:
            return (await jobs.cancel(known.id, caller)).to_json()

        made_of = Mutation(f"{known.kind}.cancel", object_of(known.id), None, work)
        return await plane.mutate(request, caller, CANCELLING, made_of)
