"""Bodies and parameters of requests, checked against a model; refusals name the member, never the value."""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from tcd.errors import ValidationFailed

_Body = TypeVar("_Body", bound=BaseModel)
#: Of models of bodies: frozen, nothing unknown, a bool is no number.
STRICT: Final = ConfigDict(frozen=True, extra="forbid", strict=True)
#: Of models of parameters, which all come as text.
ASKED: Final = ConfigDict(frozen=True, extra="forbid")


async def parsed(request: Request, model: type[_Body]) -> _Body:
    """The body; after the caller was admitted.

    Raises:
        ValidationFailed: it is not what the route takes; names the member, never the value.
    """
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise _invalid(error) from None


def asked(request: Request, model: type[_Body]) -> _Body:
    """The parameters.

    Raises:
        ValidationFailed: one came twice, is not known or is out of its limits.
    """
    given = request.query_params.multi_items()
    if len({name for name, _ in given}) != len(given):
        msg = "a parameter came twice"
        raise ValidationFailed(msg)
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> ValidationFailed:
    found = error.errors(include_input=False, include_url=False)[0]
    pointer = "".join(f"/{part}" for part in found["loc"])
    return ValidationFailed(found["msg"], pointer=pointer or None)
