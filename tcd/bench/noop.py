"""The floor of /diagnose: the same server, route style, decoding and body, and a fixed answer."""

from __future__ import annotations

import sys

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sidecar_api.schemas import DiagnoseRequest


def create_app(answer: bytes) -> Starlette:
    """An app whose POST /diagnose decodes the request strictly and returns `answer`."""
    decoder = msgspec.json.Decoder(DiagnoseRequest)

    async def diagnose(request: Request) -> Response:
        decoder.decode(await request.body())
        return Response(answer, media_type="application/json")

    return Starlette(routes=[Route("/diagnose", diagnose, methods=["POST"])])


def main() -> None:
    """`python -m tcd.bench.noop PORT`: serve on loopback; the answer comes on standard input."""
    app = create_app(sys.stdin.buffer.read())
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning")


if __name__ == "__main__":
    main()
