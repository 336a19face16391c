"""Promotion of a fitted asset directory to a live one, and the way back.

The assets are copied first, each atomically and under its digest; the manifest is replaced last, in one rename. A
crash at any point leaves the old manifest or the new one, both complete. Old manifests are kept in `history/`. Whoever
reads a manifest to replace it holds the directory's lock.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tcd.calibration.assets import AssetSet
from tcd.calibration.codec import digest_of
from tcd.calibration.store import MANIFEST, load_assets, manifest_bytes, read_file
from tcd.errors import AssetError, Conflict
from tcd.files import write_whole

HISTORY: Final = "history"
LOCK: Final = ".lock"
_LIMIT: Final = 64 * 2**20
_DIGITS: Final = 8


@contextmanager
def changing(live: Path) -> Iterator[None]:
    """Alone among threads and processes in changing what a live directory answers with; waits for the others.

    Raises:
        AssetError: there is no such directory.
        OSError: it cannot be locked.
    """
    try:
        try:
            file = os.open(live / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except PermissionError:
            # another user made it; most file systems lock what is only read, too
            file = os.open(live / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        msg = f"{live}: {error.strerror}"
        raise AssetError(msg) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def expect(live: Path, instead_of: str | None) -> None:
    """Look, under the lock, whether the manifest is the one that somebody decided on; None: whichever it is.

    Raises:
        Conflict: it is another one.
    """
    if instead_of is not None and digest_of(read_file(live / MANIFEST, _LIMIT)) != instead_of:
        msg = "what is in force was replaced meanwhile"
        raise Conflict(msg)


def _files(directory: Path, assets: AssetSet) -> list[Path]:
    digests = (*assets.detectors, *assets.multivariates, *assets.routing, *assets.projections)
    names = [d.removeprefix("sha256:") for d in digests]
    return [next(p for p in (directory / (n + s) for s in (".npz", ".json")) if p.exists()) for n in names]


def history(live: Path) -> list[Path]:
    """Manifests that were replaced, oldest first."""
    return sorted((live / HISTORY).glob("*.json"))


def keep(live: Path) -> None:
    """Put the manifest in force into the history, unless it is the newest entry already."""
    if not (live / MANIFEST).exists():
        return
    # a canary was no promotion: what is kept is what it was tried beside
    data = without_canary(read_file(live / MANIFEST, _LIMIT))
    past = history(live)
    if past and read_file(past[-1], _LIMIT) == data:
        return
    number = int(past[-1].name.split("-")[0]) + 1 if past else 1
    (live / HISTORY).mkdir(exist_ok=True)
    digest = digest_of(data).removeprefix("sha256:")
    write_whole(live / HISTORY / f"{number:0{_DIGITS}d}-{digest[:16]}.json", data)


def without_canary(manifest: bytes) -> bytes:
    """A manifest as it is without a canary, byte for byte."""
    try:
        body = json.loads(manifest)
        if body.pop("canary", None) is None:
            return manifest
    except (ValueError, AttributeError) as error:
        msg = f"{MANIFEST}: {type(error).__name__}: {error}"
        raise AssetError(msg) from error
    return manifest_bytes(body)


def promote(candidate: Path, live: Path, *, instead_of: str | None = None) -> str:
    """Make the live directory answer with the candidate's assets; returns the manifest's digest. A canary ends.

    Args:
        candidate: directory that a fit wrote.
        live: directory that is served.
        instead_of: digest of the manifest that is to be replaced; None: whichever is there.

    Raises:
        AssetError: if the candidate does not load; the live directory is then untouched.
        Conflict: another manifest is there.
    """
    data = copy_assets(candidate, live)
    with changing(live):
        expect(live, instead_of)
        keep(live)
        write_whole(live / MANIFEST, data)
        return load_assets(live).manifest_digest


def copy_assets(candidate: Path, live: Path) -> bytes:
    """Copy a candidate's assets, which nothing in `live` names yet; the candidate's manifest.

    Raises:
        AssetError: it does not load, or changed meanwhile.
    """
    assets = load_assets(candidate)
    data = read_file(candidate / MANIFEST, _LIMIT)
    if digest_of(data) != assets.manifest_digest:
        msg = "the candidate's manifest changed while it was read"
        raise AssetError(msg)
    live.mkdir(parents=True, exist_ok=True)
    for path in _files(candidate, assets):
        content = read_file(path, _LIMIT)
        if digest_of(content) != f"sha256:{path.stem}":
            msg = f"asset {path.name} changed while it was read"
            raise AssetError(msg)
        # a file of that name may be what a fault of the disk left: the digest decides
        if not (live / path.name).exists() or read_file(live / path.name, _LIMIT) != content:
            write_whole(live / path.name, content)
    return data


def earlier(live: Path, *, most: int = 20) -> list[str]:
    """Digests of the manifests that a rollback can go back to, the one before the last promotion first.

    Args:
        live: directory that is served.
        most: looked at, the newest ones.

    Raises:
        AssetError: one cannot be read.
    """
    now = digest_of(without_canary(read_file(live / MANIFEST, _LIMIT)))
    found = [digest_of(read_file(path, _LIMIT)) for path in reversed(history(live)[-most:])]
    return list(dict.fromkeys(digest for digest in found if digest != now))


def rollback(live: Path, *, instead_of: str | None = None, to: str | None = None) -> str:
    """Put an earlier manifest back in force, or end a canary; returns the manifest's digest.

    Args:
        live: directory that is served.
        instead_of: digest of the manifest that is to be taken back; None: whichever is there.
        to: digest of the manifest that is to be in force, one of `earlier`; None: the one before the last promotion,
            or during a canary the one that it is tried beside. What was promoted after it is forgotten.

    Raises:
        AssetError: if there is none, or one of its assets is missing or altered; nothing is changed then.
        Conflict: another manifest is there, `to` is none of the earlier ones, or it is given during a canary.
    """
    with changing(live):
        expect(live, instead_of)
        return _rolled_back(live, to)


def _rolled_back(live: Path, to: str | None) -> str:
    past = history(live)
    now = read_file(live / MANIFEST, _LIMIT)
    if without_canary(now) != now:
        if to is not None:
            msg = "a canary is on trial: end it first"
            raise Conflict(msg)
        # nothing was promoted yet: what is rolled back is the trial
        write_whole(live / MANIFEST, without_canary(now))
        return load_assets(live).manifest_digest
    # a promotion that was cut short leaves the manifest in force as the newest entry
    newest = [i for i, path in enumerate(past) if read_file(path, _LIMIT) != now]
    if to is not None:
        newest = [i for i in newest if digest_of(read_file(past[i], _LIMIT)) == to]
    if not newest:
        msg = "nothing to roll back to" if to is None else "nothing of this digest was in force before"
        raise AssetError(msg) if to is None else Conflict(msg)
    target = past[newest[-1]]
    data = read_file(target, _LIMIT)
    load_assets(live, manifest=target)
    write_whole(live / MANIFEST, data)
    for path in past[newest[-1] :]:
        path.unlink()
    return load_assets(live).manifest_digest
