"""The log's routes in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sidecar_api.http.log_schemas import ChainHead, Consistent, Included, LogKeys, ReceiptOut
from sidecar_api.log.service import MAX_WAIT_S

Problems = Callable[..., dict[str, Any]]
_HEAD: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_SIZE: Final = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_LEVEL: Final = {"type": "string", "pattern": "^([0-9]{1,2}|entries)$"}
#: Further segments follow as C2SP has them, `x001/067` and `000.p/12`; OpenAPI has no word for them.
_INDEX: Final = {"type": "string", "pattern": "^[0-9]{3}$"}


def _at(place: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _answer(description: str, media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": description, "content": {media: {"schema": schema}}}}


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def log_paths(*, problems: Problems) -> dict[str, Any]:
    """The paths; `problems` gives the answers of error codes."""
    text, raw = {"type": "string"}, {"type": "string", "format": "binary"}

    def get(operation: str, summary: str, answer: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
        responses = {**answer, **problems("404", "422", "429", "503")}
        return {
            "get": {"operationId": operation, "summary": summary, "responses": responses, "parameters": [*parameters]}
        }

    head = _at("path", "head", _HEAD)
    size = _at("query", "size", _SIZE)
    # seconds up to MAX_WAIT_S, which is 30
    wait = _at("query", "wait", {"type": "string", "pattern": "^([0-2]?[0-9](\\.[0-9]{1,3})?|30(\\.0{1,3})?)$"})
    proof = _answer(f"C2SP tlog-proof@v1; `wait` up to {MAX_WAIT_S:g} seconds for it", "text/plain", text)
    out = {
        "/v1/log/checkpoint": get(
            "log_checkpoint", "Newest checkpoint", _answer("a C2SP signed note", "text/plain", text)
        ),
        "/v1/log/tile/{level}/{index}": get(
            "log_tile",
            "Tile or bundle of entries",
            _answer("C2SP tlog-tiles", "application/octet-stream", raw),
            _at("path", "level", _LEVEL),
            _at("path", "index", _INDEX),
        ),
        "/v1/log/heads/{chain}": get(
            "log_heads",
            "Newest record of a chain",
            _answer("under a heads record", "application/json", _ref(ChainHead)),
            _at("path", "chain", _HEAD),
        ),
        "/v1/log/keys": get("log_keys", "Key set", _answer("tcd.keyset/1", "application/json", _ref(LogKeys))),
        "/v1/log/proof/{head}": get("log_proof", "Proof of a receipt", proof, head, wait),
        "/v1/log/inclusion/{index}": get(
            "log_inclusion",
            "Inclusion of a leaf",
            _answer("RFC 9162", "application/json", _ref(Included)),
            _at("path", "index", _SIZE),
            size,
        ),
        "/v1/log/consistency/{old}": get(
            "log_consistency",
            "Consistency of two sizes",
            _answer("RFC 9162", "application/json", _ref(Consistent)),
            _at("path", "old", _SIZE),
            size,
        ),
        "/v1/receipts/{head}": get(
            "receipt", "A receipt", _answer("with its proof", "application/json", _ref(ReceiptOut)), head
        ),
        "/v1/receipts/{head}/bundle": get(
            "receipt_bundle",
            "The chain of a receipt",
            _answer("a bundle for `tcd verify bundle`", "application/json", {"type": "object"}),
            head,
            _at("query", "first", _SIZE),
        ),
    }
    for path in ("/v1/receipts/{head}", "/v1/receipts/{head}/bundle"):
        operation = out[path]["get"]
        operation["responses"].update(problems("403"))
        operation["security"] = [{"bearer": []}]
    return out
