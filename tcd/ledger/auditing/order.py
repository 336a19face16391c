"""An audit from a plain order to its two files: what `tcd audit` and the jobs of the admin plane share."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from tcd.bundles import read as read_bundle
from tcd.calibration.store import load_assets
from tcd.files import writing
from tcd.ledger.auditing.decisions import Assets
from tcd.ledger.auditing.page import render
from tcd.ledger.auditing.run import Asked, Progress, Result, run
from tcd.ledger.auditing.sources import Store, sqlite_store
from tcd.receipts import KeySet, VerifyPolicy
from tcd.receipts.tlog_policy import parse_policy
from tcd.receipts.witnessing import Seen
from tcd.trust import Defaults

#: Names of the two files.
JSON = "report.json"
HTML = "report.html"


class Order(TypedDict):
    """What to audit, as JSON.

    Attributes:
        sqlite, postgresql: the ledger: a file, or a URL; one of them.
        live: whether a shim may use the file meanwhile.
        keyset: pinned keys, `tcd.keyset/1`.
        log_algorithms: that every checkpoint has to be signed with.
        witnesses: C2SP tlog-policy as text; empty = none are known.
        origin: of the log; empty = the one of the first receipt.
        notes: signed checkpoints from elsewhere.
        tenant: only this tenant's records; None = all.
        policies: file or directory of the bundle; None = none.
        defaults, config: the settings that policies start from (mode, on_failure, static_action, hard_fail_on_floor),
            and their digest.
        assets: directory of calibrations; None = none.
    """

    keyset: dict[str, Any]
    origin: str
    sqlite: NotRequired[str]
    postgresql: NotRequired[str]
    live: NotRequired[bool]
    log_algorithms: NotRequired[list[str]]
    witnesses: NotRequired[str]
    notes: NotRequired[list[str]]
    tenant: NotRequired[str | None]
    policies: NotRequired[str | None]
    defaults: NotRequired[Mapping[str, Any]]
    config: NotRequired[str]
    assets: NotRequired[str | None]


def open_store(order: Order) -> contextlib.AbstractContextManager[Store]:
    """The ledger of an order."""
    if "postgresql" in order:
        from tcd.ledger.auditing.postgres import postgres_store  # noqa: PLC0415 - an extra

        return postgres_store(order["postgresql"])
    return sqlite_store(Path(order["sqlite"]), live=order.get("live", False))


def asked_of(order: Order, seen: tuple[Seen, ...] = ()) -> Asked:
    """What is to be looked at.

    Raises:
        ConfigError, VerificationError: a part of the order is none; says which.
    """
    witnesses = order.get("witnesses", "")
    policy = VerifyPolicy(
        KeySet.from_json(order["keyset"]),
        log_algorithms=frozenset(order.get("log_algorithms", ["Ed25519"])),
        witnesses=parse_policy(witnesses.encode()) if witnesses else None,
    )
    bundle, calibrations = order.get("policies"), order.get("assets")
    defaults = order.get("defaults")
    return Asked(
        policy,
        origin=order["origin"],
        seen=seen,
        notes=[note.encode() for note in order.get("notes", [])],
        tenant=order.get("tenant"),
        assets=Assets.of(
            policies=None if bundle is None else read_bundle(Path(bundle)),
            defaults=None if defaults is None else Defaults(**defaults),
            config=order.get("config", ""),
            calibrations=None if calibrations is None else load_assets(Path(calibrations)),
        ),
    )


def make(
    order: Order, *, seen: tuple[Seen, ...] = (), workers: int = 0, progress: Progress = lambda *_: None
) -> Result:
    """Audit what the order says.

    Args:
        order: what.
        seen: checkpoints that the auditor remembers.
        workers: see `run`.
        progress: likewise.

    Raises:
        ConfigError, VerificationError: a part of the order is none, or the ledger cannot be read.
    """
    asked = asked_of(order, seen)
    with open_store(order) as store:
        return run(store, asked, workers=workers, progress=progress)


def write(result: Result, folder: Path) -> None:
    """Write the report as JSON and as a page.

    Raises:
        OSError: it cannot be written.
    """
    report = result.to_json()
    for name, text in ((JSON, json.dumps(report, indent=1, allow_nan=False)), (HTML, render(report))):
        with writing(folder / name, mode=0o644) as file:
            file.write(text.encode())
