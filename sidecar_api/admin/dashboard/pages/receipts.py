"""Receipts: searched, shown and verified, handed out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from sidecar_api.admin.dashboard import explain, figures, meanings
from sidecar_api.admin.dashboard.forms import asked, moment_us
from sidecar_api.admin.dashboard.gates import viewer_of
from sidecar_api.admin.dashboard.pages.frame import Frame
from sidecar_api.admin.dashboard.rendering import download
from sidecar_api.admin.dashboard.sources import Sources
from sidecar_api.admin.receipts import Query
from tcd.errors import NotFound
from tcd.receipts.members import TYPES

_PAGE: Final = 50
_HEAD: Final = re.compile(r"[0-9a-f]{64}")


class ReceiptPages:
    """Receipts."""

    def __init__(self, frame: Frame, sources: Sources) -> None:
        """Show `sources`."""
        self._frame = frame
        self._sources = sources

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
        return self._frame.show(
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
            return self._frame.show(request, "erased.html", here="receipts", head=head, left=left, stub=left.stub)
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
        return self._frame.show(
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
