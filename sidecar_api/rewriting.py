"""`POST /v1/rewrite`: the policy of the subject, the deadline, what is counted and logged."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Final

import msgspec

from sidecar_api.policing import default_ref, policy_digest
from sidecar_api.rewrite_records import RewriteRecords
from sidecar_api.rewrite_schemas import RewriteRequest, RewriteResponse
from tcd.config import Settings
from tcd.errors import RewriteRefused, ScoringTimeout, TcdError, TooLarge, Unavailable
from tcd.receipts import Receipt
from tcd.spotlight import Outcome, Policy, nonce, rewrite
from tcd.telemetry import LogWriter
from tcd.telemetry.spotlighting import SpotlightMetrics
from tcd.trust import PolicySet, RewriteRules, Rewriting
from tcd.trust.policies import SUBJECT

#: A larger body is rewritten in a thread: it would hold up the loop for milliseconds.
_INLINE: Final = 64 << 10
_ERRORS: Final[dict[str, type[TcdError]]] = {"body_too_large": TooLarge, "deadline_exceeded": ScoringTimeout}
_encode: Final = msgspec.json.Encoder().encode


def spotlight_key(settings: Settings, random: Callable[[int], bytes]) -> bytes:
    """The key of nonces: the configured one, else one made from the receipt key, else a new one."""
    if settings.spotlight_key_hex is not None:
        return bytes.fromhex(settings.spotlight_key_hex.get_secret_value())
    if settings.attest_sk_hex is not None:
        seed = bytes.fromhex(settings.attest_sk_hex.get_secret_value())
        return hashlib.sha256(b"tcd/spotlight-key/v1\0" + seed).digest()
    return random(32)


def rewrite_policy(settings: Settings) -> Policy:
    """The settings as a rewriting policy."""
    return Policy(
        zones=settings.spotlight_zones,
        marking=settings.spotlight_marking,
        keep_newlines=settings.spotlight_keep_newlines,
        marker=settings.spotlight_marker,
        marker_length=settings.spotlight_marker_length,
        fixed_marker=settings.spotlight_fixed_marker,
        data_roles=frozenset(settings.spotlight_data_roles),
        plain_tags=settings.spotlight_plain_tags,
        shadow=settings.spotlight_shadow,
        on_failure=settings.spotlight_on_failure,
    )


def rewrite_rules(settings: Settings, policies: PolicySet | None = None) -> RewriteRules:
    """The settings' rewriting policy, and those of a bundle over it."""
    digest = policy_digest(settings)
    default = Rewriting(rewrite_policy(settings), default_ref(digest), digest, settings.spotlight_receipts)
    return RewriteRules(default, policies)


def _subject(request: RewriteRequest) -> dict[str, str]:
    return {name: getattr(request, name) for name in SUBJECT}


class Rewriter:
    """Rewrites requests, each under its subject's policy.

    Attributes:
        rules: one version of all policies; a reload puts another in its place.
    """

    def __init__(
        self,
        rules: RewriteRules,
        *,
        key: bytes,
        random: Callable[[int], bytes],
        metrics: SpotlightMetrics,
        logs: LogWriter | None,
        keeper: RewriteRecords | None = None,
    ) -> None:
        """Rewrite under `rules`, with nonces under `key`; without `logs` nothing is logged, without `keeper` kept."""
        self.rules = rules
        self._key = key
        self._random = random
        self._metrics = metrics
        self._logs = logs
        self._keeper = keeper

    def nonce(self) -> str:
        """A nonce for an operator's inline tags."""
        return nonce(self._key, self._random)

    async def rewrite(
        self, request: RewriteRequest, *, headers: Sequence[str | None], seconds: float, request_id: str
    ) -> tuple[Outcome, bytes]:
        """The outcome and the encoded answer.

        Args:
            request: decoded.
            headers: values of the boundary headers.
            seconds: time that it may take.
            request_id: for the answer.

        Raises:
            RewriteRefused: the policy fails closed and something failed.
            TooLarge: the same, and the body is over 1 MiB.
            ScoringTimeout: the same, and the deadline passed.
            Unavailable: the same, and the receipt that the policy asks for is not durable in time.
        """
        spans = [value for value in (request.boundary, *headers) if value is not None]
        deadline = monotonic() + seconds
        body = bytes(request.body)
        rules = self.rules.of(_subject(request))
        wanted = _wanted(rules.policy, request)

        def work() -> Outcome:
            return rewrite(
                body,
                wanted,
                key=self._key,
                random=self._random,
                boundary=",".join(spans) if spans else None,
                expired=lambda: monotonic() >= deadline,
            )

        outcome = work() if len(body) <= _INLINE else await asyncio.to_thread(work)
        self._metrics.outcome(outcome)
        if outcome.refused:
            self.log(outcome, request_id)
            reasons = ", ".join(outcome.failures)
            msg = f"the request cannot be rewritten: {reasons}"
            raise _ERRORS.get(outcome.failures[0], RewriteRefused)(msg)
        keeper = self._keeper
        receipt = key = None
        if keeper is not None and rules.receipt:
            left = max(deadline - monotonic(), 0.001)
            receipt = await keeper.keep(request, outcome, rules, before=body, seconds=left)
            key = keeper.verify_key if receipt is not None else None
            if receipt is None and rules.policy.on_failure == "closed":
                msg = "the receipt of the rewriting is not durable"
                raise Unavailable(msg, retry_after=1.0)
        return outcome, _answer(outcome, request_id, rules.ref, receipt, key)

    def log(self, outcome: Outcome, request_id: str) -> None:
        """Write what was done, without text, marker and nonce."""
        if self._logs is not None and self._logs.enabled("info") and (outcome.zones_marked or outcome.failures):
            self._logs.write(
                "info",
                "rewrite",
                request_id=request_id,
                finding="spotlighting_applied" if outcome.zones_marked else "",
                zones_marked=outcome.zones_marked,
                byte_delta=outcome.byte_delta_total,
                shadow_mode=outcome.shadow_mode,
                refused=outcome.refused,
                failures=list(outcome.failures),
            )


def _wanted(policy: Policy, request: RewriteRequest) -> Policy:
    return replace(
        policy,
        body_format=request.body_format,
        marking=request.marking or policy.marking,
        keep_newlines=policy.keep_newlines if request.keep_newlines is None else request.keep_newlines,
        shadow=policy.shadow and not request.active,
    )


def _answer(outcome: Outcome, request_id: str, ref: str, receipt: Receipt | None, key: str | None) -> bytes:
    told = outcome.to_json()
    told.pop("refused")
    return _encode(
        RewriteResponse(
            **told,
            body=msgspec.Raw(outcome.body),
            digest=outcome.digest,
            request_id=request_id,
            policy_ref=ref,
            receipt=receipt.head_hex if receipt is not None else None,
            receipt_body=receipt.body_text if receipt is not None else None,
            receipt_sig=receipt.sig_hex if receipt is not None else None,
            verify_key=key,
        )
    )
