"""What a call of the dataplane hands back to its surface, and to whoever watches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec import Struct

from tcd.errors import QuotaExceeded, Unavailable
from tcd.rate_limit import Grant, Limit


class Gate(Protocol):
    """Where rows wait for each other, so that they reach the ensemble together."""

    async def arrive(self) -> None:
        """Wait for the others; bounded."""
        ...


class Call(Struct, frozen=True):
    """A request's envelope, as the surface read it.

    Attributes:
        request_id: given or made.
        given: whether the caller gave it (it is an idempotency key then).
        deadline: loop time by which the answer is due.
        idempotency_key: of a header, or None.
        sanitized: values that were replaced by 0.
        trace_id: W3C trace id, hex.
        decode: seconds spent on decoding.
        surface: http, grpc, grpc_stream, ws or batch.
        gate: of a batch; where its rows meet before they are scored.
    """

    request_id: str
    given: bool
    deadline: float
    idempotency_key: str | None = None
    sanitized: int = 0
    trace_id: str = ""
    decode: float = 0.0
    surface: str = "http"
    gate: Gate | None = None


class Quota(Struct, frozen=True):
    """The subject's bucket after the request."""

    limit: Limit
    grant: Grant


class Overloaded(Unavailable):
    """As many requests are in work as may be; knows the limit, for the headers."""

    def __init__(self, limit: int) -> None:
        """`limit` requests are in work."""
        super().__init__(f"{limit} requests are in work already", retry_after=0.1)
        self.limit = limit


class SubjectQuotaExceeded(QuotaExceeded):
    """The bucket of the subject is empty; knows it, for the headers."""

    def __init__(self, quota: Quota) -> None:
        """The bucket as it refused."""
        super().__init__("the rate limit of this session is reached", retry_after=quota.grant.retry_after)
        self.quota = quota


@dataclass(slots=True)
class Stages:
    """Seconds per stage, for `Server-Timing` and the histograms."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        """Add to a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


class Observation(Struct, frozen=True):
    """A decision as metrics and logs see it; holds no raw subject name.

    Attributes:
        request_id, trace_id, surface: of the call.
        subject: keyed digest.
        action, enforced, cause, verdict, trigger: what was decided.
        score, p_value, e_value_log10, wealth_ratio: numbers of the answer.
        cost: budget debited by this step.
        first: whether the step made the hypothesis's first rejection.
        exhausted: whether the budget was gone.
        degraded: why the decision is a degraded one, or empty.
        receipt: issued, failed or disabled; `receipt_bytes` its size.
        seconds: of the whole call; `stages` of its parts.
        step: number of the step.
        policy: name of the policy that decided.
        record: line of the decision log, where one is kept; the only thing here that names the subject.
    """

    request_id: str
    trace_id: str
    surface: str
    subject: str
    action: str
    enforced: str
    cause: str
    verdict: bool
    trigger: bool
    score: float
    p_value: float
    e_value_log10: float
    wealth_ratio: float
    cost: float
    first: bool
    exhausted: bool
    degraded: str
    receipt: str
    receipt_bytes: int
    seconds: float
    stages: dict[str, float]
    step: int
    policy: str = "default"
    record: dict[str, Any] | None = None


class Answer(Struct, frozen=True):
    """A decision's bytes and what its headers need; `quota` None = answered from memory, nothing charged."""

    body: bytes
    session: str
    quota: Quota | None
    stages: Stages
    observation: Observation | None = None


class Observer(Protocol):
    """Whoever watches decisions; called after the answer, must not block or raise."""

    def decision(self, seen: Observation) -> None:
        """A decision was made."""
        ...

    def closed(self, *, reason: str) -> None:
        """A session was closed."""
        ...

    def verified(self, *, code: str) -> None:
        """A verification ended."""
        ...

    def commit(self, *, seconds: float) -> None:
        """A decision became durable."""
        ...

    def gap(self) -> None:
        """A chain of receipts was cut by a lost commit."""
        ...


class NoObserver:
    """Watches nothing."""

    def decision(self, seen: Observation) -> None:
        """See `Observer`."""

    def closed(self, *, reason: str) -> None:
        """See `Observer`."""

    def verified(self, *, code: str) -> None:
        """See `Observer`."""

    def commit(self, *, seconds: float) -> None:
        """See `Observer`."""

    def gap(self) -> None:
        """See `Observer`."""
