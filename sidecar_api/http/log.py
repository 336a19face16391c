"""The log over HTTP, as C2SP tlog-tiles has it, and receipts for whoever may read them."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response

from sidecar_api.http.log_schemas import ChainHead, Consistent, Included, LogKeys, ReceiptOut
from sidecar_api.http.runtime import Runtime
from sidecar_api.log.service import MAX_WAIT_S, LogService
from tcd.errors import NotFound, ValidationFailed

_encode: Final = msgspec.json.Encoder().encode
_HEAD: Final = re.compile(r"[0-9a-f]{64}")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SECONDS: Final = re.compile(r"[0-9]{1,2}(\.[0-9]{1,3})?")
_TEXT: Final = "text/plain; charset=utf-8"
#: A full tile never changes.
_FOREVER: Final = {"cache-control": "public, max-age=31536000, immutable"}
_FRESH: Final = {"cache-control": "no-cache"}
_PRIVATE: Final = {"cache-control": "no-store"}


def add_routes(routes: APIRouter, runtime: Runtime) -> None:
    """The routes over `runtime`."""
    _log(routes, runtime)
    _proofs(routes, runtime)
    _receipts(routes, runtime)


def _service(runtime: Runtime) -> LogService:
    if runtime.log is None:
        msg = "the log is switched off"
        raise NotFound(msg)
    return runtime.log


def _json(value: Any, headers: dict[str, str]) -> Response:
    return Response(_encode(value), media_type="application/json", headers=headers)


def _queries(request: Request, *known: str) -> dict[str, str]:
    """The query's members, each once and known.

    Raises:
        ValidationFailed: another one, or one twice.
    """
    found = dict(request.query_params.multi_items())
    if len(found) != len(request.query_params.multi_items()) or not found.keys() <= set(known):
        msg = f"the query takes {', '.join(known) or 'nothing'}, each once"
        raise ValidationFailed(msg, pointer="")
    return found


def _number(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if _NUMBER.fullmatch(text) is None or int(text) >= 2**63:
        msg = "not a decimal number below 2^63"
        raise ValidationFailed(msg, pointer=f"/{name}")
    return int(text)


def _seconds(text: str | None) -> float:
    if text is None:
        return 0.0
    if _SECONDS.fullmatch(text) is None or float(text) > MAX_WAIT_S:
        msg = f"not 0 to {MAX_WAIT_S:g} seconds"
        raise ValidationFailed(msg, pointer="/wait")
    return float(text)


def _head(text: str, name: str = "head") -> str:
    if _HEAD.fullmatch(text) is None:
        msg = f"a {name} is 64 lower-case hex digits"
        raise ValidationFailed(msg, pointer=f"/{name}")
    return text


def _log(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/v1/log/checkpoint")
    async def log_checkpoint(request: Request) -> Response:
        _queries(request)
        return Response(_service(runtime).newest().note, media_type=_TEXT, headers=_FRESH)

    @routes.get("/v1/log/tile/{level}/{index:path}")
    async def log_tile(request: Request, level: str, index: str) -> Response:
        _queries(request)
        content, full = await _service(runtime).tile(f"tile/{level}/{index}")
        return Response(content, media_type="application/octet-stream", headers=_FOREVER if full else _FRESH)

    @routes.get("/v1/log/heads/{chain}")
    async def log_heads(request: Request, chain: str) -> Response:
        _queries(request)
        writer = _service(runtime).heads
        if writer is None:
            msg = "heads records are switched off"
            raise NotFound(msg)
        found, state, proof = writer.prove(f"sha256:{_head(chain, 'chain')}")
        out = ChainHead(
            receipt=found.record.head_hex,
            receipt_body=found.record.body_text,
            receipt_sig=found.record.sig_hex,
            chain=state.id,
            seq=state.seq - 1,
            head=state.prev,
            index=proof.index,
            path=[item.hex() for item in proof.path],
        )
        return _json(out, _FRESH)

    @routes.get("/v1/log/keys")
    async def log_keys(request: Request) -> Response:
        _queries(request)
        keys = _service(runtime).keys().to_json()
        return _json(LogKeys(v=keys["v"], keys=keys["keys"]), _FRESH)


def _proofs(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/v1/log/proof/{head}")
    async def log_proof(request: Request, head: str) -> Response:
        wait = _seconds(_queries(request, "wait").get("wait"))
        proof = await _service(runtime).proof(_head(head), wait=wait)
        return Response(proof, media_type=_TEXT, headers=_FRESH)

    @routes.get("/v1/log/inclusion/{index}")
    async def log_inclusion(request: Request, index: str) -> Response:
        asked = _number(_queries(request, "size").get("size"), "size")
        place = _number(index, "index") or 0
        size, path = await _service(runtime).inclusion(place, asked)
        return _json(Included(index=place, size=size, path=[item.hex() for item in path]), _FRESH)

    @routes.get("/v1/log/consistency/{old}")
    async def log_consistency(request: Request, old: str) -> Response:
        asked = _number(_queries(request, "size").get("size"), "size")
        before = _number(old, "old") or 0
        size, path = await _service(runtime).consistency(before, asked)
        return _json(Consistent(old=before, size=size, path=[item.hex() for item in path]), _FRESH)


def _receipts(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/v1/receipts/{head}")
    async def receipt(request: Request, head: str) -> Response:
        runtime.tokens.require(request.headers.get("authorization"), "receipts:read")
        _queries(request)
        service = _service(runtime)
        found = await service.receipt(_head(head))
        key = service.keys().get(found.receipt.kid)
        out = ReceiptOut(
            receipt=found.receipt.head_hex,
            receipt_body=found.receipt.body_text,
            receipt_sig=found.receipt.sig_hex,
            verify_key=key.public.hex() if key is not None else None,
            receipt_proof=found.proof,
            index=found.index,
        )
        return _json(out, _PRIVATE)

    @routes.get("/v1/receipts/{head}/bundle")
    async def receipt_bundle(request: Request, head: str) -> Response:
        runtime.tokens.require(request.headers.get("authorization"), "receipts:read")
        first = _number(_queries(request, "first").get("first"), "first") or 0
        out = await _service(runtime).bundle(_head(head), first=first)
        return Response(out, media_type="application/json", headers=_PRIVATE)
