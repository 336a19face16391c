"""POST /v1/reserve and /v1/settle, for callers that query the ensemble themselves."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

from sidecar_api import entry
from sidecar_api.caller_schemas import ReserveRequest, SettleRequest, reserve_decoder, settle_decoder
from sidecar_api.callers import Callers
from sidecar_api.decode import check_names, decode_plain
from sidecar_api.http.context import RequestContext, quota_headers, session_header, timing_header
from sidecar_api.http.hot import HotRoute, Send, respond
from sidecar_api.http.runtime import Runtime

_JSON: Final = b"application/json"
MAX_CALLER: Final = 1 << 16


class _CallerRoute(HotRoute):
    """Common to both routes."""

    limit = MAX_CALLER

    def __init__(self, runtime: Runtime, callers: Callers) -> None:
        """Serve `callers`."""
        super().__init__(runtime)
        self.callers = callers

    def arrival(self, context: RequestContext) -> entry.Arrival:
        """A request that begins now."""
        return entry.Arrival(context, self.surface, began=perf_counter(), now=asyncio.get_running_loop().time())


class Reserve(_CallerRoute):
    """POST /v1/reserve."""

    surface = "reserve"

    async def answer(self, context: RequestContext, body: bytes, send: Send) -> None:
        """See `HotRoute.answer`."""
        arrival = self.arrival(context)
        request = decode_plain(body, reserve_decoder, ReserveRequest)
        check_names(request)
        context.extra.append(session_header(request.session))
        answer = await self.callers.reserve(request, entry.caller_call(self.runtime, arrival, request))
        await respond(send, 200, context.answer_headers(_JSON, len(answer)), answer)
        self.runtime.exporter.request(surface=self.surface, outcome="ok")


class Settle(_CallerRoute):
    """POST /v1/settle."""

    surface = "settle"

    async def answer(self, context: RequestContext, body: bytes, send: Send) -> None:
        """See `HotRoute.answer`."""
        runtime, arrival = self.runtime, self.arrival(context)
        request = decode_plain(body, settle_decoder, SettleRequest)
        answer = await self.callers.settle(request, entry.caller_call(runtime, arrival, request))
        answer.stages.add("total", perf_counter() - arrival.began)
        context.extra.append(session_header(answer.session))
        context.extra.append(timing_header(answer.stages))
        if answer.quota is not None:
            context.extra.extend(quota_headers(answer.quota))
        await respond(send, 200, context.answer_headers(_JSON, len(answer.body)), answer.body)
        runtime.exporter.request(surface=self.surface, outcome="ok")
        if answer.observation is not None:
            runtime.observe(answer.observation, context)
