"""Assets as bytes and back: deterministic `.npz` archives (no pickle) for arrays, canonical JSON for policies.

The same asset always gives the same bytes, hence the same digest. Decoding refuses whatever is not exactly
what encoding writes: a wrong shape, a non-finite number, an unsorted table.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import (
    MOST_HEADS,
    Asset,
    DetectorAsset,
    Head,
    MaskCalibration,
    MultivariateAsset,
    ProjectionAsset,
    Provenance,
    RoutingPolicy,
    TierRule,
)
from tcd.contract import COMPONENTS, DECODERS, TIERS
from tcd.detector.catalogue import AGES, NAMES
from tcd.errors import AssetError

Arrays = dict[str, NDArray[np.generic]]
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
#: Limits of what an archive may hold.
MAX_BYTES: Final = 64 * 2**20
_MAX_MEMBERS: Final = 512
_META: Final = "meta"


def digest_of(data: bytes) -> str:
    """`sha256:` and the hex digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _archive(meta: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    out = io.BytesIO()
    members: Arrays = {_META: np.frombuffer(_json(meta), np.uint8), **arrays}
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(members):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(members[name]), version=(1, 0), allow_pickle=False)  # type: ignore[no-untyped-call]
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue(), compresslevel=9)
    return out.getvalue()


def _members(data: bytes) -> Arrays:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        if len(infos) > _MAX_MEMBERS or sum(info.file_size for info in infos) > MAX_BYTES:
            msg = "archive too large"
            raise AssetError(msg)
        out: Arrays = {}
        for info in infos:
            with archive.open(info) as member:
                array = np.lib.format.read_array(member, allow_pickle=False)  # type: ignore[no-untyped-call]
            out[info.filename.removesuffix(".npy")] = array
    return out


class _Reader:
    """Reads members of an archive by name and checks them."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.meta: dict[str, Any] = json.loads(self._arrays[_META].tobytes())

    def array(self, name: str, *, ndim: int, ascending: bool = False) -> NDArray[np.float64]:
        array = self._arrays[name]
        if array.ndim != ndim or array.dtype != np.float64 or not np.isfinite(array).all():
            msg = f"{name}: not a finite FP64 array of {ndim} axes"
            raise AssetError(msg)
        if ascending and (np.diff(array) < 0).any():
            msg = f"{name}: not sorted"
            raise AssetError(msg)
        out = array.astype(np.float64)
        out.setflags(write=False)
        return out


def _require(ok: object, detail: str) -> None:
    if not ok:
        raise AssetError(detail)


def _detector_members(asset: DetectorAsset) -> tuple[dict[str, Any], Arrays]:
    arrays: Arrays = {"location": asset.location, "scale": asset.scale}
    masks = []
    for number, mask in sorted(asset.masks.items()):
        entry = {"mask": number, "intercepts": [head.intercept for head in mask.heads], "level": mask.level}
        if mask.adjusted is not None:
            arrays[f"adjusted_{number}"] = mask.adjusted
        masks.append(entry)
        arrays[f"weights_{number}"] = np.array([(head.linear, head.quadratic) for head in mask.heads])
        arrays |= {f"steps_{number}": mask.steps, f"sessions_{number}": mask.sessions}
        arrays |= {f"component_{number}_{i}": table for i, table in enumerate(mask.components)}
    meta = {"statistics": list(asset.statistics), "features": asset.features, "masks": masks}
    return meta | _delta_member(asset), arrays


def _delta_member(asset: DetectorAsset | MultivariateAsset) -> dict[str, float]:
    """Only where there is one: assets of marginal p-values keep the bytes they had before there were others."""
    return {"delta": asset.delta} if asset.delta > 0 else {}


def _read_heads(reader: _Reader, entry: dict[str, Any], number: int, width: int) -> tuple[Head, ...]:
    intercepts = [float(intercept) for intercept in entry["intercepts"]]
    weights = reader.array(f"weights_{number}", ndim=3)
    fits = 0 < len(intercepts) <= MOST_HEADS and weights.shape == (len(intercepts), 2, width)
    _require(fits, f"mask {number}: weights do not fit")
    _require((weights[:, 1] >= 0).all(), f"mask {number}: a negative quadratic weight")
    _require(np.isfinite(intercepts).all(), f"mask {number}: intercept out of range")
    return tuple(Head(one, *parts) for one, parts in zip(intercepts, weights, strict=True))


def _delta(meta: dict[str, Any]) -> float:
    delta = float(meta.get("delta", 0.0))
    _require(0 <= delta < 1, "delta out of [0, 1)")
    return delta


def _read_adjusted(reader: _Reader, name: str, n: int, delta: float) -> NDArray[np.float64] | None:
    """The adjusted p-values of a table of n, which an asset has where its delta is not 0."""
    if not delta:
        return None
    adjusted = reader.array(name, ndim=1, ascending=True)
    _require(adjusted.shape == (n + 1,) and adjusted[-1] == 1, f"{name}: not one p-value per count, the last one 1")
    # never under the marginal ones: what holds for those holds for these
    _require((adjusted >= np.arange(1, n + 2) / (n + 1.0)).all(), f"{name}: under the marginal p-values")
    return adjusted


def _read_mask(reader: _Reader, entry: dict[str, Any], width: int) -> MaskCalibration:
    number = int(entry["mask"])
    sessions = reader.array(f"sessions_{number}", ndim=1, ascending=True)
    mask = MaskCalibration(
        mask=number,
        heads=_read_heads(reader, entry, number, width),
        steps=reader.array(f"steps_{number}", ndim=1, ascending=True),
        sessions=sessions,
        components=tuple(
            reader.array(f"component_{number}_{i}", ndim=1, ascending=True) for i in range(len(COMPONENTS))
        ),
        level=float(entry["level"]),
        adjusted=_read_adjusted(reader, f"adjusted_{number}", sessions.shape[0], _delta(reader.meta)),
    )
    _require(0 <= mask.level <= 1, f"mask {number}: level out of range")
    return mask


def _read_detector(digest: str, provenance: Provenance, reader: _Reader) -> DetectorAsset:
    names = tuple(str(name) for name in reader.meta["statistics"])
    location, scale = reader.array("location", ndim=2), reader.array("scale", ndim=2)
    fits = location.shape == scale.shape == (AGES.shape[0] + 1, len(names))
    _require(fits and names == NAMES, "location and scale do not fit the statistics")
    _require((scale > 0).all(), "a scale is not positive")
    masks = {int(entry["mask"]): _read_mask(reader, entry, len(names)) for entry in reader.meta["masks"]}
    features, delta = int(reader.meta["features"]), _delta(reader.meta)
    return DetectorAsset(digest, provenance, names, location, scale, features, masks, delta)


def _read_multivariate(digest: str, provenance: Provenance, reader: _Reader) -> MultivariateAsset:
    meta = reader.meta
    mean, cholesky = reader.array("mean", ndim=1), reader.array("cholesky", ndim=2)
    _require(cholesky.shape == (mean.shape[0],) * 2 and (np.diag(cholesky) > 0).all(), "not a Cholesky factor")
    _require(0 < float(meta["smoothing"]) <= 1, "smoothing out of (0, 1]")
    sessions, delta = reader.array("sessions", ndim=1, ascending=True), _delta(meta)
    return MultivariateAsset(
        digest=digest,
        provenance=provenance,
        mean=mean,
        cholesky=cholesky,
        shrinkage=float(meta["shrinkage"]),
        smoothing=float(meta["smoothing"]),
        jitter=float(meta["jitter"]),
        steps=reader.array("steps", ndim=1, ascending=True),
        sessions=sessions,
        threshold=float(meta["threshold"]),
        threshold_alpha=float(meta["threshold_alpha"]),
        adjusted=_read_adjusted(reader, "adjusted", sessions.shape[0], delta),
        delta=delta,
    )


def _read_policy(digest: str, provenance: Provenance, meta: dict[str, Any]) -> RoutingPolicy:
    rules = []
    for entry in meta["tiers"]:
        clamp = entry["temperature"]
        rule = TierRule(
            temperature=None if clamp is None else (float(clamp[0]), float(clamp[1])),
            top_p=None if entry["top_p"] is None else float(entry["top_p"]),
            max_tokens=None if entry["max_tokens"] is None else int(entry["max_tokens"]),
            decoder=int(entry["decoder"]),
        )
        _require(0 <= rule.decoder < len(DECODERS), "unknown decoder code")
        _require(rule.temperature is None or 0 <= rule.temperature[0] <= rule.temperature[1], "temperature clamp")
        _require(rule.top_p is None or 0 < rule.top_p <= 1, "top_p out of (0, 1]")
        _require(rule.max_tokens is None or rule.max_tokens >= 0, "max_tokens is negative")
        rules.append(rule)
    _require(len(rules) == len(TIERS), "a policy has three tiers")
    policy = RoutingPolicy(
        digest=digest,
        provenance=provenance,
        name=str(meta["name"]),
        weight=float(meta["weight"]),
        drift=float(meta["drift"]),
        failed=int(meta["failed"]),
        tiers=(rules[0], rules[1], rules[2]),
    )
    _require(0 <= policy.weight <= 1, "weight out of [0, 1]")
    _require(policy.drift > 0, "the drift threshold must be positive")
    return policy


def encode(asset: Asset) -> bytes:
    """Bytes of an asset's file; the asset's own digest is not among them."""
    head = {"provenance": asdict(asset.provenance)}
    if isinstance(asset, RoutingPolicy):
        body = {"name": asset.name, "weight": asset.weight, "drift": asset.drift, "failed": asset.failed}
        return _json({"kind": "policy", **head, **body, "tiers": [asdict(rule) for rule in asset.tiers]}) + b"\n"
    if isinstance(asset, DetectorAsset):
        meta, arrays = _detector_members(asset)
        return _archive({"kind": "detector", **head, **meta}, arrays)
    if isinstance(asset, ProjectionAsset):
        return _archive({"kind": "projection", **head}, {"matrix": asset.matrix})
    names = ("shrinkage", "smoothing", "jitter", "threshold", "threshold_alpha")
    meta = {name: getattr(asset, name) for name in names} | _delta_member(asset)
    arrays = {name: getattr(asset, name) for name in ("mean", "cholesky", "steps", "sessions")}
    if asset.adjusted is not None:
        arrays["adjusted"] = asset.adjusted
    return _archive({"kind": "multivariate", **head, **meta}, arrays)


def suffix(asset: Asset) -> str:
    """File suffix of an asset."""
    return ".json" if isinstance(asset, RoutingPolicy) else ".npz"


def decode(data: bytes) -> Asset:
    """Read an asset from the bytes of its file.

    Raises:
        AssetError: if the bytes are not an asset, saying why.
    """
    digest = digest_of(data)
    try:
        if data[:1] == b"{":
            meta = json.loads(data)
            _require(meta["kind"] == "policy", "unknown kind")
            return _read_policy(digest, Provenance(**meta["provenance"]), meta)
        reader = _Reader(_members(data))
        provenance = Provenance(**reader.meta["provenance"])
        if reader.meta["kind"] == "detector":
            return _read_detector(digest, provenance, reader)
        if reader.meta["kind"] == "multivariate":
            return _read_multivariate(digest, provenance, reader)
        _require(reader.meta["kind"] == "projection", "unknown kind")
        return ProjectionAsset(digest, provenance, reader.array("matrix", ndim=2))
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
        RecursionError,
    ) as error:
        msg = f"not an asset: {type(error).__name__}: {error}"
        raise AssetError(msg) from error
