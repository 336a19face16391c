"""The OpenAPI document, made from the msgspec structs that decode and encode: one schema source."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from sidecar_api.caller_schemas import ReserveRequest, ReserveResponse, SettleRequest
from sidecar_api.decode import MAX_BATCH_ITEMS
from sidecar_api.http.cold_schemas import Health, Live, Loaded, Ready, StateIn, StateOut, Version
from sidecar_api.http.log_openapi import log_paths
from sidecar_api.http.log_schemas import ChainHead, Consistent, Included, LogKeys, ReceiptOut
from sidecar_api.rewrite_schemas import NonceResponse, RewriteRequest, RewriteResponse
from sidecar_api.schemas import BatchResponse, DiagnoseRequest, Problem, RiskResponse, VerifyRequest, VerifyResponse
from sidecar_api.snapshot import Key
from tcd import __version__
from tcd.kept import keep

_COMMON: Final = ("400", "413", "429", "500", "503")
_TEXT: Final = {
    "400": "malformed: not JSON, wrong content type, bad header",
    "403": "no token of the scope",
    "404": "no such path, reservation, receipt, leaf or tile",
    "405": "the path knows other methods",
    "409": "step out of order, session busy, idempotency key of another request",
    "413": "too many bytes",
    "422": "a member is unknown, mistyped or out of its limits; `pointer` names it",
    "429": "rate limit",
    "500": "a defect of the server",
    "503": "overloaded, stopping, or a needed part is away",
    "504": "the deadline passed before anything was decided",
}
_KEY: Final = ("model_id", "gpu_id", "task", "lang")


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _problems(*codes: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _ref(Problem)}}
    return {code: {"description": _TEXT[code], "content": content} for code in codes}


def _json(kind: type, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(kind)}}}


def _post(operation: str, summary: str, request: type, answer: dict[str, Any], *codes: str) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(request)}}},
        "responses": {"200": answer, **_problems(*_COMMON, *codes)},
    }


def _get(operation: str, summary: str, answers: dict[str, Any], *codes: str) -> dict[str, Any]:
    return {"operationId": operation, "summary": summary, "responses": {**answers, **_problems(*codes)}}


def _ids() -> list[dict[str, Any]]:
    token = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[\\x21-\\x7e]+$"}
    deadline = {"type": "string", "pattern": "^[1-9][0-9]{0,5}(\\.[0-9]{1,3})?$"}
    return [
        {"name": "X-Request-Id", "in": "header", "required": False, "schema": token},
        {"name": "Idempotency-Key", "in": "header", "required": False, "schema": token},
        {"name": "X-Deadline-Ms", "in": "header", "required": False, "schema": deadline},
    ]


def _paths() -> dict[str, Any]:
    decided = _json(RiskResponse, "the decision, also when the ensemble did not answer (`cause=degraded`)")
    verified = _json(VerifyResponse, "the report; a failed verification has `ok=false`")
    out: dict[str, Any] = {}
    for prefix, tag in (("", ""), ("/v1", "_v1")):
        diagnose = _post(f"diagnose{tag}", "Decide about one step", DiagnoseRequest, decided, "409", "422", "504")
        out[f"{prefix}/diagnose"] = {"post": {**diagnose, "parameters": _ids()}}
        verify = _post(f"verify{tag}", "Verify one receipt or a chain", VerifyRequest, verified, "422")
        out[f"{prefix}/verify"] = {"post": verify}
    reserved = _json(ReserveResponse, "the level of the generation's hypothesis; reserving again debits nothing")
    reserve = _post("reserve", "Reserve a level for a direct caller", ReserveRequest, reserved, "409", "422", "504")
    out["/v1/reserve"] = {"post": {**reserve, "parameters": _ids()}}
    settle = _post("settle", "Settle what the ensemble answered", SettleRequest, decided, "404", "409", "422", "504")
    out["/v1/settle"] = {"post": {**settle, "parameters": _ids()}}
    anything = {"description": "whatever else is there is refused on its own, in its place among the results"}
    items = {"anyOf": [_ref(DiagnoseRequest), anything]}
    many = {"type": "array", "items": items, "minItems": 1, "maxItems": MAX_BATCH_ITEMS}
    batch = _post("diagnose_batch", "Decide about many steps", DiagnoseRequest, _json(BatchResponse, "results"), "422")
    batch["requestBody"]["content"]["application/json"]["schema"] = many
    out["/v1/diagnose:batch"] = {"post": batch}
    out |= _rewriting()
    simple = (
        ("healthz", Health, "Liveness and features"),
        ("livez", Live, "Liveness"),
        ("version", Version, "Version"),
    )
    for name, kind, summary in simple:
        out[f"/{name}"] = {"get": _get(name, summary, {"200": _json(kind, summary)}, "429")}
    ready = {"200": _json(Ready, "ready"), "503": _json(Ready, "not ready")}
    verbose = {"name": "verbose", "in": "query", "required": False, "schema": {"type": "string"}}
    out["/readyz"] = {"get": {**_get("readyz", "Readiness", ready, "429"), "parameters": [verbose]}}
    page = {"description": "Prometheus or OpenMetrics text", "content": {"text/plain": {"schema": {"type": "string"}}}}
    out["/metrics"] = {"get": _get("metrics", "Metrics", {"200": page}, "429")}
    document = {"description": "this document", "content": {"application/json": {"schema": {"type": "object"}}}}
    out["/openapi.json"] = {"get": _get("openapi", "This document", {"200": document}, "429")}
    key = msgspec.json.schema(Key)["$defs"]["Key"]["properties"]
    keys = [{"name": name, "in": "query", "required": False, "schema": key[name]} for name in _KEY]
    state = _get("state_get", "Snapshot of a key's sessions", {"200": _json(StateOut, "the snapshot")})
    state["responses"].update(_problems("403", "422", "429"))
    out["/state/get"] = {"get": {**state, "parameters": keys, "security": [{"bearer": []}]}}
    load = _post("state_load", "Load a snapshot", StateIn, _json(Loaded, "loaded"), "403", "409", "422")
    out["/state/load"] = {"post": {**load, "security": [{"bearer": []}]}}
    return out | log_paths(problems=_problems)


def _rewriting() -> dict[str, Any]:
    rewritten = _json(RewriteResponse, "the body to forward, and what was done to it")
    rewrite = _post("rewrite", "Mark the untrusted text of a request", RewriteRequest, rewritten, "422", "504")
    issued = {"200": _json(NonceResponse, "the nonce"), **_problems("403", "429")}
    nonce = _get("spotlight_nonce", "A nonce for inline tags", issued)
    return {
        "/v1/rewrite": {"post": {**rewrite, "parameters": [_ids()[0], _ids()[2]]}},
        "/v1/spotlight/nonce": {"post": {**nonce, "security": [{"bearer": []}]}},
    }


def document() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    kinds = [
        *(DiagnoseRequest, RiskResponse, VerifyRequest, VerifyResponse, Problem, BatchResponse),
        *(ReserveRequest, ReserveResponse, SettleRequest),
        *(RewriteRequest, RewriteResponse, NonceResponse),
        *(Health, Live, Ready, Version, StateIn, StateOut, Loaded),
        *(ChainHead, Included, Consistent, LogKeys, ReceiptOut),
    ]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tcd",
            "version": __version__,
            "summary": "Anytime-valid, verifiable safety sidecar for LLM inference",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


#: Where the document is kept, so that a change of the surface is seen in review.
KEPT: Final = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


def text() -> str:
    """The document as the kept file has it."""
    return json.dumps(document(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.exit(keep("sidecar_api.http.openapi", {KEPT: text}))
