"""Asset directories: content-addressed files and the one manifest that points to them.

The only module of the package with I/O on the serving path. Files are written to a temporary name, synced and
renamed; a digest is checked at every load; a broken directory raises `AssetError` and never half-loads.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from tcd.calibration.assets import (
    Asset,
    AssetSet,
    Binding,
    Canary,
    DetectorAsset,
    MultivariateAsset,
    ProjectionAsset,
    RoutingPolicy,
    canary_key,
)
from tcd.calibration.codec import MAX_BYTES, decode, digest_of, encode, suffix
from tcd.errors import AssetError
from tcd.files import write_whole

MANIFEST: Final = "manifest.json"
SCHEMA: Final = "tcd-assets-1"
_MAX_MANIFEST: Final = 4 * 2**20
_MAX_ASSETS: Final = 4096
_HEX_DIGITS: Final = 64


def default_asset_dir() -> Path:
    """Directory of the demonstration assets that ship with the package."""
    return Path(str(files("tcd") / "data" / "demo_assets"))


def read_file(path: Path, limit: int) -> bytes:
    """Bytes of a file of at most `limit` bytes.

    Raises:
        AssetError: if it cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        msg = f"{path.name}: {error.strerror or error}"
        raise AssetError(msg) from error
    if len(data) > limit:
        msg = f"{path.name}: larger than {limit} bytes"
        raise AssetError(msg)
    return data


def write_asset(directory: Path, asset: Asset) -> str:
    """Write an asset under its digest, atomically; returns the digest. Writing it again changes nothing."""
    data = encode(asset)
    digest = digest_of(data)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / (digest.removeprefix("sha256:") + suffix(asset))
    if not path.exists():
        write_whole(path, data)
    return digest


def write_manifest(
    directory: Path,
    *,
    bindings: Iterable[Binding],
    default: Binding | None = None,
    policies: Mapping[int, str] | None = None,
    projections: Iterable[str] = (),
) -> str:
    """Point the directory at a set of assets, atomically; returns the manifest's digest.

    Args:
        directory: the asset directory.
        bindings: which assets answer which key.
        default: which assets answer all other keys (as a fall-back).
        policies: digests of routing policies by id; 0 is the default.
        projections: digests of recorded projections.
    """

    def entry(binding: Binding) -> dict[str, Any]:
        assets = {"detector": binding.detector, "multivariate": binding.multivariate}
        return {"key": f"{binding.key:016x}", "level": binding.level, **assets}

    body = {
        "schema": SCHEMA,
        "keys": sorted((entry(b) for b in bindings), key=lambda e: str(e["key"])),
        "default": entry(default) if default else None,
        "policies": {str(i): digest for i, digest in sorted((policies or {}).items())},
        "projections": sorted(projections),
    }
    data = manifest_bytes(body)
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / MANIFEST, data)
    return digest_of(data)


def manifest_bytes(body: Mapping[str, Any]) -> bytes:
    """A manifest as it is written."""
    return json.dumps(body, indent=1, sort_keys=True).encode() + b"\n"


def read_asset(directory: Path, digest: str, *, suffixes: tuple[str, ...] = (".npz", ".json")) -> Asset:
    """Read one asset by digest.

    Raises:
        AssetError: when it is missing, altered, too large or not an asset.
    """
    name = digest.removeprefix("sha256:")
    if len(name) != _HEX_DIGITS or not set(name) <= set("0123456789abcdef"):
        msg = f"not a digest: {digest[:80]!r}"
        raise AssetError(msg)
    path = next((p for p in (directory / (name + s) for s in suffixes) if p.exists()), None)
    if path is None:
        msg = f"asset {digest} is missing"
        raise AssetError(msg)
    data = read_file(path, MAX_BYTES)
    if digest_of(data) != digest:
        msg = f"asset {digest}: the file's digest is {digest_of(data)}"
        raise AssetError(msg)
    return decode(data)


def _binding(entry: dict[str, Any]) -> Binding:
    level = entry["level"]
    if not isinstance(level, int) or not 0 <= level <= 3:  # noqa: PLR2004 - the levels of KEY and the default
        msg = f"level {level!r} out of 0..3"
        raise ValueError(msg)
    return Binding(int(entry["key"], 16), level, entry["detector"], entry["multivariate"])


def _canary(entry: dict[str, Any]) -> Canary:
    share, sessions = float(entry["share"]), int(entry["sessions"])
    if not 0.0 < share < 1.0 or sessions < 1:
        msg = f"a canary of {share} and {sessions} sessions"
        raise ValueError(msg)
    return Canary(str(entry["id"]), share, sessions, {b.key: b for b in map(_binding, entry["keys"])})


def _known_schema(schema: object) -> None:
    if schema != SCHEMA:
        msg = f"schema {schema!r}, expected {SCHEMA!r}"
        raise ValueError(msg)


def load_assets(directory: Path, *, manifest: Path | None = None) -> AssetSet:
    """Load everything the directory's manifest, or another of it, names.

    Raises:
        AssetError: when the manifest or any named asset is missing, altered or malformed.
    """
    data = read_file(manifest or directory / MANIFEST, _MAX_MANIFEST)
    try:
        body = json.loads(data)
        _known_schema(body["schema"])
        bindings = [_binding(entry) for entry in body["keys"]]
        default = _binding(body["default"]) if body["default"] is not None else None
        policies = {int(i): str(digest) for i, digest in body["policies"].items()}
        projections = [str(digest) for digest in body["projections"]]
        canary = _canary(body["canary"]) if body.get("canary") is not None else None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        msg = f"{MANIFEST}: {type(error).__name__}: {error}"
        raise AssetError(msg) from error
    if canary is not None:
        bindings += [replace(b, key=canary_key(canary.id, b.key)) for b in canary.bindings.values()]
    named = [b for b in (*bindings, default) if b is not None]
    pools: dict[type[Asset], dict[str, Any]] = {
        DetectorAsset: dict.fromkeys(b.detector for b in named if b.detector),
        MultivariateAsset: dict.fromkeys(b.multivariate for b in named if b.multivariate),
        RoutingPolicy: dict.fromkeys(policies.values()),
        ProjectionAsset: dict.fromkeys(projections),
    }
    if sum(map(len, pools.values())) > _MAX_ASSETS:
        msg = f"{MANIFEST}: more than {_MAX_ASSETS} assets"
        raise AssetError(msg)
    for kind, pool in pools.items():
        for digest in pool:
            asset = read_asset(directory, str(digest))
            if not isinstance(asset, kind):
                msg = f"asset {digest} is a {type(asset).__name__}, not a {kind.__name__}"
                raise AssetError(msg)
            pool[digest] = asset
    return AssetSet(
        manifest_digest=digest_of(data),
        detectors=pools[DetectorAsset],
        multivariates=pools[MultivariateAsset],
        routing=pools[RoutingPolicy],
        projections=pools[ProjectionAsset],
        bindings={b.key: b for b in bindings},
        default=default,
        policies=policies,
        canary=canary,
    )


class AssetDirectory:
    """An asset directory that is re-read when its manifest changes. Safe to share between threads."""

    def __init__(self, directory: Path) -> None:
        """Load the directory.

        Raises:
            AssetError: when it cannot be loaded.
        """
        self._directory = directory
        # looked at in every execution of a model: plain text is opened twice as fast as a path
        self._manifest = os.fspath(directory / MANIFEST)
        self._lock = threading.Lock()
        self._stamp = self._stat()
        self._current = load_assets(directory)
        #: Why the newest manifest was refused, None while the newest one is in use.
        self.refused: str | None = None

    @property
    def directory(self) -> Path:
        """The directory."""
        return self._directory

    @property
    def manifest(self) -> str:
        """Path of the manifest."""
        return self._manifest

    @property
    def stamp(self) -> tuple[int, int, int] | None:
        """Inode, time in nanoseconds and size of the manifest that was looked at last, None when there was none."""
        return self._stamp

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self._manifest)  # noqa: PTH116 - see above
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def current(self) -> AssetSet:
        """The newest complete set. A manifest that cannot be loaded is refused and the old set stays in use."""
        stamp = self._stat()
        if stamp == self._stamp:
            return self._current
        with self._lock:
            if stamp != self._stamp:
                try:
                    self._current = load_assets(self._directory)
                    self.refused = None
                except AssetError as error:
                    self.refused = error.detail
                self._stamp = stamp
        return self._current
