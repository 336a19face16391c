"""Decisions over time, and their scores beside what the calibration promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from sidecar_api.admin.dashboard import figures
from sidecar_api.admin.dashboard.forms import asked
from sidecar_api.admin.dashboard.gates import viewer_of
from sidecar_api.admin.dashboard.pages.frame import MOST_READ, STRICT, US, Frame, Name, bound, may_see
from sidecar_api.admin.dashboard.sources import Sources
from sidecar_api.admin.plane import Plane
from tcd.ledger.search_views import Count

_HOUR: Final = 3600
WINDOWS: Final[Mapping[str, tuple[int, str]]] = {
    "1h": (_HOUR, "the last hour"),
    "24h": (24 * _HOUR, "the last 24 hours"),
    "7d": (7 * 24 * _HOUR, "the last 7 days"),
    "30d": (30 * 24 * _HOUR, "the last 30 days"),
}
BINS: Final = 60


class TriggerQuery(BaseModel):
    """Parameters of the triggers."""

    model_config = STRICT
    window: Literal["1h", "24h", "7d", "30d"] = "24h"
    tenant: Name | None = None


class ScoreQuery(BaseModel):
    """Parameters of the scores."""

    model_config = STRICT
    model: Name | None = None
    tenant: Name | None = None


class DecisionPages:
    """Triggers and scores."""

    def __init__(self, frame: Frame, sources: Sources, plane: Plane) -> None:
        """Show `sources`, by the clock of `plane`."""
        self._frame = frame
        self._sources = sources
        self._plane = plane

    async def triggers(self, request: Request) -> Response:
        """Decisions over time."""
        viewer, query = viewer_of(request), asked(request, TriggerQuery)
        await self._sources.catch_up()
        seconds, name = WINDOWS[query.window]
        until = int(self._plane.now() * US) + US
        since = until - seconds * US
        tenant = bound(viewer) or query.tenant
        counts: list[Count] = []
        whole = True
        if may_see(viewer, query.tenant):
            counts, whole = await self._sources.views.counts(tenant=tenant, since_us=since, until_us=until, bins=BINS)
        enforced, decided, causes = Counter[str](), Counter[str](), Counter[str]()
        for count in counts:
            enforced[count.enforced] += count.count
            decided[count.action] += count.count
            causes[count.cause or "none"] += count.count
        span = {"since_us": since, "until_us": until, "bins": BINS}
        asked_for = frozenset(figures.ORDER) - {"allow"}
        return self._frame.show(
            request,
            "triggers.html",
            here="triggers",
            query=query,
            windows=WINDOWS,
            name=name,
            whole=whole,
            total=sum(enforced.values()),
            legend=figures.legend(enforced),
            decided=decided,
            causes=sorted(causes.items(), key=lambda item: -item[1]),
            verdicts=sum(count.count for count in counts if count.verdict),
            some=figures.triggers(counts, only=asked_for, title="Interventions", **span),
            all=figures.triggers(counts, only=frozenset(figures.ORDER), title="All decisions", **span),
        )

    async def scores(self, request: Request) -> Response:
        """Scores and p-values beside what the calibration promises."""
        viewer, sources, query = viewer_of(request), self._sources, asked(request, ScoreQuery)
        await sources.catch_up()
        filters = {"typ": "decision", **query.model_dump(exclude_none=True)}
        found = await sources.found(filters, tenant=viewer.tenant, limit=MOST_READ)
        steps, lost = await sources.steps(found)
        tested = [step for step in steps if step.unit != "none"]
        last = {step.chain: step for step in tested}
        rows = []
        for name in sorted({name for step in steps for name in step.components}):
            values = [step.components[name] for step in steps if name in step.components]
            rows.append((name, len(values), *_shares([p for _, _, p, _ in values]), [z for *_, z in values]))
        p = [step.p for step in last.values()]
        return self._frame.show(
            request,
            "scores.html",
            here="scores",
            query=query,
            read=len(steps),
            lost=lost,
            sessions=len(p),
            shares=_shares(p),
            components=[(*row[:4], min(row[4]), max(row[4])) for row in rows],
            floors=sorted({step.p_floor for step in last.values()}),
            distribution=figures.distribution(p, max(step.p_floor for step in last.values())) if p else None,
            scores=figures.scores([step.score for step in steps], steps[-1].threshold) if steps else None,
        )


def _shares(p: list[float]) -> tuple[float, float]:
    """Shares of p-values of at most .05 and .01."""
    return tuple(sum(value <= bound for value in p) / len(p) if p else 0.0 for bound in (0.05, 0.01))  # type: ignore[return-value]
