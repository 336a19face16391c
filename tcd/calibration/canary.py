"""A candidate on trial: begun, ended, or promoted in a live directory, each by one rename of its manifest.

The manifest names the candidate's assets under keys that only canary sessions carry, so every replica of the shim and
of the models sees the same trial, and scoring stays a pure function of its row. `sidecar_api.canary` watches it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tcd.calibration.codec import digest_of
from tcd.calibration.promote import changing, copy_assets, expect, keep, without_canary
from tcd.calibration.store import MANIFEST, load_assets, manifest_bytes, read_file
from tcd.errors import AssetError, Conflict
from tcd.files import write_whole
from tcd.routing.policy import DEFAULT_POLICY

_LIMIT: Final = 4 * 2**20


def begin(candidate: Path, live: Path, *, share: float, sessions: int, instead_of: str | None = None) -> str:
    """Let a share of the sessions be judged by a candidate; returns its id.

    Args:
        candidate: directory that a fit wrote.
        live: directory that is served.
        share: of the sessions, in (0, 1).
        sessions: that are to be judged before it is promoted.
        instead_of: digest of the manifest beside which it is to be tried; None: whichever is there.

    Raises:
        AssetError: one of them does not load, or the candidate cannot be tried beside the live set.
        Conflict: a canary is on trial, or the live set is another one or was replaced meanwhile.
    """
    now, new = load_assets(live), load_assets(candidate)
    if now.canary is not None:
        msg = f"the canary {now.canary.id} is on trial"
        raise Conflict(msg)
    if (now.policy(0) or DEFAULT_POLICY).digest != (new.policy(0) or DEFAULT_POLICY).digest:
        msg = "the candidate has another routing policy: that cannot be tried for a share of the sessions"
        raise AssetError(msg)
    if not new.bindings or not 0.0 < share < 1.0 or sessions < 1:
        msg = "a canary needs a share in (0, 1), a number of sessions, and a candidate that is bound to a key"
        raise AssetError(msg)
    manifest = copy_assets(candidate, live)
    identity = digest_of(manifest)
    with changing(live):
        expect(live, now.manifest_digest)
        expect(live, instead_of)
        write_whole(_kept(live, identity), manifest)
        body = json.loads(read_file(live / MANIFEST, _LIMIT))
        keys = json.loads(manifest)["keys"]
        body["canary"] = {"id": identity, "share": share, "sessions": sessions, "keys": keys}
        write_whole(live / MANIFEST, manifest_bytes(body))
        load_assets(live)
    return identity


def end(live: Path, identity: str) -> bool:
    """End a canary that is on trial; whether it was (another replica may have ended it)."""
    with changing(live):
        data = read_file(live / MANIFEST, _LIMIT)
        if _on_trial(data).get("id") != identity:
            return False
        write_whole(live / MANIFEST, without_canary(data))
        _kept(live, identity).unlink(missing_ok=True)
    return True


def complete(live: Path, identity: str) -> bool:
    """Promote a canary that is on trial; whether it was.

    Raises:
        AssetError: its assets are missing or altered; nothing is changed then.
    """
    with changing(live):
        if _on_trial(read_file(live / MANIFEST, _LIMIT)).get("id") != identity:
            return False
        manifest = read_file(_kept(live, identity), _LIMIT)
        if digest_of(manifest) != identity:
            msg = "the candidate's manifest was altered"
            raise AssetError(msg)
        load_assets(live, manifest=_kept(live, identity))
        keep(live)
        # whoever writes without the lock, such as an earlier version, may have ended it while the assets were loaded
        if _on_trial(read_file(live / MANIFEST, _LIMIT)).get("id") != identity:
            return False
        write_whole(live / MANIFEST, manifest)
        _kept(live, identity).unlink(missing_ok=True)
    return True


def served(live: Path) -> tuple[str, str | None]:
    """Digest of the manifest in force as it is without a canary, and the id of the canary that is on trial.

    Raises:
        AssetError: the manifest cannot be read.
    """
    data = read_file(live / MANIFEST, _LIMIT)
    return digest_of(without_canary(data)), _on_trial(data).get("id")


def _on_trial(manifest: bytes) -> dict[str, Any]:
    found = json.loads(manifest).get("canary")
    return found if isinstance(found, dict) else {}


def _kept(live: Path, identity: str) -> Path:
    return live / f"canary-{identity.removeprefix('sha256:')}.json"
