"""Around every call of the gRPC surface: its context, parsing, limits, errors as statuses."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError, Message

from sidecar_api import entry
from sidecar_api.grpc.errors import DETAILS, code_of, status_details
from sidecar_api.http.context import RequestContext, quota_headers
from sidecar_api.http.problems import InternalError
from sidecar_api.http.runtime import Runtime
from sidecar_api.outcome import SubjectQuotaExceeded
from tcd.errors import InvalidRequest, TcdError, TooLarge

_LOG: Final = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)
Work = Callable[[RequestContext, Any], Awaitable[Message]]


def parse(raw: bytes, kind: type[M], limit: int) -> M:
    """A message.

    Raises:
        TooLarge: more bytes than the limit.
        InvalidRequest: not the encoding of one.
    """
    if len(raw) > limit:
        msg = f"the message is over {limit} bytes"
        raise TooLarge(msg)
    try:
        message: M = kind.FromString(raw)
    except DecodeError:
        msg = f"not a {kind.__name__}"
        raise InvalidRequest(msg) from None
    return message


def _client(peer: str) -> tuple[str, int] | None:
    """The address of `ipv4:127.0.0.1:5000` and its like; None for sockets of this machine."""
    kind, _, rest = unquote(peer).partition(":")
    return (rest.rpartition(":")[0].strip("[]"), 0) if kind in {"ipv4", "ipv6"} else None


class Calls:
    """What methods are made of; requests come as bytes: a malformed one is refused, not an internal error."""

    surface = "grpc"

    def __init__(self, runtime: Runtime) -> None:
        """Serve from `runtime`."""
        self._runtime = runtime

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

    async def _unary(self, raw: bytes, call: Any, kind: type[M], limit: int, work: Work) -> Message:
        runtime, context = self._runtime, self._context(call)
        try:
            with entry.room(runtime):
                entry.charge_edge(runtime, context.client)
                context.check()
                return await work(context, parse(raw, kind, limit))
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

    def _arrival(self, context: RequestContext, call: Any, surface: str) -> entry.Arrival:
        """A request that begins now, within the deadline of the transport."""
        left = call.time_remaining()
        return entry.Arrival(
            context,
            surface,
            began=perf_counter(),
            now=asyncio.get_running_loop().time(),
            left=max(left, 0.0) if left is not None else math.inf,
        )
