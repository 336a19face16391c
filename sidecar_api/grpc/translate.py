"""Messages to the members of the one schema, and answers to messages. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from sidecar_api.schemas import MAX_SAFE, Problem
from tcd.v1 import tcd_pb2 as pb

#: Members of components that have a message of their own.
_PARTS: Final = ("multivariate", "av", "input")
_COMMON: Final = frozenset({"triggered", "severity", "p_value", "details"})


def _value(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        # a Struct knows doubles only; the schema tells integers and reals apart
        return int(number) if number.is_integer() and abs(number) <= MAX_SAFE else number
    if kind == "struct_value":
        return struct(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    return None if kind in {None, "null_value"} else getattr(value, kind)


def struct(message: Struct) -> dict[str, Any]:
    """A Struct as JSON has it; a number without a fraction is an integer."""
    return {name: _value(value) for name, value in message.fields.items()}


def members(message: Message) -> dict[str, Any]:
    """The members of a request that are there, by the names of the HTTP surface."""
    out: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if isinstance(value, Struct):
            out[name] = struct(value)
        elif isinstance(value, Message):
            # absent members of nested messages have no other default
            out[name] = {field.name: getattr(value, field.name) for field in value.DESCRIPTOR.fields}
        elif isinstance(value, str | bytes | int | float):
            out[name] = value
        elif name == "feature_window":
            out[name] = [list(row.values) for row in value]
        elif name == "witness_segments":
            out[name] = [{"name": s.name, "salt": s.salt, "values": list(s.values)} for s in value]
        else:
            out[name] = list(value)
    return out


def _component(value: dict[str, Any], name: str) -> dict[str, Any]:
    out = {key: value[key] for key in _COMMON}
    if name in _PARTS:
        out[name] = {key: item for key, item in value.items() if key not in _COMMON}
    return out


def response(body: bytes) -> pb.RiskResponse:
    """The message of an answer's bytes."""
    value: dict[str, Any] = msgspec.json.decode(body)
    value["receipt_head"] = value.pop("receipt")
    value["components"] = {name: _component(item, name) for name, item in value["components"].items()}
    return pb.RiskResponse(**value)


def problem(value: Problem) -> pb.Problem:
    """The message of a problem."""
    return pb.Problem(
        type=value.type,
        title=value.title,
        status=value.status,
        detail=_utf8(value.detail),
        code=value.code,
        request_id=value.request_id,
        pointer=_utf8(value.pointer) if value.pointer is not None else None,
        retry_after=value.retry_after,
        violated_policies=value.violated_policies or [],
    )


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
