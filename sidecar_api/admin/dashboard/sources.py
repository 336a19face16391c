"""What the pages read of a running shim. Bounded, and within the tenant of whoever asks: else it is not there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sidecar_api.admin.budgets import BudgetQuery, Budgets
from sidecar_api.admin.dashboard.explain import Step, step_of
from sidecar_api.admin.principals import EVERY_TENANT
from sidecar_api.admin.receipts import ReceiptSearch
from sidecar_api.http.runtime import Runtime
from sidecar_api.log.service import LogService
from sidecar_api.policing import default_ref, policy_digest
from tcd import __version__
from tcd.errors import NotFound, Unavailable
from tcd.ledger import Ledger, StoredReceipt
from tcd.ledger.search import Found, ReceiptIndex
from tcd.ledger.search_views import SearchViews
from tcd.receipts import Anchor, Receipt, Report, VerifyPolicy, verify_chain, verify_single
from tcd.receipts.verify_chain import MAX_RECORDS

#: Records of a chain that are verified together with a receipt: it and those before it.
CHAIN_CHECKED: Final = 64
_AT_ONCE: Final = 2
#: Seconds that a page waits for what has to be counted.
_COUNTING_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Verified:
    """A receipt and its neighbours, checked now.

    Attributes:
        stored: the receipt.
        body: parsed.
        single: the report about it, with its proof where a checkpoint covers it.
        chain: the report about the records that lead to it.
        records: how many these are.
        proof: `tlog-proof@v1` or None.
        seconds: what the checks took.
    """

    stored: StoredReceipt
    body: Mapping[str, Any]
    single: Report
    chain: Report
    records: int
    proof: str | None
    seconds: float


class Sources:
    """The pages' side of a shim."""

    def __init__(self, runtime: Runtime, index: ReceiptIndex, search: ReceiptSearch, budgets: Budgets) -> None:
        """Read `runtime`; receipts are found by `index` and `search`."""
        self._runtime = runtime
        self._index = index
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.views = SearchViews(index)
        self.search = search
        self.budgets = budgets

    @property
    def ledger(self) -> Ledger:
        """Of the shim."""
        return self._runtime.ledger

    @property
    def unit(self) -> str:
        """Of the hypotheses: session, request, block."""
        return self._runtime.settings.unit

    @property
    def log(self) -> LogService | None:
        """The transparency log."""
        return self._runtime.log

    async def catch_up(self) -> int:
        """Index what is new; how many receipts there are."""
        return await self._index.catch_up()

    def policy_names(self) -> dict[str, str]:
        """References of the policies in force, by digest."""
        own = policy_digest(self._runtime.settings)
        names = {own: f"{default_ref(own)} (the settings)"}
        return names | {policy.digest: policy.ref for policy in self._runtime.policies or ()}

    async def tenants(self, tenant: str, *, after: str, limit: int) -> list[str]:
        """Tenants that whoever is bound to `tenant` may see."""
        if tenant != EVERY_TENANT:
            return [tenant] if tenant > after else []
        return await self.views.tenants(after=after, limit=limit)

    def budget(self, name: str, user: str | None, *, tenant: str) -> dict[str, Any] | None:
        """A budget now; None where there is none, or it is another's."""
        try:
            return self.budgets.show(BudgetQuery(tenant=name, user=user), tenant=tenant)
        except NotFound:
            return None

    async def found(self, filters: Mapping[str, Any], *, tenant: str, limit: int, **bounds: Any) -> list[Found]:
        """Receipts as the index knows them, newest first, within the tenant."""
        bound = {} if tenant == EVERY_TENANT else {"tenant": tenant}
        if bound and filters.get("tenant", tenant) != tenant:
            return []
        return await self._index.search({**filters, **bound}, limit=limit, **bounds)

    async def steps(self, found: Sequence[Found]) -> tuple[list[Step], int]:
        """The decisions among some receipts, oldest first; and how many of them cannot be read any more."""
        out, lost = [], 0
        for one in reversed(found):
            if one.action is None:
                continue
            stored = await self.ledger.get(one.head)
            body = None if stored is None or stored.receipt is None else parsed(stored.receipt.body)
            try:
                out.append(step_of(one.head, body or {}))
            except (KeyError, TypeError, ValueError):
                lost += 1
        return out, lost

    async def receipt(self, head: str, *, tenant: str) -> StoredReceipt:
        """A receipt with its body.

        Raises:
            NotFound: there is none; the same for one of another tenant.
        """
        stored = await self.ledger.get(head)
        if stored is None or stored.receipt is None or tenant not in {EVERY_TENANT, stored.receipt.tenant}:
            msg = "no such receipt"
            raise NotFound(msg)
        return stored

    async def left(self, head: str, *, tenant: str) -> StoredReceipt | None:
        """What is left of a receipt whose body was erased; None where it is whole, another's, or nothing is."""
        stored = await self.ledger.get(head)
        if stored is None or stored.receipt is not None or stored.stub is None:
            return None
        return stored if tenant in {EVERY_TENANT, stored.stub.tenant} else None

    async def verified(self, head: str, *, tenant: str) -> Verified:
        """A receipt, verified now with the keys of this shim.

        Raises:
            NotFound: as `receipt`; receipts are off.
        """
        stored = await self.receipt(head, tenant=tenant)
        verifier, receipt = self._runtime.verifier, stored.receipt
        if verifier is None or receipt is None:
            msg = "receipts are off"
            raise NotFound(msg)
        policy = replace(verifier.policy, now_us=time.time_ns() // 1000)
        first = max(0, receipt.seq - CHAIN_CHECKED + 1)
        records = await self.ledger.chain_records(receipt.chain, first=first, limit=receipt.seq - first + 1)
        proof = await self._proof(head)
        async with self._slots:
            return await asyncio.to_thread(_verified, stored, records, proof, policy)

    async def _proof(self, head: str) -> str | None:
        if self.log is None:
            return None
        try:
            return (await self.log.proof(head)).decode()
        except (NotFound, Unavailable):
            return None

    async def bundle(self, head: str, *, tenant: str) -> bytes:
        """The chain of a receipt with proofs, for `tcd verify bundle`; waits a moment for the checkpoint.

        Raises:
            NotFound: as `receipt`; the log is off.
            Unavailable: no checkpoint covers it yet.
        """
        stored = await self.receipt(head, tenant=tenant)
        assert stored.receipt is not None  # noqa: S101 - for the type checker: `receipt` refuses others
        if self.log is None:
            msg = "the log is off: there are no proofs to bundle"
            raise NotFound(msg)
        await self.log.proof(head, wait=10.0)
        # of a longer chain the records that lead to this one
        return await self.log.bundle(head, first=max(0, stored.receipt.seq - MAX_RECORDS + 1))

    def keys(self) -> bytes:
        """The keys that verifiers pin.

        Raises:
            NotFound: the log is off.
        """
        if self.log is None:
            msg = "the log is off"
            raise NotFound(msg)
        return json.dumps(self.log.keys().to_json(), indent=1).encode() + b"\n"

    def checks(self) -> dict[str, str]:
        """Name of each readiness check to "" or why it fails."""
        return self._runtime.readiness()

    async def health(self) -> dict[str, Any]:
        """Figures of the process, the ledger and the log."""
        runtime, log = self._runtime, self._runtime.log
        try:
            stats = asdict(await asyncio.wait_for(self.ledger.stats(), _COUNTING_S))
        except asyncio.TimeoutError:
            # what would be counted is a long read: a page does not wait for it
            stats = (await self.ledger.extent())._asdict()
        newest = None if log is None else log.checkpointer.newest
        return {
            "version": __version__,
            "config_hash": runtime.settings.config_hash,
            "mode": runtime.settings.mode,
            "durable": self.ledger.durable,
            "stats": stats,
            "sessions": len(runtime.service.sessions),
            "policies": len(runtime.policies) if runtime.policies is not None else 0,
            "logged": None if newest is None else newest.size,
            "log": log is not None,
            "broken": log is not None and log.checkpointer.broken,
            "enough": newest is None or newest.enough,
            "triton": runtime.triton,
        }


def parsed(body: bytes) -> dict[str, Any] | None:
    """A stored body; None when it is no object, because somebody edited the ledger."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _verified(
    stored: StoredReceipt, records: Sequence[StoredReceipt], proof: str | None, policy: VerifyPolicy
) -> Verified:
    receipt = stored.receipt
    assert receipt is not None  # noqa: S101 - for the type checker: looked at before
    began = time.perf_counter()
    single = verify_single(receipt.body, head=stored.head, sig=receipt.sig.hex(), policy=policy, proof=proof)
    # those that lead to it without a gap: bodies before them may have been erased
    known: list[Receipt] = []
    for record in reversed(records):
        if record.receipt is None:
            break
        known.insert(0, record.receipt)
    start = None
    if known and known[0].seq:
        start = Anchor(known[0].seq - 1, known[0].prev)
    chain = verify_chain(
        [one.body for one in known],
        heads=[one.head_hex for one in known],
        sigs=[one.sig.hex() for one in known],
        policy=policy,
        start=start,
    )
    return Verified(stored, parsed(receipt.body) or {}, single, chain, len(known), proof, time.perf_counter() - began)
