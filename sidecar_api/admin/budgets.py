"""What the plane shows of budgets and of the ledger."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from sidecar_api.admin.bodies import Name
from sidecar_api.admin.principals import EVERY_TENANT
from sidecar_api.http.runtime import Runtime
from tcd.errors import NotFound

_NONE: Final = "no such budget"
#: Members of a view that are of the library's inside.
_INSIDE: Final = frozenset({"snapshot"})


class BudgetQuery(BaseModel):
    """Whose budget: a tenant's, or a user's where users have their own (`unit=request`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Name
    user: Name | None = None


class Budgets:
    """Budgets and the ledger of a running shim."""

    def __init__(self, runtime: Runtime) -> None:
        """Show those of `runtime`."""
        self._runtime = runtime

    def show(self, asked: BudgetQuery, *, tenant: str) -> dict[str, Any]:
        """A stream as of now.

        Raises:
            NotFound: there is none; the same for one of another tenant.
        """
        service = self._runtime.service
        subjects, budget = service.subjects, service.judge.budget
        per_user = self._runtime.settings.unit == "request"
        if tenant not in {EVERY_TENANT, asked.tenant} or (asked.user is not None) is not per_user:
            raise NotFound(_NONE)
        stream = subjects.tenant(asked.tenant) if asked.user is None else subjects.user(asked.tenant, asked.user)
        if not budget.controller.knows(stream):
            raise NotFound(_NONE)
        view = {name: _finite(value) for name, value in asdict(budget.view(stream)).items() if name not in _INSIDE}
        return {"tenant": asked.tenant, "user": asked.user, "unit": self._runtime.settings.unit, **view}

    async def ledger(self) -> dict[str, Any]:
        """How much is kept, and the newest checkpoint."""
        ledger = self._runtime.ledger
        newest = await ledger.checkpoint()
        said = None
        if newest is not None:
            said = {"size": newest.size, "root": newest.root.hex(), "note": newest.note.decode()}
        return {"durable": ledger.durable, **asdict(await ledger.stats()), "checkpoint": said}


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
