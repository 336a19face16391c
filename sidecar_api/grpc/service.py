"""The methods of `tcd.v1.TcdService`: parse, hand to the dataplane, translate back."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import unquote

import grpc
import msgspec
from google.protobuf.message import DecodeError, Message

from sidecar_api import entry
from sidecar_api.decode import MAX_DIAGNOSE, MAX_VERIFY, convert, diagnose_of
from sidecar_api.grpc import translate
from sidecar_api.grpc.errors import DETAILS, code_of, status_details
from sidecar_api.http.cold import KEY_DEFAULTS
from sidecar_api.http.cold_schemas import StateIn
from sidecar_api.http.context import RequestContext, quota_headers
from sidecar_api.http.problems import InternalError, problem_of
from sidecar_api.http.runtime import Runtime
from sidecar_api.outcome import Answer, SubjectQuotaExceeded
from sidecar_api.schemas import VerifyRequest
from sidecar_api.snapshot import MAX_BYTES, Key
from sidecar_api.strict import decode_strict
from tcd import __version__
from tcd.errors import InvalidRequest, TcdError, TooLarge, ValidationFailed
from tcd.v1 import tcd_pb2 as pb

_LOG: Final = logging.getLogger(__name__)
_state: Final = msgspec.json.Decoder(StateIn, strict=True)
_encode: Final = msgspec.json.Encoder().encode
_M = TypeVar("_M", bound=Message)
_Work = Callable[[RequestContext, Any], Awaitable[Message]]


def _parse(raw: bytes, kind: type[_M], limit: int) -> _M:
    """A message.

    Raises:
        TooLarge: more bytes than the limit.
        InvalidRequest: not the encoding of one.
    """
    if len(raw) > limit:
        msg = f"the message is over {limit} bytes"
        raise TooLarge(msg)
    try:
        message: _M = kind.FromString(raw)
    except DecodeError:
        msg = f"not a {kind.__name__}"
        raise InvalidRequest(msg) from None
    return message


def _client(peer: str) -> tuple[str, int] | None:
    """The address of `ipv4:127.0.0.1:5000` and its like; None for sockets of this machine."""
    kind, _, rest = unquote(peer).partition(":")
    return (rest.rpartition(":")[0].strip("[]"), 0) if kind in {"ipv4", "ipv6"} else None


class TcdServicer:
    """The surface; requests come as bytes, so that a malformed one is refused and not an internal error."""

    surface = "grpc"
    stream_surface = "grpc_stream"

    def __init__(self, runtime: Runtime) -> None:
        """Serve from `runtime`."""
        self._runtime = runtime

    # -- around a call -------------------------------------------------------------------------------------

    def _context(self, call: Any) -> RequestContext:
        headers = [
            (k.encode(), v if isinstance(v, bytes) else v.encode("latin-1")) for k, v in call.invocation_metadata()
        ]
        scope = {"headers": headers, "client": _client(call.peer())}
        return RequestContext.of(scope, config_hash=self._runtime.config_hash)

    @staticmethod
    def _metadata(context: RequestContext) -> list[tuple[str, str]]:
        # the headers of the HTTP surface; gRPC has its own content type and length
        return [
            (k.decode(), v.decode("latin-1"))
            for k, v in context.answer_headers(b"", 0)
            if not k.startswith(b"content-")
        ]

    async def _unary(self, raw: bytes, call: Any, kind: type[_M], limit: int, work: _Work) -> Message:
        runtime, context = self._runtime, self._context(call)
        try:
            with entry.room(runtime):
                entry.charge_edge(runtime, context.client)
                context.check()
                return await work(context, _parse(raw, kind, limit))
        except TcdError as error:
            await self._abort(call, context, error)
        except asyncio.CancelledError:
            runtime.exporter.request(surface=self.surface, outcome="disconnected")
            raise
        except Exception as error:
            if isinstance(error, grpc.aio.AbortError):
                raise
            _LOG.exception("request %s failed", context.request_id)
            await self._abort(call, context, InternalError())

    async def _abort(self, call: Any, context: RequestContext, error: TcdError) -> NoReturn:
        entry.count_refused(self._runtime, error, self.surface)
        if isinstance(error, SubjectQuotaExceeded):
            context.extra.extend(quota_headers(error.quota))
        trailing = [*self._metadata(context), (DETAILS, status_details(error, context.request_id))]
        await call.abort(code_of(error), error.detail, tuple(trailing))
        raise AssertionError

    async def _decide(self, context: RequestContext, message: Any, call: Any, surface: str) -> Answer:
        runtime = self._runtime
        began, now = perf_counter(), asyncio.get_running_loop().time()
        request, sanitized = diagnose_of(translate.members(message), sanitize=runtime.settings.sanitize == "zero")
        left = call.time_remaining()
        arrival = entry.Arrival(
            context, surface, began=began, now=now, left=max(left, 0.0) if left is not None else math.inf
        )
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
                answer = await self._decide(own, _parse(raw, pb.DiagnoseRequest, MAX_DIAGNOSE), call, surface)
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
            report = await runtime.verifier.verify(request, len(raw))
            runtime.exporter.request(surface=self.surface, outcome="ok")
            runtime.exporter.verified(code=report.code)
            return pb.VerifyResponse(**report.to_json())

        return await self._unary(raw, call, pb.VerifyRequest, MAX_VERIFY, work)

    async def GetState(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """A snapshot."""
        runtime = self._runtime

        async def work(context: RequestContext, message: Any) -> Message:
            runtime.tokens.require(context.text(b"authorization"), "state:read")
            snapshot = runtime.state.get(convert({**KEY_DEFAULTS, **translate.members(message)}, Key))
            runtime.exporter.request(surface=self.surface, outcome="ok")
            return pb.GetStateResponse(detector_json=_encode(snapshot))

        return await self._unary(raw, call, pb.GetStateRequest, MAX_DIAGNOSE, work)

    async def LoadState(self, raw: bytes, call: Any) -> Message:  # noqa: N802 - the proto's name
        """Load a snapshot."""
        runtime = self._runtime

        async def work(context: RequestContext, message: Any) -> Message:
            runtime.tokens.require(context.text(b"authorization"), "state:load")
            named = translate.members(message)
            detector = named.pop("detector_json", b"")
            key = convert({**KEY_DEFAULTS, **named}, Key)
            value = decode_strict(b'{"detector":' + detector + b"}", _state)
            sessions = runtime.state.load(key, value.detector)
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
