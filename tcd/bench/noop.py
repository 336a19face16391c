"""The floors of /diagnose: the same server, decoding and body, and a fixed answer; as raw ASGI and as a route."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sidecar_api.schemas import DiagnoseRequest

#: Raw ASGI is the style of the shim's own hot route; `route` is the least that a framework takes.
STYLES: Final = ("raw", "route")
_decode: Final = msgspec.json.Decoder(DiagnoseRequest).decode
App = Callable[[Any, Any, Any], Awaitable[None]]


def raw_app(answer: bytes) -> App:
    """An ASGI app whose every path decodes the request strictly and returns `answer`."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    body = {"type": "http.response.body", "body": answer}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        _decode(b"".join(parts))
        await send(start)
        await send(body)

    return app


def route_app(answer: bytes) -> Starlette:
    """The same as a route of Starlette."""

    async def diagnose(request: Request) -> Response:
        _decode(await request.body())
        return Response(answer, media_type="application/json")

    return Starlette(routes=[Route("/diagnose", diagnose, methods=["POST"])])


def main() -> None:
    """`python -m tcd.bench.noop PORT STYLE`: serve on loopback; the answer comes on standard input."""
    answer = sys.stdin.buffer.read()
    port, style = int(sys.argv[1]), sys.argv[2]
    app = raw_app(answer) if style == "raw" else route_app(answer)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        lifespan="off",
    )


if __name__ == "__main__":
    main()
