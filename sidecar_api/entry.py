"""What all surfaces do around the dataplane: admission, the call's envelope, counting. None has its own way."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Generator
from time import perf_counter
from typing import Final

from msgspec import Struct

from sidecar_api.caller_schemas import ReserveRequest, SettleRequest
from sidecar_api.http.context import RequestContext, session_header
from sidecar_api.http.problems import EdgeQuotaExceeded
from sidecar_api.http.runtime import Runtime
from sidecar_api.line import abreast
from sidecar_api.outcome import Answer, Call, Gate, Overloaded, SubjectQuotaExceeded
from sidecar_api.pace import DEEP
from sidecar_api.schemas import DiagnoseRequest
from tcd.errors import QuotaExceeded, TcdError

#: Share of a deadline that may be spent on waiting, as far as that can be foreseen.
_SHARE: Final = 0.5


class Arrival(Struct, frozen=True):
    """How a step came in.

    Attributes:
        context: of the request; the step's own where a connection carries many.
        surface: http, grpc, grpc_stream, ws or batch.
        began: `perf_counter` when decoding began; `now` is the loop's time then.
        left: seconds that the transport itself allows.
        gate: see `Call`.
    """

    context: RequestContext
    surface: str
    began: float
    now: float
    left: float = math.inf
    gate: Gate | None = None


def check_room(runtime: Runtime) -> None:
    """Refuse when too much is in work, or so much that one more would wait for half of a deadline.

    Raises:
        Overloaded: it is.
    """
    settings, in_flight = runtime.settings, runtime.in_flight
    if in_flight >= settings.max_inflight:
        runtime.exporter.throttled(zone="inflight")
        raise Overloaded(in_flight)
    # bodies that are not here yet wait for nothing
    ahead = in_flight - runtime.reading
    if ahead >= DEEP and runtime.service.pace.wait(ahead) > _SHARE * settings.deadline_ms / 1000.0:
        runtime.exporter.throttled(zone="wait")
        raise Overloaded(in_flight)


@contextlib.contextmanager
def room(runtime: Runtime) -> Generator[None, None, None]:
    """A place in work, for as long as the block lasts.

    Raises:
        Overloaded: there is none.
    """
    check_room(runtime)
    runtime.in_flight += 1
    try:
        yield
    finally:
        runtime.in_flight -= 1


def charge_edge(runtime: Runtime, client: str, cost: float = 1.0) -> None:
    """Take tokens of the client's address; more than the bucket holds cost a full bucket.

    Raises:
        EdgeQuotaExceeded: there are not as many.
    """
    grant = runtime.edge.take(client, cost, now=asyncio.get_running_loop().time())
    if not grant.allowed:
        msg = "the rate limit of this address is reached"
        raise EdgeQuotaExceeded(msg, retry_after=grant.retry_after)


def one_of_many(context: RequestContext) -> RequestContext:
    """The context of one step among many under one request: its own id, and no idempotency key but its own."""
    return RequestContext(
        headers={k: v for k, v in context.headers.items() if k == b"x-deadline-ms"},
        client=context.client,
        request_id=os.urandom(16).hex(),
        given=False,
        trace_id=context.trace_id,
        # a span of its own below the connection's parent
        span_id=os.urandom(8).hex(),
        flags=context.flags,
        config_hash=context.config_hash,
        parent_id=context.parent_id,
    )


def caller_call(runtime: Runtime, arrival: Arrival, request: ReserveRequest | SettleRequest) -> Call:
    """The envelope of a direct caller's request; the context has the request's own id then.

    Raises:
        InvalidRequest: the deadline's header is no positive number.
    """
    settings, context = runtime.settings, arrival.context
    if request.request_id is not None:
        context.request_id, context.given = request.request_id, True
    # read in any case: what is malformed is refused, also where the body has its own
    header = context.deadline_ms()
    asked = request.deadline_ms or header or settings.deadline_ms
    return Call(
        request_id=context.request_id,
        given=context.given,
        deadline=arrival.now + min(min(asked, settings.deadline_max_ms) / 1000.0, arrival.left),
        idempotency_key=context.text(b"idempotency-key"),
        trace_id=context.trace_id,
        decode=perf_counter() - arrival.began,
        surface=arrival.surface,
    )


async def decide(runtime: Runtime, arrival: Arrival, request: DiagnoseRequest, sanitized: int) -> Answer:
    """One step through the dataplane.

    Raises:
        TcdError: see `Service.diagnose`; the context has the step's request id then.
    """
    settings, context = runtime.settings, arrival.context
    if request.request_id is not None:
        context.request_id, context.given = request.request_id, True
    # read in any case: what is malformed is refused, also where the body has its own
    header = context.deadline_ms()
    asked = request.deadline_ms or header or settings.deadline_ms
    call = Call(
        request_id=context.request_id,
        given=context.given,
        deadline=arrival.now + min(min(asked, settings.deadline_max_ms) / 1000.0, arrival.left),
        idempotency_key=context.text(b"idempotency-key"),
        sanitized=sanitized,
        trace_id=context.trace_id,
        decode=perf_counter() - arrival.began,
        surface=arrival.surface,
        gate=arrival.gate,
    )
    context.extra.append(session_header(request.session))
    runtime.propagate(context)
    await abreast()
    answer = await runtime.service.diagnose(request, call)
    answer.stages.add("total", perf_counter() - arrival.began)
    return answer


def count_answered(runtime: Runtime, answer: Answer, surface: str, context: RequestContext) -> None:
    """Count, log and trace a decision, after it was answered."""
    runtime.exporter.request(surface=surface, outcome="ok")
    if answer.observation is not None:
        runtime.observe(answer.observation, context)


def count_refused(runtime: Runtime, error: TcdError, surface: str) -> None:
    """Count an error, after it was answered."""
    runtime.exporter.request(surface=surface, outcome=error.code)
    if isinstance(error, SubjectQuotaExceeded):
        runtime.exporter.throttled(zone="subject")
    elif isinstance(error, QuotaExceeded):
        runtime.exporter.throttled(zone="edge")
