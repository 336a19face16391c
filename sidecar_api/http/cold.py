"""The routes that are not hot, on FastAPI: health, readiness, version, metrics, schema, state, log."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response

from sidecar_api.decode import check_content_type
from sidecar_api.http import log
from sidecar_api.http.body import check_length, read_body
from sidecar_api.http.cold_schemas import Live, Loaded, Ready, StateIn
from sidecar_api.http.openapi import document
from sidecar_api.http.runtime import Runtime
from sidecar_api.rewrite_schemas import NonceResponse
from sidecar_api.snapshot import MAX_BYTES, Key
from sidecar_api.strict import decode_strict
from tcd import __version__
from tcd.errors import ValidationFailed

_encode: Final = msgspec.json.Encoder().encode
_state: Final = msgspec.json.Decoder(StateIn, strict=True)
KEY_DEFAULTS: Final = {"model_id": "model0", "gpu_id": "gpu0", "task": "chat", "lang": "en"}


def _json(value: Any, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")


def router(runtime: Runtime) -> APIRouter:
    """The routes over `runtime`."""
    routes = APIRouter()
    _health(routes, runtime)
    _documents(routes, runtime)
    _states(routes, runtime)
    _nonces(routes, runtime)
    log.add_routes(routes, runtime)
    return routes


def _health(routes: APIRouter, runtime: Runtime) -> None:
    prom = runtime.settings.prom_port != 0

    @routes.get("/healthz")
    async def healthz() -> Response:
        return _json(runtime.health())

    @routes.get("/livez")
    async def livez() -> Response:
        return _json(Live(ok=True))

    @routes.get("/readyz")
    async def readyz(request: Request) -> Response:
        found = runtime.readiness()
        ready = not any(found.values())
        verbose = "verbose" in request.query_params
        checks = {name: why or "ok" for name, why in found.items()} if verbose else None
        return _json(Ready(ready=ready, prom_http=prom, checks=checks), 200 if ready else 503)

    @routes.get("/version")
    async def version() -> Response:
        return _json(runtime.version(__version__))


def _documents(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/metrics")
    async def metrics(request: Request) -> Response:
        page, content_type = runtime.exporter.expose(
            request.headers.get("accept", ""),
            sessions=len(runtime.service.sessions),
            dropped=runtime.logs.dropped,
        )
        return Response(page, headers={"content-type": content_type})

    @routes.get("/openapi.json")
    async def openapi() -> Response:
        return _json(document())


def _states(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/state/get")
    async def state_get(request: Request) -> Response:
        runtime.tokens.require(request.headers.get("authorization"), "state:read")
        state = await runtime.state.get_json(_key(request))
        return Response(b'{"detector":' + state + b"}", media_type="application/json")

    @routes.post("/state/load")
    async def state_load(request: Request) -> Response:
        runtime.tokens.require(request.headers.get("authorization"), "state:load")
        length = request.headers.get("content-length")
        check_length(length.encode() if length is not None else None, MAX_BYTES)
        sent = dict(request.scope["headers"])
        check_content_type(sent.get(b"content-type"), sent.get(b"content-encoding"))
        body = await read_body(request.receive, MAX_BYTES, timeout=runtime.settings.body_timeout_s)
        value = await asyncio.to_thread(decode_strict, body, _state)
        key = Key(model_id=value.model_id, gpu_id=value.gpu_id, task=value.task, lang=value.lang)
        loaded = await runtime.state.load(key, value.detector)
        return _json(Loaded(ok=True, sessions=loaded, digest=value.detector.digest))


def _nonces(routes: APIRouter, runtime: Runtime) -> None:
    @routes.post("/v1/spotlight/nonce")
    async def spotlight_nonce(request: Request) -> Response:
        runtime.tokens.require(request.headers.get("authorization"), "spotlight:nonce")
        return _json(NonceResponse(nonce=runtime.rewriter.nonce()))


def _key(request: Request) -> Key:
    """The key of the query string.

    Raises:
        ValidationFailed: a name is unknown, twice there or out of its limits.
    """
    pairs = request.query_params.multi_items()
    if len({name for name, _ in pairs} & KEY_DEFAULTS.keys()) != len(pairs):
        msg = f"the query string has {', '.join(KEY_DEFAULTS)}, each once at most"
        raise ValidationFailed(msg, pointer="")
    values = {name: request.query_params.get(name, default) for name, default in KEY_DEFAULTS.items()}
    try:
        return msgspec.convert(values, Key, strict=True)
    except msgspec.ValidationError as error:
        raise ValidationFailed(str(error).replace("`", ""), pointer="") from None
