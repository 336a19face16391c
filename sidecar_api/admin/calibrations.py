"""Calibrations: fitted and evaluated as jobs, promoted by two people, on trial first where they say so, rolled back.

What judges everybody changes by two people, whichever way. One can end a trial: then all are judged as before it.
"""

from __future__ import annotations

import asyncio
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from sidecar_api.admin.answers import Act
from sidecar_api.admin.bodies import parsed
from sidecar_api.admin.candidates import FIT_FILE, USED_FILE
from sidecar_api.admin.describe import says
from sidecar_api.admin.job_routes import start_job
from sidecar_api.admin.jobs import Kind
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.replays import CANDIDATES
from sidecar_api.admin.tokens import Caller
from sidecar_api.canary import Trial
from sidecar_api.http.runtime import Runtime
from sidecar_api.signal_log import parts
from tcd.calibration import canary
from tcd.calibration.promote import earlier, promote, rollback
from tcd.calibration.store import MANIFEST, default_asset_dir, load_assets
from tcd.errors import AssetError, Conflict, NotFound

#: Annotations are resolved in this module, so what they name stands in it.
SEEING: Final = Requires("alpha:read", everywhere=True)
WORKING: Final = Requires("calibration:write", mutates=True, everywhere=True)
PROMOTING: Final = Requires("calibration:write", mutates=True, pair=True, everywhere=True)
FITTING: Final = Kind("calibration.fit", "sidecar_api.admin.calibration_jobs:fit", "calibration:write")
EVALUATING: Final = Kind("calibration.evaluate", "sidecar_api.admin.calibration_jobs:evaluate", "calibration:write")
_STRICT: Final = ConfigDict(frozen=True, extra="forbid", strict=True)
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_Session = Annotated[str, Field(min_length=1, max_length=128)]
_Excluded = Annotated[
    list[_Session],
    Field(max_length=10_000, description="sessions of the log that are known to be faulty from elsewhere"),
]


def _needed() -> None:
    """Refuse at once what a job could not do: the admin plane itself runs without the extra."""
    if find_spec("scipy") is None:
        msg = "a fit needs the extra calibrate; remedy: pip install 'tcd[calibrate]'"
        raise Conflict(msg)


class Fit(BaseModel):
    """A fit on the signal log; the members are options of `tcd calibrate fit`."""

    model_config = _STRICT

    level: Annotated[int, Field(ge=0, le=2)] = 0
    least: Annotated[int, Field(ge=1, le=100_000)] = 16
    hold_back: Annotated[float, Field(ge=0, le=0.5, strict=False)] = 0.2
    conditional: Annotated[float, Field(ge=0, le=0.5, strict=False)] = 0.0
    exclude: _Excluded = []


class Evaluation(BaseModel):
    """An evaluation on the sessions of the log that the fit has not used; without a candidate, of what is in force."""

    model_config = _STRICT

    calibration: _Digest | None = None
    exclude: _Excluded = []


class Promotion(BaseModel):
    """A promotion: at once, or of a share of the sessions until so many of them were judged."""

    model_config = _STRICT

    calibration: _Digest
    share: Annotated[float | None, Field(gt=0, lt=1, strict=False, description="left out: everything at once")] = None
    sessions: Annotated[int, Field(ge=1, le=1_000_000)] = 200


class Rollback(BaseModel):
    """A rollback: what is in force, and what is to be instead, one of `before` in GET /calibrations."""

    model_config = _STRICT

    instead_of: _Digest
    to: _Digest


class Ending(BaseModel):
    """The end of a trial, which it names."""

    model_config = _STRICT

    canary: _Digest


class Shown(TypedDict):
    """The calibration in force, what was before it (the newest first), what is on trial, candidates and the log."""

    manifest: str
    before: list[str]
    canary: dict[str, Any] | None
    candidates: list[dict[str, Any]]
    log: dict[str, Any] | None


class Calibrations:
    """What the routes need of the shim."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        """`folder` is `DATA_DIR/admin`."""
        self._runtime, self._candidates = runtime, folder / CANDIDATES

    @property
    def live(self) -> Path:
        """The directory that is served.

        Raises:
            Conflict: it is the demonstration's, which is part of the software.
        """
        place = self._runtime.settings.assets
        if place is None or place.resolve() == default_asset_dir().resolve():
            msg = "the demonstration's assets are served: set TCD_ASSETS to a directory of your own"
            raise Conflict(msg)
        return place

    async def show(self) -> Shown:
        """Everything."""
        before = await asyncio.to_thread(self._before)
        service = self._runtime.service
        assets = service.resolver.current()
        trial, signals = service.watch.trial, service.judge.signals
        on_trial = None if assets.canary is None else Trial(assets.canary).to_json()
        if trial is not None and assets.canary is not None and trial.canary.id == assets.canary.id:
            on_trial = trial.to_json()
        folder = self._runtime.settings.signal_log
        log = None
        if folder is not None and signals is not None:
            sizes = [path.stat().st_size for path in parts(folder)]
            log = {"files": len(sizes), "bytes": sum(sizes), "counts": dict(signals.counts)}
        return {
            "manifest": assets.manifest_digest,
            "before": before,
            "canary": on_trial,
            "candidates": [self._about(path) for path in sorted(self._candidates.glob(f"*/{FIT_FILE}"))],
            "log": log,
        }

    def _before(self) -> list[str]:
        try:
            return earlier(self.live)
        except (AssetError, Conflict):
            return []

    @staticmethod
    def _about(path: Path) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(path.read_bytes())
        return value

    def log(self) -> Path:
        """The signal log.

        Raises:
            Conflict: none is kept.
        """
        folder = self._runtime.settings.signal_log
        if folder is None:
            msg = "no signal log is kept: receipts do not have what a fit needs; set TCD_SIGNAL_LOG"
            raise Conflict(msg)
        return folder

    def candidate(self, digest: str) -> Path:
        """A candidate's folder.

        Raises:
            NotFound: there is none.
        """
        place = self._candidates / digest.removeprefix("sha256:")
        if not (place / MANIFEST).is_file():
            msg = "no such candidate"
            raise NotFound(msg)
        return place

    def fit_order(self, asked: Fit) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of a fit, and those that are not shown.

        Raises:
            Conflict: there is no log, or nothing to fit with.
        """
        _needed()
        options = asked.model_dump()
        place = self._runtime.settings.assets or default_asset_dir()
        private = {"log": str(self.log()), "candidates": str(self._candidates), "live": str(place)}
        return {"options": options}, private

    def evaluation_order(self, asked: Evaluation) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of an evaluation, and those that are not shown.

        Raises:
            NotFound, Conflict, AssetError: there is no such candidate, no log, nothing to evaluate with, or what is in
                force cannot be read.
        """
        _needed()
        if asked.calibration is None:
            place = self._runtime.settings.assets or default_asset_dir()
            digest, _ = canary.served(place)
            used = self._candidates / digest.removeprefix("sha256:") / USED_FILE
        else:
            place = self.candidate(asked.calibration)
            used = place / USED_FILE
        private = {"log": str(self.log()), "assets": str(place), "used": str(used) if used.is_file() else None}
        return {"calibration": asked.calibration, "exclude": asked.exclude}, private

    def promotion(self, asked: Promotion) -> dict[str, Any]:
        """What a promotion would do, for whoever approves it.

        Raises:
            NotFound, Conflict, AssetError: it cannot be done.
        """
        about = self._about(self.candidate(asked.calibration) / FIT_FILE)
        now = load_assets(self.live)
        if now.canary is not None and asked.share is not None:
            msg = f"{now.canary.id} is on trial"
            raise Conflict(msg)
        return {"share": asked.share, "sessions": asked.sessions, "instead_of": now.manifest_digest, **about}

    async def promote(self, args: Any, _: str) -> Any:
        """Carry out a promotion that two people agreed on.

        Raises:
            Conflict: it is no longer instead of what they were shown.
        """
        asked = Promotion.model_validate({name: args[name] for name in Promotion.model_fields if name in args})
        # a proposal of a version that did not say what it replaces matches nothing: it has to be made again
        instead_of = str(args.get("instead_of", ""))
        candidate, live = self.candidate(asked.calibration), self.live
        if asked.share is None:
            return {"manifest": await _written(promote, candidate, live, instead_of=instead_of)}
        options = {"share": asked.share, "sessions": asked.sessions, "instead_of": instead_of}
        began = await _written(canary.begin, candidate, live, **options)
        return {"canary": began, "share": asked.share, "sessions": asked.sessions}

    def rollback(self, asked: Rollback) -> dict[str, Any]:
        """What a rollback would do, for whoever approves it.

        Raises:
            Conflict, AssetError: it cannot be done.
        """
        now, before = load_assets(self.live), earlier(self.live)
        if now.canary is not None:
            msg = f"{now.canary.id} is on trial: end it first"
            raise Conflict(msg)
        if asked.instead_of != now.manifest_digest:
            msg = f"{now.manifest_digest} is in force"
            raise Conflict(msg)
        if asked.to not in before:
            msg = f"nothing of this digest was in force before; the one before was {before[0] if before else 'none'}"
            raise Conflict(msg)
        return {**asked.model_dump(), "steps": before.index(asked.to) + 1}

    async def roll_back(self, args: Any, _: str) -> Any:
        """Carry out a rollback that two people agreed on.

        Raises:
            Conflict: another one is in force now, a trial began, or what it goes back to is gone.
        """
        asked = Rollback.model_validate(args)
        return {"manifest": await _written(rollback, self.live, instead_of=asked.instead_of, to=asked.to)}

    async def end(self, identity: str) -> Any:
        """End a trial.

        Raises:
            Conflict: it is not on trial.
        """
        if not await _written(canary.end, self.live, identity):
            msg = "this candidate is not on trial"
            raise Conflict(msg)
        return {"manifest": (await _written(canary.served, self.live))[0]}


async def _written(work: Any, *arguments: Any, **options: Any) -> Any:
    """Work on the live directory, in a thread.

    Raises:
        Conflict: it cannot be done there.
    """
    try:
        return await asyncio.to_thread(work, *arguments, **options)
    except AssetError as error:
        raise Conflict(error.detail) from None
    except OSError as error:
        msg = f"the assets' directory cannot be written: {error.strerror}"
        raise Conflict(msg) from None


def add_calibrations(made: APIRouter, plane: Plane, calibrations: Calibrations | None) -> None:
    """Add the routes."""

    @made.get("/calibrations", **says("Calibrations: in force, on trial, candidates, the log", gives=Shown))
    async def show(_: Annotated[Caller, Depends(SEEING)]) -> Response:
        return JSONResponse(await _there(calibrations).show())

    @made.post("/calibrations:fit", **says("Fit a candidate on the signal log, as a job", takes=Fit, gives=Act))
    async def fit(request: Request, caller: Annotated[Caller, Depends(WORKING)]) -> Response:
        arguments, private = _there(calibrations).fit_order(await parsed(request, Fit))
        return await start_job(plane, request, caller, WORKING, FITTING, arguments, private)

    @made.post(
        "/calibrations:evaluate",
        **says("Evaluate a calibration on the signal log, as a job", takes=Evaluation, gives=Act, refuses=(404,)),
    )
    async def evaluate(request: Request, caller: Annotated[Caller, Depends(WORKING)]) -> Response:
        arguments, private = await _written(_there(calibrations).evaluation_order, await parsed(request, Evaluation))
        return await start_job(plane, request, caller, WORKING, EVALUATING, arguments, private)

    @made.post("/calibrations:promote", **says("Propose to promote a candidate", takes=Promotion, refuses=(404, 409)))
    async def promote_(request: Request, caller: Annotated[Caller, Depends(PROMOTING)]) -> Response:
        asked = await parsed(request, Promotion)
        shown = await _written(_there(calibrations).promotion, asked)
        args = {**asked.model_dump(), "instead_of": shown["instead_of"]}
        made_of = Mutation("calibration.promote", asked.calibration, shown, args=args)
        return await plane.mutate(request, caller, PROMOTING, made_of)

    async def promoted(args: Any, actors: str) -> Any:
        return await _there(calibrations).promote(args, actors)

    plane.perform("calibration.promote", promoted)

    _backwards(made, plane, calibrations)


def _backwards(made: APIRouter, plane: Plane, calibrations: Calibrations | None) -> None:
    @made.post(
        "/calibrations:rollback",
        **says("Propose to put an earlier calibration back in force", takes=Rollback, refuses=(404, 409)),
    )
    async def roll_back(request: Request, caller: Annotated[Caller, Depends(PROMOTING)]) -> Response:
        asked = await parsed(request, Rollback)
        shown = await _written(_there(calibrations).rollback, asked)
        made_of = Mutation("calibration.rollback", asked.to, shown, args=asked.model_dump())
        return await plane.mutate(request, caller, PROMOTING, made_of)

    async def rolled_back(args: Any, actors: str) -> Any:
        return await _there(calibrations).roll_back(args, actors)

    plane.perform("calibration.rollback", rolled_back)

    @made.post("/calibrations:end", **says("End a trial", takes=Ending, gives=Act, refuses=(404, 409)))
    async def end(request: Request, caller: Annotated[Caller, Depends(WORKING)]) -> Response:
        there, identity = _there(calibrations), (await parsed(request, Ending)).canary

        async def work(_: str) -> Any:
            return await there.end(identity)

        return await plane.mutate(request, caller, WORKING, Mutation("calibration.end", identity, None, work))


def _there(calibrations: Calibrations | None) -> Calibrations:
    if calibrations is None:
        msg = "this admin plane serves no calibrations"
        raise NotFound(msg)
    return calibrations
