"""The admin plane's OpenAPI document, made from its routes: what each requires, takes and gives.

Kept in docs/admin-openapi.json, which is also the inventory of routes (OWASP API9): a new route, or one that requires
less, is a change of that file and seen in review.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter

from sidecar_api.admin.answers import Act, Proposed
from sidecar_api.admin.app import served
from sidecar_api.admin.describe import MEMBER, Told
from sidecar_api.admin.plane import Plane, Requires
from sidecar_api.admin.routes import Outside, router
from sidecar_api.admin.signatures import COMPONENTS, IF_PRESENT, TAG
from sidecar_api.schemas import Problem
from tcd import __version__
from tcd.errors import ConfigError
from tcd.kept import keep

_REF: Final = "#/components/schemas/{model}"
_TEXT: Final = {
    400: "malformed: another host, a header twice or of a wrong form",
    401: "no valid token, or no valid signature of this very request",
    403: "the scope, the tenant or the two-person rule does not allow it",
    404: "there is no such thing, or it is another tenant's",
    409: "in conflict with what is there, or an idempotency key of another request",
    413: "more than 1 MiB",
    422: "a member is unknown, mistyped or out of its limits; `pointer` names it",
    429: "too many requests",
    500: "a defect of the server",
    503: "a needed part is away, or there is no room",
}
_ALWAYS: Final = (400, 413, 429, 500, 503)
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[\\x21-\\x7e]+$"},
}
_ENROLS: Final = Requires(None, mutates=True, everywhere=True)


class _Unconnected:
    """Stands for a shim while the routes are read; no route is called."""

    def __getattr__(self, _: str) -> _Unconnected:
        return self

    def __call__(self, *_: object, **__: object) -> _Unconnected:
        return self


def routes() -> list[APIRoute]:
    """The routes of an admin plane that is connected to nothing."""
    nothing = _Unconnected()
    made = router(cast("Plane", nothing), cast("Outside", nothing)).routes
    return [route for route in made if isinstance(route, APIRoute)]


def _told(route: APIRoute) -> Told:
    found = (route.openapi_extra or {}).get(MEMBER)
    if not isinstance(found, Told):
        msg = f"{route.path} does not say what it takes and gives: @made.get(PATH, **says(...)), sidecar_api/admin/"
        msg += "describe.py"
        raise ConfigError(msg)
    return found


class _Schemas:
    """JSON schemas of all types, made at once so that names are shared."""

    def __init__(self, every: list[APIRoute]) -> None:
        kinds: list[tuple[Any, Any]] = [(Act, "serialization"), (Proposed, "serialization")]
        for told in map(_told, every):
            kinds.append((told.gives, "serialization"))
            kinds.extend((kind, "validation") for kind in (told.takes, told.asks) if kind is not None)
        wanted = [(str(at), mode, TypeAdapter(kind)) for at, (kind, mode) in enumerate(kinds)]
        found, rest = TypeAdapter.json_schemas(wanted, ref_template=_REF)
        self._of = [(kind, found[key, mode]) for (kind, mode), (key, _, _) in zip(kinds, wanted, strict=True)]
        self.named: dict[str, Any] = rest.get("$defs", {})
        for schema in self.named.values():
            _close(schema)

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type."""
        return next(dict(schema) for known, schema in self._of if known is kind or known == kind)

    def whole(self, kind: type[BaseModel]) -> dict[str, Any]:
        """The same, not as a reference."""
        found = self.of(kind)
        name = found.get("$ref", "").rpartition("/")[2]
        return dict(self.named[name]) if name else found


def _close(schema: Any) -> None:
    """Say of maps with checked names, as pydantic does not, that other names are refused."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for inner in schema.values():
            _close(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _close(inner)


def _parameters(route: APIRoute, told: Told, schemas: _Schemas, *, key: bool) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)", route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    if told.asks is not None:
        asked = schemas.whole(told.asks)
        for name, schema in asked["properties"].items():
            some = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
            plain = some[0] if some else {k: v for k, v in schema.items() if k not in {"title", "default"}}
            yield {"name": name, "in": "query", "required": name in asked.get("required", ()), "schema": plain}
    if key:
        yield _KEY


def _codes(told: Told, requires: Requires, path: str) -> set[int]:
    codes = {*_ALWAYS, 401, *told.refuses}
    if requires.scope is not None or requires.everywhere or requires.mutates:
        codes.add(403)
    if "{" in path:
        codes.add(404)
    if told.takes is not None or told.asks is not None:
        codes.add(422)
    if requires.mutates:
        codes.add(409)
    return codes


def _operation(route: APIRoute, requires: Requires, schemas: _Schemas, *, enrols: bool) -> dict[str, Any]:
    told = _told(route)
    status, gives = told.status, told.gives
    if requires.pair:
        status, gives = 202, Proposed
    elif requires.mutates and gives == dict[str, Any]:
        gives = Act
    problem = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
    answer = {"description": route.summary, "content": {told.media: {"schema": schemas.of(gives)}}}
    refusals = {str(c): {"description": _TEXT[c], "content": problem} for c in _codes(told, requires, route.path)}
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": list(_parameters(route, told, schemas, key=requires.mutates and not enrols)),
        "responses": {str(status): answer, **refusals},
        "security": [{"token": [], "signature": []} if requires.mutates else {"token": []}],
        "x-tcd-scope": "bootstrap" if enrols else requires.scope,
        "x-tcd-people": 2 if requires.pair else 1,
        "x-tcd-tenants": "all" if requires.everywhere else "own",
    }
    if told.takes is not None:
        body = {"application/json": {"schema": schemas.of(told.takes)}}
        made["requestBody"] = {"required": True, "content": body}
    return made


def document() -> dict[str, Any]:
    """The document, OpenAPI 3.1.

    Raises:
        ConfigError: a route does not say what it takes and gives, or requires nothing.
    """
    every = routes()
    schemas = _Schemas(every)
    paths: dict[str, Any] = {}
    for (method, path), (route, gate) in served(every).items():
        requires, enrols = (gate, False) if isinstance(gate, Requires) else (_ENROLS, True)
        paths.setdefault(path, {})[method.lower()] = _operation(route, requires, schemas, enrols=enrols)
    signature = (
        f"RFC 9421 by the token's key, tag {TAG}, over {', '.join(COMPONENTS)}, and {', '.join(IF_PRESENT)} where "
    )
    signature += "the request has it; with Signature-Input and Content-Digest (docs/admin-security.md)"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tcd admin",
            "version": __version__,
            "summary": "The admin plane: every call with a token, every change signed and logged",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas.named, "Problem": _problem()},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "signature": {"type": "apiKey", "in": "header", "name": "Signature", "description": signature},
            },
        },
    }


def _problem() -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    _, found = msgspec.json.schema_components([Problem], ref_template="#/components/schemas/{name}")
    return dict(found["Problem"])


#: Where the document is kept.
KEPT: Final = Path(__file__).resolve().parents[2] / "docs" / "admin-openapi.json"


def text() -> str:
    """The document as the kept file has it."""
    return json.dumps(document(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.exit(keep("sidecar_api.admin.openapi", {KEPT: text}))
