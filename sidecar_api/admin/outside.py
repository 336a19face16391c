"""What the admin plane shows and changes of a running shim."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sidecar_api.admin.areas import areas_of
from sidecar_api.admin.audits import Audits
from sidecar_api.admin.budgets import Budgets
from sidecar_api.admin.calibrations import Calibrations
from sidecar_api.admin.dashboard.sources import Sources
from sidecar_api.admin.receipts import ReceiptSearch
from sidecar_api.admin.replays import Replays
from sidecar_api.admin.routes import Outside
from sidecar_api.http.runtime import Runtime
from sidecar_api.reload import Reloader
from tcd.config import Settings, shown
from tcd.errors import ConfigError, Conflict, Forbidden, Unavailable, ValidationFailed
from tcd.files import write_whole
from tcd.ledger.search import ReceiptIndex
from tcd.trust import PolicySet, lint, load

#: Rules that a refusal names at most.
_SHOWN: Final = 5


def outside_of(runtime: Runtime, index: ReceiptIndex, folder: Path) -> Outside:
    """The shim's side; receipts are searched in `index`, `folder` is the admin plane's.

    Policies can be put where they are configured as one file.
    """
    path = runtime.settings.policies
    place = None if path is None or path.is_dir() else path

    def put(files: dict[str, str]) -> dict[str, Any]:
        assert place is not None  # noqa: S101 - given below only where it is
        return _put(runtime, place, files)

    receipts = ReceiptSearch(runtime.ledger, index, digest=runtime.service.subjects.subject)
    budgets = Budgets(runtime)
    return Outside(
        config=lambda: _config(runtime.settings),
        policies=lambda: _policies(runtime.policies),
        check_policies=lambda files: _check(runtime, files),
        receipts=receipts,
        budgets=budgets,
        dashboard=Sources(runtime, index, receipts, budgets),
        areas=areas_of(runtime, index),
        put_policies=None if place is None else put,
        replays=Replays(folder, lambda: runtime.settings),
        calibrations=Calibrations(runtime, folder),
        audits=Audits(runtime),
    )


def _config(settings: Settings) -> dict[str, Any]:
    """Every setting as people may see it; secrets are hidden."""
    values = {name: shown(settings, name) for name in sorted(type(settings).model_fields)}
    return {"config_hash": settings.config_hash, "settings": values}


def _policies(policies: PolicySet | None) -> dict[str, Any]:
    if policies is None:
        return {"digest": "", "policies": []}
    return {
        "digest": policies.digest,
        "policies": [{"ref": p.ref, "match": dict(p.match), "mode": p.mode, "priority": p.priority} for p in policies],
    }


def _check(runtime: Runtime, files: dict[str, str]) -> dict[str, Any]:
    """What a bundle would be, and what it would loosen.

    Raises:
        ValidationFailed: it is refused, with file, line and reason.
    """
    found = _loaded(files)
    remarks = [{"file": r.file, "line": r.line, "code": r.code, "detail": r.detail} for r in lint(found)]
    try:
        loosens = Reloader(runtime).loosened_by(found)
    except ConfigError as error:
        raise ValidationFailed(error.detail) from None
    return {**_policies(found), "remarks": remarks, "loosens": loosens}


def _loaded(files: dict[str, str]) -> PolicySet:
    from tcd.trust import BadBundle  # noqa: PLC0415

    try:
        return load(files)
    except BadBundle as error:
        raise ValidationFailed(error.detail) from None


def _put(runtime: Runtime, place: Path, files: dict[str, str]) -> dict[str, Any]:
    """Put a bundle in force, all of it at once, and keep it.

    Raises:
        Conflict: it is more than one file.
        Forbidden: it loosens.
        ConfigError: it does not fit the settings.
        Unavailable: the file cannot be written; what was in force stays.
    """
    if len(files) != 1:
        msg = f"the bundle in force is one file, this is {len(files)}"
        raise Conflict(msg)
    (text,) = files.values()
    bundle = _loaded({str(place): text})
    reloader = Reloader(runtime)
    loose = reloader.loosened_by(bundle)
    if loose:
        msg = f"the bundle loosens protection: {'; '.join(loose[:_SHOWN])}"
        raise Forbidden(msg)
    try:
        before = place.read_bytes() if place.exists() else None
        # first, because it can fail; the watch of the file finds what is in force already
        write_whole(place, text.encode(), mode=0o644)
    except OSError as error:
        msg = f"the file of the policies cannot be written ({error.strerror}): what was in force stays"
        raise Unavailable(msg) from error
    try:
        reloader.apply(runtime.settings, policies=bundle, source="admin plane")
    except BaseException:
        if before is None:
            place.unlink()
        else:
            write_whole(place, before, mode=0o644)
        raise
    return _policies(bundle)
