"""Replays as jobs: a candidate policy or calibration against traffic, beside what is in force now."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import Self, TypedDict

from sidecar_api.admin.answers import Act
from sidecar_api.admin.bodies import parsed
from sidecar_api.admin.describe import says
from sidecar_api.admin.job_routes import start_job
from sidecar_api.admin.jobs import Kind
from sidecar_api.admin.plane import Plane, Requires
from sidecar_api.admin.tokens import Caller
from sidecar_api.signal_log import parts
from tcd.config import Settings
from tcd.errors import NotFound

#: Annotations are resolved in this module, so what they name stands in it.
REPLAYING: Final = Requires("policy:write", mutates=True, everywhere=True)
READING: Final = Requires("policy:write", everywhere=True)
KIND: Final = Kind("replay", "sidecar_api.admin.replay_job:run", "policy:write", most_bytes=64 << 20)
#: Under `DATA_DIR/admin`: where an operator of the machine puts what is to be replayed, and where candidates are.
TRAFFIC: Final = "traffic"
CANDIDATES: Final = "calibrations"
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\.jsonl$"
_MOST_FILES: Final = 1000
_DIGEST: Final = r"^sha256:[0-9a-f]{64}$"
_STRICT: Final = ConfigDict(frozen=True, extra="forbid", strict=True)
_File = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Made(BaseModel):
    """Synthetic traffic."""

    model_config = _STRICT

    count: Annotated[int, Field(ge=1, le=1_000_000)]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class Asked(BaseModel):
    """A replay: what, and under which candidate. What is left out of the candidate is as in force."""

    model_config = _STRICT

    lines: Annotated[str | None, Field(min_length=1, description="JSON lines in the request itself")] = None
    source: Annotated[str | None, Field(pattern=_NAME, description="a file of GET /replays/sources")] = None
    synthetic: Made | None = None
    policies: Annotated[
        dict[_File, Annotated[str, Field(max_length=1 << 18)]] | None, Field(min_length=1, max_length=64)
    ] = None
    calibration: Annotated[str | None, Field(pattern=_DIGEST, description="a candidate of GET /calibrations")] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.lines, self.source, self.synthetic)) != 1:
            msg = "one of lines, source and synthetic"
            raise ValueError(msg)
        return self


class Source(TypedDict):
    """A file of traffic."""

    name: str
    bytes: int


class Sources(TypedDict):
    """What can be replayed by name."""

    sources: list[Source]


class Replays:
    """What replays need of the shim: its settings, and the folder of the admin plane."""

    def __init__(self, folder: Path, settings: Callable[[], Settings]) -> None:
        """`folder` is `DATA_DIR/admin`; `settings` those in force."""
        self._folder = folder
        self._settings = settings

    def sources(self) -> list[Source]:
        """Files of traffic, the shim's own signal log among them."""
        places = sorted(self._places().items())[:_MOST_FILES]
        return [{"name": name, "bytes": path.stat().st_size} for name, path in places]

    def _places(self) -> dict[str, Path]:
        found = {path.name: path for path in (self._folder / TRAFFIC).glob("*.jsonl") if re.match(_NAME, path.name)}
        log = self._settings().signal_log
        if log is not None:
            found |= {path.name: path for path in parts(log)}
        return {name: path for name, path in found.items() if path.is_file() and not path.is_symlink()}

    def order(self, asked: Asked) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of the job, and those that are not shown.

        Raises:
            NotFound: there is no such file or candidate.
        """
        private: dict[str, Any] = {"settings": plain(self._settings()), "policies": asked.policies}
        shown: dict[str, Any] = {"seed": asked.seed, "calibration": asked.calibration}
        shown["policies"] = sorted(asked.policies) if asked.policies else None
        if asked.synthetic is not None:
            shown["synthetic"] = asked.synthetic.model_dump()
        elif asked.source is not None:
            place = self._places().get(asked.source)
            if place is None:
                msg = "no such file of traffic"
                raise NotFound(msg)
            shown["source"], private["path"] = asked.source, str(place)
        else:
            lines = asked.lines or ""
            shown["lines"] = "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
            private["text"] = lines
        if asked.calibration is not None:
            folder = self._folder / CANDIDATES / asked.calibration.removeprefix("sha256:")
            if not folder.is_dir():
                msg = "no such candidate"
                raise NotFound(msg)
            private["assets"] = str(folder)
        return shown, private


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as JSON for a job's process, without secrets."""
    values = settings.model_dump(mode="json", exclude={"ledger_url", "api_tokens"})
    return {name: value for name, value in values.items() if not name.endswith("_hex")} | {"ledger": "memory"}


def add_replays(
    made: APIRouter, plane: Plane, replays: Replays | None, check: Callable[[dict[str, str]], dict[str, Any]]
) -> None:
    """Add the routes; `check` refuses a bad bundle."""

    @made.get("/replays/sources", **says("Files of traffic that can be replayed", gives=Sources))
    async def sources(_: Annotated[Caller, Depends(READING)]) -> Response:
        return JSONResponse({"sources": _there(replays).sources()})

    @made.post(
        "/replays", **says("Replay traffic under a candidate, as a job", takes=Asked, gives=Act, refuses=(404, 409))
    )
    async def start(request: Request, caller: Annotated[Caller, Depends(REPLAYING)]) -> Response:
        asked = await parsed(request, Asked)
        arguments, private = _there(replays).order(asked)
        if asked.policies is not None:
            check(asked.policies)
        return await start_job(plane, request, caller, REPLAYING, KIND, arguments, private)


def _there(replays: Replays | None) -> Replays:
    if replays is None:
        msg = "this admin plane has no folder for replays"
        raise NotFound(msg)
    return replays
