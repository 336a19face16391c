"""The methods of `tcd.v1.TcdService`: parse, hand to the dataplane, translate back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from google.protobuf.message import Message

from sidecar_api import entry
from sidecar_api.decode import MAX_DIAGNOSE, MAX_VERIFY, convert, diagnose_of
from sidecar_api.grpc import translate
from sidecar_api.grpc.callers import CallerMethods
from sidecar_api.grpc.calls import parse
from sidecar_api.http.cold import KEY_DEFAULTS
from sidecar_api.http.cold_schemas import StateIn
from sidecar_api.http.context import RequestContext, quota_headers
from sidecar_api.http.problems import InternalError, problem_of
from sidecar_api.outcome import Answer
from sidecar_api.schemas import VerifyRequest
from sidecar_api.snapshot import MAX_BYTES, Key
from sidecar_api.strict import decode_strict
from tcd import __version__
from tcd.errors import TcdError, ValidationFailed
from tcd.v1 import tcd_pb2 as pb

_LOG: Final = logging.getLogger(__name__)
_state: Final = msgspec.json.Decoder(StateIn, strict=True)


class TcdServicer(CallerMethods):
    """The surface."""

    stream_surface = "grpc_stream"

    async def _decide(self, context: RequestContext, message: Any, call: Any, surface: str) -> Answer:
        runtime, arrival = self._runtime, self._arrival(context, call, surface)
        request, sanitized = diagnose_of(translate.members(message), sanitize=runtime.settings.sanitize == "zero")
        return await entry.decide(runtime, arrival, request, sanitized)

    # -- decisions -----------------------------------------------------------------------------------------

    async def Diagnose(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """One step."""

        async def work(context: RequestContext, message: Any) -> Message:
            answer = await self._decide(context, message, call, self.surface)
            if answer.quota is not None:
                context.extra.extend(quota_headers(answer.quota))
            await call.send_initial_metadata(tuple(self._metadata(context)))
            entry.count_answered(self._runtime, answer, self.surface, context)
            return translate.response(answer.body)

        return await self._unary(raw, call, pb.DiagnoseRequest, MAX_DIAGNOSE, work)

    async def DiagnoseStream(  # noqa: N802 - the proto's name
        self, messages: AsyncIterator[bytes], call: Any
    ) -> AsyncIterator[Message]:
        """Steps in order, each answered or refused."""
        context = self._context(call)
        try:
            context.check()
            context.deadline_ms()
        except TcdError as error:
            await self._abort(call, context, error)
        await call.send_initial_metadata(tuple(self._metadata(context)))
        async for raw in messages:
            yield await self._reply(raw, entry.one_of_many(context), call)

    async def _reply(self, raw: bytes, own: RequestContext, call: Any) -> Message:
        runtime, surface = self._runtime, self.stream_surface
        try:
            with entry.room(runtime):
                entry.charge_edge(runtime, own.client)
                answer = await self._decide(own, parse(raw, pb.DiagnoseRequest, MAX_DIAGNOSE), call, surface)
        except TcdError as error:
            entry.count_refused(runtime, error, surface)
            return pb.DiagnoseReply(problem=translate.problem(problem_of(error, own.request_id)))
        except Exception:  # noqa: BLE001 - the boundary: a defect is logged with its request id and answered
            _LOG.exception("request %s failed", own.request_id)
            entry.count_refused(runtime, InternalError(), surface)
            return pb.DiagnoseReply(problem=translate.problem(problem_of(InternalError(), own.request_id)))
        entry.count_answered(runtime, answer, surface, own)
        return pb.DiagnoseReply(response=translate.response(answer.body))

    # -- the rest ------------------------------------------------------------------------------------------

    async def Verify(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """A receipt or a chain."""
        runtime = self._runtime

        async def work(_: RequestContext, message: Any) -> Message:
            if runtime.verifier is None:
                msg = "receipts are switched off: there is no pinned key"
                raise ValidationFailed(msg)
            request = convert(translate.members(message), VerifyRequest)
            verified = await runtime.verifier.verify(request, len(raw))
            runtime.exporter.request(surface=self.surface, outcome="ok")
            runtime.exporter.verified(code=verified.report.code)
            return pb.VerifyResponse(**verified.to_json())

        return await self._unary(raw, call, pb.VerifyRequest, MAX_VERIFY, work)

    async def GetState(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """A snapshot."""
        runtime = self._runtime

        async def work(context: RequestContext, message: Any) -> Message:
            runtime.tokens.require(context.text(b"authorization"), "state:read")
            state = await runtime.state.get_json(convert({**KEY_DEFAULTS, **translate.members(message)}, Key))
            runtime.exporter.request(surface=self.surface, outcome="ok")
            return pb.GetStateResponse(detector_json=state)

        return await self._unary(raw, call, pb.GetStateRequest, MAX_DIAGNOSE, work)

    async def LoadState(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """Load a snapshot."""
        runtime = self._runtime

        async def work(context: RequestContext, message: Any) -> Message:
            runtime.tokens.require(context.text(b"authorization"), "state:load")
            named = translate.members(message)
            detector = bytes(translate.raw_json(named.pop("detector_json", b"")))
            key = convert({**KEY_DEFAULTS, **named}, Key)
            value = await asyncio.to_thread(decode_strict, b'{"detector":' + detector + b"}", _state)
            sessions = await runtime.state.load(key, value.detector)
            runtime.exporter.request(surface=self.surface, outcome="ok")
            return pb.LoadStateResponse(ok=True, sessions=sessions, digest=value.detector.digest)

        return await self._unary(raw, call, pb.LoadStateRequest, MAX_BYTES, work)

    async def Health(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """/healthz and /readyz."""

        async def work(_: RequestContext, __: Any) -> Message:
            found = self._runtime.readiness()
            self._runtime.exporter.request(surface=self.surface, outcome="ok")
            return pb.HealthResponse(
                **msgspec.to_builtins(self._runtime.health()),
                ready=not any(found.values()),
                checks={name: why or "ok" for name, why in found.items()},
            )

        return await self._unary(raw, call, pb.HealthRequest, MAX_DIAGNOSE, work)

    async def Version(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """/version."""

        async def work(_: RequestContext, __: Any) -> Message:
            self._runtime.exporter.request(surface=self.surface, outcome="ok")
            return pb.VersionResponse(**msgspec.to_builtins(self._runtime.version(__version__)))

        return await self._unary(raw, call, pb.VersionRequest, MAX_DIAGNOSE, work)
