"""Reserve, Settle and Rewrite: the methods of callers that talk to the ensemble, or to their model, themselves."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from sidecar_api import entry
from sidecar_api.caller_schemas import ReserveRequest, SettleRequest
from sidecar_api.decode import check_names, convert
from sidecar_api.grpc import translate
from sidecar_api.grpc.calls import Calls
from sidecar_api.http.callers import MAX_CALLER
from sidecar_api.http.context import RequestContext, quota_headers, session_header
from sidecar_api.http.rewrite import MAX_REWRITE, boundaries
from tcd.v1 import tcd_pb2 as pb


class CallerMethods(Calls):
    """The methods of `/v1/reserve`, `/v1/settle` and `/v1/rewrite`."""

    async def Reserve(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """Reserve a level."""
        runtime = self._runtime

        async def work(context: RequestContext, message: Any) -> Message:
            arrival = self._arrival(context, call, self.surface)
            request = convert(translate.members(message), ReserveRequest)
            check_names(request)
            context.extra.append(session_header(request.session))
            answer = await runtime.callers.reserve(request, entry.caller_call(runtime, arrival, request))
            await call.send_initial_metadata(tuple(self._metadata(context)))
            runtime.exporter.request(surface=self.surface, outcome="ok")
            return translate.reserved(answer)

        return await self._unary(raw, call, pb.ReserveRequest, MAX_CALLER, work)

    async def Settle(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """Settle a row."""
        runtime = self._runtime

        async def work(context: RequestContext, message: Any) -> Message:
            arrival = self._arrival(context, call, self.surface)
            request = convert(translate.settlement(message), SettleRequest)
            answer = await runtime.callers.settle(request, entry.caller_call(runtime, arrival, request))
            context.extra.append(session_header(answer.session))
            if answer.quota is not None:
                context.extra.extend(quota_headers(answer.quota))
            await call.send_initial_metadata(tuple(self._metadata(context)))
            entry.count_answered(runtime, answer, self.surface, context)
            return translate.response(answer.body)

        return await self._unary(raw, call, pb.SettleRequest, MAX_CALLER, work)

    async def Rewrite(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """Mark the untrusted text of a request."""
        runtime, settings = self._runtime, self._runtime.settings

        async def work(context: RequestContext, message: Any) -> Message:
            arrival = self._arrival(context, call, self.surface)
            asked = min(context.deadline_ms() or settings.deadline_ms, settings.deadline_max_ms)
            outcome, answer = await runtime.rewriter.rewrite(
                translate.rewriting(message),
                headers=boundaries(context),
                seconds=min(asked / 1000.0, arrival.left),
                request_id=context.request_id,
            )
            await call.send_initial_metadata(tuple(self._metadata(context)))
            runtime.exporter.request(surface=self.surface, outcome="ok")
            runtime.rewriter.log(outcome, context.request_id)
            return translate.rewritten(answer)

        return await self._unary(raw, call, pb.RewriteRequest, MAX_REWRITE, work)
