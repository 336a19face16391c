"""The areas of the plane that have a module of their own."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter

from sidecar_api.admin.alarms import AlarmArea, add_alarms
from sidecar_api.admin.erasing import EraseArea, add_erasing
from sidecar_api.admin.keys import KeyArea, add_keys
from sidecar_api.admin.log_routes import LogArea, add_log
from sidecar_api.admin.patches import PatchArea, add_patches
from sidecar_api.admin.plane import Plane
from sidecar_api.admin.settings import SettingsArea, add_settings
from sidecar_api.admin.states import add_states
from sidecar_api.admin.trust import TrustArea, add_trust
from sidecar_api.http.runtime import Runtime
from sidecar_api.state import StateService
from tcd.ledger.search import ReceiptIndex


@dataclass(frozen=True, slots=True)
class Areas:
    """What each area shows and changes of a shim."""

    alarms: AlarmArea
    erasing: EraseArea
    keys: KeyArea
    log: LogArea
    patches: PatchArea
    settings: SettingsArea
    states: StateService
    trust: TrustArea


def areas_of(runtime: Runtime, index: ReceiptIndex) -> Areas:
    """Of a running shim; receipts are found in `index`."""
    return Areas(
        alarms=AlarmArea(runtime),
        erasing=EraseArea(runtime, index),
        keys=KeyArea(runtime),
        log=LogArea(runtime, index),
        patches=PatchArea(runtime),
        settings=SettingsArea(runtime),
        states=runtime.state,
        trust=TrustArea(runtime),
    )


def add_areas(made: APIRouter, plane: Plane, areas: Areas) -> None:
    """Add the routes of every area."""
    add_alarms(made, plane, areas.alarms)
    add_erasing(made, plane, areas.erasing)
    add_keys(made, plane, areas.keys)
    add_log(made, plane, areas.log)
    add_patches(made, plane, areas.patches)
    add_settings(made, plane, areas.settings)
    add_states(made, plane, areas.states)
    add_trust(made, plane, areas.trust)
