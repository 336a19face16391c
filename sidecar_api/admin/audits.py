"""Audits as jobs: the whole ledger, or one tenant's part of it, while the shim goes on."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from sidecar_api.admin.answers import Act
from sidecar_api.admin.bodies import Name, parsed
from sidecar_api.admin.describe import says
from sidecar_api.admin.job_routes import start_job
from sidecar_api.admin.jobs import Kind
from sidecar_api.admin.plane import Plane, Requires
from sidecar_api.admin.principals import EVERY_TENANT
from sidecar_api.admin.tokens import Caller
from sidecar_api.bindings import defaults_of
from sidecar_api.http.runtime import Runtime
from sidecar_api.stores import data_directory
from tcd.errors import Conflict, NotFound
from tcd.ledger.sqlite import FILE

#: Annotations are resolved in this module, so what they name stands in it.
AUDITING: Final = Requires("receipts:audit", mutates=True)
KIND: Final = Kind("audit", "sidecar_api.admin.audit_job:run", "receipts:audit", most_bytes=64 << 20)
_SERVICE: Final = ("tcd_request_duration_seconds", "tcd_stage_duration_seconds", "tcd_ledger_commit_duration_seconds")
_Note = Annotated[str, Field(min_length=1, max_length=1 << 16)]


class AuditOrder(BaseModel):
    """What to audit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tenant: Annotated[Name | None, Field(description="only this tenant's records; left out: all")] = None
    checkpoints: Annotated[
        list[_Note], Field(max_length=16, description="signed checkpoints from elsewhere: witnesses, earlier audits")
    ] = []


class Audits:
    """What an audit needs of the shim."""

    def __init__(self, runtime: Runtime) -> None:
        """Audit the ledger of `runtime`."""
        self._runtime = runtime

    def order(self, asked: AuditOrder, tenant: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of the job, and those that are not shown.

        Raises:
            Conflict: the ledger is in memory: nothing outside this process can read it.
        """
        runtime, settings = self._runtime, self._runtime.settings
        if not runtime.ledger.durable or runtime.verifier is None:
            msg = "the ledger is in memory: there is nothing that outlives the shim to audit"
            raise Conflict(msg)
        policy, rules = runtime.verifier.policy, runtime.service.judge.rules
        private: dict[str, Any] = {
            "keyset": policy.keys.to_json(),
            "log_algorithms": sorted(policy.log_algorithms),
            "witnesses": "" if settings.log_witnesses is None else settings.log_witnesses.read_text(),
            "notes": list(asked.checkpoints),
            "policies": None if settings.policies is None else str(settings.policies),
            "defaults": asdict(defaults_of(rules)),
            "config": settings.config_hash,
            "assets": None if settings.assets is None else str(settings.assets),
            "service": None if tenant is not None else _service(runtime),
        }
        if settings.ledger_url is not None:
            private["postgresql"] = settings.ledger_url.get_secret_value()
        else:
            private |= {"sqlite": str(data_directory(settings, os.environ) / FILE), "live": True}
        return {"origin": settings.origin, "tenant": tenant, "checkpoints": len(asked.checkpoints)}, private


def _service(runtime: Runtime) -> dict[str, list[dict[str, Any]]]:
    """Latencies that the shim has measured since it began: for each label counts by upper bound in seconds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for family in runtime.exporter.registry.collect():
        if family.name not in _SERVICE:
            continue
        series: dict[str, dict[str, Any]] = {}
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "le"}
            one = series.setdefault(" ".join(labels.values()), {"labels": labels, "buckets": [], "sum": 0.0})
            if sample.name.endswith("_bucket"):
                one["buckets"].append([sample.labels["le"], sample.value])
            elif sample.name.endswith("_sum"):
                one["sum"] = sample.value
        found[family.name] = list(series.values())
    return found


def add_audits(made: APIRouter, plane: Plane, audits: Audits | None) -> None:
    """Add the route that starts one; what became of it is with the jobs."""

    @made.post("/audits", **says("Audit the ledger, as a job", takes=AuditOrder, gives=Act, refuses=(404, 409)))
    async def start(request: Request, caller: Annotated[Caller, Depends(AUDITING)]) -> Response:
        asked = await parsed(request, AuditOrder)
        if audits is None:
            msg = "this admin plane has no ledger to audit"
            raise NotFound(msg)
        tenant = asked.tenant if caller.tenant == EVERY_TENANT else caller.tenant
        if asked.tenant not in {None, tenant}:
            msg = "no such tenant"
            raise NotFound(msg)
        arguments, private = audits.order(asked, tenant)
        # what an earlier audit found signed has to be there still
        remembered = plane.jobs.remembered(KIND.name, "checkpoint")
        private["notes"] += [] if remembered is None else [remembered]
        return await start_job(plane, request, caller, AUDITING, KIND, arguments, private)
