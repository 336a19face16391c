"""An OpenAPI document as Markdown: operations by path, then the schemas they name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

_METHODS: Final = ("get", "post", "put", "patch", "delete")


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = _name(schema["$ref"])
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_kind(one) for one in schema[word]))
    return _plain(schema)


def _plain(schema: Mapping[str, Any]) -> str:
    """A schema with a type of its own."""
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array" and "prefixItems" in schema:
        return f"array of {', '.join(map(_kind, schema['prefixItems']))}"
    if kind == "array":
        return f"array of {_kind(schema.get('items', {}))}" + _limits(schema, ("minItems", "maxItems"))
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return str(kind) + _limits(schema, ("minimum", "exclusiveMinimum", "maximum", "minLength", "maxLength"))


def _limits(schema: Mapping[str, Any], names: tuple[str, ...]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    said = [
        f"{signs[name]} {schema[name]}"
        if name in signs
        else f"{'≥' if name.startswith('min') else '≤'} {schema[name]} long"
        for name in names
        if name in schema
    ]
    return f" ({', '.join(said)})" if said else ""


def _content(content: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{_kind(media['schema'])} (`{name}`)" if media.get("schema") else f"`{name}`"
        for name, media in content.items()
    )


def _operation(method: str, path: str, spec: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`"
    for text in (spec.get("summary"), spec.get("description")):
        if text:
            yield f"{text}"
            yield ""
    if spec.get("security"):
        scopes = [scope for one in spec["security"] for values in one.values() for scope in values]
        yield f"Needs a token{' with ' + ', '.join(f'`{s}`' for s in scopes) if scopes else ''}.\n"
    parameters = spec.get("parameters", [])
    if parameters:
        yield "| parameter | in | type | |\n|---|---|---|---|"
        for one in parameters:
            required = "required" if one.get("required") else ""
            said = _cell(one.get("description", "") or required)
            yield f"| `{one['name']}` | {one['in']} | {_cell(_kind(one.get('schema', {})))} | {said} |"
        yield ""
    body = spec.get("requestBody")
    if body:
        yield f"Body: {_content(body['content'])}\n"
    yield "| status | body | |\n|---|---|---|"
    for status, answer in sorted(spec.get("responses", {}).items()):
        yield f"| {status} | {_cell(_content(answer.get('content', {})))} | {_cell(answer.get('description', ''))} |"
    yield ""


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    if schema.get("description"):
        yield f"{' '.join(schema['description'].split())}\n"
    properties = schema.get("properties")
    if not properties:
        yield f"{_kind(schema)}\n"
        return
    required = set(schema.get("required", ()))
    yield "| member | type | default | |\n|---|---|---|---|"
    for member, kind in properties.items():
        default = "required" if member in required else f"`{json.dumps(kind['default'])}`" if "default" in kind else ""
        yield f"| `{member}` | {_cell(_kind(kind))} | {_cell(default)} | {_cell(kind.get('description', ''))} |"
    yield ""


def render(title: str, note: str, document: Mapping[str, Any]) -> str:
    """The page of a document.

    Args:
        title: of the page.
        note: a paragraph below it.
        document: OpenAPI 3.1, as it is kept in `docs/`.

    Returns:
        Markdown with one heading per operation and schema.
    """
    lines = [f"# {title}", "", note, "", "## Operations", ""]
    for path, operations in sorted(document["paths"].items()):
        for method in _METHODS:
            if method in operations:
                lines += _operation(method, path, operations[method])
    lines += ["## Schemas", ""]
    for name, schema in sorted(document.get("components", {}).get("schemas", {}).items()):
        lines += _schema(name, schema)
    return "\n".join(lines)
