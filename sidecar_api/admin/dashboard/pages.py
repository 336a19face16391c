"""The pages: what each of them shows, from the sources to a template. They only read."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from sidecar_api.admin.dashboard import explain, figures, meanings
from sidecar_api.admin.dashboard.browsers import READING, Viewer
from sidecar_api.admin.dashboard.forms import asked, moment_us
from sidecar_api.admin.dashboard.gates import viewer_of
from sidecar_api.admin.dashboard.rendering import BASE, HEADERS, Renderer, download
from sidecar_api.admin.dashboard.sources import Sources
from sidecar_api.admin.job_routes import MEDIA, REPORT_POLICY
from sidecar_api.admin.plane import Plane
from sidecar_api.admin.principals import EVERY_TENANT
from sidecar_api.admin.receipts import Query
from tcd.errors import NotFound, TcdError
from tcd.ledger.search import Found
from tcd.ledger.search_views import MOST_GROUPED, Count
from tcd.receipts.body import TYPES

_US: Final = 1_000_000
_HOUR: Final = 3600
WINDOWS: Final[Mapping[str, tuple[int, str]]] = {
    "1h": (_HOUR, "the last hour"),
    "24h": (24 * _HOUR, "the last 24 hours"),
    "7d": (7 * 24 * _HOUR, "the last 7 days"),
    "30d": (30 * 24 * _HOUR, "the last 30 days"),
}
BINS: Final = 60
#: Decisions whose bodies a page reads, at most.
MOST_READ: Final = 500
_PAGE: Final = 50
_TENANTS: Final = 20
#: Characters of JSON that a page shows.
_SHOWN: Final = 20_000
_BLOCKED: Final = 12
_HEAD: Final = re.compile(r"[0-9a-f]{64}")
_SUBJECT: Final = re.compile(r"sha256:[0-9a-f]{64}")
_Name = Annotated[str, Field(min_length=1, max_length=128)]
_STRICT: Final = ConfigDict(frozen=True, extra="forbid")


class TriggerQuery(BaseModel):
    """Parameters of the triggers."""

    model_config = _STRICT
    window: Literal["1h", "24h", "7d", "30d"] = "24h"
    tenant: _Name | None = None


class BudgetPage(BaseModel):
    """Parameters of the budgets."""

    model_config = _STRICT
    tenant: _Name | None = None
    user: _Name | None = None
    after: Annotated[str, Field(max_length=128)] = ""


class ScoreQuery(BaseModel):
    """Parameters of the scores."""

    model_config = _STRICT
    model: _Name | None = None
    tenant: _Name | None = None


class SessionNames(BaseModel):
    """A session by its names."""

    model_config = _STRICT
    tenant: _Name
    user: _Name
    session: _Name


class GenerationQuery(BaseModel):
    """Which generation of a session."""

    model_config = _STRICT
    chain: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None


class Pages:
    """Every page of the dashboard."""

    def __init__(self, plane: Plane, sources: Sources, renderer: Renderer) -> None:
        """Show `sources` to principals of `plane`."""
        self._plane = plane
        self._sources = sources
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
            now_us=int(self._plane.now() * _US),
            **values,
        )

    # -- overview ---------------------------------------------------------------------------------------------

    async def overview(self, request: Request) -> Response:
        """What is going on: newest blocked sessions, counts, budgets, health."""
        viewer, sources = viewer_of(request), self._sources
        blocked, counts, whole, size = [], Counter[str](), True, None
        if "receipts:read" in viewer.scopes:
            size = await sources.catch_up()
            tenant = _bound(viewer)
            blocked = await sources.views.sessions(tenant=tenant, enforced="block", limit=_BLOCKED)
            until = int(self._plane.now() * _US)
            found, whole = await sources.views.counts(
                tenant=tenant, since_us=until - 24 * _HOUR * _US, until_us=until + _US, bins=1, most=MOST_GROUPED
            )
            for count in found:
                counts[count.enforced] += count.count
        budgets = await self._budgets(viewer, after="") if "alpha:read" in viewer.scopes else []
        return self.show(
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

    async def _budgets(self, viewer: Viewer, *, after: str) -> list[dict[str, Any]]:
        names = await self._sources.tenants(viewer.tenant, after=after, limit=_TENANTS)
        found = (self._sources.budget(name, None, tenant=viewer.tenant) for name in names)
        return [budget for budget in found if budget is not None]

    # -- budgets ----------------------------------------------------------------------------------------------

    async def budgets(self, request: Request) -> Response:
        """Budgets of tenants, and of one its course."""
        viewer, sources, query = viewer_of(request), self._sources, asked(request, BudgetPage)
        await sources.catch_up()
        if query.tenant is not None:
            return await self._budget(request, viewer, query)
        names = await sources.tenants(viewer.tenant, after=query.after, limit=_TENANTS + 1)
        rows = [(name, sources.budget(name, None, tenant=viewer.tenant)) for name in names[:_TENANTS]]
        more = names[_TENANTS - 1] if len(names) > _TENANTS else None
        return self.show(
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
        return self.show(
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

    # -- triggers and scores ----------------------------------------------------------------------------------

    async def triggers(self, request: Request) -> Response:
        """Decisions over time."""
        viewer, query = viewer_of(request), asked(request, TriggerQuery)
        await self._sources.catch_up()
        seconds, name = WINDOWS[query.window]
        until = int(self._plane.now() * _US) + _US
        since = until - seconds * _US
        tenant = _bound(viewer) or query.tenant
        counts: list[Count] = []
        whole = True
        if _may(viewer, query.tenant):
            counts, whole = await self._sources.views.counts(tenant=tenant, since_us=since, until_us=until, bins=BINS)
        enforced, decided, causes = Counter[str](), Counter[str](), Counter[str]()
        for count in counts:
            enforced[count.enforced] += count.count
            decided[count.action] += count.count
            causes[count.cause or "none"] += count.count
        span = {"since_us": since, "until_us": until, "bins": BINS}
        asked_for = frozenset(figures.ORDER) - {"allow"}
        return self.show(
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
        return self.show(
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

    # -- receipts ---------------------------------------------------------------------------------------------

    async def receipts(self, request: Request) -> Response:
        """Search, page by page."""
        viewer = viewer_of(request)
        given = {name: value for name, value in request.query_params.items() if value}
        times = {}
        for name in ("since", "until"):
            text = given.pop(name, None)
            if text is not None:
                times[f"{name}_us"] = str(moment_us(text, name))
        query = asked(request, Query, {"limit": str(_PAGE), **given, **times})
        page = await self._sources.search.search(query, tenant=viewer.tenant)
        kept = {name: value for name, value in request.query_params.items() if value and name != "cursor"}
        return self.show(
            request,
            "receipts.html",
            here="receipts",
            page=page,
            kept=kept,
            first=query.cursor is None,
            actions=figures.ORDER,
            causes=("av", "detector", "policy", "budget", "degraded", "trust", "slo"),
            types=TYPES,
        )

    async def receipt(self, request: Request) -> Response:
        """A receipt, verified now."""
        viewer, sources = viewer_of(request), self._sources
        head = _head(request)
        left = await sources.left(head, tenant=viewer.tenant)
        if left is not None:
            return self.show(request, "erased.html", here="receipts", head=head, left=left, stub=left.stub)
        verified = await sources.verified(head, tenant=viewer.tenant)
        body, receipt = verified.body, verified.stored.receipt
        assert receipt is not None  # noqa: S101 - for the type checker: it was verified
        step = None
        if body.get("typ") == "decision":
            try:
                step = explain.step_of(head, body)
            except (KeyError, TypeError, ValueError):
                step = None
        before, after = await self._neighbours(receipt.chain, receipt.seq)
        return self.show(
            request,
            "receipt.html",
            here="receipts",
            head=head,
            v=verified,
            receipt=receipt,
            subject=_subject(body),
            step=step,
            headline=explain.headline(step) if step else None,
            single=[check for check in verified.single.checks if check.status != "absent"],
            chain=[check for check in verified.chain.checks if check.status != "absent"],
            meanings=meanings,
            before=before,
            after=after,
            policy=explain.policy_name(str(body.get("policy", "")), sources.policy_names()),
            text=json.dumps(body, indent=2, ensure_ascii=False),
        )

    async def _neighbours(self, chain: str, seq: int) -> tuple[str | None, str | None]:
        first = max(0, seq - 1)
        records = await self._sources.ledger.chain_records(chain, first=first, limit=seq - first + 2)
        heads = {first + i: record.head for i, record in enumerate(records)}
        return (heads.get(seq - 1) if seq else None), heads.get(seq + 1)

    async def body(self, request: Request) -> Response:
        """The receipt as `tcd verify receipt` takes it."""
        head = _head(request)
        stored = await self._sources.receipt(head, tenant=viewer_of(request).tenant)
        receipt = stored.receipt
        assert receipt is not None  # noqa: S101 - for the type checker: `receipt` refuses others
        members = {
            "receipt_head_hex": head,
            "receipt_body_json": receipt.body.decode(errors="replace"),
            "receipt_sig_hex": receipt.sig_hex,
        }
        return download(json.dumps(members, indent=1).encode() + b"\n", f"receipt-{head[:16]}.json")

    async def bundle(self, request: Request) -> Response:
        """The chain with its proofs, as `tcd verify bundle` takes it."""
        head = _head(request)
        content = await self._sources.bundle(head, tenant=viewer_of(request).tenant)
        return download(content, f"bundle-{head[:16]}.json")

    async def keys(self, request: Request) -> Response:
        """The keys that verifiers pin."""
        del request
        return download(self._sources.keys(), "keyset.json")

    # -- sessions ---------------------------------------------------------------------------------------------

    async def named(self, request: Request) -> Response:
        """From the names of a session to its page."""
        query = asked(request, SessionNames)
        if not _may(viewer_of(request), query.tenant):
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
        return self.show(
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

    # -- the plane itself -------------------------------------------------------------------------------------

    async def approvals(self, request: Request) -> Response:
        """What waits for a second principal."""
        waiting = await self._plane.approvals.seen_by(viewer_of(request).caller)
        rows = [
            (proposal, json.dumps(proposal.shown, indent=2, ensure_ascii=False)[:_SHOWN], int(proposal.until * _US))
            for proposal in waiting
        ]
        return self.show(request, "approvals.html", here="approvals", rows=rows)

    async def jobs(self, request: Request) -> Response:
        """Audits, replays and calibrations, newest first."""
        found = self._plane.jobs.list(viewer_of(request).caller)
        return self.show(request, "jobs.html", here="jobs", jobs=found)

    async def job(self, request: Request) -> Response:
        """One of them, with its result and files."""
        job = self._plane.jobs.get(request.path_params["identifier"], viewer_of(request).caller)
        result = "" if job.result is None else json.dumps(job.result, indent=2, ensure_ascii=False)[:_SHOWN]
        return self.show(
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
        return self.show(
            request,
            "health.html",
            here="health",
            checks=self._sources.checks(),
            health=figures_,
            stats=figures_["stats"],
            indexed=size,
            took=(time.perf_counter() - began) * 1000,
        )

    async def missing(self, request: Request) -> Response:
        """What is not there."""
        del request
        msg = "no such page"
        raise NotFound(msg)

    # -- signing in -------------------------------------------------------------------------------------------

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


def _bound(viewer: Viewer) -> str | None:
    return None if viewer.tenant == EVERY_TENANT else viewer.tenant


def _may(viewer: Viewer, tenant: str | None) -> bool:
    return tenant is None or viewer.tenant in {EVERY_TENANT, tenant}


def _head(request: Request) -> str:
    head: str = request.path_params["head"]
    if _HEAD.fullmatch(head) is None:
        msg = "no such receipt"
        raise NotFound(msg)
    return head


def _subject(body: Mapping[str, Any]) -> str | None:
    opened = body.get("open")
    found = body.get("subject") or (opened.get("subject") if isinstance(opened, dict) else None)
    return found if isinstance(found, str) else None


def _shares(p: list[float]) -> tuple[float, float]:
    """Shares of p-values of at most .05 and .01."""
    return tuple(sum(value <= bound for value in p) / len(p) if p else 0.0 for bound in (0.05, 0.01))  # type: ignore[return-value]


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
