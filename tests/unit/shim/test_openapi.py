"""The schema document is that of the decoder, and the kept one is the newest."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from fastapi.routing import APIRoute

from sidecar_api.http.cold import router
from sidecar_api.http.openapi import KEPT, document, text
from sidecar_api.schemas import DiagnoseRequest, RiskResponse


def test_every_route_is_documented(make_client: Any) -> None:
    app = make_client().app
    cold = [r for r in router(app.runtime).routes if isinstance(r, APIRoute)]
    # OpenAPI has no word for a parameter that spans segments
    routes = {(r.path.replace(":path}", "}"), m.lower()) for r in cold for m in r.methods or ()}
    routes |= {(path, "post") for path in app._hot}
    documented = {(path, method) for path, item in document()["paths"].items() for method in item}
    assert routes == documented


def test_the_kept_document_is_this_one() -> None:
    assert KEPT.read_text() == text(), "run `make proto`"


def test_the_document_is_made_of_the_structs() -> None:
    schemas = document()["components"]["schemas"]
    request = schemas["DiagnoseRequest"]
    assert request["additionalProperties"] is False
    assert set(request["properties"]) == {f.encode_name for f in msgspec.structs.fields(DiagnoseRequest)}
    assert request["properties"]["trace_vector"]["maxItems"] == 4096
    assert set(schemas["RiskResponse"]["properties"]) == {f.encode_name for f in msgspec.structs.fields(RiskResponse)}
    text = json.dumps(document())
    refs = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert refs <= set(schemas)
