"""What a route says of itself, for the OpenAPI document: `@made.get("/things", **says("Things", gives=Things))`.

`sidecar_api.admin.openapi` reads it; what the route requires (token, scope, signature) is read from its `Requires`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from typing_extensions import TypedDict

#: Where a route carries it.
MEMBER: Final = "x-tcd-told"


@dataclass(frozen=True, slots=True)
class Told:
    """What a route takes and gives.

    Attributes:
        gives: type of the JSON answer (model, dataclass, TypedDict), `str` or `bytes` of another medium.
        takes: model of the JSON body.
        asks: model of the query's parameters.
        media: of the answer.
        status: of the answer.
        refuses: statuses of refusals beyond those that follow from what it requires, takes and asks.
    """

    gives: Any
    takes: type[BaseModel] | None
    asks: type[BaseModel] | None
    media: str
    status: int
    refuses: tuple[int, ...]


class Said(TypedDict):
    """Keyword arguments of FastAPI's decorators."""

    summary: str
    openapi_extra: dict[str, Any]


def says(
    summary: str,
    *,
    gives: Any = dict[str, Any],
    takes: type[BaseModel] | None = None,
    asks: type[BaseModel] | None = None,
    media: str = "application/json",
    status: int = 200,
    refuses: tuple[int, ...] = (),
) -> Said:
    """A route's words about itself; the members are those of `Told`.

    What two people have to approve always gives 202 and the proposal, and `gives` is not looked at. What mutates alone
    gives `answers.Act` when it says nothing else.
    """
    return {"summary": summary, "openapi_extra": {MEMBER: Told(gives, takes, asks, media, status, refuses)}}
