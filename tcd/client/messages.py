"""Members by the names of the HTTP surface to messages of `tcd.v1` and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.message import Message

from tcd.v1 import tcd_pb2 as pb

_PARTS: Final = ("multivariate", "av", "input")


def request(members: Mapping[str, Any]) -> pb.DiagnoseRequest:
    """The message of a request's members.

    Raises:
        ValueError, TypeError: a member is unknown or of a type that the message cannot carry.
    """
    value = dict(members)
    if "feature_window" in value:
        value["feature_window"] = [{"values": row} for row in value["feature_window"]]
    return pb.DiagnoseRequest(**value)


def decision(message: pb.RiskResponse) -> dict[str, Any]:
    """The members of an answer."""
    out = {field.name: _plain(message, field) for field in message.DESCRIPTOR.fields}
    out["receipt"] = out.pop("receipt_head")
    for name, item in out["components"].items():
        for part in _PARTS:
            found = item.pop(part)
            if part == name:
                item.update(found)
    return out


def problem(message: pb.Problem) -> dict[str, Any]:
    """The members of a problem."""
    out = {field.name: value for field, value in message.ListFields() if field.name != "violated_policies"}
    if message.violated_policies:
        out["violated-policies"] = list(message.violated_policies)
    return out


def report(message: pb.VerifyResponse) -> dict[str, Any]:
    """The members of a report."""
    return _members(message)


def _members(message: Any) -> dict[str, Any]:
    return {field.name: _plain(message, field) for field in message.DESCRIPTOR.fields}


def _plain(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.has_presence and not message.HasField(field.name):
        return None
    if isinstance(value, Message):
        return _members(value)
    if isinstance(value, str | bytes | int | float):
        return value
    if hasattr(value, "items"):
        return {key: _members(item) if isinstance(item, Message) else item for key, item in value.items()}
    return [_members(item) if isinstance(item, Message) else item for item in value]
