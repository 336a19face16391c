"""/verify: a request to a report. Pure but for the clock; long work goes to a thread, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from sidecar_api.schemas import AnchorIn, DiagnoseRequest, VerifyRequest
from tcd.errors import Unavailable, ValidationFailed
from tcd.receipts import Anchor, Report, VerifyPolicy, verify_chain, verify_single

#: Bytes up to which a verification runs in the event loop (under a millisecond).
_SMALL = 32_768
_AT_ONCE = 2
_WAITING = 64


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


class Verifier:
    """Verifies against one policy, which may be replaced by a newer one.

    Attributes:
        policy: pinned keys of receipts and of the log, and what is demanded.
    """

    def __init__(self, policy: VerifyPolicy, *, now_us: Callable[[], int]) -> None:
        """Demand `policy`; receipts from the future of `now_us` are refused."""
        self.policy = policy
        self._now_us = now_us
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def verify(self, request: VerifyRequest, size: int) -> Report:
        """The report of a request of `size` bytes.

        Raises:
            ValidationFailed: neither one receipt nor a chain, or both.
            InvalidRequest, TooLarge: the chain's arrays do not fit, or are too long.
            Unavailable: too many long verifications wait.
        """
        work = self._work(request)
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
