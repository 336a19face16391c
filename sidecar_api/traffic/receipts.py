"""Receipts verified as they come: signature under a pinned key, the request, and the link to the one before."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any, Final

import msgspec

from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.traffic.outcome import Decided
from tcd.errors import TcdError
from tcd.receipts import Anchor, KeySet, PinnedKey, VerifyPolicy, verify_single

#: Chains whose last record is remembered.
_CHAINS: Final = 65_536
MISSING: Final = "receipt.missing"


class Receipts:
    """Verifies the receipts of one side."""

    def __init__(self, policy: VerifyPolicy) -> None:
        """Demand `policy`."""
        self._policy = policy
        self._last: OrderedDict[tuple[str, str, str], tuple[str, Anchor]] = OrderedDict()

    @classmethod
    def of_issuer(cls, key: PinnedKey) -> Receipts:
        """Pin one key."""
        return cls(VerifyPolicy(KeySet([key])))

    def check(self, request: DiagnoseRequest, answer: Decided) -> str:
        """`ok`, or the code that the verification failed with."""
        if answer.receipt is None or answer.receipt_body is None:
            return MISSING
        sent: dict[str, Any] = msgspec.to_builtins(request)
        try:
            chain = json.loads(answer.receipt_body)["chain"]
            name, subject = str(chain["id"]), (request.tenant, request.user, request.session)
            before = self._last.get(subject)
            report = verify_single(
                answer.receipt_body,
                head=answer.receipt,
                sig=answer.receipt_sig,
                policy=self._policy,
                verify_key=answer.verify_key,
                req_obj=sent,
                comp_obj=msgspec.json.decode(answer.components),
                anchor=before[1] if before is not None and before[0] == name else None,
            )
        except (TcdError, ValueError, KeyError, TypeError) as error:
            return getattr(error, "code", "receipt.malformed")
        if report.ok:
            self._last[subject] = (name, Anchor(chain["seq"], answer.receipt))
            self._last.move_to_end(subject)
            if len(self._last) > _CHAINS:
                self._last.popitem(last=False)
        return "ok" if report.ok else report.code
