"""The ledger and its log through the plane: proofs, chains, what is missing, and the signed admission of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from sidecar_api.admin.bodies import ASKED, STRICT, Reason, asked, parsed
from sidecar_api.admin.describe import says
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.tokens import Caller
from sidecar_api.http.runtime import Runtime
from tcd.errors import Conflict, NotFound
from tcd.ledger import StoredReceipt
from tcd.ledger.search import ReceiptIndex
from tcd.receipts import Anchor, VerifyPolicy, verify_chain

READING: Final = Requires("receipts:audit", everywhere=True)
REPAIRING: Final = Requires("ledger:repair", mutates=True, pair=True, everywhere=True)
_CHAIN: Final = r"^sha256:[0-9a-f]{64}$"
_PAGE: Final = 1024
_GAPS: Final = 1000
#: Chains that are verified at once, each in a thread.
_AT_ONCE: Final = 2


class ConsistencyQuery(BaseModel):
    """Two sizes of the log; the newest checkpoint's where none is given."""

    model_config = ASKED

    old: Annotated[int, Field(ge=0, le=2**53 - 1)]
    size: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None


class ChainQuery(BaseModel):
    """Which records of which chain."""

    model_config = ASKED

    chain: Annotated[str, Field(pattern=_CHAIN)]
    first: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0


class Repair(BaseModel):
    """A chain of which records are lost, and why."""

    model_config = STRICT

    chain: Annotated[str, Field(pattern=_CHAIN)]
    reason: Reason


class Proof(TypedDict):
    """`tlog-proof@v1` of a receipt under the newest checkpoint."""

    head: str
    proof: str


class Consistency(TypedDict):
    """Proof that the log of `old` leaves is the beginning of that of `size`."""

    old: int
    size: int
    path: list[str]


class ChainCheck(TypedDict):
    """What a chain's records come to: those of this page, checked as /verify does."""

    chain: str
    records: int
    closed: bool
    first: int
    checked: int
    erased: list[int]
    missing: list[list[int]]
    report: dict[str, Any] | None
    next: int | None


class GapReport(TypedDict):
    """What is not there: admitted gaps (newest first, at most 1000), and bodies that no `erase` record names."""

    gaps: list[dict[str, Any]]
    receipts: int
    bodies_erased: int
    erasures_recorded: int
    bodies_unexplained: int
    bodies_evicted: int
    heads_evicted: int


class LogArea:
    """The ledger and the log of a running shim."""

    def __init__(self, runtime: Runtime, index: ReceiptIndex) -> None:
        """Show those of `runtime`; records are found in `index`."""
        self._runtime, self._index = runtime, index
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def proof(self, head: str) -> dict[str, Any]:
        """A receipt's place in the log.

        Raises:
            NotFound: no such receipt, or no log.
            Unavailable: no checkpoint covers it yet.
        """
        if len(head) != 64 or not set(head) <= set("0123456789abcdef"):  # noqa: PLR2004 - hex of SHA-256
            msg = "no receipt of this head"
            raise NotFound(msg)
        return {"head": head, "proof": (await self._log().proof(head)).decode()}

    def _log(self) -> Any:
        log = self._runtime.log
        if log is None:
            msg = "the log is off (TCD_LOG_ENABLE)"
            raise NotFound(msg)
        return log

    async def consistency(self, old: int, size: int | None) -> dict[str, Any]:
        """One size of the log follows from another."""
        size, path = await self._log().consistency(old, size)
        return {"old": old, "size": size, "path": [item.hex() for item in path]}

    async def chain(self, chain: str, first: int) -> dict[str, Any]:
        """A page of a chain, checked by the shim's own verifier.

        Raises:
            NotFound: nothing is known of it.
        """
        ledger, verifier = self._runtime.ledger, self._runtime.verifier
        state = await ledger.chain(chain)
        if state is None or verifier is None:
            msg = "no such chain"
            raise NotFound(msg)
        async with self._slots:
            records = await ledger.chain_records(chain, first=first, limit=_PAGE)
            seqs = [record.kept.seq for record in records if record.kept is not None]
            last = seqs[-1] + 1 if seqs else first
            end = min(state.seq, first + _PAGE) if not seqs else max(last, state.seq if len(seqs) < _PAGE else last)
            kept = _unbroken(records)
            # a thousand signatures: not in the loop
            report = await asyncio.to_thread(_verified, kept, verifier.policy) if kept else None
        return {
            "chain": chain,
            "records": state.seq,
            "closed": state.closed,
            "first": first,
            "checked": len(kept),
            "erased": [r.kept.seq for r in records if r.receipt is None and r.kept is not None],
            "missing": _lost(seqs, first, end),
            "report": report,
            "next": last if len(records) == _PAGE and last < state.seq else None,
        }

    async def gaps(self) -> dict[str, Any]:
        """What is not there, admitted or not."""
        ledger = self._runtime.ledger
        await self._index.catch_up()
        found = []
        for one in await self._index.search({"typ": "gap"}, limit=_GAPS):
            stored = await ledger.get(one.head)
            if stored is not None and stored.receipt is not None:
                body = json.loads(stored.receipt.body)
                said = {"head": one.head, "index": one.index, "ts_us": one.ts_us, "tenant": one.tenant}
                found.append({**said, "chain": body["chain"]["id"], **body["gap"]})
        stats = await ledger.stats()
        # of evicted bodies it is not known any more why they are gone
        recorded = await self._index.erasures(stats.bodies_evicted)
        return {
            "gaps": found,
            "receipts": stats.receipts,
            "bodies_erased": stats.bodies_erased,
            "erasures_recorded": recorded,
            "bodies_unexplained": max(0, stats.bodies_erased - recorded),
            "bodies_evicted": stats.bodies_evicted,
            "heads_evicted": stats.heads_evicted,
        }

    async def missing(self, chain: str) -> list[list[int]]:
        """Numbers of lost records of a chain that can be repaired: first and last of each run.

        Raises:
            NotFound: nothing is known of it.
            Conflict: nothing is missing, it is closed, or somebody writes to it.
        """
        state = await self._runtime.ledger.chain(chain)
        if state is None:
            msg = "no such chain"
            raise NotFound(msg)
        receipts = self._runtime.service.judge.receipts
        live = any(s.chain is not None and s.chain.id == chain for s in self._runtime.service.sessions)
        if state.closed or live or receipts is None or receipts.writes_to(chain):
            msg = "the chain is closed, or still written to: its gap cannot be admitted in it"
            raise Conflict(msg)
        lost: list[list[int]] = []
        first = 0
        while page := await self._runtime.ledger.chain_records(chain, first=first, limit=_PAGE):
            seqs = [record.kept.seq for record in page if record.kept is not None]
            lost += _lost(seqs, first, seqs[-1] + 1)
            first = seqs[-1] + 1
        lost += _lost([], first, state.seq)
        if not lost:
            msg = "nothing of this chain is missing"
            raise Conflict(msg)
        return lost

    async def repair(self, args: Any, _: str) -> dict[str, Any]:
        """Append a signed `gap` for each run of lost records, and close the chain."""
        chain, lost = args["chain"], await self.missing(args["chain"])
        judge = self._runtime.service.judge
        state = await self._runtime.ledger.chain(chain)
        assert state is not None and judge.receipts is not None  # noqa: S101, PT018 - `missing` looked
        first = (await self._runtime.ledger.chain_records(chain, first=0, limit=1))[0]
        tenant = "-" if first.kept is None else first.kept.tenant
        made = judge.receipts.admit(state, tenant, lost, reason=args["reason"])
        await judge.put(made)
        return {"chain": chain, "missing": lost, "records": [receipt.head_hex for receipt in made]}


def _unbroken(records: Any) -> list[StoredReceipt]:
    """The longest newest stretch of consecutive whole records."""
    kept: list[StoredReceipt] = []
    for record in reversed(list(records)):
        if record.receipt is None or (kept and kept[-1].receipt.seq != record.receipt.seq + 1):  # type: ignore[union-attr] # whole ones
            break
        kept.append(record)
    return kept[::-1]


def _verified(kept: Sequence[StoredReceipt], policy: VerifyPolicy) -> dict[str, Any]:
    """What the shim's own verifier says of consecutive whole records."""
    whole = [record.receipt for record in kept if record.receipt is not None]
    start = Anchor(whole[0].seq - 1, whole[0].prev) if whole[0].seq else None
    return verify_chain(
        [r.body for r in whole],
        heads=[r.head_hex for r in whole],
        sigs=[r.sig_hex for r in whole],
        policy=policy,
        start=start,
    ).to_json()


def _lost(there: Sequence[int], first: int, end: int) -> list[list[int]]:
    """First and last of each run of numbers from `first` up to `end` that is not there; costs what is there."""
    out = []
    for number in there:
        if number > first:
            out.append([first, number - 1])
        first = number + 1
    return [*out, [first, end - 1]] if first < end else out


def add_log(made: APIRouter, plane: Plane, area: LogArea) -> None:
    """Add the routes."""

    @made.get("/ledger/proofs/{head}", **says("A receipt's inclusion proof", gives=Proof))
    async def proof(head: str, _: Annotated[Caller, Depends(READING)]) -> Response:
        return JSONResponse(await area.proof(head))

    @made.get(
        "/ledger/consistency",
        **says("Proof that the log only grew", asks=ConsistencyQuery, gives=Consistency, refuses=(404,)),
    )
    async def consistency(request: Request, _: Annotated[Caller, Depends(READING)]) -> Response:
        query = asked(request, ConsistencyQuery)
        return JSONResponse(await area.consistency(query.old, query.size))

    @made.get("/ledger/chain", **says("A chain, checked", asks=ChainQuery, gives=ChainCheck, refuses=(404,)))
    async def chain(request: Request, _: Annotated[Caller, Depends(READING)]) -> Response:
        query = asked(request, ChainQuery)
        return JSONResponse(await area.chain(query.chain, query.first))

    @made.get("/ledger/gaps", **says("What is missing, admitted or not", gives=GapReport))
    async def gaps(_: Annotated[Caller, Depends(READING)]) -> Response:
        return JSONResponse(await area.gaps())

    @made.post("/ledger:repair", **says("Propose signed gap records for a chain", takes=Repair, refuses=(404,)))
    async def repair(request: Request, caller: Annotated[Caller, Depends(REPAIRING)]) -> Response:
        args = (await parsed(request, Repair)).model_dump()
        shown = {**args, "missing": await area.missing(args["chain"])}
        digest = "sha256:" + hashlib.sha256(json.dumps(args, sort_keys=True).encode()).hexdigest()
        return await plane.mutate(request, caller, REPAIRING, Mutation("ledger.repair", digest, shown, args=args))

    plane.perform("ledger.repair", area.repair)
