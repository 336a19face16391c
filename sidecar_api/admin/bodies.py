"""Bodies and parameters of requests, checked against a model; refusals name the member, never the value."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from sidecar_api.schemas import TEXT_PATTERN
from tcd.errors import ValidationFailed

#: A name as the shim takes it: no control characters, which no record can hold.
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=TEXT_PATTERN)]
Label = Annotated[str, Field(max_length=128, pattern=TEXT_PATTERN)]
#: Why, for the log: what a record can hold.
Reason = Annotated[str, Field(min_length=1, max_length=128, pattern=TEXT_PATTERN)]
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
