"""The schema document is that of the decoder, and schemathesis finds nothing that answers 500 or off the schema."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any
from unittest import SkipTest

import msgspec
import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from sidecar_api.app import create_app
from sidecar_api.http.cold import router
from sidecar_api.http.openapi import document
from sidecar_api.pins import FixedAssets
from sidecar_api.schemas import DiagnoseRequest, RiskResponse


def test_every_route_is_documented(make_client: Any) -> None:
    app = make_client().app
    cold = [r for r in router(app.runtime).routes if isinstance(r, APIRoute)]
    # OpenAPI has no word for a parameter that spans segments
    routes = {(r.path.replace(":path}", "}"), m.lower()) for r in cold for m in r.methods or ()}
    routes |= {(path, "post") for path in app._hot}
    documented = {(path, method) for path, item in document()["paths"].items() for method in item}
    assert routes == documented


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


WANTED = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
OPERATIONS = tuple((path, method) for path, item in document()["paths"].items() for method in item)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_schemathesis(kit: Any, path: str, method: str, mode: GenerationMode) -> None:
    app = create_app(
        kit.settings_of(edge_rate_cap=1e9, edge_rate_refill=1e9, log_decisions=False),
        scorer=kit.ScriptedScorer(0.5),
        assets=FixedAssets(kit.synthetic_assets()),
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operation = schema[path][method]
    try:
        strategy = operation.as_strategy(generation_mode=mode)
        strategy.validate()
    except Unsatisfiable:
        return

    @seed(1)
    @settings(
        max_examples=20, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(case=strategy)
    def run(case: Any) -> None:
        # a short deadline may pass: the 504 is documented, and tested with a scorer that hangs
        for part in (case.body, case.headers):
            if isinstance(part, MutableMapping):
                for name in ("deadline_ms", "X-Deadline-Ms", "x-deadline-ms"):
                    part.pop(name, None)
        case.call_and_validate(checks=CHECKS.get_by_names(list(WANTED)))

    try:
        run()
    except (Unsatisfiable, SkipTest):
        # nothing can be wrong with a request that has no parameters
        assert mode is GenerationMode.NEGATIVE
