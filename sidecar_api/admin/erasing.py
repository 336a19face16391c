"""Erasure of receipts' bodies, by subject or by age, while proofs, chains and checkpoints stay valid.

Only records that name a subject lose their bodies: decisions, rewritings, and the opening of a session. Position, head,
signature and place in the chain stay, and an `erase` record commits together with the erasure and names the leaves.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, model_validator
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import Self

from sidecar_api.admin.bodies import STRICT, Name, parsed
from sidecar_api.admin.describe import says
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.sealing import NONCE, opened, sealed
from sidecar_api.admin.tokens import Caller
from sidecar_api.http.runtime import Runtime
from sidecar_api.subjects import Subjects
from tcd.errors import Conflict, TcdError
from tcd.ledger.search import Erasable, ReceiptIndex
from tcd.receipts.erasure import MAX_RUNS, runs

ERASING: Final = Requires("receipts:erase", mutates=True, pair=True, everywhere=True)
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
#: Bodies that go in one transaction.
_AT_ONCE: Final = 2000
#: Shown to the second person at most; beyond it the number is a lower bound.
_COUNTED: Final = 100_000
#: Heads of `erase` records in an answer at most.
_SHOWN: Final = 100


class Session(BaseModel):
    """A subject by its names."""

    model_config = STRICT

    tenant: Name
    user: Name
    session: Name


class Erase(BaseModel):
    """Whose bodies go (`sessions` by names, `subjects` by digest), or which: all of before a time, of one tenant."""

    model_config = STRICT

    sessions: Annotated[tuple[Session, ...], Field(max_length=256, strict=False)] = ()
    subjects: Annotated[tuple[_Digest, ...], Field(max_length=256, strict=False)] = ()
    before_us: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = None
    tenant: Name | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        named = bool(self.sessions or self.subjects)
        if named is (self.before_us is not None) or (named and self.tenant is not None):
            msg = "either sessions and subjects, or before_us, which may be one tenant's"
            raise ValueError(msg)
        return self


class EraseArea:
    """Erasure in a running shim."""

    def __init__(self, runtime: Runtime, index: ReceiptIndex) -> None:
        """Erase in the ledger of `runtime`, found in `index`."""
        self._runtime, self._index = runtime, index
        self._one = asyncio.Lock()

    def without_names(self, wanted: Erase) -> dict[str, Any]:
        """What a proposal keeps: digests in place of names."""
        subject = self._runtime.service.subjects.subject
        named = [subject(s.tenant, s.user, s.session) for s in wanted.sessions]
        return {
            "sessions": [],
            "subjects": sorted({*named, *wanted.subjects}),
            "before_us": wanted.before_us,
            "tenant": wanted.tenant,
        }

    def _wanted(self, args: Any) -> Erasable:
        # proposals of earlier versions have names
        subject = self._runtime.service.subjects.subject
        digests = [subject(s["tenant"], s["user"], s["session"]) for s in args["sessions"]] + list(args["subjects"])
        return Erasable(tuple(digests) if digests else None, args["before_us"], args["tenant"])

    def with_names(self, args: dict[str, Any], wanted: Erase, nonce: bytes) -> dict[str, Any]:
        """What a proposal keeps, and who was named, sealed: for the second person while it waits."""
        if not wanted.sessions:
            return args
        names = [one.model_dump() for one in wanted.sessions]
        return {**args, "names": sealed(self._runtime.service.subjects, names, about=_object(args), nonce=nonce)}

    def whom(self, args: Any) -> dict[str, Any]:
        """Whom a proposal is about: every digest, and the names of those that were named.

        Raises:
            Conflict: the names are not those of the digests.
        """
        rest = {name: value for name, value in args.items() if name != "names"}
        subjects = self._runtime.service.subjects
        known = _names(subjects, args.get("names"), about=_object(rest))
        named = [{**one, "subject": subjects.subject(one["tenant"], one["user"], one["session"])} for one in known]
        if not {one["subject"] for one in named} <= set(args["subjects"]):
            msg = "the names are not those of what would be erased"
            raise Conflict(msg)
        return {**rest, "named": named, "readable": bool(known) or "names" not in args}

    async def look(self, args: Any) -> dict[str, Any]:
        """What would go: how many bodies, of how many runs of leaves.

        Raises:
            Conflict: nothing is there to erase.
        """
        wanted = self._wanted(args)
        await self._index.catch_up()
        found = await self._index.erasable(wanted, limit=_COUNTED)
        if not found:
            msg = "no body is there to erase"
            raise Conflict(msg)
        told = {"bodies": len(found), "all_counted": len(found) < _COUNTED}
        return {**told, "first_leaf": found[0][0], "last_leaf": found[-1][0]}

    async def erase(self, args: Any, actors: str) -> dict[str, Any]:
        """Erase, page by page: each with its record, durably; then overwrite what the files still have.

        What is gone is gone: where the files cannot be overwritten now, the answer is `scrubbed: false` and says why.
        The next start of a SQLite ledger and the next erasure do it again.
        """
        runtime = self._runtime
        receipts, judge = runtime.service.judge.receipts, runtime.service.judge
        assert receipts is not None  # noqa: S101 - the plane is not made without
        wanted, reason = self._wanted(args), "subject" if args["before_us"] is None else "age"
        gone, last = 0, -1
        heads: list[str] = []
        # two at once would both name what both are about
        async with self._one:
            await self._index.catch_up()
            while found := await self._index.erasable(wanted, after=last, limit=_AT_ONCE):
                page = _fitting(found)
                places = [place for place, _ in page]
                made = receipts.erased(actor=actors, reason=reason, places=places, heads=[head for _, head in page])
                await judge.put(made, erase=tuple(places))
                gone, last = gone + len(places), places[-1]
                if len(heads) < _SHOWN:
                    heads.append(made[1].head_hex)
            left = await self._scrub()
        return {"erased": gone, "records": heads, "scrubbed": not left, **({"why": left} if left else {})}

    async def _scrub(self) -> list[str]:
        """Overwrite; why not, for each place where that failed."""
        why = []
        # the index reads the records that were just written, and forgets; each is tried whatever becomes of the others
        for overwrite in (self._index.catch_up, self._runtime.ledger.scrub, self._index.scrub):
            try:
                await overwrite()
            except TcdError as error:  # noqa: PERF203 - three at most
                why.append(error.detail)
        return why


def _fitting(found: Sequence[tuple[int, bytes]]) -> Sequence[tuple[int, bytes]]:
    """As many as one record can name."""
    every = runs([place for place, _ in found])
    return found[: sum(count for _, count in every[:MAX_RUNS])]


def _names(subjects: Subjects, text: str | None, *, about: str) -> list[dict[str, str]]:
    """Who was named; nobody where none was, or the names cannot be read here."""
    found = None if text is None else opened(subjects, text, about=about)
    return [] if found is None else [Session.model_validate(one).model_dump() for one in found]


def _object(args: Any) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(args, sort_keys=True).encode()).hexdigest()


def add_erasing(made: APIRouter, plane: Plane, area: EraseArea) -> None:
    """Add the route."""

    @made.post("/receipts:erase", **says("Propose to erase bodies of receipts", takes=Erase))
    async def erase(request: Request, caller: Annotated[Caller, Depends(ERASING)]) -> Response:
        wanted = await parsed(request, Erase)
        args = area.without_names(wanted)
        # answers are kept for a day: of who was named they only have how many
        told = {"sessions": len(wanted.sessions), "subjects": wanted.subjects}
        found = await area.look(args)
        shown = {**args, "sessions": len(wanted.sessions), **found}
        kept = area.with_names(args, wanted, plane.random(NONCE))
        mutation = Mutation("receipts.erase", _object(args), shown, args=kept, told={**args, **told, **found})
        return await plane.mutate(request, caller, ERASING, mutation)

    plane.perform("receipts.erase", area.erase)
    plane.reveal("receipts.erase", area.whom)
