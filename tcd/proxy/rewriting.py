"""One request's body under its policy: what is forwarded, and what is said about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Final

from tcd.errors import RewriteRefused, ScoringTimeout, TcdError, TooLarge
from tcd.proxy.headers import BOUNDARIES, Headers, value
from tcd.proxy.metrics import ProxyMetrics
from tcd.proxy.policies import Policies, Resolved
from tcd.spotlight import Outcome, Policy, Reason, rewrite
from tcd.spotlight.policy import BodyFormat
from tcd.telemetry import LogWriter

#: A larger body is rewritten in a thread: it would hold up the loop for milliseconds.
_INLINE: Final = 64 << 10
_ERRORS: Final[dict[str, type[TcdError]]] = {"body_too_large": TooLarge, "deadline_exceeded": ScoringTimeout}
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request to be rewritten.

    Attributes:
        body: what was read of it.
        whole: whether that is all.
        headers: of the request.
        body_format: of the route.
        subject: tenant, user, model_id, ...
        request_id: for the log.
    """

    body: bytes
    whole: bool
    headers: Headers
    body_format: BodyFormat
    subject: Mapping[str, str]
    request_id: str


@dataclass(frozen=True, slots=True)
class Done:
    """What was done: the policy, the outcome, and why the request is refused, if it is."""

    resolved: Resolved
    outcome: Outcome
    refusal: TcdError | None

    @property
    def shadow(self) -> bool:
        """Whether nothing may change."""
        return self.resolved.rewrite.shadow

    def header(self) -> tuple[bytes, bytes]:
        """`X-TCD-Spotlight` of the answer: a token and parameters (RFC 9651)."""
        outcome = self.outcome
        word = "failed" if outcome.failures else "marked" if outcome.zones_marked else "unchanged"
        parts = [word, f"zones={outcome.zones_marked}", f'policy="{self.resolved.ref}"']
        if outcome.zones_marked:
            parts.append(f"marking={outcome.marking}")
        if outcome.failures:
            parts.append(f'failures="{" ".join(dict.fromkeys(outcome.failures))}"')
        return b"x-tcd-spotlight", ";".join(parts).encode("ascii", "replace")


class Rewriting:
    """Rewrites the bodies of requests under the policies of their subjects.

    Attributes:
        policies: in force; may be swapped at any time, a request keeps the ones it found.
    """

    def __init__(
        self,
        policies: Policies,
        *,
        key: bytes,
        random: Callable[[int], bytes],
        metrics: ProxyMetrics,
        logs: LogWriter | None = None,
        seconds: float = 0.25,
    ) -> None:
        """Rewrite under `policies`.

        Args:
            policies: who gets what.
            key: of nonces, 16 bytes or more.
            random: random bytes.
            metrics: where it is counted.
            logs: where it is logged; None logs nothing.
            seconds: that one rewriting may take.
        """
        self.policies = policies
        self._key = key
        self._random = random
        self._metrics = metrics
        self._logs = logs
        self._seconds = seconds

    async def run(self, arrived: Arrived) -> Done:
        """What to forward. In shadow mode that is what came, whatever happens; nothing is refused."""
        resolved = self.policies.of(arrived.subject)
        began = perf_counter()
        outcome = await self._outcome(arrived, resolved.rewrite, began)
        self._metrics.rewritten(outcome, perf_counter() - began)
        self._log(outcome, resolved, arrived.request_id)
        refusal = None
        if outcome.refused and not resolved.rewrite.shadow:
            reasons = ", ".join(outcome.failures)
            msg = f"the request cannot be rewritten: {reasons}"
            refusal = _ERRORS.get(outcome.failures[0], RewriteRefused)(msg)
        return Done(resolved, outcome, refusal)

    async def _outcome(self, arrived: Arrived, policy: Policy, began: float) -> Outcome:
        if policy.zones == "off":
            return Outcome(arrived.body)
        if not arrived.whole:
            return _failed(arrived, policy, "body_too_large")
        coding = value(arrived.headers, b"content-encoding") or b"identity"
        if coding.strip().lower() != b"identity":
            return _failed(arrived, policy, "unsupported_body")
        boundaries = [found.decode("latin-1") for name in BOUNDARIES if (found := value(arrived.headers, name))]
        if policy.body_format == "auto":
            policy = replace(policy, body_format=arrived.body_format)

        def work() -> Outcome:
            return rewrite(
                arrived.body,
                policy,
                key=self._key,
                random=self._random,
                boundary=",".join(boundaries) if boundaries else None,
                expired=lambda: perf_counter() - began >= self._seconds,
            )

        try:
            return work() if len(arrived.body) <= _INLINE else await asyncio.to_thread(work)
        except Exception:
            # a defect of the rewriting: with shadow mode or an open policy no request may suffer from it
            if not policy.shadow and policy.on_failure == "closed":
                raise
            _LOG.exception("request %s could not be rewritten", arrived.request_id)
            return _failed(arrived, policy, "body_reserialize_failed")

    def _log(self, outcome: Outcome, resolved: Resolved, request_id: str) -> None:
        """What was done, without text, marker, nonce, subject and header."""
        if self._logs is not None and (outcome.zones_marked or outcome.failures):
            self._logs.write(
                "info",
                "proxy_rewrite",
                request_id=request_id,
                finding="spotlighting_applied" if outcome.zones_marked else "",
                policy_ref=resolved.ref,
                zones_marked=outcome.zones_marked,
                byte_delta=outcome.byte_delta_total,
                shadow_mode=resolved.rewrite.shadow,
                refused=outcome.refused and not resolved.rewrite.shadow,
                failures=list(outcome.failures),
            )


def _failed(arrived: Arrived, policy: Policy, reason: Reason) -> Outcome:
    return Outcome(arrived.body, refused=policy.on_failure == "closed", shadow_mode=policy.shadow, failures=(reason,))
