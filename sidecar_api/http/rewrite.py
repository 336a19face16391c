"""POST /v1/rewrite as raw ASGI: the body inside the request keeps its bytes."""

from __future__ import annotations

from typing import Final

import msgspec

from sidecar_api.http.context import RequestContext
from sidecar_api.http.hot import HotRoute, Send, respond
from sidecar_api.rewrite_schemas import RewriteRequest
from sidecar_api.strict import decode_strict
from tcd.errors import InvalidRequest

#: A body of 1 MiB and what is around it.
MAX_REWRITE: Final = (1 << 20) + (16 << 10)
_BOUNDARIES: Final = (b"x-tcd-data-boundary", b"x-llmtrace-data-boundary")
_decoder: Final = msgspec.json.Decoder(RewriteRequest, strict=True)


def decode_rewrite(body: bytes) -> RewriteRequest:
    """A validated request.

    Raises:
        InvalidRequest: not JSON in UTF-8.
        ValidationFailed: a member is unknown, mistyped or out of its limits.
    """
    try:
        # what is handed through is not looked at by the decoder
        body.decode()
    except UnicodeDecodeError as error:
        msg = f"not JSON: {error}"
        raise InvalidRequest(msg) from None
    return decode_strict(body, _decoder)


def boundaries(context: RequestContext) -> list[str | None]:
    """The boundary headers of a request, as far as they are there."""
    return [context.text(name) for name in _BOUNDARIES]


class Rewrite(HotRoute):
    """POST /v1/rewrite."""

    limit = MAX_REWRITE
    surface = "rewrite"

    async def answer(self, context: RequestContext, body: bytes, send: Send) -> None:
        """See `HotRoute.answer`."""
        runtime, settings = self.runtime, self.runtime.settings
        asked = min(context.deadline_ms() or settings.deadline_ms, settings.deadline_max_ms)
        outcome, answer = await runtime.rewriter.rewrite(
            decode_rewrite(body),
            headers=boundaries(context),
            seconds=asked / 1000.0,
            request_id=context.request_id,
        )
        await respond(send, 200, context.answer_headers(b"application/json", len(answer)), answer)
        runtime.exporter.request(surface=self.surface, outcome="ok")
        runtime.rewriter.log(outcome, context.request_id)
