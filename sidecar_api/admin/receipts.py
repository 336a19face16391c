"""Searching receipts by subject, time, model, decision and action, within the tenant of whoever asks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from sidecar_api.admin.bodies import Name
from sidecar_api.admin.principals import EVERY_TENANT
from tcd.errors import NotFound, ValidationFailed
from tcd.ledger import Ledger
from tcd.ledger.search import ReceiptIndex

_Us = Annotated[int, Field(ge=0, le=2**63 - 1)]
_NONE: Final = "no such receipt"


class Query(BaseModel):
    """Parameters of a search; each at most once, none that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Name | None = None
    user: Name | None = None
    session: Name | None = None
    subject: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    model: Name | None = None
    typ: Annotated[str, Field(pattern=r"^[a-z]{1,16}$")] | None = None
    action: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")] | None = None
    enforced: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")] | None = None
    cause: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")] | None = None
    verdict: Literal["true", "false"] | None = None
    since_us: _Us | None = None
    until_us: _Us | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str, Field(max_length=64)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.user is None) is not (self.session is None) or (self.session is not None and self.tenant is None):
            msg = "a subject is tenant, user and session, or its digest in subject"
            raise ValueError(msg)
        if self.session is not None and self.subject is not None:
            msg = "a subject by names or by its digest, not both"
            raise ValueError(msg)
        return self


class ReceiptSearch:
    """Searches the receipts of one ledger."""

    def __init__(self, ledger: Ledger, index: ReceiptIndex, *, digest: Callable[[str, str, str], str]) -> None:
        """Search `ledger` through `index`; `digest` is the subject digest of tenant, user and session."""
        self._ledger = ledger
        self._index = index
        self._digest = digest

    def subject(self, tenant: str, user: str, session: str) -> str:
        """Digest of a subject."""
        return self._digest(tenant, user, session)

    async def search(self, asked: Query, *, tenant: str) -> dict[str, Any]:
        """A page, newest first; for a principal of one tenant only what is that tenant's.

        Raises:
            ValidationFailed: the cursor is none of ours.
        """
        before = None if asked.cursor is None else _before(asked.cursor)
        filters: dict[str, Any] = asked.model_dump(
            include={"tenant", "subject", "model", "typ", "action", "enforced", "cause"}, exclude_none=True
        )
        if asked.verdict is not None:
            filters["verdict"] = asked.verdict == "true"
        if asked.session is not None:
            filters["subject"] = self.subject(asked.tenant or "", asked.user or "", asked.session)
        size = await self._index.catch_up()
        foreign = tenant != EVERY_TENANT and filters.setdefault("tenant", tenant) != tenant
        found = (
            []
            if foreign
            else await self._index.search(
                filters, since_us=asked.since_us, until_us=asked.until_us, before=before, limit=asked.limit + 1
            )
        )
        page, more = found[: asked.limit], len(found) > asked.limit
        following = _cursor(page[-1].ts_us, page[-1].index) if more else None
        # how much there is in all is not for principals of one tenant
        indexed = size if tenant == EVERY_TENANT else None
        return {"receipts": [asdict(receipt) for receipt in page], "next": following, "indexed": indexed}

    async def get(self, head: str, *, tenant: str) -> dict[str, Any]:
        """A receipt with its body and signature; of an erased one what is left.

        Raises:
            NotFound: there is none; the same for one of another tenant.
        """
        stored = await self._ledger.get(head)
        kept = None if stored is None else stored.kept
        if stored is None or kept is None or tenant not in {EVERY_TENANT, kept.tenant}:
            raise NotFound(_NONE)
        return {
            "head": stored.head,
            "index": stored.index,
            "body": None if stored.receipt is None else stored.receipt.body.decode(),
            "erased": stored.receipt is None,
            "sig": kept.sig.hex(),
            "kid": kept.kid,
            "typ": kept.typ,
            "chain": kept.chain,
            "seq": kept.seq,
        }

    async def close(self) -> None:
        """Close the index."""
        await self._index.close()


def _cursor(ts_us: int, index: int) -> str:
    return base64.urlsafe_b64encode(ts_us.to_bytes(8, "big") + index.to_bytes(8, "big")).rstrip(b"=").decode()


def _before(cursor: str) -> tuple[int, int]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 16 or _cursor(int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")) != cursor:  # noqa: PLR2004 - two of eight
        msg = "the cursor is none of a search's answers"
        raise ValidationFailed(msg, pointer="/cursor")
    ts_us, index = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")
    return min(ts_us, 2**63 - 1), min(index, 2**63 - 1)
