"""Receipts of rewritings: one chain per tenant, durable before the answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import Final

from sidecar_api.cutoff import Cutoff
from sidecar_api.rewrite_schemas import RewriteRequest
from sidecar_api.settle import Judge
from sidecar_api.subjects import Subjects
from tcd.errors import TcdError
from tcd.receipts import ChainState, Receipt, records
from tcd.spotlight import Outcome
from tcd.trust import Rewriting

#: Tenants with an open chain; the one that was longest unused is closed for another.
_CHAINS: Final = 1024


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class RewriteRecords:
    """Writes what was done to requests into the log."""

    def __init__(self, judge: Judge, subjects: Subjects) -> None:
        """Write through `judge`, who has the issuer and the ledger."""
        self._judge, self._subjects = judge, subjects
        self._chains: OrderedDict[str, ChainState] = OrderedDict()

    @property
    def verify_key(self) -> str | None:
        """Public key of the receipts, a hint for whoever looks for it among the pinned ones."""
        receipts = self._judge.receipts
        return None if receipts is None else receipts.issuer.verify_key_hex

    async def keep(
        self, request: RewriteRequest, outcome: Outcome, rules: Rewriting, *, before: bytes, seconds: float
    ) -> Receipt | None:
        """The receipt of a rewriting, durable; None when it did not become so in time, or receipts are off."""
        receipts, tenant = self._judge.receipts, request.tenant
        if receipts is None or not rules.receipt:
            return None
        members = records.rewrite_members(
            subject=self._subjects.subject(tenant, request.user, request.session),
            model=records.Model(request.model_id, request.gpu_id, request.task, request.lang),
            outcome=outcome.digest,
            before=_digest(before),
            after=_digest(outcome.body),
            rewritten=outcome.body_rewritten,
            shadow=outcome.shadow_mode,
            marking=outcome.marking,
            zones=outcome.zones_marked,
            delta=outcome.byte_delta_total,
            failures=outcome.failures,
        )
        made = receipts.rewriting(
            self._chains.get(tenant), tenant, members, config=receipts.config, policy=rules.digest
        )
        self._chains[tenant] = made[-1].next()
        self._chains.move_to_end(tenant)
        if len(self._chains) > _CHAINS:
            old, state = self._chains.popitem(last=False)
            made = (*made, receipts.finish(state, old))
        done = self._judge.put(made, lost=lambda: self._forget(tenant))
        try:
            with Cutoff(asyncio.get_running_loop().time() + seconds, "the receipt is not durable in time"):
                await asyncio.shield(done)
        except TcdError:
            return None
        return made[-1] if made[-1].typ == "rewrite" else made[-2]

    def _forget(self, tenant: str) -> None:
        self._chains.pop(tenant, None)
