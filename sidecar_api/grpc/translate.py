"""Messages to the members of the one schema, and answers to messages. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from sidecar_api.decode import convert
from sidecar_api.rewrite_schemas import RewriteRequest, RewriteResponse
from sidecar_api.schemas import MAX_SAFE, Problem
from tcd.errors import InvalidRequest
from tcd.v1 import tcd_pb2 as pb

#: Members of components that have a message of their own.
_PARTS: Final = ("multivariate", "av", "input")
_COMMON: Final = frozenset({"triggered", "severity", "p_value", "details"})
_raw: Final = msgspec.json.Decoder(msgspec.Raw)
_body: Final = msgspec.json.Decoder(RewriteResponse)


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


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | bytes | int | float) else list(value)


def members(message: Message) -> dict[str, Any]:
    """The members of a request that are there, by the names of the HTTP surface."""
    out: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if isinstance(value, Struct):
            out[name] = struct(value)
        elif isinstance(value, Message):
            # absent members of nested messages have no other default
            out[name] = {field.name: _plain(getattr(value, field.name)) for field in value.DESCRIPTOR.fields}
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


def reserved(body: bytes) -> pb.ReserveResponse:
    """The message of a reservation's bytes."""
    return pb.ReserveResponse(**msgspec.json.decode(body))


def settlement(message: pb.SettleRequest) -> dict[str, Any]:
    """The members of a settlement; tensors have their names in upper case there."""
    out = members(message)
    if "outputs" in out:
        out["outputs"] = {name.upper(): value for name, value in out["outputs"].items()}
    return out


def raw_json(body: bytes) -> msgspec.Raw:
    """One JSON value, not looked into.

    Raises:
        InvalidRequest: not JSON in UTF-8, or more than one value.
    """
    try:
        body.decode()
        return _raw.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise InvalidRequest(msg) from None


def rewriting(message: pb.RewriteRequest) -> RewriteRequest:
    """A validated request; its body keeps its bytes.

    Raises:
        InvalidRequest: the body is not JSON in UTF-8.
        ValidationFailed: a member is missing or out of its limits.
    """
    value = members(message)
    if "body_json" in value:
        value["body"] = raw_json(value.pop("body_json"))
    return convert(value, RewriteRequest)


def rewritten(body: bytes) -> pb.RewriteResponse:
    """The message of a rewriter's answer."""
    value = msgspec.json.decode(body)
    # the rest as Python has it, the body as it is written
    value["body_json"] = bytes(_body.decode(body).body)
    del value["body"]
    value["receipt_head"] = value.pop("receipt")
    for zone in value["zone_byte_ranges_per_message"]:
        zone["ranges"] = [{"start": start, "end": end} for start, end in zone["ranges"]]
    return pb.RewriteResponse(**value)


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
