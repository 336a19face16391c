"""Parameters of pages. A form sends the fields that were left empty too: they are as if not sent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from tcd.errors import ValidationFailed

_M = TypeVar("_M", bound=BaseModel)
_SECOND: Final = 1_000_000


def asked(request: Request, model: type[_M], given: Mapping[str, str] | None = None) -> _M:
    """The parameters; `given` in their place.

    Raises:
        ValidationFailed: one came twice, is not known or is out of its limits; says which.
    """
    pairs = request.query_params.multi_items()
    if len({name for name, _ in pairs}) != len(pairs):
        msg = "a parameter came twice"
        raise ValidationFailed(msg)
    try:
        return model.model_validate(given if given is not None else {name: value for name, value in pairs if value})
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)[0]
        where = "/".join(str(part) for part in found["loc"])
        raise ValidationFailed(f"{where}: {found['msg']}" if where else found["msg"]) from None


def moment_us(text: str, name: str) -> int:
    """`2026-11-26T06:00`, UTC, as microseconds since 1970.

    Raises:
        ValidationFailed: it is none.
    """
    try:
        at = dt.datetime.fromisoformat(text)
        if at.tzinfo is None:
            return int(at.replace(tzinfo=dt.timezone.utc).timestamp() * _SECOND)
    except (ValueError, OverflowError):
        pass
    raise ValidationFailed(f"{name}: a time in UTC as 2026-11-26T06:00")
