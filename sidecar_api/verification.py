"""/verify: a request to a report, and what the shim's own log still has of what was verified.

Long work goes to a thread, a few at a time. The log is only asked about what is shown to be a receipt of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import msgspec

from sidecar_api import kept_bodies
from sidecar_api.schemas import AnchorIn, BodiesKept, DiagnoseRequest, VerifyRequest
from tcd.errors import TcdError, Unavailable, ValidationFailed
from tcd.ledger import Ledger
from tcd.receipts import Anchor, Report, VerifyPolicy, verify_chain, verify_single
from tcd.receipts.erasure import ErasedBody
from tcd.receipts.verify_erased import verify_erased

#: Bytes up to which a verification runs in the event loop (under a millisecond).
_SMALL = 32_768
_AT_ONCE = 2
_WAITING = 64
_HEAD = 64
_HEX = frozenset("0123456789abcdef")


def canonical_request(value: dict[str, Any]) -> dict[str, Any]:
    """A request object as receipts digest it: validated, with every default filled in.

    What is no request is handed back as it is: it will not be concordant.
    """
    try:
        request = msgspec.convert(value, DiagnoseRequest, strict=True)
    except msgspec.ValidationError:
        return value
    out: dict[str, Any] = msgspec.to_builtins(request)
    return out


@dataclass(frozen=True, slots=True)
class Verified:
    """A report, and what the shim's log has of the bodies; None where that was not asked or cannot be read."""

    report: Report
    bodies: BodiesKept | None = None

    def to_json(self) -> dict[str, Any]:
        """The answer of /verify."""
        out = self.report.to_json()
        if self.bodies is not None:
            out["bodies"] = msgspec.to_builtins(self.bodies)
        return out


class Verifier:
    """Verifies against one policy, which may be replaced by a newer one.

    Attributes:
        policy: pinned keys of receipts and of the log, and what is demanded.
    """

    def __init__(self, policy: VerifyPolicy, *, now_us: Callable[[], int], ledger: Ledger | None = None) -> None:
        """Demand `policy`; receipts from the future of `now_us` are refused; `ledger` says which bodies are erased."""
        self.policy = policy
        self._ledger = ledger
        self._now_us = now_us
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def verify(self, request: VerifyRequest, size: int) -> Verified:
        """The report of a request of `size` bytes.

        Raises:
            ValidationFailed: neither one receipt nor a chain, or both.
            InvalidRequest, TooLarge: the chain's arrays do not fit, or are too long.
            Unavailable: too many long verifications wait.
        """
        report = await self._erased(request, size) or await self._timely(self._work(request), size)
        return Verified(report, await self._bodies(request, report))

    async def _timely(self, work: Callable[[], Report], size: int) -> Report:
        if size <= _SMALL:
            return work()
        if self._waiting >= _WAITING:
            msg = "too many verifications wait"
            raise Unavailable(msg, retry_after=1.0)
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1

    async def _erased(self, request: VerifyRequest, size: int) -> Report | None:
        """The report of a receipt that was shown by head and signature, where the log has erased its body.

        None for everything else, so that who cannot show the signature is answered as if the receipt were not there.
        """
        head, sig = request.receipt_head_hex, request.receipt_sig_hex
        if self._ledger is None or request != VerifyRequest(
            receipt_head_hex=head, receipt_sig_hex=sig, proof=request.proof
        ):
            return None
        if sig is None or not _is_head(head):
            return None
        try:
            found = await self._ledger.get(head)
        except TcdError:
            return None
        stub = None if found is None or found.receipt is not None else found.stub
        key = None if stub is None else self.policy.keys.get(stub.kid)
        if stub is None or key is None:
            return None
        body = ErasedBody(stub.kid, key.alg, key.origin, stub.tenant)
        policy = self.policy
        report = await self._timely(
            lambda: verify_erased(body, head=head, sig=sig, policy=policy, proof=request.proof), size
        )
        return report if report.trust == "server" else None

    async def _bodies(self, request: VerifyRequest, report: Report) -> BodiesKept | None:
        if self._ledger is None:
            return None
        if request.heads is None:
            head = request.receipt_head_hex
            if report.trust == "server" and _is_head(head):
                return await kept_bodies.of_receipt(self._ledger, head)
            return None
        if not (report.ok and request.bodies):
            return None
        return await kept_bodies.of_chain(self._ledger, request.bodies[0], request.heads)

    def _work(self, request: VerifyRequest) -> Callable[[], Report]:
        policy = replace(self.policy, now_us=self._now_us())
        chain = request.heads is not None or request.bodies is not None
        single = request.receipt_head_hex is not None or request.receipt_body_json is not None
        if chain is single:
            msg = "give one receipt (receipt_head_hex, receipt_body_json) or a chain (heads, bodies)"
            raise ValidationFailed(msg, pointer="")
        if chain:
            return lambda: _chain(request, policy)
        for name in ("receipt_head_hex", "receipt_body_json"):
            if getattr(request, name) is None:
                msg = "missing"
                raise ValidationFailed(msg, pointer=f"/{name}")
        return lambda: _single(request, policy)


def _is_head(text: str | None) -> TypeGuard[str]:
    return text is not None and len(text) == _HEAD and set(text) <= _HEX


def _single(request: VerifyRequest, policy: VerifyPolicy) -> Report:
    segments = request.witness_segments
    return verify_single(
        request.receipt_body_json or "",
        head=request.receipt_head_hex or "",
        sig=request.receipt_sig_hex,
        policy=policy,
        verify_key=request.verify_key_hex,
        req_obj=canonical_request(request.req_obj) if request.req_obj is not None else None,
        comp_obj=request.comp_obj,
        e_obj=request.e_obj,
        witness_segments=[msgspec.to_builtins(s) for s in segments] if segments is not None else None,
        previous=request.previous_body_json,
        terms=request.terms,
        proof=request.proof,
    )


def _anchor(value: AnchorIn | None) -> Anchor | None:
    return None if value is None else Anchor(value.seq, value.head)


def _chain(request: VerifyRequest, policy: VerifyPolicy) -> Report:
    return verify_chain(
        request.bodies or [],
        heads=request.heads or [],
        sigs=request.sigs,
        proofs=request.proofs,
        policy=policy,
        start=_anchor(request.start),
        end=_anchor(request.end),
    )
